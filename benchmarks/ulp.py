"""Largest error of every activation, dtype and instruction set, in units in the last place; docs/accuracy.md shows it.

    python benchmarks/ulp.py [--stride 1021] [--points 2000]

- float32: every ``stride``-th bit pattern (default: 4.2 million, all exponents, both signs, so all tails), against the
  float64 kernel of the same instruction set.
- float64: ``points`` arguments against the reference of the registry row evaluated with 60 digits. That is also what
  entitles the float64 kernel to judge float32: its error is below 1e-8 of a float32 unit.
- float16, bfloat16: all 65536 patterns; the result must be the float32 result, correctly rounded, bit for bit.

tests/cpp/accuracy.cpp does the same for all 2^32 patterns of float32. Needs the packages of the extra ``dev``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parent.parent / "tests"))

import geoact
import numpy as np
from cases import RESULTS, ROOT
from geoact import _core
from geoact.bench import environment, results
from rich.progress import track
from support import precise
from support.cases import DTYPES, NARROW, PLAIN, Case, raw

PRECISION, SMALLEST = 24, -126  # of float32
CENTRES = (0.0, 0.5, 1.0, 3.0, 6.0, 8.0, 12.5, 15.0, 20.0, 30.0, 38.5, 88.7, 103.9, 708.4, 745.1)


def patterns(stride: int) -> np.ndarray:
    """Every ``stride``-th finite float32; an odd stride meets every value of the low bits."""
    values = np.arange(0, 1 << 32, stride, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return values[np.isfinite(values)]


def points(count: int) -> np.ndarray:
    """Float64 arguments: around thresholds, uniform at many widths, and over the whole range of exponents."""
    random = np.random.default_rng(5)
    near = [np.nextafter(s * c, s * side) for c in CENTRES for s in (-1, 1) for side in (-np.inf, np.inf)]
    share = (count - len(near)) // 8
    uniform = [random.uniform(-w, w, share) for w in (0.7, 3.0, 12.0, 45.0, 110.0, 760.0)]
    magnitudes = np.ldexp(random.uniform(1, 2, 2 * share), random.integers(-1070, 1020, 2 * share))
    signs = random.choice([-1.0, 1.0], 2 * share)
    return np.concatenate([near, *uniform, magnitudes * signs])


def float32_error(case: Case, x: np.ndarray, wide: np.ndarray) -> tuple[float, float]:
    """Largest error and its argument."""
    with np.errstate(all="ignore"):
        y = case(x).astype(np.float64)
        expected = Case(case.name, case.parameters(np.dtype(np.float32)))(wide)
        size = np.abs(expected)
        if case.row.size is not None:
            size = np.maximum(size, case.row.size(wide, *case.parameters(np.dtype(np.float32))))
        _, exponent = np.frexp(size)
        error = np.ldexp(np.abs(y - expected), PRECISION - 1 - np.maximum(exponent - 1, SMALLEST))
        # Beyond the range of float32 the result is infinite, or the largest number where it rounds to that.
        beyond = np.abs(expected) > np.finfo(np.float32).max
        error = np.where(beyond, np.where(np.abs(y) >= np.finfo(np.float32).max, 0, np.inf), error)
    error[np.isnan(error)] = np.inf
    worst = int(np.argmax(error))
    return float(error[worst]), float(x[worst])


def float64_error(case: Case, x: np.ndarray, expected: list[object], sizes: list[object]) -> tuple[float, float]:
    errors = [precise.ulps(*each) for each in zip(case(x), expected, sizes, strict=True)]
    worst = int(np.argmax(errors))
    return float(errors[worst]), float(x[worst])


def wrong_patterns(case: Case, narrow: np.dtype) -> int:
    """How many of the 65536 results are not the rounded float32 result."""
    x = np.arange(1 << 16, dtype=np.uint16).view(narrow)
    with np.errstate(all="ignore"):
        return int(np.count_nonzero(raw(case(x)) != raw(case(x.astype(np.float32)).astype(narrow))))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stride", type=int, default=1021, help="of float32 bit patterns, odd")
    parser.add_argument("--points", type=int, default=2000, help="float64 arguments")
    options = parser.parse_args()
    x32, x64 = patterns(options.stride), points(options.points)
    wide = x32.astype(np.float64)
    rows = []

    def sample() -> np.ndarray:
        return x64

    for case in track(PLAIN, description="ulp"):
        exact, sizes = precise.values(case, sample), precise.sizes(case, sample)
        for isa in _core.supported_isas():
            geoact.set_isa(isa)
            e32, at32 = float32_error(case, x32, wide)
            e64, at64 = float64_error(case, x64, exact, sizes)
            wrong = {str(narrow): wrong_patterns(case, narrow) for narrow in NARROW}
            promise = case.row.ulp
            kept = e32 <= promise["float32"] and e64 <= promise["float64"] and not any(wrong.values())
            row = {"activation": case.name, "parameters": case.values, "isa": isa, "promise": promise, "kept": kept}
            row |= {"float32": e32, "at32": at32, "float64": e64, "at64": at64, "wrong": wrong}
            rows.append(row)
            if not kept:
                print(f"{case} {isa}: promise not kept: {row}", file=sys.stderr)
    geoact.set_isa(_core.supported_isas()[0])
    document = {"schema": 1, "environment": environment.describe(["ml_dtypes"], root=ROOT), "rows": rows}
    document |= {
        "stride": options.stride,
        "patterns": len(x32),
        "points": len(x64),
        "narrow": [str(DTYPES[str(n)]) for n in NARROW],
    }
    results.save(RESULTS / "accuracy.json", document)
    subprocess.run([sys.executable, str(ROOT / "docs" / "generate.py")], check=True)
    return 0 if all(row["kept"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
