"""The guard by itself, for a card family of the test's own: each rule, and that it is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cardsession.adapters.ledger import MemoryLedger
from cardsession.cards.guard import Count, Submission, misfit, submit, takes
from cardsession.cards.profile import Pin
from cardsession.core.apdu import SW, Command
from cardsession.core.dialogue import Attempt, Dialogue, LowestSeen, Settle
from cardsession.core.errors import Failure, Malformed, Problem
from cardsession.core.secret import Secret
from cardsession.core.tries import (
    Act,
    Blocked,
    Consent,
    Judged,
    Known,
    NoSuchPin,
    NotSet,
    Outcome,
    PinStatus,
    Unknown,
    Verified,
)
from fakes.cards import CANARY, secret
from fakes.channel import Pump
from fakes.piv import ALL, BLIND, NONE

USER = Pin("user", 0x11, stored_length=8, pad=0x00, asking_is_free=True, min_length=4)
LONG = Pin("global", 0x12, stored_length=16, pad=None, asking_is_free=True)
PUK = replace(USER, label="puk", reference=0x13, asking_is_free=False, verifiable=False)
CARD = "the card"
NEW = "2468"
INS = {Act.VERIFY: 0x20, Act.CHANGE: 0x24, Act.UNBLOCK: 0x2C}


def counting(*statuses: PinStatus | Exception) -> Count:
    """A family whose card tells these counts, one after the other."""
    told = iter(statuses)

    def count() -> Dialogue[PinStatus]:
        yield from ()
        status = next(told)
        if isinstance(status, Exception):
            raise status
        return status

    return count


def verifying(pin: Pin = USER, text: str = CANARY, consent: Consent = NONE) -> Submission:
    return Submission(Act.VERIFY, CARD, pin, pin.reference, ((pin, secret(text)),), consent)


def changing(pin: Pin = USER, new: str = NEW, consent: Consent = NONE) -> Submission:
    secrets = ((pin, secret()), (pin, secret(new)))
    return Submission(Act.CHANGE, CARD, pin, pin.reference, secrets, consent)


def unblocking(consent: Consent = BLIND) -> Submission:
    secrets = ((PUK, secret()), (USER, secret(NEW)))
    return Submission(Act.UNBLOCK, CARD, PUK, USER.reference, secrets, consent)


def staying() -> Dialogue[None]:
    """The card that was meant is still there."""
    yield from ()


def held(
    submission: Submission, count: Count, answer: str, ledger: MemoryLedger | None = None
) -> tuple[Judged, Pump]:
    """The guard over a card that answers every command like this."""
    pump = Pump(None, ledger)
    pump.before = lambda _, __: bytes.fromhex(answer)
    return pump.hold(submit(submission, count, staying)), pump


def steps(pump: Pump) -> list[str]:
    return [type(step).__name__ for step in pump.steps]


def settled(pump: Pump) -> Settle:
    (found,) = [step for step in pump.steps if isinstance(step, Settle)]
    return found


# the one command


@pytest.mark.parametrize(
    ("submission", "data", "changed"),
    [
        (verifying(), CANARY.encode(), None),
        (verifying(LONG), CANARY.encode(), None),
        (changing(), CANARY.encode() + b"2468\0\0\0\0", 0x11),
        (changing(LONG), CANARY.encode() + b"2468", 0x12),
        (unblocking(), CANARY.encode() + b"2468\0\0\0\0", 0x11),
    ],
    ids=["verify", "verify as long as it is", "change", "change as long as it is", "unblock"],
)
def test_ask_then_record_then_send_then_settle(
    submission: Submission, data: bytes, changed: int | None
) -> None:
    before = Unknown() if submission.act is Act.UNBLOCK else Known(3)
    judged, pump = held(submission, counting(before), "9000")
    assert judged.outcome.value == submission.act.value
    assert steps(pump) == ["LowestSeen", "Attempt", "Command", "Settle"]
    head = bytes([0x00, INS[submission.act], 0x00, submission.reference, len(data)])
    assert pump.apdus == [head + data]
    reference = submission.judged.reference
    assert pump.steps[:2] == [LowestSeen(CARD, reference), Attempt(CARD, reference)]
    assert settled(pump) == Settle(CARD, reference, Verified(), changed)
    command = next(step for step in pump.steps if isinstance(step, Command))
    assert command.effect
    assert command.data == b"", "wiped"


@pytest.mark.parametrize("answer", ["63C2", "6983", "6A80", "6300", ""])
def test_nothing_is_changed_unless_the_card_took_it(answer: str) -> None:
    _, pump = held(changing(), counting(Known(3), Known(2)), answer)
    assert settled(pump).changed is None


def test_a_right_puk_is_not_called_verified() -> None:
    judged, _ = held(unblocking(), counting(Unknown()), "9000")
    assert judged == Judged(Outcome.UNBLOCKED, Unknown())


# what is refused before


@pytest.mark.parametrize("text", ["", "123", "123456789"])
def test_a_length_that_the_pin_does_not_have(text: str) -> None:
    assert not takes(USER, secret(text))
    submission = verifying(USER, text, ALL)
    refused = Judged(Outcome.BAD_FORMAT, Unknown(), sent=False)
    assert misfit(submission) == refused
    judged, pump = held(submission, counting(), "9000")
    assert judged == refused
    assert pump.steps == []


def test_a_passcode_that_was_wiped_meanwhile_is_none() -> None:
    submission = verifying(LONG)
    submission.secrets[0][1].wipe()
    judged, pump = held(submission, counting(Known(3)), "9000")
    assert judged.outcome is Outcome.BAD_FORMAT
    assert pump.apdus == []


def test_a_new_passcode_is_told_from_an_old_one() -> None:
    judged, pump = held(changing(new="1"), counting(), "9000")
    assert judged == Judged(Outcome.BAD_NEW_PIN, Unknown(), sent=False)
    assert pump.steps == []


@pytest.mark.parametrize("text", ["1234", "12345678"])
def test_both_ends_of_what_it_has_are_taken(text: str) -> None:
    assert takes(USER, secret(text))


def test_a_puk_is_not_verified() -> None:
    with pytest.raises(Failure) as error:
        held(verifying(PUK, consent=ALL), counting(), "9000")
    assert error.value.problem is Problem.NOT_SUPPORTED


@pytest.mark.parametrize(
    ("before", "consent", "lowest", "outcome"),
    [
        (Known(1), NONE, None, Outcome.REFUSED_LAST_TRY),
        (Known(1), BLIND, 15, Outcome.REFUSED_LAST_TRY),
        (Blocked(), ALL, None, Outcome.WAS_BLOCKED),
        (NotSet(), ALL, None, Outcome.WAS_BLOCKED),
        (Unknown(), NONE, None, Outcome.REFUSED_UNKNOWN),
        (Unknown(), BLIND, 1, Outcome.REFUSED_LAST_TRY),
        (Verified(), NONE, None, Outcome.REFUSED_UNKNOWN),
    ],
    ids=str,
)
@pytest.mark.parametrize("build", [verifying, changing])
def test_a_try_that_may_not_go_is_not_even_recorded(
    build: Callable[..., Submission],
    before: PinStatus,
    consent: Consent,
    lowest: int | None,
    outcome: Outcome,
) -> None:
    ledger = MemoryLedger()
    if lowest is not None:
        ledger.note(CARD, USER.reference, Known(lowest))
    submission = build(consent=consent)
    judged, pump = held(submission, counting(before), "9000", ledger)
    assert judged == Judged(outcome, before, sent=False)
    assert steps(pump) == ["LowestSeen"]
    assert all(each.wiped for _, each in submission.secrets)


def test_a_pin_that_is_not_there_is_not_tried() -> None:
    submission = verifying(consent=ALL)
    with pytest.raises(Failure) as error:
        held(submission, counting(NoSuchPin()), "9000")
    assert error.value.problem is Problem.NO_SUCH_PIN
    assert all(each.wiped for _, each in submission.secrets)


@pytest.mark.parametrize("error", [Failure(Problem.NOT_SUPPORTED, "no"), Malformed("noise")])
def test_a_family_may_refuse_while_it_asks(error: Exception) -> None:
    submission = verifying(consent=ALL)
    with pytest.raises(type(error)) as raised:
        held(submission, counting(error), "9000")
    assert raised.value is error
    assert all(each.wiped for _, each in submission.secrets)


def test_an_attempt_that_is_withdrawn_sends_nothing_and_leaves_nothing() -> None:
    buffer = bytearray(CANARY.encode())
    submission = replace(verifying(), secrets=((USER, Secret(buffer)),))
    dialogue = submit(submission, counting(Known(3)), staying)
    assert isinstance(next(dialogue), LowestSeen)
    assert isinstance(dialogue.send(None), Attempt)
    dialogue.close()
    assert buffer == b""


# what is known afterwards


@pytest.mark.parametrize("told", [Known(2), Blocked()])
def test_a_count_that_the_answer_did_not_tell_is_asked_for(told: PinStatus) -> None:
    judged, pump = held(verifying(), counting(Known(3), told), "6F00")
    assert judged == Judged(Outcome.UNCERTAIN, told, read_back=True)
    assert settled(pump).status == told


@pytest.mark.parametrize(
    "told",
    [
        Unknown(SW(0x6982)),
        Verified(),
        NoSuchPin(),
        NotSet(),
        Failure(Problem.IN_USE_ELSEWHERE, "it does not end"),
        Malformed("noise"),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    ("answer", "outcome", "sw"),
    [
        ("6300", Outcome.INCORRECT, SW(0x6300)),
        ("6F00", Outcome.UNCERTAIN, SW(0x6F00)),
        ("", Outcome.UNCERTAIN, None),
    ],
)
def test_what_is_asked_for_in_vain_leaves_what_was_known(
    told: PinStatus | Exception, answer: str, outcome: Outcome, sw: SW | None
) -> None:
    ledger = MemoryLedger()
    judged, pump = held(verifying(), counting(Known(3), told), answer, ledger)
    assert judged == Judged(outcome, Unknown(sw))
    assert settled(pump).status == Unknown(sw)
    assert ledger.past(CARD).in_flight, "nobody knows whether a try is gone"


@pytest.mark.parametrize("answer", ["9000", "63C2", "63C0", "6983"])
def test_an_answer_that_tells_is_not_asked_about(answer: str) -> None:
    judged, pump = held(verifying(), counting(Known(3)), answer)
    assert not judged.read_back
    assert steps(pump) == ["LowestSeen", "Attempt", "Command", "Settle"]


# what the ledger is told


@pytest.mark.parametrize(
    ("lowest", "status"), [(None, Verified()), (0, Verified()), (1, Known(1)), (4, Known(4))]
)
def test_a_right_puk_keeps_the_lowest_count_of_its_own(
    lowest: int | None, status: PinStatus
) -> None:
    ledger = MemoryLedger()
    if lowest is not None:
        ledger.note(CARD, PUK.reference, Known(lowest) if lowest else Blocked())
    _, pump = held(unblocking(ALL), counting(Unknown()), "9000", ledger)
    assert settled(pump) == Settle(CARD, PUK.reference, status, USER.reference)
    assert ledger.lowest(CARD, PUK.reference) == (lowest or None)
    assert not ledger.past(CARD).in_flight


@pytest.mark.parametrize(
    ("lowest", "status"), [(None, Verified()), (0, Blocked()), (1, Known(1)), (4, Known(4))]
)
def test_a_form_that_was_not_compared_ends_the_attempt_and_moves_nothing(
    lowest: int | None, status: PinStatus
) -> None:
    ledger = MemoryLedger()
    if lowest is not None:
        ledger.note(CARD, PUK.reference, Known(lowest) if lowest else Blocked())
    submission = replace(unblocking(ALL), format_uncounted=True)
    judged, pump = held(submission, counting(Unknown(), Unknown()), "6A80", ledger)
    assert judged == Judged(Outcome.BAD_NEW_PIN, Unknown())
    assert settled(pump) == Settle(CARD, PUK.reference, status)
    assert ledger.lowest(CARD, PUK.reference) == lowest
    assert not ledger.past(CARD).in_flight


def test_where_the_standard_promises_nothing_a_form_may_have_cost_a_try() -> None:
    ledger = MemoryLedger()
    judged, _ = held(unblocking(ALL), counting(Unknown(), Unknown()), "6A80", ledger)
    assert judged == Judged(Outcome.UNCERTAIN, Unknown(SW(0x6A80)))
    assert ledger.past(CARD).in_flight


def test_a_puk_s_own_count_is_told_and_remembered() -> None:
    ledger = MemoryLedger()
    judged, _ = held(unblocking(), counting(Unknown()), "63C2", ledger)
    assert judged == Judged(Outcome.INCORRECT, Known(2))
    assert ledger.lowest(CARD, PUK.reference) == 2
    assert ledger.lowest(CARD, USER.reference) is None
