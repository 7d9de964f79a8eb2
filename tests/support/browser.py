"""Pages in a real headless browser: the fixtures ``browser`` and ``show``, shared through conftest.py."""

import shutil
from pathlib import Path

import pytest

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no browser on PATH ({', '.join(names)})")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def show(browser):
    """Opens a file; afterwards there must have been no error, no message and no request for anything else."""
    opened, wrong = [], []

    def open_page(path: Path, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        tab = context.new_page()
        opened.append(context)
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        tab.on("request", lambda request: request.url == path.as_uri() or wrong.append(request.url))
        tab.goto(path.as_uri())
        tab.wait_for_selector(".chart .main-svg, .chart.empty")
        return tab

    yield open_page
    for context in opened:
        context.close()
    assert wrong == []
