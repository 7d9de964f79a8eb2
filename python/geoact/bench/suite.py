"""A suite: the declaration of what is measured, in a user's own file.

    from geoact.bench import Call, Suite

    suite = Suite("toy", package="toy_kernels")

    @suite.case(n=[4096, 1 << 20], dtype=["float32", "float64"])
    def scale(n, dtype):
        x = numpy.random.default_rng(0).standard_normal(n).astype(dtype)
        y = numpy.empty_like(x)
        return Call(lambda: toy_kernels.scale(x, out=y), read=x.nbytes, written=y.nbytes, flops=n)

A *case* is a function and one value per axis; it prepares one call, ready to be timed. A *group* is made by a function
as well and holds contenders that take turns, with the bars made of them. Standard library only.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType

from geoact.bench.contenders import Contender, Group

DEVICES = ("cpu", "cuda")


class SuiteError(Exception):
    """A suite cannot be loaded or is declared wrongly; the message says which and why."""


@dataclass
class Call:
    """One call, ready to be timed.

    Parameters
    ----------
    run : callable, or sequence of callables
        Makes the call. Several make the same call on different buffers, taken in turns: each then meets cold caches.
    read, written : int
        Bytes that one call has to read and to write, each counted once.
    flops : int
        Floating-point operations of one call.
    check : callable, optional
        Called before and after timing: makes the call itself and raises AssertionError, or returns False, if its result
        is wrong; or returns a checksum of the output, which must be the same both times.
    before : callable, optional
        Called, untimed, ahead of every sample.
    device : {"cpu", "cuda"}
        Whose clock times it.
    calls : int
        Calls that one run makes (a replayed graph of several).
    threads : int
        Threads that it uses on a CPU; the copy it is held against uses as many.
    code : str, optional
        A hash of its machine code. Where it is the same for both sides of a comparison, a difference is noise.
    """

    run: Callable[[], object] | Sequence[Callable[[], object]]
    read: int = 0
    written: int = 0
    flops: int = 0
    check: Callable[[], object] = lambda: None
    before: Callable[[], object] = lambda: None
    device: str = "cpu"
    calls: int = 1
    threads: int = 1
    code: str | None = None

    def __post_init__(self) -> None:
        runs = [self.run] if callable(self.run) else list(self.run)
        if not runs or not all(map(callable, runs)):
            raise TypeError(f"run must be a callable or a sequence of callables, got {self.run!r}")
        for name in ("check", "before"):
            if not callable(getattr(self, name)):
                raise TypeError(f"{name} must be a callable, got {getattr(self, name)!r}")
        if self.device not in DEVICES:
            raise ValueError(f"device is {self.device!r}; it must be one of {', '.join(DEVICES)}")
        for name, least in (("read", 0), ("written", 0), ("flops", 0), ("calls", 1), ("threads", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not hasattr(value, "__index__"):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
            setattr(self, name, int(value))
        self.runs: list[Callable[[], object]] = runs

    def contender(self, name: str) -> Contender:
        """As the engine takes it."""
        return Contender(name, self.runs, self.check, self.before, self.calls)


@dataclass(frozen=True)
class Case:
    """A function that prepares a call, and the values of its axes."""

    name: str
    axes: Mapping[str, object]
    make: Callable[..., Call]

    def prepare(self) -> Call:
        """Make the call. Raises Unavailable where it cannot run here, SuiteError where the function is wrong."""
        call = self.make(**self.axes)
        if not isinstance(call, Call):
            raise SuiteError(f"{self.name} returned {type(call).__name__}, a case must return a geoact.bench.Call")
        return call


@dataclass(frozen=True)
class Family:
    """Groups of one kind: the part of the time that each may use, and the name by which they are chosen."""

    name: str
    make: Callable[[], Group]
    weight: float = 1.0
    title: str = ""


@dataclass
class Suite:
    """Cases and groups under one name.

    Parameters
    ----------
    name : str
    package : str, optional
        The package that is measured: what its code is decides whether two builds can differ at all.
    ignore : sequence of str
        Globs of files inside that package that no case runs.
    setup : callable, optional
        Called once in every process before anything is prepared (threads, flags of a framework).
    """

    name: str
    package: str | None = None
    ignore: Sequence[str] = ()
    setup: Callable[[], object] = lambda: None
    cases: dict[str, Case] = field(default_factory=dict)
    families: list[Family] = field(default_factory=list)

    def case(self, **axes: Iterable[object]) -> Callable[[Callable[..., Call]], Callable[..., Call]]:
        """Decorate a function that prepares a call; one case for every combination of the values of the axes."""
        values = {name: list(options) for name, options in axes.items()}
        empty = [name for name, options in values.items() if not options]
        if empty:
            raise SuiteError(f"the axis {empty[0]} has no values")

        def decorate(make: Callable[..., Call]) -> Callable[..., Call]:
            for chosen in itertools.product(*values.values()):
                self.add(make, dict(zip(values, chosen, strict=True)))
            return make

        return decorate

    def add(self, make: Callable[..., Call], axes: Mapping[str, object]) -> Case:
        """Add one case."""
        inside = ",".join(f"{axis}={value}" for axis, value in axes.items())
        name = _printable(f"{make.__name__}[{inside}]" if inside else make.__name__)
        if name in self.cases:
            raise SuiteError(f"there are two cases called {name}")
        self.cases[name] = Case(name, dict(axes), make)
        return self.cases[name]

    def group(self, name: str = "", *, weight: float = 1.0) -> Callable[[Callable[[], Group]], Callable[[], Group]]:
        """Decorate a function that makes a group; ``weight`` is its part of the time against that of the others."""

        def decorate(make: Callable[[], Group]) -> Callable[[], Group]:
            title = name or make.__name__
            self.families.append(Family(title, make, weight))
            return make

        return decorate

    def select(self, only: Sequence[str] = (), axes: Sequence[tuple[str, str]] = ()) -> Iterator[Case]:
        """Cases whose name matches one of the globs or contains one of the words, and that have these values."""
        for case in self.cases.values():
            if only and not any(matches(case.name, word) for word in only):
                continue
            if all(str(case.axes.get(axis)) == value for axis, value in axes):
                yield case

    def select_families(self, only: Sequence[str] = ()) -> list[Family]:
        """Groups whose name matches one of the globs or contains one of the words."""
        return [f for f in self.families if not only or any(matches(f.name, word) for word in only)]


def _printable(name: str) -> str:
    """A name that breaks no line of a table and no XML: what cannot be printed is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def matches(name: str, pattern: str) -> bool:
    """Whether a name contains a word, or matches a glob in which ``[`` is no special character."""
    return pattern in name or fnmatchcase(name, pattern.replace("[", "[[]"))


def load(where: str) -> Suite:
    """Load a suite: ``path/to/file.py``, ``package.module``, either with ``:NAME`` where there are several.

    The folder of a file becomes importable, as it is for a script. Raises SuiteError.
    """
    place, _, name = where.partition(":")
    path = Path(place)
    try:
        is_file = path.suffix == ".py" or path.exists()
        module = _module_of(path) if is_file else importlib.import_module(place)
    except SuiteError:
        raise
    except ImportError as error:
        raise SuiteError(f"{where} cannot be imported: {error}") from error
    except (Exception, SystemExit) as error:
        raise SuiteError(f"{where} fails when it is imported: {type(error).__name__}: {error}") from error
    found = {key: value for key, value in vars(module).items() if isinstance(value, Suite)}
    if name:
        if name not in found:
            raise SuiteError(f"{place} has no suite called {name}; it has {', '.join(found) or 'none'}")
        return found[name]
    distinct = {id(value): value for value in found.values()}
    if len(distinct) != 1:
        raise SuiteError(f"{place} has {len(distinct)} suites; say which one: {place}:NAME")
    return next(iter(distinct.values()))


def _module_of(path: Path) -> ModuleType:
    if not path.is_file():
        raise SuiteError(f"there is no suite file {path}")
    path = path.resolve()
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = path.stem
    known = sys.modules.get(name)
    if known is not None:
        if getattr(known, "__file__", None) == str(path):
            return known
        name = f"_suite_{path.stem}"  # something else has that name already
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SuiteError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
