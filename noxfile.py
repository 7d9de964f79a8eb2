"""Sessions for developers: the tests on every Python found, and the linters. `make` covers the common cases."""

import nox

nox.options.default_venv_backend = "venv"


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Build geoact and run the suite."""
    session.install(".[dev]")  # without torch, whose tests are then skipped: make test runs them
    session.run("pytest", "tests", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Run what `make lint` runs."""
    session.run("make", "lint", external=True)
