"""The daemon under test, and a subscriber that listened before anything happened."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from cardsession.stack import Bus, Daemon
from system.subscriber import Subscriber


@pytest_asyncio.fixture
async def seen(bus: Bus, daemon: Daemon) -> AsyncIterator[Subscriber]:
    """A subscriber on the daemon's bus."""
    async with await Subscriber.open(bus.address) as subscriber:
        await subscriber.until("two readers", lambda: len(subscriber.all("Reader")) == 2)
        yield subscriber
