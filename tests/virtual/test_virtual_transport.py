"""APDU transport: Le, GET RESPONSE, chaining, extended length, SELECT."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cardsession.virtual.apdu import Command, Malformed, parse
from cardsession.virtual.card import VirtualCard

AID = "A000000308000010000100"
MANAGER = "00A4040008A000000151000000"
CERTIFICATE = "00CB3FFF055C035FC105"
Maker = Callable[..., VirtualCard]


def ask(card: VirtualCard, command: str) -> bytes:
    return card.process(bytes.fromhex(command))


@pytest.mark.parametrize(
    ("raw", "data", "ne", "extended"),
    [
        ("00200080", "", 0, False),
        ("00C0000000", "", 256, False),
        ("00C0000010", "", 16, False),
        ("00CB3FFF035C017E", "5C017E", 0, False),
        ("00CB3FFF035C017E00", "5C017E", 256, False),
        ("00CB3FFF0000035C017E", "5C017E", 0, True),
        ("00CB3FFF0000035C017E0000", "5C017E", 65536, True),
        ("00C00000000100", "", 256, True),
    ],
)
def test_the_four_cases_short_and_extended(raw: str, data: str, ne: int, extended: bool) -> None:
    cla, ins, p1, p2 = bytes.fromhex(raw)[:4]
    expected = Command(cla, ins, p1, p2, bytes.fromhex(data), ne, extended)
    assert parse(bytes.fromhex(raw)) == expected


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "00",
        "002000",
        "0020008008313233",
        "00CB3FFF0000",
        "00CB3FFF000000AA",
        "0020008001AABBCC",
    ],
)
def test_what_is_no_command_is_6700(card: VirtualCard, raw: str) -> None:
    with pytest.raises(Malformed):
        parse(bytes.fromhex(raw))
    assert ask(card, raw) == b"\x67\x00"


@pytest.mark.parametrize("length", [9, 10, 11])
def test_piv_is_selected_by_its_name_with_and_without_version(
    card: VirtualCard, length: int
) -> None:
    answer = ask(card, f"00A40400{length:02X}{AID[: 2 * length]}00")
    assert answer[0] == 0x61
    assert answer[-2:] == b"\x90\x00"
    assert bytes.fromhex("4F06000010000100" + "79074F05A000000308") in answer


@pytest.mark.parametrize("name", [AID[:16], AID + "00", "A000000308000010000200", "", "D27600"])
def test_other_names_are_6a82_and_change_nothing(card: VirtualCard, name: str) -> None:
    ask(card, "00200080083733313934363832")
    field = f"{len(name) // 2:02X}{name}" if name else ""
    assert ask(card, f"00A40400{field}") == b"\x6a\x82"
    assert ask(card, "00200080") == b"\x90\x00"


def test_selecting_another_application_drops_the_pin_and_piv_again_does_not(
    card: VirtualCard,
) -> None:
    ask(card, "00200080083733313934363832")
    ask(card, f"00A404000B{AID}00")
    assert ask(card, "00200080") == b"\x90\x00"
    assert ask(card, MANAGER + "00")[-2:] == b"\x90\x00"
    assert ask(card, "00200080") == b"\x6d\x00"
    ask(card, f"00A404000B{AID}00")
    assert ask(card, "00200080") == b"\x63\xc3"


def test_piv_is_the_default_application_unless_it_is_not(make_card: Maker) -> None:
    assert ask(make_card(), "00200080") == b"\x63\xc3"
    assert ask(make_card(selected_by_default=False), "00200080") == b"\x6d\x00"


def test_reset_selects_the_default_application_again(card: VirtualCard) -> None:
    ask(card, MANAGER)
    card.reset()
    assert ask(card, "00200080") == b"\x63\xc3"


def test_a_long_answer_comes_in_portions(card: VirtualCard) -> None:
    whole = ask(card, CERTIFICATE[:8] + "000005" + CERTIFICATE[10:] + "0000")
    assert whole[-2:] == b"\x90\x00"
    first = ask(card, CERTIFICATE + "00")
    rest = len(whole) - 2 - 256
    assert first[-2:] == bytes([0x61, rest])
    assert first[:-2] + ask(card, "00C0000000") == whole
    assert ask(card, "00C0000000") == b"\x69\x85"


def test_no_le_gives_no_data_and_says_how_much_there_is(card: VirtualCard) -> None:
    assert ask(card, CERTIFICATE) == b"\x61\x00"
    assert ask(card, "00CB3FFF035C017E") == b"\x61\x14"
    assert len(ask(card, "00C0000005")) == 5 + 2


def test_another_command_forgets_what_is_pending(card: VirtualCard) -> None:
    ask(card, CERTIFICATE + "00")
    ask(card, "00200080")
    assert ask(card, "00C0000000") == b"\x69\x85"


def test_a_chain_forgets_what_is_pending_and_get_response_breaks_it(card: VirtualCard) -> None:
    ask(card, CERTIFICATE + "00")
    ask(card, "102000800437333139")
    assert ask(card, "00C0000000") == b"\x69\x85"
    assert ask(card, "002000800434363832") == b"\x6a\x80"


def test_a_chained_command_is_one_command(card: VirtualCard) -> None:
    assert ask(card, "102000800437333139") == b"\x90\x00"
    assert card.book.as_dict()["counts"] == {}
    assert ask(card, "002000800434363832") == b"\x90\x00"
    assert ask(card, "00200080") == b"\x90\x00"


def test_a_chain_that_another_command_breaks_is_6883(card: VirtualCard) -> None:
    ask(card, "102000800437333139")
    assert ask(card, "00CB3FFF035C017E00") == b"\x68\x83"
    assert ask(card, "00CB3FFF035C017E00")[-2:] == b"\x90\x00"


def test_a_chain_has_an_end(card: VirtualCard) -> None:
    link = "10DB3FFFFF" + "00" * 255
    answers = {ask(card, link) for _ in range(40)}
    assert answers == {b"\x90\x00", b"\x6a\x84"}


def test_a_card_may_refuse_chaining_and_extended_length(make_card: Maker) -> None:
    old = make_card(extended=False, chaining=False)
    assert ask(old, "00CB3FFF0000035C017E0000") == b"\x67\x00"
    assert ask(old, "102000800437333139") == b"\x68\x84"


@pytest.mark.parametrize(
    ("cla", "sw"), [(0x80, "6E00"), (0x0C, "6882"), (0x01, "6881"), (0x20, "6E00")]
)
def test_classes_that_it_has_not(card: VirtualCard, cla: int, sw: str) -> None:
    assert ask(card, f"{cla:02X}200080") == bytes.fromhex(sw)


def test_the_atr_is_well_formed_t1(card: VirtualCard) -> None:
    check = 0
    for byte in card.atr[1:]:
        check ^= byte
    assert card.atr[0] == 0x3B
    assert check == 0
    assert card.atr[3] & 0x0F == 1
    assert len(card.atr) == 1 + 1 + 5 + (card.atr[1] & 0x0F) + 1
