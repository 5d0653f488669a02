"""All desks together: which readers there are, numbers that are never used twice, who may ask."""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from structlog import get_logger

from cardsession.asks import (
    Ask,
    ContextAsk,
    EndAsk,
    OpenAsk,
    PlainAsk,
    QueryAsk,
    SignAsk,
    SubmitAsk,
    TransmitAsk,
)
from cardsession.cards import Families
from cardsession.config import Config
from cardsession.core import context
from cardsession.core.errors import TEXTS, Failure, Problem
from cardsession.core.facts import (
    Backend,
    CardFacts,
    EndReason,
    Hotplug,
    ReaderFacts,
    SessionFacts,
)
from cardsession.core.reports import Listing
from cardsession.core.seats import UsbReader
from cardsession.core.states import Event
from cardsession.core.tries import Act, PinStatus
from cardsession.desk import Desk
from cardsession.ports import (
    Caller,
    Channel,
    Clock,
    Judge,
    Ledger,
    OpenRequest,
    PinRequest,
    Publisher,
    SignRequest,
    Trail,
    Verdict,
)
from cardsession.seating import Hall, Seating
from cardsession.shown import Office

log = get_logger(__name__)
T = TypeVar("T")

FAREWELL_SECONDS = 1.0
"""So long may sessions take to end when we are stopped; then their readers are left to it."""
SUSPEND_SECONDS = 2.5
"""The same before the machine sleeps: with the end of the readers' threads it is less than logind
waits, and a card that is at a passcode may answer yet."""
REMEMBERED = 256
"""Ended sessions of which the reason is still told."""


@dataclass(frozen=True, slots=True)
class Keepers:
    """What the desks know from elsewhere: cards, what was tried, what is trusted, what was done."""

    families: Families
    ledger: Ledger
    judge: Judge
    trail: Trail


class Desks:
    """The desks of one card service (see `Requests` for what callers may ask)."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        publisher: Publisher,
        channel: Callable[[str], Channel],
        keepers: Keepers,
    ) -> None:
        self._publisher = publisher
        self._desks: dict[str, Desk] = {}
        self._over: OrderedDict[int, str] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()
        self._trouble = ""
        self._asleep = False
        self._office = Office(
            config=config,
            clock=clock,
            publisher=publisher,
            families=keepers.families,
            ledger=keepers.ledger,
            judge=keepers.judge,
            trail=keepers.trail,
            card_numbers=itertools.count(1),
            session_numbers=itertools.count(1),
            session_over=self._session_over,
        )
        self.list_afresh: Callable[[], None] = lambda: None
        """Has the status wait begin anew, so that `listing` is called whatever it says."""
        hall = Hall(
            sit=self._sit,
            report=lambda slot: self._desks[slot.name].report(slot),
            change=self._change,
            leave=self._leave,
            list_afresh=lambda: self.list_afresh(),  # noqa: PLW0108 - set after this
            dismiss=lambda gone: self._see_off(gone.close()),
        )
        labels = config.readers.labels
        self._seating = Seating(clock, publisher, channel, labels, hall)

    # from the status wait, and from udev

    def listing(self, listing: Listing) -> None:
        """Make the desks fit what the card service lists now. Nobody knows while we sleep."""
        if self._asleep:
            return
        self._publisher.backend(listing.backend)
        there = listing.backend is Backend.OK
        reason = EndReason.READER_REMOVED if there else EndReason.BACKEND_LOST
        listed = {slot.name: slot for slot in listing.slots}
        for name in [name for name in self._desks if name not in listed]:
            self._close(self._desks.pop(name), reason)
        for name, desk in self._desks.items():
            desk.report(listed[name])
        self._seating.listing(listed, there=there)

    def usb(self, readers: tuple[UsbReader, ...] | None) -> None:
        """All USB readers that udev knows now; None: there is no udev."""
        self._publisher.hotplug(Hotplug.PCSC_ONLY if readers is None else Hotplug.UDEV)
        self._seating.usb(readers)

    def _sit(self, name: str, reader: ReaderFacts, channel: Channel) -> None:
        log.info("reader.appeared", reader=reader.name, id=reader.id)
        desk = self._desks[name] = Desk(reader, channel, self._office)
        desk.shown.trouble(self._trouble)

    def _change(self, name: str, reader: ReaderFacts) -> None:
        self._desks[name].shown.stands(reader)

    def _leave(self, name: str) -> None:
        self._close(self._desks.pop(name), EndReason.READER_REMOVED)

    def _close(self, desk: Desk, reason: EndReason) -> None:
        log.info("reader.gone", reader=desk.shown.reader.name, reason=reason)
        desk.post(Event.READER_LOST, reason)
        self._see_off(desk.close())

    def _see_off(self, closing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def suspend(self) -> None:
        """The machine is about to sleep: every session ends, every authority is dropped, and
        nothing is shown of readers and cards until they are listed anew. In bounded time."""
        self._asleep = True
        self._publisher.backend(Backend.STARTING)
        self._seating.listing({}, there=False)
        await self._vacate(EndReason.SUSPEND, SUSPEND_SECONDS)

    def resume(self) -> None:
        """Awake again: the next listing is taken in, with new desks for all that it tells."""
        self._asleep = False

    async def close(self) -> None:
        """End every session, drop every authority, end every thread: in bounded time."""
        self._seating.close()
        await self._vacate(EndReason.DAEMON_STOPPING, FAREWELL_SECONDS)

    async def _vacate(self, reason: EndReason, seconds: float) -> None:
        """Close every desk, those with a session when that has ended, or after so many seconds."""
        for name, desk in list(self._desks.items()):
            if desk.shown.session is None:
                self._close(self._desks.pop(name), reason)
            else:
                desk.turn_away(reason)
        ends = [asyncio.ensure_future(self.end(each.number, reason)) for each in self.sessions()]
        try:
            if ends:
                # a card that does not answer must not keep the others' sessions from being told
                await asyncio.wait(ends, timeout=seconds)
        finally:
            for name in list(self._desks):
                self._close(self._desks.pop(name), reason)
        if self._closing:
            await asyncio.wait(self._closing)

    @property
    def overdue(self) -> str | None:
        """A reader whose thread is busy without anybody watching over it: our own fault. (One
        that hangs is `stuck`, which is watched, and no reason to restart the others.)"""
        return next((name for name, desk in self._desks.items() if desk.unwatched), None)

    # from callers

    def readers(self) -> list[ReaderFacts]:
        """All readers."""
        return [desk.shown.reader for desk in self._desks.values()] + self._seating.driverless

    def sessions(self) -> list[SessionFacts]:
        """All sessions that are not over."""
        return [desk.shown.session for desk in self._desks.values() if desk.shown.session]

    def card(self, number: int) -> CardFacts:
        """A card that is in a reader."""
        card = self._desk_of_card(number).shown.card
        assert card is not None  # noqa: S101 - it was found by its number
        return card

    def session(self, number: int) -> SessionFacts:
        """A session that is not over."""
        found = self._desk_of_session(number).shown.session
        assert found is not None  # noqa: S101 - it was found by its number
        return found

    def _own(self, number: int, caller: Caller) -> None:
        if self.session(number).owner != caller.name:
            raise Failure(Problem.NOT_OWNER, "the session belongs to another connection")

    async def open_session(self, card: int, caller: Caller, request: OpenRequest) -> int:
        """A new session's number."""
        ask = OpenAsk(caller, request)
        self._desk_of_card(card).ask_to_open(ask)
        return await ask.answered

    async def submit(self, session: int, caller: Caller, request: PinRequest) -> Verdict:
        """One submission; secrets are read only if they may be used, and wiped after that."""
        self._own(session, caller)
        ask = SubmitAsk(request, caller)
        try:
            return await self._asked(session, _submission(request), ask)
        finally:
            ask.withdraw()  # not after its caller's reply or departure; what was sent wipes itself

    async def sign(self, session: int, caller: Caller, request: SignRequest) -> bytes:
        """One signature."""
        self._own(session, caller)
        return await self._asked(session, Event.USE_ASKED, SignAsk(request))

    async def transmit(self, session: int, caller: Caller, apdu: bytes) -> tuple[bytes, int]:
        """One APDU of the allow-list."""
        self._own(session, caller)
        return await self._asked(session, Event.USE_ASKED, TransmitAsk(apdu))

    async def set_context(self, session: int, caller: Caller, facts: Mapping[str, str]) -> None:
        """Facts that the owner learnt elsewhere; those of before are replaced."""
        self._own(session, caller)
        ask = ContextAsk(context.context(facts))
        await self._asked(session, Event.CONTEXT_ASKED, ask)

    def trouble(self, text: str) -> None:
        """Something that all readers share is wrong, or ("") is not any more."""
        self._trouble = text
        for desk in self._desks.values():
            desk.shown.trouble(text)

    async def query(self, session: int, caller: Caller, label: str) -> PinStatus:
        """One PIN's state."""
        self._own(session, caller)
        ask = QueryAsk(label)
        return await self._asked(session, Event.QUERY_ASKED, ask)

    async def lock(self, session: int, caller: Caller) -> None:
        """Drop the authority, keep the session."""
        self._own(session, caller)
        await self._asked(session, Event.LOCK_ASKED, PlainAsk())

    async def keep_alive(self, session: int, caller: Caller) -> None:
        """Count as activity."""
        self._own(session, caller)
        await self._asked(session, Event.KEEP_ALIVE_ASKED, PlainAsk())

    async def end(self, session: int, reason: EndReason) -> None:
        """End a session; returns when it is over."""
        try:
            desk = self._desk_of_session(session)
        except Failure:
            return
        ask = EndAsk(reason)
        desk.post(Event.END_ASKED, ask)
        while desk.shown.session and desk.shown.session.number == session:
            # ended for an earlier reason, perhaps: then this ask is not the one that is answered
            await asyncio.wait([ask.answered], timeout=0.05)

    def caller_gone(self, name: str) -> None:
        """A connection left the bus."""
        for desk in list(self._desks.values()):
            desk.caller_gone(name)

    async def _asked(self, session: int, event: Event, ask: Ask[T]) -> T:
        self._desk_of_session(session).post(event, ask)
        return await ask.answered

    def _session_over(self, session: SessionFacts) -> None:
        self._over[session.number] = session.end_reason
        while len(self._over) > REMEMBERED:
            self._over.popitem(last=False)

    def _desk_of_card(self, number: int) -> Desk:
        if self._asleep:
            raise Failure(Problem.SUSPENDED, TEXTS[Problem.SUSPENDED])
        for desk in self._desks.values():
            if desk.shown.card and desk.shown.card.number == number:
                return desk
        raise Failure(Problem.CARD_REMOVED, "the card is not in any reader")

    def _desk_of_session(self, number: int) -> Desk:
        for desk in self._desks.values():
            if desk.shown.session and desk.shown.session.number == number:
                return desk
        raise Failure(Problem.SESSION_ENDED, self._over.get(number, "there is no such session"))


def _submission(request: PinRequest) -> Event:
    if request.signing is not None:
        return Event.SIGN_PIN_ASKED
    return Event.VERIFY_ASKED if request.act is Act.VERIFY else Event.CHANGE_ASKED
