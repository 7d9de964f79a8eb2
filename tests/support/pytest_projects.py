"""Projects of somebody else, in which pytest runs with geoact's plugin in a process of its own."""

import json
import textwrap
from importlib.metadata import entry_points
from pathlib import Path

import geoact

INSTALLED = any(entry.value == "pytest_geoact" for entry in entry_points(group="pytest11"))
PLUGIN = () if INSTALLED else ("-p", "pytest_geoact")

CONFTEST = """
    import os, random
    from geoact.bench import timing
    from geoact.bench.clocks import Sample
    from geoact.bench.contenders import Unavailable

    class Clock:
        '''Believes a call that returns a float; everything else is the copy, which takes 100 us.'''

        def __init__(self, device):
            self.label = f"simulated {device}"
            self.random = random.Random(int(os.environ.get("SEED", 0)))

        def sample(self, runs, repeat):
            found = runs[0]()
            return Sample((found if type(found) is float else 1e-4) * self.random.gauss(1, 0.003))

    def make(self, device):
        if device == "cuda" and not os.environ.get("GPU"):
            raise Unavailable("no CUDA device: this is a test")
        return Clock(device)

    timing.Devices._make = make
"""
"""A device that is not there: every call takes as long as it says, so that no test depends on real times."""

KERNELS = """
    import os, pytest

    def kernel(name, seconds=2e-4):
        return float(os.environ.get(name, seconds))

    @pytest.mark.parametrize("size", [1, 2])
    def test_first(gpu_benchmark, size):
        assert gpu_benchmark.measure(kernel, (f"FIRST{size}",), read=4096, written=4096) > 0

    def test_second(gpu_benchmark):
        assert gpu_benchmark.measure(kernel, ("SECOND",), read=4096, written=4096) > 0
"""


class Project:
    """A project in a folder of its own; ``run`` runs pytest there, with warnings as errors."""

    def __init__(self, pytester, monkeypatch):
        self.pytester, self.path = pytester, pytester.path
        self._environment = monkeypatch
        monkeypatch.setenv("PYTHONPATH", str(Path(geoact.__file__).parents[1]))
        for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "GPU", "SEED"):
            monkeypatch.delenv(name, raising=False)

    def simulate(self, more="", **files):
        """Write the simulated device, what there is more in conftest.py, a configuration, and tests."""
        self.pytester.makeconftest(textwrap.dedent(CONFTEST) + textwrap.dedent(more))
        self.pytester.makeini("[pytest]\naddopts = --strict-config --strict-markers\n")
        self.pytester.makepyfile(**files)
        return self

    def environ(self, **values):
        """Set what the next run finds in its environment."""
        for name, value in values.items():
            self._environment.setenv(name, str(value))

    def run(self, *arguments, code=0, plugin=PLUGIN):
        """Run pytest; it must end with this code. Returns what it wrote, in one string."""
        done = self.pytester.runpytest_subprocess("-W", "error", *plugin, *map(str, arguments), timeout=240)
        text = done.stdout.str() + "\n" + done.stderr.str()
        assert done.ret == code, text
        return text

    def baseline(self, sessions=0):
        """Save a baseline of so many sessions; 0: of one that is then taken for three. Its path."""
        for seed in range(max(1, sessions)):
            self.environ(SEED=seed)
            self.run("--geoact-save-baseline", "--geoact-quick", "-q")
        (path,) = (self.path / ".geoact").iterdir()
        if not sessions:
            stored = json.loads(path.read_text())
            stored["cases"] = {name: 3 * found for name, found in stored["cases"].items()}
            path.write_text(json.dumps(stored))
        return path
