"""A pharmacy counter in memory: readers, cards that come and go, callers, and the desks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from cardsession.adapters.ledger import MemoryLedger
from cardsession.cards import Families
from cardsession.cards import families as every_family
from cardsession.config import Config
from cardsession.core.errors import Failure
from cardsession.core.facts import Backend, ReaderState
from cardsession.core.reports import Listing, SlotReport
from cardsession.core.secret import Secret
from cardsession.core.states import State
from cardsession.core.tries import Act, Consent
from cardsession.desk import Desk
from cardsession.desks import Desks, Keepers
from cardsession.ports import Caller, OpenRequest, PinRequest, Verdict
from cardsession.virtual.card import VirtualCard
from fakes.cards import ATR, CANARY, WRONG, make_card, secret  # noqa: F401 - its users' words
from fakes.channel import Chip, FakeChannel
from fakes.clock import FakeClock
from fakes.keepers import FakeJudge, FakeTrail
from fakes.publisher import FakePublisher

READER = "Fake Reader 00 00"
DISPENSER = Caller(":1.7", 1000)
COLLEAGUE = Caller(":1.8", 1000)
STRANGER = Caller(":1.9", 1001)
TURNS = 60
"""Turns of the loop after which nothing is expected to happen any more of itself."""


def read(text: str = CANARY) -> Callable[[], Awaitable[Secret]]:
    """A descriptor that holds a passcode."""

    async def reading() -> Secret:
        return secret(text)

    return reading


async def settle(turns: int = TURNS) -> None:
    """Let everything happen that can happen without time going by."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def outcome(asked: Awaitable[Any]) -> Any:
    """An answer, or the name of the problem."""
    try:
        return await asked
    except Failure as failure:
        return str(failure.problem)


class Counter:
    """Desks over fakes. A channel is made for each reader name when it is first listed."""

    def __init__(
        self,
        config: Config | None = None,
        readers: tuple[str, ...] = (READER,),
        families: Families | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.publisher = FakePublisher()
        self.ledger = MemoryLedger(self.clock.usec)
        self.channels: dict[str, FakeChannel] = {}
        self._slots: dict[str, SlotReport] = {name: SlotReport(name) for name in readers}
        self.judge = FakeJudge()
        self.trail = FakeTrail()
        keepers = Keepers(families or every_family(), self.ledger, self.judge, self.trail)
        self.desks = Desks(
            config or Config(), self.clock, self.publisher, self._new_channel, keepers
        )
        self.list()

    def _new_channel(self, name: str) -> FakeChannel:
        self.channels[name] = FakeChannel(self.ledger)
        return self.channels[name]

    @property
    def channel(self) -> FakeChannel:
        """The first reader's."""
        return self.channels[READER]

    @property
    def desk(self) -> Desk:
        """The first reader's."""
        return self.desks._desks[READER]

    @property
    def state(self) -> State:
        """The first desk's."""
        return self.desk.state

    # what the status wait says

    def list(self, backend: Backend = Backend.OK) -> None:
        """Tell the desks what is there."""
        slots = tuple(self._slots.values()) if backend is Backend.OK else ()
        self.desks.listing(Listing(backend, slots))

    def report(self, reader: str = READER, **changed: Any) -> None:
        """One reader's state changed, and is noticed."""
        self._slots[reader] = replace(self._slots[reader], **changed)
        self.list()

    def unplug(self, reader: str = READER) -> None:
        """A reader goes."""
        del self._slots[reader]
        self.list()

    def insert(self, chip: Chip, reader: str = READER, *, noticed: bool = True) -> None:
        """A card comes."""
        self.channels[reader].chip = chip
        slot = self._slots[reader]
        changed = replace(slot, present=True, atr=ATR, counter=slot.counter + 1, mute=False)
        self._slots[reader] = changed
        if noticed:
            self.list()

    def pull(self, reader: str = READER, *, noticed: bool = True) -> None:
        """It goes; the worker may notice before the status wait does."""
        chip, self.channels[reader].chip = self.channels[reader].chip, None
        if chip is not None:
            chip.reset()
        slot = self._slots[reader]
        changed = replace(slot, present=False, atr=b"", counter=slot.counter + 1)
        self._slots[reader] = changed
        if noticed:
            self.list()

    async def ready(self, chip: Chip | None = None) -> VirtualCard | Any:
        """A card in, and read."""
        chip = chip or make_card()
        self.insert(chip)
        await settle()
        return chip

    # what callers ask

    async def open(self, caller: Caller = DISPENSER, **request: Any) -> int:
        """A session with the only card."""
        card = self.publisher.card.number
        return await self.desks.open_session(card, caller, OpenRequest(**request))

    async def verify(self, session: int, text: str = CANARY, **options: Any) -> Verdict:
        """One submission of the session's owner."""
        return await self.submit(session, read(text), **options)

    async def submit(
        self,
        session: int,
        reading: Callable[[], Awaitable[Secret]],
        caller: Caller = DISPENSER,
        label: str = "user",
        **consent: bool,
    ) -> Verdict:
        """The same with a descriptor of its own kind."""
        request = PinRequest(Act.VERIFY, label, (reading,), Consent(**consent))
        return await self.request(session, request, caller)

    async def request(
        self, session: int, request: PinRequest, caller: Caller = DISPENSER
    ) -> Verdict:
        """Any submission; when it was answered is noted."""
        try:
            verdict = await self.desks.submit(session, caller, request)
        except Failure as failure:
            self.publisher.replied(str(failure.problem))
            raise
        self.publisher.replied(verdict)
        return verdict

    async def replace_pin(
        self, session: int, act: Act, first: str, new: str, label: str = "user", **consent: bool
    ) -> Verdict:
        """ChangePin or UnblockPin of the session's owner."""
        reads = (read(first), read(new))
        return await self.request(session, PinRequest(act, label, reads, Consent(**consent)))

    async def active(self, chip: Chip | None = None) -> tuple[VirtualCard | Any, int]:
        """A card in, a session, a right passcode."""
        card = await self.ready(chip)
        session = await self.open()
        await self.verify(session)
        assert self.state is State.ACTIVE
        return card, session


def assert_empty(counter: Counter) -> None:
    """No ghost card, no ghost session, and the reader says so."""
    assert counter.state is State.EMPTY
    assert (counter.publisher.cards, counter.publisher.sessions) == ([], [])
    assert counter.publisher.reader.state is ReaderState.EMPTY
    assert counter.publisher.reader.card is None
    assert not counter.channel.holding
