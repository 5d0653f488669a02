"""The daemon under test, and a subscriber that listened before anything happened."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from smartcard import scard

from cardsession.stack import Bus, Card, Daemon, Pcscd
from cardsession.stack.pcscd import READERS
from cardsession.stack.processes import StackError, wait_until
from system.subscriber import Subscriber


@pytest.fixture(autouse=True)
def empty_readers(pcscd: Pcscd, rundir: Path) -> None:
    """The card service takes up to 400 ms to notice that the last test's card is gone.

    A card that was powered by a reset before its insertion was noticed, and went before that,
    is believed to be in until the next one comes and goes: so one does.
    """
    _, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)

    def empty() -> bool:
        asked = [(name, scard.SCARD_STATE_UNAWARE) for name in READERS]
        _, answers = scard.SCardGetStatusChange(context, 0, asked)
        return not any(state & scard.SCARD_STATE_PRESENT for _, state, _ in answers)

    try:
        wait_until("the readers are empty", empty, seconds=2)
    except StackError:
        for slot, name in enumerate(READERS):
            with Card(rundir, slot, inserted=True, name="broom"):
                wait_until(f"{name} is swept", lambda slot=slot: counted(context, slot), 10)
        wait_until("the readers are empty", empty)
    finally:
        scard.SCardReleaseContext(context)


def counted(context: int, slot: int) -> bool:
    """Whether pcscd has had time to look at the card: it says so by its protocol's state."""
    asked = [(READERS[slot], scard.SCARD_STATE_UNAWARE)]
    _, ((_, state, _),) = scard.SCardGetStatusChange(context, 0, asked)
    time.sleep(0.9)  # two of its looks
    return bool(state & scard.SCARD_STATE_PRESENT)


@pytest_asyncio.fixture
async def seen(bus: Bus, daemon: Daemon) -> AsyncIterator[Subscriber]:
    """A subscriber on the daemon's bus."""
    async with await Subscriber.open(bus.address) as subscriber:
        await subscriber.until("two readers", lambda: len(subscriber.all("Reader")) == 2)
        yield subscriber
