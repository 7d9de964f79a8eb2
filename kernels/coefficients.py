"""Polynomials and constants of :mod:`geoact.kernels.vocabulary`, for float32 and float64.

The numbers of ``csrc/ops/coefficients.h``, which ``csrc/ops/coefficients.py`` computes; a test compares the two files.
Each name is a pair (float32, float64); polynomials are tuples from the constant term upwards.
"""

from __future__ import annotations

import triton.language as tl


def _pair(narrow: tuple[str, ...], wide: tuple[str, ...]) -> tuple[tl.constexpr, tl.constexpr]:
    """Two tuples of hexadecimal numbers, as Triton reads global constants."""
    return tl.constexpr(tuple(map(float.fromhex, narrow))), tl.constexpr(tuple(map(float.fromhex, wide)))


LN2_HIGH_32, LN2_HIGH_64 = _pair(
    ("0x1.62e4000000000p-1",),
    ("0x1.62e42fefa3800p-1",),
)
LN2_LOW_32, LN2_LOW_64 = _pair(
    ("0x1.7f7d1c0000000p-20",),
    ("0x1.ef35793c76730p-45",),
)
LN2_INVERSE_32, LN2_INVERSE_64 = _pair(
    ("0x1.7154760000000p+0",),
    ("0x1.71547652b82fep+0",),
)
EXP_TAIL_32, EXP_TAIL_64 = _pair(
    (
        "0x1.fffffc0000000p-2",
        "0x1.5554920000000p-3",
        "0x1.5558f20000000p-5",
        "0x1.1239e40000000p-7",
        "0x1.6a23dc0000000p-10",
    ),
    (
        "0x1.000000000000ap-1",
        "0x1.55555555554f9p-3",
        "0x1.5555555550892p-5",
        "0x1.1111111127e09p-7",
        "0x1.6c16c18426f08p-10",
        "0x1.a01a0129b9a80p-13",
        "0x1.a0199a123e66fp-16",
        "0x1.71df26839ee12p-19",
        "0x1.28ad6f0690bf9p-22",
        "0x1.ad7dc5253b8a6p-26",
    ),
)
EXP_BEND_32, EXP_BEND_64 = _pair(
    (
        "0x1.0000000000000p-1",
        "0x1.5555560000000p-3",
        "0x1.5554ea0000000p-5",
        "0x1.11114c0000000p-7",
        "0x1.6d42ec0000000p-10",
        "0x1.a072d80000000p-13",
    ),
    (
        "0x1.0000000000000p-1",
        "0x1.5555555555555p-3",
        "0x1.5555555555557p-5",
        "0x1.111111111110dp-7",
        "0x1.6c16c16c15a73p-10",
        "0x1.a01a01a01cdf1p-13",
        "0x1.a01a01a9e5d72p-16",
        "0x1.71de3a4a38762p-19",
        "0x1.27e4d4224588cp-22",
        "0x1.ae6470ecd42b2p-26",
        "0x1.1f7f18b26e408p-29",
        "0x1.61581bbaa44f0p-33",
    ),
)
LOG1P_RATIO_32, LOG1P_RATIO_64 = _pair(
    (
        "0x1.0000000000000p+0",
        "-0x1.ffffd20000000p-2",
        "0x1.554dd00000000p-2",
        "-0x1.ff23e80000000p-3",
        "0x1.934b6a0000000p-3",
        "-0x1.3a43be0000000p-3",
        "0x1.b4afb40000000p-4",
        "-0x1.d6b4980000000p-5",
        "0x1.491cca0000000p-6",
        "-0x1.af53660000000p-9",
    ),
    (
        "0x1.0000000000000p+0",
        "-0x1.fffffffffff6dp-2",
        "0x1.555555554ff6ep-2",
        "-0x1.fffffffd7fda7p-3",
        "0x1.9999994a635dcp-3",
        "-0x1.55554f4f21db2p-3",
        "0x1.2491fa7b579fap-3",
        "-0x1.fffa4ca8447d6p-4",
        "0x1.c6f5553166e78p-4",
        "-0x1.98cd2fb9b3079p-4",
        "0x1.711cf4057c310p-4",
        "-0x1.4ad863ee1f289p-4",
        "0x1.1fddb91bc0755p-4",
        "-0x1.d61fc4c45dd46p-5",
        "0x1.596dc28b9e331p-5",
        "-0x1.b4323b77c68f1p-6",
        "0x1.c2c41725b3c3fp-7",
        "-0x1.6896bd39ca8d3p-8",
        "0x1.9ea30b6eaa80ap-10",
        "-0x1.2ed625edf9d15p-12",
        "0x1.a4214887c0035p-16",
    ),
)
NORMAL_TAIL_BOUND_32, NORMAL_TAIL_BOUND_64 = _pair(
    ("0x1.d000000000000p+3",),
    ("0x1.3800000000000p+5",),
)
NORMAL_TAIL_ABOVE_32, NORMAL_TAIL_ABOVE_64 = _pair(
    (
        "0x1.b333340000000p-2",
        "0x1.7d7e080000000p-2",
        "0x1.3ef9f20000000p-3",
        "0x1.1af0240000000p-5",
        "0x1.ca9ad60000000p-9",
    ),
    (
        "0x1.b333333333333p-2",
        "0x1.513a7db8bc0e2p-1",
        "0x1.0288af9f7c1c6p-1",
        "0x1.f7af55663a052p-3",
        "0x1.5429ddfaa403dp-4",
        "0x1.48fe0391939efp-6",
        "0x1.c79ff07c6baa9p-9",
        "0x1.b52389c3a2336p-12",
        "0x1.09a8f734f78b0p-15",
        "0x1.3c36c88cba503p-20",
    ),
)
NORMAL_TAIL_REST_32, NORMAL_TAIL_REST_64 = _pair(
    (
        "0x1.b333340000000p-1",
        "0x1.2588280000000p-1",
        "0x1.1bace20000000p-2",
        "0x1.669b560000000p-4",
        "0x1.1ec7540000000p-6",
        "0x1.d0a85c0000000p-10",
    ),
    (
        "0x1.b333333333333p-1",
        "0x1.253f877f9249ep+0",
        "0x1.b834e503bbff3p-1",
        "0x1.ca176ba37db4ep-2",
        "0x1.620b581706a99p-3",
        "0x1.9ec09b4074c96p-5",
        "0x1.6f66ed529c81cp-7",
        "0x1.e279782076689p-10",
        "0x1.c1204ed3c99efp-13",
        "0x1.0d2e87a417891p-16",
        "0x1.4067e9548ddcap-21",
    ),
)
ERF_RATIO_32, ERF_RATIO_64 = _pair(
    (
        "0x1.06eba80000000p-3",
        "-0x1.81273e0000000p-2",
        "0x1.ce2ce60000000p-4",
        "-0x1.b7f71a0000000p-6",
        "0x1.53f2240000000p-8",
        "-0x1.a351660000000p-11",
        "0x1.4772480000000p-14",
    ),
    (
        "0x1.06eba8214db69p-3",
        "-0x1.812746b0379e6p-2",
        "0x1.ce2f21a042b21p-4",
        "-0x1.b82ce312849afp-6",
        "0x1.565bcd0db0530p-8",
        "-0x1.c02db3d8f264ep-11",
        "0x1.f9a321a195b9dp-14",
        "-0x1.f4d1df40274b3p-17",
        "0x1.b9def1de3f8ebp-20",
        "-0x1.5f1d38354a7c9p-23",
        "0x1.f7a41b6768ef8p-27",
        "-0x1.386acc14bb471p-30",
        "0x1.0579a08899394p-34",
    ),
)
GELU_TANH_ARGUMENT_LINEAR_32, GELU_TANH_ARGUMENT_LINEAR_64 = _pair(
    ("0x1.9888000000000p+0",),
    ("0x1.9884533d44000p+0",),
)
GELU_TANH_ARGUMENT_LINEAR_TAIL_32, GELU_TANH_ARGUMENT_LINEAR_TAIL_64 = _pair(
    ("-0x1.d6615e0000000p-15",),
    ("-0x1.35ee5e0698760p-41",),
)
GELU_TANH_ARGUMENT_CUBIC_32, GELU_TANH_ARGUMENT_CUBIC_64 = _pair(
    ("0x1.2444f20000000p-4",),
    ("0x1.2444f2a4d8b4bp-4",),
)
GELU_TANH_ARGUMENT_CUBIC_TAIL_32, GELU_TANH_ARGUMENT_CUBIC_TAIL_64 = _pair(
    ("0x1.49b16a0000000p-29",),
    ("-0x1.6c843a29d1c70p-61",),
)
