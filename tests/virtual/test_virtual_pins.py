"""Retry counters, security status and the book."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cardsession.virtual.book import Kind, Tally
from cardsession.virtual.card import VirtualCard

RIGHT = "3733313934363832"
WRONG = "313131313131FFFF"
NEW = "323436383130FFFF"
PUK = "3132333435363738"
Maker = Callable[..., VirtualCard]


def ask(card: VirtualCard, command: str) -> int:
    answer = card.process(bytes.fromhex(command))
    assert len(answer) == 2
    return int.from_bytes(answer, "big")


def verify(card: VirtualCard, value: str, reference: int = 0x80) -> int:
    return ask(card, f"002000{reference:02X}{len(value) // 2:02X}{value}")


def status(card: VirtualCard, reference: int = 0x80) -> int:
    return ask(card, f"002000{reference:02X}")


def change(card: VirtualCard, old: str, new: str, reference: int = 0x80) -> int:
    return ask(card, f"002400{reference:02X}{len(old + new) // 2:02X}{old}{new}")


def unblock(card: VirtualCard, puk: str, new: str = NEW) -> int:
    return ask(card, f"002C0080{len(puk + new) // 2:02X}{puk}{new}")


@pytest.mark.parametrize("limit", [1, 3, 5, 15])
def test_wrong_values_count_down_to_blocked(make_card: Maker, limit: int) -> None:
    card = make_card(tries_limit=limit)
    for left in reversed(range(limit)):
        assert verify(card, WRONG) == 0x63C0 | left
        assert status(card) == (0x63C0 | left if left else 0x6983)
    assert verify(card, RIGHT) == 0x6983
    tally = card.book.tally(Kind.VERIFY, 0x80)
    assert (tally.wrong, tally.blocked, tally.right, tally.status) == (limit, 1, 0, limit)


def test_a_right_value_refills_the_counter(card: VirtualCard) -> None:
    verify(card, WRONG)
    verify(card, WRONG)
    assert verify(card, RIGHT) == 0x9000
    assert status(card) == 0x9000
    assert ask(card, "0020FF80") == 0x9000
    assert status(card) == 0x63C3


def test_asking_costs_nothing(card: VirtualCard) -> None:
    assert {status(card) for _ in range(20)} == {0x63C3}
    assert card.book.as_dict()["wrong"] == 0
    assert card.book.tally(Kind.VERIFY, 0x80) == Tally(total=20, status=20)


def test_a_wrong_value_withdraws_verified(card: VirtualCard) -> None:
    verify(card, RIGHT)
    verify(card, WRONG)
    assert status(card) == 0x63C2


def test_deauthentication_leaves_the_counter_and_may_be_missing(make_card: Maker) -> None:
    card = make_card(deauthentication=False)
    verify(card, RIGHT)
    assert ask(card, "0020FF80") == 0x6A86
    assert status(card) == 0x9000
    able = make_card()
    verify(able, WRONG)
    assert ask(able, "0020FF80") == 0x9000
    assert status(able) == 0x63C2
    assert ask(able, f"0020FF8008{RIGHT}") == 0x6A86


@pytest.mark.parametrize(
    "value",
    [
        "31323334",
        "3132333435FFFFFF",
        "41424344454647FF",
        "FF" * 8,
        RIGHT + "FF",
        "31FF32FF33FF34FF",
    ],
)
def test_a_badly_formed_pin_is_6a80_and_free(card: VirtualCard, value: str) -> None:
    assert verify(card, value) == 0x6A80
    assert status(card) == 0x63C3
    assert card.book.tally(Kind.VERIFY, 0x80).refused == 1


def test_a_badly_formed_pin_may_cost_a_try(make_card: Maker) -> None:
    card = make_card(format_costs_a_try=True)
    assert verify(card, "31323334") == 0x63C2
    assert card.book.wrong(0x80) == 1


def test_letters_are_let_through_where_the_card_takes_them(make_card: Maker) -> None:
    assert verify(make_card(pin_digits_only=False), "41424344FFFFFFFF") == 0x63C2


def test_reset_and_power_off_drop_verified_but_not_the_counter(card: VirtualCard) -> None:
    verify(card, WRONG)
    card.reset()
    assert status(card) == 0x63C2
    verify(card, RIGHT)
    card.reset()
    assert status(card) == 0x63C3


@pytest.mark.parametrize("reference", [0x00, 0x81, 0x96, 0x98, 0x01])
def test_references_that_verify_has_not(card: VirtualCard, reference: int) -> None:
    assert status(card, reference) == 0x6A88
    assert verify(card, PUK, reference) == 0x6A88


def test_the_global_pin_is_there_when_the_discovery_object_says_so(make_card: Maker) -> None:
    card = make_card(pin_policy="global-primary")
    assert status(card, 0x00) == 0x63C3
    assert verify(card, "363534333231FFFF", 0x00) == 0x9000
    assert status(card, 0x80) == 0x63C3
    card.process(bytes.fromhex("00A4040008A000000151000000"))
    card.process(bytes.fromhex("00A4040009A00000030800001000"))
    assert status(card, 0x00) == 0x9000
    card.reset()
    assert status(card, 0x00) == 0x63C3


def test_change_judges_the_old_value_on_the_same_counter(card: VirtualCard) -> None:
    assert change(card, WRONG, NEW) == 0x63C2
    assert change(card, RIGHT, NEW) == 0x9000
    card.reset()
    assert status(card) == 0x63C3
    assert verify(card, RIGHT) == 0x63C2
    assert verify(card, NEW) == 0x9000
    assert card.book.tally(Kind.CHANGE, 0x80) == Tally(total=2, right=1, wrong=1)


@pytest.mark.parametrize("new", ["31323334FFFFFFFF", "", "41" * 8])
def test_a_badly_formed_new_pin_changes_nothing(card: VirtualCard, new: str) -> None:
    assert change(card, RIGHT, new) == 0x6A80
    assert verify(card, RIGHT) == 0x9000


def test_the_puk_has_a_counter_of_its_own(card: VirtualCard) -> None:
    for left in (2, 1, 0):
        assert unblock(card, "39" * 8) == 0x63C0 | left
    assert unblock(card, PUK) == 0x6983
    assert change(card, PUK, "38" * 8, 0x81) == 0x6983
    assert status(card) == 0x63C3
    assert card.book.tally(Kind.RESET, 0x81) == Tally(total=4, wrong=3, blocked=1)


def test_the_puk_unblocks_and_verifies_nothing(card: VirtualCard) -> None:
    for _ in range(3):
        verify(card, WRONG)
    assert unblock(card, PUK) == 0x9000
    assert not card.pins.reference(0x81).verified
    assert status(card) == 0x63C3
    assert verify(card, NEW) == 0x9000


def test_the_puk_changes(card: VirtualCard) -> None:
    assert change(card, PUK, "3938373635343332", 0x81) == 0x9000
    assert unblock(card, PUK) == 0x63C2
    assert unblock(card, "3938373635343332") == 0x9000


def test_a_card_may_come_blocked_or_half_used(make_card: Maker) -> None:
    assert status(make_card(tries=0)) == 0x6983
    used = make_card(tries=1)
    assert status(used) == 0x63C1
    assert verify(used, RIGHT) == 0x9000
    used.reset()
    assert status(used) == 0x63C3


def test_no_passcode_is_in_the_book_or_a_repr(card: VirtualCard) -> None:
    card.book.exchanged(bytes.fromhex(f"0020008008{RIGHT}"))
    verify(card, RIGHT)
    shown = f"{card.book.as_dict()} {card.pins.reference(0x80)!r} {card.options!r}"
    assert "00200080" in shown
    assert RIGHT not in shown
    assert "73194682" not in shown
