"""Desks that are told what to answer (see `cardsession.ports.Requests`): one card, one session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import (
    CardFacts,
    Certificate,
    EndReason,
    ReaderFacts,
    SessionFacts,
    SessionState,
)
from cardsession.core.secret import BadFormat
from cardsession.core.tries import Known, Outcome, PinStatus
from cardsession.ports import (
    Caller,
    OpenRequest,
    PinRequest,
    Publisher,
    SignRequest,
    Verdict,
)
from cardsession.ports import Requests as Protocol

OWNER = ":1.7"
READER = ReaderFacts("Fake Reader 00 00", "Fake Reader 00 00", card=1)
CARD = CardFacts(
    1, READER.id, b"\x3b\x00", 5, 6, certificates={"signature": Certificate("signature", b"der")}
)
SESSION = SessionFacts(
    1, 1, READER.id, OWNER, 1000, "dispensing", "", 7, 8, state=SessionState.ACTIVE
)


class FakeRequests:
    """A list of what was asked. `during` happens while a request is answered: a desk that
    publishes, a caller that leaves, a card that is pulled. `failure` is the answer instead."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.secrets: list[str] = []
        self.verdict = Verdict(Outcome.VERIFIED, None)
        self.failure: BaseException | None = None
        self.during: Callable[[], None] = lambda: None
        self.until: asyncio.Event | None = None
        """What a submission waits for once its secrets are read."""
        self.reads = True
        """Whether a submission comes so far as to read its secrets."""
        self.publisher: Publisher | None = None
        self.card_facts: CardFacts | None = CARD
        self.session_facts: SessionFacts | None = SESSION

    def _asked(self, what: str, details: Any = None) -> None:
        self.asked.append((what, details))
        self.during()
        if self.failure is not None:
            raise self.failure

    # what there is

    def readers(self) -> list[ReaderFacts]:
        """The only one."""
        return [READER]

    def sessions(self) -> list[SessionFacts]:
        """The only one, unless it is over."""
        return [self.session_facts] if self.session_facts else []

    def card(self, number: int) -> CardFacts:
        """The only one."""
        if self.card_facts is None or self.card_facts.number != number:
            raise Failure(Problem.CARD_REMOVED, "the card is not in any reader")
        return self.card_facts

    def session(self, number: int) -> SessionFacts:
        """The only one, unless it is over."""
        if self.session_facts is None or self.session_facts.number != number:
            raise Failure(Problem.SESSION_ENDED, "closed")
        return self.session_facts

    # what is asked

    async def open_session(self, card: int, caller: Caller, request: OpenRequest) -> int:
        """It is the caller's now."""
        self._asked("open_session", (card, caller, request))
        self.session_facts = replace(SESSION, owner=caller.name, owner_uid=caller.uid)
        if self.publisher:
            self.publisher.show(self.session_facts)
        return SESSION.number

    async def submit(self, session: int, caller: Caller, request: PinRequest) -> Verdict:
        """Reads the secrets in turn, as the slowest desk would, and wipes each."""
        self.asked.append(("submit", (session, caller, request)))
        try:
            for read in request.reads if self.reads else ():
                with await read() as secret:
                    self.secrets.append(secret.formed(64, None).decode())
        except BadFormat:
            return Verdict(request.act.refused_format, None)
        if self.until is not None:
            await self.until.wait()
        self.during()
        if self.failure is not None:
            raise self.failure
        return self.verdict

    async def sign(self, session: int, caller: Caller, request: SignRequest) -> bytes:
        """The same signature each time."""
        self._asked("sign", (session, caller, request))
        return b"signature"

    async def transmit(self, session: int, caller: Caller, apdu: bytes) -> tuple[bytes, int]:
        """The card says what it was told, and 9000."""
        self._asked("transmit", (session, caller, apdu))
        return apdu, 0x9000

    async def set_context(self, session: int, caller: Caller, facts: Mapping[str, str]) -> None:
        """Shown, unchecked."""
        self._asked("set_context", (session, caller, dict(facts)))
        assert self.session_facts is not None
        self.session_facts = replace(self.session_facts, context=dict(facts))
        if self.publisher:
            self.publisher.show(self.session_facts)

    async def query(self, session: int, caller: Caller, label: str) -> PinStatus:
        """Three left."""
        self._asked("query", (session, caller, label))
        return Known(3)

    async def lock(self, session: int, caller: Caller) -> None:
        """Noted."""
        self._asked("lock", (session, caller))

    async def keep_alive(self, session: int, caller: Caller) -> None:
        """Noted."""
        self._asked("keep_alive", (session, caller))

    async def end(self, session: int, reason: EndReason) -> None:
        """It is over, and said to be."""
        self._asked("end", (session, reason))
        over, self.session_facts = self.session_facts, None
        if self.publisher and over:
            ended = replace(over, state=SessionState.ENDED, end_reason=reason)
            self.publisher.show(ended)
            self.publisher.ended(ended, {})
            self.publisher.withdraw(ended)

    def caller_gone(self, name: str) -> None:
        """Its session is over."""
        self.asked.append(("caller_gone", name))
        self.session_facts = None


def _fits(fake: FakeRequests) -> Protocol:
    return fake
