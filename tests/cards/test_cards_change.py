"""A new passcode on a PIV card: CHANGE REFERENCE DATA and RESET RETRY COUNTER, guarded alike.

What the card owes us is NIST SP 800-73-4 part 2: clause 3.2.2 (change), 3.2.3 (unblock), 2.4.3
(what a PIN and a PUK look like).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cardsession.adapters.ledger import MemoryLedger
from cardsession.core.apdu import SW
from cardsession.core.dialogue import Attempt, Noted, Reset, Settle
from cardsession.core.errors import Failure, Problem
from cardsession.core.tries import (
    Blocked,
    Consent,
    Judged,
    Known,
    Outcome,
    Unknown,
    Verified,
)
from cardsession.virtual.book import Kind
from cardsession.virtual.options import PinPolicy
from cardsession.virtual.pins import PIN
from fakes.cards import CANARY, WRONG, make_card, secret
from fakes.channel import Pump
from fakes.piv import (
    ALL,
    BLIND,
    NEW,
    NONE,
    PIV,
    PUK,
    STRANGE,
    change,
    instead,
    kinds,
    plainly,
    probed,
    query_answers,
    rival_verified,
    sent,
    submission_answers,
    submit,
    unblock,
)

PUK_REFERENCE = 0x81
SPEND = Consent(spend_last_try=True)


def settled(pump: Pump) -> list[Settle]:
    return [step for step in pump.steps if isinstance(step, Settle)]


# change


def test_a_change_is_one_command_between_attempt_and_settle_and_a_plain_question() -> None:
    card = make_card(tries=2)
    judged, pump = change(card)
    assert judged == Judged(Outcome.CHANGED, Verified())
    steps = kinds(pump.steps)
    at = steps.index("Attempt")
    assert steps[:at] == ["00 A4 04 00", "00 CB 3F FF", "00 20 00 80", "Noted", "LowestSeen"]
    assert steps[at:] == ["Attempt", "00 24 00 80", "Settle", "00 20 00 80", "Noted"]
    assert sent(pump) == [b"\x00\x24\x00\x80\x10" + CANARY.encode() + NEW.encode()]
    identity = card.identity.guid.hex().upper()
    assert settled(pump) == [Settle(identity, 0x80, Verified(), 0x80)]
    assert plainly(card) == "9000"
    assert submit(card, NEW)[0].outcome is Outcome.VERIFIED
    assert submit(card, CANARY)[0].outcome is Outcome.INCORRECT


def test_a_card_that_verifies_nobody_by_a_change_says_so_and_its_number_is_taken() -> None:
    card = make_card(tries=2)
    known = probed(card)[0]
    pump = Pump(card)
    changed = False

    def ends_it(_: int, apdu: bytes, __: bytes) -> None:
        nonlocal changed
        changed = changed or apdu[1] == 0x24
        if apdu[1] == 0x24:
            card.pins.reference(PIN).verified = False

    pump.after = ends_it
    judged = pump.hold(PIV.change(known, known.pins["user"], secret(), secret(NEW), NONE))
    assert judged == Judged(Outcome.CHANGED, Known(3))
    assert pump.steps[-1] == Noted(known.identity, 0x80, Known(3))
    assert pump.ledger.lowest(known.identity, 0x80) == 3


@pytest.mark.parametrize(("answer", "sw"), [("", None), ("6F00", SW(0x6F00)), ("90", None)])
def test_what_the_card_says_afterwards_does_not_undo_a_change(answer: str, sw: SW | None) -> None:
    card = make_card()
    known = probed(card)[0]
    pump = Pump(card)
    changed = False

    def dumb(_: int, apdu: bytes) -> bytes | None:
        nonlocal changed
        before, changed = changed, changed or apdu[1] == 0x24
        return bytes.fromhex(answer) if before else None

    pump.before = dumb
    judged = pump.hold(PIV.change(known, known.pins["user"], secret(), secret(NEW), NONE))
    assert judged == Judged(Outcome.CHANGED, Unknown(sw))
    assert settled(pump)[0].changed == 0x80


def test_short_passcodes_are_filled_each_on_its_own() -> None:
    card = make_card()
    _, pump = change(card, "123456", "6543217")
    assert sent(pump)[0][5:] == b"123456\xff\xff6543217\xff"


def test_a_wrong_old_passcode_costs_one_try() -> None:
    card = make_card()
    judged, pump = change(card, WRONG)
    assert judged == Judged(Outcome.INCORRECT, Known(2))
    assert (card.book.wrong(PIN), len(sent(pump))) == (1, 1)
    assert settled(pump)[0].changed is None
    assert submit(card)[0].outcome is Outcome.VERIFIED, "the old passcode still holds"


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [
        (CANARY + "1", NEW, Outcome.BAD_FORMAT),
        (CANARY, NEW + "1", Outcome.BAD_NEW_PIN),
        (CANARY + "1", NEW + "1", Outcome.BAD_FORMAT),
    ],
)
@pytest.mark.parametrize("label", ["user", "puk"])
def test_a_length_that_no_card_takes_costs_not_a_word(
    old: str, new: str, outcome: Outcome, label: str
) -> None:
    judged, pump = change(make_card(), old, new, ALL, label=label)
    assert judged == Judged(outcome, Unknown(), sent=False)
    assert pump.apdus == []


def test_a_new_passcode_of_a_form_that_the_card_refuses_costs_nothing() -> None:
    """Clause 3.2.2: with 6A80 the retry counter and the security status stay as they were."""
    card = make_card()
    judged, pump = change(card, CANARY, "abcdefgh")
    assert judged == Judged(Outcome.BAD_NEW_PIN, Known(3))
    assert len(sent(pump)) == 1
    assert card.pins.reference(PIN).left == 3
    assert settled(pump)[0].changed is None


def test_a_form_that_the_card_counts_is_incorrect() -> None:
    judged, _ = change(make_card(format_costs_a_try=True), CANARY, "abcdefgh")
    assert judged == Judged(Outcome.INCORRECT, Known(2))


@pytest.mark.parametrize("sw", ["6700", "6A87"])
def test_an_answer_about_the_form_is_believed_if_the_counter_stands(sw: str) -> None:
    judged, _ = change(make_card(), prepare=instead(sw))
    assert judged == Judged(Outcome.BAD_NEW_PIN, Known(3), read_back=True)
    judged, _ = change(make_card(), WRONG, prepare=submission_answers(sw))
    assert judged == Judged(Outcome.UNCERTAIN, Known(2), read_back=True)


def test_the_last_try_is_kept_back_without_consent() -> None:
    card = make_card(tries=1)
    judged, pump = change(card)
    assert judged == Judged(Outcome.REFUSED_LAST_TRY, Known(1), sent=False)
    assert sent(pump) == []
    judged, pump = change(card, WRONG, consent=SPEND)
    assert judged == Judged(Outcome.NOW_BLOCKED, Blocked())
    judged, pump = change(card, consent=ALL)
    assert judged == Judged(Outcome.WAS_BLOCKED, Blocked(), sent=False)
    assert sent(pump) == []


def test_an_unknown_count_is_not_two_for_a_change_either() -> None:
    judged, pump = change(make_card(), consent=SPEND, prepare=query_answers("6F00"))
    assert judged.outcome is Outcome.REFUSED_UNKNOWN
    assert sent(pump) == []


def test_a_pin_left_verified_by_a_rival_does_not_blind_the_guard_of_a_change() -> None:
    card = make_card()
    known = probed(card)[0]
    rival_verified(card)
    card.pins.reference(PIN).left = 1
    judged, pump = change(card, known=known)
    assert judged == Judged(Outcome.REFUSED_LAST_TRY, Known(1), sent=False)
    assert sent(pump) == []


@pytest.mark.parametrize("answer", STRANGE)
@pytest.mark.parametrize("old", [CANARY, WRONG], ids=["right", "wrong"])
def test_a_strange_answer_to_a_change_never_brings_a_second_one(answer: str, old: str) -> None:
    """The card did it, or not; what it answers is lost on the way."""
    card = make_card()
    judged, pump = change(card, old, consent=ALL, prepare=submission_answers(answer))
    assert len(sent(pump)) == 1
    form = answer == "6700" and old == CANARY
    assert judged.outcome is (Outcome.BAD_NEW_PIN if form else Outcome.UNCERTAIN)
    assert judged.status == Known(card.pins.reference(PIN).left)
    assert not card.pins.satisfied, "an outcome that nobody knows leaves nobody verified"
    assert settled(pump)[0].changed is None


@pytest.mark.parametrize("policy", [PinPolicy.GLOBAL_TOO, PinPolicy.GLOBAL_PRIMARY])
@pytest.mark.parametrize("label", ["user", "other"])
def test_each_pin_is_changed_under_its_own_reference(policy: PinPolicy, label: str) -> None:
    card = make_card(pin_policy=policy)
    known = probed(card)[0]
    label = label if label == "user" else next(x for x in known.pins if x not in {"user", "puk"})
    reference = known.pins[label].reference
    judged, pump = change(card, label=label, known=known)
    assert judged.outcome is Outcome.CHANGED
    assert [apdu[3] for apdu in sent(pump)] == [reference]
    assert {apdu[3] for apdu in pump.apdus if apdu[1] == 0x20} == {reference}
    other = 0x80 if reference == 0x00 else 0x00
    assert card.book.tally(Kind.VERIFY, other).total <= 1, "asked by the probe at most"


# the PUK


def test_a_puk_is_changed_by_its_own_counter_which_nobody_can_ask_for() -> None:
    card = make_card()
    judged, pump = change(card, PUK, "87654321", label="puk")
    assert judged == Judged(Outcome.REFUSED_UNKNOWN, Unknown(), sent=False)
    judged, pump = change(card, PUK, "87654321", BLIND, label="puk")
    assert judged == Judged(Outcome.CHANGED, Unknown())
    assert sent(pump) == [b"\x00\x24\x00\x81\x10" + PUK.encode() + b"87654321"]
    assert not [apdu for apdu in pump.apdus if apdu[1:4] == b"\x20\x00\x81"], "never asked"
    attempts = [step.reference for step in pump.steps if isinstance(step, Attempt)]
    assert attempts == [PUK_REFERENCE]
    assert settled(pump) == [
        Settle(card.identity.guid.hex().upper(), PUK_REFERENCE, Verified(), PUK_REFERENCE)
    ]
    assert change(card, PUK, PUK, BLIND, label="puk")[0] == Judged(Outcome.INCORRECT, Known(2))


def test_a_count_of_the_puk_s_own_guards_the_next_submission() -> None:
    card = make_card()
    ledger = MemoryLedger()
    assert unblock(card, "99999999", ledger=ledger)[0].status == Known(2)
    assert unblock(card, "99999999", consent=NONE, ledger=ledger)[0].status == Known(1)
    judged, pump = unblock(card, consent=BLIND, ledger=ledger)
    assert judged == Judged(Outcome.REFUSED_LAST_TRY, Unknown(), sent=False)
    assert sent(pump) == []
    assert unblock(card, consent=SPEND, ledger=ledger)[0].outcome is Outcome.UNBLOCKED


def test_a_right_puk_does_not_make_the_guard_forget_its_own_counter() -> None:
    """Clause 3.2.3: the card may refill the PUK's counter by it, and need not."""
    card = make_card()
    ledger = MemoryLedger()
    unblock(card, "99999999", ledger=ledger)
    unblock(card, "99999999", ledger=ledger)
    judged, _ = unblock(card, consent=ALL, ledger=ledger)
    assert judged.outcome is Outcome.UNBLOCKED
    identity = card.identity.guid.hex().upper()
    assert ledger.lowest(identity, PUK_REFERENCE) == 1
    assert not ledger.past(identity).in_flight
    assert unblock(card, ledger=ledger)[0].outcome is Outcome.REFUSED_LAST_TRY


@pytest.mark.parametrize("talk", ["change", "unblock"])
@pytest.mark.parametrize("sw", ["6A86", "6A88"])
def test_a_card_without_its_pin_is_not_given_a_puk(talk: str, sw: str) -> None:
    card = make_card()
    known = probed(card)[0]
    pumps: list[Pump] = []

    def prepare(pump: Pump) -> None:
        pumps.append(pump)
        query_answers(sw)(pump)

    with pytest.raises(Failure) as error:
        if talk == "change":
            change(card, PUK, NEW, ALL, label="puk", known=known, prepare=prepare)
        else:
            unblock(card, consent=ALL, known=known, prepare=prepare)
    assert error.value.problem is Problem.NO_SUCH_PIN
    assert sent(pumps[0]) == []


def test_a_puk_s_submission_leaves_an_authority_of_ours_alone() -> None:
    card = make_card()
    known = probed(card)[0]
    submit(card, known=known)
    assert change(card, PUK, "87654321", BLIND, label="puk", known=known)[0].outcome is (
        Outcome.CHANGED
    )
    assert plainly(card) == "9000"


# unblock


def test_an_unblocking_is_one_command_judged_by_the_puk() -> None:
    card = make_card(tries=0)
    judged, pump = unblock(card)
    assert judged == Judged(Outcome.UNBLOCKED, Unknown(), others={"user": Known(3)})
    steps = kinds(pump.steps)
    at = steps.index("Attempt")
    assert steps[:at] == ["00 A4 04 00", "00 CB 3F FF", "00 20 00 80", "Noted", "LowestSeen"]
    assert steps[at:] == ["Attempt", "00 2C 00 80", "Settle", "00 20 00 80", "Noted"]
    assert sent(pump) == [b"\x00\x2c\x00\x80\x10" + PUK.encode() + NEW.encode()]
    identity = card.identity.guid.hex().upper()
    asked = [step for step in pump.steps if isinstance(step, Attempt)]
    assert asked == [Attempt(identity, PUK_REFERENCE)]
    assert settled(pump) == [Settle(identity, PUK_REFERENCE, Verified(), 0x80)]
    assert submit(card, NEW)[0].outcome is Outcome.VERIFIED


def test_a_wrong_puk_costs_one_of_the_puk_s_own() -> None:
    card = make_card(tries=0)
    judged, pump = unblock(card, "99999999")
    assert judged == Judged(Outcome.INCORRECT, Known(2))
    assert (card.book.wrong(PUK_REFERENCE), card.book.wrong(PIN)) == (1, 0)
    assert settled(pump)[0].changed is None
    assert card.pins.reference(PIN).left == 0


def test_a_blocked_puk_is_told_as_it_is() -> None:
    card = make_card(tries=0, puk_limit=1)
    ledger = MemoryLedger()
    judged, _ = unblock(card, "99999999", consent=ALL)
    assert judged == Judged(Outcome.NOW_BLOCKED, Blocked())
    judged, _ = unblock(card, consent=ALL, ledger=ledger)
    assert judged == Judged(Outcome.WAS_BLOCKED, Blocked())
    assert unblock(card, consent=BLIND, ledger=ledger)[0].outcome is Outcome.REFUSED_LAST_TRY


@pytest.mark.parametrize("lowest", [None, 1, 3])
def test_a_new_passcode_that_the_card_refuses_leaves_the_puk_s_counter(lowest: int | None) -> None:
    """Clause 3.2.3: with 6A80 the PUK's counter is the same; the attempt is over."""
    card = make_card(tries=0)
    identity = card.identity.guid.hex().upper()
    ledger = MemoryLedger()
    if lowest is not None:
        ledger.note(identity, PUK_REFERENCE, Known(lowest))
    judged, pump = unblock(card, new="abcdefgh", consent=ALL, ledger=ledger)
    assert judged == Judged(Outcome.BAD_NEW_PIN, Unknown())
    assert len(sent(pump)) == 1
    assert card.pins.reference(PUK_REFERENCE).left == 3
    assert ledger.lowest(identity, PUK_REFERENCE) == lowest
    assert not ledger.past(identity).in_flight


def test_an_unblocking_without_an_answer_stays_in_flight() -> None:
    card = make_card(tries=0)
    ledger = MemoryLedger()
    judged, pump = unblock(card, ledger=ledger, prepare=submission_answers(""))
    assert judged == Judged(Outcome.UNCERTAIN, Unknown())
    assert len(sent(pump)) == 1
    assert ledger.past(card.identity.guid.hex().upper()).in_flight


@pytest.mark.parametrize("answer", STRANGE)
def test_a_strange_answer_to_an_unblocking_never_brings_a_second_one(answer: str) -> None:
    judged, pump = unblock(make_card(tries=0), consent=ALL, prepare=submission_answers(answer))
    assert len(sent(pump)) == 1
    assert judged.outcome is Outcome.UNCERTAIN
    assert isinstance(judged.status, Unknown)
    assert not judged.read_back


def test_an_unblocking_says_what_the_card_says_of_the_pin_whoever_is_verified() -> None:
    """Clause 3.2.3: the PIN's security status is not changed by it."""
    card = make_card()
    known = probed(card)[0]
    rival_verified(card)
    judged, pump = unblock(card, known=known)
    assert judged.others == {"user": Verified()}
    assert Reset() not in pump.steps


@pytest.mark.parametrize(
    ("policy", "label"),
    [(PinPolicy.GLOBAL_TOO, "global"), (PinPolicy.GLOBAL_PRIMARY, "user"), (None, "puk")],
)
def test_a_puk_unblocks_the_application_s_pin_only(policy: PinPolicy | None, label: str) -> None:
    card = make_card(pin_policy=policy or PinPolicy.APPLICATION)
    known = probed(card)[0]
    pumps: list[Pump] = []
    with pytest.raises(Failure) as error:
        unblock(card, consent=ALL, label=label, known=known, prepare=pumps.append)
    assert error.value.problem is Problem.NOT_SUPPORTED
    assert pumps[0].apdus == []


def test_where_the_global_pin_is_primary_the_application_s_is_unblocked_under_its_label() -> None:
    card = make_card(pin_policy=PinPolicy.GLOBAL_PRIMARY)
    card.pins.reference(PIN).left = 0
    judged, pump = unblock(card, label="application")
    assert judged.others == {"application": Known(3)}
    assert [apdu[3] for apdu in sent(pump)] == [0x80]


# both


Talk = Callable[..., tuple[Judged, Pump]]


@pytest.mark.parametrize("talk", [change, unblock])
def test_another_card_is_given_nothing(talk: Talk) -> None:
    known = probed(make_card())[0]
    other = make_card()
    pumps: list[Pump] = []
    with pytest.raises(Failure) as error:
        talk(other, consent=ALL, known=known, prepare=pumps.append)
    assert error.value.problem is Problem.CARD_REMOVED
    assert [apdu[1] for apdu in pumps[0].apdus] == [0xA4, 0xCB]
    assert other.book.wrong() == 0


@pytest.mark.parametrize("act", ["change", "unblock"])
@pytest.mark.parametrize("withdrawn", [False, True])
def test_the_secrets_are_wiped_whatever_becomes_of_them(act: str, *, withdrawn: bool) -> None:
    card = make_card(tries=1 if act == "change" else 0)
    known = probed(card)[0]
    buffers = [bytearray(CANARY.encode()), bytearray(NEW.encode())]
    first, second = map(type(secret()), buffers)
    pin = known.pins["user"]
    pump = Pump(card)
    dialogues: dict[str, Callable[[], Any]] = {
        "change": lambda: PIV.change(known, pin, first, second, SPEND if withdrawn else NONE),
        "unblock": lambda: PIV.unblock(known, pin, first, second, BLIND if withdrawn else NONE),
    }
    if withdrawn:

        class Withdrawn:
            def claim(self) -> None:
                raise Failure(Problem.IN_USE_ELSEWHERE, "withdrawn")

        with pytest.raises(Failure):
            pump.hold(dialogues[act](), Withdrawn())  # type: ignore[arg-type]
    else:
        assert not pump.hold(dialogues[act]()).sent
    assert sent(pump) == []
    assert buffers == [b"", b""]


def test_the_secrets_are_wiped_before_anything_else_is_said() -> None:
    card = make_card()
    known = probed(card)[0]
    buffers = [bytearray(WRONG.encode()), bytearray(NEW.encode())]
    first, second = map(type(secret()), buffers)
    pump = Pump(card)
    seen: list[bool] = []

    def watch(_: int, apdu: bytes) -> bytes | None:
        if sent(pump) and apdu[1] == 0x20:
            seen.append(any(buffers))
        return b"\x6f\x00" if apdu[1] == 0x24 else None

    pump.before = watch
    pump.hold(PIV.change(known, known.pins["user"], first, second, NONE))
    assert seen == [False]
