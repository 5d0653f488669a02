"""PINs of a PKCS#15 card: formats, counters, and what asking costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cardsession.virtual.book import Kind, Tally
from cardsession.virtual.card import VirtualCard
from cardsession.virtual.pkcs15.options import EmptyVerify, Padding, PinType, Pkcs15Options
from cardsession.virtual.pkcs15.passcode import Format

Maker = Callable[..., VirtualCard]
USER, SIGNATURE, PUK = 0x81, 0x82, 0x83
RIGHT, WRONG, NEW = b"73194682", b"11112222", b"24680000"
PUK_VALUE = b"87654321"
APPLICATION = "00A4000C025015"


def send(card: VirtualCard, head: str, data: bytes = b"") -> int:
    lc = bytes([len(data)]) if data else b""
    answer = card.process(bytes.fromhex(head) + lc + data)
    assert len(answer) == 2
    return int.from_bytes(answer, "big")


def verify(card: VirtualCard, value: bytes = b"", at: int = USER) -> int:
    return send(card, f"002000{at:02X}", value)


@pytest.fixture
def make(make_pkcs15: Maker) -> Maker:
    """Cards with their application selected."""

    def made(pkcs15: dict[str, Any] | None = None, **options: Any) -> VirtualCard:
        card = make_pkcs15(pkcs15, **{"slots": (), **options})
        assert send(card, APPLICATION) == 0x9000
        return card

    return made


def test_counting_down_and_the_book(make: Maker) -> None:
    card = make()
    for left in (2, 1, 0):
        assert verify(card, WRONG) == 0x63C0 | left
    assert verify(card, RIGHT) == verify(card) == 0x6983
    tally = card.book.tally(Kind.VERIFY, USER)
    assert tally == Tally(total=5, wrong=3, blocked=1, status=1)
    assert card.book.wrong() == 3


def test_a_right_value_refills_and_a_reset_drops(make: Maker) -> None:
    card = make()
    verify(card, WRONG)
    assert verify(card, RIGHT) == verify(card) == 0x9000
    assert card.pins.satisfied
    card.reset()
    assert verify(card) == 0x6A88, "the MF is current: the PIN is local to DF 5015"
    assert send(card, APPLICATION) == 0x9000
    assert verify(card) == 0x63C3
    assert not card.pins.satisfied


def test_a_global_pin_is_there_everywhere(make_pkcs15: Maker) -> None:
    card = make_pkcs15({"pin_local": False, "pin_reference": 0x01}, slots=())
    assert verify(card, RIGHT, 0x01) == 0x9000


def test_deauthentication_may_be_missing(make: Maker) -> None:
    card = make()
    verify(card, RIGHT)
    assert send(card, "0020FF81") == 0x9000
    assert verify(card) == 0x63C3
    unable = make(deauthentication=False)
    verify(unable, RIGHT)
    assert send(unable, "0020FF81") == 0x6A86
    assert verify(unable) == 0x9000


@pytest.mark.parametrize(
    ("mode", "status", "left"),
    [
        (EmptyVerify.FREE, 0x63C3, 3),
        (EmptyVerify.UNTOLD, 0x6300, 3),
        (EmptyVerify.COSTS, 0x6300, 2),
        (EmptyVerify.WRONG_LENGTH, 0x6700, 3),
        (EmptyVerify.WRONG_PARAMETERS, 0x6A86, 3),
    ],
)
def test_asking_is_free_or_not(make: Maker, mode: EmptyVerify, status: int, left: int) -> None:
    card = make({"empty_verify": mode})
    assert verify(card) == status
    assert card.pins.reference(USER).left == left
    assert card.book.wrong(USER) == 3 - left
    verify(card, RIGHT)
    verify(card)
    assert card.pins.satisfied is (mode is not EmptyVerify.COSTS)


def test_asking_can_block_a_hostile_card(make: Maker) -> None:
    card = make({"empty_verify": EmptyVerify.COSTS})
    assert [verify(card) for _ in range(4)] == [0x6300, 0x6300, 0x6300, 0x6983]


def test_a_pin_that_was_never_set(make: Maker) -> None:
    card = make({"pin_initialized": False})
    assert verify(card) == verify(card, RIGHT) == 0x6985
    assert card.pins.reference(USER).left == 3
    assert send(card, "002C0081", PUK_VALUE + NEW) == 0x9000
    assert verify(card, NEW) == 0x9000


@pytest.mark.parametrize("value", [b"1234567", b"123456789"])
def test_a_wrong_length_is_refused_or_costs(make: Maker, value: bytes) -> None:
    assert verify(make(), value) == 0x6700
    hostile = make(format_costs_a_try=True)
    assert verify(hostile, value) == 0x63C2
    assert hostile.book.wrong(USER) == 1


def test_wrong_padding_is_refused_or_costs(make: Maker) -> None:
    zero = b"123456\0\0"
    assert verify(make(), zero) == 0x6A80
    assert verify(make(format_costs_a_try=True), zero) == 0x63C2
    assert verify(make(pin_digits_only=False), zero) == 0x63C2
    assert verify(make({"padding": Padding.ZERO}), zero) == 0x63C2


def test_an_unpadded_pin_has_its_own_length(make: Maker) -> None:
    card = make({"padding": Padding.NONE})
    assert verify(card, RIGHT) == 0x9000
    assert send(card, "00240081", RIGHT + b"24681") == 0x9000
    assert verify(card, b"24681") == 0x9000
    assert send(card, "00240081", b"24681" + b"135") == 0x6700
    assert verify(card, b"246") == 0x6700
    assert verify(card, b"2468") == 0x63C2


@pytest.mark.parametrize(
    ("kind", "padding", "text", "expected"),
    [
        (PinType.ASCII_NUMERIC, Padding.FF, "12345", "3132333435FFFFFF"),
        (PinType.ASCII_NUMERIC, Padding.ZERO, "12345", "3132333435000000"),
        (PinType.ASCII_NUMERIC, Padding.NONE, "12345", "3132333435"),
        (PinType.UTF8, Padding.ZERO, "pä55", "70C3A43535000000"),
        (PinType.BCD, Padding.FF, "12345", "12345FFFFFFFFFFF"),
        (PinType.BCD, Padding.ZERO, "12345", "1234500000000000"),
        (PinType.BCD, Padding.NONE, "1234", "1234"),
        (PinType.HALF_NIBBLE_BCD, Padding.FF, "1234", "F1F2F3F4FFFFFFFF"),
        (PinType.ISO9564_1, Padding.NONE, "12345", "2512345FFFFFFFFF"),
    ],
)
def test_the_formats_of_a_pin(kind: PinType, padding: Padding, text: str, expected: str) -> None:
    form = Format.of(Pkcs15Options(pin_type=kind, padding=padding))
    value = form.encode(text)
    assert value == bytes.fromhex(expected)
    assert len(value) in form.sizes()
    assert form.digits_only(value)


@pytest.mark.parametrize("text", ["123", "123456789", "12a456", ""])
def test_what_fits_not_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        Format.of(Pkcs15Options()).encode(text)
    assert not text or text not in str(refused.value)


def test_change(make: Maker) -> None:
    card = make()
    assert send(card, "00240081", WRONG + NEW) == 0x63C2
    assert send(card, "00240081", RIGHT + b"2468") == 0x6700
    assert send(card, "00240081", RIGHT + b"ABCDEFGH") == 0x6A80
    assert send(card, "00240181", NEW) == 0x6A86
    assert send(card, "00240081", RIGHT + NEW) == 0x9000
    assert verify(card) == 0x63C3
    assert verify(card, NEW) == 0x9000
    tally = card.book.tally(Kind.CHANGE, USER)
    assert tally == Tally(total=5, wrong=1, refused=3, right=1)
    assert send(make({"pin_change": False}), "00240081", RIGHT + NEW) == 0x6985


def test_unblock(make: Maker) -> None:
    card = make(tries=0)
    assert verify(card, RIGHT) == 0x6983
    assert send(card, "002C0081", WRONG + NEW) == 0x63C2
    assert send(card, "002C0083", PUK_VALUE + NEW) == 0x6A88
    assert send(card, "002C0081", PUK_VALUE + b"1") == 0x6700
    assert send(card, "002C0181", PUK_VALUE) == 0x9000
    assert verify(card, RIGHT) == 0x9000
    assert send(card, "002C0081", PUK_VALUE + NEW) == 0x9000
    assert verify(card, NEW) == 0x9000
    assert card.book.tally(Kind.RESET, PUK).wrong == 1
    assert send(make({"puk": False}), "002C0081", PUK_VALUE + NEW) == 0x6985


def test_a_puk_that_is_blocked_stays_so(make: Maker) -> None:
    card = make(puk_limit=2)
    answers = [send(card, "002C0081", WRONG + NEW) for _ in range(3)]
    assert answers == [0x63C1, 0x63C0, 0x6983]
    assert send(card, "002C0081", PUK_VALUE + NEW) == 0x6983
    assert verify(card, RIGHT) == 0x9000


def test_two_pins_are_counted_apart(make: Maker) -> None:
    card = make({"signature_pin": True})
    assert verify(card, RIGHT, SIGNATURE) == 0x63C2
    assert verify(card) == 0x63C3
    assert verify(card, b"24681357", SIGNATURE) == 0x9000
    assert card.book.wrong(SIGNATURE) == 1
    assert card.pins.as_dict()["82"] == {"left": 3, "limit": 3, "verified": True}


def test_two_pins_cannot_share_a_reference(make: Maker) -> None:
    with pytest.raises(ValueError, match="81"):
        make({"puk_reference": USER})


def test_no_secret_is_in_what_a_card_shows(make: Maker) -> None:
    card = make({"signature_pin": True})
    verify(card, RIGHT)
    shown = f"{card.book.as_dict()} {card.pins.reference(USER)!r} {card.options!r}"
    assert RIGHT.decode() not in shown
    assert RIGHT.hex() not in shown
