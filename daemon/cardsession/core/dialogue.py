"""Dialogues: what to say to a card, as generators without I/O.

A dialogue yields steps and is sent what came of them. The adapter pumps it over a real card,
a test replays a script into it, a fuzzer feeds it noise.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

from .apdu import Command, Response
from .errors import Malformed
from .filter import RawApdu
from .tries import PinStatus


@dataclass(frozen=True, slots=True)
class Attempt:
    """The next command spends a try: record it, and make sure that it is still wanted.

    `identity` is the card's own, `reference` what the ledger calls the PIN's counter
    (`Pin.counter`). Answered with nothing; a dialogue whose attempt is withdrawn (its caller
    left, its time is over) is closed instead.
    """

    identity: str
    reference: int


@dataclass(frozen=True, slots=True)
class Settle:
    """The outcome of the attempt is known: clear its record, remember the count.

    `changed` is the reference of a PIN that got a new passcode by it.
    """

    identity: str
    reference: int
    status: PinStatus
    changed: int | None = None


@dataclass(frozen=True, slots=True)
class Noted:
    """The card told its counter: the ledger remembers the lowest."""

    identity: str
    reference: int
    status: PinStatus


@dataclass(frozen=True, slots=True)
class LowestSeen:
    """Ask the ledger for the lowest count seen of this PIN since a success (an int or None)."""

    identity: str
    reference: int


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the card: the authority of whoever verified a PIN ends, so does the selection."""


@dataclass(frozen=True, slots=True)
class Verbatim:
    """A caller's APDU, sent once as it came; its answer is what the card said, and no more."""

    apdu: RawApdu


Step = Command | Verbatim | Attempt | Settle | Noted | LowestSeen | Reset
Answer = Response | int | None
S = TypeVar("S")
A = TypeVar("A")
T = TypeVar("T")
Dialogue = Generator[Step, Answer, T]


def transmit(command: Command) -> Dialogue[Response]:
    """Say one command; its whole answer."""
    answer = yield command
    assert isinstance(answer, Response)  # noqa: S101 - the pump's contract, checked for mypy
    return answer


def transmit_verbatim(apdu: RawApdu) -> Dialogue[Response]:
    """Say a caller's APDU."""
    answer = yield Verbatim(apdu)
    assert isinstance(answer, Response)  # noqa: S101 - as above
    return answer


def lowest_seen(identity: str, reference: int) -> Dialogue[int | None]:
    """What the ledger remembers of a PIN."""
    answer = yield LowestSeen(identity, reference)
    return answer if isinstance(answer, int) else None


def run(dialogue: Generator[S, A, T], handle: Callable[[S], A]) -> T:
    """Pump `dialogue` to its end.

    A malformed answer is thrown into the dialogue, which may know what to make of it; whatever
    else `handle` raises closes the dialogue and goes on upwards.
    """
    try:
        step = next(dialogue)
        while True:
            try:
                answer = handle(step)
            except Malformed as error:
                step = dialogue.throw(error)
            else:
                step = dialogue.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        dialogue.close()
