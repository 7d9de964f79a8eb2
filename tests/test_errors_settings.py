"""Bad statistics and settings of the process: an error that names the argument, and nothing changed."""

import os

import geoact
import numpy as np
import pytest
from geoact import _core
from support.errors import X, rejected, used

# --- statistics -----------------------------------------------------------------------------------


def test_stats_must_be_of_the_right_kind():
    rejected(
        TypeError,
        "^stats must be a geoact.GeometryStats, got GradientStats",
        geoact.relu,
        X,
        stats=used(geoact.GradientStats),
    )
    rejected(
        TypeError,
        "^stats must be a geoact.GradientStats, got GeometryStats",
        geoact.silu.backward,
        X,
        x=X,
        stats=used(),
    )
    for bad in (True, {}, "stats", geoact.GeometryStats):
        rejected(TypeError, "^stats must be a", geoact.relu, X, stats=bad)


def test_stats_must_fit_what_they_hold():
    out = np.ones((4, 7), np.float32)
    rejected(
        ValueError,
        "^stats holds 6 channels, but axis 1 of x has 7",
        geoact.relu,
        out.copy(),
        out=out,
        stats=used(per="channel"),
    )
    for per in ("tensor", "channel", "row"):
        wide = X.astype(np.float64)
        rejected(
            ValueError,
            "^stats holds statistics of float32.*x is float64",
            geoact.relu,
            wide,
            out=np.ones_like(wide),
            stats=used(per=per),
        )
    gradient = used(geoact.GradientStats, per="channel")
    rejected(
        ValueError,
        "^stats holds 6 channels",
        geoact.silu.backward,
        out.copy(),
        x=out.copy(),
        out=out,
        stats=gradient,
    )


@pytest.mark.parametrize("per", ["channel", "row"])
@pytest.mark.parametrize("axis", [2, -3])
def test_stats_must_name_an_axis_of_x(per, axis):
    stats = geoact.GeometryStats(per=per, channel_axis=axis)
    rejected(
        ValueError,
        rf"^stats was made with per='{per}', channel_axis={axis}, but x has shape \(4, 6\)",
        geoact.relu,
        X,
        out=np.ones_like(X),
        stats=stats,
    )
    rejected(
        ValueError,
        "^stats was made with",
        geoact.relu,
        np.ones((), np.float32),
        stats=geoact.GeometryStats(per=per),
    )


@pytest.mark.parametrize(
    ("error", "match", "settings"),
    [
        (ValueError, "^per is 'layer' .*'tensor', 'channel', 'row'", {"per": "layer"}),
        (TypeError, "^per must be a str", {"per": 1}),
        (ValueError, "^level is 'all' .*'counts', 'moments'", {"level": "all"}),
        (TypeError, "^level must be a str", {"level": None}),
        (TypeError, "^channel_axis must be an int", {"channel_axis": 1.0}),
        (TypeError, "^channel_axis must be an int", {"channel_axis": True}),
        (TypeError, "^saturation must be a number", {"saturation": "0.1"}),
        (TypeError, "^saturation must be a number", {"saturation": True}),
        *(
            (ValueError, "^saturation must lie strictly between 0 and 1", {"saturation": s})
            for s in (0, 1, -0.1, 2.0, np.nan, np.inf)
        ),
        (TypeError, "unexpected keyword argument 'quantiles'", {"quantiles": True}),
    ],
    ids=str,
)
def test_settings_of_statistics(error, match, settings):
    with pytest.raises(error, match=match):
        geoact.GeometryStats(**settings)


def test_values_that_were_not_measured_say_what_to_ask_for():
    with pytest.raises(ValueError, match="gain needs level='moments'"):
        _ = used(level="counts").gain
    with pytest.raises(ValueError, match="layer_gain compares channels: use per='channel'"):
        _ = used().layer_gain
    with pytest.raises(ValueError, match="dormant_fraction needs per='channel'"):
        used().dormant_fraction()
    with pytest.raises(AttributeError, match="GeometryStats has no attribute 'gian'"):
        _ = used().gian


# --- settings of the process ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sse9", "", "AVX2", "avx512 "], ids=repr)
def test_unknown_instruction_set_is_an_error_and_changes_nothing(name):
    before = geoact.isa()
    accepted = ", ".join(f"'{known}'" for known in _core.supported_isas())
    with pytest.raises(ValueError, match=f"name is '{name}', which is not .*accepted: {accepted}"):
        geoact.set_isa(name)
    assert geoact.isa() == before
    with pytest.raises(TypeError, match="name"):
        geoact.set_isa(3)


@pytest.mark.parametrize("n", [0, -1])
def test_number_of_threads_must_be_positive(n):
    before = geoact.num_threads()
    with pytest.raises(ValueError, match=f"n must be at least 1, got {n}"):
        geoact.set_num_threads(n)
    assert geoact.num_threads() == before


@pytest.mark.parametrize(("n", "kind"), [(1.5, TypeError), ("a", TypeError), (True, TypeError), (10**30, ValueError)])
def test_a_number_of_threads_that_is_none_is_named(n, kind):
    before = geoact.num_threads()
    with pytest.raises(kind, match=r"^n (must be an int|is \d+ \(accepted)"):
        geoact.set_num_threads(n)
    assert geoact.num_threads() == before


def test_names_that_are_no_activation():
    with pytest.raises(ValueError, match=r"name is 'rulu'.*accepted: sigmoid, "):
        geoact.get("rulu")


def test_environment_chooses_the_instruction_set(python):
    for name in _core.supported_isas():
        assert python("import geoact; print(geoact.isa())", GEOACT_ISA=name).strip() == name
    message = python("import geoact", status=1, GEOACT_ISA="sse9")
    assert "Error: GEOACT_ISA is 'sse9'" in message


def test_environment_chooses_the_number_of_threads(python):
    assert python("import geoact; print(geoact.num_threads())", GEOACT_NUM_THREADS="3").strip() == "3"
    for bad in ("0", "-1", "two", "", "1.5"):
        message = python("import geoact", status=1, GEOACT_NUM_THREADS=bad)
        assert f"Error: GEOACT_NUM_THREADS is '{bad}'" in message


def test_default_number_of_threads_is_that_of_the_processors_allowed(python):
    environment = {name: "" for name in ("GEOACT_NUM_THREADS",) if name in os.environ}
    if environment:
        pytest.skip("GEOACT_NUM_THREADS is set")
    assert int(python("import geoact; print(geoact.num_threads())")) == len(os.sched_getaffinity(0))
