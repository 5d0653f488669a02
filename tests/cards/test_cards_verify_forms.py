"""One submission to a PIV card: over the other interface, of a certain form, to the second PIN."""

from __future__ import annotations

import pytest

from cardsession.core.apdu import SW
from cardsession.core.dialogue import Reset
from cardsession.core.errors import Failure, Problem
from cardsession.core.tries import (
    Judged,
    Known,
    Outcome,
    Unknown,
)
from cardsession.virtual.options import PinPolicy
from fakes.cards import ATR, CANARY, WRONG, make_card, secret
from fakes.channel import Pump
from fakes.piv import (
    ALL,
    FRESH,
    NONE,
    PIV,
    kinds,
    probed,
    sent,
    submit,
)

# over the contactless interface


@pytest.mark.parametrize("sw", ["6982", "6A81"])
@pytest.mark.parametrize("policy", list(PinPolicy))
def test_over_the_contactless_interface_no_passcode_is_sent_and_a_session_opens(
    sw: str, policy: PinPolicy
) -> None:
    """SP 800-73-4 part 2 clause 3.2.1: VERIFY without the virtual contact interface fails."""
    card = make_card(pin_policy=policy)

    def refusing(_: int, apdu: bytes) -> bytes | None:
        return bytes.fromhex(sw) if apdu[1] in {0x20, 0x24, 0x2C} else None

    pump = Pump(card)
    pump.before = refusing
    known = pump.hold(PIV.probe(ATR))
    assert known.tries == dict.fromkeys(known.pins, Unknown()) | {"user": Unknown(SW(int(sw, 16)))}
    told = pump.hold(PIV.question(known))
    assert set(told) == set(known.pins)
    assert all(isinstance(status, Unknown) for status in told.values())
    labels = [label for label, pin in known.pins.items() if pin.reference == 0x80]
    talks = [
        *(PIV.verify(known, pin, secret(), ALL) for pin in known.pins.values() if pin.verifiable),
        *(PIV.change(known, pin, secret(), secret(), ALL) for pin in known.pins.values()),
        *(PIV.unblock(known, known.pins[label], secret(), secret(), ALL) for label in labels),
    ]
    for talk in talks:
        with pytest.raises(Failure) as error:
            pump.hold(talk)
        assert error.value.problem is Problem.NOT_SUPPORTED
        assert "contactless" in error.value.text
    assert sent(pump) == []
    assert card.book.wrong() == 0


def test_a_card_that_takes_a_pin_over_either_interface_is_given_one() -> None:
    """The ATR that a reader makes up for a contactless card decides nothing."""
    card = make_card()
    pump = Pump(card)
    known = pump.hold(PIV.probe(bytes.fromhex("3B8080010101")))
    assert pump.hold(PIV.verify(known, known.pins["user"], secret(), NONE)).outcome is (
        Outcome.VERIFIED
    )


# the form of a passcode


@pytest.mark.parametrize("text", [CANARY + "1", CANARY * 8])
def test_a_length_that_no_card_takes_costs_not_a_word(text: str) -> None:
    """Part 2 clause 2.4.3: at most eight; and 63CX is a card's right for what is not."""
    card = make_card(format_costs_a_try=True)
    judged, pump = submit(card, text, ALL)
    assert judged == Judged(Outcome.BAD_FORMAT, Unknown(), sent=False)
    assert pump.apdus == []


def test_an_old_passcode_of_four_characters_is_for_the_card_to_judge() -> None:
    """Such ones are in use, and stay valid until they are changed."""
    card = make_card()
    judged, pump = submit(card, "1234", NONE)
    assert len(pump.verifies) == 1
    assert judged.outcome in (Outcome.BAD_FORMAT, Outcome.INCORRECT)


def test_a_puk_is_not_verified() -> None:
    card = make_card()
    known = probed(card)[0]
    pump = Pump(card)
    with pytest.raises(Failure) as error:
        pump.hold(PIV.verify(known, known.pins["puk"], secret("12345678"), ALL))
    assert error.value.problem is Problem.NOT_SUPPORTED
    assert sent(pump) == []


# the second PIN


@pytest.mark.parametrize(
    ("policy", "label", "reference"),
    [(PinPolicy.GLOBAL_TOO, "global", 0x00), (PinPolicy.GLOBAL_PRIMARY, "application", 0x80)],
)
def test_the_second_pin_has_its_own_counter_and_is_asked_in_a_session(
    policy: PinPolicy, label: str, reference: int
) -> None:
    card = make_card(pin_policy=policy)
    card.pins.reference(reference).left = 2
    known, pump = probed(card)
    assert {apdu[3] for apdu in pump.apdus if apdu[1] == 0x20} == {known.pins["user"].reference}
    assert known.tries[label] == Unknown()
    pump = Pump(card)
    assert pump.hold(PIV.question(known)) == {**FRESH, label: Known(2)}
    judged = pump.hold(PIV.verify(known, known.pins[label], secret(WRONG), NONE))
    assert judged == Judged(Outcome.INCORRECT, Known(1))
    judged = pump.hold(PIV.verify(known, known.pins[label], secret(), NONE))
    assert judged.outcome is Outcome.REFUSED_LAST_TRY
    assert [apdu[3] for apdu in pump.verifies] == [reference]
    assert card.pins.reference(known.pins["user"].reference).left == 3


@pytest.mark.parametrize("finger", [0x96, 0x97])
def test_a_finger_that_was_compared_on_the_card_opens_nothing_for_us(finger: int) -> None:
    """Part 1 clause 3.3.2: on-card comparison satisfies the rules of the keys, like a PIN."""
    policy = bytes.fromhex("7E055F2F025010")
    card = make_card(objects={0x7E: policy})
    known = probed(card)[0]
    assert known.others == (0x96, 0x97)
    pump = Pump(card)
    pump.before = lambda _, apdu: b"\x90\x00" if apdu[3] in known.others else None
    pump.hold(PIV.question(known))
    pump.hold(PIV.release(known))
    ended = [apdu for apdu in pump.apdus if apdu == bytes([0x00, 0x20, 0xFF, finger])]
    assert len(ended) == 2
    assert Reset() not in pump.steps


def test_a_question_resets_a_card_that_does_not_end_the_authority_of_others() -> None:
    card = make_card(objects={0x7E: bytes.fromhex("7E055F2F025010")})
    known = probed(card)[0]
    pump = Pump(card)
    assert pump.hold(PIV.question(known)) == FRESH
    steps = kinds(pump.steps)
    assert steps.count("Reset") == 1
    assert steps[steps.index("Reset") + 1] == "00 A4 04 00"
