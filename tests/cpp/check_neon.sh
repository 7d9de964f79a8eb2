#!/usr/bin/env bash
# The NEON kernels without an Arm machine: all four kernel units must compile, and the accuracy driver runs under qemu.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags=(-std=c++20 -O3 -Wall -Wextra -Wno-psabi -ffp-contract=off -fno-math-errno -fno-trapping-math -DGEOACT_ISA=neon)
for pair in float16=half bfloat16=bfloat16 float32=float float64=double; do
  aarch64-linux-gnu-g++ "${flags[@]}" -fno-exceptions -fno-rtti -DGEOACT_STORAGE="${pair#*=}" \
    -DGEOACT_TABLE="neon_${pair%=*}" -c csrc/cpu/isa.cpp -o "$out/${pair%=*}.o"
done
aarch64-linux-gnu-g++ "${flags[@]}" -static tests/cpp/accuracy.cpp -o "$out/accuracy"
qemu-aarch64-static "$out/accuracy" 4099 20000
