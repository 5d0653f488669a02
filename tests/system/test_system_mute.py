"""Mute cards in a reader of our own driver, at the real card service: power is given anew once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest_asyncio

from cardsession.stack import Bus, Daemon
from fakes.cards import make_card
from system.ifd import Power, Slot
from system.subscriber import Properties, Subscriber
from system.usb import OMNIKEY, Bed

STILL_SECONDS = 2.0
"""For which nothing more is done about it; pcscd looks five times in that."""


class Wakes(list[Power]):
    """What was done with the power of a card that answers once it has lost it."""

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self._slot = slot

    def append(self, act: Power) -> None:
        """It is noted, and the card told."""
        super().append(act)
        if act is Power.DOWN and self.count(Power.UP):
            self._slot.mute = False


@pytest_asyncio.fixture
async def seen(bed: Bed, bed_daemon: Callable[..., Daemon], bus: Bus) -> AsyncIterator[Subscriber]:
    """A subscriber, and one reader."""
    bed.plug("1-4", OMNIKEY)
    bed_daemon()
    async with await Subscriber.open(bus.address) as subscriber:
        await subscriber.until("the reader", lambda: subscriber.all("Reader"))
        yield subscriber


def reader(seen: Subscriber) -> Properties:
    """The only reader."""
    (found,) = seen.all("Reader").values()
    return found


async def test_a_mute_card_is_given_power_anew_once(bed: Bed, seen: Subscriber) -> None:
    slot = bed.plugged["1-4"].slot
    slot.insert(make_card(), mute=True)
    await seen.until("mute", lambda: reader(seen)["State"] == "mute")
    assert "orientation" in reader(seen)["LastError"]
    (card,) = seen.all("Card").values()
    await seen.until("the card is mute", lambda: card["State"] == "mute")
    assert card["Atr"] == b""
    done = list(slot.powered)
    assert done.count(Power.DOWN) >= 1
    assert done.count(Power.UP) <= 4, "pcscd's own attempts, and one of ours"
    await asyncio.sleep(STILL_SECONDS)
    assert slot.powered == done, "no loop"
    slot.turn()
    await seen.until("it is read", lambda: reader(seen)["State"] == "ready")
    await seen.card_in_state("ready")
    assert reader(seen)["LastError"] == ""
    assert reader(seen)["InsertCount"] == 2


async def test_a_card_that_wakes_is_read(bed: Bed, seen: Subscriber) -> None:
    slot = bed.plugged["1-4"].slot
    chip = make_card()
    slot.powered = Wakes(slot)
    slot.insert(chip, mute=True)
    await seen.until("it is read", lambda: reader(seen)["State"] == "ready")

    def with_its_atr() -> bool:
        cards = list(seen.all("Card").values())
        return [(each["State"], each["Atr"]) for each in cards] == [("ready", chip.atr)]

    await seen.until("it is shown with its ATR", with_its_atr)
    assert reader(seen)["LastError"] == ""
