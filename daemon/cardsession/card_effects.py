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
from cardsession.core.facts import CardState, Certificate
from cardsession.core.session import Event
from cardsession.ports import Channel
from cardsession.shown import Office, Shown

log = get_logger(__name__)

RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Pauses before a card that another program holds is asked for again."""
_OF_THE_CALLER = frozenset({Problem.NO_SUCH_PIN, Problem.NOT_SUPPORTED})
"""Failures that say nothing about a reader."""


class CardEffects:
    """See `Effects`; what is known of the card that is in."""

    def __init__(self, actor: Actor, shown: Shown, channel: Channel, office: Office) -> None:
        self.family: Profile | None = None
        self.known: Probe | None = None
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
        self._retries = 0
        self._shown.new_card(atr)

    def _forget(self) -> None:
        self._desk.new_generation()
        self.family = self.known = None
        self._all_read = False
        self._timers.cancel("day", "retry")

    def probe(self, *_: Any) -> None:
        """Have it read."""
        self._desk.launch(conversations.probe(self._channel), Event.PROBE_FAILED)

    def keep_probe(self, _: Event, found: Found) -> None:
        """It was read."""
        self.family, self.known = found.recognised
        usec, days = self._office.clock.usec(), self._office.config.card.renewal_days
        self._shown.set_card(lambda card: found.shown_on(card, usec, days))
        card = self._shown.card
        log.info("card.read", reader=self._shown.reader.name, profile=card and card.profile)
        if card and card.state is CardState.READY:
            self._office.publisher.card_ready(card)
            self._new_day()

    def _new_day(self) -> None:
        """Days left and trust change with time alone: look again when the next day is over."""
        days, clock = self._office.config.card.renewal_days, self._office.clock
        self._shown.set_card(lambda card: update.aged(card, clock.usec(), days))
        holder = self._shown.card and self._shown.card.holder
        if holder and holder.not_after:
            until = (holder.not_after - clock.usec() / 1_000_000) % policy.DAY
            self._timers.set("day", until + 1.0, self._new_day)

    def keep_unknown(self, *_: Any) -> None:
        """Announce it by its ATR alone."""
        self._shown.set_card(lambda card: replace(card, state=CardState.UNKNOWN))

    def call_mute(self, *_: Any) -> None:
        """It does not answer."""
        self._shown.set_card(lambda card: replace(card, state=CardState.MUTE))
        self._shown.set_reader(last_error=TEXTS[Problem.CARD_MUTE])

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

    def drop(self, reason: str) -> None:
        """The card is gone, and so is what was known of it."""
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
        self._shown.set_reader(last_error=text)
