"""Stand-ins: a monitor where the real one is not there, a wrapper that counts how one is used, a run of W&B."""

from dataclasses import replace

import geoact
from geoact.torch.alerts import check
from geoact.torch.reading import Layer, Reading


class FakeMonitor:
    """Measures the inputs of nn.ReLU modules by geoact.relu on NumPy arrays; a reading every so many steps."""

    def __init__(self, model, per="tensor", every=1, sinks=()):
        self._model, self._per, self._every, self._sinks = model, per, every, sinks
        self._handles, self._stats, self._steps = [], {}, 0
        self.last = None

    def __enter__(self):
        from torch import nn

        for name, module in self._model.named_modules():
            if isinstance(module, nn.ReLU):
                self._stats[name] = geoact.GeometryStats(per=self._per)
                self._handles.append(module.register_forward_hook(self._measure(name)))
        return self

    def _measure(self, name):
        def hook(module, inputs, output):
            geoact.relu(inputs[0].detach().float().numpy(), stats=self._stats[name])

        return hook

    def read(self):
        layers = [Layer(name, "relu", i, 1, stats.copy()) for i, (name, stats) in enumerate(self._stats.items())]
        reading = Reading(self._steps, tuple(layers))
        return replace(reading, alerts=check(reading))

    def step(self):
        due = self._steps % self._every == 0
        self._steps += 1
        if not due:
            return None
        self.last = self.read()
        for stats in self._stats.values():
            stats.reset()
        for sink in self._sinks:
            sink.write(self.last)
        return self.last

    def __exit__(self, kind, error, trace):
        for handle in self._handles:
            handle.remove()
        for sink in self._sinks:
            sink.close()


class Counted:
    """A monitor that remembers how it was used."""

    def __init__(self, monitor, model, options):
        self.monitor, self.model, self.options = monitor, model, options
        self.entered, self.steps, self.exits = 0, 0, []

    @property
    def last(self):
        return self.monitor.last

    def read(self):
        return self.monitor.read()

    def __enter__(self):
        self.entered += 1
        self.monitor.__enter__()
        return self

    def step(self):
        assert self.entered == 1, "stepped outside"
        assert not self.exits, "stepped outside"
        self.steps += 1
        return self.monitor.step()

    def __exit__(self, kind, error, trace):
        self.exits.append(kind)
        return self.monitor.__exit__(kind, error, trace)


class StubRun:
    """The three members of a wandb run that are used; like a run, it drops what is logged for an earlier step."""

    def __init__(self):
        self.step, self.logged, self.metrics = 0, [], {}

    def define_metric(self, name, step_metric=None, hidden=None):
        self.metrics[name] = step_metric

    def log(self, data, step=None, commit=None):
        if step is not None and step < self.step:
            return
        self.step = self.step if step is None else step
        self.logged.append((self.step, data, commit))
