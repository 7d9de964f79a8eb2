"""``python -m geoact.bench.instructions``: the command, where its script is not on the path."""

from geoact.bench.instructions.cli import main

main()
