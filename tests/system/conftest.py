"""The daemon under test, and a subscriber that listened before anything happened."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from smartcard import scard

from cardsession.stack import Bus, Daemon, Pcscd
from cardsession.stack.pcscd import READERS
from cardsession.stack.processes import wait_until
from system.subscriber import Subscriber


@pytest.fixture(autouse=True)
def empty_readers(pcscd: Pcscd) -> None:
    """The card service takes up to 400 ms to notice that the last test's card is gone."""
    _, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)

    def empty() -> bool:
        asked = [(name, scard.SCARD_STATE_UNAWARE) for name in READERS]
        _, answers = scard.SCardGetStatusChange(context, 0, asked)
        return not any(state & scard.SCARD_STATE_PRESENT for _, state, _ in answers)

    try:
        wait_until("the readers are empty", empty)
    finally:
        scard.SCardReleaseContext(context)


@pytest_asyncio.fixture
async def seen(bus: Bus, daemon: Daemon) -> AsyncIterator[Subscriber]:
    """A subscriber on the daemon's bus."""
    async with await Subscriber.open(bus.address) as subscriber:
        await subscriber.until("two readers", lambda: len(subscriber.all("Reader")) == 2)
        yield subscriber
