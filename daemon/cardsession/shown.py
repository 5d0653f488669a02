"""What one desk shows: its reader, the card in it, the card's session. One writer, one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from cardsession.asks import OpenAsk
from cardsession.cards import Families
from cardsession.config import Config
from cardsession.core import remedies
from cardsession.core.facts import (
    CardFacts,
    EndReason,
    ReaderFacts,
    ReaderState,
    SessionFacts,
    SessionState,
)
from cardsession.core.passcode import pin_change_due
from cardsession.core.states import State
from cardsession.ports import Clock, Judge, Ledger, Publisher, Trail

READER_STATES = {
    State.EMPTY: ReaderState.EMPTY,
    State.PROBING: ReaderState.PROBING,
    State.ELSEWHERE: ReaderState.IN_USE_ELSEWHERE,
    State.MUTE: ReaderState.MUTE,
    State.STUCK: ReaderState.STUCK,
    State.LOCKED_AWAY: ReaderState.EMPTY,
    State.LOCKED_PROBING: ReaderState.PROBING,
    State.LOCKED_ELSEWHERE: ReaderState.IN_USE_ELSEWHERE,
    State.LOCKED_MUTE: ReaderState.MUTE,
    State.KEPT_AWAY: ReaderState.EMPTY,
    State.KEPT_PROBING: ReaderState.PROBING,
    State.KEPT_ELSEWHERE: ReaderState.IN_USE_ELSEWHERE,
    State.KEPT_MUTE: ReaderState.MUTE,
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
    State.LOCKED_AWAY: SessionState.LOCKED,
    State.LOCKED_PROBING: SessionState.LOCKED,
    State.LOCKED_ELSEWHERE: SessionState.LOCKED,
    State.LOCKED_MUTE: SessionState.LOCKED,
    State.KEPT_AWAY: SessionState.ACTIVE,
    State.KEPT_PROBING: SessionState.ACTIVE,
    State.KEPT_ELSEWHERE: SessionState.ACTIVE,
    State.KEPT_MUTE: SessionState.ACTIVE,
    State.KEPT: SessionState.ACTIVE,
    State.KEPT_VERIFYING: SessionState.VERIFYING,
}
"""A seat's state as its session's; in every other one there is none, or it is over."""


@dataclass(frozen=True, slots=True)
class Office:
    """What all desks share."""

    config: Config
    clock: Clock
    publisher: Publisher
    families: Families
    ledger: Ledger
    judge: Judge
    trail: Trail
    card_numbers: Iterator[int]
    session_numbers: Iterator[int]
    session_over: Callable[[SessionFacts], None]

    def advised(self, card: CardFacts) -> CardFacts:
        """The card with what helps with it, and what is due, by the site's rules."""
        config = self.config
        situation = remedies.situation_of(
            card,
            retired_series=config.card.retired_series,
            unblock_profiles=config.pin.unblock,
        )
        found = remedies.remedies(situation)
        pins, days = card.pins, config.pin.change_days
        due = pin_change_due(pins.changed_usec, self.clock.usec(), days)
        return replace(
            card,
            remedies=found,
            remedy_text=remedies.remedy_text(found, situation, config.contacts),
            pins=replace(pins, change_due=due),
        )


class Shown:
    """The records of one desk; whatever changes in them is published."""

    def __init__(self, reader: ReaderFacts, office: Office) -> None:
        self.reader = reader
        self.card: CardFacts | None = None
        self.session: SessionFacts | None = None
        self.exchanges_before = 0
        """Of the channel, when the session was opened."""
        self._fault = self._trouble = ""
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

    def stands(self, reader: ReaderFacts) -> None:
        """More is known of where the reader stands, and of what it is."""
        self.set_reader(
            label=reader.label,
            serial=reader.serial,
            port_path=reader.port_path,
            vendor_id=reader.vendor_id,
            product_id=reader.product_id,
            model=reader.model,
            pin_pad=reader.pin_pad,
        )

    def fault(self, text: str) -> None:
        """What is wrong with the reader or its card; "" from the next card on."""
        self._fault = text
        self._tell()

    def trouble(self, text: str) -> None:
        """What is wrong for all readers, whatever card comes; "" when it is over."""
        self._trouble = text
        self._tell()

    def _tell(self) -> None:
        texts = (self._fault, self._trouble)
        self.set_reader(last_error="; ".join(each for each in texts if each))

    def set_card(self, change: Callable[[CardFacts], CardFacts]) -> None:
        """Change facts of the card, if there is one."""
        if self.card is None:
            return
        now = self._office.advised(change(self.card))
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
        self.set_reader(card=number, insert_count=self.reader.insert_count + 1)
        self.fault("")

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

    def unverify(self) -> None:
        """Nobody is verified any more."""
        self.set_session(
            holder_id="", verified_usec=0, possession_proved=False, holder_verified=False
        )

    def disown(self) -> None:
        """What the card vouched for is told no more, whatever becomes of the session."""
        self.set_session(holder_id="", possession_proved=False, holder_verified=False)

    def expires_by(self, usec: int, *, anew: bool) -> None:
        """A limit of the session's life; `anew` replaces those of before, but its total age."""
        if self.session is not None:
            oldest = self._office.config.session.max_age_seconds * 1_000_000
            oldest += self.session.opened_usec
            limit = oldest if anew else self.session.expires_usec
            self.set_session(expires_usec=min(usec, limit))

    def count_exchanges(self, exchanges: int) -> None:
        """Show how many APDUs the session took, of so many of the channel."""
        self.set_session(exchange_count=exchanges - self.exchanges_before)

    def record(self, event: str, **fields: str | int) -> None:
        """Into the audit trail, with reader, card, holder and whose session it is."""
        about: dict[str, str | int] = {"reader": self.reader.id}
        if self.card is not None:
            about |= {"card": self.card.number, "atr": self.card.atr.hex().upper()}
            about |= {"serial": self.card.serial, "series": self.card.series}
            about["holder"] = self.card.holder.common_name if self.card.holder else ""
        if self.session is not None:
            about |= {"session": self.session.number, "owner": self.session.owner}
            about |= {"uid": self.session.owner_uid, "used_by": self.session.used_by}
        self._office.trail.record(event, **about, **fields)

    def set_aside(self, *, locked: bool) -> None:
        """The session has no card now: whatever the card vouched for is over, and a locked
        session names no holder."""
        self.set_session(
            card=None,
            verified_usec=0,
            possession_proved=False,
            holder_verified=False,
            **({"holder_id": ""} if locked else {}),
        )

    def rejoin(self) -> None:
        """The session has its card back, which is a new object."""
        assert self.card is not None  # noqa: S101 - it was just read
        self.set_session(card=self.card.number)
        number = self.session.number if self.session else None
        self.set_card(lambda card: replace(card, session=number))

    def close_session(self, reason: EndReason) -> None:
        """It is over, for the reason that came first; it is still an object."""
        if self.session is not None and not self.session.end_reason:
            self.set_session(
                state=SessionState.ENDED,
                end_reason=reason,
                holder_id="",
                possession_proved=False,
                holder_verified=False,
            )

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
