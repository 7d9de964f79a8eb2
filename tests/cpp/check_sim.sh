#!/usr/bin/env bash
# The simulation of CUDA on the host, in its four variants: what is right passes in each, and every planted bug is
# caught, at its line. VERBOSE=1 shows the reports.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
common=(-std=c++20 -Wall -Wextra -pthread)

# build <variant> <source...>: prints the program made of the sources and the simulator.
build() {
  local variant=$1 flags
  shift
  case $variant in
    plain) flags=(-O2) ;;
    address) flags=(-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined) ;;
    blocks) flags=(-O1 -g -fsanitize=thread) ;;  # races between blocks; threads of a block are fibers
    thread) flags=(-O1 -g -fsanitize=thread -DGEOACT_SIM_OS_THREADS) ;;  # races within a block
    *) echo "no variant is called $variant" >&2; return 2 ;;
  esac
  local program=$out/$variant-$(basename "${1%.*}")
  "${CXX:-g++}" "${common[@]}" "${flags[@]}" "$@" csrc/cuda/sim.cpp -o "$program" && echo "$program"
}

export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=halt_on_error=1

bad=0
passes() {
  if timeout 300 "$@" >"$out/log" 2>&1; then
    [ -z "${VERBOSE:-}" ] || cat "$out/log"
  else
    bad=1
    echo "FAILED: $(basename "$1") ${*:2}"
    head -40 "$out/log"
  fi
}

# caught <program> <bug> <words of the report>: fails, says so, and names the line marked "BUG <bug>".
caught() {
  local line
  line=$(grep -n "// BUG $2\b *\$" tests/cpp/sim.cpp | cut -d: -f1)
  if timeout 60 "$1" "$2" >"$out/log" 2>&1 || ! grep -qE "$3" "$out/log" || ! grep -qF "sim.cpp:$line" "$out/log"; then
    bad=1
    echo "NOT CAUGHT: $2 (line $line) by $(basename "$1")"
    head -40 "$out/log"
  else
    echo "caught: $2, $(grep -oEm1 "$3" "$out/log")"
    [ -z "${VERBOSE:-}" ] || cat "$out/log"
  fi
}

# refused <variable> <value>: not silently ignored.
refused() {
  if env "$1=$2" "$plain" >"$out/log" 2>&1 || ! grep -q "$1 is" "$out/log"; then
    bad=1
    echo "FAILED: $1=$2 is accepted"
  fi
}

for variant in thread blocks; do build $variant tests/cpp/sim.cpp >"$out/$variant.name"; done &
plain=$(build plain tests/cpp/sim.cpp)
address=$(build address tests/cpp/sim.cpp)
wait $!
thread=$(cat "$out/thread.name")
blocks=$(cat "$out/blocks.name")

passes "$plain"
passes env GEOACT_SIM_ORDER=random:7 GEOACT_SIM_THREADS=4 "$plain"
refused GEOACT_SIM_ORDER sideways
refused GEOACT_SIM_ORDER random:
refused GEOACT_SIM_THREADS 0
passes "$address"
passes "$thread"
passes "$blocks"
passes "$blocks" fence-safe

caught "$address" global heap-buffer-overflow
caught "$address" dynamic heap-buffer-overflow
caught "$address" fixed heap-buffer-overflow
caught "$address" local 'insufficient space|stack-buffer-overflow'
caught "$address" misaligned 'misaligned address'
caught "$address" misaligned-load 'misaligned address'
caught "$thread" race 'data race'
caught "$thread" race-plain 'data race'
caught "$thread" race-warp 'data race'
caught "$blocks" blocks 'data race'
caught "$blocks" fence 'data race'

# The real kernels, in every variant and order.
kernels=(tests/cpp/kernels_sim.cpp tests/cpp/kernels_float32.cpp csrc/cuda/{launch,mask_launch,observe_launch}.cpp
         csrc/cuda/runtime_sim.cpp csrc/call/{call,mask}.cpp -DGEOACT_SIM -ffp-contract=off -Wno-unknown-pragmas -Wno-unused-parameter)
for variant in plain address thread blocks; do
  program=$(build $variant "${kernels[@]}")
  for order in forward reverse random:5; do
    [ $variant = plain ] || [ $order != reverse ] || continue
    passes env GEOACT_SIM_ORDER=$order "$program"
  done
done

[ $bad = 0 ] && "$plain" cost && echo "the simulation is right and catches every planted bug"
exit $bad
