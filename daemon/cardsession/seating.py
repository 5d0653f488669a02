"""Where readers stand: what the card service lists, joined with what udev sees (`core.seats`).

udev is a hint, the card service is the truth. A reader that the service lists gets its desk as
soon as it is joined, or after a second: from then on its identifier is fixed, and a later join
only changes what is told of it. One that udev has in another place, and says so itself, was
plugged in anew between two listings: it is another reader, under the same name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

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
REPLUGGED_SECONDS = 2.0
"""So much longer if it came under the name of another and could not be asked yet: the card service
takes a while to let go of that one, and until then it is the other that is listed."""
RETRY_SECONDS = (0.1, 0.3, 0.6, 1.0, 1.0, 5.0, 30.0)
"""Pauses before a reader that could not be asked, or spoke of a device that udev does not know, is
asked again; the last repeats."""
_GONE = (Problem.READER_REMOVED, Problem.CARD_REMOVED)


@dataclass(slots=True, eq=False)
class Reader:
    """One reader that the card service lists."""

    slot: SlotReport
    """What was reported last."""
    heard: bool
    """Whether that was said of this one, and not of the one before it under its name: the service
    tells of the old card for as long as the new reader does not answer."""
    channel: Channel
    name: Name
    facts: ReaderFacts | None = None
    """As its desk began; None as long as it has none."""
    attributes: Attributes | None = None
    """What it said last; None as long as it could not be asked."""
    usb: UsbReader | None = None
    """The one that it was joined with, as udev had it last."""
    placed: bool = False
    """Whether it ever told its device number."""
    asked: int = 0
    asking: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Hall:
    """What the desks do when a reader has its place, or another one."""

    sit: Callable[[str, ReaderFacts, Channel], None]
    """A desk begins for the reader of this name."""
    report: Callable[[SlotReport], None]
    """What was reported of it before."""
    change: Callable[[str, ReaderFacts], None]
    """More is known of where the reader of this name stands; its identifier stays."""
    leave: Callable[[str], None]
    """The reader that had this name is gone, although one of this name is listed."""
    list_afresh: Callable[[], None]
    """The card service's word on all readers is wanted, even if it has not changed."""
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
        self._there = self._closed = False
        self._usb: tuple[UsbReader, ...] | None = None
        self._readers: dict[str, Reader] = {}
        """By the name that the card service has for them."""

    @property
    def driverless(self) -> list[ReaderFacts]:
        """USB readers that are shown without a driver."""
        return self._driverless.shown

    def close(self) -> None:
        """Nobody gets a place any more."""
        self._closed = True
        for name in list(self._readers):
            self._forget(name)
        self._driverless.fit((), ())

    # what the card service lists, and what udev sees

    def listing(self, slots: Mapping[str, SlotReport], *, there: bool) -> None:
        """All readers as they are now; `there`: the card service is."""
        if self._closed:
            return
        self._there = there
        for name in [name for name in self._readers if name not in slots]:
            self._forget(name)
        for name, slot in slots.items():
            if name in self._readers:
                reader = self._readers[name]
                reader.slot, reader.heard = slot, reader.heard or reader.attributes is not None
            else:
                self._arrive(slot)
        self._settle()

    def usb(self, readers: tuple[UsbReader, ...] | None) -> None:
        """All USB readers that udev knows; None: there is no udev."""
        if self._closed:
            return
        self._usb = readers
        for reader in self._readers.values():
            if readers is None and reader.facts is None:
                self._sit(reader, None)
            elif self._is_doubtful(reader) and (reader.usb or reader.attributes):
                reader.asked = 0
                self._ask(reader)
        self._settle()

    def _arrive(self, slot: SlotReport, *, heard: bool = True) -> None:
        reader = Reader(slot, heard, self._channel(slot.name), Name.of(slot.name))
        self._readers[slot.name] = reader
        if self._usb is None:
            self._sit(reader, None)
        else:
            self._timers.set(_joining(reader), JOIN_SECONDS, partial(self._wait_no_more, reader))
        self._ask(reader)

    def _forget(self, name: str) -> None:
        reader = self._readers.pop(name)
        self._timers.cancel(_joining(reader), _asking(reader))
        if reader.asking:
            reader.asking.cancel()
        if reader.facts is None:
            self._hall.dismiss(reader.channel)

    def _leave(self, reader: Reader) -> None:
        """There is another one under its name."""
        log.info("reader.replugged", reader=clean(reader.slot.name))
        self._forget(reader.slot.name)
        self._hall.leave(reader.slot.name)
        self._arrive(reader.slot, heard=False)

    # what a reader says of itself

    def _ask(self, reader: Reader) -> None:
        """One question at a time."""
        self._timers.cancel(_asking(reader))
        if reader.asking is None or reader.asking.done():
            reader.asking = asyncio.get_running_loop().create_task(self._asked(reader))

    async def _asked(self, reader: Reader) -> None:
        problem = None
        try:
            reader.attributes = await reader.channel.attributes()
        except Failure as failure:
            problem = failure.problem
        except Exception as error:  # our bug must not keep the reader from its place
            log.error("reader.unasked", reader=clean(reader.slot.name), exc_info=error)
        else:
            reader.placed |= reader.attributes.usb is not None
            if not reader.heard:
                self._hall.list_afresh()
        if problem in _GONE and reader.facts and (reader.attributes or reader.channel.holding):
            self._leave(reader)  # it was there before: only its name is there now
        self._settle()
        if self._readers.get(reader.slot.name) is reader and self._is_doubtful(reader):
            self._ask_later(reader)

    def _ask_later(self, reader: Reader) -> None:
        if reader.asked >= len(RETRY_SECONDS) and reader.attributes and not reader.usb:
            return  # a kind of reader that udev does not know: its next word is waited for
        pause = RETRY_SECONDS[min(reader.asked, len(RETRY_SECONDS) - 1)]
        reader.asked += 1
        self._timers.set(_asking(reader), pause, partial(self._ask, reader))

    def _is_doubtful(self, reader: Reader) -> bool:
        """Whether another answer may lead further: the service or udev may be behind."""
        if reader.attributes is None or self._is_lost(reader):
            return True
        if self._usb is None or reader.usb is not None:
            return False
        if reader.attributes == Attributes():  # one that is just being pulled says nothing at all
            joined = [each.usb for each in self._readers.values() if each.usb]
            return any(not any(each.is_still(one) for one in joined) for each in self._usb)
        place = reader.attributes.usb
        return place is not None and all(each.device_number != place for each in self._usb)

    # where it stands

    def _settle(self) -> None:
        """What follows from all that is known, in whatever order it came."""
        for reader in list(self._readers.values()):
            if self._was_moved(reader):
                self._leave(reader)
        while any(self._place(each) for each in self._readers.values()):
            pass  # who knows its place leaves fewer to the others
        for reader in self._readers.values():
            if not self._is_doubtful(reader):
                reader.asked = 0
                self._timers.cancel(_asking(reader))
        self._find_driverless()

    def _find_driverless(self) -> None:
        readers = self._readers.values()
        unjoined = [each for each in readers if each.usb is None]
        joined = {each.usb.device_number for each in readers if each.usb}
        unlisted, unclear = [], []
        for usb in self._usb or ():
            like = [each for each in unjoined if may_be(each, usb)]
            if like and all(each.facts is None for each in like):
                unclear.append(usb)
            elif not like and usb.device_number not in joined and self._is_free(usb.seat(0)):
                unlisted.append(usb)
        self._driverless.fit(unlisted if self._there else (), unclear)

    def _is_lost(self, reader: Reader) -> bool:
        """Whether udev does not see any more what it was joined with."""
        return bool(reader.usb and self._usb is not None and self._seen(reader.usb) is None)

    def _seen(self, usb: UsbReader) -> UsbReader | None:
        """The same one as udev has it now."""
        return next((each for each in self._usb or () if each.is_still(usb)), None)

    def _was_moved(self, reader: Reader) -> bool:
        """Whether it is not the reader any more that got this place."""
        if reader.usb is None or self._usb is None:
            return False
        place = reader.attributes.usb if reader.attributes else None
        if place is not None:
            return place != reader.usb.device_number
        return self._is_lost(reader) and (reader.placed or self._join(reader) is not None)

    def _join(self, reader: Reader, *, last: bool = True) -> UsbReader | None:
        return join(reader, self._readers.values(), self._usb or (), last=last)

    def _place(self, reader: Reader) -> bool:
        """Whether it was joined, by what is known now."""
        if reader.usb is not None:
            self._know(reader, self._seen(reader.usb) or reader.usb)
            return False
        found = self._join(reader, last=reader.facts is not None and reader.attributes is not None)
        if reader.facts is not None:
            self._know(reader, found)
        elif found is not None and self._is_free(found.seat(reader.name.slot)):
            self._sit(reader, found)
        return reader.usb is not None

    def _is_free(self, place: str) -> bool:
        """Whether nobody sits there: a reader that is pulled may be listed for a moment yet."""
        return all(each.facts is None or each.facts.id != place for each in self._readers.values())

    def _wait_no_more(self, reader: Reader, *, longer: bool = True) -> None:
        if longer and reader.attributes is None and not reader.heard:
            last = partial(self._wait_no_more, reader, longer=False)
            self._timers.set(_joining(reader), REPLUGGED_SECONDS, last)
            return
        self._sit(reader, self._join(reader))
        self._settle()

    def _sit(self, reader: Reader, usb: UsbReader | None) -> None:
        """It has its place from now on."""
        self._timers.cancel(_joining(reader))
        name = place = clean(reader.slot.name)
        if usb is not None and self._is_free(usb.seat(reader.name.slot)):
            place = usb.seat(reader.name.slot)
        while not self._is_free(place):
            place += "*"  # two names that differ in what is not printable
        reader.usb = usb
        reader.facts = self._facts(reader, ReaderFacts(id=place, name=name))
        self._driverless.taken_over(place)
        self._hall.sit(reader.slot.name, reader.facts, reader.channel)
        if reader.heard:
            self._hall.report(reader.slot)

    def _know(self, reader: Reader, usb: UsbReader | None) -> None:
        """More is known of a reader that has its place."""
        reader.usb = usb
        if reader.facts is None:
            return
        now = self._facts(reader, reader.facts)
        if now != reader.facts:
            reader.facts = now
            self._hall.change(reader.slot.name, now)

    def _facts(self, reader: Reader, facts: ReaderFacts) -> ReaderFacts:
        seat = reader.usb.seat(reader.name.slot) if reader.usb else ""
        labels = (self._labels.get(each) for each in (reader.slot.name, facts.id, seat))
        facts = replace(facts, label=next(filter(None, labels), ""))
        return seated(facts, reader.attributes or Attributes(), reader.usb)


def _joining(reader: Reader) -> str:
    return f"join {reader.slot.name}"


def _asking(reader: Reader) -> str:
    return f"ask {reader.slot.name}"
