"""The shipped rules before their judge."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cardsession.stack.pcscd import in_namespace
from udev.judge import Judge, judging


@pytest.fixture
def judge() -> Iterator[Judge]:
    if not in_namespace():
        pytest.fail("no udev of our own here: run sh tests/run.sh", pytrace=False)
    with judging() as judge:
        judge.device("1-4")
        yield judge
