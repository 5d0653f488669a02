"""How much was tried."""

from __future__ import annotations

import pytest

from fuzz.cases import DECLARED, RAN, SECONDS, SELECTED

ENOUGH = 10_000


def test_cases_were_tried() -> None:
    """Of each test as many as it says; and all together enough."""
    if not RAN or SECONDS:
        pytest.skip("no fuzz test was selected, or time is what counts")
    for name in SELECTED:
        if name in RAN:
            assert RAN[name] >= DECLARED[name], f"{name}: it failed, or has not so many cases"
    assert RAN.total() >= ENOUGH, "not all of tests/fuzz was selected, or too few cases are left"
