"""Reading callgrind's files, object files and stored tables: all of it on hand-made input, without valgrind."""

import json
import platform
import struct
import sys

import pytest
from geoact.bench.instructions import BaselineMissingError, CountingError, Row, Table, callgrind, measured
from geoact.bench.instructions.child import elements_of
from geoact.bench.instructions.requests import Machine, Requests

PARSED = """# callgrind format
version: 1
creator: callgrind-3.19.0
pid: 1
cmd:  python child.py
part: 1


desc: I1 cache:
desc: Timerange: Basic block 0 - 45558
desc: Trigger: Client Request: geoact 3 0

positions: line
events: Ir
summary: 480


ob=(1) /lib/kernels.so
fl=(1) kernels.c
fn=(1) scale
10 100
+2 5
cob=(2) /lib/libc.so.6
cfi=(2) memcpy.c
cfn=(2) memcpy
calls=3 7
12 9000
* 15
-1 20

ob=(2)
fl=(2)
fn=(2)
7 300
jfi=(1)
jcnd=5/9 +3
*
jump=2 0x12
* 0

ob=???
fl=???
fn=???
0 30
fe=(1)

ob=(1)
fn=(3) shift
fi=(1)
0x10 10
totals: 480
"""


def test_self_cost_is_added_up_by_object():
    found = callgrind.parse(PARSED, "file")
    assert found.label == "geoact 3 0"
    assert found.objects == {"/lib/kernels.so": 150, "/lib/libc.so.6": 300, "???": 30}
    assert found.total == 480 == sum(found.objects.values())
    assert found.of(["/lib/kernels.so"]) == 150
    assert found.of(["/lib/kernels.so", "???", "/lib/kernels.so"]) == 180
    assert found.of(["/lib/other.so"]) == 0


def test_instructions_are_found_among_other_events_and_positions():
    text = """positions: instr line
events: Bc Ir Dr
ob=a.so
0x80001234 90 1 7 3
+3 * 2 4
+1 +1 6
totals: 9 11 3
"""
    found = callgrind.parse(text, "file")
    assert (found.objects, found.total, found.label) == ({"a.so": 11}, 11, "")


def test_names_without_numbers_and_numbers_of_other_kinds_are_kept_apart():
    text = "events: Ir\nfn=(1) f\nob=one.so\n1 1\nob=(1) two.so\n1 2\ncob=(7) three.so\nob=(7)\n1 4\ntotals: 7\n"
    assert callgrind.parse(text, "file").objects == {"one.so": 1, "two.so": 2, "three.so": 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PARSED.replace("totals: 480\n", ""), "cut short: it has no totals"),
        (PARSED.replace("totals: 480", "totals: 481"), "lines add up to 480, it says 481"),
        (PARSED.replace("12 9000", "12 9000\n12 1"), "add up to 481"),
        (PARSED.replace("12 9000\n", ""), "add up to 465"),  # the next line is then the call's
        (PARSED.replace("12 9000\n* 15", "fn=(1)"), "line 27: a call without the line of its cost"),
        (PARSED.replace("ob=(2)\nfl", "ob=(5)\nfl"), "no object has the number 5"),
        (PARSED.replace("events: Ir", "events: Dr"), "Ir was not counted"),
        (PARSED.replace("summary", "events: Ir\nsummary"), "more than one part"),
        (PARSED.replace("events: Ir\n", ""), "costs before the events"),
        (PARSED.replace("* 0\n", "* many\n"), "invalid literal"),
        (PARSED.replace("* 0\n", "what is this\n"), "not a line of this format"),
        ("", "cut short"),
    ],
)
def test_a_damaged_file_is_named(text, message):
    with pytest.raises(CountingError, match=message) as caught:
        callgrind.parse(text, "out.3")
    assert "out.3" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CountingError, match=r"cannot read .*none"):
        callgrind.read(tmp_path / "none")


# --- requests -------------------------------------------------------------------------------------

on_x86 = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="requests are those of Linux x86_64"
)


@on_x86
def test_requests_do_nothing_outside_valgrind():
    requests, calls = Requests(), []
    assert not requests.answered
    requests.count(lambda: calls.append(1), "label")
    assert calls == [1]


@on_x86
def test_what_a_counted_call_raises_comes_through():
    with pytest.raises(ZeroDivisionError):
        Requests().count(lambda: 1 / 0, "label")


@on_x86
def test_machine_code_is_called_with_both_words():
    machine = Machine(bytes.fromhex("488d0437 c3"))  # lea rax, [rdi + rsi]; ret
    assert machine.call(40, 2) == 42


def test_another_processor_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(CountingError, match=r"Linux x86_64 only, this is .* aarch64"):
        Requests()


# --- object files ---------------------------------------------------------------------------------


def elf(comment):
    """A 64-bit ELF file with a section .comment, if any."""
    names = b"\0.shstrtab\0.comment\0"
    contents = [(1, names), *([(11, comment)] if comment is not None else [])]
    place, body, headers = 64, b"", [bytes(64)]
    for name, content in contents:
        headers.append(struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, place + len(body), len(content), 0, 0, 1, 0))
        body += content
    start = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, place + len(body), 0, 64,
                                                          0, 0, 64, len(headers), 1)  # fmt: skip
    return start + body + b"".join(headers)


def test_the_compiler_is_read_from_the_file(tmp_path):
    path = tmp_path / "a.so"
    for comment, expected in [
        (b"GCC: 12.2.0\0", "GCC: 12.2.0"),
        (b"GCC: 12.2.0\0clang 17\0GCC: 12.2.0\0", "GCC: 12.2.0; clang 17"),
        (b"", "unknown"),
        (None, "unknown"),
    ]:
        path.write_bytes(elf(comment))
        assert measured.compiler(str(path)) == expected


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(60), b"text", elf(b"GCC")[:-40]])
def test_a_file_that_is_no_elf_file_is_named(tmp_path, content):
    path = tmp_path / "a.so"
    path.write_bytes(content)
    with pytest.raises(CountingError, match=r"a\.so is no ELF file"):
        measured.compiler(str(path))


def test_compiled_modules_of_a_package_are_found_through_links(tmp_path, monkeypatch):
    package = tmp_path / "site" / "toy"
    (package / "inner").mkdir(parents=True)
    (tmp_path / "site" / "toy.libs").mkdir()
    (package / "__init__.py").touch()
    real = tmp_path / "elsewhere" / "core.so"
    real.parent.mkdir()
    real.touch()
    (package / "_core.cpython-311-x86_64-linux-gnu.so").symlink_to(real)
    (package / "inner" / "_more.abi3.so").touch()
    (package / "inner" / "_copy.so").touch()
    (tmp_path / "site" / "toy.libs" / "libsum-0a.so.1.2").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    site = str((tmp_path / "site").resolve())
    paths = [str(real), f"{site}/toy/inner/_more.abi3.so", f"{site}/toy/inner/_copy.so"]
    paths += [f"{site}/toy.libs/libsum-0a.so.1.2", "/lib/libc.so.6"]
    found = measured.of_package(measured.find("toy"), paths, ignore=["inner/_copy*"])
    assert list(found.values()) == ["_core", "inner/_more", "libsum-0a"]
    assert list(found) == [paths[0], paths[1], paths[3]]


def test_an_unknown_package_is_named():
    for name in ("no_such_package", "no_such_package.part"):
        with pytest.raises(CountingError, match=f"package {name} cannot be found"):
            measured.find(name)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loaded_files_hold_those_of_numpy():
    import numpy

    modules = measured.of_package(measured.find("numpy"), measured.loaded())
    assert "_core/_multiarray_umath" in modules.values(), numpy.__version__


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axes", "elements"),
    [({"n": 8}, 8), ({"elements": 9}, 9), ({"shape": (4, 5)}, 20), ({"n": True}, 0), ({"n": "8"}, 0), ({}, 0)],
)
def test_elements_are_those_an_axis_declares(axes, elements):
    assert elements_of(axes) == elements


def table(*rows, **options):
    return Table(
        "toy", "toy", "instructions", rows, {"isa": "avx2", "compiler of _c": "GCC 12"}, {"date": "d"}, **options
    )


ONE = Row("scale[n=64]", {"n": "64"}, 128, 1000, elements=64, bytes=512)
TWO = Row("add[n=64,dtype=float64]", {"n": "64", "dtype": "float64"}, 256, 2000, spread=3)


def test_a_table_is_read_back_as_it_was_stored(tmp_path):
    path = tmp_path / "table.json"
    table(ONE, TWO).save(path)
    assert Table.load(path) == table(ONE, TWO)
    lines = path.read_text().splitlines()
    assert sum(line.startswith('["') for line in lines) == 2  # one line per case
    assert [one.name for one in Table.load(path).rows] == [TWO.name, ONE.name]
    assert json.loads(path.read_text())["cases"][1][:6] == ["scale[n=64]", 128, 1000, 0, 2.0, 4.0]


def test_derived_figures_are_of_one_call_and_of_what_is_gated():
    row = Row("graph", {}, 640, 1280, elements=64, bytes=512, calls=2)
    assert (row.per_element("instructions"), row.per_16_bytes("instructions")) == (5.0, 10.0)
    assert row.per_element("total") == 10.0
    assert TWO.per_element("instructions") is None
    assert TWO.per_16_bytes("total") is None


def test_cases_are_selected_as_a_suite_selects_them():
    both = table(ONE, TWO)
    assert [row.name for row in both.select(["scale"]).rows] == [ONE.name]
    assert [row.name for row in both.select(["*[n=64,*"]).rows] == [TWO.name]
    assert [row.name for row in both.select(axes=[("dtype", "float64")]).rows] == [TWO.name]
    assert both.select() == both


def test_a_table_without_a_failed_case_is_not_stored(tmp_path):
    path = tmp_path / "table.json"
    path.write_text("earlier")
    with pytest.raises(CountingError, match="was not written: other and 1 more failed"):
        table(ONE, errors={"other": "why", "third": "why"}).save(path)
    assert path.read_text() == "earlier"


def test_a_write_that_fails_leaves_the_earlier_table(tmp_path, monkeypatch):
    path = tmp_path / "table.json"
    table(ONE).save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        table(ONE, TWO).save(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["table.json"]


def changed(**changes):
    return json.dumps(json.loads(table(ONE).to_json()) | changes)


ROW = json.loads(table(ONE).to_json())["cases"][0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is no table of instructions"),
        ("{}", "is no table of instructions"),
        (changed(schema=99), "has schema 99, this version reads 1"),
        (changed(gated="time"), "gated is 'time'"),
        (changed(cases=[ROW, ROW]), r"two cases are called scale\[n=64\]"),
        (changed(cases=[ROW[:-1]]), "is damaged"),
        (changed(cases=[[ROW[0], -1, *ROW[2:]]]), r"instructions of scale\[n=64\] is -1, not a count"),
        (changed(cases=[[ROW[0], 1.5, *ROW[2:]]]), "is 1.5, not a count"),
        (changed(cases=[[ROW[0], True, *ROW[2:]]]), "is True, not a count"),
        (changed(cases=[[None, *ROW[1:]]]), "None is no name"),
        (changed(tools=[]), "is damaged"),
        (changed(columns=["name"]), "is damaged"),
    ],
)
def test_a_damaged_table_is_named(tmp_path, text, message):
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(CountingError, match=message):
        Table.load(path)


def test_a_table_that_is_not_there_has_its_own_error(tmp_path):
    with pytest.raises(BaselineMissingError, match="there is no table"):
        Table.load(tmp_path / "none.json")
