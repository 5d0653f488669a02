"""The line between our channel and the cards: every command passes it, and the witness beside it.
What goes wrong goes wrong here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from cardsession.asks import EndAsk
from cardsession.core.facts import EndReason
from cardsession.core.states import Event
from fakes.pcscd import NOT_TRANSACTED, OK, Slot
from fakes.specimens import Specimen, carries_secret, is_question

if TYPE_CHECKING:
    from fakes.world import World

EXCHANGE_SECONDS = 0.001


class Trouble(StrEnum):
    """What goes wrong once, at one of our commands."""

    PULL_FIRST = "pulled before the card has it"
    PULL_AFTER = "pulled before its answer is out"
    GONE = "pulled, noticed and told before its answer is out"
    LOST = "the answer is lost"
    EMPTY = "the answer is empty"
    NOISE = "the answer is 6F00"
    LEAVES = "the caller leaves"
    CLOSES = "the session is closed"
    LATE = "six seconds pass"
    CRASH_FIRST = "the daemon dies before the card has it"
    CRASH_AFTER = "the daemon dies before the answer"


@dataclass
class Armed:
    """A trouble, and when: so many commands from now, of those that `fits` names."""

    trouble: Trouble
    fits: Callable[[bytes], bool]
    after: int


AT: dict[str, Callable[[bytes], bool]] = {
    "any": lambda _: True,
    "secret": carries_secret,
    "question": is_question,
}


class Crash(BaseException):
    """The process is no more."""


class Line:
    """See the module."""

    def __init__(self, world: World) -> None:
        self.armed: Armed | None = None
        self._world = world

    def exchange(self, slot: Slot[Specimen], apdu: bytes) -> tuple[int, bytes]:
        """One command of ours: a PC/SC code and the card's answer."""
        world, witness = self._world, self._world.witness
        permit = world.permit
        nameless = slot.answers is not None and not slot.answers.tells_itself
        recorded = not carries_secret(apdu) or nameless or world.on_record()
        witness.goes_out(permit, apdu, on_record=recorded)
        trouble = self._due(apdu)
        if trouble:
            self._before(trouble, slot)
        card = slot.answers
        if card is None or slot.holder is None:
            return OK, b""
        wrong = card.card.book.wrong()
        witness.reaches(permit, slot.name, card, apdu)
        answer = card.process(apdu)
        witness.processed(permit, card, apdu, card.card.book.wrong() - wrong)
        world.clock.advance(EXCHANGE_SECONDS)
        instead = self._after(trouble, slot) if trouble else None
        if instead is not None:
            witness.spoilt(slot.name)
            return instead
        witness.delivered(permit, slot.name, card, apdu, answer)
        return OK, answer

    def _due(self, apdu: bytes) -> Trouble | None:
        armed = self.armed
        if armed is None or not armed.fits(apdu):
            return None
        armed.after -= 1
        if armed.after > 0:
            return None
        self.armed = None
        return armed.trouble

    def _before(self, trouble: Trouble, slot: Slot[Specimen]) -> None:
        match trouble:
            case Trouble.PULL_FIRST:
                self._world.pcscd.pull(slot)
            case Trouble.LEAVES | Trouble.CLOSES:
                self._go(slot, leaves=trouble is Trouble.LEAVES)
            case Trouble.LATE:
                self._world.clock.advance(6.0)
            case Trouble.CRASH_FIRST:
                self._crash()

    def _after(self, trouble: Trouble, slot: Slot[Specimen]) -> tuple[int, bytes] | None:
        match trouble:
            case Trouble.PULL_AFTER | Trouble.GONE:
                self._world.pcscd.pull(slot)
                if trouble is Trouble.GONE:
                    self._world.notice()
                return OK, b""
            case Trouble.LOST:
                return NOT_TRANSACTED, b""
            case Trouble.EMPTY:
                return OK, b""
            case Trouble.NOISE:
                return OK, b"\x6f\x00"
            case Trouble.CRASH_AFTER:
                self._crash()
        return None

    def _go(self, slot: Slot[Specimen], *, leaves: bool) -> None:
        """The session's owner leaves, or closes it, while we are at the card."""
        world = self._world
        for session in world.publisher.sessions:
            if session.reader_id != slot.name:
                continue
            if not leaves:
                closed = EndAsk(EndReason.CLOSED)
                world.desks._desks[slot.name].post(Event.END_ASKED, closed)
            for which, caller in enumerate(world.callers):
                if leaves and caller.name == session.owner:
                    world.leave(which)

    def _crash(self) -> None:
        self._world.crashed = True
        self._world.pcscd.kill_us()
        raise Crash
