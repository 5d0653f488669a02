"""Ledgers and trails on a disk, for the tests of what becomes of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cardsession.adapters.ledger import FileLedger, durable
from cardsession.adapters.trail import writer
from fakes.trails import Trails


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine's disk may be slow: that is no trouble unless a test says so."""
    monkeypatch.setattr(durable, "PATIENCE", 60.0)
    monkeypatch.setattr(durable, "CLOSE_SECONDS", 60.0)
    monkeypatch.setattr(writer, "SLOW_SECONDS", 60.0)
    monkeypatch.setattr(writer, "CLOSE_SECONDS", 60.0)


@pytest.fixture
def said() -> list[str]:
    """What staff were told."""
    return []


@pytest.fixture
def opened(tmp_path: Path, said: list[str]) -> Iterator[Callable[..., FileLedger]]:
    """Open ledgers; the one of before is closed first, unless it is to be one `beside` it."""
    made: list[FileLedger] = []

    def open_(directory: Path = tmp_path, *, beside: bool = False) -> FileLedger:
        if made and not beside:
            made[-1].close()
        made.append(FileLedger(directory, itertools.count(1000).__next__, said.append))
        return made[-1]

    yield open_
    for each in made:
        each.close()


@pytest.fixture
def trails(tmp_path: Path) -> Iterator[Trails]:
    directory = tmp_path / "state"
    directory.mkdir()
    made = Trails(directory)
    yield made
    made.close()
