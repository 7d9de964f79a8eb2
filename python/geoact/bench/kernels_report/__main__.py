"""``python -m geoact.bench.kernels_report``: the command, where its script is not on the path."""

from geoact.bench.kernels_report.cli import main

main()
