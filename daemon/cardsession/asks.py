"""What callers ask of a desk: each ask is answered once, whoever comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import EndReason
from cardsession.core.secret import Secret
from cardsession.core.tries import PinStatus
from cardsession.ports import (
    Caller,
    OpenRequest,
    Permit,
    PinRequest,
    SignRequest,
    Timer,
    Verdict,
)

T = TypeVar("T")

SEND_SECONDS = 5.0
"""A secret that was not sent by then is not sent at all (bus contract, "Secrets")."""


def _future() -> asyncio.Future[T]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True)
class Ask(Generic[T]):
    """A question with a place for its answer; a second answer is dropped."""

    answered: asyncio.Future[T] = field(default_factory=_future, kw_only=True)

    def answer(self, value: T) -> None:
        """Give the answer."""
        if not self.answered.done():
            self.answered.set_result(value)

    def fail(self, failure: Failure) -> None:
        """Give the reason why there is none."""
        if not self.answered.done():
            self.answered.set_exception(failure)

    def refuse(self, problem: Problem, text: str) -> None:
        """The same, in short."""
        self.fail(Failure(problem, text))


@dataclass(slots=True)
class OpenAsk(Ask[int]):
    """OpenSession. `deadline` ends the wait for a card that is not ready yet."""

    caller: Caller
    request: OpenRequest
    deadline: Timer | None = None


@dataclass(slots=True)
class SubmitAsk(Ask[Verdict]):
    """VerifyPin, ChangePin, UnblockPin, SignWithPin: one submission, one permit to send it.

    The operation is under way from the moment of the call, so the secrets are read as its first
    part: a second click finds it under way whatever the first one's pipe does.
    """

    request: PinRequest
    caller: Caller
    label: str = ""
    """The PIN's: for a signature, of the one that guards the key."""
    permit: Permit = field(default_factory=lambda: Permit(SEND_SECONDS))
    secrets: list[Secret] = field(default_factory=list, repr=False)

    @property
    def asked_by(self) -> str:
        """For the ledger: who submits."""
        return f"{self.caller.name} uid {self.caller.uid}"

    def withdraw(self) -> bool:
        """Never send it, if it was not sent yet; the secret is wiped then."""
        unsent = self.permit.withdraw()
        if unsent:
            self.wipe()
        return unsent

    def wipe(self) -> None:
        """Nothing of them is left."""
        for secret in self.secrets:
            secret.wipe()


@dataclass(slots=True)
class UseAsk(Ask[T]):
    """Something that needs the session's authority, and no secret. Asks queue up."""


@dataclass(slots=True)
class SignAsk(UseAsk[bytes]):
    """Sign."""

    request: SignRequest


@dataclass(slots=True)
class TransmitAsk(UseAsk[tuple[bytes, int]]):
    """Transmit; the APDU as it came."""

    raw: bytes = field(repr=False)


@dataclass(slots=True)
class QueryAsk(Ask[PinStatus]):
    """QueryPin."""

    label: str


@dataclass(slots=True)
class PlainAsk(Ask[None]):
    """Lock, KeepAlive."""


@dataclass(slots=True)
class ContextAsk(PlainAsk):
    """SetContext."""

    context: Mapping[str, str]


@dataclass(slots=True)
class EndAsk(Ask[None]):
    """Whatever ends a session."""

    reason: EndReason


class Waiting:
    """Whoever waits for a seat, beside what it shows."""

    def __init__(self) -> None:
        self.asking: Ask[Any] | None = None
        """For the conversation under way that nothing else may overtake."""
        self.using: list[UseAsk[Any]] = []
        """For signatures and APDUs that queue up at the card."""
        self.deferred: list[OpenAsk] = []
        """For the card."""
