#!/usr/bin/env bash
# Every kernel object may define its one table, and weak symbols only under the name of its own instruction set: a weak
# symbol with a shared name is a function the linker could keep in its AVX-512 version for everyone.
# (The CUDA kernels, on a GPU or simulated, are of one kind and in modules of their own.)
set -euo pipefail
cd "$(dirname "$0")/../.."
objects=$(find build -path '*/kernels_*.dir/*' -name '*.o' | sort)
[ -n "$objects" ] || { echo "no kernel objects under build/: run make test first"; exit 1; }
bad=0
for object in $objects; do
  isa=$(sed -E 's/.*kernels_([a-z0-9]+)_.*/\1/' <<<"$object")
  dtype=$(sed -E 's/.*kernels_[a-z0-9]+_([a-z0-9]+)\.dir.*/\1/' <<<"$object")
  while read -r kind name; do
    case "$kind $name" in
      "R geoact::${isa}_${dtype}" | "D geoact::${isa}_${dtype}") ;;
      [WVu]\ *"geoact::${isa}::"*) ;;
      *) echo "$object exports $kind $name"; bad=1 ;;
    esac
  done < <(nm -C --defined-only --extern-only "$object" | sed -E 's/^[0-9a-f]+ //')
done
[ $bad = 0 ] && echo "$(wc -w <<<"$objects") kernel objects checked"
exit $bad
