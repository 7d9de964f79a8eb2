"""The gate over counts, and the command with counting replaced: findings, explanations, exit codes, files."""

import json

import pytest
import typer
from geoact.bench.instructions import (
    BaselineMissingError,
    CountingError,
    Explanation,
    Finding,
    Row,
    Table,
    cli,
    compare,
    load_explanations,
)
from typer.testing import CliRunner

TOOLS = {"isa": "avx2", "compiler of _core": "GCC 12"}


def row(count, name="scale[n=64]", **more):
    return Row(name, {"n": "64"}, count, 10 * count, elements=64, bytes=512, **more)


def table(*rows, tools=TOOLS, package="toy", gated="instructions", valgrind="3.19.0", **more):
    return Table("toy", package, gated, rows, tools, {"valgrind": valgrind}, **more)


BASE = table(row(1000))


def explained(**changes):
    return Explanation(**({"case": "scale*", "metric": "instructions", "limit": 1100, "reason": "why"} | changes))


# --- deciding -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "code", "changed"), [(1000, 0, 0), (1020, 0, 1), (1021, 10, 1), (999, 0, 1), (1, 0, 1)]
)
def test_more_than_two_percent_more_is_worse(count, code, changed):
    found = compare(BASE, table(row(count)))
    assert (found.code, found.changed, found.unchanged) == (code, changed, 1 - changed)
    expected = (Finding("scale[n=64]", "instructions", 1000, count),) if code else ()
    assert found.regressions == expected
    assert found.counts == ({"instructions": 1} if code else {})


def test_what_is_found_is_said():
    found = compare(BASE, table(row(1100)))
    assert str(found) == (
        "REGRESSED: 1 findings; 0 cases with the same count, 1 changed\n"
        "  worse: scale[n=64]: instructions 1000 -> 1100 (+10.0 %)"
    )
    assert compare(table(row(0)), table(row(5))).code == 10


def test_fewer_are_an_improvement():
    found = compare(BASE, table(row(900)))
    assert found.ok
    assert found.improvements == (Finding("scale[n=64]", "instructions", 1000, 900),)


def test_the_tolerance_is_what_it_says():
    assert compare(BASE, table(row(1001)), tolerance=0).code == 10
    assert compare(BASE, table(row(1100)), tolerance=0.1).ok
    for wrong in (-0.1, float("nan")):
        with pytest.raises(CountingError, match="tolerance cannot be"):
            compare(BASE, BASE, tolerance=wrong)


def test_the_total_is_gated_where_there_are_no_modules():
    before, after = (table(Row("f", {}, 0, n), gated="total") for n in (1000, 1100))
    found = compare(before, after)
    assert found.regressions == (Finding("f", "total", 1000, 1100),)
    assert found.counts == {"total": 1}


def test_a_total_is_only_information_where_there_are_modules():
    assert compare(BASE, table(Row("scale[n=64]", {"n": "64"}, 1000, 99999))).unchanged == 1


def test_vanished_and_new_cases():
    found = compare(table(row(1), row(2, "gone")), table(row(1), row(2, "fresh")))
    assert (found.code, found.vanished, found.new) == (12, (("gone",),), (("fresh",),))
    assert "vanished: gone" in str(found)
    assert compare(table(row(1), row(2, "gone")), table(row(2))).code == 10
    assert compare(BASE, table(row(1000), row(2, "fresh"))).ok


@pytest.mark.parametrize("changes", [{"isa": "sse2"}, {"compiler of _core": "clang 17"}])
def test_other_tools_are_refused(changes):
    found = compare(BASE, table(row(2000), tools=TOOLS | changes))
    name, value = next(iter(changes.items()))
    assert (found.code, found.refused) == (13, (f"{name} was {TOOLS[name]}, is {value}",))
    assert found.regressions == ()
    allowed = compare(BASE, table(row(2000), tools=TOOLS | changes), allow_other_tools=True)
    assert (allowed.code, allowed.notes) == (10, found.refused)


def test_a_module_that_only_one_side_loaded_is_no_other_tool():
    assert compare(BASE, table(row(1000), tools=TOOLS | {"compiler of _more": "GCC 9"})).ok


def test_counts_of_different_things_are_refused_even_if_other_tools_are_allowed():
    found = compare(BASE, table(row(1000), gated="total"), allow_other_tools=True)
    assert found.code == 13
    assert "the baseline counts the compiled modules of toy, this run everything" in str(found)
    assert compare(BASE, table(row(1000), package="other")).code == 13


def test_a_reader_is_told_what_is_odd():
    current = table(row(1000, spread=500), skipped={"a": "no GPU"}, errors={"b": "ValueError: x"}, valgrind="3.26.0")
    assert compare(BASE, current).notes == (
        "a: skipped: no GPU",
        "b: failed: ValueError: x",
        "scale[n=64] is not repeatable: 1000 and 1500 in one process",
        "valgrind was 3.19.0, is 3.26.0",
    )


# --- explanations ---------------------------------------------------------------------------------


def test_an_explained_rise_passes_and_is_reported():
    found = compare(BASE, table(row(1100)), explanations=[explained()])
    assert found.ok
    assert "explained: scale[n=64]: instructions 1000 -> 1100 (+10.0 %): why" in str(found)


@pytest.mark.parametrize("changes", [{"limit": 1099}, {"case": "other*"}, {"metric": "total"}])
def test_an_explanation_covers_only_what_it_says(changes):
    found = compare(BASE, table(row(1100)), explanations=[explained(**changes)])
    assert (found.code, found.unused) == (10, (explained(**changes),))
    assert "explanation not needed" in str(found)


GOOD = {"case": "scale[n=64]", "metric": "instructions", "limit": 1100, "reason": "two passes, on purpose"}


def test_explanations_are_read_from_a_file(tmp_path):
    path = tmp_path / "explained.json"
    path.write_text(json.dumps([GOOD]))
    assert load_explanations(path) == (Explanation(**GOOD),)
    assert compare(BASE, table(row(1100)), explanations=path).ok


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ("nonsense", "cannot read the explanations"),
        ("{}", "expected a list"),
        (json.dumps([GOOD | {"reason": " "}]), "case and reason must be text, and a reason must be given"),
        (json.dumps([GOOD | {"metric": "time"}]), "no metric is called 'time'; there are instructions, total"),
        (json.dumps([GOOD | {"limit": True}]), "limit must be a number"),
        (json.dumps([GOOD, {"case": "*"}]), "entry 2: expected an object with exactly case, metric, limit, reason"),
    ],
)
def test_bad_explanations_are_named(tmp_path, stored, message):
    path = tmp_path / "explained.json"
    path.write_text(stored)
    with pytest.raises(CountingError, match=message):
        load_explanations(path)


def test_a_missing_baseline_has_its_own_error(tmp_path):
    with pytest.raises(BaselineMissingError, match="there is no baseline"):
        compare(tmp_path / "none.json", BASE)


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch):
    """Runs the command as part of an application of two, on a table instead of a count."""
    asked = []

    def run(*arguments, counted=BASE):
        def count_suite(suite, **options):
            asked.append((suite, options))
            if isinstance(counted, Exception):
                raise counted
            options["told"]("scale[n=64]", 0, 1)
            return counted

        monkeypatch.setattr(cli, "count_suite", count_suite)
        app = typer.Typer()
        cli.register(app)
        app.command("other")(lambda: None)
        return CliRunner().invoke(app, ["instructions", "toy.py", *map(str, arguments)])

    run.asked = asked
    return run


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "baseline.json"
    BASE.save(path)
    return path


def test_counting_alone_passes_and_shows_both_figures(command):
    done = command("--only", "scale*", "--set", "n=64", "--package", "toy", "--no-check")
    assert done.exit_code == 0
    assert "scale[n=64]" in done.stdout
    assert "15.62" in done.stdout  # 1000 / 64
    assert "10000" in done.stdout
    suite, options = command.asked[0]
    assert suite == "toy.py"
    assert (options["only"], options["axes"], options["package"]) == (("scale*",), (("n", "64"),), "toy")
    assert options["check"] is False


@pytest.mark.parametrize(
    ("counted", "code"),
    [
        (BASE, 0),
        (table(row(1100)), 10),
        (table(row(1, "other")), 12),
        (table(row(1000), tools=TOOLS | {"isa": "sse2"}), 13),
        (table(row(1000), errors={"b": "ValueError: x"}), 2),
        (table(row(1100), errors={"b": "ValueError: x"}), 10),
        (CountingError("valgrind was not found"), 2),
    ],
)
def test_exit_codes(command, stored, counted, code):
    assert command("--baseline", stored, counted=counted).exit_code == code


def test_options_of_the_gate(command, stored, tmp_path):
    assert command("--baseline", stored, "--tolerance", "10", counted=table(row(1100))).exit_code == 0
    other = table(row(1000), tools=TOOLS | {"isa": "sse2"})
    assert command("--baseline", stored, "--allow-other-tools", counted=other).exit_code == 0
    path = tmp_path / "explained.json"
    path.write_text(json.dumps([GOOD]))
    done = command("--baseline", stored, "--explained", path, counted=table(row(1100)))
    assert done.exit_code == 0
    assert "two passes, on purpose" in done.stdout
    assert "+10.0 %" in done.stdout


def test_a_baseline_that_cannot_be_used_is_said_before_counting(command, tmp_path):
    missing = command("--baseline", tmp_path / "none.json")
    assert (missing.exit_code, command.asked) == (12, [])
    assert "there is no baseline" in missing.stderr
    path = tmp_path / "bad.json"
    path.write_text("{")
    damaged = command("--baseline", path)
    assert (damaged.exit_code, command.asked) == (2, [])
    assert f"{path} is damaged" in damaged.stderr


def test_cases_that_were_not_asked_for_have_not_vanished(command, tmp_path):
    path = tmp_path / "two.json"
    table(row(1000), row(5, "add")).save(path)
    assert command("--baseline", path).exit_code == 12
    assert command("--baseline", path, "--only", "scale").exit_code == 0


def test_a_table_is_stored_and_shown_as_json(command, tmp_path):
    path = tmp_path / "new.json"
    done = command("--save", path, "--json")
    assert Table.load(path) == BASE
    shown = json.loads(done.stdout)
    assert shown["cases"][0]["per_element"] == 15.62
    assert shown["tools"] == TOOLS


def test_part_of_the_cases_does_not_replace_all(command, tmp_path):
    path = tmp_path / "two.json"
    table(row(1000), row(5, "add")).save(path)
    before = path.read_bytes()
    done = command("--save", path, "--only", "scale")
    assert (done.exit_code, command.asked, path.read_bytes()) == (2, [], before)
    assert "holds 1 other cases" in done.stderr
    assert command("--save", path).exit_code == 0
    assert [one.name for one in Table.load(path).rows] == ["scale[n=64]"]


def test_a_failed_case_keeps_the_stored_table(command, stored):
    before = stored.read_bytes()
    done = command("--save", stored, counted=table(errors={"b": "ValueError: x"}))
    assert (done.exit_code, stored.read_bytes()) == (2, before)
    assert "failed: b: ValueError: x" in done.stdout


def test_markdown_has_the_verdict_and_the_table(command, stored, tmp_path):
    path = tmp_path / "gate.md"
    command("--baseline", stored, "--markdown", path, counted=table(row(1100), skipped={"a": "no GPU"}))
    text = path.read_text()
    assert "## Instruction gate\n\n**REGRESSED: 1 findings" in text
    assert "| scale\\[n=64\\] | 1100 | 17.19 | 34.38 | 11000 | 1000 | +10.0 % |" in text
    assert "- skipped: a: no GPU" in text


def test_a_setting_without_a_value_is_a_usage_error(command):
    done = command("--set", "n")
    assert (done.exit_code, command.asked) == (2, [])
    assert "AXIS=VALUE" in done.stderr
