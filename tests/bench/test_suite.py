"""Suites: what may be declared, how cases are chosen, and what is said of a suite file that cannot be used."""

import sys

import pytest
from geoact.bench import Call, Group, Suite, SuiteError, Unavailable
from geoact.bench.suite import load


def nothing():
    return None


def declared():
    suite = Suite("toy")

    @suite.case(n=[64, 4096], dtype=["float32", "float64"])
    def scale(n, dtype):
        return Call(nothing, read=n, written=n)

    @suite.case()
    def once():
        return Call(nothing)

    @suite.group("memory", weight=2)
    def one():
        return Group("one")

    @suite.group()
    def other():
        return Group("other")

    return suite


def file(folder, text, name="toy_suite.py"):
    path = folder / name
    path.write_text("from geoact.bench import Call, Suite\n" + text)
    return path


@pytest.fixture(autouse=True)
def modules_put_back():
    """Suites loaded from files are modules of this process, and their folders are on its path."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:] = path


# --- cases ----------------------------------------------------------------------------------------


def test_there_is_one_case_for_every_combination_of_values():
    suite = declared()
    assert list(suite.cases) == [
        "scale[n=64,dtype=float32]", "scale[n=64,dtype=float64]",
        "scale[n=4096,dtype=float32]", "scale[n=4096,dtype=float64]", "once",
    ]  # fmt: skip
    case = suite.cases["scale[n=4096,dtype=float32]"]
    assert dict(case.axes) == {"n": 4096, "dtype": "float32"}
    assert case.prepare().read == 4096


@pytest.mark.parametrize(("only", "axes", "chosen"), [
    ([], [], 5),
    (["scale"], [], 4),
    (["scale[n=64,*]"], [], 2),
    (["*float64]", "once"], [], 3),
    (["nothing like it"], [], 0),
    ([], [("n", "64")], 2),
    ([], [("n", "64"), ("dtype", "float64")], 1),
    (["once"], [("n", "64")], 0),
    ([], [("no such axis", "1")], 0),
])  # fmt: skip
def test_cases_are_chosen_by_globs_words_and_values(only, axes, chosen):
    assert len(list(declared().select(only, axes))) == chosen


def test_groups_are_chosen_by_name_and_keep_their_weight():
    suite = declared()
    assert [(f.name, f.weight) for f in suite.select_families()] == [("memory", 2), ("other", 1.0)]
    assert [f.name for f in suite.select_families(["mem*"])] == ["memory"]
    assert suite.select_families(["peers"]) == []
    assert suite.families[1].make().name == "other"


def test_an_axis_without_values_is_an_error():
    with pytest.raises(SuiteError, match="the axis dtype has no values"):
        Suite("toy").case(n=[1], dtype=[])


@pytest.mark.parametrize("values", [[1, 1], ["1", 1]])
def test_two_cases_of_one_name_are_an_error(values):
    suite = Suite("toy")
    with pytest.raises(SuiteError, match=r"there are two cases called f\[n=1\]"):

        @suite.case(n=values)
        def f(n):
            return Call(nothing)


def test_a_function_may_be_declared_twice_with_other_values():
    suite = Suite("toy")

    @suite.case(n=[2])
    @suite.case(n=[1])
    def f(n):
        return Call(nothing)

    assert list(suite.cases) == ["f[n=1]", "f[n=2]"]


def test_a_case_must_return_a_call():
    suite = Suite("toy")
    suite.case()(nothing)
    with pytest.raises(SuiteError, match=r"nothing returned NoneType, a case must return a geoact\.bench\.Call"):
        suite.cases["nothing"].prepare()


# --- calls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "error", "message"), [
    ({"run": 3}, TypeError, None),
    ({"run": []}, TypeError, r"run must be a callable or a sequence of callables, got \[\]"),
    ({"run": [nothing, 3]}, TypeError, "run must be a callable or a sequence of callables"),
    ({"check": None}, TypeError, "check must be a callable, got None"),
    ({"before": 1}, TypeError, "before must be a callable, got 1"),
    ({"device": "tpu"}, ValueError, "device is 'tpu'; it must be one of cpu, cuda"),
    ({"read": -1}, ValueError, "read is -1; it must be at least 0"),
    ({"written": 1.5}, TypeError, "written must be an integer, got 1.5"),
    ({"flops": "many"}, TypeError, "flops must be an integer, got 'many'"),
    ({"read": True}, TypeError, "read must be an integer, got True"),
    ({"calls": 0}, ValueError, "calls is 0; it must be at least 1"),
    ({"threads": 0}, ValueError, "threads is 0; it must be at least 1"),
])  # fmt: skip
def test_a_call_says_what_is_wrong_with_it(given, error, message):
    with pytest.raises(error, match=message):
        Call(**({"run": nothing} | given))


def test_a_call_takes_numpys_integers_and_several_runs():
    import numpy as np

    call = Call([nothing, nothing], read=np.int64(7), calls=np.uint8(2))
    assert (call.read, type(call.read), call.calls, len(call.runs)) == (7, int, 2, 2)
    contender = call.contender("it")
    assert (contender.name, contender.runs, contender.calls) == ("it", [nothing, nothing], 2)


# --- files ----------------------------------------------------------------------------------------


def test_a_suite_is_loaded_from_a_file_whose_folder_becomes_importable(tmp_path):
    (tmp_path / "toy_data.py").write_text("SIZE = 12\n")
    text = "import toy_data\nsuite = Suite('toy')\n@suite.case()\ndef f():\n    return Call(int, read=toy_data.SIZE)\n"
    path = file(tmp_path, text)
    suite = load(str(path))
    assert suite.name == "toy"
    assert suite.cases["f"].prepare().read == 12
    assert load(str(path)) is suite


def test_two_files_of_one_name_are_two_suites(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        file(tmp_path / name, f"suite = Suite('{name}')\n")
    assert [load(str(tmp_path / name / "toy_suite.py")).name for name in ("a", "b")] == ["a", "b"]


def test_a_suite_is_loaded_from_a_module(tmp_path, monkeypatch):
    file(tmp_path, "one = Suite('one')\nother = Suite('other')\nsame = other\n", "two_suites.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert load("two_suites:one").name == "one"
    assert load("two_suites:same").name == "other"
    with pytest.raises(SuiteError, match="two_suites has 2 suites; say which one: two_suites:NAME"):
        load("two_suites")
    with pytest.raises(SuiteError, match="two_suites has no suite called third; it has one, other, same"):
        load("two_suites:third")


def test_one_suite_under_two_names_is_one_suite(tmp_path):
    assert load(str(file(tmp_path, "suite = Suite('one')\nagain = suite\n"))).name == "one"


@pytest.mark.parametrize(("text", "message"), [
    ("raise KeyError('x')\n", "toy_suite.py fails when it is imported: KeyError: 'x'"),
    ("import no_such_module\n", "toy_suite.py cannot be imported: No module named 'no_such_module'"),
    ("def f(:\n", "fails when it is imported: SyntaxError"),
    ("suite = Suite('toy')\nsuite.case(n=[])\n", "the axis n has no values"),
    ("pass\n", "toy_suite.py has 0 suites; say which one"),
])  # fmt: skip
def test_a_file_that_cannot_be_used_says_why_and_leaves_nothing_behind(tmp_path, text, message):
    path = file(tmp_path, text)
    for _ in range(2):  # the second time is no other than the first
        with pytest.raises(SuiteError, match=message):
            load(str(path))
    if text != "pass\n":
        assert "toy_suite" not in sys.modules


@pytest.mark.parametrize(("where", "message"), [
    ("no/such/file.py", "there is no suite file no/such/file.py"),
    ("no_such_module", "no_such_module cannot be imported: No module named"),
    (".", "there is no suite file"),
    ("", "cannot be imported|there is no suite file"),
])  # fmt: skip
def test_what_is_not_there_is_named(where, message):
    with pytest.raises(SuiteError, match=message):
        load(where)


def test_a_file_that_is_not_python_is_named(tmp_path):
    path = tmp_path / "suite.json"
    path.write_text("{}")
    with pytest.raises(SuiteError, match=r"suite\.json is no Python file"):
        load(str(path))


def test_a_case_that_cannot_run_here_says_why():
    suite = Suite("toy")

    @suite.case()
    def f():
        raise Unavailable("no such device")

    with pytest.raises(Unavailable, match="no such device"):
        suite.cases["f"].prepare()
