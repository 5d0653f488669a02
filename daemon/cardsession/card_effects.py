"""The effects that concern a card, whoever has a session with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from structlog import get_logger

from cardsession import conversations
from cardsession.actor import Actor, Timers
from cardsession.cards.profile import Probe, Profile
from cardsession.conversations import Found
from cardsession.core import policy, update
from cardsession.core.errors import TEXTS, Failure, Problem
from cardsession.core.facts import CardFacts, CardState, Certificate, Standing, Trust
from cardsession.core.states import Event
from cardsession.ports import Channel, SignRequest
from cardsession.shown import Office, Shown

log = get_logger(__name__)

RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Pauses before a card that another program holds is asked for again."""
JUDGED_EVERY_SECONDS = 3600.0
"""Certificates expire and lists grow stale while a card lies in its reader."""
_OF_THE_CALLER = frozenset(
    {
        Problem.NO_SUCH_PIN,
        Problem.NO_SUCH_SLOT,
        Problem.NOT_SUPPORTED,
        Problem.NOT_VERIFIED,
        Problem.UNSUPPORTED_ALGORITHM,
        Problem.USED_BY_REQUIRED,
    }
)
"""Failures that say nothing about a reader."""


class CardEffects:
    """See `Effects`; what is known of the card that is in."""

    def __init__(self, actor: Actor, shown: Shown, channel: Channel, office: Office) -> None:
        self.family: Profile | None = None
        self.known: Probe | None = None
        self.selected = True
        """Whether the card's application is, as far as we did: not after a caller's APDU."""
        self.foreign = False
        """Whether a caller's APDU was let through, which may have won more than a PIN opens."""
        self._expected: tuple[str, bytes] | None = None
        """Identity and authentication certificate of the card that a session waits for."""
        self._desk = actor
        self._shown = shown
        self._channel = channel
        self._office = office
        self._timers = Timers(office.clock)
        self._all_read = False
        self._retries = 0

    def talk(self) -> tuple[Channel, Profile, Probe]:
        """What a conversation with the card needs. Failure if no family reads it."""
        if self.family is None or self.known is None:
            raise Failure(Problem.NOT_SUPPORTED, "no profile reads this card")
        return self._channel, self.family, self.known

    def stop(self) -> None:
        """No timer goes off any more."""
        self._timers.cancel()

    def show_card(self, _: Event, atr: bytes) -> None:
        """A card came: one insertion, one object."""
        if self._shown.card:
            return  # a stuck reader's card that is called mute: it was shown when it came
        self._forget()
        self.selected, self.foreign = True, False
        self._retries = 0
        self._shown.new_card(atr)

    def _forget(self) -> None:
        self._desk.new_generation()
        self.family = self.known = None
        self._all_read = False
        self._timers.cancel("judge", "retry")

    def probe(self, *_: Any) -> None:
        """Have it read."""
        card = self._shown.card
        atr = card.atr if card else b""
        work = conversations.probe(self._channel, self._office, atr, self._is_expected)
        self._desk.launch(work, Event.PROBE_FAILED)

    def keep_probe(self, _: Event, found: Found) -> None:
        """It was read."""
        self.family, self.known = found.recognised
        self._shown.set_card(lambda card: found.shown_on(card, self._office))
        card = self._shown.card
        log.info("card.read", reader=self._shown.reader.name, profile=card and card.profile)
        # a try whose outcome nobody learnt, because the daemon ended first, is told here
        doubt = {"in_flight": 1} if found.past.in_flight else {}
        self._shown.record("card.read", profile=self.known.profile, **doubt)
        if card and card.state is CardState.READY:
            self._office.publisher.card_ready(card)
        self._judge_later()

    def _judge_later(self) -> None:
        """Within the hour, and when the days left are one fewer."""
        holder = self._shown.card and self._shown.card.holder
        if self.family is not None and holder:
            now = self._office.clock.usec() / 1_000_000
            until = (holder.not_after - now) % policy.DAY + 1.0
            self._timers.set("judge", min(until, JUDGED_EVERY_SECONDS), self.rejudge)

    def rejudge(self) -> None:
        """Have the holder's certificate judged again, off the loop."""
        card = self._shown.card
        if card is not None and self.family is not None:
            work = conversations.rejudge(self._channel, self._office, card.certificates)
            self._desk.launch(work, Event.REJUDGED)
            self._judge_later()

    def keep_standing(self, _: Event, standing: Standing | Failure) -> None:
        """Show it, and what time alone changed of the card."""
        if isinstance(standing, Failure):
            return  # judged again in an hour
        days, usec = self._office.config.card.renewal_days, self._office.clock.usec()
        self._shown.set_card(lambda card: update.aged(card, standing, usec, days))

    def expect_back(self) -> None:
        """A session waits for this card, and no other."""
        card, known = self._shown.card, self.known
        holder = card and card.holder
        self._expected = (known.identity, holder.der) if known and holder else None

    def expect_nobody(self) -> None:
        """No session waits any more."""
        self._expected = None

    def _is_expected(self, found: Found) -> bool:
        """Whether it is the same card: the same identity and the same certificate."""
        holder = found.certificates.get("authentication")
        if holder is None or not found.recognised[1].identity:
            return False
        return self._expected == (found.recognised[1].identity, holder.der)

    def signable(self, card: CardFacts, wanted: SignRequest) -> Certificate:
        """The certificate of a slot that can sign so. Failure if there is none."""
        certificate = card.certificates.get(wanted.slot)
        if certificate is None:
            raise Failure(Problem.NO_SUCH_SLOT, "the card has no certificate in that slot")
        if certificate.key_type != wanted.algorithm.key_type:
            text = f"the slot's key is {certificate.key_type or 'of another kind'}"
            raise Failure(Problem.UNSUPPORTED_ALGORITHM, text)
        return certificate

    def count_exchanges(self) -> None:
        """Show how many APDUs the session took."""
        self._shown.count_exchanges(self._channel.exchanges)

    def keep_unknown(self, *_: Any) -> None:
        """Announce it by its ATR alone."""
        self._shown.set_card(lambda card: replace(card, state=CardState.UNKNOWN))
        self._shown.record("card.unknown")

    def call_mute(self, *_: Any) -> None:
        """It does not answer."""
        self._shown.set_card(lambda card: replace(card, state=CardState.MUTE))
        self._shown.fault(TEXTS[Problem.CARD_MUTE])
        log.info("card.mute", reader=self._shown.reader.name)

    def retry_later(self, *_: Any) -> None:
        """Ask again for a card that somebody else holds, less and less often."""
        pause = RETRY_SECONDS[min(self._retries, len(RETRY_SECONDS) - 1)]
        self._retries += 1
        self._timers.set("retry", pause, self._retry)

    def _retry(self) -> None:
        if self._channel.waiting:
            self.retry_later()  # our thread still waits for the rival: nothing more is asked
        else:
            self._desk.post(Event.RETRY)

    def read_certificates(self, *_: Any) -> None:
        """Have the other certificates read, if they were not."""
        if self.family and not self._all_read:
            self._desk.launch(conversations.certificates(*self.talk()), Event.CERTIFICATES_READ)

    def keep_certificates(self, _: Event, found: dict[str, Certificate] | Failure) -> None:
        """They were read, or could not be."""
        if isinstance(found, Failure):
            self.retry_later()
        else:
            self._all_read = True
            self._shown.set_card(
                lambda card: replace(card, certificates={**card.certificates, **found})
            )
            card = self._shown.card
            if found and card and card.standing.trust is Trust.UNTRUSTED:
                self.rejudge()  # a link of the holder's chain may be among them

    def drop(self, reason: str) -> None:
        """The card is gone, and so is what was known of it."""
        if self._shown.card is not None:
            self._shown.record("card.gone", reason=reason)
        self._forget()
        self._shown.drop_card(reason)

    def let_go(self, *_: Any) -> None:
        """Forget the handle of a card."""
        self._channel.let_go()

    def leave(self, *_: Any) -> None:
        """Take the reader off the bus."""
        self._shown.leave()

    def report_failure(self, _: Event, payload: Any) -> None:
        """Log what went wrong with the reader, and show it."""
        if isinstance(payload, Failure) and payload.problem in _OF_THE_CALLER:
            return
        text = payload.text if isinstance(payload, Failure) else TEXTS[Problem.READER_STUCK]
        log.warning("reader.trouble", reader=self._shown.reader.name, text=text)
        self._shown.fault(text)
