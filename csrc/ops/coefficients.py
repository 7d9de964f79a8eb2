"""Derives every polynomial of vocabulary.h and writes coefficients.h.

    python csrc/ops/coefficients.py > csrc/ops/coefficients.h

Each polynomial is the minimax one for the stated function, interval and weight (Remez exchange in 60 digits).
Float32 coefficients are rounded one at a time, lowest power first, and the rest is fitted again after each
rounding, so that their rounding errors cancel instead of adding up.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import mpmath as mp
import numpy as np

mp.mp.dps = 60
Function = Callable[[mp.mpf], mp.mpf]


def spread(a: mp.mpf, b: mp.mpf, count: int) -> list[mp.mpf]:
    """Chebyshev's points; on a long interval, which here starts at 0, those of (x - 3) / (x + 3)."""
    if b > 3:
        return [3 * (1 + t) / (1 - t) for t in spread((a - 3) / (a + 3), (b - 3) / (b + 3), count)]
    return [(a + b) / 2 - (b - a) / 2 * mp.cos(mp.pi * i / (count - 1)) for i in range(count)]


def extrema(error: list[mp.mpf], count: int) -> list[int]:
    """Where the largest error of each run of one sign is; at most `count`, by leaving out at the ends."""
    peaks = [0]
    for i in range(1, len(error)):
        if mp.sign(error[i]) != mp.sign(error[peaks[-1]]):
            peaks.append(i)
        elif abs(error[i]) > abs(error[peaks[-1]]):
            peaks[-1] = i
    while len(peaks) > count:
        peaks.pop(0 if abs(error[peaks[0]]) < abs(error[peaks[-1]]) else -1)
    return peaks


def level(f: Function, weight: Function, nodes: list[mp.mpf], degree: int, below: int, first: int) -> list[mp.mpf]:
    """P / Q of equal, alternating weighted errors at the nodes; P starts at x^first, Q at 1."""
    count, above = len(nodes), degree - first + 1
    if below == 0:
        system, right = mp.matrix(count, count), mp.matrix(count, 1)
        for i, x in enumerate(nodes):
            for k in range(above):
                system[i, k] = x ** (first + k)
            system[i, count - 1] = (-1) ** i / weight(x)
            right[i] = f(x)
        solution = mp.lu_solve(system, right)
        return [*(solution[k] for k in range(above)), mp.mpf(1)]
    # P - f Q = E (-1)^i Q / weight: E is an eigenvalue, and the one wanted is that whose Q has no zero.
    left, right = mp.matrix(count, count), mp.matrix(count, count)
    for i, x in enumerate(nodes):
        for k in range(above):
            left[i, k] = x ** (first + k)
        for k in range(below + 1):
            left[i, above + k] = -f(x) * x**k
            right[i, above + k] = (-1) ** i / weight(x) * x**k
    values, vectors = mp.eig(left**-1 * right)
    candidates = []
    for j, value in enumerate(values):
        if abs(value) < mp.mpf(10) ** -45 or abs(mp.im(value)) > abs(value) * mp.mpf(10) ** -15:
            continue
        found = [mp.re(vectors[i, j] / vectors[above, j]) for i in range(count)]
        if all(mp.polyval(found[above:][::-1], nodes[-1] * (mp.mpf(i) / 400) ** 2) > 0 for i in range(401)):
            candidates.append((-abs(value), found))
    return min(candidates, key=lambda c: c[0])[1]


def minimax(
    f: Function, weight: Function, a: mp.mpf, b: mp.mpf, degree: int, below: int = 0, first: int = 0
) -> tuple[list[mp.mpf], list[mp.mpf]]:
    """P (x^first .. x^degree) and Q (1 .. x^below) with the smallest maximum of weight * |f - P / Q|."""
    count, above = degree - first + below + 2, degree - first + 1
    nodes = [40 * i for i in range(count)]
    # A quotient's exchange needs a start near its end: the nodes of a shorter interval.
    ends = [b ** (mp.mpf(i) / 6) for i in range(1, 7)] if below else [b]
    for end in ends:
        grid = spread(a, end, 40 * (count - 1) + 1)
        values, weights = [f(x) for x in grid], [weight(x) for x in grid]
        for _ in range(40):
            found = level(f, weight, [grid[i] for i in nodes], degree, below, first)
            top, bottom = found[:above], found[above:]
            error = [
                (y - x**first * mp.polyval(top[::-1], x) / mp.polyval(bottom[::-1], x)) * w
                for x, y, w in zip(grid, values, weights, strict=True)
            ]
            peaks = extrema(error, count)
            if len(peaks) < count:
                break
            nodes = peaks
            sizes = [abs(error[i]) for i in nodes]
            if max(sizes) < min(sizes) * mp.mpf("1.01"):
                break
    return top, bottom


def rounded(value: mp.mpf, bits: int) -> mp.mpf:
    """To the nearest number of so many bits."""
    with mp.workprec(bits):
        return +value


def fit(f: Function, weight: Function, a: mp.mpf, b: mp.mpf, degree: int, bits: int) -> list[mp.mpf]:
    """Fit the minimax polynomial with coefficients of `bits` bits."""
    best = [rounded(c, bits) for c in minimax(f, weight, a, b, degree)[0]]
    if bits == 53:  # the fit is far below the rounding of the evaluation
        return best
    kept: list[mp.mpf] = []
    for first in range(degree + 1):

        def left(x: mp.mpf) -> mp.mpf:
            return f(x) - mp.polyval(kept[::-1], x) if kept else f(x)

        kept.append(rounded(minimax(left, weight, a, b, degree, 0, first)[0][0], bits))
    return min(best, kept, key=lambda c: worst(f, weight, a, b, c))


def worst(f: Function, weight: Function, a: float, b: float, coefficients: list[mp.mpf]) -> mp.mpf:
    """Find the largest weighted error of a polynomial."""
    grid = spread(mp.mpf(a), mp.mpf(b), 2001)
    return max(abs(f(x) - mp.polyval(coefficients[::-1], x)) * weight(x) for x in grid)


def exp_tail(r: mp.mpf) -> mp.mpf:
    """Return what exp(r) has beyond 1 + r, over r^2."""
    return (mp.expm1(r) - r) / r**2 if abs(r) > mp.mpf(10) ** -25 else mp.mpf(1) / 2 + r / 6


def log1p_ratio(e: mp.mpf) -> mp.mpf:
    """log(1 + e) / e."""
    return mp.log1p(e) / e if e > mp.mpf(10) ** -40 else mp.mpf(1)


def erf_ratio(s: mp.mpf) -> mp.mpf:
    """Return what erf(u) / u has beyond 1, as a function of s = u^2."""
    u = mp.sqrt(s)
    return mp.erf(u) / u - 1 if s > mp.mpf(10) ** -30 else 2 / mp.sqrt(mp.pi) * (1 - s / 3) - 1


def mills(a: mp.mpf) -> mp.mpf:
    """exp(a^2/2) times the upper tail of the normal distribution at a >= 0."""
    return mp.exp(a * a / 2) * mp.erfc(a / mp.sqrt(2)) / 2


def literal(value: mp.mpf, bits: int) -> str:
    """Write a C++ literal without rounding."""
    return np.float32(float(value)).item().hex() if bits == 24 else float(value).hex()


def emit(name: str, comment: str, kinds: dict[str, list[mp.mpf]], leading: int = 0) -> None:
    """`leading`: the power of the argument that the polynomial is a factor of."""
    print(f"\n// {comment}\ntemplate <class T>\nstruct {name};")
    for kind, coefficients in kinds.items():
        bits = 24 if kind == "float" else 53
        print(f"template <>\nstruct {name}<{kind}> {{")
        print(f"  static constexpr int degree = {len(coefficients) - 1}, leading = {leading};")
        print(f"  static constexpr {kind} c[] = {{")
        for c in coefficients:
            print(f"      {kind}({literal(c, bits)}),")
        print("  };\n};")


BITS = {"float": 24, "double": 53}
# float: |n| < 2^8, double: |n| < 2^11: the products n * ln2_high below are exact.
HIGH_BITS = {"float": 16, "double": 42}


def report(name: str, degree: object, error: mp.mpf) -> None:
    """One line for the reader of the terminal."""
    print(f"{name}: degree {degree}, error {mp.nstr(error, 3)}", file=sys.stderr)


def scalars(name: str, comment: str, kinds: dict[str, dict[str, mp.mpf]]) -> None:
    """Write a template struct of named constants."""
    print(f"\n// {comment}\ntemplate <class T>\nstruct {name};")
    for kind, bits in BITS.items():
        print(f"template <>\nstruct {name}<{kind}> {{")
        for constant, value in kinds[kind].items():
            print(f"  static constexpr {kind} {constant} = {kind}({literal(rounded(value, bits), bits)});")
        print("};")


def reduction() -> None:
    """Write the constants of exp's argument reduction."""
    kinds = {}
    for kind in BITS:
        high = rounded(mp.log(2), HIGH_BITS[kind])
        kinds[kind] = {"high": high, "low": mp.log(2) - high, "inverse": 1 / mp.log(2)}
    scalars("Ln2", "ln 2 in two parts: n * high is exact for every exponent n.", kinds)


def gelu_tanh_argument() -> None:
    """Write the coefficients of the tanh form of gelu."""
    linear = 2 * mp.sqrt(2 / mp.pi)
    cubic = linear * mp.mpf(44715) / 1000000
    kinds = {}
    for kind, bits in BITS.items():
        few = rounded(linear, HIGH_BITS[kind] - 2)
        head = rounded(cubic, bits)
        kinds[kind] = {"linear": few, "linear_tail": linear - few, "cubic": head, "cubic_tail": cubic - head}
    scalars("GeluTanhArgument", "2 sqrt(2 / pi) (x + 0.044715 x^3), each coefficient in two parts.", kinds)


def normal_tail() -> None:
    """Write the upper tail of the normal distribution as a quotient."""
    # Beyond the bound, a times the tail of the normal distribution rounds to 0.
    bounds = {"float": mp.mpf("14.5"), "double": mp.mpf(39)}
    degrees = {"float": (4, 5), "double": (9, 10)}
    above, rest = {}, {}
    for kind, bits in BITS.items():
        top, bottom = minimax(mills, lambda a: 1 / mills(a), mp.mpf(0), bounds[kind], *degrees[kind])
        # Any common factor will do. With this one both are near the top of a binade for small a, where a last
        # place weighs least and most other roundings of gelu are at their worst (found by trying).
        top, bottom = [c * 17 / 20 for c in top], [c * 17 / 20 for c in bottom]
        fixed = [rounded(q - 2 * p, bits) for q, p in zip(bottom, [mp.mpf(0), *top], strict=True)]

        def error(p: list[mp.mpf], fixed: list[mp.mpf] = fixed) -> Function:
            return lambda a: 1 - 1 / (2 * a + mp.polyval(fixed[::-1], a) / mp.polyval(p[::-1], a)) / mills(a)

        def largest(p: list[mp.mpf], error: Callable[..., Function] = error, kind: str = kind) -> mp.mpf:
            return max(abs(error(p)(a)) for a in spread(mp.mpf(0), bounds[kind], 801))

        # P as found and rounded, or what P has to be now that the rest is, its errors weighed accordingly
        def goal(a: mp.mpf, fixed: list[mp.mpf] = fixed) -> mp.mpf:
            return mills(a) * mp.polyval(fixed[::-1], a) / (1 - 2 * a * mills(a))

        def weight(a: mp.mpf, goal: Function = goal) -> mp.mpf:
            return (1 - 2 * a * mills(a)) / goal(a)

        candidates = [[rounded(p, bits) for p in top]]
        candidates.append(fit(goal, weight, mp.mpf(0), bounds[kind], degrees[kind][0], bits))
        above[kind], rest[kind] = min(candidates, key=largest), fixed
        report(f"NormalTail<{kind}>", degrees[kind], largest(above[kind]))
    values = {kind: {"value": bound} for kind, bound in bounds.items()}
    scalars("NormalTailBound", "a P(N(0,1) > a) rounds to 0 beyond.", values)
    emit("NormalTailAbove", "exp(a^2/2) P(N(0,1) > a) = above / (2 a above + rest), 0 <= a <= bound.", above)
    emit("NormalTailRest", "All coefficients of both are positive: nothing cancels.", rest)


def approximate(
    name: str,
    comment: str,
    f: Function,
    weight: Function,
    ranges: dict[str, tuple[mp.mpf, mp.mpf]],
    degrees: dict[str, int],
    leading: int = 0,
) -> None:
    """Fit and write one polynomial for each precision."""
    kinds = {}
    for kind, bits in BITS.items():
        a, b = ranges[kind]
        kinds[kind] = fit(f, weight, a, b, degrees[kind], bits)
        error = worst(f, weight, a, b, kinds[kind])
        report(f"{name}<{kind}>", degrees[kind], error)
    emit(name, comment, kinds, leading)


def main() -> None:
    """Write the header to standard output."""
    print(
        "// Written by coefficients.py: change the script and run it again.\n"
        "// clang-format off\n#pragma once\n\n#ifndef GEOACT_ISA\n#define GEOACT_ISA scalar\n#endif\n\n"
        "namespace geoact::GEOACT_ISA {"
    )
    reduction()
    half = mp.log(2) / 2 * mp.mpf("1.0001")  # the quotient that n is rounded from is itself rounded
    approximate(
        "ExpTail",
        "(exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2, weighted for a small relative error of exp(r).",
        exp_tail,
        lambda r: r**2 * mp.exp(-r) + mp.mpf(10) ** -18,
        {"float": (-half, half), "double": (-half, half)},
        {"float": 4, "double": 9},
        leading=2,
    )
    approximate(
        "ExpBend",
        "The same, with a small relative error of its own.",
        exp_tail,
        lambda r: 1 / exp_tail(r),
        {"float": (-half, half), "double": (-half, half)},
        {"float": 5, "double": 11},
        leading=2,
    )
    approximate(
        "Log1pRatio",
        "log(1 + e) / e for 0 <= e <= 1, small relative error.",
        log1p_ratio,
        lambda e: 1 / log1p_ratio(e),
        {"float": (mp.mpf(0), mp.mpf(1)), "double": (mp.mpf(0), mp.mpf(1))},
        {"float": 9, "double": 20},
    )
    normal_tail()
    approximate(
        "ErfRatio",
        "erf(u) / u - 1 as a function of u^2 <= 1, small relative error of erf(u).",
        erf_ratio,
        lambda s: 1 / (1 + erf_ratio(s)),
        {"float": (mp.mpf(0), mp.mpf(1)), "double": (mp.mpf(0), mp.mpf(1))},
        {"float": 6, "double": 12},
    )
    gelu_tanh_argument()
    print("\n}  // namespace geoact::GEOACT_ISA")


if __name__ == "__main__":
    main()
