"""Sinks: where readings go. Each has ``write(reading)``, called once per reading, and ``close()``.

==================  ==========================================================================================
``memory``          :class:`Memory`, a list of readings
``table``           :class:`Table`, a live table in the terminal (rich)
``records``         :class:`CSV`, :class:`JSONL`: a row per layer and step, appended as whole lines
``parquet``         :class:`Parquet`: the same rows, by column (pyarrow)
``tensorboard``     :class:`TensorBoard`: scalars, histograms over channels, alerts as text
``wandb``           :class:`WandB`: the same scalars in a run of Weights & Biases
``prometheus``      :class:`Prometheus`: the last reading in the text format that is scraped (prometheus_client)
``html``            :class:`HTML`: one self-contained page with curves, a table and alerts (Jinja2, plotly)
==================  ==========================================================================================

May import: :mod:`geoact.torch.reading`, the standard library, NumPy and, in the constructor of the sink that needs it,
one package of the ``monitor`` extra. A sink never sees the monitor, so that a stored reading can be written again, and
nothing but the package's user imports a sink. Files are checked and made in the constructor: a mistake in a path is
known before the training, not after it.
"""

from geoact.torch.sinks.base import Sink
from geoact.torch.sinks.html import HTML
from geoact.torch.sinks.memory import Memory
from geoact.torch.sinks.parquet import Parquet
from geoact.torch.sinks.prometheus import Prometheus
from geoact.torch.sinks.records import CSV, JSONL
from geoact.torch.sinks.table import Table
from geoact.torch.sinks.tensorboard import TensorBoard
from geoact.torch.sinks.wandb import WandB

__all__ = ["CSV", "HTML", "JSONL", "Memory", "Parquet", "Prometheus", "Sink", "Table", "TensorBoard", "WandB"]
