"""Many readers before the real desks and the real service: over any connection, with cards and
time in memory. Nothing here grows with the number of things that happened."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from cardsession.adapters.ledger import MemoryLedger
from cardsession.bus import contract
from cardsession.bus.service import Service
from cardsession.bus.values import Constants
from cardsession.cards import families
from cardsession.config import Config
from cardsession.core.facts import Backend
from cardsession.core.policy import Removal
from cardsession.core.reports import Listing, SlotReport
from cardsession.core.seats import USB_CHANNEL, Attributes, UsbReader
from cardsession.desks import Desks, Keepers
from fakes.cards import ATR
from fakes.channel import Chip, FakeChannel
from fakes.clock import FakeClock
from fakes.connection import FakeConnection, Sent
from fakes.keepers import FakeJudge

CARDS = f"{contract.CARDS}/"
TURNS = 60


class _Trail:
    """Forgets."""

    def record(self, event: str, **fields: str | int) -> None:
        """Whatever it was."""


class _Judge(FakeJudge):
    """Forgets what it judged."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = deque(maxlen=4)  # type: ignore[assignment]


class CountingConnection(FakeConnection):
    """Counts what leaves, and mirrors the objects as a subscriber would."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = deque[Sent](maxlen=64)  # type: ignore[assignment]
        self.signals: Counter[str] = Counter()
        self.cards: Counter[str] = Counter()
        """InterfacesAdded and InterfacesRemoved of cards."""
        self.objects: dict[str, dict[str, dict[str, Any]]] = {}

    def emit(self, path: str, interface: str, member: str, signature: str, body: Any) -> None:
        """A signal."""
        super().emit(path, interface, member, signature, body)
        self.signals[member] += 1
        match member:
            case "InterfacesAdded":
                assert body[0] not in self.objects, "announced twice"
                self.objects[body[0]] = {name: dict(each) for name, each in body[1].items()}
                self.cards[member] += body[0].startswith(CARDS)
            case "InterfacesRemoved":
                assert self.objects.pop(body[0]), "taken away before it came"
                self.cards[member] += body[0].startswith(CARDS)
            case "PropertiesChanged":
                if path in self.objects:
                    self.objects[path][body[0]].update(body[1])


class Crowd:
    """Readers that come and go, of one card service, on one bus connection."""

    def __init__(self, connection: Any, config: Config | None = None) -> None:
        """To be made, and used, in a running loop."""
        self.clock = FakeClock()
        self.service = Service(connection, Constants("0", Removal.END, 900, 43_200))
        self.channels: dict[str, FakeChannel] = {}
        self._slots: dict[str, SlotReport] = {}
        self._says: dict[str, Attributes] = {}
        self._ledger = MemoryLedger(self.clock.usec)
        keepers = Keepers(families(), self._ledger, _Judge(), _Trail())
        self.desks = Desks(config or Config(), self.clock, self.service, self._new_channel, keepers)

    def _new_channel(self, name: str) -> FakeChannel:
        made = self.channels[name] = FakeChannel(self._ledger)
        made.says = self._says.get(name, Attributes())
        return made

    async def start(self) -> None:
        """Serve, and own the name."""
        await self.service.start(self.desks, spend_last_try="caller")

    def list(self) -> None:
        """Tell the desks what the card service lists."""
        self.desks.listing(Listing(Backend.OK, tuple(self._slots.values())))

    def plug(self, name: str, usb: UsbReader | None = None) -> None:
        """A reader comes; `usb`: which says by its channel id where it is."""
        if usb is not None:
            place = USB_CHANNEL << 16 | usb.bus << 8 | usb.device
            self._says[name] = Attributes(channel_id=place)
        self._slots[name] = SlotReport(name)
        self.list()

    def unplug(self, *names: str) -> None:
        """They go at once."""
        for name in names:
            del self._slots[name]
            self.channels.pop(name, None)
            self._says.pop(name, None)
        self.list()

    def insert(self, cards: Iterable[tuple[str, Chip]]) -> None:
        """Cards come, all of them before anybody looks."""
        for name, chip in cards:
            self.channels[name].chip = chip
            self._report(name, present=True, atr=ATR)
        self.list()

    def pull(self, *names: str) -> None:
        """They go."""
        for name in names:
            chip, self.channels[name].chip = self.channels[name].chip, None
            if chip is not None:
                chip.reset()
            self._report(name, present=False, atr=b"")
        self.list()

    def _report(self, name: str, **changed: Any) -> None:
        slot = self._slots[name]
        self._slots[name] = replace(slot, counter=slot.counter + 1, **changed)


async def settle(turns: int = TURNS) -> None:
    """Let everything happen that can happen without time going by."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for a condition, at most so long; fails the test otherwise."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.002)
