"""Submissions: one passcode, read from where the caller put it, judged once by the card.

A conversation like those of `conversations.py`; here it is decided what becomes of the card's
authority after it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto

from cardsession import conversations
from cardsession.asks import SubmitAsk
from cardsession.cards.guard import takes
from cardsession.cards.profile import Pin, Probe, Profile, Request
from cardsession.conversations import Counted, Now, T, timed
from cardsession.core import signing, trust
from cardsession.core.dialogue import Attempt, Dialogue, Reset
from cardsession.core.errors import Failure, Malformed, Problem
from cardsession.core.facts import Certificate
from cardsession.core.passcode import NewPinRule
from cardsession.core.secret import BadFormat, Secret
from cardsession.core.states import Event
from cardsession.core.tries import Act, Judged, Known, Outcome, Unknown, Verified
from cardsession.ports import Channel, Disposition, Talk

NONCE_BYTES = 32


class Proof(Enum):
    """Whether the card owns the key of its authentication certificate."""

    NOT_ASKED = auto()
    GIVEN = auto()
    FAILED = auto()
    NOT_POSSIBLE = auto()
    """No certificate, or a kind of key that nobody here can verify."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Under what circumstances a secret is submitted."""

    pin: Pin
    """Whose counter is at stake."""
    fresh: Pin | None
    """Whose new passcode comes with it."""
    rule: NewPinRule | None
    """The site's rule for it."""
    active: bool
    """Whether the session has an authority that is held."""
    exclusive: bool
    certificates: Mapping[str, Certificate]
    now: Now
    fence: Callable[[], Awaitable[None]]
    """Returns when calls that were made before now have come in."""
    reset: bool = False
    """Whether the card had to be reset before the secret was sent."""
    changed_usec: Callable[[], int] = lambda: 0
    """When the ledger says that the passcode was last changed; for the reader's thread."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """What came of it."""

    judged: Judged
    usec: int = 0
    """When the card did; 0 if it was not asked."""
    signature: bytes = b""
    proof: Proof = Proof.NOT_ASKED
    failure: Failure | None = None
    """The passcode was right, and the signature was not to be had."""
    changed_usec: int = 0
    """When the passcode got its new value, as a restart will find it."""
    label: str = ""
    """The PIN whose counter was at stake, if it came to that: a card that shows a key to its
    holder only tells no earlier which PIN guards it."""
    dropped: Counted | None = None
    """The counters read afterwards, where the authority that came with it was dropped."""


async def submit(
    channel: Channel, family: Profile, known: Probe, ask: SubmitAsk, terms: Terms
) -> tuple[Event, Submitted | Failure]:
    """One guarded submission; the card is held from the moment that it is unlocked."""
    try:
        unfit = await _read(ask, terms)
    except Failure as error:
        return Event.PIN_UNSENT, error
    if unfit is not None:
        return Event.PIN_JUDGED, Submitted(Judged(unfit, Unknown(), sent=False))
    seen = _Seen()
    talk = Talk(
        dialogue=lambda: timed(_watched(_dialogue(family, known, ask, terms), seen), terms.now),
        settled=lambda said: _disposition(said[0][0], ask, _as_seen(terms, known, seen)),
        failed=Disposition.RESET,
        exclusive=terms.exclusive,
        permit=ask.permit,
        asked_by=ask.asked_by,
    )

    def check(said: tuple[Said, int]) -> Submitted:
        found = replace(_checked(said[0], ask, terms), usec=said[1])
        taken = found.judged.outcome in (Outcome.CHANGED, Outcome.UNBLOCKED)
        return replace(found, changed_usec=terms.changed_usec()) if taken else found

    submitted = await channel.converse_then(talk, check)
    if submitted.judged.sent:
        # a double click is no second try: one that waits on the bus hears Busy, before the reply
        await terms.fence()
    terms = _as_seen(terms, known, seen)
    submitted = replace(submitted, label=terms.pin.label)
    if _left_over(submitted.judged, ask, terms):
        submitted = replace(submitted, dropped=await _drop(channel, family, known, terms.now))
    return _home(submitted, ask, terms), submitted


async def _drop(channel: Channel, family: Profile, known: Probe, now: Now) -> Counted:
    """What nobody has a session for is taken back; the judgement is told whatever comes of it."""
    try:
        return (await conversations.drop(channel, family, known, Event.PIN_JUDGED, now))[1]
    except (Failure, Malformed):
        return Counted(None)


# the secrets


async def _read(ask: SubmitAsk, terms: Terms) -> Outcome | None:
    """Read what the caller sent: the outcome of a secret that no card needs to see, or None.
    Whatever is not going to be sent is wiped."""
    read = await asyncio.gather(*(read() for read in ask.request.reads), return_exceptions=True)
    ask.secrets.extend(each for each in read if isinstance(each, Secret))
    sending = False
    try:
        unfit = next((_unfit(at) for at, each in enumerate(read) if _is_unfit(ask, each)), None)
        if ask.permit.withdrawn:
            raise Failure(Problem.IN_USE_ELSEWHERE, "the submission was withdrawn in time")
        unfit = unfit or _misfit(ask.secrets, terms)
        sending = unfit is None
        return unfit
    finally:
        if not sending:
            ask.wipe()


def _is_unfit(ask: SubmitAsk, read: Secret | BaseException) -> bool:
    """Whether no card needs to see it. Raises what is wrong with the caller's descriptor."""
    if isinstance(read, Secret | BadFormat):
        return isinstance(read, BadFormat)
    if isinstance(read, Failure) or not isinstance(read, Exception):
        raise read
    # of a kind that the desks do not know: it is the caller's, who gets it as it is
    if not ask.answered.done():
        ask.answered.set_exception(read)
    raise Failure(Problem.SECRET_INVALID, "the secret cannot be read")


def _misfit(secrets: list[Secret], terms: Terms) -> Outcome | None:
    """What the card does not take, or the site does not want."""
    if not takes(terms.pin, secrets[0]):
        return _unfit(0)
    if terms.fresh is None:
        return None
    ruled = terms.rule is None or terms.rule.admits(secrets[1])
    return None if ruled and takes(terms.fresh, secrets[1]) else _unfit(1)


def _unfit(at: int) -> Outcome:
    return Outcome.BAD_NEW_PIN if at else Outcome.BAD_FORMAT


# the talk


@dataclass(slots=True)
class _Seen:
    """What a family did on its way to the one command."""

    counter: int | None = None
    """Of the PIN that was tried."""
    reset: bool = False


def _watched(dialogue: Dialogue[T], seen: _Seen) -> Dialogue[T]:
    """The same dialogue; which PIN it is about, and whether it reset the card, is noted."""
    try:
        step = next(dialogue)
        while True:
            match step:
                case Attempt(_, counter):
                    seen.counter = counter
                case Reset():
                    seen.reset = True
            try:
                answer = yield step
            except Malformed as error:
                step = dialogue.throw(error)
            else:
                step = dialogue.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        dialogue.close()


def _as_seen(terms: Terms, known: Probe, seen: _Seen) -> Terms:
    """The circumstances as they turned out to be."""
    pins = (terms.pin, *known.pins.values())
    tried = (pin for pin in pins if pin.counter == seen.counter)
    return replace(terms, pin=next(tried, terms.pin), reset=seen.reset)


Said = tuple[Judged, bytes, Request | None]
"""A judgement, and the signature that was asked for with it."""


def _dialogue(family: Profile, known: Probe, ask: SubmitAsk, terms: Terms) -> Dialogue[Said]:
    asked, pin, secrets = ask.request, terms.pin, ask.secrets
    consent, wanted = asked.consent, asked.signing
    signature, request = b"", None
    match asked.act:
        case Act.CHANGE:
            judged = yield from family.change(known, pin, secrets[0], secrets[1], consent)
        case Act.UNBLOCK:
            target = terms.fresh or pin
            judged = yield from family.unblock(known, target, secrets[0], secrets[1], consent)
        case Act.VERIFY if wanted is not None:
            request = _request(wanted.slot, wanted.algorithm, wanted.digest, terms)
            judged, signature = yield from family.sign_with_pin(known, request, secrets[0], consent)
        case Act.VERIFY:
            judged = yield from family.verify(known, pin, secrets[0], consent)
            if judged.outcome is Outcome.VERIFIED and pin.grants:
                request = _nonce(terms)
                signature = (yield from _proof(family, known, request)) if request else b""
    return judged, signature, request


def _request(slot: str, algorithm: signing.Algorithm, digest: bytes, terms: Terms) -> Request:
    return Request(slot, algorithm, digest, terms.certificates[slot].key_bits)


def _nonce(terms: Terms) -> Request | None:
    """What the card is to sign: a nonce of ours, hashed by us, so that it can be nothing else."""
    holder = terms.certificates.get("authentication")
    if holder is None:
        return None
    try:
        algorithm = signing.fitting(holder.key_type, holder.key_bits)
    except Failure:
        return None
    challenge = b"org.cardsession1 proof of possession" + os.urandom(NONCE_BYTES)
    digest = hashlib.new(algorithm.hash_name, challenge).digest()
    return _request("authentication", algorithm, digest, terms)


def _proof(family: Profile, known: Probe, nonce: Request) -> Dialogue[bytes]:
    """The signature; b"" of a card that gives none. One that is gone says nothing of its key."""
    try:
        return (yield from family.sign(known, nonce, fresh=True))
    except Malformed:
        return b""
    except Failure as error:
        if error.problem in conversations.LOST or error.problem is Problem.CARD_RESET:
            raise
        return b""


def _checked(said: Said, ask: SubmitAsk, terms: Terms) -> Submitted:
    """Off the loop: the signature held against its certificate, before anybody relies on it."""
    judged, signature, request = said
    if judged.outcome is not Outcome.VERIFIED:
        return Submitted(judged)
    if request is None:
        return Submitted(judged, proof=Proof.NOT_POSSIBLE)
    der = terms.certificates[request.slot].der
    holds = trust.signature_holds(der, request.algorithm, request.digest, signature)
    if ask.request.signing is None:
        return Submitted(judged, proof=Proof.GIVEN if holds else Proof.FAILED)
    if holds:
        return Submitted(judged, signature=signature)
    text = "the card gave no signature that fits the certificate"
    return Submitted(judged, failure=Failure(Problem.NOT_SUPPORTED, text))


# what becomes of the authority


def _keeps(judged: Judged, ask: SubmitAsk, terms: Terms) -> bool:
    """Whether an active session's authority is still there after this judgement."""
    if judged.outcome is Outcome.UNCERTAIN or ask.request.act is Act.UNBLOCK:
        return False
    if terms.reset and not isinstance(judged.status, Verified):
        return False  # to end a verification of this PIN, those of all PINs were ended
    if not terms.pin.grants:
        return not terms.reset
    if ask.request.act is Act.CHANGE:
        return judged.outcome is Outcome.CHANGED and not isinstance(judged.status, Known)
    return judged.outcome is Outcome.VERIFIED


def _grants(judged: Judged, ask: SubmitAsk, terms: Terms) -> bool:
    """Whether the session becomes active by it."""
    verify = ask.request.act is Act.VERIFY
    return verify and judged.outcome is Outcome.VERIFIED and terms.pin.grants


def _left_over(judged: Judged, ask: SubmitAsk, terms: Terms) -> bool:
    """Whether the card may be unlocked now, for a session that is not active."""
    taken = judged.outcome in (Outcome.VERIFIED, Outcome.CHANGED, Outcome.UNBLOCKED)
    return taken and not terms.active and not _grants(judged, ask, terms)


def _disposition(judged: Judged, ask: SubmitAsk, terms: Terms) -> Disposition:
    if _grants(judged, ask, terms) or _left_over(judged, ask, terms):
        return Disposition.HOLD
    if terms.active:
        return Disposition.HOLD if _keeps(judged, ask, terms) else Disposition.RESET
    # an answer that was none may have been a yes
    return Disposition.RESET if judged.outcome is Outcome.UNCERTAIN else Disposition.LEAVE


def _home(submitted: Submitted, ask: SubmitAsk, terms: Terms) -> Event:
    judged, act = submitted.judged, ask.request.act
    if submitted.proof is Proof.FAILED:
        return Event.POSSESSION_FAILED
    if judged.outcome is Outcome.NOW_BLOCKED and act is not Act.UNBLOCK and terms.pin.grants:
        return Event.PIN_BLOCKED
    if _grants(judged, ask, terms):
        return Event.PIN_VERIFIED if ask.request.signing is None else Event.PIN_USED
    if not (terms.active and _keeps(judged, ask, terms)):
        return Event.PIN_FAILED
    verified = judged.outcome is Outcome.VERIFIED
    return Event.PIN_USED if verified else Event.PIN_JUDGED
