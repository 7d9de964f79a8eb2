"""NVIDIA's command line tools: where they are, and running them.

A tool is looked for in this order: the option, the environment variable, ``PATH``, next to nvcc, in the triton package,
in NVIDIA's pip packages (``nvidia-cuda-cuobjdump``, ``nvidia-cuda-nvdisasm``, ``nvidia-cuda-nvcc``).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from geoact.bench.kernels_report.errors import ReportError

_HELP = {
    "cuobjdump": "pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm, or pip install triton, which brings both",
    "ptxas": "pip install nvidia-cuda-nvcc, or pip install triton, which brings it",
    "nvcc": "install the CUDA toolkit, or pip install 'cuda-toolkit[nvcc,cudart,cccl]'",
}


def find(name: str, given: str | Path | None = None) -> Path:
    """Return the path of a tool, or raise with the places that were searched."""
    variable = f"GEOACT_{name.upper()}"
    for source, value in ((f"--{name}", given), (variable, os.environ.get(variable))):
        if value:
            named = shutil.which(str(value))
            if named is None:
                raise ReportError(f"{source} names {value}, which is not an executable file")
            return Path(named).absolute()
    for path in _candidates(name):
        return path
    raise ReportError(
        f"{name} was not found (--{name}, {variable}, PATH, next to nvcc, triton, nvidia packages): {_HELP[name]}"
    )


def _candidates(name: str) -> Iterator[Path]:
    on_path = shutil.which(name)
    if on_path:
        yield Path(on_path).absolute()
    for folder in _folders():
        path = folder / name
        if path.is_file() and os.access(path, os.X_OK):
            yield path.absolute()


def _folders() -> Iterator[Path]:
    nvcc = shutil.which("nvcc")
    if nvcc:
        yield Path(nvcc).resolve().parent
    # Found, not imported: importing triton takes a second and needs more than its tools.
    for package, pattern in (("triton", "backends/nvidia/bin"), ("nvidia", "*/bin")):
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            yield from sorted(Path(place).glob(pattern), reverse=True)


@dataclass(frozen=True)
class Cuobjdump:
    """cuobjdump, with the nvdisasm that it needs for disassembly."""

    path: Path

    @classmethod
    def find(cls, given: str | Path | None = None) -> Cuobjdump:
        """Look for cuobjdump."""
        return cls(find("cuobjdump", given))

    @cached_property
    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        if not (self.path.parent / "nvdisasm").exists():
            for path in _candidates("nvdisasm"):
                environment["NVDISASM_PATH"] = str(path.parent)
                break
        return environment

    @cached_property
    def version(self) -> str:
        """Version of the tool, such as ``13.1.80``."""
        done = _run([str(self.path), "--version"], self._environment)
        match = re.search(r"V(\d+(?:\.\d+)+)", done.stdout)
        if done.returncode or not match:
            raise ReportError(f"{self.path} does not answer --version as cuobjdump does")
        return match[1]

    def lines(self, what: str, cubin: Path) -> list[str]:
        """Run with ``--dump-resource-usage`` or ``--dump-sass`` on one cubin."""
        done = _run([str(self.path), what, str(cubin)], self._environment)
        if done.returncode:
            raise ReportError(f"cuobjdump {what} {cubin.name}: {_last(done)}")
        return done.stdout.splitlines()

    def extract(self, file: Path, folder: Path) -> list[Path]:
        """Write every cubin that ``file`` holds into ``folder``; none if it holds no device code."""
        done = _run([str(self.path), "--extract-elf", "all", str(file.absolute())], self._environment, folder)
        if done.returncode and "does not contain device code" not in done.stdout + done.stderr:
            raise ReportError(f"cuobjdump cannot read {file}: {_last(done)}")
        return sorted(folder.glob("*.cubin"))


def assemble(ptx: Path, arch: str, output: Path, ptxas: Path) -> None:
    """Compile PTX to a cubin."""
    done = _run([str(ptxas), f"--gpu-name={arch}", str(ptx), "--output-file", str(output)], dict(os.environ))
    if done.returncode:
        raise ReportError(f"ptxas cannot compile {ptx} for {arch}: {_last(done)}")


@dataclass(frozen=True)
class Demangler:
    """c++filt or cu++filt; without either names stay mangled."""

    path: Path | None

    @classmethod
    def find(cls) -> Demangler:
        """Look for a demangler; the common one first, so that two machines agree on the spelling."""
        for name in ("c++filt", "cu++filt", "llvm-cxxfilt"):
            for path in _candidates(name):
                return cls(path)
        return cls(None)

    @property
    def name(self) -> str:
        """What a report says of it."""
        return self.path.name if self.path else "none"

    def __call__(self, symbols: Iterable[str]) -> dict[str, str]:
        """Mangled -> demangled."""
        wanted = sorted(set(symbols))
        if self.path is None or not wanted:
            return {symbol: symbol for symbol in wanted}
        done = _run([str(self.path)], dict(os.environ), text="\n".join(wanted) + "\n")
        lines = done.stdout.splitlines()
        if done.returncode or len(lines) != len(wanted):
            raise ReportError(f"{self.path} failed: {_last(done)}")
        return dict(zip(wanted, lines, strict=True))


def _run(
    command: list[str], environment: dict[str, str], folder: Path | None = None, text: str | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            cwd=folder,
            input=text,
            check=False,
        )
    except OSError as error:
        raise ReportError(f"cannot run {command[0]}: {error}") from error


def _last(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1].strip() if lines else f"exit status {done.returncode}"
