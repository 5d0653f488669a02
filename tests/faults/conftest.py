"""What was driven, and the matrix as a table at the end of the run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from faults.matrix import Fault, Moment, Way
from faults.report import table

FILLED = pytest.StashKey[set[tuple[Fault, Moment, Way]]]()


@pytest.fixture
def filled(request: pytest.FixtureRequest) -> Callable[[Fault, Moment, Way], None]:
    """Called at the end of a cell's test: it was driven so, and held."""
    driven = request.config.stash.setdefault(FILLED, set())
    return lambda fault, moment, way: driven.add((fault, moment, way))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print it, if any of it was run."""
    driven = terminalreporter.config.stash.get(FILLED, set())
    if driven:
        terminalreporter.section("fault matrix")
        for line in table(driven):
            terminalreporter.write_line(line)
