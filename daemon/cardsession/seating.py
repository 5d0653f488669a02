"""Where readers stand: what the card service lists, joined with what udev sees (`core.seats`).

udev is a hint, the card service is the truth. A reader that the service lists gets its desk as
soon as it is joined, or after a second: from then on its identifier is fixed, and a later join
only changes what is told of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from structlog import get_logger

from cardsession.actor import Timers
from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import ReaderFacts
from cardsession.core.reports import SlotReport
from cardsession.core.seats import Attributes, Name, UsbReader, join, may_be, seated
from cardsession.core.text import clean
from cardsession.driverless import Driverless
from cardsession.ports import Channel, Clock, Publisher

log = get_logger(__name__)

JOIN_SECONDS = 1.0
"""So long may udev and the card service be apart before a reader is shown under its name."""
RETRY_SECONDS = (0.1, 0.3, 1.0, 5.0, 30.0)
"""Pauses before a reader that a rival keeps from us is asked again; the last repeats."""


@dataclass(slots=True, eq=False)
class Reader:
    """One reader that the card service lists."""

    slot: SlotReport
    """What was reported last."""
    channel: Channel
    name: Name
    facts: ReaderFacts | None = None
    """As its desk began; None as long as it has none."""
    attributes: Attributes | None = None
    usb: UsbReader | None = None
    asked: int = 0


@dataclass(frozen=True, slots=True)
class Hall:
    """What the desks do when a reader has its place, or another one."""

    sit: Callable[[SlotReport, ReaderFacts, Channel], None]
    """A desk begins, with what was reported last."""
    change: Callable[[str, ReaderFacts], None]
    """More is known of where the reader of this name stands; its identifier stays."""
    leave: Callable[[str], None]
    """The reader that had this name is gone, although one of this name is listed."""
    dismiss: Callable[[Channel], object]
    """A reader went before it had a desk: its channel is closed."""


class Seating:
    """See the module."""

    def __init__(
        self,
        clock: Clock,
        publisher: Publisher,
        channel: Callable[[str], Channel],
        labels: Mapping[str, str],
        hall: Hall,
    ) -> None:
        self._channel = channel
        self._labels = labels
        self._hall = hall
        self._timers = Timers(clock)
        self._driverless = Driverless(clock, publisher, labels)
        self._usb: tuple[UsbReader, ...] | None = None
        self._readers: dict[str, Reader] = {}
        """By the name that the card service has for them."""
        self._asking: set[asyncio.Task[None]] = set()

    @property
    def driverless(self) -> list[ReaderFacts]:
        """USB readers that are shown without a driver."""
        return self._driverless.shown

    def close(self) -> None:
        """Nobody gets a place any more."""
        self._timers.cancel()
        self._driverless.fit(())
        for task in self._asking:
            task.cancel()
        for name in list(self._readers):
            self._forget(name)

    # what the card service lists

    def listing(self, slots: Mapping[str, SlotReport], *, there: bool) -> None:
        """All readers as they are now; `there`: the card service is."""
        for name in [name for name in self._readers if name not in slots]:
            self._forget(name)
        for name, slot in slots.items():
            if name in self._readers:
                self._readers[name].slot = slot
            else:
                self._arrive(slot)
        self._find_driverless(there=there)

    def _arrive(self, slot: SlotReport) -> None:
        reader = Reader(slot, self._channel(slot.name), Name.of(slot.name))
        self._readers[slot.name] = reader
        if self._usb is None:
            self._sit(reader, None)
        else:
            self._timers.set(slot.name, JOIN_SECONDS, lambda: self._sit(reader, None))
        self._ask(reader)

    def _forget(self, name: str) -> None:
        reader = self._readers.pop(name)
        self._timers.cancel(name, _again(name))
        if reader.facts is None:
            self._hall.dismiss(reader.channel)

    # what a reader says of itself

    def _ask(self, reader: Reader) -> None:
        task = asyncio.get_running_loop().create_task(self._asked(reader))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _asked(self, reader: Reader) -> None:
        name = reader.slot.name
        try:
            attributes = await reader.channel.attributes()
        except Failure as failure:
            if failure.problem is Problem.IN_USE_ELSEWHERE and self._is(reader):
                pause = RETRY_SECONDS[min(reader.asked, len(RETRY_SECONDS) - 1)]
                reader.asked += 1
                self._timers.set(_again(name), pause, lambda: self._ask(reader))
            return  # else it is gone, which the card service will say as well
        if self._is(reader):
            reader.asked, reader.attributes = 0, attributes
            self._place(reader)

    def _is(self, reader: Reader) -> bool:
        """Whether it is that one still."""
        return self._readers.get(reader.slot.name) is reader

    # what udev sees

    def usb(self, readers: tuple[UsbReader, ...] | None) -> None:
        """All USB readers that udev knows; None: there is no udev."""
        self._usb = readers
        for reader in list(self._readers.values()):
            if readers is None and reader.facts is None:
                self._sit(reader, None)
            elif reader.usb is not None and reader.usb not in (readers or ()):
                self._ask(reader)  # pulled; or there again, under the same name
            elif reader.usb is None and reader.attributes is not None:
                self._place(reader)
        self._find_driverless(there=self._driverless.there)

    def _place(self, reader: Reader) -> None:
        """What is known of a reader leads to its place, or to none."""
        attributes = reader.attributes or Attributes()
        found = join(reader.name, attributes, self._usb or (), self._taken(reader))
        if reader.facts is None:
            if found is not None and self._is_free(found.seat(reader.name.slot)):
                self._sit(reader, found)
        elif reader.usb is None or found == reader.usb:
            self._know(reader, found)
        elif attributes.usb != (reader.usb.bus, reader.usb.device):
            log.info("reader.replugged", reader=clean(reader.slot.name))
            del self._readers[reader.slot.name]
            self._hall.leave(reader.slot.name)
            self._arrive(reader.slot)
        self._find_driverless(there=self._driverless.there)

    def _taken(self, but: Reader) -> dict[str, str]:
        """Which reader (its index) each USB reader was joined with, by syspath."""
        return {
            each.usb.syspath: each.name.index
            for each in self._readers.values()
            if each.usb is not None and each is not but
        }

    def _is_free(self, seat: str) -> bool:
        """Whether nobody sits there: a reader that is pulled may be listed for a moment yet."""
        return all(each.facts is None or each.facts.id != seat for each in self._readers.values())

    def _sit(self, reader: Reader, usb: UsbReader | None) -> None:
        """It has its place from now on."""
        self._timers.cancel(reader.slot.name)
        name = clean(reader.slot.name)
        place = usb.seat(reader.name.slot) if usb else name
        label = self._labels.get(reader.slot.name) or self._labels.get(place, "")
        facts = ReaderFacts(id=place, name=name, label=label)
        reader.usb = usb
        reader.facts = seated(facts, reader.attributes or Attributes(), usb)
        self._driverless.taken_over(place)
        self._hall.sit(reader.slot, reader.facts, reader.channel)

    def _know(self, reader: Reader, usb: UsbReader | None) -> None:
        """More is known of a reader that has its place."""
        if reader.facts is None or reader.attributes is None:
            return
        reader.usb = usb
        now = seated(reader.facts, reader.attributes, usb)
        if now != reader.facts:
            reader.facts = now
            self._hall.change(reader.slot.name, now)

    def _find_driverless(self, *, there: bool) -> None:
        """USB readers that no reader of the card service is, or may be."""
        self._driverless.there = there
        self._driverless.fit(self._unlisted() if there else ())

    def _unlisted(self) -> Iterable[UsbReader]:
        joined = {each.usb.device_number for each in self._readers.values() if each.usb}
        unknown = [each for each in self._readers.values() if each.usb is None]
        for usb in self._usb or ():
            known = any(may_be(each.name, each.attributes, usb) for each in unknown)
            if usb.device_number not in joined and not known:
                yield usb


def _again(name: str) -> str:
    return f"{name} is asked again"
