"""Watch the activations of any model: what they do to the geometry of the data and to the gradient, layer by layer.

While a step is measured, the activation modules of the model are ours and carry a probe; at all other times they are
exactly what they were, so a monitor that is off costs nothing. The model's parameters, buffers and state_dict never
change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch import nn

from geoact.statistics import GeometryStats, GradientStats
from geoact.torch import known, swap
from geoact.torch.alerts import DEFAULT_RULES, Rule, check
from geoact.torch.calls import Calls
from geoact.torch.modules import Activation
from geoact.torch.probe import Family, Probe
from geoact.torch.reading import Layer, Reading
from geoact.torch.watched import Watched, layers_of

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from geoact.torch.sinks import Sink


def _count(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return value


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
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if per == "row":
            raise ValueError("per is 'row' (accepted: 'tensor', 'channel'): rows of a whole training run have no end")
        if channel_axis is not None and (isinstance(channel_axis, bool) or not isinstance(channel_axis, int)):
            raise TypeError(f"channel_axis must be an int or None, got {type(channel_axis).__name__}")
        self._every = _count("every", every, 1)
        self._warmup = _count("warmup", warmup, 0)
        self._window = _count("window", window, 1)
        self._rules = tuple(rules)
        for rule in self._rules:
            if not isinstance(rule, Rule):
                raise TypeError(f"rules must hold geoact.torch.alerts.Rule, got {type(rule).__name__}")
        self._sinks = list(sinks)
        for sink in self._sinks:
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
        self._watched = self._choose(model)
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

    def _choose(self, model: nn.Module) -> list[Watched]:
        watched, names, skipped = [], [], []
        for full_name, module in model.named_modules():
            name = swap.show(full_name) if full_name else type(module).__name__
            twin = known.twin_of(module) or (known.Twin(type(module)) if isinstance(module, Activation) else None)
            if twin is None:
                if known.looks_like_activation(module):
                    skipped.append(swap.Left(name, type(module).__name__, "geoact has no such activation"))
                continue
            names.append(name)
            if not self._wanted(name):
                continue
            if getattr(module, "stats", None) is not None or getattr(module, "gradient_stats", None) is not None:
                skipped.append(swap.Left(name, type(module).__name__, "it has statistics of its own"))
                continue
            watched.append(Watched(name, module, twin, self._probe()))
        if self._calls is None:
            called = [replace(left, why="use functional=True") for left in swap.functional_calls(model)]
            self.skipped = tuple(skipped + called)
            if not watched:
                given = (("include", self._include), ("exclude", self._exclude))
                chosen = " with" + "".join(f" {name}={p.pattern!r}" for name, p in given if p) if any(given) else ""
                there = ", ".join(names) or ("none as modules; for calls of F.relu and the like use functional=True")
                raise ValueError(f"model has no activation to watch{chosen} (there are: {there})")
        else:
            self.skipped = tuple(skipped)
        return watched

    # --- the schedule ---

    def _due(self) -> bool:
        return self._step >= self._warmup and (self._step - self._warmup) % self._every == 0

    def _arm(self) -> None:
        for part in self._parts():
            if self._due():
                part.arm()
            else:
                part.disarm()

    def _parts(self) -> list[Watched | Calls]:
        return [*self._watched, *([] if self._calls is None else [self._calls])]

    def _probes(self) -> list[tuple[str, str, Probe]]:
        """Name, row and probe of everything watched."""
        calls = {} if self._calls is None else self._calls.probes
        modules = [(watched.name, watched.row, watched.probe) for watched in self._watched]
        return modules + [(name, row, probe) for name, (row, probe) in calls.items()]

    def __enter__(self) -> Monitor:
        if self._entered:
            raise RuntimeError("this monitor is entered already")
        self._entered = True
        self._arm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        for part in self._parts():
            part.disarm()
        try:
            if kind is None and self._snapshot().layers:
                self._complete()
        finally:
            for sink in self._sinks:
                sink.close()

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
        if self._due():
            self._measured += 1
            if self._measured == self._window:
                reading = self._complete()
        self._step += 1
        self._arm()
        return reading

    def _complete(self) -> Reading:
        reading = self._snapshot()
        self.reset()
        self.last = reading
        for sink in self._sinks:
            sink.write(reading)
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
