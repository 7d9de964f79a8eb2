"""What geoact's pages have in common: one look, tables that sort, plotly inside the file, and a mark they are known by.

A page is one file that needs nothing but a browser, light or dark as the reader prefers. Its template is in the package
that makes it and includes ``look.css``, ``tables.js`` and ``charts.js`` from here. Everything is escaped by default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geoact._files import write_atomic

MONITOR, BENCH, HISTORY = "geoact", "geoact bench", "geoact history"


def refuse_others(path: Path, kind: str) -> None:
    """Raise ValueError if there is a file that is no page of this kind: only an earlier page is ever replaced."""
    if path.is_dir():
        raise ValueError(f"path is a folder: {path}")
    if path.exists() and _mark(kind).encode() not in path.read_bytes()[:1000]:
        raise ValueError(f"path is {path}, which is no page of {kind}'s; it is not overwritten")


def _mark(kind: str) -> str:
    return f'<meta name="generator" content="{kind}">'


def template(package: str, name: str) -> Any:  # noqa: ANN401  jinja2 need not be installed
    """The template of a page, from the folder ``templates`` of a package; plotly is in it as ``plotly``."""
    import jinja2
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    loaders = [jinja2.PackageLoader(place, "templates") for place in (package, "geoact._pages")]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name, globals={"plotly": Markup(get_plotlyjs())})


def write_page(path: Path, kind: str, package: str, name: str, content: dict[str, Any]) -> None:
    """Render a template and write it whole. Raises ValueError where something else than such a page is."""
    refuse_others(path, kind)
    write_atomic(path, template(package, name).render(**content))
