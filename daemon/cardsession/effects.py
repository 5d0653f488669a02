"""What a desk does about an event: the effects that the transition table names.

One method per `Effect`, named after it, here (sessions) or in `card_effects.py` (cards),
`pin_effects.py` (submissions and questions) and `use_effects.py` (signatures, APDUs). They show
facts, answer asks, set timers and begin conversations; where a seat goes next is none of their
business, the table has said so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from structlog import get_logger

from cardsession import conversations
from cardsession.actor import Actor, Timers
from cardsession.asks import ContextAsk, EndAsk, OpenAsk, PlainAsk, Waiting
from cardsession.card_effects import CardEffects
from cardsession.core import policy, update
from cardsession.core.errors import TEXTS, Failure, Problem
from cardsession.core.facts import CardFacts, EndReason, ReaderState, SessionState, Trust
from cardsession.core.states import Effect, Event
from cardsession.core.tries import Unknown
from cardsession.pin_effects import LOST, PinEffects
from cardsession.ports import Channel
from cardsession.shown import Office, Shown
from cardsession.submissions import Proof, Submitted
from cardsession.use_effects import UseEffects

log = get_logger(__name__)

UNVERIFIED_SECONDS = 60.0
"""A session in which nobody was verified ends after this, whatever is called."""
_END_REASONS = {
    Event.CARD_REMOVED: EndReason.CARD_REMOVED,
    Event.STUCK: EndReason.CARD_MUTE,
    Event.FOUND_MUTE: EndReason.CARD_MUTE,
    Event.PIN_BLOCKED: EndReason.PIN_BLOCKED,
    Event.POSSESSION_FAILED: EndReason.POSSESSION_FAILED,
    Event.CARD_RESET: EndReason.CARD_RESET,
    Event.PROBED: EndReason.CARD_REPLACED,
    Event.PROBE_FAILED: EndReason.CARD_REPLACED,
}
_TURNED_AWAY = {
    EndReason.SUSPEND: Problem.SUSPENDED,
    EndReason.READER_REMOVED: Problem.READER_REMOVED,
    EndReason.DAEMON_STOPPING: Problem.READER_REMOVED,
    EndReason.BACKEND_LOST: Problem.BACKEND_UNAVAILABLE,
}
"""What whoever waits for a card hears that goes with more than itself."""


class Effects:
    """The effects of one desk, and what they remember between events."""

    def __init__(self, actor: Actor, shown: Shown, channel: Channel, office: Office) -> None:
        self.waiting = Waiting()
        self._desk = actor
        self._shown = shown
        self._channel = channel
        self._office = office
        self._timers = Timers(office.clock)
        self._card = CardEffects(actor, shown, channel, office)
        self._pin = PinEffects(actor, shown, self._card, self.waiting, office)
        self._use = UseEffects(actor, shown, self._card, self.waiting, office)
        self._ending: list[EndAsk] = []
        self._abandoned: EndAsk | None = None
        self._idle_seconds = 0.0
        self._methods: dict[Effect, Callable[[Event, Any], None]] = {
            effect: self._method(effect.name.lower()) for effect in Effect
        }

    def _method(self, name: str) -> Callable[[Event, Any], None]:
        parts = (self._card, self._pin, self._use)
        own: Callable[[Event, Any], None] | None = getattr(self, f"_do_{name}", None)
        return own or next(getattr(part, name) for part in parts if hasattr(part, name))

    def do(self, effect: Effect, event: Event, payload: Any) -> None:
        """Carry out one effect of an event."""
        self._methods[effect](event, payload)

    def give_up(self, event: Event) -> None:
        """Our own bug: whoever waits hears of it, the session ends, the card is let go."""
        self._pin.revoke(event, None)
        self._pin.mark_stale()
        self._pin.answer_failure(event, Failure(Problem.INTERNAL, TEXTS[Problem.INTERNAL]))
        self._do_close_session(event, EndAsk(EndReason.FORCED))
        self._do_end_session()
        self._channel.let_go()

    def stop(self) -> None:
        """No timer goes off any more."""
        self._timers.cancel()
        self._card.stop()
        self._pin.stop()

    def answer_deferred(self) -> None:
        """The seat came to rest: whoever waited for the card asks again."""
        waiting, self.waiting.deferred = self.waiting.deferred, []
        for ask in waiting:  # each with what is left of its time
            self._desk.post(Event.OPEN_ASKED, ask)

    def turn_away(self, reason: EndReason) -> None:
        """Whoever waits for the card waits no more."""
        problem = _TURNED_AWAY.get(reason, Problem.CARD_REMOVED)
        waiting, self.waiting.deferred = self.waiting.deferred, []
        for ask in waiting:
            ask.refuse(problem, TEXTS[problem])

    # effects: a session

    def _do_drop_card(self, event: Event, payload: Any) -> None:
        reason = self._end_reason(event, payload)
        self.turn_away(reason)
        self._card.drop(reason)

    def _do_defer(self, _: Event, ask: OpenAsk) -> None:
        if ask.request.wait <= 0:
            elsewhere = self._shown.reader.state is ReaderState.IN_USE_ELSEWHERE
            problem = Problem.IN_USE_ELSEWHERE if elsewhere else Problem.BUSY
            ask.refuse(problem, TEXTS[problem] if elsewhere else "the card is not ready yet")
            return
        if ask.deadline is None:
            ask.deadline = self._office.clock.later(ask.request.wait, lambda: self._waited(ask))
        self.waiting.deferred.append(ask)

    def _waited(self, ask: OpenAsk) -> None:
        if ask in self.waiting.deferred:
            self.waiting.deferred.remove(ask)
            ask.refuse(Problem.TIMEOUT, "the card was not ready in time")

    def _do_ask_to_open(self, _: Event, ask: OpenAsk) -> None:
        self.waiting.asking, self._abandoned = ask, None
        card = self._shown.card
        if self._card.family is None:
            unread = Failure(Problem.NOT_SUPPORTED, "no profile reads this card")
            self._desk.post(Event.OPEN_FAILED, unread)
        elif card and card.temporary and not ask.request.used_by:
            nobody = Failure(Problem.USED_BY_REQUIRED, "a temporary card: say who uses it")
            self._desk.post(Event.OPEN_FAILED, nobody)
        else:
            now = self._office.clock.usec
            work = conversations.question(*self._card.talk(), Event.OPENED, now)
            self._desk.launch(work, Event.OPEN_FAILED)

    def _do_start_session(self, *_: Any) -> None:
        ask = self.waiting.asking
        assert isinstance(ask, OpenAsk)  # noqa: S101 - the table: only after OPEN_ASKED
        limits = self._office.config.session
        self._idle_seconds = min(ask.request.idle or limits.idle_seconds, limits.idle_seconds)
        self._shown.exchanges_before = self._channel.exchanges
        session = self._shown.new_session(ask, self._expiry(UNVERIFIED_SECONDS))
        log.info("session.opened", session=session.number, reader=session.reader_id)
        self._shown.record("session.opened", purpose=session.purpose)
        self._timers.set("age", limits.max_age_seconds, lambda: self._end_by(EndReason.MAX_AGE))
        self._limit(UNVERIFIED_SECONDS, EndReason.IDLE_TIMEOUT)
        ask.answer(session.number)
        if self._abandoned:
            abandoned, self._abandoned = self._abandoned, None
            self._desk.post(Event.END_ASKED, abandoned)

    def _do_abandon(self, _: Event, ask: EndAsk) -> None:
        self._abandoned = ask

    def _expiry(self, seconds: float) -> int:
        return self._office.clock.usec() + int(seconds * 1_000_000)

    def _limit(self, seconds: float, reason: EndReason) -> None:
        self._timers.set("limit", seconds, lambda: self._end_by(reason))
        self._shown.expires_by(self._expiry(seconds), anew=True)

    def _end_by(self, reason: EndReason) -> None:
        self._desk.post(Event.END_ASKED, EndAsk(reason))

    def _do_touch(self, *_: Any) -> None:
        now = self._office.clock.monotonic_usec()
        self._shown.set_session(last_activity_monotonic_usec=now)
        self._shown.count_exchanges(self._channel.exchanges)
        self._limit(self._idle_seconds, EndReason.IDLE_TIMEOUT)

    def _do_close_session(self, event: Event, payload: Any) -> None:
        if isinstance(payload, EndAsk):
            self._ending.append(payload)
        self._shown.close_session(self._end_reason(event, payload))
        session = self._shown.session
        if session and event not in LOST:  # else they hear of the card
            self._use.end(session.end_reason, finish=True)

    def _end_reason(self, event: Event, payload: Any) -> EndReason:
        if isinstance(payload, EndAsk):
            return payload.reason
        if isinstance(payload, EndReason):
            return payload
        return _END_REASONS.get(event, EndReason.READER_REMOVED)

    def _do_release(self, *_: Any) -> None:
        if self._card.family:
            now = self._office.clock.usec
            reset = self._card.foreign
            work = conversations.drop(*self._card.talk(), Event.RELEASED, now, reset)
            self._desk.launch(work, Event.RELEASED)
        else:
            self._desk.post(Event.RELEASED)

    def _do_end_session(self, *_: Any) -> None:
        self._timers.cancel("limit", "age", "grace")
        if self._shown.session:
            session = self._shown.session
            log.info("session.ended", session=session.number, reason=session.end_reason)
            self._shown.record("session.ended", reason=session.end_reason)
            self._use.end(session.end_reason, finish=False)
            self._card.expect_nobody()
        self._shown.end_session()
        ending, self._ending = self._ending, []
        for ask in ending:
            ask.answer(None)

    # effects: what a session has, and waits for

    def _do_mark_verified(self, _: Event, submitted: Submitted) -> None:
        card = self._shown.card
        holder = card and card.holder
        proved = submitted.proof is Proof.GIVEN
        self._shown.set_session(
            verified_usec=self._office.clock.usec(),
            holder_id=holder.common_name if holder else "",
            possession_proved=proved,
            holder_verified=bool(proved and card and card.standing.trust is Trust.TRUSTED),
        )
        self._timers.cancel("grace")
        self._do_touch()
        self._end_untrusted()

    def _end_untrusted(self) -> None:
        """A session is active only with a card of a standing that the site accepts."""
        card = self._shown.card
        if card and not policy.admits(card.standing, self._office.config.trust.accepted):
            self._end_by(EndReason.NOT_TRUSTED)

    def _do_mark_unverified(self, *_: Any) -> None:
        self._shown.unverify()
        self._shown.set_card(_nobody_verified)
        self._limit(UNVERIFIED_SECONDS, EndReason.IDLE_TIMEOUT)

    def _do_mark_dropped(self, *_: Any) -> None:
        """A kept session was not verified: it waits, as before, until its grace is over."""

    def _do_mark_locked(self, *_: Any) -> None:
        self._shown.unverify()
        self._limit(self._idle_seconds, EndReason.LOCK_EXPIRED)

    def _do_set_aside(self, *_: Any) -> None:
        session = self._shown.session
        locked = session is not None and session.state is SessionState.LOCKED
        self._shown.set_aside(locked=locked)
        self._card.expect_back()
        if locked:
            self._timers.cancel("limit")  # from here on its grace is what limits it
        if "grace" not in self._timers:  # pulling a card again and again wins no time
            grace = float(self._office.config.session.grace_seconds)
            self._timers.set("grace", grace, lambda: self._end_by(EndReason.LOCK_EXPIRED))
            self._shown.expires_by(self._expiry(grace), anew=locked)

    def _do_rejoin(self, *_: Any) -> None:
        self._shown.rejoin()
        self._shown.record("session.rejoined")
        if self._shown.session and self._shown.session.state is SessionState.ACTIVE:
            self._end_untrusted()

    def _do_keep_standing(self, event: Event, standing: Any) -> None:
        self._card.keep_standing(event, standing)
        session, card = self._shown.session, self._shown.card
        if session is None or card is None:
            return
        trusted = card.standing.trust is Trust.TRUSTED
        self._shown.set_session(holder_verified=session.possession_proved and trusted)
        if session.verified_usec or session.state is SessionState.ACTIVE:
            self._end_untrusted()
        elif not policy.admits(card.standing, self._office.config.trust.accepted):
            self._pin.distrust(card.standing)

    def _do_set_context(self, _: Event, ask: ContextAsk) -> None:
        self._shown.set_session(context=dict(ask.context))

    def _do_lock(self, _: Event, ask: PlainAsk) -> None:
        self.waiting.asking = ask
        self._shown.disown()  # it is shown as locked from here on
        now = self._office.clock.usec
        work = conversations.drop(*self._card.talk(), Event.LOCK_DONE, now, self._card.foreign)
        self._desk.launch(work, Event.LOCK_DONE)

    def _do_answer_done(self, _: Event, payload: Any) -> None:
        ask = payload if isinstance(payload, PlainAsk) else self.waiting.asking
        if isinstance(ask, PlainAsk):
            ask.answer(None)


def _nobody_verified(card: CardFacts) -> CardFacts:
    """No PIN is shown as verified any more; what was counted stands."""
    unasked = dict.fromkeys(card.pins.status, Unknown())
    return update.counted(card, unasked, card.pins.read_usec)
