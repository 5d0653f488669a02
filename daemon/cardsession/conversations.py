"""What a desk has said to its card: each coroutine ends as an event with what it brought home."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cardsession.asks import VerifyAsk
from cardsession.cards import recognise
from cardsession.cards.profile import Pin, Probe, Profile, Recognised
from cardsession.core import trust, update
from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import CardFacts, Certificate
from cardsession.core.secret import BadFormat
from cardsession.core.session import Event
from cardsession.core.tries import Judged, Outcome, PinStatus, Unknown
from cardsession.ports import Channel, Disposition, Talk


@dataclass(frozen=True, slots=True)
class Found:
    """What a probe brought home."""

    recognised: Recognised
    certificates: Mapping[str, Certificate]

    def shown_on(self, card: CardFacts, usec: int, renewal_days: int) -> CardFacts:
        """The card's facts as found, at `usec`."""
        family, probe = self.recognised
        return update.identified(
            card,
            profile=probe.profile,
            serial=probe.serial,
            tries=probe.tries,
            certificates=self.certificates,
            usec=usec,
            renewal_days=renewal_days,
            known=family is not None,
        )


@dataclass(frozen=True, slots=True)
class Counted:
    """The counters as the card told them; None: it could not be asked."""

    tries: Mapping[str, PinStatus] | None


async def probe(channel: Channel) -> tuple[Event, Found]:
    """Who is this? Reads are replayed once after a rival's reset."""
    try:
        return Event.PROBED, await channel.converse_then(Talk(recognise), _found)
    except Failure as error:
        if error.problem is not Problem.CARD_RESET:
            raise
        return Event.PROBED, await channel.converse_then(Talk(recognise), _found)


def _found(recognised: Recognised) -> Found:
    return Found(recognised, trust.read_all(recognised[1].certificates))


async def certificates(
    channel: Channel, family: Profile, known: Probe
) -> tuple[Event, dict[str, Certificate]]:
    """The certificates that the probe left for later."""
    talk = Talk(lambda: family.certificates(known))
    return Event.CERTIFICATES_READ, await channel.converse_then(talk, trust.read_all)


async def question(
    channel: Channel, family: Profile, known: Probe, home: Event
) -> tuple[Event, Counted]:
    """The counters now, with nobody left verified."""
    return home, Counted(await channel.converse(Talk(lambda: family.question(known))))


async def verify(  # noqa: PLR0913 - what one submission needs
    channel: Channel, family: Profile, known: Probe, pin: Pin, ask: VerifyAsk, *, exclusive: bool
) -> tuple[Event, Judged | Failure]:
    """One guarded VERIFY; the card is held from the moment that it is unlocked."""
    refused = Judged(Outcome.BAD_FORMAT, Unknown(), sent=False)
    try:
        secret = ask.secret = await ask.read()
    except BadFormat:
        return Event.PIN_REFUSED, refused
    except Failure as error:
        return Event.PIN_UNSENT, error
    except Exception as error:  # the descriptor is the caller's, and so is what is wrong with it
        if not ask.answered.done():
            ask.answered.set_exception(error)
        return Event.PIN_UNSENT, Failure(Problem.SECRET_INVALID, "the secret cannot be read")
    if ask.permit.withdrawn:
        ask.wipe()
        withdrawn = Failure(Problem.IN_USE_ELSEWHERE, "the submission was withdrawn in time")
        return Event.PIN_UNSENT, withdrawn
    if len(secret) > pin.stored_length:
        return Event.PIN_REFUSED, refused
    talk = Talk(
        dialogue=lambda: family.verify(known, pin, secret, ask.consent),
        settled=_after_verify,
        failed=Disposition.RESET,
        exclusive=exclusive,
        permit=ask.permit,
    )
    judged = await channel.converse(talk)
    homes = {Outcome.VERIFIED: Event.PIN_VERIFIED, Outcome.NOW_BLOCKED: Event.PIN_BLOCKED}
    return homes.get(judged.outcome, Event.PIN_FAILED), judged


async def drop(
    channel: Channel, family: Profile, known: Probe, home: Event
) -> tuple[Event, Counted]:
    """End every authority on the card, by command or by reset, and let go of it."""
    talk = Talk(
        dialogue=lambda: family.release(known),
        settled=lambda tries: Disposition.RESET if tries is None else Disposition.LEAVE,
        failed=Disposition.RESET,
    )
    return home, Counted(await channel.converse(talk))


def _after_verify(judged: Judged) -> Disposition:
    match judged.outcome:
        case Outcome.VERIFIED:
            return Disposition.HOLD
        case Outcome.UNCERTAIN:
            return Disposition.RESET  # the card may have said yes
        case _:
            return Disposition.LEAVE
