"""Results over time, and where they changed: ``geoact bench history``.

``series`` reads result files into one series per case and class of machine, ``changes`` finds the changes of level in
it, ``show`` prints them (rich), ``page`` draws them (jinja2, plotly), ``command`` is the command line.
"""

from geoact.bench.history.command import register
from geoact.bench.history.series import History, Run, Series

__all__ = ["History", "Run", "Series", "register"]
