"""What a desk does about an event: the effects that the transition table names.

One method per `Effect`, named after it, here or in `card_effects.py`. They show facts, answer
asks, set timers and begin conversations; where a seat goes next is none of their business, the
table has said so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from structlog import get_logger

from cardsession import conversations
from cardsession.actor import Actor, Timers
from cardsession.asks import SEND_SECONDS, Ask, EndAsk, OpenAsk, PlainAsk, QueryAsk, VerifyAsk
from cardsession.card_effects import CardEffects
from cardsession.config import Hold
from cardsession.conversations import Counted
from cardsession.core import update
from cardsession.core.errors import TEXTS, Failure, Problem
from cardsession.core.facts import EndReason, ReaderState
from cardsession.core.session import Effect, Event
from cardsession.core.tries import Judged, Outcome, Unknown, left
from cardsession.ports import Channel, Verdict
from cardsession.shown import Office, Shown

log = get_logger(__name__)

UNVERIFIED_SECONDS = 60.0
"""A session in which nobody was verified ends after this, whatever is called."""
_LOST = {
    Event.CARD_REMOVED: Problem.CARD_REMOVED,
    Event.READER_LOST: Problem.READER_REMOVED,
    Event.STUCK: Problem.READER_STUCK,
    Event.HELD: Problem.IN_USE_ELSEWHERE,
}
_END_REASONS = {
    Event.CARD_REMOVED: EndReason.CARD_REMOVED,
    Event.STUCK: EndReason.CARD_MUTE,
    Event.PIN_BLOCKED: EndReason.PIN_BLOCKED,
}


class Effects:
    """The effects of one desk, and what they remember between events."""

    def __init__(self, actor: Actor, shown: Shown, channel: Channel, office: Office) -> None:
        self.asking: Ask[Any] | None = None
        """Whoever waits for the conversation under way."""
        self.deferred: list[OpenAsk] = []
        """Those who wait for the card."""
        self._desk = actor
        self._shown = shown
        self._channel = channel
        self._office = office
        self._timers = Timers(office.clock)
        self._card = CardEffects(actor, shown, channel, office)
        self._ending: list[EndAsk] = []
        self._abandoned: EndAsk | None = None
        self._exchanges_before = 0
        self._idle_seconds = 0.0
        self._methods: dict[Effect, Callable[[Event, Any], None]] = {
            effect: getattr(self, f"_{effect.name.lower()}", None)
            or getattr(self._card, effect.name.lower())
            for effect in Effect
        }

    def do(self, effect: Effect, event: Event, payload: Any) -> None:
        """Carry out one effect of an event."""
        self._methods[effect](event, payload)

    def give_up(self, event: Event) -> None:
        """Our own bug: whoever waits hears of it, the session ends, the card is let go."""
        self._revoke(event, None)
        self._mark_stale()
        self._answer_failure(event, Failure(Problem.INTERNAL, TEXTS[Problem.INTERNAL]))
        self._close_session(event, EndAsk(EndReason.FORCED))
        self._end_session()
        self._channel.let_go()

    def stop(self) -> None:
        """No timer goes off any more."""
        self._timers.cancel()
        self._card.stop()

    def answer_deferred(self) -> None:
        """The seat came to rest: whoever waited for the card asks again."""
        waiting, self.deferred = self.deferred, []
        for ask in waiting:  # each with what is left of its time
            self._desk.post(Event.OPEN_ASKED, ask)

    # effects: a session

    def _drop_card(self, event: Event, payload: Any) -> None:
        for ask in self.deferred:
            ask.refuse(Problem.CARD_REMOVED, TEXTS[Problem.CARD_REMOVED])
        self.deferred.clear()
        self._card.drop(self._end_reason(event, payload))

    def _defer(self, _: Event, ask: OpenAsk) -> None:
        if ask.request.wait <= 0:
            elsewhere = self._shown.reader.state is ReaderState.IN_USE_ELSEWHERE
            problem = Problem.IN_USE_ELSEWHERE if elsewhere else Problem.BUSY
            ask.refuse(problem, TEXTS[problem] if elsewhere else "the card is not ready yet")
            return
        if ask.deadline is None:
            ask.deadline = self._office.clock.later(ask.request.wait, lambda: self._waited(ask))
        self.deferred.append(ask)

    def _waited(self, ask: OpenAsk) -> None:
        if ask in self.deferred:
            self.deferred.remove(ask)
            ask.refuse(Problem.TIMEOUT, "the card was not ready in time")

    def _ask_to_open(self, _: Event, ask: OpenAsk) -> None:
        self.asking, self._abandoned = ask, None
        if self._card.family is None:
            unread = Failure(Problem.NOT_SUPPORTED, "no profile reads this card")
            self._desk.post(Event.OPEN_FAILED, unread)
        else:
            work = conversations.question(*self._card.talk(), Event.OPENED)
            self._desk.launch(work, Event.OPEN_FAILED)

    def _start_session(self, *_: Any) -> None:
        ask = self.asking
        assert isinstance(ask, OpenAsk)  # noqa: S101 - the table: only after OPEN_ASKED
        limits = self._office.config.session
        self._idle_seconds = min(ask.request.idle or limits.idle_seconds, limits.idle_seconds)
        self._exchanges_before = self._channel.exchanges
        session = self._shown.new_session(ask, self._expiry(UNVERIFIED_SECONDS))
        log.info("session.opened", session=session.number, reader=session.reader_id)
        self._timers.set("age", limits.max_age_seconds, lambda: self._end_by(EndReason.MAX_AGE))
        self._limit(UNVERIFIED_SECONDS, EndReason.IDLE_TIMEOUT)
        ask.answer(session.number)
        if self._abandoned:
            abandoned, self._abandoned = self._abandoned, None
            self._desk.post(Event.END_ASKED, abandoned)

    def _abandon(self, _: Event, ask: EndAsk) -> None:
        self._abandoned = ask

    def _expiry(self, seconds: float) -> int:
        return self._office.clock.usec() + int(seconds * 1_000_000)

    def _count_exchanges(self) -> None:
        spent = self._channel.exchanges - self._exchanges_before
        self._shown.set_session(exchange_count=spent)

    def _limit(self, seconds: float, reason: EndReason) -> None:
        self._timers.set("limit", seconds, lambda: self._end_by(reason))
        if self._shown.session:
            oldest = self._shown.session.opened_usec
            oldest += self._office.config.session.max_age_seconds * 1_000_000
            self._shown.set_session(expires_usec=min(self._expiry(seconds), oldest))

    def _end_by(self, reason: EndReason) -> None:
        self._desk.post(Event.END_ASKED, EndAsk(reason))

    def _touch(self, *_: Any) -> None:
        now = self._office.clock.monotonic_usec()
        self._shown.set_session(last_activity_monotonic_usec=now)
        self._limit(self._idle_seconds, EndReason.IDLE_TIMEOUT)

    def _close_session(self, event: Event, payload: Any) -> None:
        if isinstance(payload, EndAsk):
            self._ending.append(payload)
        self._shown.close_session(self._end_reason(event, payload))

    def _end_reason(self, event: Event, payload: Any) -> EndReason:
        if isinstance(payload, EndAsk):
            return payload.reason
        if isinstance(payload, EndReason):
            return payload
        return _END_REASONS.get(event, EndReason.READER_REMOVED)

    def _release(self, *_: Any) -> None:
        if self._card.family:
            work = conversations.drop(*self._card.talk(), Event.RELEASED)
            self._desk.launch(work, Event.RELEASED)
        else:
            self._desk.post(Event.RELEASED)

    def _end_session(self, *_: Any) -> None:
        self._timers.cancel("limit", "age", "send")
        if self._shown.session:
            session = self._shown.session
            log.info("session.ended", session=session.number, reason=session.end_reason)
        self._shown.end_session()
        ending, self._ending = self._ending, []
        for ask in ending:
            ask.answer(None)

    # effects: a PIN

    def _verify(self, _: Event, ask: VerifyAsk) -> None:
        self.asking = ask
        card = self._card.talk()
        pin = card[2].pins.get(ask.label)
        if pin is None:
            missing = Failure(Problem.NO_SUCH_PIN, "the card has no such PIN")
            self._desk.post(Event.PIN_UNSENT, missing)
        else:
            self._timers.set("send", SEND_SECONDS, lambda: self._too_late(ask))
            limits = self._office.config.session
            exclusive = limits.hold is Hold.EXCLUSIVE
            if card[1].name in limits.accept_unknown:
                ask.consent = replace(ask.consent, accept_unknown=True)
            work = conversations.verify(*card, pin, ask, exclusive=exclusive)
            self._desk.launch(work, Event.PIN_LOST)

    def _too_late(self, ask: VerifyAsk) -> None:
        if ask.withdraw():
            ask.refuse(Problem.IN_USE_ELSEWHERE, "the card could not be had in time")

    def _revoke(self, event: Event, _: Any) -> None:
        unsent = isinstance(self.asking, VerifyAsk) and self.asking.withdraw()
        if unsent and event is Event.END_ASKED and self.asking:
            self.asking.answer(Verdict(Outcome.CANCELLED, None))

    def _keep_judgement(self, _: Event, judged: Judged) -> None:
        self._timers.cancel("send")
        self._count_exchanges()
        ask = self.asking
        assert isinstance(ask, VerifyAsk)  # noqa: S101 - the table: only after VERIFY_ASKED
        log.info(
            "pin.judged",
            reader=self._shown.reader.name,
            label=ask.label,
            outcome=judged.outcome,
            left=left(judged.status),
        )
        usec = self._office.clock.usec()
        self._shown.set_card(lambda card: update.judged(card, ask.label, judged, usec))

    def _answer_judgement(self, _: Event, judged: Judged) -> None:
        ask, self.asking = self.asking, None
        if ask:
            ask.answer(Verdict(judged.outcome, left(judged.status)))

    def _answer_failure(self, event: Event, payload: Any) -> None:
        self._timers.cancel("send")
        ask, self.asking = self.asking, None
        if ask is None:
            return
        lost = _LOST.get(event)
        if payload is EndReason.BACKEND_LOST:
            lost = Problem.BACKEND_UNAVAILABLE
        if lost is None and isinstance(payload, Failure):
            failure = payload
        else:
            lost = lost or Problem.INTERNAL
            failure = Failure(lost, TEXTS.get(lost, "an internal error"))
        gone = failure.problem in (Problem.CARD_REMOVED, Problem.READER_REMOVED)
        if isinstance(ask, VerifyAsk) and ask.permit.claimed and not gone:
            ask.answer(Verdict(Outcome.UNCERTAIN, None))
        else:
            ask.fail(failure)

    def _mark_verified(self, *_: Any) -> None:
        holder = self._shown.card and self._shown.card.holder
        self._shown.set_session(
            verified_usec=self._office.clock.usec(),
            holder_id=holder.common_name if holder else "",
        )
        self._touch()

    def _mark_unverified(self, *_: Any) -> None:
        self._shown.set_session(holder_id="", verified_usec=0)
        self._limit(UNVERIFIED_SECONDS, EndReason.IDLE_TIMEOUT)

    def _mark_stale(self, *_: Any) -> None:
        """A try may be gone, or an authority that was shown: nothing is known until asked."""
        claimed = isinstance(self.asking, VerifyAsk) and self.asking.permit.claimed
        session = self._shown.session
        if claimed or (session and session.verified_usec):
            self._shown.set_card(update.stale)

    def _query(self, _: Event, ask: QueryAsk) -> None:
        self.asking = ask
        if self._card.known is None or ask.label not in self._card.known.pins:
            failure = Failure(Problem.NO_SUCH_PIN, "the card has no such PIN")
            self._desk.post(Event.QUERY_FAILED, failure)
        else:
            work = conversations.question(*self._card.talk(), Event.QUERIED)
            self._desk.launch(work, Event.QUERY_FAILED)

    def _query_from_cache(self, _: Event, ask: QueryAsk) -> None:
        card = self._shown.card
        status = card.pins.status.get(ask.label) if card else None
        if status is None:
            ask.refuse(Problem.NO_SUCH_PIN, "the card has no such PIN")
        else:
            ask.answer(status)

    def _keep_query(self, _: Event, payload: Counted | Failure | None) -> None:
        self._count_exchanges()
        if payload is not None:
            tries = payload.tries if isinstance(payload, Counted) else None
            usec = self._office.clock.usec()
            self._shown.set_card(lambda card: update.counted(card, tries, usec))

    def _answer_query(self, _: Event, counted: Counted) -> None:
        if isinstance(self.asking, QueryAsk) and counted.tries is not None:
            self.asking.answer(counted.tries.get(self.asking.label, Unknown()))

    def _lock(self, _: Event, ask: PlainAsk) -> None:
        self.asking = ask
        self._desk.launch(conversations.drop(*self._card.talk(), Event.LOCK_DONE), Event.LOCK_DONE)

    def _mark_locked(self, *_: Any) -> None:
        self._shown.set_session(holder_id="", verified_usec=0)
        self._limit(self._idle_seconds, EndReason.LOCK_EXPIRED)

    def _answer_done(self, _: Event, payload: Any) -> None:
        ask = payload if isinstance(payload, PlainAsk) else self.asking
        if isinstance(ask, PlainAsk):
            ask.answer(None)
