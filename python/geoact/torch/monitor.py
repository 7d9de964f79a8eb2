"""Watch the activations of any model: what they do to the geometry of the data and to the gradient, layer by layer.

While a step is measured, the activation modules of the model are ours and carry a probe; at all other times they are
exactly what they were, so a monitor that is off costs nothing. The model's parameters, buffers and state_dict never
change.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch import nn

from geoact._arguments import whole
from geoact.statistics import GeometryStats, GradientStats
from geoact.torch import known, swap
from geoact.torch.alerts import DEFAULT_RULES, Rule, check
from geoact.torch.calls import Calls
from geoact.torch.modules import Activation
from geoact.torch.probe import Family, Probe, claimed, followed
from geoact.torch.reading import Layer, Reading
from geoact.torch.watched import Watched, layers_of

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from geoact.torch.sinks import Sink


def _listed(name: str, value: Any) -> list[Any]:  # noqa: ANN401
    try:
        return list(value)
    except TypeError:
        raise TypeError(f"{name} must be a list or another iterable, got {type(value).__name__}") from None


def _attempt(action: Callable[[], object], problems: list[Exception]) -> None:
    try:
        action()
    except Exception as error:  # a user's sink: whatever it raises is raised again when the others had their turn
        problems.append(error)


def _pattern(name: str, value: object) -> re.Pattern[str] | None:
    if value is None:
        return None
    if not isinstance(value, (str, re.Pattern)):
        raise TypeError(f"{name} must be a regular expression, got {type(value).__name__}")
    try:
        return re.compile(value)
    except re.error as error:
        raise ValueError(f"{name} is {value!r}, which is no regular expression: {error}") from error


_WHEN = {"always": None, "training": True, "evaluation": False}


def _outline(layer: Layer) -> tuple[Any, ...]:
    return layer.name, layer.activation, layer.forward._settings(), layer.backward is not None


def _empty(name: str, activation: str, settings: dict[str, Any], backward: bool) -> Layer:
    gradient = GradientStats(settings["per"], settings["channel_axis"]) if backward else None
    return Layer(name, activation, 0, 0, GeometryStats(**settings), gradient)


class Monitor:
    """What :func:`instrument` returns: measures while it is entered; see there for the arguments.

    Attributes
    ----------
    last : Reading or None
        The last completed reading.
    skipped : tuple of swap.Left
        Activations of the model that are not watched, and why.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        per: str,
        channel_axis: int | None,
        level: str,
        saturation: float,
        backward: bool,
        when: str,
        functional: bool,
        every: int,
        warmup: int,
        window: int,
        include: str | re.Pattern[str] | None,
        exclude: str | re.Pattern[str] | None,
        sinks: Iterable[Sink],
        rules: Sequence[Rule],
    ) -> None:
        self._model = swap.check_model(model)
        if per == "row":
            raise ValueError("per is 'row' (accepted: 'tensor', 'channel'): rows of a whole training run have no end")
        if channel_axis is not None and (isinstance(channel_axis, bool) or not isinstance(channel_axis, int)):
            raise TypeError(f"channel_axis must be an int or None, got {type(channel_axis).__name__}")
        self._every = whole("every", every, 1)
        self._warmup = whole("warmup", warmup, 0)
        self._window = whole("window", window, 1)
        for name, value in (("backward", backward), ("functional", functional)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be a bool, got {type(value).__name__}")
        self._rules = tuple(_listed("rules", rules))
        for rule in self._rules:
            if not isinstance(rule, Rule):
                raise TypeError(f"rules must hold geoact.torch.alerts.Rule, got {type(rule).__name__}")
        self._sinks: list[Sink] = _listed("sinks", sinks)
        for sink in self._sinks:
            if isinstance(sink, type):
                raise TypeError(f"sinks must hold sinks, got the class {sink.__name__}: make one of it")
            if not (callable(getattr(sink, "write", None)) and callable(getattr(sink, "close", None))):
                raise TypeError(f"sinks must hold objects with write() and close(), got {type(sink).__name__}")
        GeometryStats(per, -1 if channel_axis is None else channel_axis, level, saturation)  # checks them
        if when not in _WHEN:
            raise ValueError(f"when is {when!r} (accepted: {', '.join(map(repr, _WHEN))})")
        self._training = _WHEN[when]
        self._make_forward = lambda kind, axis: GeometryStats(kind, axis, level, saturation)
        self._make_backward = (lambda kind, axis: GradientStats(kind, axis)) if backward else None
        self._per, self._axis = per, channel_axis
        self.skipped: tuple[swap.Left, ...] = ()
        self._include, self._exclude = _pattern("include", include), _pattern("exclude", exclude)
        self._calls = Calls(model, self._wanted, self._probe) if functional else None
        self._watched = self._choose()
        if not self._watched and self._calls is None:
            self._refuse()
        self._followed: list[nn.Module] = []
        self._gone: list[Watched] = []  # modules that left the model within this window
        self.last: Reading | None = None
        self._step = 0
        self._measured = 0  # steps in the window so far
        self._entered = False

    def _wanted(self, name: str) -> bool:
        if self._include is not None and not self._include.search(name):
            return False
        return self._exclude is None or not self._exclude.search(name)

    def _probe(self) -> Probe:
        forward = Family(self._make_forward, self._per, self._axis)
        backward = None if self._make_backward is None else Family(self._make_backward, self._per, self._axis)
        return Probe(forward, backward, self._training)

    def _choose(self) -> list[Watched]:
        """What of the model is watched, as it is now; those watched before keep their probes."""
        before = {id(watched.module): watched for watched in getattr(self, "_watched", ())}
        watched: list[Watched] = []
        skipped: list[swap.Left] = []
        self._names: list[str] = []
        for full_name, module in self._model.named_modules():
            if id(module) in before:
                watched.append(before[id(module)])
                continue
            name = swap.show(full_name) if full_name else type(module).__name__
            twin = known.twin_of(module) or (known.Twin(type(module)) if isinstance(module, Activation) else None)
            if twin is None:
                if known.looks_like_activation(module):
                    skipped.append(swap.Left(name, type(module).__name__, "geoact has no such activation"))
                continue
            self._names.append(name)
            if not self._wanted(name):
                continue
            if swap.patched(module):
                skipped.append(swap.Left(name, type(module).__name__, "its forward was replaced"))
                continue
            if getattr(module, "stats", None) is not None or getattr(module, "gradient_stats", None) is not None:
                skipped.append(swap.Left(name, type(module).__name__, "it has statistics of its own"))
                continue
            watched.append(Watched(name, module, twin, self._probe()))
        if self._calls is None:
            skipped += [replace(left, why="use functional=True") for left in swap.functional_calls(self._model)]
        self.skipped = tuple(skipped)
        return watched

    def _refuse(self) -> None:
        given = [f"{n}={p.pattern!r}" for n, p in (("include", self._include), ("exclude", self._exclude)) if p]
        chosen = f" with {', '.join(given)}" if given else ""
        there = ", ".join(self._names)
        raise ValueError(
            f"model has no activation to watch{chosen} "
            + (f"(there are: {there})" if there else "as a module; for calls of F.relu and the like: functional=True")
        )

    # --- the schedule ---

    def _due(self) -> bool:
        return self._step >= self._warmup and (self._step - self._warmup) % self._every == 0

    def _arm(self) -> None:
        for part in self._parts():
            if self._due():
                part.arm()
            else:
                part.disarm()

    def _claim(self, watched: list[Watched]) -> None:
        """Hold these modules, and let go of those held before; nothing changes where another monitor holds one."""
        mine = {id(w.module) for w in self._watched} if self._entered else set()
        for w in watched:
            if w.module in claimed and id(w.module) not in mine:
                raise RuntimeError(f"{w.name} is watched by another monitor already: leave that one first")
        if self._calls is not None and not self._entered:
            modules = list(self._model.modules())
            if any(module in followed for module in modules):
                raise RuntimeError("the calls of model are watched by another monitor already: leave that one first")
            followed.update(modules)
            self._followed = modules
        kept = {id(w.module) for w in watched}
        for w in self._watched:
            if id(w.module) not in kept:
                w.disarm()
                claimed.discard(w.module)
        self._gone += [w for w in self._watched if id(w.module) not in kept]
        self._watched = watched
        for w in watched:
            claimed.add(w.module)

    def _parts(self) -> list[Watched | Calls]:
        return [*self._watched, *([] if self._calls is None else [self._calls])]

    def _probes(self) -> list[tuple[str, str, Probe]]:
        """Name, row and probe of everything watched."""
        calls = {} if self._calls is None else self._calls.probes
        modules = [(watched.name, watched.row, watched.probe) for watched in self._watched + self._gone]
        return modules + [(name, row, probe) for name, (row, probe) in calls.items()]

    def __enter__(self) -> Monitor:
        if self._entered:
            raise RuntimeError("this monitor is entered already")
        self._claim(self._choose())
        self._entered = True
        self._arm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        for part in self._parts():
            part.disarm()
        for watched in self._watched:
            claimed.discard(watched.module)
        for module in self._followed:
            followed.discard(module)
        self._followed = []
        problems: list[Exception] = []
        if self._snapshot().layers:  # what was begun is kept, above all where the training failed
            self._complete(problems)
        for sink in self._sinks:
            _attempt(sink.close, problems)
        if problems and error is None:
            raise problems[0]
        for problem in problems:  # the error that ended the block goes on; these must not hide it
            warnings.warn(f"a sink failed as well: {type(problem).__name__}: {problem}", RuntimeWarning, stacklevel=2)

    def step(self) -> Reading | None:
        """End a step, e.g. after ``optimizer.step()``: all calls since the last one belong to it.

        Returns
        -------
        Reading or None
            The reading, where a window of measured steps ended with this step; it has gone to the sinks.
        """
        if not self._entered:
            raise RuntimeError(
                "the monitor is not entered: use it as `with geoact.torch.instrument(model) as monitor:`"
            )
        reading = None
        problems: list[Exception] = []
        if self._due():
            self._measured += 1
            if self._measured == self._window:
                reading = self._complete(problems)
        self._step += 1
        if self._due():
            self._claim(self._choose())  # a layer that was replaced or added since is watched from here on
        self._arm()
        if problems:
            raise problems[0]
        return reading

    def _complete(self, problems: list[Exception]) -> Reading:
        reading = self._snapshot()
        self.reset()
        self.last = reading
        for sink in self._sinks:  # one that fails does not keep the others from the reading
            _attempt(partial(sink.write, reading), problems)
        return reading

    # --- reading ---

    def _snapshot(self) -> Reading:
        found = sorted((pair for probe in self._probes() for pair in layers_of(*probe)), key=lambda pair: pair[0])
        layers = tuple(replace(layer, index=index) for index, (_, layer) in enumerate(found))
        return self._judged(Reading(self._step, layers))

    def _judged(self, reading: Reading) -> Reading:
        return replace(reading, alerts=tuple(check(reading, self._rules)))

    def read(self) -> Reading:
        """What the window holds so far; the last completed reading where it holds nothing yet.

        This, ``step`` at the end of a window and leaving the block are the only places where anything is read back.
        """
        reading = self._snapshot()
        return self.last if not reading.layers and self.last is not None else reading

    def reset(self) -> None:
        """Forget the window."""
        self._measured = 0
        for _, _, probe in self._probes():
            probe.reset()
        self._gone.clear()

    def all_reduce(self, group: ProcessGroup | None = None) -> Reading:
        """``read()`` of all ranks together; every rank must call it, and gets the same.

        Raises
        ------
        ValueError
            On every rank, if the ranks watched different layers.
        """
        from geoact.torch.distributed import all_reduce_reading

        return self._judged(all_reduce_reading(self._agreed(group), group))

    def _agreed(self, group: ProcessGroup | None) -> Reading:
        """The reading of this rank with the layers of all: one that did not run here is there, empty."""
        window = self._snapshot()
        last = self.last or Reading(self._step, ())
        mine = [[_outline(layer) for layer in reading.layers] for reading in (window, last)]
        gathered: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(gathered, mine, group)
        # All ranks read the window, or all the reading before it.
        which = 0 if any(current for current, _ in gathered) else 1
        reading = (window, last)[which]
        have = {layer.name: layer for layer in reading.layers}
        outlines = {outline[0]: outline for rank in gathered for outline in rank[which]}
        layers = tuple(have.get(name) or _empty(*outline) for name, outline in outlines.items())
        return replace(reading, layers=tuple(replace(layer, index=i) for i, layer in enumerate(layers)))

    def __str__(self) -> str:
        return str(self.read())

    def __repr__(self) -> str:
        return f"<geoact.torch.Monitor of {len(self._watched)} activations, step {self._step}>"


def instrument(
    model: nn.Module,
    *,
    per: str = "channel",
    channel_axis: int | None = None,
    level: str = "moments",
    saturation: float = 0.05,
    backward: bool = True,
    when: str = "always",
    functional: bool = False,
    every: int = 1,
    warmup: int = 0,
    window: int = 1,
    include: str | re.Pattern[str] | None = None,
    exclude: str | re.Pattern[str] | None = None,
    sinks: Iterable[Sink] = (),
    rules: Sequence[Rule] = DEFAULT_RULES,
) -> Monitor:
    """Watch the activations of a model; use as a context manager.

    Parameters
    ----------
    model : torch.nn.Module
        Any model; activation modules of torch.nn, geoact.torch, transformers and timm are watched. Functional calls
        are with ``functional=True``, else ``monitor.skipped`` names those found.
    per : {"channel", "tensor"}
        Channels are needed to find dead units.
    channel_axis : int, optional
        None: 1 for 4-D and 5-D data (N, C, ...), the last axis for everything else (..., C).
    level, saturation
        As for :class:`geoact.GeometryStats`.
    backward : bool
        Also measure the gradient.
    when : {"always", "training", "evaluation"}
        Which calls count: those of modules in training mode, as ``model.train()`` sets it, or the others.
    functional : bool
        Also watch functional calls (``F.relu(x)``, ``x.sigmoid()``) in the forward methods, as layers named
        ``module:function``. Costs hooks on all modules while a step is measured; not under torch.compile.
    every, warmup : int
        Step s is measured where s >= warmup and (s - warmup) is a multiple of every. At other steps the modules are
        what they were before.
    window : int
        Measured steps that make one reading.
    include, exclude : regular expression, optional
        Of qualified names, found anywhere in them.
    sinks : iterable of geoact.torch.sinks.Sink
        Get every reading; closed at the end.
    rules : sequence of geoact.torch.alerts.Rule
        What to warn of.

    Notes
    -----
    All calls between two ``step()`` count together (micro-batches). A module that runs twice on data of one kind is one
    layer; where it sees several numbers of channels or dtypes each is a layer of its own, ``name[64]``. A forward pass
    that activation checkpointing repeats is not counted again. Under torch.compile a measured and an unmeasured
    version of the model are compiled.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, before anything changes.
    """
    return Monitor(
        model,
        per=per,
        channel_axis=channel_axis,
        level=level,
        saturation=saturation,
        backward=backward,
        when=when,
        functional=functional,
        every=every,
        warmup=warmup,
        window=window,
        include=include,
        exclude=exclude,
        sinks=sinks,
        rules=rules,
    )
