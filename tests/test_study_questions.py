"""The five questions: units, the engine, choosing rates, intervals, rules, and a small run from end to end."""

from __future__ import annotations

import json
import re
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from geoact import cli

if cli.missing_packages():
    pytest.skip(cli.missing_message(cli.missing_packages()), allow_module_level=True)

import geoact
from geoact import adaptive
from geoact.study import runner
from geoact.study.config import StudyConfig
from geoact.study.questions import engine, inference, rules, tasks, tiers, trained, units
from geoact.study.questions.deep import DeepNetwork, dtype_of
from geoact.study.questions.hidden import KINDS
from geoact.study.questions.initial import crossing, initial
from geoact.study.questions.plan import plan
from geoact.study.questions.sizes import FULL, QUICK, Sizes
from geoact.study.questions.specs import Crossing, Inference, Initial, Paired, Trained
from geoact.study.questions.statistics import Interval, mean_interval, median_interval, rank_correlation
from geoact.study.questions.store import Store
from geoact.study.training import SoftmaxHead

TINY = Sizes(
    "tiny",
    activations=("sigmoid", "relu", "bn_relu", "gal"),
    initial_data=("spirals", "digits"),
    initial_dtypes=("float32", "bfloat16", "float16"),
    initial_depths=(1, 3),
    initial_width=8,
    initial_widths=(),
    initial_inits=("orthogonal",),
    initial_rows=20,
    initial_seeds=2,
    trained_data=("spirals",),
    trained_depths=(2,),
    trained_width=6,
    trained_widths=(),
    methods=(("Adam", (1e-3, 1e-2)),),
    plane_epochs=1,
    tune_seeds=1,
    seeds=3,
    pairs=10,
    paired_depths=(2,),
    ladder=("bn_relu", "tat", "gal"),
    ladder_depths=(2, 3),
    ladder_rates=(1e-3,),
    ladder_epochs=1,
    inference_rows=(4,),
    inference_width=8,
    inference_depth=1,
    inference_dtypes=("float32",),
    inference_rounds=3,
    inference_seconds=1e-5,
)
SPEC = Trained("spirals", "gal", "own", 6, 3, "Adam", (1e-3, 1e-2), 1, 50, 2, 3)


def specs() -> list:
    return [spec for group in plan(TINY).values() for spec in group]


# --- networks ---


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("init", ["own", "orthogonal"])
def test_gradients_of_deep_networks_match_finite_differences(name, init):
    draws = [np.random.default_rng(seed) for seed in (0, 1)]
    network = DeepNetwork(name, (3, 5, 4, 2), 2, np.float64).draw(draws, init)
    x, labels = draws[0].standard_normal((2, 9, 3)), draws[0].integers(0, 2, (2, 9))
    head = SoftmaxHead(2)
    targets = head.targets(labels).astype(np.float64)
    network.forward(x)  # GAL measures
    frozen = {layer: layer._gals for layer in network.hidden if hasattr(layer, "_gals")}

    def forward():
        for layer, gals in frozen.items():  # its statistics carry no gradient
            layer._gals = list(gals)
        return network.forward(x)

    def losses():
        return head.losses(head.probabilities(forward().scores), targets)

    network.parameters += 0.05 * draws[1].standard_normal(network.parameters.shape)
    trace = forward()
    network.backward(trace, head.dscores(head.probabilities(trace.scores), targets))
    analytic, step = network.gradients.copy(), 1e-6
    for index in range(network.parameters.shape[1]):
        kept = network.parameters[:, index].copy()
        network.parameters[:, index] = kept + step
        above = losses()
        network.parameters[:, index] = kept - step
        below = losses()
        network.parameters[:, index] = kept
        np.testing.assert_allclose(analytic[:, index], (above - below) / (2 * step), rtol=2e-5, atol=2e-8)


@pytest.mark.parametrize("name", ["bn_relu", "gal", "tat"])
def test_deep_networks_of_a_stack_train_as_they_would_alone(name):
    spec, head = replace(SPEC, activation=name), SoftmaxHead(2)
    together = trained.fit(spec, head, [(0, 1e-3), (1, 1e-2)], name)
    for net, run in enumerate([(0, 1e-3), (1, 1e-2)]):
        alone = trained.fit(spec, head, [run], name)[0]
        np.testing.assert_allclose(alone.parameters, together[net].parameters, rtol=1e-3, atol=1e-5)


def test_gal_lags_one_step_and_is_frozen_when_tested():
    network = DeepNetwork("gal", (2, 16, 16, 2), 1, np.float64).draw([np.random.default_rng(0)], "own")
    first, second = np.random.default_rng(1).standard_normal((2, 1, 50, 2))
    z = first @ network.weights[0]
    network.forward(first)
    moments = [m(part).mean() for part in (np.maximum(z, 0), np.minimum(z, 0)) for m in (np.asarray, np.square)]
    wanted = adaptive.gal(
        adaptive.PartialMoments(moments[0], moments[2], moments[1], moments[3]), adaptive.share_for_depth(2)
    )
    layer = network.hidden[0]
    np.testing.assert_allclose(layer._gals[0], wanted, rtol=1e-9)
    used = layer.forward(second @ network.weights[0], 0.0, True)
    z = second @ network.weights[0]
    np.testing.assert_allclose(
        used, wanted.scale * (np.maximum(z, 0) + wanted.slope * np.minimum(z, 0) - wanted.shift), rtol=1e-9, atol=1e-12
    )
    # Having measured the second batch too, both count alike.
    parts = [np.maximum(z, 0), np.minimum(z, 0)]
    later = [
        (old + new) / 2
        for old, new in zip(moments, [m(p).mean() for p in parts for m in (np.asarray, np.square)], strict=True)
    ]
    running = adaptive.PartialMoments(later[0], later[2], later[1], later[3])
    np.testing.assert_allclose(layer._gals[0], adaptive.gal(running, adaptive.share_for_depth(2)), rtol=1e-9)
    alone = network.take(0)
    before = list(alone.hidden[0]._gals)
    alone.forward(100 * first)
    assert alone.hidden[0]._gals == before


def test_batchnorm_tests_with_running_statistics():
    network = DeepNetwork("bn_relu", (2, 8, 2), 1, np.float64).draw([np.random.default_rng(0)], "he")
    x = np.random.default_rng(1).standard_normal((1, 40, 2))
    hidden = network.forward(x).after[0]
    z = x @ network.weights[0]
    np.testing.assert_allclose(hidden, np.maximum((z - z.mean(1)) / np.sqrt(z.var(1) + 1e-5), 0), atol=1e-12)
    alone = network.take(0)
    np.testing.assert_allclose(alone.forward(x[:, :3]).after[0], hidden[:, :3], atol=1e-12)


@pytest.mark.parametrize(("fan_in", "fan_out"), [(20, 20), (8, 20), (20, 8)])
def test_orthogonal_weights_keep_the_variance_times_the_gain(fan_in, fan_out):
    network = DeepNetwork("relu", (fan_in, fan_out, 1), 1, np.float64).draw([np.random.default_rng(0)], "orthogonal")
    weight = network.weights[0][0]
    gram = weight.T @ weight if fan_in >= fan_out else weight @ weight.T
    np.testing.assert_allclose(gram, 2 * max(1, fan_out / fan_in) * np.eye(len(gram)), atol=1e-12)


def test_shapes_of_sigmoid_and_relu_cross_where_they_should():
    found = crossing(Crossing(("sigmoid", "relu"), (1.0,), 100_001))
    assert found["crossing"] == pytest.approx(9.76, abs=0.01)
    assert found["shares"]["relu"][0] == pytest.approx(np.pi / (2 * (np.pi - 1)), abs=1e-4)
    assert found["shares"]["sigmoid"][0] == pytest.approx(0.9842, abs=1e-4)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["sigmoid", "bn_relu", "gal"])
def test_initial_units_measure_every_type(name, dtype):
    found = initial(Initial("digits", name, "own", 16, 3, (1, 3), dtype, 30, 2))["layers"]
    assert set(found) == {"1", "3"}
    for layer in found.values():
        assert all(len(values) == 2 for values in layer.values())
        assert all(0 < value <= 1 for value in layer["spearman"])
        assert all(0 <= value <= 1 for value in layer["dead"])
        assert all(
            0 < bits < {"float64": 54, "float32": 25, "bfloat16": 9, "float16": 12}[dtype]
            for bits in layer["effective_bits"]
        )
    if name == "gal":  # keeps the variance by construction
        assert found["1"]["distance"][0] == pytest.approx(1, rel=0.5)


# --- data and rates ---


@pytest.mark.parametrize("data", tasks.DATA)
def test_parts_of_the_data_do_not_overlap_and_are_standardised_on_the_training_part(data):
    fold, test = tasks.fold(data, 3), tasks.test_part(data, 3)
    np.testing.assert_allclose(fold.train.x.mean(axis=0), 0, atol=1e-9)
    rows = [set(map(bytes, part.x)) for part in (fold.train, fold.validation, test)]
    if data != "digits":  # of which some images may be equal
        assert len(set.union(*rows)) == sum(map(len, rows))
    assert len(np.unique(fold.train.labels)) == tasks.classes(data)


def test_no_seed_tunes_on_an_image_that_another_seed_is_tested_on():
    raw = [tasks._parts("digits", seed) for seed in (0, 1000)]
    np.testing.assert_array_equal(raw[0][2].x, raw[1][2].x)
    together = np.concatenate([part.x for part in raw[1]])
    assert len(together) == 1797


def test_learning_rates_are_chosen_without_test_data(monkeypatch):
    honest = trained.trained(SPEC)

    def refuse(*_):
        raise AssertionError("test data was read")

    monkeypatch.setattr(tasks, "test_part", refuse)
    scores = trained.tune(SPEC, SoftmaxHead(2), "gal")  # reads validation data alone
    assert scores == honest["validation"]
    assert trained.best_rate(SPEC.rates, scores) == honest["rate"]
    monkeypatch.undo()
    real = tasks.test_part
    monkeypatch.setattr(tasks, "test_part", lambda *a: replace(real(*a), labels=1 - real(*a).labels))
    spoiled = trained.trained(SPEC)
    assert (spoiled["rate"], spoiled["validation"]) == (honest["rate"], honest["validation"])
    for bad, good in zip(spoiled["runs"], honest["runs"], strict=True):
        assert bad["accuracy"] == pytest.approx(1 - good["accuracy"])


def test_seeds_that_tune_are_not_those_that_are_reported(monkeypatch):
    seen = []
    real = tasks.fold
    monkeypatch.setattr(tasks, "fold", lambda data, seed: seen.append(seed) or real(data, seed))
    trained.tune(SPEC, SoftmaxHead(2), "gal")
    assert min(seen) >= trained.TUNING_SEEDS > SPEC.seeds
    assert trained.best_rate((1, 2, 3, 4), (0.5, 0.9, 0.9, 0.9)) == 3


# --- the engine ---


def test_jobs_do_not_change_a_bit(tmp_path):
    wanted = [spec for spec in specs() if not spec.alone]
    one = engine.run_units(wanted, Store(tmp_path / "one"), jobs=1)
    two = engine.run_units(list(reversed(wanted)), Store(tmp_path / "two"), jobs=2)
    assert len(one) == len(set(wanted))
    for spec in wanted:
        assert json.dumps(one[spec]["result"]) == json.dumps(two[spec]["result"]), spec


def test_a_run_that_was_stopped_goes_on(tmp_path, monkeypatch):
    wanted, store, done = specs()[:6], Store(tmp_path / "units"), []
    real = units.UNITS[Trained]

    def stop_at_the_fourth(spec):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(spec)
        return real(spec)

    monkeypatch.setitem(units.UNITS, Trained, stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        engine.run_units(wanted, store)
    assert len(list((tmp_path / "units").iterdir())) == 3
    again = []
    monkeypatch.setitem(units.UNITS, Trained, lambda spec: again.append(spec) or real(spec))
    steps = []
    records = engine.run_units(wanted, store, advance=lambda: steps.append(1))
    assert again == wanted[3:]
    assert len(steps) == len(records) == 6
    fresh = engine.run_units(wanted, Store(tmp_path / "other"))
    assert [r["result"] for r in records.values()] == [r["result"] for r in fresh.values()]


def test_new_code_makes_stored_results_stale(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.write(SPEC, {"spec": SPEC.to_json(), "result": {}})
    assert store.read(SPEC)
    monkeypatch.setattr("geoact.study.questions.specs.code_version", lambda: "another")
    assert store.read(SPEC) is None


def test_a_failing_unit_is_recorded_and_tried_again(tmp_path, monkeypatch):
    store, broken = Store(tmp_path), replace(SPEC, data="no such data")
    records = engine.run_units([broken, SPEC], store, jobs=2)
    assert "KeyError: 'no such data'" in records[broken]["error"]
    assert "result" in records[SPEC]
    assert store.read(broken) is None


def test_timed_units_run_by_themselves_at_the_end(tmp_path, monkeypatch):
    order = []
    for kind in (Inference, Crossing):
        monkeypatch.setitem(units.UNITS, kind, lambda spec: order.append(spec.kind) or {})
    few = [spec for spec in specs() if isinstance(spec, (Inference, Crossing))]
    engine.run_units(sorted(few, key=lambda spec: not spec.alone), Store(tmp_path))
    assert order == ["crossing", "inference"]


def test_impossible_executions_are_refused_before_anything_runs(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        engine.run_units([SPEC], Store(tmp_path / "none"), jobs=0)
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install geoact\[ray\]"):
        engine.run_units([SPEC], Store(tmp_path / "none"), ray=True)
    assert not (tmp_path / "none").exists()


def test_ray_runs_the_same_functions(tmp_path, monkeypatch):
    """A stand-in with Ray's four calls; with Ray itself: the same test without the stand-in, where it is installed."""
    calls = []
    ray = types.ModuleType("ray")
    ray.is_initialized = lambda: False
    ray.init = lambda **options: calls.append(("init", options["num_cpus"]))
    ray.shutdown = lambda: calls.append(("shutdown",))
    ray.remote = lambda **options: lambda f: types.SimpleNamespace(remote=lambda spec: (f, spec))
    ray.wait = lambda pending, num_returns: (pending[-1:], pending[:-1])
    ray.get = lambda reference: reference[0](reference[1])
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(engine, "find_spec", lambda name: object())
    found = engine.run_units([SPEC, replace(SPEC, activation="tat")], Store(tmp_path / "ray"), jobs=2, ray=True)
    plain = engine.run_units([SPEC], Store(tmp_path / "here"))
    assert found[SPEC]["result"] == plain[SPEC]["result"]
    assert calls == [("init", 2), ("shutdown",)]


# --- statistics and rules ---


def test_intervals_ignore_what_is_missing_and_know_when_they_are_decided():
    found = mean_interval([1.0, None, 1.2, float("nan"), 0.9])
    assert found.n == 3
    assert found.low < found.value < found.high
    assert found.decided
    assert not mean_interval([]).decided
    assert not mean_interval([-1.0, 1.0, 0.5, -0.4]).decided
    assert median_interval([1.0, 1.1, 1.2, 50.0, 1.05]).value == 1.1


def test_rank_correlation_counts_within_strata_and_resamples_clusters():
    draw = np.random.default_rng(0)
    strata = [stratum for stratum in range(4) for _ in range(30)]
    clusters = [(stratum, i // 5) for stratum in range(4) for i in range(30)]
    within = draw.standard_normal(120)
    x = within + 10 * np.array(strata)
    y = -within + 10 * np.array(strata)  # within strata the opposite of what all runs together say
    inside = rank_correlation(x.tolist(), y.tolist(), clusters, strata)
    overall = rank_correlation(x.tolist(), y.tolist(), clusters, [0] * 120)
    assert inside.value == pytest.approx(-1)
    assert overall.value > 0.8
    assert inside.high < 0 < overall.low
    noise = rank_correlation(within.tolist(), draw.standard_normal(120).tolist(), clusters, strata)
    assert noise.low < 0 < noise.high
    # Runs of a cluster that are all alike carry one run's worth.
    groups = np.repeat(draw.standard_normal((12, 2)), 10, axis=0)
    names = [i // 10 for i in range(120)]
    clustered = rank_correlation(*groups.T.tolist(), names, [0] * 120)
    single = rank_correlation(*groups.T.tolist(), list(range(120)), [0] * 120)
    assert clustered.high - clustered.low > 2 * (single.high - single.low)


def at(value: float, half: float = 0.1) -> Interval:
    return Interval(value, value - half, value + half, 10)


NAN = Interval(float("nan"), float("nan"), float("nan"), 0)


def test_rule_of_preservation():
    assert rules.winner(at(0.2), 0.02, "sigmoid", "relu") == "sigmoid"
    assert rules.winner(at(-0.2), 0.02, "sigmoid", "relu") == "relu"
    assert rules.winner(at(0.01, 0.001), 0.02, "sigmoid", "relu") == "neither"  # certain, and too small to count
    assert rules.winner(at(0.05), 0.02, "sigmoid", "relu") == "neither"
    assert rules.winner(NAN, 0.02, "sigmoid", "relu") == "neither"
    assert rules.preservation(["sigmoid", "sigmoid"]) == "sigmoid everywhere"
    assert rules.preservation(["relu", "relu"]) == "ReLU everywhere"
    assert rules.preservation(["sigmoid", "relu"]) == "it depends"
    assert rules.preservation(["sigmoid", "neither"]) == "it depends"
    assert rules.preservation(["neither"]) == "undecided"


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (at(0.5), "predicts"),
        (at(0.2), "predicts weakly"),
        (at(0.05), "does not predict"),
        (at(-0.5), "predicts the opposite"),
        (NAN, "does not predict"),
    ],
)
def test_rule_of_prediction(found, outcome):
    assert rules.prediction(found) == outcome


def test_rule_of_cost():
    assert rules.cost([at(0.5), at(0.8)]) == "costs less"
    assert rules.cost([at(1.0, 0.01)]) == "costs the same"
    assert rules.cost([at(0.98, 0.005)]) == "costs the same"  # certain, within the margin
    assert rules.cost([at(2.0)]) == "costs more"
    assert rules.cost([at(0.5), at(1.0)]) == "it depends"
    assert rules.cost([at(1.0)]) == "undecided"  # not known to within the margin


def test_rule_of_dead_units():
    assert rules.dead_units(at(-0.5), at(0.2), at(0.2)) == "cause"
    assert rules.dead_units(at(0.0), at(0.2), at(0.2)) == "contribute"
    assert rules.dead_units(at(-0.5), at(0.0), at(0.2)) == "contribute"
    assert rules.dead_units(at(-0.5), at(0.0), at(0.0)) == "do not cause"
    assert rules.dead_units(at(0.5), at(-0.2), at(-0.2)) == "do not cause"


def test_rule_of_depth():
    assert rules.trained_depth(at(1.0)) == "deeper"
    assert rules.trained_depth(at(-1.0)) == "less deep"
    assert rules.trained_depth(at(0.0, 0.0)) == "as deep"
    assert rules.largest_depth({8: 0.99, 32: 0.96, 16: 0.5, 64: 0.94}, 0.95) == 32
    assert rules.largest_depth({8: 0.5}, 0.95) == 0


def test_every_rule_has_outcomes_that_it_can_return():
    assert [question.number for question in rules.QUESTIONS] == [1, 2, 3, 4, 5]
    page = (Path(__file__).parent.parent / "docs" / "study.md").read_text(encoding="utf-8")
    for question in rules.QUESTIONS:
        assert question.asks in page
        assert question.rule in page
        assert "; ".join(question.outcomes) in page


# --- from end to end ---


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("questions")
    only = ["questions"]
    return runner.run_study(StudyConfig(), out, only, sizes=TINY, execution=runner.Execution(jobs=2)), out


def test_small_run_answers_every_question(tiny_run):
    results, out = tiny_run
    stored = json.loads((out / "results.json").read_text())["questions"]
    assert [answer["number"] for answer in stored["answers"]] == [1, 2, 3, 4, 5]
    assert not stored["failures"]
    assert all(stored["rows"].values())
    for row in stored["rows"]["trained"]:
        assert len(row["runs"]) == TINY.seeds
        assert row["accuracy"]["low"] <= row["accuracy"]["value"] <= row["accuracy"]["high"]
    for row in stored["rows"]["initial"]:
        assert row["spearman"]["n"] == TINY.initial_seeds
    assert stored["sizes"]["name"] == "tiny"
    summary = runner.summary(results, out)
    assert set(summary["answers"]) == {question.short for question in rules.QUESTIONS}


def test_report_of_a_small_run_shows_answers_rules_and_figures(tiny_run):
    _, out = tiny_run
    page = (out / "report.html").read_text(encoding="utf-8")
    for question in rules.QUESTIONS:
        assert f'id="question-{question.number}"' in page
    figures = {path.stem for path in (out / "figures").glob("q-*.png") if not path.stem.endswith("-dark")}
    assert {"q-crossing", "q-prediction", "q-ladder", "q-dead", "q-time", "q-rates", "q-preservation"} <= figures
    for figure in figures:
        assert f'id="fig-{figure}"' in page


def test_report_lists_units_that_failed(tmp_path, monkeypatch):
    def fail(spec):
        raise RuntimeError("planted fault")

    monkeypatch.setitem(units.UNITS, Paired, fail)
    small = replace(TINY, ladder_depths=(2,), trained_depths=(2,), initial_inits=())
    results = runner.run_study(StudyConfig(), tmp_path, ["questions"], sizes=small)
    assert len(results.questions.failures) == len(plan(small)["paired"])
    assert "planted fault" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert [answer.number for answer in results.questions.answers] == [1, 2, 3, 5]
    assert runner.summary(results, tmp_path)["failed_units"]


def test_stored_tiers_are_read_and_checked(tmp_path):
    assert tiers.stored_tiers(tmp_path) == []
    row = {"activation": "relu", "tier": "moments", "dtype": "float32", "median": 1.2, "q1": 1.1, "q3": 1.3}
    (tmp_path / "tiers-here.json").write_text(json.dumps({"kind": tiers.KIND, "rows": [row]}))
    assert tiers.stored_tiers(tmp_path) == [row | {"file": "tiers-here.json"}]
    (tmp_path / "tiers-wrong.json").write_text(json.dumps({"kind": tiers.KIND, "rows": [{"tier": "moments"}]}))
    with pytest.raises(ValueError, match="lacks activation"):
        tiers.stored_tiers(tmp_path)


def test_both_sizes_cover_every_question_and_every_unit_has_its_own_key():
    for sizes in (QUICK, FULL):
        groups = plan(sizes)
        assert all(groups.values())
        every = {spec for group in groups.values() for spec in group}
        assert len({spec.key() for spec in every}) == len(every)
    with pytest.raises(ValueError, match="seeds"):
        replace(TINY, seeds=1)


def test_inference_times_take_turns():
    found = inference.inference(Inference(("sigmoid", "relu"), "bfloat16", 4, 8, 1, 3, 1e-5))
    assert {len(times) for times in found["alone"].values()} == {3}
    assert all(seconds > 0 for part in found.values() for times in part.values() for seconds in times)
    assert dtype_of("bfloat16").itemsize == 2
    assert geoact.get("relu").name == "relu"


# --- documentation ---

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture
def studied(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import studied

    return studied


def test_no_number_of_the_geometry_page_is_stale_or_typed(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import generate

    page = (DOCS / "geometry.md").read_text(encoding="utf-8")
    assert generate.regenerated(page, DOCS / "geometry.md") == page, "run python docs/generate.py"
    prose = generate.BLOCK.sub("", page)
    for allowed in ("R²", "‖dx‖²/‖dy‖²", "around 0", "down to 0"):
        prose = prose.replace(allowed, "")
    assert not re.findall(r"\d", prose)


def test_every_part_of_the_page_can_be_made_from_a_run(tiny_run, studied, monkeypatch):
    monkeypatch.setattr(studied, "STORED", tiny_run[1] / "results.json")
    for name, block in studied.BLOCKS.items():
        text = block()
        assert text.endswith("\n"), name
        assert "Not measured" not in text
        assert "nan" not in text.lower().split()
    monkeypatch.setattr(studied, "STORED", tiny_run[1] / "missing.json")
    assert "geoact study --full --out docs/study" in studied.answers()
