"""docs/benchmarking.md says only what is so: its suite runs, its commands and links exist, its tables are complete."""

import importlib.util
import re
from pathlib import Path

import pytest
from geoact.bench import config, runner
from geoact.bench.gate import decide, show
from geoact.bench.gate.compare import Plan
from geoact.bench.suite import load
from geoact.bench.timing import Settings

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "benchmarking.md").read_text(encoding="utf-8")
PARTS = {"instructions.md": "instructions", "pytest.md": "pytest_plugin"}
"""Guides that come with a part of geoact.bench."""
COMMANDS = re.findall(r"^(?:geoact|pytest) [^#\n]+", "\n".join(re.findall(r"```sh\n(.*?)```", TEXT, re.S)), re.M)


def block(language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.S)
    return found


def test_the_suite_of_the_quick_start_runs_as_it_stands(tmp_path):
    path = tmp_path / "suite_of_the_guide.py"
    path.write_text(block("python"), encoding="utf-8")
    suite = load(str(path))
    assert len(suite.cases) == 4
    document = runner.run(suite, Settings.quick(), environment={})
    for case in document["cases"]:
        # On a loaded machine so few samples may find the copy slower than the case, and nothing else wrong.
        assert case["status"] == "measured" or "of the best copy" in case["reason"]
        assert case["rounds"] >= 3
        assert case["score"]["median"] > 0


def test_the_table_of_pyproject_is_one_that_is_accepted(tmp_path):
    (tmp_path / "pyproject.toml").write_text(block("toml"), encoding="utf-8")
    assert config.find(tmp_path).suite == "benchmarks/suite.py"


@pytest.mark.parametrize("command", [c.strip() for c in COMMANDS if c.startswith("geoact")])
def test_a_command_and_its_options_exist(command):
    for module in ("history", "instructions"):
        if importlib.util.find_spec(f"geoact.bench.{module}") is None:
            pytest.skip(f"the command line needs geoact.bench.{module}")
    pytest.importorskip("typer")
    from geoact.cli import build_app
    from typer.main import get_command

    found = get_command(build_app())
    words = command.split()[1:]
    while words and hasattr(found, "commands"):
        found = found.commands[words.pop(0)]
    known = {option for parameter in found.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_every_verdict_column_and_code_is_explained():
    for word in decide.VERDICTS:
        assert f"| `{word}` |" in TEXT
    for head in show.HEADS[1:]:
        assert f"| `{head}` |" in TEXT
    for code in (decide.PASSED, decide.REGRESSED, decide.INCONCLUSIVE, decide.MISSING, decide.REFUSED, 2):
        assert f"| {code} |" in TEXT


def test_the_numbers_of_the_rule_are_those_of_the_code():
    rule, plan, settings = decide.Rule(), Plan(), Settings()
    assert (rule.least, rule.widths, rule.unknown, rule.alpha, rule.resamples) == (0.03, 3, 0.10, 0.05, 4000)
    assert (plan.incarnations, plan.placements, plan.rounds, plan.seconds, plan.narrow, plan.batches) == (
        5,
        3,
        10,
        0.9,
        0.002,
        3,
    )
    assert (settings.seconds, settings.batches, settings.shortest) == (3, 5, 3e-4)
    assert (settings.rule.least, settings.rule.seconds, settings.rule.quiet) == (10, 0.2, 0.005)
    for said in ("4000 draws", "**delta** is 3 %", "three times the A/A width", "until 0.9 s are over",
                 "five times in all",
                 "prepared three times in each",
                 "standard error of its median is 0.2 %", "fastest of five batches (of three",
                 "at least 0.3 ms", "at least ten samples and 0.2 s",
                 "10 % as long as there are fewer than three sessions"):  # fmt: skip
        assert said in TEXT


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_links_lead_somewhere(target):
    if target in PARTS and importlib.util.find_spec(f"geoact.bench.{PARTS[target]}") is None:
        pytest.skip(f"geoact.bench.{PARTS[target]} is not here, nor is its guide")
    assert (DOCS / target).exists()


@pytest.mark.parametrize("anchor", sorted(set(re.findall(r"\]\(#([^)]+)\)", TEXT))))
def test_links_within_the_page_lead_to_a_heading(anchor):
    headings = re.findall(r"^#+ (.+)$", TEXT, flags=re.M)
    assert anchor in {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
