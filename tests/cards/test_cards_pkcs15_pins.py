"""Submissions to PKCS#15 cards: what is sent, how it is formed, and what is never sent."""

from __future__ import annotations

from typing import Any

import pytest

from cardsession.cards.declaration import Declaration
from cardsession.cards.pkcs15 import NAME, Pkcs15
from cardsession.cards.profile import Probe
from cardsession.core.dialogue import Attempt, Noted, Reset, Settle
from cardsession.core.errors import Failure, Problem
from cardsession.core.tries import Blocked, Consent, Judged, Known, NotSet, Outcome, Unknown
from fakes.cards import CANARY, WRONG, secret
from fakes.channel import Pump
from fakes.pkcs15 import CardPin, FakeCard, standard_card
from fakes.pkcs15_files import (
    APP,
    ATR,
    CHANGE_DISABLED,
    INITIALIZED,
    LOCAL,
    PADDED,
    UNBLOCK_DISABLED,
    UNBLOCKING,
    certificate,
    certificate_entry,
    odf,
    pin_entry,
    token_entry,
)

FREE = Declaration(profile=NAME, asking_is_free=True, source="the tests' own card")
ASKING, SILENT = Pkcs15((FREE,)), Pkcs15()
NONE, ANYWAY = Consent(), Consent(accept_unknown=True)


def probed(card: FakeCard, family: Pkcs15 = ASKING) -> Probe:
    probe: Probe = Pump(card).hold(family.probe(ATR))
    card.log.clear()
    return probe


def submit(
    card: FakeCard,
    text: str = CANARY,
    consent: Consent = NONE,
    family: Pkcs15 = ASKING,
    label: str = "user",
) -> tuple[Judged, Pump]:
    probe = probed(card, family)
    pump = Pump(card)
    held = secret(text)
    judged = pump.hold(family.verify(probe, probe.pins[label], held, consent))
    assert held.wiped
    return judged, pump


def problem(dialogue: Any, card: FakeCard) -> tuple[Problem, Pump]:
    pump = Pump(card)
    with pytest.raises(Failure) as caught:
        pump.hold(dialogue)
    return caught.value.problem, pump


def test_a_right_passcode() -> None:
    card = standard_card()
    judged, pump = submit(card)
    assert judged.outcome is Outcome.VERIFIED
    assert [apdu.hex() for apdu in pump.verifies] == ["0020000108" + CANARY.encode().hex()]
    assert any(isinstance(step, Noted) for step in pump.steps)
    assert len(pump.apdus) == 4, "the file, its content, the question, the passcode"
    assert isinstance(pump.steps[-1], Settle)
    assert any(isinstance(step, Attempt) for step in pump.steps)


@pytest.mark.parametrize(
    ("left", "consent", "outcome", "sent"),
    [
        (3, NONE, Outcome.INCORRECT, 1),
        (2, NONE, Outcome.INCORRECT, 1),
        (1, NONE, Outcome.REFUSED_LAST_TRY, 0),
        (1, Consent(spend_last_try=True), Outcome.NOW_BLOCKED, 1),
        (0, Consent(spend_last_try=True), Outcome.WAS_BLOCKED, 0),
    ],
)
def test_a_wrong_one(left: int, consent: Consent, outcome: Outcome, sent: int) -> None:
    card = standard_card(pins={1: CardPin(CANARY.encode(), left)})
    judged, pump = submit(card, WRONG, consent)
    assert (judged.outcome, len(pump.verifies), card.spent) == (outcome, sent, sent)


def test_where_asking_is_not_free_nobody_asks_and_consent_is_needed() -> None:
    card = standard_card(asking="costs")
    judged, pump = submit(card, WRONG, NONE, SILENT)
    assert judged.outcome is Outcome.REFUSED_UNKNOWN
    assert not [apdu for apdu in pump.apdus if apdu[1] == 0x20]
    judged, pump = submit(card, WRONG, ANYWAY, SILENT)
    assert (judged.outcome, judged.status) == (Outcome.INCORRECT, Known(2))
    assert [len(apdu) for apdu in pump.apdus if apdu[1] == 0x20] == [13]
    assert card.spent == 1


def test_the_ledger_refuses_where_the_card_cannot_be_asked() -> None:
    card = standard_card(asking="costs")
    probe = probed(card, SILENT)
    pump = Pump(card)
    for expected in (Outcome.INCORRECT, Outcome.INCORRECT, Outcome.REFUSED_LAST_TRY):
        judged = pump.hold(SILENT.verify(probe, probe.pins["user"], secret(WRONG), ANYWAY))
        assert judged.outcome is expected
    assert card.spent == 2


def test_a_pin_that_is_not_set_is_not_tried() -> None:
    card = standard_card(files={APP + "4401": pin_entry(flags=(LOCAL, PADDED))})
    judged, pump = submit(card, CANARY, Consent(accept_unknown=True, spend_last_try=True))
    assert (judged.status, judged.sent, pump.verifies) == (NotSet(), False, [])


def test_a_rival_s_verification_is_ended_by_a_reset_before_the_question() -> None:
    card = standard_card()
    probe = probed(card)
    card.pins[1].verified = True
    pump = Pump(card)
    judged = pump.hold(ASKING.verify(probe, probe.pins["user"], secret(WRONG), NONE))
    assert (judged.outcome, judged.status) == (Outcome.INCORRECT, Known(2))
    assert [step for step in pump.steps if isinstance(step, Reset)] == [Reset()]


def test_a_verification_that_does_not_end_is_in_use_elsewhere() -> None:
    card = standard_card()
    probe = probed(card)
    pump = Pump(card)
    pump.before = lambda _, apdu: b"\x90\x00" if apdu == b"\x00\x20\x00\x01" else None
    with pytest.raises(Failure) as caught:
        pump.hold(ASKING.verify(probe, probe.pins["user"], secret(), NONE))
    assert caught.value.problem is Problem.IN_USE_ELSEWHERE
    assert pump.verifies == []


@pytest.mark.parametrize("family", [ASKING, SILENT])
def test_a_question_begins_with_a_reset(family: Pkcs15) -> None:
    card = standard_card(asking="silent")
    probe = probed(card, family)
    card.pins[1].verified = True
    pump = Pump(card)
    tries = pump.hold(family.question(probe))
    assert pump.steps[0] == Reset()
    assert not card.pins[1].verified
    assert tries == {"user": Known(3) if family is ASKING else Unknown()}
    assert [each for each in pump.apdus if each[1] == 0x20] == (
        [bytes.fromhex("00200001")] if family is ASKING else []
    )
    assert card.spent == 0


@pytest.mark.parametrize("family", [ASKING, SILENT])
def test_only_a_reset_ends_an_authority(family: Pkcs15) -> None:
    card = standard_card()
    probe = probed(card, family)
    pump = Pump(card)
    card.pins[1].verified = True
    tries = pump.hold(family.release(probe))
    assert pump.steps[0] == Reset()
    assert not card.pins[1].verified
    assert tries == {"user": Known(3) if family is ASKING else Unknown()}
    assert family is ASKING or pump.apdus == []


def test_another_card_gets_nothing() -> None:
    probe = probed(standard_card())
    other = standard_card(files={APP + "5032": token_entry(b"\x99" * 4)})
    for dialogue in (
        ASKING.verify(probe, probe.pins["user"], secret(), NONE),
        ASKING.question(probe),
        ASKING.certificates(probe),
    ):
        found, pump = problem(dialogue, other)
        assert found is Problem.CARD_REMOVED
        assert {apdu[1] for apdu in pump.apdus} <= {0xA4, 0xB0}


def test_a_card_whose_application_is_gone() -> None:
    probe = probed(standard_card())
    found, _ = problem(ASKING.question(probe), FakeCard({}))
    assert found is Problem.CARD_RESET


@pytest.mark.parametrize(
    ("entry", "text", "sent"),
    [
        ({}, CANARY, CANARY.encode()),
        ({}, "1234", b"1234\xff\xff\xff\xff"),
        ({"pad": b"\x00"}, "123456", b"123456\x00\x00"),
        ({"flags": (INITIALIZED,)}, "123456", b"123456"),
        ({"flags": (INITIALIZED,), "lengths": (8, 8, 8)}, "123456", b"123456\xff\xff"),
        ({"flags": (INITIALIZED,), "lengths": (4, 8)}, "1234", b"1234"),
        ({"coding": 2}, "abcdef", b"abcdef\xff\xff"),
        ({"coding": 0, "lengths": (4, 4, 8)}, "123456", b"\x12\x34\x56\xff"),
        ({"coding": 0, "lengths": (4, 4, 8)}, "12345", b"\x12\x34\x5f\xff"),
        ({"coding": 0, "lengths": (4, 8, 12), "flags": (INITIALIZED,)}, "12345", b"\x12\x34\x5f"),
        ({"coding": 3}, "1234", b"\xf1\xf2\xf3\xf4\xff\xff\xff\xff"),
        ({"coding": 4, "pad": None}, "12345", b"\x25\x12\x34\x5f\xff\xff\xff\xff"),
    ],
)
def test_the_form_of_a_passcode(entry: dict[str, Any], text: str, sent: bytes) -> None:
    card = standard_card(files={APP + "4401": pin_entry(**entry)}, pins={1: CardPin(sent)})
    judged, pump = submit(card, text)
    assert judged.outcome is Outcome.VERIFIED
    assert [apdu[5:] for apdu in pump.verifies] == [sent]


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({}, "123"),
        ({}, "123456789"),
        ({"lengths": (4, 8, 6)}, "1234567"),
        ({"coding": 0, "lengths": (4, 4, 12)}, "123456789"),
        ({"coding": 0, "lengths": (4, 4, 8)}, "12ab"),
        ({"coding": 3}, "12ab"),
        ({"coding": 4, "pad": None, "lengths": (4, 8, 14)}, "1234567890123"),
        ({"lengths": (6, 8, 8)}, "12345"),
    ],
)
def test_a_passcode_that_the_card_cannot_take_is_not_sent(entry: dict[str, Any], text: str) -> None:
    card = standard_card(files={APP + "4401": pin_entry(**entry)})
    judged, pump = submit(card, text)
    assert (judged.outcome, judged.sent, pump.apdus) == (Outcome.BAD_FORMAT, False, [])


@pytest.mark.parametrize(
    "entry",
    [
        {"coding": 5},
        {"coding": 99},
        {"pad": None},
        {"flags": (INITIALIZED, PADDED, 9)},
        {"flags": (INITIALIZED, PADDED, 10)},
        {"flags": (INITIALIZED, PADDED, 15)},
        {"lengths": (4, 0)},
        {"lengths": (4, 200, 200)},
        {"flags": (INITIALIZED, UNBLOCKING)},
    ],
)
def test_a_pin_whose_data_cannot_be_formed_is_shown_and_not_used(entry: dict[str, Any]) -> None:
    card = standard_card(files={APP + "4401": pin_entry(**entry)})
    probe = probed(card)
    (pin,) = probe.pins.values()
    assert not pin.verifiable
    for dialogue in (
        ASKING.verify(probe, pin, secret(), ANYWAY),
        ASKING.change(probe, pin, secret(), secret(), ANYWAY),
        ASKING.unblock(probe, pin, secret(), secret(), ANYWAY),
    ):
        found, pump = problem(dialogue, card)
        assert (found, pump.apdus) == (Problem.NOT_SUPPORTED, [])


def test_a_pin_in_a_place_of_its_own_is_used_there() -> None:
    inner = APP + "6000"
    files = {APP + "4401": pin_entry(where=inner), inner + "0001": b"x"}
    card = standard_card(files=files)
    seen: list[str] = []
    probe = probed(card)
    pump = Pump(card)
    pump.before = lambda _, apdu: seen.append(card.here) if apdu[1] == 0x20 else None
    judged = pump.hold(ASKING.verify(probe, probe.pins["user"], secret(), NONE))
    assert judged.outcome is Outcome.VERIFIED
    assert set(seen) == {inner}


def two(*flags: int, puk: tuple[int, ...] = (UNBLOCKING,)) -> FakeCard:
    """A PIN with these flags, and a PUK."""
    entries = pin_entry(flags=(LOCAL, INITIALIZED, *flags), guarded_by=2)
    entries += pin_entry("PUK", 2, 2, puk, lengths=(8, 8, 8), pad=None)
    pins = {1: CardPin(CANARY.encode(), 2), 2: CardPin(b"87654321", 10, 10)}
    return standard_card(files={APP + "4401": entries}, pins=pins)


def test_change() -> None:
    card = two()
    probe, pump = probed(card), Pump(card)
    old, new = secret(), secret("246813")
    judged = pump.hold(ASKING.change(probe, probe.pins["user"], old, new, NONE))
    assert (judged.outcome, card.pins[1].value) == (Outcome.CHANGED, b"246813")
    assert [apdu[:5].hex() for apdu in pump.apdus if apdu[1] == 0x24] == ["002400010e"]
    assert old.wiped and new.wiped
    assert [step.changed for step in pump.steps if isinstance(step, Settle)] == [
        probe.pins["user"].counter
    ]


def test_a_wrong_old_passcode() -> None:
    card = two()
    probe, pump = probed(card), Pump(card)
    judged = pump.hold(
        ASKING.change(probe, probe.pins["user"], secret(WRONG), secret("246813"), NONE)
    )
    assert (judged.outcome, judged.status, card.spent) == (Outcome.INCORRECT, Known(1), 1)
    judged = pump.hold(
        ASKING.change(probe, probe.pins["user"], secret(WRONG), secret("246813"), NONE)
    )
    assert (judged.outcome, card.spent) == (Outcome.REFUSED_LAST_TRY, 1)


@pytest.mark.parametrize("new", ["123", "123456789"])
def test_a_new_passcode_that_does_not_fit(new: str) -> None:
    card = two()
    probe, pump = probed(card), Pump(card)
    judged = pump.hold(ASKING.change(probe, probe.pins["user"], secret(), secret(new), NONE))
    assert (judged.outcome, pump.apdus) == (Outcome.BAD_NEW_PIN, [])


def test_unblock() -> None:
    card = two()
    card.pins[1].left = 0
    probe, pump = probed(card), Pump(card)
    assert probe.tries["user"] == Blocked()
    judged = pump.hold(
        ASKING.unblock(probe, probe.pins["user"], secret("87654321"), secret("246813"), ANYWAY)
    )
    assert judged.outcome is Outcome.UNBLOCKED
    assert judged.others == {"user": Known(3)}
    assert (card.pins[1].value, card.pins[1].left) == (b"246813", 3)
    assert [apdu[:4].hex() for apdu in pump.apdus if apdu[1] == 0x2C] == ["002c0001"]


def test_a_puk_nobody_knows_the_count_of_needs_consent() -> None:
    card = two()
    probe, pump = probed(card), Pump(card)
    args = (probe, probe.pins["user"])
    judged = pump.hold(ASKING.unblock(*args, secret("11111111"), secret("246813"), NONE))
    assert (judged.outcome, card.spent) == (Outcome.REFUSED_UNKNOWN, 0)
    judged = pump.hold(ASKING.unblock(*args, secret("11111111"), secret("246813"), ANYWAY))
    assert (judged.outcome, judged.status, card.spent) == (Outcome.INCORRECT, Known(9), 1)
    assert not [apdu for apdu in pump.apdus if apdu[1:4:2] == b"\x20\x02"], "a PUK is not asked"


def test_what_the_card_forbids_is_not_tried() -> None:
    card = two(CHANGE_DISABLED, UNBLOCK_DISABLED)
    probe = probed(card)
    pin = probe.pins["user"]
    for dialogue in (
        ASKING.change(probe, pin, secret(), secret(), ANYWAY),
        ASKING.unblock(probe, pin, secret("87654321"), secret(), ANYWAY),
    ):
        found, pump = problem(dialogue, card)
        assert (found, pump.apdus) == (Problem.NOT_SUPPORTED, [])


@pytest.mark.parametrize("card", [standard_card(), two(puk=(UNBLOCKING, 12))])
def test_no_puk_that_we_can_use(card: FakeCard) -> None:
    probe = probed(card)
    dialogue = ASKING.unblock(
        probe, probe.pins["user"], secret("87654321"), secret("246813"), ANYWAY
    )
    assert problem(dialogue, card)[0] is Problem.NOT_SUPPORTED


@pytest.mark.parametrize("sw", ["6700", "6A80", "6985", "6982", "6F00", "6300", "6D00", "63C1"])
def test_strange_answers_to_a_passcode_settle_and_are_not_repeated(sw: str) -> None:
    card = standard_card()
    probe, pump = probed(card), Pump(card)
    pump.before = lambda _, apdu: bytes.fromhex(sw) if apdu[1] == 0x20 and len(apdu) > 5 else None
    judged = pump.hold(ASKING.verify(probe, probe.pins["user"], secret(), NONE))
    assert judged.outcome is not Outcome.VERIFIED
    assert len(pump.verifies) == 1
    assert sum(isinstance(step, Settle) for step in pump.steps) == 1


def test_certificates_that_the_probe_left() -> None:
    files = {
        APP + "5031": odf(
            pins=APP + "4401", keys=APP + "4402", certificates=APP + "4403",
            trusted=APP + "4404", useful=APP + "4405",
        ),
        APP + "4403": certificate_entry() + certificate_entry(2, APP + "4302", label="Cipher"),
        APP + "4404": certificate_entry(3, APP + "4303", label="Root", authority=True),
        APP + "4405": certificate_entry(4, APP + "4304", label="Root") + certificate_entry(),
        **{APP + f"430{n}": certificate(number=n) for n in (2, 3, 4)},
    }  # fmt: skip
    card = standard_card(files=files)
    found = Pump(card).hold(ASKING.certificates(probed(card)))
    assert found == {
        "cipher": certificate(number=2),
        "root": certificate(number=3),
        "root-2": certificate(number=4),
    }
