"""What a desk has said to its card: each coroutine ends as an event with what it brought home.

Submissions of a passcode are in `submissions.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from cardsession.asks import SignAsk, TransmitAsk, UseAsk
from cardsession.cards import recognise
from cardsession.cards.profile import Probe, Profile, Recognised, Request
from cardsession.core import policy, trust, update
from cardsession.core.dialogue import Dialogue, transmit_verbatim
from cardsession.core.errors import TEXTS, Failure, Malformed, Problem
from cardsession.core.facts import CardFacts, Certificate, Standing
from cardsession.core.filter import RawApdu
from cardsession.core.states import Event
from cardsession.core.tries import PinStatus
from cardsession.ports import Channel, Disposition, Past, Talk
from cardsession.shown import Office

T = TypeVar("T")
Now = Callable[[], int]
"""The clock, in microseconds."""

GONE = frozenset({Problem.CARD_REMOVED, Problem.READER_REMOVED})
"""Failures that are the card's removal."""
LOST = GONE | {Problem.BACKEND_UNAVAILABLE, Problem.CARD_MUTE}
"""Failures after which there is no card to go on with."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a probe brought home, and what is remembered of the card."""

    recognised: Recognised
    certificates: Mapping[str, Certificate]
    standing: Standing
    past: Past
    usec: int
    """When it was read."""

    def shown_on(self, card: CardFacts, office: Office) -> CardFacts:
        """The card's facts as found, now."""
        family, probe = self.recognised
        if family is None:
            return update.unread(card, probe.series)
        usec, past = office.clock.usec(), self.past
        card = update.identified(
            card,
            probe.profile,
            probe.serial,
            self.certificates,
            series=probe.series,
            nhs=probe.nhs,
            temporary=policy.is_temporary(probe.serial, office.config.card.temporary),
            withheld=probe.withheld,
        )
        card = update.counted(card, probe.tries, self.usec)
        card = update.remembered(
            card,
            in_flight=past.in_flight,
            tried=past.tried,
            changed_usec=past.changed_usec,
            most={pin.label: pin.tries_max for pin in probe.pins.values() if pin.tries_max},
        )
        return update.aged(card, self.standing, usec, office.config.card.renewal_days)


@dataclass(frozen=True, slots=True)
class Counted:
    """The counters as the card told them; None: it could not be asked."""

    tries: Mapping[str, PinStatus] | None
    usec: int = 0
    """When it did."""


def timed(dialogue: Dialogue[T], now: Now) -> Dialogue[tuple[T, int]]:
    """The same, and its time, taken while nobody else can come at the card: a rival may take a
    try away before we come to show what was read."""
    result = yield from dialogue
    return result, now()


async def probe(
    channel: Channel, office: Office, atr: bytes, same: Callable[[Found], bool]
) -> tuple[Event, Found]:
    """Who is this, and is it the card that a session waits for? Reads are replayed once after a
    rival's reset."""
    talk = Talk(lambda: timed(recognise(office.families, atr), office.clock.usec))

    def work(read: tuple[Recognised, int]) -> Found:
        recognised, usec = read
        known = recognised[1]
        certificates = trust.read_all(known.certificates)
        standing = office.judge.judge(certificates, office.clock.usec())
        user = known.pins.get("user")
        past = office.ledger.past(known.identity, user.counter if user else None)
        return Found(recognised, certificates, standing, past, usec)

    try:
        found = await channel.converse_then(talk, work)
    except Failure as error:
        if error.problem is not Problem.CARD_RESET:
            raise
        found = await channel.converse_then(talk, work)
    return (Event.PROBED_SAME if same(found) else Event.PROBED), found


async def certificates(
    channel: Channel, family: Profile, known: Probe
) -> tuple[Event, dict[str, Certificate]]:
    """The certificates that the probe left for later."""
    talk = Talk(lambda: family.certificates(known))
    return Event.CERTIFICATES_READ, await channel.converse_then(talk, trust.read_all)


async def rejudge(
    channel: Channel, office: Office, found: Mapping[str, Certificate]
) -> tuple[Event, Standing]:
    """What the holder's certificate is worth now."""
    usec = office.clock.usec()
    return Event.REJUDGED, await channel.aside(lambda: office.judge.judge(found, usec))


async def question(
    channel: Channel, family: Profile, known: Probe, home: Event, now: Now
) -> tuple[Event, Counted]:
    """The counters now, with nobody left verified."""
    talk = Talk(lambda: timed(family.question(known), now))
    return home, Counted(*await channel.converse(talk))


async def drop(  # noqa: PLR0913, PLR0917 - what a farewell needs
    channel: Channel, family: Profile, known: Probe, home: Event, now: Now, reset: bool = False
) -> tuple[Event, Counted]:
    """End every authority on the card, by command or by reset, and let go of it. `reset`: there
    may be one that no command of the family's ends."""
    talk = Talk(
        dialogue=lambda: timed(family.release(known), now),
        settled=lambda told: Disposition.RESET if reset or told[0] is None else Disposition.LEAVE,
        failed=Disposition.RESET,
    )
    return home, Counted(*await channel.converse(talk))


async def sign(  # noqa: PLR0913, PLR0917 - what one signature needs
    channel: Channel,
    family: Profile,
    known: Probe,
    ask: SignAsk,
    certificate: Certificate,
    fresh: bool,
) -> tuple[Event, Failure | None]:
    """One signature, held against its certificate before anybody gets it: another program may
    have changed what is selected on a shared card."""
    wanted = ask.request
    request = Request(wanted.slot, wanted.algorithm, wanted.digest, certificate.key_bits)
    talk = _held(ask, lambda: family.sign(known, request, fresh=fresh))

    def check(signature: bytes) -> bytes:
        der = certificate.der
        if not trust.signature_holds(der, wanted.algorithm, wanted.digest, signature):
            raise Failure(Problem.NOT_SUPPORTED, "the signature does not fit the certificate")
        return signature

    key = family.key(known, wanted.slot)
    wants_pin = key is not None and key.pin_always
    return await _used(ask, lambda: channel.converse_then(talk, check), wants_pin=wants_pin)


async def transmit(
    channel: Channel, ask: TransmitAsk, apdu: RawApdu
) -> tuple[Event, Failure | None]:
    """A caller's APDU, and what the card said."""
    talk = _held(ask, lambda: transmit_verbatim(apdu))

    async def converse() -> tuple[bytes, int]:
        reply = await channel.converse(talk)
        return reply.data, int(reply.sw)

    return await _used(ask, converse, wants_pin=False)


def _held(ask: UseAsk[Any], dialogue: Callable[[], Dialogue[Any]]) -> Talk[Any]:
    """A talk during a session that is active: the card is held before and after. What waits
    behind others is not begun for a caller who was answered: the session is over."""

    def wanted() -> Dialogue[Any]:
        if ask.answered.done():
            raise Failure(Problem.SESSION_ENDED, TEXTS[Problem.SESSION_ENDED])
        return dialogue()

    return Talk(wanted, lambda _: Disposition.HOLD, Disposition.HOLD)


async def _used(
    ask: UseAsk[Any], converse: Callable[[], Any], *, wants_pin: bool
) -> tuple[Event, Failure | None]:
    """Answers the ask itself: the seat may have moved on by the time that the card has spoken."""
    try:
        ask.answer(await converse())
    except Malformed:
        failure, home = Failure(Problem.CARD_RESET, "the card's answer makes no sense"), None
    except Failure as error:
        if error.problem in GONE:
            raise  # the desk tells all who wait, in the contract's order
        failure, home = error, _SESSION_CHANGED.get(error.problem)
    else:
        return Event.USED, None
    ask.fail(failure)
    if home is None or (wants_pin and home is Event.AUTHORITY_LOST):
        home = Event.USE_FAILED
    return home, failure


_SESSION_CHANGED = {
    Problem.CARD_RESET: Event.CARD_RESET,
    Problem.CARD_MUTE: Event.FOUND_MUTE,
    Problem.NOT_VERIFIED: Event.AUTHORITY_LOST,
}
"""Failures of a use that say something of the session."""
