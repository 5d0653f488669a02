"""What one desk shows: its reader, the card in it, the card's session. One writer, one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from cardsession.asks import OpenAsk
from cardsession.config import Config
from cardsession.core.facts import (
    CardFacts,
    EndReason,
    ReaderFacts,
    ReaderState,
    SessionFacts,
    SessionState,
)
from cardsession.core.session import State
from cardsession.ports import Clock, Publisher

READER_STATES = {
    State.EMPTY: ReaderState.EMPTY,
    State.PROBING: ReaderState.PROBING,
    State.ELSEWHERE: ReaderState.IN_USE_ELSEWHERE,
    State.MUTE: ReaderState.MUTE,
    State.STUCK: ReaderState.STUCK,
}
"""A seat's state as its reader's; every other state is `ready`."""
SESSION_STATES = {
    State.UNVERIFIED: SessionState.UNVERIFIED,
    State.QUERYING: SessionState.UNVERIFIED,
    State.VERIFYING: SessionState.VERIFYING,
    State.REVERIFYING: SessionState.VERIFYING,
    State.UNLOCKING: SessionState.VERIFYING,
    State.ACTIVE: SessionState.ACTIVE,
    State.LOCKING: SessionState.LOCKED,
    State.LOCKED: SessionState.LOCKED,
    State.QUERYING_LOCKED: SessionState.LOCKED,
}
"""A seat's state as its session's; in every other one there is none, or it is over."""


@dataclass(frozen=True, slots=True)
class Office:
    """What all desks share."""

    config: Config
    clock: Clock
    publisher: Publisher
    card_numbers: Iterator[int]
    session_numbers: Iterator[int]
    session_over: Callable[[SessionFacts], None]


class Shown:
    """The records of one desk; whatever changes in them is published."""

    def __init__(self, reader: ReaderFacts, office: Office) -> None:
        self.reader = reader
        self.card: CardFacts | None = None
        self.session: SessionFacts | None = None
        self._office = office
        office.publisher.show(reader)

    def states(self, state: State) -> None:
        """The published states follow from the seat's."""
        if state is not State.GONE:
            self.set_reader(state=READER_STATES.get(state, ReaderState.READY))
        if state in SESSION_STATES:
            self.set_session(state=SESSION_STATES[state])

    def set_reader(self, **changed: Any) -> None:
        """Change facts of the reader."""
        now = replace(self.reader, **changed)
        if now != self.reader:
            self.reader = now
            self._office.publisher.show(now)

    def set_card(self, change: Callable[[CardFacts], CardFacts]) -> None:
        """Change facts of the card, if there is one."""
        if self.card is None:
            return
        now = change(self.card)
        if now != self.card:
            self.card = now
            self._office.publisher.show(now)

    def set_session(self, **changed: Any) -> None:
        """Change facts of the session, if there is one."""
        if self.session is None:
            return
        now = replace(self.session, **changed)
        if now != self.session:
            self.session = now
            self._office.publisher.show(now)

    def new_card(self, atr: bytes) -> None:
        """One insertion, one card object."""
        clock = self._office.clock
        number = next(self._office.card_numbers)
        self.card = CardFacts(number, self.reader.id, atr, clock.usec(), clock.monotonic_usec())
        self._office.publisher.show(self.card)
        self.set_reader(card=number, insert_count=self.reader.insert_count + 1, last_error="")

    def drop_card(self, reason: str) -> None:
        """The card is not there any more."""
        if self.card is not None:
            card, self.card = self.card, None
            self._office.publisher.card_gone(card, reason)
            self._office.publisher.withdraw(card)
            self.set_reader(card=None)

    def new_session(self, ask: OpenAsk, expires_usec: int) -> SessionFacts:
        """A session of the caller with the card that is in."""
        assert self.card is not None  # noqa: S101 - a session is opened on a card
        self.session = SessionFacts(
            number=next(self._office.session_numbers),
            card=self.card.number,
            reader_id=self.reader.id,
            owner=ask.caller.name,
            owner_uid=ask.caller.uid,
            purpose=ask.request.purpose,
            used_by=ask.request.used_by,
            opened_usec=self._office.clock.usec(),
            expires_usec=expires_usec,
        )
        session = self.session
        self._office.publisher.show(session)
        self.set_card(lambda card: replace(card, session=session.number))
        return session

    def close_session(self, reason: EndReason) -> None:
        """It is over, for the reason that came first; it is still an object."""
        if self.session is not None and not self.session.end_reason:
            self.set_session(state=SessionState.ENDED, end_reason=reason, holder_id="")

    def end_session(self) -> None:
        """Tell, then take it away."""
        if self.session is not None:
            session, self.session = self.session, None
            self._office.publisher.ended(session, {})
            self._office.publisher.withdraw(session)
            self.set_card(lambda card: replace(card, session=None))
            self._office.session_over(session)

    def leave(self) -> None:
        """The reader is gone."""
        self._office.publisher.withdraw(self.reader)
