"""The place a card sits in: one reader slot, the cards at hand, and what is to go wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from cardsession.virtual.card import VirtualCard
from cardsession.virtual.faults import Fault, FaultKind, Faults, Stage
from cardsession.virtual.line import Device, Line, Power, Pulled
from cardsession.virtual.options import CardOptions

_log = logging.getLogger(__name__)

Maker = Callable[[CardOptions], VirtualCard]
Connect = Callable[[Device], Line]


class Seat:
    """One reader slot. It is the `Device` that the line to the reader serves.

    Cards have names so that a test can put the same card back after another.
    """

    def __init__(self, connect: Connect, options: CardOptions, make: Maker) -> None:
        self.options = options
        self.faults = Faults()
        self.slow = 0.0
        self.inserted = False
        self.powered = False
        self.link = connect(self)
        self._make = make
        self._speaks = asyncio.Event()
        self._speaks.set()
        self._changing = asyncio.Lock()
        self.name = "first"
        self._deck = {self.name: make(options)}

    @property
    def card(self) -> VirtualCard:
        """The card that is, or would be, inserted."""
        return self._deck[self.name]

    @property
    def atr(self) -> bytes:
        """The answer to reset of that card."""
        return self.card.atr

    def power(self, word: Power) -> None:
        """Power off, power on or reset: all lose the security status."""
        self.powered = word is not Power.OFF
        self.card.reset()

    async def insert(self, wait: float) -> bool:
        """Insert the card; was the reader reached within `wait` seconds? It goes on trying."""
        async with self._changing:
            if not self.inserted:
                await self._put_in()
        return await self.link.wait_connected(wait)

    async def remove(self) -> None:
        """Take the card out; nothing happens if it is out."""
        async with self._changing:
            await self._take_out()

    async def lay_out(self, name: str | None, options: CardOptions, *, insert: bool) -> None:
        """Remove the card and take another: the one called `name`, or a new one."""
        async with self._changing:
            name = name or f"card-{len(self._deck) + 1}"
            if name not in self._deck:
                self._deck[name] = self._make(options)
            await self._take_out()
            self.name = name
            if insert:
                await self._put_in()

    async def _put_in(self) -> None:
        # A pulled card's line has ended by itself: collect it before a new one starts.
        await self.link.stop()
        self.inserted = True
        self._speaks.set()
        self.card.book.inserted()
        self.link.start()

    async def _take_out(self) -> None:
        await self.link.stop()
        self.inserted = False

    def speak(self) -> None:
        """End a silence: the answer that was withheld leaves."""
        self._speaks.set()

    @property
    def silent(self) -> bool:
        """Is an answer being withheld?"""
        return not self._speaks.is_set()

    async def exchange(self, raw: bytes) -> bytes:
        """Answer one command APDU, or let the armed fault have its way."""
        card = self.card
        number = card.book.exchanged(raw)
        fault = self.faults.take(number, raw)
        if self.slow:
            await asyncio.sleep(self.slow)
        if fault is None:
            return card.process(raw)
        _log.info("fault %s at exchange %d", fault.kind.value, number)
        return await self._fail(card, raw, fault)

    async def _fail(self, card: VirtualCard, raw: bytes, fault: Fault) -> bytes:
        answer = card.process(raw) if fault.stage is Stage.AFTER else None
        match fault.kind:
            case FaultKind.PULL:
                self.inserted = False
                raise Pulled
            case FaultKind.ANSWER:
                return fault.answer
            case FaultKind.SILENT:
                self._speaks.clear()
                await self._speaks.wait()
                answer = fault.answer or answer
        return card.process(raw) if answer is None else answer
