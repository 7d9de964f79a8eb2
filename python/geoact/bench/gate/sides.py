"""What can be compared: git revisions, the working tree, installed builds, and what this Python has.

A side is an interpreter and the folders that it finds the package in first. A revision is checked out and built once,
in a folder of its own that is named after its content, and found again the next time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

WORKING_TREE = "."
INSTALLED = "installed"
KINDS = (
    f"a result file, a git revision, {WORKING_TREE!r} (the working tree), {INSTALLED!r} (what this Python has), "
    "a virtual environment, a Python interpreter, or a folder to import from"
)


class SideError(Exception):
    """A side cannot be found or built; the message says which and why."""


@dataclass(frozen=True)
class Side:
    """What runs one side.

    Parameters
    ----------
    name : str
        As the user named it.
    python : str
        Interpreter.
    paths : tuple of str
        Folders that are searched first for the package under test.
    commit : str
        Where known.
    """

    name: str
    python: str = sys.executable
    paths: tuple[str, ...] = ()
    commit: str = ""

    def as_document(self) -> dict[str, object]:
        """For a result file: nothing of where this machine keeps things."""
        return {"name": self.name, "commit": self.commit or None}


@dataclass(frozen=True)
class Build:
    """How a revision becomes importable.

    Parameters
    ----------
    how : {"pip", "none"}
        "pip" installs it, without its dependencies, into a folder; "none" imports it from where it is checked out.
    source : str
        With "none": the folder inside the repository that is searched for the package.
    isolated : bool
        With "pip": in a build environment of its own, which needs a package index.
    environment : mapping
        Variables for the build.
    cache : Path, optional
        Where builds are kept; default: ``$XDG_CACHE_HOME/geoact/builds``.
    """

    how: str = "pip"
    source: str = "."
    isolated: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.how not in ("pip", "none"):
            raise SideError(f"build is {self.how!r}; it must be 'pip' or 'none'")

    @property
    def folder(self) -> Path:
        """Where builds are kept."""
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return self.cache or home / "geoact" / "builds"

    def key(self, content: str) -> str:
        """Name of a build: what it was made of, by which Python and how."""
        parts = (
            content,
            sys.version,
            self.how,
            self.source,
            *(f"{k}={v}" for k, v in sorted(self.environment.items())),
        )
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def find(name: str, repository: Path, build: Build, told: Callable[[str], object] = str) -> Side:
    """The side that a user's words mean. Raises SideError."""
    path = Path(name)
    if name == INSTALLED:
        return Side(name)
    if name == WORKING_TREE:
        return _built(name, "", _tree_hash(repository), repository, build, told)
    commit = _commit(name, repository)
    if commit:
        return _built(name, commit, commit, repository, build, told)
    if path.is_file() and os.access(path, os.X_OK):
        return Side(name, python=str(path.absolute()))
    if path.is_dir():
        python = path / "bin" / "python"
        return (
            Side(name, python=str(python.absolute())) if python.exists() else Side(name, paths=(str(path.resolve()),))
        )
    raise SideError(f"{name} is none of: {KINDS}")


# --- git ------------------------------------------------------------------------------------------


def _git(repository: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *words], cwd=repository, capture_output=True, check=False)
    except OSError as error:
        raise SideError(f"git cannot be run: {error}") from error


def _commit(name: str, repository: Path) -> str:
    """The commit that a name means, or nothing."""
    if name.startswith("-"):
        raise SideError(f"{name} is no side")
    found = _git(repository, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    return found.stdout.decode().strip() if found.returncode == 0 else ""


def _files(repository: Path) -> list[str]:
    """Of the working tree, tracked or not, that are not ignored."""
    found = _git(repository, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if found.returncode:
        raise SideError(f"{repository} is no git repository: {found.stderr.decode().strip()}")
    names = sorted(set(found.stdout.decode().split("\0")) - {""})
    return [name for name in names if (repository / name).is_file()]


def _tree_hash(repository: Path) -> str:
    whole = hashlib.sha256()
    for name in _files(repository):
        whole.update(f"{name}\0".encode() + hashlib.sha256((repository / name).read_bytes()).digest())
    return whole.hexdigest()


# --- building -------------------------------------------------------------------------------------


def _built(name: str, commit: str, content: str, repository: Path, build: Build, told: Callable[[str], object]) -> Side:
    folder = build.folder / build.key(content)
    ready = folder / "ready"
    if not ready.exists():
        told(f"building {name}")
        with _emptied(folder):
            source = folder / "source"
            _check_out(commit, repository, source)
            if build.how == "pip":
                _install(name, source, folder / "site", build)
                shutil.rmtree(source)
            ready.touch()
    path = folder / "site" if build.how == "pip" else folder / "source" / build.source
    if not path.is_dir():
        raise SideError(f"{name} has no folder {build.source}")
    return Side(name, paths=(str(path),), commit=commit)


@contextlib.contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """A folder that is empty before, and gone if what fills it fails."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _check_out(commit: str, repository: Path, target: Path) -> None:
    """The files of a commit, or of the working tree where there is none, as an ordinary folder."""
    target.mkdir()
    if not commit:
        for name in _files(repository):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, target / name)
        return
    archive = target.with_suffix(".tar")
    done = _git(repository, "archive", "--format=tar", f"--output={archive}", commit)
    if done.returncode:
        raise SideError(f"git archive {commit}: {done.stderr.decode().strip()}")
    # A file of our own making; the argument is what newer Pythons want to be told and older ones do not know.
    known = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    shutil.unpack_archive(archive, target, **known)  # type: ignore[arg-type]
    archive.unlink()


def _install(name: str, source: Path, target: Path, build: Build) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    command += [] if build.isolated else ["--no-build-isolation"]
    log = target.with_suffix(".log")
    with log.open("wb") as output:
        done = subprocess.run(
            [*command, "."], cwd=source, env={**os.environ, **build.environment},
            stdout=output, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise SideError(f"{name} cannot be built by pip (exit status {done.returncode}):\n" + "\n".join(lines[-15:]))
