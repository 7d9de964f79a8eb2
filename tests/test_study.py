"""The study: published digits, networks, sentences that follow numbers, and the report as a whole."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from geoact import _files as files
from geoact import cli

if cli.missing_packages():
    pytest.skip(cli.missing_message(cli.missing_packages()), allow_module_level=True)

from geoact.study import claims, overhead, plotting, processes, replica, runner, sections
from geoact.study.config import CHOICES, SECTIONS, Choice, Setting, StudyConfig
from geoact.study.measurement import correlation, distance_ranks
from geoact.study.network import Network
from geoact.study.results_json import finite
from geoact.study.spread import mean_and_sd, spread
from geoact.study.training import Adam, BinaryHead, GradientDescent, SoftmaxHead, train

TINY = StudyConfig(
    seeds=2,
    choices=tuple(choice for choice in CHOICES if choice.name in ("sigmoid", "centered_sigmoid", "relu", "leaky_relu")),
    replica_epochs=3,
    moons_epochs=3,
    init_width=16,
    init_depth=3,
    init_rows=24,
    init_seeds=2,
    digits_settings=(Setting("SGD", 0.5), Setting("Adam", 0.003)),
    digits_widths=(64, 8, 8, 10),
    digits_epochs=1,
    overhead_rows=(4,),
    overhead_rounds=3,
    overhead_min_seconds=1e-5,
)

COMPARISONS = tuple(section for section in SECTIONS if section != "questions")
"""Sections a to e; the five questions are tested by test_study_questions.py."""


def ignore_progress() -> None:
    pass


@pytest.fixture(scope="module")
def published():
    return replica.run(StudyConfig(), ignore_progress)


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    return runner.run_study(TINY, out, COMPARISONS), out


# --- the replica ---


def test_replica_reproduces_every_published_number_to_the_printed_digit(published):
    expected = {
        "sigmoid": [".3589", ".2875", ".2871", ".2822", "79.0", ".2593", ".1950"],
        "relu": [".1549", ".0566", ".0450", ".0353", "96.0", "1.1453", "1.6729"],
    }
    for name, printed in expected.items():
        checks = [check for check in published.checks if check.network == name]
        assert [check.printed for check in checks] == printed
        for check in checks:
            decimals = len(check.printed.partition(".")[2])
            assert float(f"{check.measured:.{decimals}f}") == float(check.printed), check
    assert published.matched == 14


def test_replica_standard_deviation_from_the_fused_statistics_is_that_of_numpy(published):
    for network in published.networks:
        np.testing.assert_allclose(network.sd_fused, network.sd_numpy, rtol=1e-10)


# --- networks and training ---


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.name)
def test_gradients_of_a_network_match_finite_differences(choice):
    draw = np.random.default_rng(0)
    network = Network(choice, (3, 5, 4, 1), nets=2).initialise([draw, draw])
    x = draw.standard_normal((2, 7, 3))
    head, labels = BinaryHead(), draw.integers(0, 2, (2, 7))
    targets = head.targets(labels)

    def losses():
        return head.losses(head.probabilities(network.forward(x).scores), targets)

    trace = network.forward(x)
    network.backward(trace, head.dscores(head.probabilities(trace.scores), targets))
    analytic = network.gradients.copy()
    step = 1e-6
    for index in range(0, network.parameters.shape[1], 3):
        kept = network.parameters[:, index].copy()
        network.parameters[:, index] = kept + step
        above = losses()
        network.parameters[:, index] = kept - step
        below = losses()
        network.parameters[:, index] = kept
        np.testing.assert_allclose(analytic[:, index], (above - below) / (2 * step), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("optimiser", [GradientDescent, Adam])
def test_networks_of_a_stack_train_as_they_would_alone(optimiser):
    draw = np.random.default_rng(1)
    x, labels = draw.standard_normal((3, 10, 4)), draw.integers(0, 3, (3, 10))
    orders = np.stack([[draw.permutation(10) for _ in range(3)] for _ in range(4)])
    rates, head = np.array([0.1, 0.02, 0.5]), SoftmaxHead(3)
    together = Network(Choice("tanh", 1.0), (4, 6, 3), nets=3).initialise([draw] * 3)
    alone = [together.take(net) for net in range(3)]
    for _ in train(together, optimiser(together, rates), head, x, labels, orders, batch=4):
        pass
    for net, single in enumerate(alone):
        pick = slice(net, net + 1)
        for _ in train(single, optimiser(single, rates[pick]), head, x[pick], labels[pick], orders[:, pick], batch=4):
            pass
        np.testing.assert_allclose(single.parameters[0], together.parameters[net], rtol=1e-9, atol=1e-12)


def test_rank_correlation_of_distances():
    rows = np.random.default_rng(2).standard_normal((20, 3))
    ranks = distance_ranks(rows)
    assert correlation(ranks, distance_ranks(5 * rows + 1)) == pytest.approx(1)
    assert correlation(ranks, distance_ranks(np.ones((20, 3)))) == 0.0


def test_spread_brackets_the_mean_and_survives_equal_values():
    summary = spread([0.9, 0.95, 0.97, 0.91, 0.99])
    assert summary.low < summary.mean < summary.high
    assert summary.sd == pytest.approx(np.std(summary.values, ddof=1))
    assert spread([0.5] * 5).low == spread([0.5] * 5).high == 0.5
    assert mean_and_sd([1.0, 3.0, float("nan")]).mean == 2.0


# --- cost ---


def test_overhead_returns_ordered_ratios_and_agrees_with_numpy():
    result = overhead.run(TINY, ignore_progress)
    assert len(result.cases) == overhead.steps(TINY)
    for case in result.cases:
        assert set(case.seconds) == set(overhead.WAYS)
        assert all(seconds > 0 for seconds in case.seconds.values())
        assert [ratio.name for ratio in case.ratios] == [name for name, _, _ in overhead.RATIOS]
        assert all(0 < ratio.lower <= ratio.upper for ratio in case.ratios)
        assert case.largest_disagreement < 1e-6


# --- sentences ---


def finding(*winners: str) -> claims.Finding:
    values = {"sigmoid": (2.0, 1.0), "relu": (1.0, 2.0), "neither": (1.0, 1.0)}
    return claims.Finding("A title", "", [claims.higher_keeps("q", "shape", *values[name], 0.1) for name in winners])


@pytest.mark.parametrize(
    ("winners", "verdicts"),
    [
        (["sigmoid"], ("supports", "contradicts")),
        (["relu", "relu"], ("contradicts", "supports")),
        (["relu", "neither"], ("contradicts in part", "supports in part")),
        (["sigmoid", "relu"], ("supports in part", "supports in part")),
        (["neither"], ("undecided", "undecided")),
    ],
)
def test_verdicts_follow_from_the_comparisons(winners, verdicts):
    assert tuple(finding(*winners).verdict(claim) for claim in (0, 1)) == verdicts


def test_conclusion_changes_with_the_numbers():
    assert "neither claim holds" in claims.conclusion([finding("sigmoid"), finding("relu")])[-1]
    assert "favours ReLU" in claims.conclusion([finding("relu")])[-1]
    assert "no comparison separates" in claims.conclusion([finding("neither")])[-1]
    assert claims.higher_keeps("q", "shape", float("nan"), 1.0, 0.1).keeps_more == "neither"


# --- the whole study ---


def test_small_study_writes_results_figures_and_report(tiny_run):
    results, out = tiny_run
    stored = json.loads((out / "results.json").read_text())
    assert set(results.seconds) == set(COMPARISONS)
    for section in runner.ALL_SECTIONS:
        assert stored[section.field]
    assert len(stored["replica"]["checks"]) == len(results.replica.checks)
    assert stored["replica"]["networks"][0]["losses"] == results.replica.networks[0].losses
    assert len(stored["findings"]) == 9
    light = {path.name for path in (out / "figures").glob("*.png") if not path.stem.endswith("-dark")}
    dark = {path.name.replace("-dark", "") for path in (out / "figures").glob("*-dark.png")}
    assert light == dark
    assert len(light) == 12


def test_report_contains_every_section_and_figure_and_nothing_from_outside(tiny_run):
    results, out = tiny_run
    page = (out / "report.html").read_text(encoding="utf-8")
    for section in ("summary", *COMPARISONS, "findings", "method"):
        assert f'id="{section}"' in page
    for figure in (out / "figures").glob("*.png"):
        assert f'id="fig-{figure.stem.removesuffix("-dark")}"' in page
    for claim in claims.CLAIMS:
        assert claim in page
    for name in (results.machine["processor"], results.machine["packages"]["numpy"]):
        assert name in page
    assert "nan" not in re.sub(r'"data:[^"]*"', "", page).split()
    references = re.findall(r'(?:src|srcset|href)="([^"]*)"', page) + re.findall(r"url\(([^)]*)\)", page)
    assert references
    assert all(reference.startswith(("data:image/png;base64,", "#")) for reference in references)
    assert not re.search(r"https?://|@import|<script|<link", page)


def test_only_runs_what_is_asked_for(tmp_path):
    results = runner.run_study(TINY, tmp_path, only=["replica"])
    assert list(results.seconds) == ["replica"]
    assert 'id="replica"' in (tmp_path / "report.html").read_text()
    with pytest.raises(ValueError, match="no section nonsense"):
        runner.run_study(TINY, tmp_path, only=["nonsense"])


def test_sections_in_processes_measure_the_same(tiny_run):
    results, _ = tiny_run
    told: list[tuple[str, str]] = []
    chosen = [section for section in sections.ALL_SECTIONS if section.name in ("replica", "axes", "digits")]
    outcomes = list(
        sections.run_sections(
            chosen, TINY, 3, lambda name: told.append(("start", name)), lambda name: told.append(("step", name))
        )
    )
    assert {outcome.section.name for outcome in outcomes} == {"replica", "axes", "digits"}
    for outcome in outcomes:
        section, here = outcome.section, getattr(results, outcome.section.field)
        assert finite(asdict(outcome.result)) == finite(asdict(here))
        assert outcome.seconds > 0
        assert told.count(("start", section.name)) == 1
        assert told.count(("step", section.name)) == section.steps(TINY)


def test_a_section_that_fails_in_a_process_fails_here():
    broken = replace(TINY, digits_widths=(63, 10))
    chosen = [section for section in sections.ALL_SECTIONS if section.name in ("replica", "digits")]
    with pytest.raises(ValueError, match="63"):
        list(sections.run_sections(chosen, broken, 2, lambda _: None, lambda _: None))


def test_a_process_that_dies_ends_the_run():
    with pytest.raises(OSError, match="a worker process died"):
        list(processes.run_each(end_process, [0, 1, 2], 2, lambda _: None))


def end_process(item, tell):
    tell(item)
    os._exit(9)


def test_names_of_curves_do_not_overlap():
    places = plotting.spread_out([0.5, 0.5, 0.51, 0.9, 0.97, 0.97], gap=0.08)
    assert np.diff(places).min() >= 0.08 - 1e-12
    assert min(places) >= 0
    assert max(places) <= 1


@pytest.mark.parametrize("seeds", [0, 1])
def test_config_refuses_a_study_without_spread(seeds):
    with pytest.raises(ValueError, match="seeds"):
        replace(TINY, seeds=seeds)


# --- files ---


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    target = tmp_path / "results.json"
    files.write_atomic(target, "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_atomic(target, "new")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_writing_makes_the_folder_and_replaces(tmp_path):
    target = tmp_path / "deep" / "file.bin"
    files.write_atomic(target, b"one")
    files.write_atomic(target, b"two")
    assert target.read_bytes() == b"two"


def test_a_link_is_followed_and_a_pipe_is_written_to_and_stays_one(tmp_path):
    target, link, pipe = tmp_path / "target.json", tmp_path / "link.json", tmp_path / "pipe"
    target.write_text("old")
    link.symlink_to(target)
    files.write_atomic(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    files.write_atomic(pipe, "through")
    reader.join(10)
    assert read == ["through"]
    assert pipe.is_fifo()


# --- the command ---


def run_command(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["geoact", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


def pretend_missing(monkeypatch, *modules: str) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name in modules else find_spec(name))


@pytest.mark.parametrize("modules", [("sklearn", "matplotlib"), ("typer",), ("rich",)])
def test_a_missing_extra_is_named_in_one_line(monkeypatch, capsys, modules):
    pretend_missing(monkeypatch, *modules)
    assert run_command(monkeypatch, "study") == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "pip install geoact[study]" in told
    for module in modules:
        assert cli.STUDY_MODULES[module] in told


def test_info_works_without_typer(monkeypatch, capsys):
    pretend_missing(monkeypatch, "typer", "rich")
    assert run_command(monkeypatch, "info") == 0
    assert "version" in capsys.readouterr().out
    assert run_command(monkeypatch, "info", "--json") == 0
    assert json.loads(capsys.readouterr().out)["version"]
    assert run_command(monkeypatch, "nonsense") == 2


def test_info_as_table_and_as_json(monkeypatch, capsys):
    assert run_command(monkeypatch, "info") == 0
    assert "isa" in capsys.readouterr().out
    assert run_command(monkeypatch, "info", "--json") == 0
    assert {"version", "isa", "threads"} <= set(json.loads(capsys.readouterr().out))


def test_study_command_prints_a_summary_as_json(monkeypatch, capsys, tmp_path):
    out = tmp_path / "out"
    assert run_command(monkeypatch, "study", "--out", str(out), "--only", "replica", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["replica"] == {"matched": 14, "of": 14}
    assert Path(told["report"]).is_file()
    assert Path(told["results"]).is_file()


def test_study_command_refuses_an_unknown_section(monkeypatch, capsys, tmp_path):
    assert run_command(monkeypatch, "study", "--out", str(tmp_path), "--only", "nonsense") == 2
    assert "no section nonsense" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
