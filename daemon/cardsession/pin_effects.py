"""The effects that concern a passcode: what may be submitted, what came of it, what is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from structlog import get_logger

from cardsession import conversations, submissions
from cardsession.actor import Actor, Timers
from cardsession.asks import SEND_SECONDS, QueryAsk, SubmitAsk, Waiting
from cardsession.card_effects import CardEffects
from cardsession.cards.profile import Pin
from cardsession.config import Hold
from cardsession.conversations import Counted
from cardsession.core import policy, update
from cardsession.core.errors import TEXTS, Failure, Problem
from cardsession.core.facts import CardFacts, EndReason, Standing
from cardsession.core.passcode import NewPinRule
from cardsession.core.states import Event
from cardsession.core.tries import Act, Consent, Outcome, Unknown, left
from cardsession.ports import SignRequest, Verdict
from cardsession.shown import Office, Shown
from cardsession.submissions import Submitted, Terms

log = get_logger(__name__)

PUK = "puk"
LOST = {
    Event.CARD_REMOVED: Problem.CARD_REMOVED,
    Event.READER_LOST: Problem.READER_REMOVED,
    Event.STUCK: Problem.READER_STUCK,
    Event.HELD: Problem.IN_USE_ELSEWHERE,
}
"""Events with which the way to the card is lost, and what whoever waits for it hears."""
_LOST_BY = {
    EndReason.BACKEND_LOST: Problem.BACKEND_UNAVAILABLE,
    EndReason.SUSPEND: Problem.SUSPENDED,
}
"""Why a reader is lost, where that says more."""
_NO_PIN = Failure(Problem.NO_SUCH_PIN, "the card has no such PIN")


class PinEffects:
    """See `Effects`."""

    def __init__(
        self, actor: Actor, shown: Shown, card: CardEffects, waiting: Waiting, office: Office
    ) -> None:
        self._desk = actor
        self._shown = shown
        self._card = card
        self._waiting = waiting
        self._office = office
        self._timers = Timers(office.clock)

    def stop(self) -> None:
        """No timer goes off any more."""
        self._timers.cancel()

    # a submission

    def submit(self, _: Event, ask: SubmitAsk) -> None:
        """Begin it, if the site's rules allow it: they are asked before the secret is read."""
        self._waiting.asking = ask
        try:
            terms = self._terms(ask)
        except Failure as failure:
            self._desk.post(Event.PIN_UNSENT, failure)
            return
        self._timers.set("send", SEND_SECONDS, lambda: self._too_late(ask))
        work = submissions.submit(*self._card.talk(), ask, terms)
        self._desk.launch(work, Event.PIN_LOST)

    def _terms(self, ask: SubmitAsk) -> Terms:
        card, session = self._shown.card, self._shown.session
        assert card is not None and session is not None  # noqa: S101, PT018 - the table
        config = self._office.config
        pin, fresh = self._pins(ask, card)
        if card.profile in config.session.accept_unknown:
            consent: Consent = replace(ask.request.consent, accept_unknown=True)
            ask.request = replace(ask.request, consent=consent)
        rules = config.pin
        site = NewPinRule(rules.new_min_length, rules.new_max_length, rules.new_digits_only)
        return Terms(
            pin=pin,
            fresh=fresh,
            rule=None if ask.label == PUK and ask.request.act is Act.CHANGE else site,
            active=bool(session.verified_usec),
            exclusive=config.session.hold is Hold.EXCLUSIVE,
            certificates=card.certificates,
            now=self._office.clock.usec,
            fence=self._office.publisher.fence,
            changed_usec=lambda: self._changed_usec(fresh),
        )

    def _changed_usec(self, fresh: Pin | None) -> int:
        """When the ledger says that it was last changed; it may wait for the disk."""
        known = self._card.known
        if known is None or fresh is None:
            return 0
        return self._office.ledger.past(known.identity, fresh.reference).changed_usec

    def _pins(self, ask: SubmitAsk, card: CardFacts) -> tuple[Pin, Pin | None]:
        """Whose counter is at stake, and whose new passcode comes with it."""
        request = ask.request
        ask.label = request.label
        if request.signing is not None:
            ask.label = self._guardian(card, request.signing)
        pin = self._pin(ask.label)
        match request.act:
            case Act.UNBLOCK:
                self._may_unblock(card)
                ask.label = PUK
                return self._pin(PUK), pin
            case Act.CHANGE:
                return pin, pin
        if not pin.verifiable:
            raise Failure(Problem.NOT_SUPPORTED, "this PIN only ever sets a new passcode")
        accepted = self._office.config.trust.accepted
        if pin.grants and not policy.admits(card.standing, accepted):
            raise policy.not_trusted(card.standing)
        return pin, None

    def _pin(self, label: str) -> Pin:
        known = self._card.known
        found = known.pins.get(label) if known else None
        if found is None:
            raise _NO_PIN
        return found

    def _guardian(self, card: CardFacts, wanted: SignRequest) -> str:
        """The label of the PIN that guards a slot's key."""
        self._card.signable(card, wanted)
        _, family, known = self._card.talk()
        key = family.key(known, wanted.slot)
        return (key and key.pin) or "user"

    def _may_unblock(self, card: CardFacts) -> None:
        if card.profile not in self._office.config.pin.unblock:
            text = f"the site does not enable UnblockPin for profile {card.profile}"
            raise Failure(Problem.NOT_SUPPORTED, text)

    def distrust(self, standing: Standing) -> None:
        """The card was judged again, and is none for a session to be active with: a passcode that
        was not sent yet is not sent."""
        ask = self._waiting.asking
        pins = self._card.known.pins if self._card.known else {}
        if not isinstance(ask, SubmitAsk) or ask.request.act is not Act.VERIFY:
            return
        if ask.label in pins and pins[ask.label].grants and ask.withdraw():
            ask.fail(policy.not_trusted(standing))

    def _too_late(self, ask: SubmitAsk) -> None:
        if ask.withdraw():
            ask.refuse(Problem.IN_USE_ELSEWHERE, "the card could not be had in time")

    def revoke(self, event: Event, _: Any) -> None:
        """A secret that was not sent yet is not sent any more."""
        ask = self._waiting.asking
        if isinstance(ask, SubmitAsk) and ask.withdraw() and event is Event.END_ASKED:
            ask.answer(Verdict(Outcome.CANCELLED, None))

    # what came of it

    def keep_judgement(self, _: Event, submitted: Submitted) -> None:
        """Show it, and write it down."""
        self._timers.cancel("send")
        self._card.count_exchanges()
        ask, judged = self._waiting.asking, submitted.judged
        assert isinstance(ask, SubmitAsk)  # noqa: S101 - the table: only after it was asked
        ask.label = submitted.label or ask.label
        if judged.sent:
            self._card.selected = True  # the card's application was, for it
        fields = {
            "label": ask.label,
            "act": ask.request.act.name.lower(),
            "outcome": str(judged.outcome),
        }
        count = left(judged.status)
        if count is not None:
            fields["left"] = str(count)
        log.info("pin.judged", reader=self._shown.reader.name, **fields)
        self._shown.record("pin.judged", **fields)
        self._shown.set_card(lambda card: _after(card, ask, submitted))

    def answer_judgement(self, _: Event, submitted: Submitted) -> None:
        """Tell the caller, once everything else shows it."""
        ask, self._waiting.asking = self._waiting.asking, None
        judged = submitted.judged
        if ask is None:
            return
        if submitted.failure is not None:
            ask.fail(submitted.failure)
        else:
            ask.answer(Verdict(judged.outcome, left(judged.status), submitted.signature))

    def answer_failure(self, event: Event, payload: Any) -> None:
        """Tell whoever waits why there is no judgement, no signature, no session."""
        self._timers.cancel("send")
        failure = _failure(event, payload)
        if event in LOST:
            for use in list(self._waiting.using):
                use.fail(failure)
        ask, self._waiting.asking = self._waiting.asking, None
        if ask is None:
            return
        gone = failure.problem in (Problem.CARD_REMOVED, Problem.READER_REMOVED)
        if isinstance(ask, SubmitAsk) and ask.permit.claimed and not gone:
            ask.answer(Verdict(Outcome.UNCERTAIN, None))
        else:
            ask.fail(failure)

    def mark_stale(self, *_: Any) -> None:
        """A try may be gone, or an authority that was shown: nothing is known until asked."""
        ask, session = self._waiting.asking, self._shown.session
        claimed = isinstance(ask, SubmitAsk) and ask.permit.claimed
        if claimed or (session and session.verified_usec):
            self._shown.set_card(update.stale)

    # a question

    def query(self, _: Event, ask: QueryAsk) -> None:
        """Have the card asked."""
        self._waiting.asking = ask
        if self._card.known is None or ask.label not in self._card.known.pins:
            self._desk.post(Event.QUERY_FAILED, _NO_PIN)
        else:
            now = self._office.clock.usec
            work = conversations.question(*self._card.talk(), Event.QUERIED, now)
            self._desk.launch(work, Event.QUERY_FAILED)

    def query_from_cache(self, _: Event, ask: QueryAsk) -> None:
        """Say what is shown."""
        card = self._shown.card
        status = card.pins.status.get(ask.label) if card else None
        if status is None:
            ask.fail(_NO_PIN)
        else:
            ask.answer(status)

    def keep_query(self, event: Event, payload: Counted | Failure | None) -> None:
        """Show the counters. After an authority that nobody else could touch, they are the most
        that there can be."""
        self._card.count_exchanges()
        if payload is None:
            return
        counted = payload if isinstance(payload, Counted) else Counted(None)
        exclusive = self._office.config.session.hold is Hold.EXCLUSIVE
        alone = exclusive and event in (Event.RELEASED, Event.LOCK_DONE)
        tries, usec = counted.tries, counted.usec
        self._shown.set_card(lambda card: update.counted(card, tries, usec, undisturbed=alone))

    def answer_query(self, _: Event, counted: Counted) -> None:
        """Tell the caller."""
        ask = self._waiting.asking
        if isinstance(ask, QueryAsk) and counted.tries is not None:
            ask.answer(counted.tries.get(ask.label, Unknown()))


def _after(card: CardFacts, ask: SubmitAsk, submitted: Submitted) -> CardFacts:
    """The card as a submission left it."""
    judged, usec = submitted.judged, submitted.usec
    card = update.judged(card, ask.label, judged, usec)
    if judged.outcome in (Outcome.CHANGED, Outcome.UNBLOCKED) and ask.request.label == "user":
        card = update.changed(card, submitted.changed_usec)
    if submitted.dropped is not None:
        card = update.counted(card, submitted.dropped.tries, submitted.dropped.usec)
    return card


def _failure(event: Event, payload: Any) -> Failure:
    lost = LOST.get(event)
    if isinstance(payload, EndReason):
        lost = _LOST_BY.get(payload, lost)
    if lost is None and isinstance(payload, Failure):
        return payload
    lost = lost or Problem.INTERNAL
    return Failure(lost, TEXTS.get(lost, "an internal error"))
