"""The fuzz tests of a run, counted."""

from __future__ import annotations

import pytest

from fuzz.cases import DECLARED, RAN, SECONDS, SELECTED


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who shares the time; and the count is last."""
    SELECTED[:] = [each.name for each in items if each.name in DECLARED]
    last = [each for each in items if each.name == "test_cases_were_tried"]
    items[:] = [each for each in items if each not in last] + last


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many cases, on a line of its own."""
    if RAN:
        how = f"for {SECONDS:g} s" if SECONDS else "of the fixed seed"
        line = f"fuzzing: {RAN.total():,} cases in {len(RAN)} tests, {how}"
        terminalreporter.write_sep("-", line)
