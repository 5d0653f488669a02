"""Ten thousand times: a reader is plugged in, a card comes, is read, goes, the reader is pulled.

Each is told once when it comes and once when it goes, and nothing is left of any of it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections import deque
from pathlib import Path

import pytest

from cardsession.bus import contract
from cardsession.core.reports import SlotReport, changes
from cardsession.core.seats import UsbReader
from cardsession.core.states import Event
from cardsession.virtual.card import VirtualCard
from fakes.cards import CANARY, make_card
from fakes.crowd import CountingConnection, Crowd, settle, until
from fakes.process import logged

CYCLES = 10_000
WARM = 1_000
"""Cycles after which everything that is kept for good is there: 256 ended sessions are."""
SESSION_EVERY, BACK_TO_BACK = 20, 3
PAGES_MIB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)
MOST_MIB, MOST_OBJECTS = 8, 500
"""Growth that is none, over nine thousand cycles: less than an object for each eighteen."""


class Counts:
    """What this process holds."""

    def __init__(self) -> None:
        gc.collect()
        self.descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted
        self.threads = threading.active_count()
        self.objects = len(gc.get_objects())
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.resident = pages * PAGES_MIB

    def grew(self, before: Counts) -> str:
        """What grew since then; "" is as it should be."""
        grown = {
            "descriptors": self.descriptors - before.descriptors,
            "threads": self.threads - before.threads,
            "objects": max(0, self.objects - before.objects - MOST_OBJECTS),
            "MiB": max(0, self.resident - before.resident - MOST_MIB),
        }
        return ", ".join(f"{value:g} {name}" for name, value in grown.items() if value > 0)


class Days:
    """Cycles over one daemon. The reader of each second cycle is on USB, in one of two ports."""

    def __init__(self) -> None:
        self.connection = CountingConnection()
        self.crowd = Crowd(self.connection)
        self.cards: list[VirtualCard] = [make_card(holder=str(at)) for at in range(6)]
        self.cycle = 0

    async def day(self) -> None:
        """One cycle."""
        number = self.cycle = self.cycle + 1
        name = f"Some Reader {number % 4:02X} 00"
        usb = UsbReader(f"/{number % 4}", f"1-{number % 4}", bus=1, device=number % 127 + 1)
        connection, crowd = self.connection, self.crowd
        if number > WARM // 2:  # until then there is no udev
            crowd.desks.usb((usb,) if number % 2 else ())
        crowd.plug(name, usb if number % 2 else None)
        await settle(10)
        crowd.clock.advance(1.1)  # a reader that is not on USB is waited for so long
        await settle(5)
        place = next(path for path in connection.objects if "/reader/" in path)
        if number > WARM // 2 and number % 2:
            assert place.endswith(contract.escape_label(usb.seat(0)))
        for _ in range(1 if number % BACK_TO_BACK else 2):
            await self._card(name, session=number % SESSION_EVERY == 0)
        crowd.unplug(name)
        crowd.desks.usb(() if number > WARM // 2 else None)
        await settle()
        assert set(connection.objects) <= {contract.ROOT}, "something is left"
        assert crowd.service._tree.managed() == {}

    async def _card(self, name: str, *, session: bool) -> None:
        connection, crowd = self.connection, self.crowd
        before = dict(connection.cards)
        crowd.insert([(name, self.cards[self.cycle % len(self.cards)])])
        await settle()
        (path,) = [each for each in connection.objects if each.startswith(contract.CARDS)]
        facts = connection.objects[path][contract.CARD]
        assert facts["State"].value == "ready"
        if session:
            await self._session(path)
        crowd.pull(name)
        await settle()
        for member in ("InterfacesAdded", "InterfacesRemoved"):
            assert connection.cards[member] == before.get(member, 0) + 1

    async def _session(self, card: str) -> None:
        """Opened, verified; and some are not closed before their card is pulled."""
        connection = self.connection
        connection.sent.clear()
        caller = f":1.{self.cycle}"
        connection.call(card, contract.CARD, "OpenSession", "sa{sv}", "test", {}, sender=caller)
        await until(connection.replies)
        path = connection.replies()[0].body[0]
        secret = os.memfd_create("test")
        os.write(secret, CANARY.encode())
        body = ("user", 0, {})
        connection.call(path, contract.SESSION, "VerifyPin", "sha{sv}", *body, fds=(secret,),
                        sender=caller)  # fmt: skip
        await until(lambda: len(connection.replies()) == 2)
        assert connection.replies()[1].body == ("verified", -1)
        assert connection.objects[path][contract.SESSION]["State"].value == "active"
        if self.cycle % (2 * SESSION_EVERY):
            connection.call(path, contract.SESSION, "Close", sender=caller)
            await until(lambda: len(connection.replies()) == 3)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_ten_thousand_cycles_leave_nothing() -> None:
    with logged(deque(maxlen=4)):  # type: ignore[arg-type]
        await _cycles(Days())


async def _cycles(days: Days) -> None:
    await days.crowd.start()
    tasks = len(asyncio.all_tasks())
    while days.cycle < WARM:
        await days.day()
    before = Counts()
    while days.cycle < CYCLES:
        await days.day()
    assert Counts().grew(before) == ""
    assert len(asyncio.all_tasks()) == tasks
    assert days.crowd.clock.pending == []
    assert days.connection.cards["InterfacesAdded"] == days.connection.cards["InterfacesRemoved"]
    assert days.connection.cards["InterfacesAdded"] >= CYCLES


def test_a_counter_that_begins_anew_is_no_card() -> None:
    """A reader that was just plugged in is seen, for a moment, with the counter of the one that was
    there before it: a card was told of that nobody ever inserted (found by the plug cycles at the
    real card service)."""
    before = SlotReport("Some Reader 00 00", counter=2)
    now = SlotReport("Some Reader 00 00", counter=0)
    assert changes(before, now) == ()
    assert changes(now, before) == (Event.CARD_INSERTED, Event.CARD_REMOVED)
