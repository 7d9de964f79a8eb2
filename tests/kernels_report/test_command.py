"""The command: exit codes, what it writes, and its messages; on stored reports, so that no tool is needed."""

import json
import sys
from importlib.util import find_spec

import pytest
from geoact.bench.kernels_report import Report, cli
from support.machine_code import BASE, TOOLS, kernel, report


@pytest.fixture
def command(monkeypatch, capsys):
    pytest.importorskip("typer")
    pytest.importorskip("rich")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["geoact-kernels-report", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return ended.value.code or 0, told.out, told.err

    return run


@pytest.fixture
def stored(tmp_path):
    def save(name, *kernels, **changes):
        path = tmp_path / f"{name}.json"
        report(*kernels, **changes).save(path)
        return path

    return save


def test_compare_passes(command, stored):
    base = stored("base", BASE)
    code, out, _ = command("compare", base, base)
    assert code == 0
    assert out.startswith("passed: 1 kernels with the same machine code")


def test_compare_fails(command, stored, tmp_path):
    base, worse = stored("base", BASE), stored("worse", kernel(stack=8))
    markdown = tmp_path / "verdict.md"
    code, out, _ = command("compare", base, worse, "--markdown", markdown)
    assert code == 10
    assert "worse: scale<float> sm_90: stack 0 -> 8" in out
    assert "- scale\\<float> sm_90: stack 0 -> 8" in markdown.read_text()
    assert command("compare", base, worse, "--stack-tolerance", 8)[0] == 0


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"instructions": 105}, ("--instructions-tolerance", 5)),
        ({"loop_instructions": 42}, ("--loop-tolerance", 5)),
        ({"local_loads": 3}, ("--spills-tolerance", 3)),
        ({"registers": 33}, ("--warps-tolerance", 16)),
    ],
)
def test_tolerances(command, stored, changes, option):
    files = stored("base", BASE), stored("worse", kernel(**changes))
    assert command("compare", *files)[0] == 10
    assert command("compare", *files, *option)[0] == 0


def test_explanations(command, stored, tmp_path):
    why = tmp_path / "why.json"
    why.write_text(json.dumps([{"kernel": "*", "arch": "*", "metric": "stack", "limit": 8, "reason": "wanted"}]))
    code, out, _ = command("compare", stored("base", BASE), stored("worse", kernel(stack=8)), "--explained", why)
    assert code == 0
    assert "explained: scale<float> sm_90: stack 0 -> 8: wanted" in out


def test_missing_things(command, stored, tmp_path):
    base = stored("base", BASE, kernel(name="gone"))
    assert command("compare", base, stored("less", BASE))[0] == 12
    code, _, err = command("compare", tmp_path / "none.json", base)
    assert (code, "there is no baseline" in err) == (12, True)
    code, _, err = command("compare", base, tmp_path / "none.json")
    assert (code, "cannot read the report" in err) == (2, True)


def test_other_tools(command, stored):
    files = stored("base", BASE), stored("newer", BASE, tools={**TOOLS, "cuobjdump": "14.0.1"})
    code, out, _ = command("compare", *files)
    assert (code, "REFUSED: cuobjdump was 13.1.80, is 14.0.1" in out) == (13, True)
    assert command("compare", *files, "--allow-other-tools")[0] == 0


def test_json_holds_the_verdict(command, stored):
    code, out, _ = command("compare", stored("base", BASE), stored("worse", kernel(stack=8)), "--json")
    told = json.loads(out)["verdict"]
    assert (code, told["code"]) == (10, 10)
    assert told["regressions"] == [
        {"kernel": "scale<float>", "arch": "sm_90", "metric": "stack", "before": 0, "after": 8, "note": ""}
    ]


def test_corrupt_baseline(command, stored, tmp_path):
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    code, _, err = command("compare", broken, stored("base", BASE))
    assert (code, "is not a kernel report" in err) == (2, True)


def test_a_tool_that_is_not_there(command, tmp_path):
    kernels = tmp_path / "k.cubin"
    kernels.write_bytes(b"x")
    code, _, err = command(kernels, "--cuobjdump", tmp_path / "none")
    assert code == 2
    assert f"--cuobjdump names {tmp_path / 'none'}, which is not an executable file" in err


def test_a_tool_that_is_not_cuobjdump(command, tmp_path):
    fake = tmp_path / "cuobjdump"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    data = bytearray(64)
    data[:5] = b"\x7fELF\x02"
    (tmp_path / "k.o").write_bytes(data)
    code, _, err = command(tmp_path / "k.o", "--cuobjdump", fake)
    assert code == 2
    assert "cuobjdump cannot read" in err


@pytest.mark.parametrize("arguments", [(), ("read",), ("compare", "one.json"), ("k.cubin", "--block", "5000")])
def test_usage(command, arguments):
    assert command(*arguments)[0] == 2


def test_without_rich_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == "rich" else find_spec(name))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "needs rich: pip install geoact[bench]" in capsys.readouterr().err


def test_the_table_shows_what_is_unknown(command, stored):
    pytest.importorskip("rich")
    from geoact.bench.kernels_report import show

    odd = report(kernel(arch="sm_999", other_opcodes="FROB"), kernel(name="spilling", stack=8, local_loads=2))
    assert show.offenders(odd)[0].name == "spilling"
    assert "Opcodes without a class: FROB." in show.totals(odd)
    assert "No occupancy for sm_999" in show.totals(odd)
    text = show.report_markdown(odd)
    assert "| scale\\<float> | sm_999 | 32 | ? |" in text
    assert text.count("\n| ") == 4


def test_importing_the_package_needs_neither_rich_nor_typer(python):
    told = python(
        "import sys\nfrom geoact.bench import kernels_report\n"
        "assert not {'rich', 'typer', 'triton', 'torch'} & set(sys.modules)\nprint('fine')"
    )
    assert told.strip() == "fine"


def test_a_stored_report_is_no_kernel(command, stored, tmp_path):
    from support.machine_code import cuobjdump_or_skip

    cuobjdump_or_skip()
    code, _, err = command(stored("base", BASE))
    assert (code, "is no cubin" in err) == (2, True)
    assert Report.load(tmp_path / "base.json").kernels == (BASE,)
