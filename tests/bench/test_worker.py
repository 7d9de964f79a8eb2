"""One side of a comparison: a process that answers, whatever the code under test does to it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from geoact.bench.gate import worker
from geoact.bench.gate.process import Worker, WorkerError
from geoact.bench.gate.sides import Side

SUITE = """
import os, sys, time
import numpy as np
from geoact.bench import Call, Suite, Unavailable
import subject

suite = Suite("toy", package="subject", setup=lambda: print("set up: this must not disturb the answers"))

@suite.case(n=[4096])
def add(n):
    print("junk on standard output")
    x, y = np.ones(n), np.zeros(n)
    def check():
        np.add(x, subject.VALUE, out=y)
        assert (y == x + subject.VALUE).all()
        return float(y.sum())
    return Call(lambda: np.add(x, subject.VALUE, out=y), read=x.nbytes, written=y.nbytes, check=check)

@suite.case()
def unbounded():
    return Call(lambda: subject.VALUE)

@suite.case()
def absent():
    raise Unavailable("no such device")

@suite.case()
def raising():
    raise RuntimeError("broken\\nin two lines")

@suite.case()
def wrong():
    def check():
        raise AssertionError("2 is not 3")
    return Call(lambda: 1, check=check)

@suite.case()
def changing():
    state = []
    return Call(lambda: state.append(1), check=lambda: len(state))

@suite.case()
def dying():
    os.abort()

@suite.case()
def hanging():
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "suite.py").write_text(SUITE)
    (tmp_path / "subject.py").write_text("VALUE = 1\n")
    return tmp_path


@pytest.fixture
def start(folder):
    """Starts workers, and ends those that are left."""
    started = []

    def make(paths=(), patience=60.0, suite="suite.py", **options):
        side = Side("toy", paths=(*map(str, paths), str(folder)))
        found = Worker(side, folder, {"suite": suite, "batches": 1, "shortest": 1e-4, **options}, patience)
        started.append(found)
        return found

    yield make
    for one in started:
        one.close()


def test_a_case_is_prepared_timed_and_checked(start):
    one = start()
    assert "add[n=4096]" in one.about["cases"]
    assert one.about["axes"]["add[n=4096]"] == {"n": "4096"}
    assert one.ask("prepare", case="add[n=4096]") == {"device": "cpu", "code": None, "output": 8192.0}
    found = one.ask("calibrate")
    assert found["repeat"] >= 1
    one.ask("repeat", repeat=3, control_repeat=2)
    taken = one.ask("sample")
    assert taken["ns"] > 0
    assert taken["control_ns"] > 0
    assert one.ask("release") == {}


def test_the_control_is_the_one_that_the_other_side_uses(start):
    one = start()
    one.ask("prepare", case="unbounded")
    assert one.ask("calibrate", control="np.copyto")["control"] == "np.copyto"


def test_a_slowdown_is_really_waited_for(start):
    one = start()
    one.ask("prepare", case="add[n=4096]", slowdown=20.0)
    one.ask("calibrate")
    slow = min(one.ask("sample")["ns"] for _ in range(5))
    one.ask("prepare", case="add[n=4096]")
    one.ask("calibrate")
    assert slow > 3 * min(one.ask("sample")["ns"] for _ in range(5))


@pytest.mark.parametrize(("case", "missing", "reason"), [
    ("absent", "skipped", "no such device"),
    ("raising", "failed", "RuntimeError: broken"),
    ("wrong", "failed", "WRONG RESULT: 2 is not 3"),
    ("no such case", "skipped", "the suite has no such case here"),
])  # fmt: skip
def test_what_cannot_run_is_answered_and_the_process_lives(start, case, missing, reason):
    one = start()
    assert one.ask("prepare", case=case) == {"missing": missing, "reason": reason}
    assert one.ask("prepare", case="unbounded")["device"] == "cpu"


def test_an_output_that_changes_while_it_is_timed_is_wrong(start):
    one = start()
    one.ask("prepare", case="changing")
    one.ask("calibrate")
    one.ask("sample")
    assert one.ask("release") == {"wrong": "WRONG RESULT after it was timed: the output is not what it was"}


def test_a_process_that_dies_is_told_by_its_signal(start):
    one = start()
    with pytest.raises(WorkerError, match="toy: the process ended with signal SIGABRT during 'prepare'"):
        one.ask("prepare", case="dying")
    assert not one.alive


def test_a_process_that_hangs_is_ended(start):
    one = start(patience=1.0)
    with pytest.raises(WorkerError, match="no answer to 'prepare' within 1 s"):
        one.ask("prepare", case="hanging")
    assert not one.alive


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
def test_a_process_does_not_outlive_whoever_asked_though_its_call_hangs(folder):
    program = f"""
import sys
from pathlib import Path
from geoact.bench.gate.process import Worker
from geoact.bench.gate.sides import Side
one = Worker(Side("toy", paths=({str(folder)!r},)), Path({str(folder)!r}), {{"suite": "suite.py"}})
print(one._process.pid, flush=True)
one.ask("prepare", case="hanging")
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as asking:
        pid = int(asking.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        asking.kill()
    end = time.monotonic() + 10
    while time.monotonic() < end and _runs(pid):
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def test_requests_that_mean_nothing_are_answered(start):
    one = start()
    with pytest.raises(WorkerError, match="explode is not one of prepare, calibrate"):
        one.ask("explode")
    assert one.alive


@pytest.mark.parametrize(("text", "message"), [
    ("import nothing_of_that_name", "SuiteError: .*nothing_of_that_name"),
    ("1 / 0", "SuiteError: .* fails when it is imported: ZeroDivisionError"),
    ("", "has 0 suites"),
])  # fmt: skip
def test_a_suite_that_cannot_be_loaded_is_told(start, folder, text, message):
    (folder / "other.py").write_text(text)
    with pytest.raises(WorkerError, match=message):
        start(suite="other.py")


def test_an_interpreter_that_is_not_there_is_told(folder):
    with pytest.raises(WorkerError, match="no/such/python cannot be run"):
        Worker(Side("x", python="/no/such/python"), folder, {"suite": "suite.py"})


def test_the_harness_is_ours_beside_any_geoact(start, folder, tmp_path):
    """An older geoact, without geoact.bench, is what is measured."""
    other = tmp_path / "older"
    (other / "geoact").mkdir(parents=True)
    (other / "geoact" / "__init__.py").write_text("AGE = 'older'\n")
    (folder / "old.py").write_text(
        "import geoact\nfrom geoact.bench import Call, Suite\nsuite = Suite('old', package='geoact')\n"
        "@suite.case()\ndef age():\n    assert geoact.AGE == 'older'\n    return Call(lambda: geoact.AGE)\n"
    )
    one = start(paths=[other], suite="old.py")
    assert one.about["package"] == str(other / "geoact" / "__init__.py")
    assert one.ask("prepare", case="age")["device"] == "cpu"


# --- the code under test --------------------------------------------------------------------------


def test_the_hash_is_that_of_the_code(tmp_path, monkeypatch):
    package = tmp_path / "hashed"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("x = 1\n")
    (package / "inner" / "tool.py").write_text("y = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    first = worker.code_hash("hashed", ())
    assert worker.code_hash("hashed", ()) == first
    (package / "notes.txt").write_text("no code")
    assert worker.code_hash("hashed", ()) == first
    (package / "inner" / "tool.py").write_text("y = 2\n")
    assert worker.code_hash("hashed", ()) != first
    assert worker.code_hash("hashed", ("inner/*",)) != worker.code_hash("hashed", ())
    without = worker.code_hash("hashed", ("inner/*",))
    (package / "inner" / "tool.py").write_text("y = 3\n")
    assert worker.code_hash("hashed", ("inner/*",)) == without


def test_machine_code_is_the_executable_part_of_a_library(tmp_path):
    """Of this interpreter's own extension: the text of two copies is the same whatever is appended to the file."""
    import _ctypes

    path = Path(_ctypes.__file__)
    if path.read_bytes()[:4] != b"\x7fELF":
        pytest.skip("no ELF here")
    code = worker.machine_code(path)
    copied = tmp_path / path.name
    copied.write_bytes(path.read_bytes() + b"debug information")
    assert worker.machine_code(copied) == code
    assert 0 < len(code) < path.stat().st_size
    text = tmp_path / "x.so"
    text.write_bytes(b"no library")
    assert worker.machine_code(text) == b"no library"


def test_a_package_that_is_not_there_is_an_error():
    with pytest.raises(ImportError, match="no_such_package_at_all"):
        worker.code_hash("no_such_package_at_all", ())


def test_the_harness_of_a_worker_needs_numpy_and_nothing_of_geoact():
    program = f"""
import sys
sys.path[:] = [p for p in sys.path if p]
import runpy
found = runpy.run_path({str(Path(worker.__file__))!r})
found["load_bench"]()
from geoact.bench.timing import Devices
from geoact.bench.engine import warm_up
assert "geoact" not in sys.modules, "geoact itself was imported"
heavy = {{"torch", "rich", "typer", "scipy", "pandas", "matplotlib"}}
heavy = {{"torch", "rich", "typer", "scipy", "pandas", "matplotlib"}}
print(*sorted({{n.partition(".")[0] for n in sys.modules}} & heavy))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
