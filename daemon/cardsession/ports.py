"""What the desks need of the world, as protocols; the adapters fill them in."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Generic, Protocol, TypeVar

from cardsession.core.dialogue import Dialogue
from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import (
    Backend,
    CardFacts,
    Certificate,
    EndReason,
    Hotplug,
    ReaderFacts,
    SessionFacts,
    Standing,
)
from cardsession.core.reports import Listing
from cardsession.core.seats import Attributes, UsbReader
from cardsession.core.secret import Secret
from cardsession.core.signing import Algorithm
from cardsession.core.tries import Act, Consent, Outcome, PinStatus

R = TypeVar("R")
T = TypeVar("T")


class Disposition(Enum):
    """What becomes of the handle, and so of the card, after a conversation."""

    HOLD = auto()
    """Kept: nobody else may use a card that we unlocked."""
    LEAVE = auto()
    RESET = auto()
    """Let go with a reset: whatever was verified is not any more."""


class Permit:
    """The right to send one secret: claimed once by the sender, or withdrawn before that.

    The worker thread claims it directly before the command goes out; the loop withdraws it when
    the caller left or time is over. Exactly one of the two succeeds, so the loop always knows
    whether a reply given now could be overtaken by a try.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        """Valid for so many seconds, whoever is late to withdraw it."""
        self._lock = threading.Lock()
        self._expires = time.monotonic() + seconds
        self._claimed = False
        self._withdrawn = False

    @property
    def seconds_left(self) -> float:
        """How long it is worth waiting for the card."""
        return max(0.0, self._expires - time.monotonic())

    def claim(self) -> None:
        """Now, or never: `Failure` if it was withdrawn, or its time is over."""
        with self._lock:
            if self._withdrawn or time.monotonic() > self._expires:
                raise Failure(Problem.IN_USE_ELSEWHERE, "the submission was withdrawn in time")
            self._claimed = True

    def withdraw(self) -> bool:
        """Whether the secret stayed unsent, for good."""
        with self._lock:
            self._withdrawn = not self._claimed
            return self._withdrawn

    @property
    def withdrawn(self) -> bool:
        """Whether it will never be sent."""
        return self._withdrawn

    @property
    def claimed(self) -> bool:
        """Whether a try may have been spent."""
        return self._claimed


@dataclass(frozen=True, slots=True)
class Talk(Generic[T]):
    """One conversation with a card: a dialogue, and the terms under which it is held."""

    dialogue: Callable[[], Dialogue[T]]
    settled: Callable[[T], Disposition] = lambda _: Disposition.LEAVE
    failed: Disposition = Disposition.LEAVE
    exclusive: bool = False
    patience: float = 2.0
    """Seconds to wait for another program's transaction or handle."""
    permit: Permit | None = None
    """For a dialogue that spends a try; its time is the talk's, too."""
    asked_by: str = ""
    """Who submits: the caller's bus name and user, for the ledger."""


class Channel(Protocol):
    """One reader's card, worked by a thread of its own; conversations queue up."""

    @property
    def exchanges(self) -> int:
        """APDUs sent since the channel was opened."""

    @property
    def waiting(self) -> bool:
        """Whether the thread waits to have the card, or to be rid of it: a rival's doing, and
        no fault of the reader."""

    @property
    def holding(self) -> bool:
        """Whether a handle is kept: the card was unlocked and nobody else may use it."""

    def converse(self, talk: Talk[T]) -> Awaitable[T]:
        """Hold the talk inside one card transaction. Raises `Failure` or `Malformed`."""

    def converse_then(self, talk: Talk[T], work: Callable[[T], R]) -> Awaitable[R]:
        """The same, and work on its result that would hold the loop up: done by the reader's
        thread when the card is let go, before the next conversation."""

    def aside(self, work: Callable[[], R]) -> Awaitable[R]:
        """Work that would hold the loop up and needs no card: done by the reader's thread."""

    def attributes(self) -> Awaitable[Attributes]:
        """What the reader says of itself; it needs no card. Raises `Failure`: a rival that holds
        the reader for itself keeps us from asking."""

    def let_go(self) -> None:
        """Forget a held handle, with a reset if there still is a card."""

    async def close(self) -> None:
        """End the thread; a thread that hangs in its reader is left behind after a deadline."""


class ReaderWatch(Protocol):
    """Where readers and cards are seen to come and go."""

    def start(self, report: Callable[[Listing], None]) -> None:
        """Call `report` on the loop with every listing that differs from the one before."""

    @property
    def alive(self) -> bool:
        """Whether cards are still seen to come and go."""

    def look_again(self) -> None:
        """List anew now."""

    def restart(self) -> None:
        """Begin anew, as if nothing had been seen before: the next listing is reported, be it
        equal to the last one."""

    async def close(self) -> None:
        """Stop, within a deadline."""


class HotplugWatch(Protocol):
    """Where USB readers are seen to come and go: a hint, the card service is the truth."""

    def start(self, report: Callable[[tuple[UsbReader, ...] | None], None]) -> None:
        """Call `report` on the loop with all USB readers that there are: at once, and after every
        event, even one that changed nothing. None: there is no udev."""

    def look_again(self) -> None:
        """Enumerate anew now."""

    def close(self) -> None:
        """Stop."""


@dataclass(frozen=True, slots=True)
class Past:
    """What the ledger remembers of one card."""

    in_flight: bool = False
    """Whether a try was sent and its outcome never known: no count is shown until re-read."""
    tried: bool = False
    """Whether a try was ever sent to it from here."""
    changed_usec: int = 0
    """When its passcode was last changed here (microseconds since 1970); 0 unknown."""


class Ledger(Protocol):
    """Attempts in flight, and the lowest count seen of each PIN. Called from worker threads.

    Nothing here raises for a full disk or a damaged file: the counter goes on with what is in
    memory, and the trouble is reported.
    """

    def note(self, identity: str, reference: int, status: PinStatus) -> None:
        """The card told its counter."""

    def begin(self, identity: str, reference: int, asked_by: str) -> None:
        """Record, durably, that a try is about to be spent: on the disk when this returns."""

    def withdraw(self, identity: str, reference: int) -> None:
        """It was not spent after all."""

    def settle(
        self, identity: str, reference: int, status: PinStatus, changed: int | None = None
    ) -> None:
        """Its outcome is known; `changed`: the reference of a PIN that has a new passcode."""

    def past(self, identity: str, reference: int | None = None) -> Past:
        """What is remembered of a card; of the last change, that of one PIN, or of any."""

    def lowest(self, identity: str, reference: int) -> int | None:
        """The lowest count seen since a success; None if none was."""


class Trail(Protocol):
    """The audit trail: who did what with which card, append-only. Never blocks, never raises."""

    def record(self, event: str, **fields: str | int) -> None:
        """One entry; its time is now. Never a secret, never data of an APDU."""


class Judge(Protocol):
    """Who says what a certificate is worth. Called from worker threads."""

    def judge(self, certificates: Mapping[str, Certificate], usec: int) -> Standing:
        """The holder's certificate (slot `authentication`) by the site's anchors and lists, now;
        the card's other certificates may be part of its chain."""


class Timer(Protocol):
    """Something that was set and can be called off."""

    def cancel(self) -> None:
        """Call it off; a timer that went off already does nothing."""


class Clock(Protocol):
    """Time, for desks: they carry no clock of their own."""

    def usec(self) -> int:
        """Microseconds since 1970."""

    def monotonic_usec(self) -> int:
        """Microseconds of CLOCK_MONOTONIC."""

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call on the loop after so many seconds."""


class Publisher(Protocol):
    """Where state is shown. `show` replaces what was shown of the same object."""

    def show(self, facts: ReaderFacts | CardFacts | SessionFacts) -> None:
        """Announce an object, or what changed of it; changes may be coalesced until `flush`."""

    def withdraw(self, facts: ReaderFacts | CardFacts | SessionFacts) -> None:
        """Take an object away."""

    def ended(self, session: SessionFacts, detail: Mapping[str, Any]) -> None:
        """Tell that a session is over; `withdraw` follows."""

    def card_ready(self, card: CardFacts) -> None:
        """Tell that a card is read."""

    def card_gone(self, card: CardFacts, reason: str) -> None:
        """Tell that a card is not there any more."""

    def backend(self, state: Backend) -> None:
        """The card service's state."""

    def hotplug(self, state: Hotplug) -> None:
        """How readers are seen to come and go."""

    async def fence(self) -> None:
        """Return when whatever callers sent before now was taken in: in bounded time."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a connection of the bus and its user."""

    name: str
    uid: int


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """What a caller wants of a new session; times in seconds."""

    purpose: str = ""
    used_by: str = ""
    wait: float = 0.0
    idle: float | None = None
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A submission's outcome and the count that goes with it (None: unknown)."""

    outcome: Outcome
    left: int | None
    signature: bytes = field(default=b"", repr=False)
    """`SignWithPin` only, and only if verified."""


Read = Callable[[], Awaitable[Secret]]
"""Reads one passcode from where the caller put it."""


@dataclass(frozen=True, slots=True)
class SignRequest:
    """A signature that is wanted: whose key (a slot), how, of what."""

    slot: str
    algorithm: Algorithm
    digest: bytes


@dataclass(frozen=True, slots=True)
class PinRequest:
    """One submission: what for, of which PIN, and what the caller agreed to.

    `reads`: the PIN; the old and the new one; the PUK and the new one. `signing`: the signature
    that a VERIFY is to open; the PIN is then the one that guards the key (`label` is "").
    """

    act: Act
    label: str
    reads: tuple[Read, ...]
    consent: Consent
    signing: SignRequest | None = None


class Requests(Protocol):
    """What callers may ask of the desks. Each raises `Failure`."""

    def readers(self) -> list[ReaderFacts]:
        """All readers."""

    def sessions(self) -> list[SessionFacts]:
        """All sessions that are not over."""

    def card(self, number: int) -> CardFacts:
        """A card that is in a reader."""

    async def open_session(self, card: int, caller: Caller, request: OpenRequest) -> int:
        """A new session's number."""

    async def submit(self, session: int, caller: Caller, request: PinRequest) -> Verdict:
        """One submission; secrets are read only if they may be used, and wiped after that."""

    async def sign(self, session: int, caller: Caller, request: SignRequest) -> bytes:
        """One signature, of a key that the session's authority opens."""

    async def transmit(self, session: int, caller: Caller, apdu: bytes) -> tuple[bytes, int]:
        """One APDU of the allow-list: data and status word."""

    async def set_context(self, session: int, caller: Caller, facts: Mapping[str, str]) -> None:
        """Facts that the owner learnt elsewhere; those of before are replaced."""

    async def query(self, session: int, caller: Caller, label: str) -> PinStatus:
        """One PIN's state, asked of the card where that is free."""

    async def lock(self, session: int, caller: Caller) -> None:
        """Drop the authority, keep the session."""

    async def keep_alive(self, session: int, caller: Caller) -> None:
        """Count as activity."""

    async def end(self, session: int, reason: EndReason) -> None:
        """End a session; returns when it is over. One that is over already is no error."""

    def caller_gone(self, name: str) -> None:
        """A connection left the bus: what was its own ends."""

    def session(self, number: int) -> SessionFacts:
        """A session that is not over; else `SessionEnded` with the reason."""
