"""Difficult cards and readers at the real card service, through the test bed's own readers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import reduce
from operator import xor
from typing import Any

import pytest
import pytest_asyncio

from cardsession.bus.connection import BusError
from cardsession.stack import Bus, Daemon
from cardsession.virtual.book import Kind
from cardsession.virtual.card import VirtualCard
from fakes.cards import make_card
from system.ifd import Call, Feature, Make, Power, Slot
from system.subscriber import Properties, Subscriber
from system.usb import CHERRY, OMNIKEY, SCR, Bed, Counter

SHORT = "[readers]\nstuck-seconds = 6\n"
PORTS = ("1-4", "1-5")
VERIFY = 0x20


def other_atr(card: VirtualCard) -> bytes:
    """The card's ATR with other historical bytes, and its check byte."""
    body = card.atr[1:-4] + b"ALT"
    return card.atr[:1] + body + bytes([reduce(xor, body)])


def ins(raw: bytes) -> int:
    """A command's instruction."""
    return raw[1]


@dataclass
class Place:
    """One reader as a subscriber sees it, and the slot in the test's hands."""

    seen: Subscriber
    port: str
    slot: Slot

    @property
    def reader(self) -> Properties | None:
        """Its object."""
        readers = self.seen.all("Reader").values()
        return next((each for each in readers if each["PortPath"] == self.port), None)

    @property
    def card(self) -> tuple[str, Properties] | None:
        """The card in it."""
        path = self.reader["Card"] if self.reader else "/"
        card = self.seen.all("Card").get(path)
        return (path, card) if card else None

    async def reader_is(self, state: str) -> Properties:
        """Wait for that state of the reader."""
        what = f"reader {self.port} is {state}"
        await self.seen.until(what, lambda: self.reader and self.reader["State"] == state)
        assert self.reader
        return self.reader

    async def card_is(self, state: str) -> tuple[str, Properties]:
        """Wait for a card in that state."""
        what = f"the card in {self.port} is {state}"
        await self.seen.until(what, lambda: self.card and self.card[1]["State"] == state)
        assert self.card
        return self.card

    async def empty(self) -> None:
        """Take the card out; it is gone, and the reader is there."""
        self.slot.pull()
        await self.reader_is("empty")
        await self.seen.until("no card", lambda: self.card is None)

    def cards(self) -> list[str]:
        """Every card object there ever was, in order."""
        added = [each for _, each in self.seen.signals if each.member == "InterfacesAdded"]
        return [str(each.body[0]) for each in added if "/card/" in str(each.body[0])]


@pytest_asyncio.fixture
async def places(
    bed: Bed, bus: Bus, bed_daemon: Callable[..., Daemon]
) -> AsyncIterator[list[Place]]:
    """Two readers, and a daemon that calls a reader stuck as early as it may."""
    daemon = bed_daemon(configuration=SHORT)
    async with await Subscriber.open(bus.address) as seen:
        plugged = [bed.plug(port, model) for port, model in zip(PORTS, (OMNIKEY, SCR), strict=True)]
        made = [Place(seen, each.port, each.slot) for each in plugged]
        for place in made:
            await place.reader_is("empty")
        yield made
    assert '"level": "error"' not in daemon.log(), "none of this is our bug"


# what a reader says of itself


async def test_what_a_reader_says_of_itself_is_shown(places: list[Place], bed: Bed) -> None:
    pad = Make(features=(Feature.VERIFY_PIN_DIRECT,))
    device = bed.plug("1-6.2", CHERRY, serial="K7", make=pad)
    place = Place(places[0].seen, "1-6.2", device.slot)
    reader = await place.reader_is("empty")
    wanted = {
        "Id": "1-6.2:0:0",
        "Name": "Cherry GmbH SmartTerminal ST-2xxx (K7) 02 00",
        "Serial": "K7",
        "VendorId": CHERRY.vid,
        "ProductId": CHERRY.pid,
        "Model": CHERRY.product,
        "PinPad": True,
    }
    assert {key: reader[key] for key in wanted} == wanted
    assert [each.reader["PinPad"] for each in places if each.reader] == [False, False]


async def test_without_udev_a_reader_says_it_itself(
    counters: Callable[..., Counter], bus: Bus, rundir: Any, begin: Callable[..., Any]
) -> None:
    make = Make(serial="S7", type="Desk reader", features=(Feature.VERIFY_PIN_START,))
    counters(1, make=make)
    begin(Daemon(rundir, bus.address))
    async with await Subscriber.open(bus.address) as seen:
        reader = await seen.until("a reader", lambda: next(iter(seen.all("Reader").values()), None))
        await seen.until("it was asked", lambda: reader["Serial"])
    assert (reader["Serial"], reader["Model"], reader["PinPad"]) == ("S7", "Desk reader", True)
    assert (reader["PortPath"], reader["Name"]) == ("", "Counter 00 00")


# mute


async def test_a_card_the_wrong_way_round(places: list[Place]) -> None:
    place = places[0]
    place.slot.insert(make_card(), mute=True)
    await place.reader_is("mute")
    path, card = await place.card_is("mute")
    assert card["Atr"] == b""
    assert await place.seen.refused(path, "Card", "OpenSession", "sa{sv}", ("", {})) == "CardMute"
    # pcscd's own attempt, ours, and one for each time that power was taken and given
    assert place.slot.powered.count(Power.UP) <= 6, place.slot.powered
    assert place.slot.commands == 0
    place.slot.turn()
    await place.reader_is("ready")
    path, _ = await place.card_is("ready")
    await place.seen.open_session(path)


async def test_a_mute_card_is_not_tried_again_and_again(places: list[Place]) -> None:
    mute, other = places
    mute.slot.insert(make_card(), mute=True)
    await mute.reader_is("mute")
    powered = len(mute.slot.powered)
    for _ in range(3):  # this takes a while, and is a reason to look at all readers again
        other.slot.insert(make_card())
        await other.card_is("ready")
        await other.empty()
    await mute.reader_is("mute")
    assert len(mute.slot.powered) == powered


async def test_a_reader_that_gives_no_power(places: list[Place]) -> None:
    """Not the card's fault; there is no way to tell."""
    place = places[0]
    place.slot.failing.add(Call.POWER)
    place.slot.insert(make_card())
    await place.reader_is("mute")
    place.slot.failing.clear()
    await place.empty()
    place.slot.insert(make_card())
    await place.card_is("ready")


# two ATRs


async def test_an_atr_that_differs_after_a_reset_is_one_card(
    places: list[Place], canary: str
) -> None:
    place, card = places[0], make_card(deauthentication=False)  # a session ends with a reset
    place.slot.insert(card, warm=other_atr(card))
    path, facts = await place.card_is("ready")
    for _ in range(2):
        session = await place.seen.open_session(path)
        assert await place.seen.verify(session, canary.encode()) == ("verified", -1)
        await place.seen.call(session, "Session", "Close")
        await place.seen.until("the session is over", lambda: not place.seen.all("Session"))
    assert Power.RESET in place.slot.powered
    assert place.cards() == [path]
    assert place.card and place.card[1]["Serial"] == facts["Serial"]
    assert card.book.tally(Kind.VERIFY, 0x80).right == 2


# hung


async def hung(place: Place, ends: Callable[[], None], canary: str) -> None:
    """The card does not answer a VERIFY; what then ends that."""
    path, _ = await place.card_is("ready")
    session = await place.seen.open_session(path)
    place.slot.hang(lambda raw: ins(raw) == VERIFY and len(raw) > 5)
    assert await place.seen.verify(session, canary.encode()) == ("uncertain", -1)
    await place.reader_is("stuck")
    await place.seen.until("the session ended", lambda: not place.seen.all("Session"))
    ends()


async def test_a_hung_card_holds_up_no_other_and_answers_in_the_end(
    places: list[Place], canary: str
) -> None:
    place, other = places
    card = make_card()
    place.slot.insert(card)
    await hung(place, lambda: None, canary)
    other.slot.insert(make_card())
    path, _ = await other.card_is("ready")
    session = await other.seen.open_session(path)
    assert await other.seen.verify(session, canary.encode()) == ("verified", -1)
    assert place.reader and place.reader["State"] == "stuck" and place.slot.hung
    place.slot.release()
    await place.reader_is("ready")
    assert card.book.tally(Kind.VERIFY, 0x80).total >= 1
    assert card.book.tally(Kind.VERIFY, 0x80).right == 1 and not card.pins.satisfied


async def test_a_hung_card_is_pulled(places: list[Place], canary: str) -> None:
    place, card = places[0], make_card()
    place.slot.insert(card)
    await hung(place, place.slot.pull, canary)
    await place.reader_is("empty")
    place.slot.release()
    place.slot.insert(card)
    _, facts = await place.card_is("ready")
    assert facts["PinTries"] == {"user": 3}
    assert card.book.tally(Kind.VERIFY, 0x80).right == 0


async def test_a_hung_reader_is_unplugged(places: list[Place], bed: Bed, canary: str) -> None:
    place = places[0]
    place.slot.insert(make_card())
    await hung(place, lambda: bed.unplug(place.port), canary)
    await place.seen.until("the reader is gone", lambda: place.reader is None)
    again = Place(place.seen, place.port, bed.plug(place.port, OMNIKEY).slot)
    again.slot.insert(make_card())
    await again.card_is("ready")


async def test_a_card_that_hangs_while_it_is_read(places: list[Place]) -> None:
    place = places[0]
    place.slot.hang()
    place.slot.insert(make_card())
    await place.reader_is("stuck")
    place.slot.release()
    await place.reader_is("ready")
    await place.card_is("ready")


# garbage

GARBAGE = {
    "nothing": b"",
    "one byte": b"\x90",
    "no status word": b"\xff" * 258,
    "zeros": bytes(2),
}
LIE = bytes.fromhex("7F8300FFFFFF9000")
"""Success, and a length that lies."""


async def steps(place: Place) -> int:
    """Commands of one whole reading of a healthy card."""
    place.slot.insert(make_card())
    path, _ = await place.card_is("ready")
    await place.seen.open_session(path)  # queued behind the reading
    count = place.slot.commands
    await place.empty()
    return count - 3  # OpenSession selects, identifies, asks


@pytest.mark.parametrize("kind", [*GARBAGE, "lengths that lie"])
async def test_garbage_in_answer_to_each_step_of_the_reading(
    places: list[Place], kind: str
) -> None:
    """Whatever the card is called then, it is called something, and the next one is read."""
    place = places[0]
    for step in range(1, await steps(place) + 1):
        place.slot.garble = garbage_at(place.slot, step, GARBAGE.get(kind, LIE))
        card = make_card()
        place.slot.insert(card)
        await place.seen.until("it is read", lambda: place.card and is_told(place))
        await place.empty()
        assert card.book.tally(Kind.VERIFY, 0x80).wrong == 0
    place.slot.garble = None
    place.slot.insert(make_card())
    await place.card_is("ready")


def garbage_at(slot: Slot, step: int, garbage: bytes) -> Callable[[bytes], bytes | None]:
    """The answer to one command, counted from now on, is garbage."""
    before = slot.commands
    return lambda _: garbage if slot.commands - before == step else None


def is_told(place: Place) -> bool:
    """Whether the card's and the reader's states are final."""
    assert place.card and place.reader
    return place.card[1]["State"] not in {"probing", "reading"} and place.reader["State"] == "ready"


@pytest.mark.parametrize("kind", GARBAGE)
async def test_a_card_that_says_nothing_but_garbage(places: list[Place], kind: str) -> None:
    place = places[0]
    place.slot.garble = lambda _: GARBAGE[kind]
    place.slot.insert(make_card())
    _, card = await place.card_is("unknown")
    assert (card["Profile"], card["PinTries"]) == ("unknown", {})
    await place.empty()


async def test_a_card_that_says_yes_to_everything(places: list[Place]) -> None:
    """It is what it says it is, and has nothing on it."""
    place = places[0]
    place.slot.garble = lambda _: LIE
    place.slot.insert(make_card())
    _, card = await place.card_is("blank")
    assert (card["HolderId"], card["Serial"], card["PinTries"]) == ("", "", {})
    await place.empty()


@pytest.mark.parametrize(
    "answer", [b"\x61\x00", b"\x00\x61\x01", bytes(256) + b"\x61\x00", b"\x6c\x10"]
)
async def test_an_answer_without_end(places: list[Place], answer: bytes) -> None:
    """61XX for ever, 6CXX for ever: the card is given up, and another one is read."""
    place, other = places
    place.slot.garble = lambda _: answer
    place.slot.insert(make_card())
    await place.card_is("unknown")
    settled = place.slot.commands
    other.slot.insert(make_card())
    await other.card_is("ready")
    assert place.slot.commands == settled
    await place.empty()
    place.slot.garble = None
    place.slot.insert(make_card())
    await place.card_is("ready")


# swaps


async def test_a_swap_between_two_looks_with_the_same_atr(places: list[Place], canary: str) -> None:
    place, first, second = places[0], make_card(), make_card()
    place.slot.insert(first)
    path, facts = await place.card_is("ready")
    session = await place.seen.open_session(path)
    await place.seen.verify(session, canary.encode())
    place.slot.swap(second)
    await place.seen.until("the first card is gone", lambda: path not in place.seen.objects)
    assert place.seen.all("Session") == {}
    new, other = await place.card_is("ready")
    assert new != path and other["Serial"] != facts["Serial"]
    assert other["PinState"]["user"] == "unverified"
    assert second.book.tally(Kind.VERIFY, 0x80).right == 0


async def test_a_swap_that_nobody_is_told_of(places: list[Place], canary: str) -> None:
    """The other card hears nothing of a secret that was meant for the first one."""
    place, first, second = places[0], make_card(), make_card()
    place.slot.insert(first)
    path, _ = await place.card_is("ready")
    session = await place.seen.open_session(path)
    place.slot.swap(second, told=False)
    with pytest.raises(BusError):
        await place.seen.verify(session, canary.encode())
    tally = second.book.tally(Kind.VERIFY, 0x80)
    assert (tally.right, tally.wrong) == (0, 0)
    await place.seen.until("the session ended", lambda: not place.seen.all("Session"))
