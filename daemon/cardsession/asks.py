"""What callers ask of a desk: each ask is answered once, whoever comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import EndReason
from cardsession.core.secret import Secret
from cardsession.core.tries import Consent, PinStatus
from cardsession.ports import Caller, OpenRequest, Permit, Timer, Verdict

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
class VerifyAsk(Ask[Verdict]):
    """VerifyPin: one submission, one permit to send it.

    The operation is under way from the moment of the call, so the secret is read as its first
    part: a second click finds it under way whatever the first one's pipe does.
    """

    label: str
    read: Callable[[], Awaitable[Secret]]
    consent: Consent
    permit: Permit = field(default_factory=lambda: Permit(SEND_SECONDS))
    secret: Secret | None = field(default=None, repr=False)

    def withdraw(self) -> bool:
        """Never send it, if it was not sent yet; the secret is wiped then."""
        unsent = self.permit.withdraw()
        if unsent:
            self.wipe()
        return unsent

    def wipe(self) -> None:
        """Nothing of it is left."""
        if self.secret is not None:
            self.secret.wipe()


@dataclass(slots=True)
class QueryAsk(Ask[PinStatus]):
    """QueryPin."""

    label: str


@dataclass(slots=True)
class PlainAsk(Ask[None]):
    """Lock, KeepAlive."""


@dataclass(slots=True)
class EndAsk(Ask[None]):
    """Whatever ends a session."""

    reason: EndReason
