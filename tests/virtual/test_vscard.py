"""The line to QEMU's emulated reader, against a QEMU in the test: cards and commands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cardsession.virtual.vscard import Pace
from fakes import qemu
from fakes.qemu import FakeQemu

DEADLINE = 10.0
STATUS = "00200080"
RIGHT = "0020008008" + b"73194682".hex()
WRONG = "0020008008313131313131FFFF"
FRESH, VERIFIED = b"\x63\xc3", b"\x90\x00"
Answer = dict[str, object]
Tell = Callable[..., Awaitable[Answer]]
Plug = Callable[..., Awaitable[Tell]]


async def eventually(tell: Tell, field: str, value: object) -> Answer:
    """Poll the status until `field` has `value`."""
    async with asyncio.timeout(DEADLINE):
        while (status := await tell("status"))[field] != value:  # noqa: ASYNC110 - a peer's doing
            await asyncio.sleep(0.01)
        return status


async def test_the_card_says_init_adds_its_reader_and_tells_its_atr(
    machine: FakeQemu, plug: Plug
) -> None:
    machine.reader = 7
    tell = await plug(insert=False)
    assert await tell("insert", wait=DEADLINE) == {"inserted": True, "connected": True}
    atr = bytes.fromhex(str((await tell("status"))["atr"]))
    assert [await machine.heard() for _ in range(4)] == [
        (qemu.INIT, qemu.NOBODY, qemu.HELLO),
        (qemu.READER_ADD, qemu.NOBODY, b"cardsession-virtual"),
        (qemu.CARD_REMOVE, 7, b""),
        (qemu.ATR, 7, atr),
    ]
    assert await machine.ask(STATUS) == FRESH


async def test_nothing_is_asked_before_init_is_answered(machine: FakeQemu, plug: Plug) -> None:
    machine.mute = True
    tell = await plug(insert=False)
    assert (await tell("insert", wait=0))["connected"] is False
    assert await machine.kinds(1) == [qemu.INIT]
    assert await machine.said_nothing(within=0.2)
    assert (await tell("status"))["connected"] is False


async def test_an_exchange(machine: FakeQemu, plug: Plug) -> None:
    tell = await plug()
    assert await machine.ask(RIGHT) == VERIFIED
    assert await machine.ask(STATUS) == VERIFIED
    assert (await tell("status"))["exchanges"] == 2


async def test_frames_may_come_in_pieces_and_together(machine: FakeQemu, plug: Plug) -> None:
    await plug()
    frame = qemu.HEADER.pack(qemu.APDU, 0, 4) + bytes.fromhex(STATUS)
    for byte in frame:
        machine.write(bytes([byte]))
        await asyncio.sleep(0)
    assert await machine.heard() == (qemu.APDU, 0, FRESH)
    machine.write(frame * 3 + frame[:5])
    assert [await machine.heard() for _ in range(3)] == [(qemu.APDU, 0, FRESH)] * 3
    machine.write(frame[5:])
    assert await machine.heard() == (qemu.APDU, 0, FRESH)


async def test_removal_is_told_before_the_line_closes(machine: FakeQemu, plug: Plug) -> None:
    tell = await plug()
    await machine.ask(RIGHT)
    await tell("remove")
    assert await machine.kinds(2) == [qemu.CARD_REMOVE, None]
    status = await tell("status")
    assert (status["inserted"], status["connected"], status["powered"]) == (False, False, False)
    await tell("insert", wait=DEADLINE)
    # It is known to be empty: there is nothing to be removed first.
    assert await machine.kinds(3) == [qemu.INIT, qemu.READER_ADD, qemu.ATR]
    assert await machine.ask(STATUS) == FRESH


async def test_the_reader_is_empty_for_a_while_between_two_cards(
    machine: FakeQemu, plug: Plug
) -> None:
    tell = await plug(pace=Pace(empty=0.3))
    clock = asyncio.get_running_loop().time
    start = clock()
    first = (await tell("status"))["guid"]
    other = await tell("swap", options={"holder": "555000000001"}, wait=DEADLINE)
    assert clock() - start >= 0.3
    assert other["guid"] != first
    assert await machine.kinds(2) == [qemu.CARD_REMOVE, None]
    await machine.card_in()
    assert await machine.ask(WRONG) == b"\x63\xc2"
    assert (await tell("swap", name="first", wait=DEADLINE))["guid"] == first
    await machine.card_in()
    assert await machine.ask(STATUS) == FRESH


@pytest.mark.parametrize(("stage", "left"), [("before", 3), ("after", 2)])
async def test_a_card_pulled_in_the_middle_of_an_exchange(
    machine: FakeQemu, plug: Plug, stage: str, left: int
) -> None:
    tell = await plug()
    await tell("pull-at", n=2, stage=stage)
    assert await machine.ask(STATUS) == FRESH
    machine.send(qemu.APDU, 0, bytes.fromhex(WRONG))
    assert await machine.heard() == (qemu.ERROR, 0, bytes([0, 0, 0, 1]))
    assert await machine.kinds(2) == [qemu.CARD_REMOVE, None]
    assert (await tell("status"))["inserted"] is False
    assert await machine.said_nothing(within=0.3), "a pulled card does not come back by itself"
    await tell("insert", wait=DEADLINE)
    await machine.card_in()
    assert await machine.ask(STATUS) == bytes([0x63, 0xC0 | left])


async def test_while_a_card_is_pulled_commands_fail(machine: FakeQemu, plug: Plug) -> None:
    tell = await plug(pace=Pace(empty=0, failed=DEADLINE))
    await tell("pull-at", n=1)
    for _ in range(3):
        machine.send(qemu.APDU, 0, bytes.fromhex(STATUS))
        assert await machine.kinds(1) == [qemu.ERROR]
    machine.hang_up()
    assert (await eventually(tell, "connected", False))["exchanges"] == 1


async def test_silence_ends_with_speak(machine: FakeQemu, plug: Plug) -> None:
    tell = await plug()
    await tell("silent-at", n=1)
    machine.send(qemu.APDU, 0, bytes.fromhex(WRONG))
    await eventually(tell, "silent", True)
    assert await machine.said_nothing(within=0.05)
    await tell("speak")
    assert await machine.heard() == (qemu.APDU, 0, b"\x63\xc2")


async def test_a_silent_card_can_be_removed(machine: FakeQemu, plug: Plug) -> None:
    tell = await plug()
    await tell("silent-at", n=1)
    machine.send(qemu.APDU, 0, bytes.fromhex(WRONG))
    await eventually(tell, "silent", True)
    await tell("remove")
    assert await machine.kinds(3) == [qemu.ERROR, qemu.CARD_REMOVE, None]
    await tell("insert", wait=DEADLINE)
    await machine.card_in()
    assert await machine.ask(STATUS) == FRESH
    await tell("remove")
    assert await machine.kinds(2) == [qemu.CARD_REMOVE, None], "nothing is owed any more"


async def test_an_overridden_and_a_slow_answer(machine: FakeQemu, plug: Plug) -> None:
    tell = await plug()
    await tell("answer-at", n=1, hex="6F00")
    assert await machine.ask(WRONG) == b"\x6f\x00"
    await tell("slow", ms=100)
    start = asyncio.get_running_loop().time()
    assert await machine.ask(STATUS) == FRESH
    assert asyncio.get_running_loop().time() - start >= 0.09


async def test_flush_is_complete_when_the_answers_have_left(machine: FakeQemu, plug: Plug) -> None:
    tell = await plug()
    await tell("silent-at", n=1)
    machine.send(qemu.APDU, 0, bytes.fromhex(STATUS))
    machine.send(qemu.FLUSH, 3)
    await eventually(tell, "silent", True)
    await tell("speak")
    assert await machine.heard() == (qemu.APDU, 0, FRESH)
    assert await machine.heard() == (qemu.FLUSH_COMPLETE, 3, b"")
