"""What a hostile review broke once: each test is one attack, and what must come of it."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import Any

import pytest

from cardsession.cards import families
from cardsession.cards.declaration import Declaration
from cardsession.config import Config, Hold, PinConfig, SessionConfig, TrustConfig
from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import EndReason, SessionState, Standing, Trust
from cardsession.core.policy import Removal
from cardsession.core.secret import BadFormat, Secret
from cardsession.core.signing import Algorithm
from cardsession.core.states import State
from cardsession.core.tries import (
    Act,
    Blocked,
    Consent,
    Known,
    Outcome,
    Source,
    Unknown,
    Verified,
)
from cardsession.ports import PinRequest, SignRequest, Verdict
from cardsession.virtual.options import PinPolicy, Slot
from fakes.channel import is_verify_with_data
from fakes.counter import (
    CANARY,
    DISPENSER,
    WRONG,
    Counter,
    make_card,
    outcome,
    read,
    settle,
)
from fakes.pkcs15 import CardKey, CardPin, FakeCard, standard_card
from fakes.pkcs15_files import (
    APP,
    COMMITS,
    SIGN,
    certificate,
    certificate_entry,
    key_entry,
    pin_entry,
    private_key,
    token_entry,
)

DIGEST = hashlib.sha256(b"a prescription").digest()
ELLIPTIC = SignRequest("authentication", Algorithm.ECDSA_SHA256, DIGEST)
SIGNATURE = SignRequest("signature", Algorithm.RSA_SHA256, DIGEST)
SELECT_ANOTHER = bytes.fromhex("00A4040008A000000151000000")
SELECT_PIV = bytes.fromhex("00A404000BA000000308000010000100")
SIGNATURE_PIN = "55556666"
PIN = 0x80
GENERAL_AUTHENTICATE = 0x87
ASKED = Declaration(source="this test", manufacturer="Maker", asking_is_free=True)
ONLY_TRUSTED = TrustConfig(accepted=frozenset({Trust.TRUSTED}))


def wrong_by_a_rival(card: Any, times: int) -> None:
    """Tries that another program takes away."""
    card.process(SELECT_PIV)
    for _ in range(times):
        card.process(bytes([0x00, 0x20, 0x00, PIN, 0x08]) + WRONG.encode())


def signs(counter: Counter) -> int:
    """How often the card was asked to sign."""
    return sum(apdu[1] == GENERAL_AUTHENTICATE for apdu in counter.channel.pump.apdus)


def accepting(*declared: Declaration) -> Counter:
    """A site that accepts unknown counts of PKCS#15 cards."""
    session = SessionConfig(accept_unknown=frozenset({"pkcs15"}))
    return Counter(Config(session=session), families=families(declared))


def two_pins(*, hidden: bool = False) -> FakeCard:
    """A PKCS#15 card with a PIN for each key; `hidden`: it shows its keys to its holder only."""
    files = {
        APP + "4401": pin_entry("PIN", 1, 1) + pin_entry("Signing", 2, 2),
        APP + "4402": key_entry(1, (SIGN,), 1, auth_id=1) + key_entry(2, (COMMITS,), 2, auth_id=2),
        APP + "4403": certificate_entry(1, label="auth")
        + certificate_entry(2, APP + "4302", label="sign"),
        APP + "4302": certificate("rsa2048", 1),
    }
    pins = {1: CardPin(CANARY.encode()), 2: CardPin(SIGNATURE_PIN.encode())}
    keys = {1: CardKey(private_key("rsa2048")), 2: CardKey(private_key("rsa2048", 1), pin=2)}
    made = Discreet if hidden else FakeCard
    return made(standard_card(files=files).files, pins, keys)


class Discreet(FakeCard):
    """Its keys are nobody's business but its holder's."""

    def _binary(self, p1: int, p2: int, data: bytes, ne: int | None) -> bytes | str:
        if self.file == APP + "4402" and not self.pins[1].verified:
            return "6982"
        return super()._binary(p1, p2, data, ne)


def with_pin(request: SignRequest, text: str) -> PinRequest:
    """SignWithPin."""
    return PinRequest(Act.VERIFY, "", (read(text),), Consent(), request)


# the guard


async def test_a_card_that_nothing_tells_from_another_keeps_its_last_try() -> None:
    counter = accepting()
    nameless = {APP + "5032": token_entry(serial=b"\x00"), APP + "4301": b"", APP + "4403": b""}
    card = standard_card(files=nameless, asking="costs")
    await counter.ready(card)
    session = await counter.open()
    for _ in range(3):
        verdict = await counter.verify(session, WRONG)
        assert verdict.outcome is Outcome.REFUSED_LAST_TRY, "nobody could remember what it says"
    assert card.pins[1].left == 3
    verdict = await counter.verify(session, WRONG, spend_last_try=True)
    assert verdict == Verdict(Outcome.INCORRECT, 2), "who agrees to both may"


class TwoPlaces(FakeCard):
    """Two directories, each with a PIN of reference 1 of its own."""

    def _verify(self, p1: int, p2: int, data: bytes, ne: int | None) -> bytes | str:
        return super()._verify(p1, 1 if self.here.startswith(APP + "1001") else 2, data, ne)


async def test_the_success_of_one_pin_says_nothing_of_another_with_its_reference() -> None:
    files: dict[str, Any] = {
        APP + "4401": pin_entry("PIN", 1, 1, where=APP + "1001")
        + pin_entry("Signing", 2, 1, where=APP + "1002"),
        APP + "1001" + "0001": b"here",
        APP + "1002" + "0001": b"there",
    }
    standard = standard_card(files=files)
    pins = {1: CardPin(CANARY.encode()), 2: CardPin(SIGNATURE_PIN.encode())}
    card = TwoPlaces(standard.files, pins, standard.keys, asking="costs")
    counter = accepting()
    await counter.ready(card)
    session = await counter.open()
    for _ in range(2):
        await counter.submit(session, read(WRONG), label="signing")
    assert card.pins[2].left == 1
    assert (await counter.verify(session)).outcome is Outcome.VERIFIED, "its own count is another"
    verdict = await counter.submit(session, read(WRONG), label="signing")
    assert verdict.outcome is Outcome.REFUSED_LAST_TRY
    assert card.pins[2].left == 1


# a wrong state, a wrong number, another PIN's


async def test_a_signature_with_a_pin_that_was_not_known_before_is_counted_as_that_pins() -> None:
    counter = accepting()
    card = two_pins(hidden=True)
    await counter.ready(card)
    await settle()
    session = await counter.open()
    await counter.verify(session)
    verdict = await counter.request(session, with_pin(SIGNATURE, WRONG))
    assert verdict == Verdict(Outcome.INCORRECT, 2)
    assert (card.pins[1].left, card.pins[2].left) == (3, 2)
    shown = counter.publisher.card.pins.status
    assert (shown["user"], shown["signature"]) == (Verified(), Known(2))
    assert counter.trail.told("pin.judged")[-1]["label"] == "signature"
    assert counter.state is State.ACTIVE, "the user's PIN is verified still"


@pytest.mark.parametrize("text", [SIGNATURE_PIN, WRONG])
async def test_an_authority_that_a_reset_ended_is_shown_no_more(text: str) -> None:
    counter = accepting(ASKED)
    card = two_pins()
    await counter.ready(card)
    await settle()
    session = await counter.open()
    await counter.verify(session)
    await counter.submit(session, read(SIGNATURE_PIN), label="signature")
    assert counter.state is State.ACTIVE
    # the card calls that PIN verified, so that its counter is only told after a reset
    await counter.submit(session, read(text), label="signature")
    assert not card.pins[1].verified
    assert counter.state is State.UNVERIFIED
    assert counter.publisher.session.verified_usec == 0
    assert Verified() not in counter.publisher.card.pins.status.values()


async def test_no_pin_is_shown_as_verified_after_its_authority_was_lost() -> None:
    counter = Counter()
    card, session = await counter.active()
    card.reset()
    assert await outcome(counter.desks.sign(session, DISPENSER, ELLIPTIC)) == "NotVerified"
    await settle()
    assert counter.state is State.UNVERIFIED
    assert counter.publisher.card.pins.status["user"] == Unknown()
    wrong_by_a_rival(card, 2)
    await counter.desks.end(session, EndReason.CLOSED)
    assert counter.publisher.card.pins.status["user"] == Known(1)
    assert counter.publisher.card.pins.most == {}, "what a rival left is not the most there is"


async def test_no_other_pin_is_shown_as_verified_after_a_wrong_one() -> None:
    counter = Counter()
    card = make_card(pin_policy=PinPolicy.GLOBAL_TOO)
    await counter.ready(card)
    session = await counter.open()
    await counter.verify(session)
    verdict = await counter.submit(session, read(WRONG), label="global")
    assert verdict == Verdict(Outcome.INCORRECT, 2)
    assert counter.state is State.UNVERIFIED
    assert not card.pins.reference(PIN).verified
    shown = counter.publisher.card.pins.status
    assert (shown["user"], shown["global"]) == (Unknown(), Known(2))


async def test_no_pin_is_shown_as_verified_after_an_unblocking() -> None:
    counter = Counter(Config(pin=PinConfig(unblock=frozenset({"piv"}))))
    card, session = await counter.active()
    asked = counter.replace_pin(session, Act.UNBLOCK, "12345678", "86421357", accept_unknown=True)
    assert (await asked).outcome is Outcome.UNBLOCKED
    assert counter.state is State.UNVERIFIED
    assert not card.pins.reference(PIN).verified
    assert counter.publisher.card.pins.status["user"] != Verified()


async def test_no_pin_is_shown_as_verified_after_a_submission_that_failed() -> None:
    counter = Counter()
    card, session = await counter.active()
    counter.channel.pump.before = lambda _, apdu: b"\x6a\x82" if apdu[1] == 0xA4 else None
    assert await outcome(counter.verify(session)) == "CardReset"
    assert counter.state is State.UNVERIFIED
    assert not card.pins.reference(PIN).verified
    assert counter.publisher.card.pins.status["user"] == Unknown()


@pytest.mark.parametrize("locked", [False, True])
async def test_no_count_is_shown_if_a_rival_came_between_a_try_and_its_outcome(
    locked: bool,
) -> None:
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()
    if locked:
        await counter.verify(session)
        await counter.desks.lock(session, DISPENSER)
    channel = counter.channel
    judged = asyncio.get_running_loop().create_future()

    def converse_then(talk: Any, work: Any) -> Any:
        """The card was given it, and letting go of the card waits for a rival."""
        work(channel.pump.hold(talk.dialogue(), talk.permit))
        channel.waiting = True
        return judged

    channel.converse_then = converse_then  # type: ignore[method-assign]
    asked = asyncio.ensure_future(outcome(counter.verify(session, WRONG)))
    await settle()
    assert card.pins.reference(PIN).left == 2
    counter.clock.advance(5.6)
    await settle()
    assert await asked == Verdict(Outcome.UNCERTAIN, None)
    shown = counter.publisher.card.pins
    assert (shown.status["user"], shown.source) == (Unknown(), Source.STALE)
    judged.cancel()


# trust


async def test_trust_that_is_lost_while_a_passcode_is_judged_ends_the_session() -> None:
    counter = Counter(Config(trust=ONLY_TRUSTED))
    counter.judge.standing = Standing(Trust.TRUSTED)
    await counter.ready()
    session = await counter.open()
    counter.channel.paused = True
    counter.judge.standing = Standing(Trust.REVOKED, "in the list of today")
    counter.desk._effects._card.rejudge()
    asked = asyncio.ensure_future(outcome(counter.verify(session)))
    await settle(5)
    for _ in range(2):  # both are done before the loop hears of either
        counter.channel.work()
    counter.channel.resume()
    await settle()
    assert (await asked).outcome is Outcome.VERIFIED, "what the card judged is told"
    assert counter.publisher.reasons() == [EndReason.NOT_TRUSTED]
    assert counter.state is State.READY
    assert not counter.channel.holding


async def test_trust_that_is_lost_before_a_passcode_is_sent_keeps_it_back() -> None:
    counter = Counter(Config(trust=ONLY_TRUSTED))
    counter.judge.standing = Standing(Trust.TRUSTED)
    await counter.ready()
    session = await counter.open()
    typed: asyncio.Future[Secret] = asyncio.get_running_loop().create_future()
    asked = asyncio.ensure_future(outcome(counter.submit(session, lambda: typed)))
    await settle()
    counter.judge.standing = Standing(Trust.REVOKED, "in the list of today")
    counter.desk._effects._card.rejudge()
    await settle()
    secret = Secret(bytearray(CANARY.encode()))
    typed.set_result(secret)
    await settle()
    assert await asked == "NotTrusted"
    assert counter.channel.pump.verifies == []
    assert secret.wiped
    assert counter.state is State.UNVERIFIED


async def test_a_kept_session_is_no_longer_active_with_a_card_that_is_trusted_no_more() -> None:
    session = SessionConfig(removal=Removal.KEEP)
    counter = Counter(Config(session=session, trust=ONLY_TRUSTED))
    counter.judge.standing = Standing(Trust.TRUSTED)
    card, _ = await counter.active()
    counter.pull()
    await settle()
    assert counter.publisher.session.state is SessionState.ACTIVE
    counter.judge.standing = Standing(Trust.REVOKED)
    counter.insert(card)
    await settle()
    assert counter.publisher.reasons() == [EndReason.NOT_TRUSTED]


async def test_the_cards_own_links_of_a_chain_are_looked_at_when_they_are_read() -> None:
    counter = Counter()
    counter.judge.standing = Standing(Trust.UNTRUSTED, "who issued this?")
    await counter.ready(make_card(slots=(Slot.AUTHENTICATION, Slot.SIGNATURE)))
    await settle()
    assert [sorted(each) for each in counter.judge.asked] == [
        ["authentication"],
        ["authentication", "signature"],
    ]


# the authority is used by nobody any more


async def test_who_left_has_no_more_signatures_made() -> None:
    counter = Counter()
    _, session = await counter.active()
    counter.channel.paused = True
    asked = [
        asyncio.ensure_future(outcome(counter.desks.sign(session, DISPENSER, ELLIPTIC)))
        for _ in range(5)
    ]
    await settle(5)
    before = signs(counter)
    counter.desks.caller_gone(DISPENSER.name)
    counter.channel.resume()
    answers = await asyncio.gather(*asked)
    await settle()
    assert signs(counter) == before + 1, "the one under way, and then the card is let go"
    assert answers[1:] == ["SessionEnded"] * 4
    assert counter.state is State.READY


async def test_a_signature_is_answered_though_a_rival_outlasted_its_session() -> None:
    counter = Counter(Config(session=SessionConfig(hold=Hold.SHARED)))
    _, session = await counter.active()
    counter.channel.paused = counter.channel.waiting = True
    asked = asyncio.ensure_future(outcome(counter.desks.sign(session, DISPENSER, ELLIPTIC)))
    await settle(5)
    closing = asyncio.ensure_future(counter.desks.end(session, EndReason.CLOSED))
    await settle(5)
    counter.clock.advance(6.0)
    await settle(5)
    assert counter.state is State.READY
    before = signs(counter)
    counter.pull()
    counter.channel.waiting = False
    counter.channel.resume()
    await settle()
    assert asked.done()
    assert await asked == "SessionEnded"
    assert closing.done()
    assert signs(counter) == before


@pytest.mark.parametrize("way", ["close", "lock"])
async def test_what_a_callers_apdu_won_ends_with_the_session(way: str) -> None:
    # GENERAL AUTHENTICATE is on the list, and so is a management key of the card: its authority
    # is none of a PIN's, and outlives SELECT of the same application (SP 800-73-4 part 2, 3.1.1)
    counter = Counter()
    card, session = await counter.active()
    resets = 0

    def reset() -> None:
        nonlocal resets
        resets += 1
        type(card).reset(card)

    card.reset = reset
    await counter.desks.transmit(session, DISPENSER, bytes.fromhex("00CB3FFF055C035FC10200"))
    if way == "lock":
        await counter.desks.lock(session, DISPENSER)
    else:
        await counter.desks.end(session, EndReason.CLOSED)
    await settle()
    assert resets == 1


async def test_an_unread_passcode_does_not_make_another_application_ours() -> None:
    counter = Counter()
    _, session = await counter.active()
    await counter.desks.transmit(session, DISPENSER, SELECT_ANOTHER)

    async def unfit() -> Secret:
        raise BadFormat

    assert (await counter.submit(session, unfit)).outcome is Outcome.BAD_FORMAT
    before = len(counter.channel.pump.apdus)
    await outcome(counter.desks.sign(session, DISPENSER, ELLIPTIC))
    assert counter.channel.pump.apdus[before][1] in (0xA4, 0xCB), "who is it, before it is used"


# a reader that hangs


async def test_a_caller_whose_passcodes_cannot_be_read_does_not_hide_that_a_reader_hangs() -> None:
    counter = Counter()
    _, session = await counter.active()
    counter.channel.paused = True
    signing = asyncio.ensure_future(outcome(counter.desks.sign(session, DISPENSER, ELLIPTIC)))
    await settle(5)

    async def unreadable() -> Secret:
        raise Failure(Problem.SECRET_INVALID, "it never ended")

    for _ in range(15):
        await outcome(counter.submit(session, unreadable))
        counter.clock.advance(1.0)
        await settle(5)
    assert counter.state is State.STUCK
    assert await signing == "ReaderStuck"
    counter.channel.resume()
    await settle()
    assert counter.state is State.READY


# our own bugs


async def test_a_card_that_meets_a_bug_of_ours_takes_the_reader_with_it_only_while_it_is_in() -> (
    None
):
    counter = Counter()

    def bug(_: int, __: bytes) -> bytes | None:
        raise ZeroDivisionError

    await counter.ready()
    counter.pull()
    counter.channel.pump.before = bug
    await counter.ready()
    assert counter.state is State.STUCK
    counter.channel.pump.before = lambda _, __: None
    counter.pull()
    await settle()
    assert counter.state is State.EMPTY
    await counter.ready()
    assert counter.state is State.READY
    session = await counter.open()
    assert (await counter.verify(session)).outcome is Outcome.VERIFIED


async def test_a_blocked_pin_of_a_hidden_key_is_not_the_users() -> None:
    counter = accepting()
    card = two_pins(hidden=True)
    card.pins[2] = replace(card.pins[2], left=1)
    await counter.ready(card)
    await settle()
    session = await counter.open()
    await counter.verify(session)
    verdict = await counter.request(session, with_pin(SIGNATURE, WRONG))
    assert verdict.outcome is Outcome.NOW_BLOCKED
    await settle()
    assert counter.state is State.ACTIVE
    assert counter.publisher.card.pins.status["signature"] == Blocked()
    assert sum(map(is_verify_with_data, counter.channel.pump.apdus)) == 2
