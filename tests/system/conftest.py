"""The daemon under test, and a subscriber that listened before anything happened."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cardsession.stack import Bus, Card, Daemon, Pcscd
from cardsession.stack.pcscd import READERS
from cardsession.stack.processes import StackError, wait_until
from system.readers import empty, present
from system.subscriber import Subscriber


@pytest.fixture(autouse=True)
def empty_readers(pcscd: Pcscd, rundir: Path) -> None:
    """The card service takes up to 400 ms to notice that the last test's card is gone.

    A card that was powered by a reset before its insertion was noticed, and went before that,
    is believed to be in until the next one comes and goes: so one does.
    """
    try:
        wait_until("the readers are empty", empty, seconds=2)
    except StackError:
        for slot in range(len(READERS)):
            with Card(rundir, slot, inserted=True, name="broom"):
                wait_until("a card is in", lambda slot=slot: present(slot))
                time.sleep(0.9)  # two of pcscd's looks: it has seen it come by itself
        wait_until("the readers are empty", empty)


@pytest_asyncio.fixture
async def seen(bus: Bus, daemon: Daemon) -> AsyncIterator[Subscriber]:
    """A subscriber on the daemon's bus."""
    async with await Subscriber.open(bus.address) as subscriber:
        await subscriber.until("two readers", lambda: len(subscriber.all("Reader")) == 2)
        yield subscriber
