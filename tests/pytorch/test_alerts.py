"""Rules: silent on healthy networks, one line for each fault, and clear about a wrong argument."""

import math
from dataclasses import replace

import geoact
import numpy as np
import pytest
from geoact.torch.alerts import DEFAULT_RULES, Rule, check
from geoact.torch.reading import BACKWARD, FORWARD, Layer, Reading
from support import readings

RULES = {rule.name: rule for rule in DEFAULT_RULES}


def found(*layers):
    return [(alert.layer, alert.rule) for alert in check(Reading(1, layers))]


def rng(seed=0):
    return np.random.default_rng(seed)


# --- healthy ---


@pytest.mark.parametrize("name", [name for name in geoact.activations() if name not in ("prelu",)])
def test_normal_inputs_raise_no_alert(name):
    assert found(*(readings.layer(f"layer.{i}", name, i) for i in range(3))) == []


def test_a_deep_relu_network_raises_no_alert_although_its_gains_multiply_to_almost_nothing():
    """He initialisation, forward and backward, 24 layers."""
    width, depth = 256, 24
    weights = [rng(i).standard_normal((width, width)) * math.sqrt(2 / width) for i in range(depth)]
    inputs, value = [], rng(99).standard_normal((512, width))
    for weight in weights:
        inputs.append(value @ weight)
        value = geoact.relu(inputs[-1])
    layers, gradient = [], rng(98).standard_normal(value.shape)
    for i in reversed(range(depth)):
        layers.insert(0, readings.layer(f"layer.{i}", "relu", i, x=inputs[i], dy=gradient))
        gradient = geoact.relu.backward(gradient, y=geoact.relu(inputs[i])) @ weights[i].T
    assert math.prod(layer.scalars()["scale"] for layer in layers) < 1e-8
    assert found(*layers) == []


def test_a_healthy_relu_is_not_saturated_and_a_saturated_tanh_is():
    relu, tanh = readings.layer("relu"), readings.layer("tanh", "tanh", scale=6.0)
    assert relu.scalars()["saturated"] == pytest.approx(0.5, abs=0.05)
    assert ("relu", "saturated") not in found(relu)
    assert found(replace(relu, forward=readings.layer("relu", shift=-1.0).forward)) == []
    assert ("tanh", "saturated") in found(tanh)


def test_what_was_not_measured_raises_no_alert():
    idle = readings.nothing_measured()
    assert all(math.isnan(value) for value in idle.scalars().values())
    assert found(idle) == []
    assert found(readings.layer("counts", level="counts", dy=False)) == []


# --- faults ---


def sick(rule):
    """One or more layers, the first of which has the fault."""
    x = rng().standard_normal((512, 16))
    broken = x.copy()
    broken[3, 5] = np.nan
    hidden = x.copy()
    hidden[3, 5] = -np.inf  # ReLU makes 0 of it
    healthy = readings.layer("healthy", index=1)
    tiny = (x * 1e-310, None)
    return {
        "nonfinite-input": lambda: [readings.layer("bad", x=hidden, dy=False)],
        "nonfinite-output": lambda: [readings.layer("bad", x=broken, dy=False)],
        "nonfinite-gradient": lambda: [readings.layer("bad", x=x, dy=np.where(np.isnan(broken), np.inf, np.abs(x)))],
        "dead-channels": lambda: [readings.layer("bad", x=np.where(np.arange(16) < 9, -np.abs(x), x))],
        "always-zero": lambda: [readings.layer("bad", shift=-3.0)],
        "saturated": lambda: [readings.layer("bad", "sigmoid", scale=6.0)],
        "gain-vanishing": lambda: [readings.layer("bad", "sigmoid", scale=8.0)],
        "gain-exploding": lambda: [readings.layer("bad", "relu_squared", scale=20.0)],
        "gradient-gain-vanishing": lambda: [readings.layer("bad", "tanh", scale=0.1, shift=4.0)],
        "gradient-gain-exploding": lambda: [readings.layer("bad", "relu_squared", scale=20.0)],
        "signal-vanishing": lambda: [readings.layer("bad", scale=1e-4, index=2), healthy],
        "signal-exploding": lambda: [readings.layer("bad", scale=1e4, index=2), healthy],
        "gradient-vanishing": lambda: [readings.layer("bad", x=x, dy=x * 1e-4), healthy],
        "gradient-exploding": lambda: [readings.layer("bad", x=x, dy=x * 1e4), healthy],
        "resolution-lost": lambda: [readings.layer("bad", "sigmoid", x=(x * 1e-7).astype(np.float32))],
        "output-subnormal": lambda: [readings.layer("bad", x=tiny[0], dy=False)],
        "gradient-underflow": lambda: [readings.layer("bad", x=x, dy=x * 1e-310)],
    }[rule]()


@pytest.mark.parametrize("rule", RULES)
def test_every_default_rule_finds_its_fault_and_names_the_layer(rule):
    layers = sorted(sick(rule), key=lambda layer: layer.index)
    alerts = [alert for alert in check(Reading(1, tuple(layers))) if alert.rule == rule]
    assert [alert.layer for alert in alerts] == ["bad"]
    (alert,) = alerts
    assert alert.scalar == RULES[rule].scalar
    assert alert.threshold == RULES[rule].threshold
    assert RULES[rule].fires(alert.value)
    assert str(alert).startswith("bad: ")
    assert "\n" not in str(alert)
    assert "{" not in alert.message


def test_dead_units_need_enough_samples():
    x = -np.abs(rng().standard_normal((600, 4)))
    assert ("layer", "dead-channels") in found(readings.layer("layer", x=x))
    assert ("layer", "dead-channels") not in found(readings.layer("layer", x=x[:299]))


def test_a_sigmoid_below_zero_is_not_dead():
    layer = readings.layer("gate", "sigmoid", scale=0.3, shift=-2.0)
    assert layer.scalars()["dead"] == 1
    assert ("gate", "dead-channels") not in found(layer)


def test_relative_rules_report_the_worst_layer_only():
    x = rng().standard_normal((64, 8))
    layers = [readings.layer(f"layer.{i}", x=x, index=i, dy=x * 10.0 ** (i - 9)) for i in range(10)]
    alerts = [alert for alert in check(Reading(1, tuple(layers))) if alert.rule == "gradient-vanishing"]
    assert [alert.layer for alert in alerts] == ["layer.0"]
    assert alerts[0].value == pytest.approx(1e-9)
    assert "1.0e-09" in alerts[0].message


def test_relative_rules_pass_over_layers_that_give_no_reference():
    x = rng().standard_normal((64, 8))
    last = readings.layer("last", x=x, index=2, dy=np.zeros_like(x))
    assert last.scalars()["grad_rms"] == 0
    small, large = readings.layer("small", x=x, dy=x * 1e-5), readings.layer("large", x=x, index=1, dy=x)
    # judged against "large", because nothing is a multiple of 0
    assert [a for a in found(small, large, last) if a[1] == "gradient-vanishing"] == [("last", "gradient-vanishing")]
    assert found(replace(last, index=0)) == []


def test_alerts_come_in_the_order_of_the_rules_then_of_the_layers():
    layers = tuple(readings.layer(f"layer.{i}", shift=-3.5, index=i) for i in range(2))
    rules = (RULES["always-zero"], RULES["gain-vanishing"])
    for chosen in (rules, rules[::-1]):
        alerts = check(Reading(1, layers), iter(chosen))
        assert [(a.rule, a.layer) for a in alerts] == [(r.name, f"layer.{i}") for r in chosen for i in range(2)]


def test_the_threshold_itself_is_fine():
    layer = readings.layer("layer")
    zero = layer.scalars()["zero"]
    for above in (True, False):
        rule = Rule("mine", "zero", zero, "{value:.1f} of {threshold:.1f}", above=above)
        assert check(Reading(1, (layer,)), [rule]) == ()
        beyond = replace(rule, threshold=math.nextafter(zero, 0 if above else 1))
        assert len(check(Reading(1, (layer,)), [beyond])) == 1


# --- the table of rules, and arguments ---


def test_default_rules_have_reasons_and_names_of_their_own():
    assert len(RULES) == len(DEFAULT_RULES)
    for rule in DEFAULT_RULES:
        assert rule.doc, rule.name
        assert set(rule.activations) <= set(geoact.activations()), rule.name
    assert {rule.scalar for rule in DEFAULT_RULES} <= {scalar.name for scalar in FORWARD + BACKWARD}


@pytest.mark.parametrize(
    ("change", "error", "naming"),
    [
        ({"name": 3}, TypeError, "name"),
        ({"name": ""}, ValueError, "name"),
        ({"scalar": "gain"}, ValueError, "scalar"),
        ({"threshold": "1"}, TypeError, "threshold"),
        ({"threshold": True}, TypeError, "threshold"),
        ({"threshold": math.nan}, ValueError, "threshold"),
        ({"message": "{speed}"}, ValueError, "message"),
        ({"message": "{value:q}"}, ValueError, "message"),
        ({"message": "{} is much"}, ValueError, "message"),
        ({"above": 1}, TypeError, "above"),
        ({"relative_to": "middle"}, ValueError, "relative_to"),
        ({"activations": "relu"}, TypeError, "activations"),
        ({"samples": 1.5}, TypeError, "samples"),
        ({"samples": -1}, ValueError, "samples"),
    ],
)
def test_a_wrong_rule_is_refused_by_the_name_of_its_argument(change, error, naming):
    good = {"name": "mine", "scalar": "zero", "threshold": 0.5, "message": "{value}"}
    Rule(**good)
    with pytest.raises(error, match=f"^{naming} "):
        Rule(**{**good, **change})


def test_wrong_arguments_of_check():
    one = readings.reading(layers=1)
    with pytest.raises(TypeError, match="^reading must be a Reading"):
        check([one])
    with pytest.raises(TypeError, match="^rules must be an iterable"):
        check(one, 3)
    with pytest.raises(TypeError, match="^rules must hold Rule"):
        check(one, ["dead"])
    with pytest.raises(ValueError, match="two rules called 'always-zero'"):
        check(one, [RULES["always-zero"]] * 2)


def test_layers_without_alerts_are_left_alone():
    healthy, zero = readings.layer("healthy"), readings.layer("zero", shift=-3.5, index=1)
    assert isinstance(zero, Layer)
    assert {layer for layer, _ in found(healthy, zero)} == {"zero"}
