"""What an active session proves, and what it may be used for."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

import pytest

from cardsession.config import Config, Hold, SessionConfig, TrustConfig
from cardsession.core import trust
from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import EndReason, Standing, Trust
from cardsession.core.signing import Algorithm
from cardsession.core.states import State
from cardsession.core.tries import Act, Consent, Outcome
from cardsession.ports import PinRequest, SignRequest
from cardsession.use_effects import MAX_USES
from cardsession.virtual.options import Slot
from fakes.channel import Pump
from fakes.counter import (
    CANARY,
    DISPENSER,
    STRANGER,
    WRONG,
    Counter,
    make_card,
    outcome,
    read,
    settle,
)

DIGEST = hashlib.sha256(b"a prescription").digest()
AUTHENTICATION = SignRequest("authentication", Algorithm.ECDSA_SHA256, DIGEST)
SIGNATURE = SignRequest("signature", Algorithm.ECDSA_SHA256, DIGEST)
BOTH = (Slot.AUTHENTICATION, Slot.SIGNATURE)
CHUID = bytes.fromhex("00CB3FFF055C035FC10200")
GENERAL_AUTHENTICATE = 0x87


def with_pin(request: SignRequest, text: str = CANARY, **consent: bool) -> PinRequest:
    """SignWithPin."""
    return PinRequest(Act.VERIFY, "", (read(text),), Consent(**consent), request)


def instead_of_signatures(answer: bytes) -> Callable[[int, bytes, bytes], bytes | None]:
    """A card that says this where it should sign."""
    return lambda _, apdu, __: answer if apdu[1] == GENERAL_AUTHENTICATE else None


def signs(pump: Pump) -> int:
    """How often the card was asked to sign."""
    return sum(apdu[1] == GENERAL_AUTHENTICATE for apdu in pump.apdus)


# possession


async def test_an_active_session_proved_that_the_card_owns_its_key() -> None:
    counter = Counter()
    await counter.active()
    assert counter.publisher.session.possession_proved
    assert not counter.publisher.session.holder_verified, "nobody said that it is trusted"
    assert signs(counter.channel.pump) == 1


async def test_the_holder_is_verified_with_possession_and_trust() -> None:
    counter = Counter()
    counter.judge.standing = Standing(Trust.TRUSTED)
    await counter.active()
    assert counter.publisher.session.holder_verified


async def test_no_two_proofs_are_over_the_same_nonce() -> None:
    counter = Counter()
    _, session = await counter.active()
    await counter.verify(session)
    asked = [apdu for apdu in counter.channel.pump.apdus if apdu[1] == GENERAL_AUTHENTICATE]
    assert len(asked) == len(set(asked)) == 2


@pytest.mark.parametrize("answer", ["9000", "6A88", "6982", "7C068204DEADBEEF9000", "7C009000"])
@pytest.mark.parametrize("locked", [False, True])
async def test_a_card_that_cannot_prove_it_ends_the_session_after_its_judgement(
    answer: str, locked: bool
) -> None:
    counter = Counter()
    session = await counter.open() if (await counter.ready()) else 0
    if locked:
        await counter.verify(session)
        await counter.desks.lock(session, DISPENSER)
    counter.channel.pump.after = instead_of_signatures(bytes.fromhex(answer))
    verdict = await counter.verify(session)
    assert verdict.outcome is Outcome.VERIFIED, "what the card judged is told"
    await settle()
    assert counter.publisher.reasons() == [EndReason.POSSESSION_FAILED]
    assert counter.state is State.READY
    assert not counter.channel.holding


async def test_another_cards_signature_is_no_proof() -> None:
    counter = Counter()
    other = make_card()
    await counter.ready()
    session = await counter.open()

    def borrowed(_: int, apdu: bytes, __: bytes) -> bytes | None:
        if apdu[1] != GENERAL_AUTHENTICATE:
            return None
        other.process(bytes.fromhex("00A404000BA000000308000010000100"))
        other.process(bytes.fromhex("0020008008") + CANARY.encode())
        return other.process(apdu)

    counter.channel.pump.after = borrowed
    await counter.verify(session)
    await settle()
    assert counter.publisher.reasons() == [EndReason.POSSESSION_FAILED]


async def test_a_card_without_a_certificate_proves_nothing_and_says_so() -> None:
    counter = Counter()
    await counter.active(make_card(slots=()))
    assert not counter.publisher.session.possession_proved
    assert not counter.publisher.session.holder_verified


# trust


@pytest.mark.parametrize("accepted", [frozenset({Trust.TRUSTED}), frozenset(Trust)])
async def test_what_trust_a_session_needs_is_the_sites_to_say(accepted: frozenset[Trust]) -> None:
    counter = Counter(Config(trust=TrustConfig(accepted=accepted)))
    counter.judge.standing = Standing(Trust.UNTRUSTED, "who signed this?")
    await counter.ready()
    session = await counter.open()
    result = await outcome(counter.verify(session))
    if Trust.UNTRUSTED in accepted:
        assert result.outcome is Outcome.VERIFIED
    else:
        assert result == "NotTrusted"
        assert counter.channel.pump.verifies == [], "nothing is sent to it"
        assert counter.state is State.UNVERIFIED


async def test_trust_that_is_lost_ends_the_session() -> None:
    accepted = frozenset({Trust.TRUSTED})
    limits = SessionConfig(idle_seconds=86_400)
    counter = Counter(Config(session=limits, trust=TrustConfig(accepted=accepted)))
    counter.judge.standing = Standing(Trust.TRUSTED)
    await counter.active()
    counter.judge.standing = Standing(Trust.REVOKED, "in the list of today")
    counter.clock.advance(3_601)
    await settle()
    assert counter.publisher.reasons() == [EndReason.NOT_TRUSTED]
    assert counter.publisher.card.standing.trust is Trust.REVOKED


async def test_trust_that_is_lost_and_not_asked_for_is_only_shown() -> None:
    counter = Counter(Config(session=SessionConfig(idle_seconds=86_400)))
    counter.judge.standing = Standing(Trust.TRUSTED)
    await counter.active()
    counter.judge.standing = Standing(Trust.EXPIRED)
    counter.clock.advance(3_601)
    await settle()
    assert counter.state is State.ACTIVE
    assert not counter.publisher.session.holder_verified


# signatures


@pytest.mark.parametrize("hold", Hold)
async def test_a_signature_fits_the_certificate_and_counts_as_activity(hold: Hold) -> None:
    counter = Counter(Config(session=SessionConfig(hold=hold)))
    _, session = await counter.active()
    counter.clock.advance(10)
    signature = await counter.desks.sign(session, DISPENSER, AUTHENTICATION)
    der = counter.publisher.card.certificates["authentication"].der
    assert trust.signature_holds(der, Algorithm.ECDSA_SHA256, DIGEST, signature)
    await settle()
    shown = counter.publisher.session
    assert shown.last_activity_monotonic_usec == counter.clock.monotonic_usec()
    assert shown.exchange_count > 0


async def test_signatures_queue_up_and_too_many_are_too_many() -> None:
    counter = Counter()
    _, session = await counter.active()
    asked = [
        asyncio.ensure_future(outcome(counter.desks.sign(session, DISPENSER, AUTHENTICATION)))
        for _ in range(MAX_USES + 3)
    ]
    results = await asyncio.gather(*asked)
    assert results.count("Busy") == 3
    assert len({each for each in results if each != "Busy"}) == MAX_USES
    await settle()
    assert await counter.desks.sign(session, DISPENSER, AUTHENTICATION)


async def test_who_may_not_sign_and_what_cannot_be_signed() -> None:
    counter = Counter()
    _, session = await counter.active(make_card(slots=BOTH))
    await settle()
    sign = counter.desks.sign
    assert await outcome(sign(session, STRANGER, AUTHENTICATION)) == "NotOwner"
    nowhere = SignRequest("third", Algorithm.ECDSA_SHA256, DIGEST)
    assert await outcome(sign(session, DISPENSER, nowhere)) == "NoSuchSlot"
    rsa = SignRequest("authentication", Algorithm.RSA_SHA256, DIGEST)
    assert await outcome(sign(session, DISPENSER, rsa)) == "UnsupportedAlgorithm"
    assert await outcome(sign(session, DISPENSER, SIGNATURE)) == "NotVerified"
    assert counter.state is State.ACTIVE, "a key that wants the PIN each time changes nothing"
    assert counter.publisher.reader.last_error == ""


async def test_a_signature_that_does_not_fit_is_not_handed_out() -> None:
    counter = Counter()
    _, session = await counter.active()
    other = bytes.fromhex("7C0A820830060201070201079000")
    for answer, told in ((other, "NotSupported"), (bytes.fromhex("7C0282009000"), "CardReset")):
        counter.channel.pump.after = instead_of_signatures(answer)
        result = await outcome(counter.desks.sign(session, DISPENSER, AUTHENTICATION))
        assert result == told
    await settle()
    assert counter.state is State.ACTIVE


async def test_an_authority_that_a_rival_dropped_is_noticed() -> None:
    counter = Counter(Config(session=SessionConfig(hold=Hold.SHARED)))
    card, session = await counter.active()
    card.process(bytes.fromhex("0020FF80"))
    assert await outcome(counter.desks.sign(session, DISPENSER, AUTHENTICATION)) == "NotVerified"
    await settle()
    assert counter.state is State.UNVERIFIED
    assert not counter.publisher.session.possession_proved
    assert not counter.channel.holding


async def test_a_rivals_reset_ends_the_session() -> None:
    counter = Counter(Config(session=SessionConfig(hold=Hold.SHARED)))
    _, session = await counter.active()

    def reset(_: int, apdu: bytes) -> bytes | None:
        raise Failure(Problem.CARD_RESET, "another program reset the card")

    counter.channel.pump.before = reset
    assert await outcome(counter.desks.sign(session, DISPENSER, AUTHENTICATION)) == "CardReset"
    counter.channel.pump.before = lambda _, __: None
    await settle()
    assert counter.publisher.reasons() == [EndReason.CARD_RESET]


async def test_a_card_that_is_pulled_answers_every_signature_before_the_session_ends() -> None:
    counter = Counter()
    _, session = await counter.active()
    counter.channel.paused = True
    asked = [
        asyncio.ensure_future(outcome(counter.desks.sign(session, DISPENSER, AUTHENTICATION)))
        for _ in range(3)
    ]
    await settle(5)
    counter.pull()
    assert [await each for each in asked] == ["CardRemoved"] * 3
    counter.channel.resume()
    await settle()
    assert counter.state is State.EMPTY


async def test_a_session_that_ends_finishes_the_signatures_that_were_asked_for() -> None:
    counter = Counter()
    _, session = await counter.active()
    counter.channel.paused = True
    asked = asyncio.ensure_future(counter.desks.sign(session, DISPENSER, AUTHENTICATION))
    await settle(5)
    closing = asyncio.ensure_future(counter.desks.end(session, EndReason.CLOSED))
    await settle(5)
    counter.channel.resume()
    assert await asked
    await closing
    assert counter.state is State.READY


# signatures with a PIN of their own


async def test_sign_with_pin_is_one_verify_and_one_signature() -> None:
    counter = Counter()
    card, session = await counter.active(make_card(slots=BOTH))
    await settle()
    before = len(counter.channel.pump.apdus)
    verdict = await counter.request(session, with_pin(SIGNATURE))
    assert verdict.outcome is Outcome.VERIFIED
    der = counter.publisher.card.certificates["signature"].der
    assert trust.signature_holds(der, Algorithm.ECDSA_SHA256, DIGEST, verdict.signature)
    said = counter.channel.pump.apdus[before:]
    at = next(at for at, apdu in enumerate(said) if apdu[1] == 0x20 and len(apdu) > 5)
    assert said[at + 1][1] == GENERAL_AUTHENTICATE, "nothing stands between the two"
    assert sum(apdu[1] == 0x20 and len(apdu) > 5 for apdu in said) == 1
    assert counter.state is State.ACTIVE
    assert card.pins.reference(0x80).left == 3


async def test_sign_with_a_wrong_pin_signs_nothing_and_drops_the_session_to_unverified() -> None:
    counter = Counter()
    _, session = await counter.active(make_card(slots=BOTH))
    await settle()
    before = signs(counter.channel.pump)
    verdict = await counter.request(session, with_pin(SIGNATURE, WRONG))
    assert (verdict.outcome, verdict.left, verdict.signature) == (Outcome.INCORRECT, 2, b"")
    assert signs(counter.channel.pump) == before
    assert counter.state is State.UNVERIFIED
    assert not counter.channel.holding


async def test_sign_with_pin_keeps_the_last_try_back() -> None:
    counter = Counter()
    card, session = await counter.active(make_card(slots=BOTH))
    await settle()
    card.pins.reference(0x80).left = 1
    verdict = await counter.request(session, with_pin(SIGNATURE, WRONG))
    assert (verdict.outcome, verdict.left) == (Outcome.REFUSED_LAST_TRY, 1)


async def test_sign_with_pin_needs_an_active_session() -> None:
    counter = Counter()
    await counter.ready(make_card(slots=BOTH))
    session = await counter.open()
    assert await outcome(counter.request(session, with_pin(SIGNATURE))) == "NotVerified"
    assert counter.channel.pump.verifies == []


async def test_a_right_pin_without_a_signature_is_told_as_a_failure() -> None:
    counter = Counter()
    _, session = await counter.active(make_card(slots=BOTH))
    await settle()
    counter.channel.pump.after = instead_of_signatures(bytes.fromhex("6F00"))
    assert await outcome(counter.request(session, with_pin(SIGNATURE))) == "NotSupported"
    assert counter.state is State.ACTIVE


# APDUs of the caller's own


async def test_an_apdu_goes_out_as_it_came_and_so_does_the_answer() -> None:
    counter = Counter()
    _, session = await counter.active()
    data, sw = await counter.desks.transmit(session, DISPENSER, CHUID)
    assert counter.channel.pump.apdus[-1] == CHUID
    assert data or sw >> 8 == 0x61
    verify = bytes.fromhex("0020008008") + WRONG.encode()
    count = len(counter.channel.pump.apdus)
    assert await outcome(counter.desks.transmit(session, DISPENSER, verify)) == "ApduFiltered"
    assert await outcome(counter.desks.transmit(session, DISPENSER, b"\x00\xa4")) == "InvalidApdu"
    assert len(counter.channel.pump.apdus) == count
    assert counter.trail.told("apdu.asked")[0]["header"].startswith("00 CB 3F FF")


async def test_no_passcode_and_no_digest_reaches_an_application_that_a_caller_selected() -> None:
    counter = Counter()
    card, session = await counter.active()
    await counter.desks.transmit(session, DISPENSER, bytes.fromhex("00A4040005A000000001"))
    before = len(counter.channel.pump.apdus)
    result = await outcome(counter.desks.sign(session, DISPENSER, AUTHENTICATION))
    assert counter.channel.pump.apdus[before][1] in (0xA4, 0xCB), "who is it, before it signs"
    assert isinstance(result, bytes) or result == "NotVerified"
    if counter.state is State.ACTIVE:
        await counter.desks.transmit(session, DISPENSER, bytes.fromhex("00A4040005A000000001"))
    before = len(counter.channel.pump.apdus)
    assert (await counter.verify(session)).outcome is Outcome.VERIFIED
    assert counter.channel.pump.apdus[before][:2] == b"\x00\xa4"
    assert card.pins.reference(0x80).left == 3


# what the owner learnt elsewhere


async def test_context_is_checked_published_and_replaced() -> None:
    counter = Counter()
    _, session = await counter.active()
    set_context = counter.desks.set_context
    await set_context(session, DISPENSER, {"ods-code": "FA123"})
    assert counter.publisher.session.context == {"ods-code": "FA123"}
    assert await outcome(set_context(session, DISPENSER, {"ods-code": "?"})) == "InvalidContext"
    assert counter.publisher.session.context == {"ods-code": "FA123"}
    await set_context(session, DISPENSER, {})
    assert counter.publisher.session.context == {}


async def test_context_needs_an_active_session() -> None:
    counter = Counter()
    await counter.ready()
    session = await counter.open()
    asked = counter.desks.set_context(session, DISPENSER, {"ods-code": "FA123"})
    assert await outcome(asked) == "NotVerified"
