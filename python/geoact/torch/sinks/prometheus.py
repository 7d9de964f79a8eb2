"""The last reading in Prometheus' text format."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

from geoact._files import write_atomic
from geoact.torch.reading import BACKWARD, FORWARD, Reading
from geoact.torch.sinks.base import optional, target


class Prometheus:
    """Gauges ``geoact_<scalar>{layer, activation}``, ``geoact_alert{layer, rule}`` and ``geoact_step``.

    The file is replaced at each reading and stays after the end, for the textfile collector of node_exporter, which
    wants a name that ends in ``.prom``. Values that were not measured are left out.

    Parameters
    ----------
    path : path-like
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        optional("prometheus_client", "Prometheus")
        self.path = target(path)

    def write(self, reading: Reading) -> None:
        """Replace the file."""
        write_atomic(self.path, self.render(reading))

    def close(self) -> None:
        """Nothing to do: every reading was written when it came."""

    @staticmethod
    def render(reading: Reading) -> str:
        """The reading in text format 0.0.4, to be served by an HTTP endpoint of one's own."""
        client = optional("prometheus_client", "Prometheus")
        registry = client.CollectorRegistry()
        registry.register(_Families(reading))
        return str(client.generate_latest(registry).decode("utf-8"))


class _Families:
    """A collector that shows one reading."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Iterator[Any]:
        gauge = optional("prometheus_client.core", "Prometheus").GaugeMetricFamily
        yield gauge("geoact_step", "step of the monitor at which the reading was taken", value=self._reading.step)
        rows = self._reading.rows()
        for scalar in FORWARD + BACKWARD:
            family = gauge(f"geoact_{scalar.name}", scalar.doc, labels=("layer", "activation"))
            for row in rows:
                if not math.isnan(row[scalar.name]):
                    family.add_metric((row["layer"], row["activation"]), row[scalar.name])
            if family.samples:
                yield family
        alerts = gauge("geoact_alert", "1 for each rule that a layer breaks", labels=("layer", "rule"))
        for alert in self._reading.alerts:
            alerts.add_metric((alert.layer, alert.rule), 1)
        if alerts.samples:
            yield alerts
