"""Certificates as claims, days left, and what a status wait's reports mean."""

from __future__ import annotations

import pytest

from cardsession.core import policy, trust
from cardsession.core.reports import SlotReport, changes
from cardsession.core.states import Event
from cardsession.virtual.options import Slot
from fakes.counter import make_card

DAY = 86_400


def der(**options: object) -> bytes:
    """A certificate of the virtual card's authority."""
    return make_card(**options).identity.certificates[Slot.AUTHENTICATION]


def test_the_holder_is_the_common_name() -> None:
    found = trust.read("authentication", der(holder="555012345678", valid_days=10, days_left=4))
    assert found.common_name == "555012345678"
    assert "CN=555012345678" in found.subject
    assert found.not_after - found.not_before == 10 * DAY


@pytest.mark.parametrize("name", ["a\0b", "\x1b[2Ja", "a\u202eb", "x" * 64])
def test_a_hostile_holder_is_cleaned(name: str) -> None:
    found = trust.read("authentication", der(holder=name))
    assert "\0" not in found.common_name + found.subject
    assert "\x1b" not in found.common_name + found.subject
    assert "\u202e" not in found.common_name + found.subject
    assert found.common_name


def tampered() -> dict[str, bytes]:
    """What a card may hold in place of a certificate."""
    good = der()
    version = good.index(bytes.fromhex("A003020102")) + 4
    return {
        "empty": b"",
        "noise": bytes(range(256)),
        "cut": good[:-20],
        "too long": good + b"\0",
        "version 6": good[:version] + b"\x05" + good[version + 1 :],
        "version 255": good[:version] + b"\x7f" + good[version + 1 :],
        "a month of 99": good.replace(b"Z\x17\x0d", b"Z\x17\x0d99", 1)[: len(good)],
        "a sequence of nothing": bytes.fromhex("3000"),
        "nested without end": bytes.fromhex("30820400") * 256,
    }


@pytest.mark.parametrize("what", tampered())
def test_what_is_no_certificate_is_unknown_and_raises_nothing(what: str) -> None:
    raw = tampered()[what]
    found = trust.read("authentication", raw)
    assert found.der == raw
    assert (found.common_name, found.not_after) == ("", 0)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_every_byte_of_a_certificate_may_be_wrong() -> None:
    good = der()
    for at in range(len(good)):
        for value in (0x00, 0x7F, 0xFF, good[at] ^ 1):
            found = trust.read("signature", good[:at] + bytes([value]) + good[at + 1 :])
            assert found.slot == "signature"
            assert "\0" not in found.common_name + found.subject


@pytest.mark.parametrize(
    ("seconds", "days"), [(DAY, 1), (DAY - 1, 0), (0, 0), (-1, -1), (-DAY, -1), (-DAY - 1, -2)]
)
def test_days_left_are_whole_days_and_negative_when_over(seconds: int, days: int) -> None:
    now = 1_765_000_000
    assert policy.days_left(now + seconds, now) == days
    assert policy.days_left(0, now) == 0, "unknown"


def test_renewal_is_due_inside_the_window_and_not_after_the_end() -> None:
    now = 1_765_000_000
    due = {days: policy.renewal_due(now + days * DAY, now, 90) for days in (-1, 0, 1, 90, 91)}
    assert due == {-1: False, 0: False, 1: True, 90: True, 91: False}
    assert not policy.renewal_due(0, now, 90)


EMPTY = SlotReport("r", counter=4)
CARD = SlotReport("r", present=True, counter=5, atr=b"\x3b")
IN, OUT = Event.CARD_INSERTED, Event.CARD_REMOVED


def slot(**changed: object) -> SlotReport:
    """A reader's report."""
    return SlotReport("r", **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "now", "events"),
    [
        (EMPTY, CARD, (IN,)),
        (CARD, slot(counter=6), (OUT,)),
        (CARD, CARD, ()),
        (EMPTY, EMPTY, ()),
        # a swap within one poll: only the counter tells
        (CARD, slot(present=True, counter=7, atr=b"\x3b"), (OUT, IN)),
        # in and out again within one poll
        (EMPTY, slot(counter=6), (IN, OUT)),
        # replugged under the same name: the counter starts anew
        (CARD, slot(present=True, counter=0, atr=b"\x3b"), (OUT, IN)),
        (EMPTY, slot(present=True, mute=True, counter=5), (Event.CARD_MUTE,)),
        (CARD, slot(present=True, mute=True, counter=5), (Event.CARD_MUTE,)),
        (CARD, slot(present=True, mute=True, counter=7), (OUT, Event.CARD_MUTE)),
        (slot(present=True, mute=True, counter=5), slot(present=True, mute=True, counter=5), ()),
        # another program let go of the card, or took it
        (slot(present=True, exclusive=True, counter=5), CARD, (Event.RETRY,)),
        (CARD, slot(present=True, exclusive=True, counter=5), ()),
    ],
)
def test_two_reports_and_what_happened_between_them(
    before: SlotReport, now: SlotReport, events: tuple[Event, ...]
) -> None:
    assert changes(before, now) == events
