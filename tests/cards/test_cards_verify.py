"""One submission to a PIV card: guarded, sent once, settled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cardsession.adapters.ledger import MemoryLedger
from cardsession.core.apdu import SW
from cardsession.core.dialogue import Attempt, Reset, Step
from cardsession.core.errors import Failure, Problem
from cardsession.core.secret import Secret
from cardsession.core.tries import (
    Blocked,
    Consent,
    Judged,
    Known,
    NotSet,
    Outcome,
    Unknown,
    Verified,
)
from cardsession.virtual.book import Kind
from cardsession.virtual.card import VirtualCard
from cardsession.virtual.options import PinPolicy
from cardsession.virtual.pins import PIN
from fakes.cards import CANARY, WRONG, make_card, secret
from fakes.channel import Pump, is_verify_with_data, removed
from fakes.piv import (
    ALL,
    FRESH,
    NONE,
    PIV,
    STRANGE,
    kinds,
    probed,
    query_answers,
    rival_verified,
    submit,
)


def test_a_right_passcode_is_sent_once_between_attempt_and_settle() -> None:
    card = make_card(tries=2)
    judged, pump = submit(card)
    assert judged == Judged(Outcome.VERIFIED, Verified())
    steps = kinds(pump.steps)
    at = steps.index("Attempt")
    assert steps[at:] == ["Attempt", "00 20 00 80", "Settle"]
    asked = ["00 A4 04 00", "00 CB 3F FF", "00 20 00 80", "Noted", "LowestSeen"]
    assert steps[:at] == asked
    assert pump.verifies == [b"\x00\x20\x00\x80\x08" + CANARY.encode()]
    assert not pump.ledger.past(probed(card)[0].identity).in_flight


def test_a_wrong_passcode_costs_one_try_and_says_how_many_are_left() -> None:
    card = make_card()
    judged, pump = submit(card, WRONG)
    assert judged == Judged(Outcome.INCORRECT, Known(2))
    assert (card.book.wrong(PIN), len(pump.verifies)) == (1, 1)
    assert pump.ledger.lowest(card.identity.guid.hex().upper(), 0x80) == 2


def test_a_short_passcode_is_padded_with_ff() -> None:
    _, pump = submit(make_card(), "123456")
    assert pump.verifies[0][5:] == b"123456\xff\xff"


def test_one_that_is_too_long_is_not_cut_and_not_sent() -> None:
    card = make_card()
    judged, pump = submit(card, CANARY + "1")
    assert (judged.outcome, judged.sent) == (Outcome.BAD_FORMAT, False)
    assert pump.apdus == []


def test_a_format_that_the_card_refuses_uncounted_leaves_the_count() -> None:
    card = make_card()
    judged, pump = submit(card, "abcdef")
    assert judged == Judged(Outcome.BAD_FORMAT, Known(3))
    assert len(pump.verifies) == 1
    assert card.pins.reference(PIN).left == 3


def test_a_format_that_the_card_counts_is_incorrect() -> None:
    judged, _ = submit(make_card(format_costs_a_try=True), "abcdef")
    assert judged == Judged(Outcome.INCORRECT, Known(2))


def test_the_last_try_is_kept_back_without_consent() -> None:
    card = make_card(tries=1)
    judged, pump = submit(card)
    assert judged == Judged(Outcome.REFUSED_LAST_TRY, Known(1), sent=False)
    assert pump.verifies == []
    assert "Attempt" not in kinds(pump.steps)


def test_the_last_try_with_consent_blocks_or_verifies() -> None:
    spend = Consent(spend_last_try=True)
    judged, pump = submit(make_card(tries=1), WRONG, spend)
    assert judged == Judged(Outcome.NOW_BLOCKED, Blocked())
    assert len(pump.verifies) == 1
    judged, _ = submit(make_card(tries=1), CANARY, spend)
    assert judged.outcome is Outcome.VERIFIED


def test_a_blocked_pin_is_not_tried_whatever_the_caller_agrees_to() -> None:
    card = make_card(tries=0)
    judged, pump = submit(card, CANARY, ALL)
    assert judged == Judged(Outcome.WAS_BLOCKED, Blocked(), sent=False)
    assert pump.verifies == []


@pytest.mark.parametrize("sw", ["6D00", "6700", "6F00", "6300", "6C03", "6103"])
def test_an_unknown_count_is_not_two(sw: str) -> None:
    card = make_card()
    judged, pump = submit(card, CANARY, Consent(spend_last_try=True), prepare=query_answers(sw))
    assert judged.outcome is Outcome.REFUSED_UNKNOWN
    assert pump.verifies == []
    judged, pump = submit(card, CANARY, Consent(accept_unknown=True), prepare=query_answers(sw))
    assert judged.outcome is Outcome.VERIFIED
    assert len(pump.verifies) == 1


@pytest.mark.parametrize("sw", ["62C1", "62C7", "6985"])
def test_a_pin_that_is_not_set_is_not_tried(sw: str) -> None:
    judged, pump = submit(make_card(), CANARY, ALL, prepare=query_answers(sw))
    assert judged == Judged(Outcome.WAS_BLOCKED, NotSet(), sent=False)
    assert pump.verifies == []


@pytest.mark.parametrize("sw", ["6A88", "6A86"])
def test_a_pin_that_went_is_not_tried(sw: str) -> None:
    card = make_card()
    pump = Pump(card)
    known = probed(card)[0]
    query_answers(sw)(pump)
    with pytest.raises(Failure) as error:
        pump.hold(PIV.verify(known, known.pins["user"], secret(), ALL))
    assert error.value.problem is Problem.NO_SUCH_PIN
    assert pump.verifies == []


@pytest.mark.parametrize(("lowest", "sent"), [(0, 0), (1, 0), (2, 1), (3, 1)])
def test_where_the_card_does_not_tell_the_lowest_count_ever_seen_guards(
    lowest: int, sent: int
) -> None:
    card = make_card()
    known = probed(card)[0]

    def prepare(pump: Pump) -> None:
        query_answers("6F00")(pump)
        pump.ledger.settle(known.identity, 0x80, Known(lowest) if lowest else Blocked())

    judged, pump = submit(card, CANARY, Consent(accept_unknown=True), prepare=prepare)
    assert len(pump.verifies) == sent
    assert (judged.outcome is Outcome.REFUSED_LAST_TRY) == (not sent)


def test_a_pin_that_a_rival_left_verified_is_deauthenticated_and_asked_again() -> None:
    card = make_card()
    known = probed(card)[0]
    rival_verified(card)
    judged, pump = submit(card, WRONG, known=known)
    assert judged == Judged(Outcome.INCORRECT, Known(2))
    asked = [apdu.hex() for apdu in pump.apdus if apdu[1] == 0x20 and len(apdu) == 4]
    assert asked == ["00200080", "0020ff80", "00200080"]
    assert Reset() not in pump.steps


def test_the_guard_is_not_blinded_by_a_rival_s_verified_pin() -> None:
    card = make_card()
    known = probed(card)[0]
    rival_verified(card)
    card.pins.reference(PIN).left = 1
    judged, pump = submit(card, WRONG, known=known)
    assert judged == Judged(Outcome.REFUSED_LAST_TRY, Known(1), sent=False)
    assert pump.verifies == []


def test_a_card_that_cannot_deauthenticate_is_reset_and_identified_again() -> None:
    card = make_card(deauthentication=False)
    known = probed(card)[0]
    rival_verified(card)
    judged, pump = submit(card, known=known)
    assert judged.outcome is Outcome.VERIFIED
    steps = kinds(pump.steps)
    reset = steps.index("Reset")
    assert steps[reset + 1 : reset + 4] == ["00 A4 04 00", "00 CB 3F FF", "00 20 00 80"]


def test_a_card_swapped_during_that_reset_is_not_given_the_passcode() -> None:
    card, other = make_card(deauthentication=False), make_card()
    known = probed(card)[0]
    rival_verified(card)
    pump = Pump(card)

    def swap(_: int, apdu: bytes) -> None:
        if apdu[1:3] == b"\x20\xff":
            pump.chip = Swapping(card, other)

    pump.before = swap
    with pytest.raises(Failure) as error:
        pump.hold(PIV.verify(known, known.pins["user"], secret(), ALL))
    assert error.value.problem is Problem.CARD_REMOVED
    assert pump.verifies == []
    assert other.book.wrong() == 0


class Swapping:
    """One card until it loses power, another one after that."""

    def __init__(self, first: VirtualCard, second: VirtualCard) -> None:
        self._now, self._next = first, second

    def process(self, raw: bytes) -> bytes:
        """As the card that lies there."""
        return self._now.process(raw)

    def reset(self) -> None:
        """The other one comes."""
        self._now = self._next


def test_a_card_that_stays_verified_whatever_is_done_is_left_alone() -> None:
    pumps: list[Pump] = []

    def prepare(pump: Pump) -> None:
        pumps.append(pump)
        query_answers("9000")(pump)

    with pytest.raises(Failure) as error:
        submit(make_card(), CANARY, NONE, prepare=prepare)
    assert error.value.problem is Problem.IN_USE_ELSEWHERE
    assert pumps[0].verifies == []


def test_a_card_that_only_says_that_it_de_authenticated_is_reset() -> None:
    card = make_card()
    known = probed(card)[0]
    assert card.process(b"\x00\x20\x00\x80\x08" + CANARY.encode()) == b"\x90\x00"
    pump = Pump(card)
    pump.before = lambda _, apdu: b"\x90\x00" if apdu[1:3] == b"\x20\xff" else None
    assert pump.hold(PIV.question(known)) == FRESH
    assert any(isinstance(step, Reset) for step in pump.steps)
    assert card.process(bytes.fromhex("00200080")) == bytes.fromhex("63C3")


def test_a_count_that_was_asked_for_guards_when_asking_fails() -> None:
    """2 after our wrong try, 1 after a rival's: read, shown, and then the card says no more."""
    card = make_card()
    known = probed(card)[0]
    ledger = MemoryLedger()
    pump = Pump(card, ledger)
    pump.hold(PIV.verify(known, known.pins["user"], secret("00000000"), NONE))
    card.process(b"\x00\x20\x00\x80\x0800000000")
    assert pump.hold(PIV.question(known)) == {**FRESH, "user": Known(1)}
    query_answers("6F00")(pump)
    judged = pump.hold(PIV.verify(known, known.pins["user"], secret("00000000"), NONE))
    assert judged.outcome is Outcome.REFUSED_LAST_TRY
    assert card.book.wrong() == 2


@pytest.mark.parametrize("talk", ["verify", "question", "certificates"])
def test_another_card_in_the_reader_is_said_nothing_more(talk: str) -> None:
    known = probed(make_card())[0]
    other = make_card()
    pump = Pump(other)
    dialogues: dict[str, Callable[[], Any]] = {
        "verify": lambda: PIV.verify(known, known.pins["user"], secret(), ALL),
        "question": lambda: PIV.question(known),
        "certificates": lambda: PIV.certificates(known),
    }
    with pytest.raises(Failure) as error:
        pump.hold(dialogues[talk]())
    assert error.value.problem is Problem.CARD_REMOVED
    assert [apdu[1] for apdu in pump.apdus] == [0xA4, 0xCB]
    assert other.book.tally(Kind.VERIFY, PIN).total == 0


def test_a_card_that_lost_its_application_is_given_nothing() -> None:
    known = probed(make_card())[0]
    pump = Pump()
    pump.before = lambda _, __: b"\x6a\x82"
    with pytest.raises(Failure) as error:
        pump.hold(PIV.verify(known, known.pins["user"], secret(), ALL))
    assert error.value.problem is Problem.CARD_RESET


@pytest.mark.parametrize("answer", STRANGE)
@pytest.mark.parametrize("text", [CANARY, WRONG], ids=["right", "wrong"])
def test_a_strange_answer_to_verify_never_brings_a_second_one(answer: str, text: str) -> None:
    """The card judged the passcode; what it answers is lost on the way."""
    card = make_card()

    def prepare(pump: Pump) -> None:
        pump.after = lambda _, apdu, __: (
            bytes.fromhex(answer) if is_verify_with_data(apdu) else None
        )

    judged, pump = submit(card, text, ALL, prepare=prepare)
    assert len(pump.verifies) == 1
    # 6700 and a counter that stands where it stood: what was sent was not compared, or was right
    form = answer == "6700" and text == CANARY
    assert judged.outcome is (Outcome.BAD_FORMAT if form else Outcome.UNCERTAIN)
    assert judged.sent
    # the count is read back, and nobody is left verified: a count of our own would be a guess
    assert judged.status == Known(card.pins.reference(PIN).left)
    assert not card.pins.satisfied


@pytest.mark.parametrize("text", [CANARY, WRONG], ids=["right", "wrong"])
def test_the_count_of_a_card_that_came_in_between_is_not_taken_for_its_own(text: str) -> None:
    """The card was torn out under VERIFY and another one was put in before anybody looked: what
    came of the try nobody knows, and the other card's count says nothing of it."""
    card, other = make_card(), make_card(tries=1)
    known = probed(card)[0]
    pump = Pump(card)

    def swap(_: int, apdu: bytes, __: bytes) -> bytes | None:
        if not is_verify_with_data(apdu):
            return None
        pump.chip = other
        return b""

    pump.after = swap
    judged = pump.hold(PIV.verify(known, known.pins["user"], secret(text), ALL))
    assert judged == Judged(Outcome.UNCERTAIN, Unknown())
    assert len(pump.verifies) == 1
    assert pump.ledger.past(known.identity).in_flight


def test_an_uncertain_outcome_without_a_count_stays_in_flight() -> None:
    card = make_card()
    known = probed(card)[0]
    pump = Pump(card)
    sent = False

    def dumb(_: int, apdu: bytes) -> bytes | None:
        nonlocal sent
        sent = sent or is_verify_with_data(apdu)
        return b"" if sent else None

    pump.before = dumb
    judged = pump.hold(PIV.verify(known, known.pins["user"], secret(), NONE))
    assert judged == Judged(Outcome.UNCERTAIN, Unknown())
    assert len(pump.verifies) == 1
    assert pump.ledger.past(known.identity).in_flight


def test_a_card_that_says_verified_for_ever_after_does_not_take_the_outcome_with_it() -> None:
    """What the read-back raises is about the read-back; a secret was sent all the same."""
    card = make_card()
    known = probed(card)[0]
    pump = Pump(card)
    sent = False

    def stuck(_: int, apdu: bytes) -> bytes | None:
        nonlocal sent
        if is_verify_with_data(apdu):
            sent = True
            return b"\x63\x00"
        return b"\x90\x00" if sent and apdu[1] == 0x20 else None

    pump.before = stuck
    judged = pump.hold(PIV.verify(known, known.pins["user"], secret(), NONE))
    assert judged == Judged(Outcome.INCORRECT, Unknown(SW(0x6300)))
    assert len(pump.verifies) == 1


def test_a_withdrawn_attempt_is_not_sent() -> None:
    card = make_card()
    known = probed(card)[0]
    dialogue = PIV.verify(known, known.pins["user"], secret(), NONE)
    pump = Pump(card)
    withdrawn = Failure(Problem.IN_USE_ELSEWHERE, "withdrawn")

    def answer(step: Step) -> Any:
        if isinstance(step, Attempt):
            raise withdrawn
        return pump._step(step, None)  # type: ignore[arg-type]

    from cardsession.core.dialogue import run  # noqa: PLC0415

    with pytest.raises(Failure) as error:
        run(dialogue, answer)
    assert error.value is withdrawn
    assert pump.verifies == []


def test_a_secret_is_wiped_by_the_submission_that_sent_it() -> None:
    card = make_card()
    known = probed(card)[0]
    for pulled in (False, True):
        buffer = bytearray(CANARY.encode())
        pump = Pump(card)
        if pulled:
            pump.before = lambda _, apdu: (
                (_ for _ in ()).throw(removed()) if is_verify_with_data(apdu) else None
            )
        try:
            pump.hold(PIV.verify(known, known.pins["user"], Secret(buffer), NONE))
        except Failure:
            assert pulled
        assert buffer == b""


@pytest.mark.parametrize(
    ("policy", "second"),
    [
        (PinPolicy.APPLICATION, {}),
        (PinPolicy.GLOBAL_TOO, {"global": Known(3)}),
        (PinPolicy.GLOBAL_PRIMARY, {"application": Known(3)}),
    ],
)
def test_a_release_ends_the_authority_and_counts(
    policy: PinPolicy, second: dict[str, Known]
) -> None:
    card = make_card(pin_policy=policy)
    known = probed(card)[0]
    submit(card, known=known)
    assert card.pins.satisfied
    pump = Pump(card)
    assert pump.hold(PIV.release(known)) == {**FRESH, **second}
    assert not card.pins.satisfied
    assert not [apdu for apdu in pump.apdus if apdu[3] == 0x81], "the PUK is nobody's to touch"


def test_a_release_that_the_card_only_says_it_did_is_none() -> None:
    card = make_card()
    known = probed(card)[0]
    submit(card, known=known)
    pump = Pump(card)
    pump.before = lambda _, apdu: b"\x90\x00" if apdu[1:3] == b"\x20\xff" else None
    assert pump.hold(PIV.release(known)) is None


def test_where_only_a_reset_ends_it_a_release_says_so() -> None:
    card = make_card(deauthentication=False)
    known = probed(card)[0]
    submit(card, known=known)
    assert Pump(card).hold(PIV.release(known)) is None


def test_a_question_leaves_nobody_verified_and_brings_the_count() -> None:
    card = make_card()
    known = probed(card)[0]
    rival_verified(card)
    card.pins.reference(PIN).left = 2
    assert Pump(card).hold(PIV.question(known)) == {**FRESH, "user": Known(2)}
    assert not card.pins.satisfied
