"""The line to QEMU's emulated reader: readers that come and go, are rude, or are none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from cardsession.virtual.vscard import Pace
from cardsession.virtual.vscard_wire import Address
from fakes import qemu
from fakes.qemu import FakeQemu

DEADLINE = 10.0
STATUS = "00200080"
RIGHT = "0020008008" + b"73194682".hex()
FRESH, VERIFIED = b"\x63\xc3", b"\x90\x00"
FIRST_TIME = [qemu.INIT, qemu.READER_ADD, qemu.CARD_REMOVE, qemu.ATR]
Answer = dict[str, object]
Tell = Callable[..., Awaitable[Answer]]
Plug = Callable[..., Awaitable[Tell]]


async def eventually(tell: Tell, field: str, value: object) -> Answer:
    """Poll the status until `field` has `value`."""
    async with asyncio.timeout(DEADLINE):
        while (status := await tell("status"))[field] != value:  # noqa: ASYNC110 - a peer's doing
            await asyncio.sleep(0.01)
        return status


async def test_a_machine_that_comes_back_gets_the_card_again(machine: FakeQemu, plug: Plug) -> None:
    tell = await plug()
    await machine.ask(RIGHT)
    await machine.stop()
    assert await machine.heard() is None
    await eventually(tell, "connected", False)
    await machine.listen()
    # What is in its reader is not known now.
    assert await machine.kinds(4) == FIRST_TIME
    assert await machine.ask(STATUS) == FRESH
    assert (await eventually(tell, "connected", True))["insertions"] == 1


async def test_a_card_waits_for_a_machine(machine: FakeQemu, plug: Plug) -> None:
    await machine.stop()
    tell = await plug(insert=False)
    assert await tell("insert", wait=0) == {"inserted": True, "connected": False}
    assert machine.path is not None
    machine.path.unlink(missing_ok=True)
    await machine.listen()
    await machine.card_in()
    assert await machine.ask(STATUS) == FRESH


async def test_a_reader_plugged_in_anew_says_init_and_gets_the_card(
    machine: FakeQemu, plug: Plug
) -> None:
    tell = await plug()
    await machine.ask(RIGHT)
    machine.send(qemu.INIT, qemu.NOBODY, qemu.HELLO)
    # No further Init: QEMU would answer that, and so on.
    assert await machine.kinds(3) == FIRST_TIME[1:]
    assert await machine.ask(STATUS) == FRESH
    assert (await tell("status"))["connected"] is True
    assert (await tell("status"))["insertions"] == 1


async def test_a_reader_plugged_in_anew_had_let_go_of_the_card(
    machine: FakeQemu, plug: Plug
) -> None:
    tell = await plug()
    await machine.ask(RIGHT)
    machine.mute = True
    machine.send(qemu.INIT, qemu.NOBODY, qemu.HELLO)
    assert await machine.kinds(1) == [qemu.READER_ADD]
    status = await tell("status")
    assert (status["connected"], status["powered"]) == (False, False)
    assert '"verified": true' not in json.dumps(status)


async def test_a_reader_that_says_init_first_is_no_reader_that_came_twice(
    machine: FakeQemu, plug: Plug
) -> None:
    """QEMU says Init where its device appears; the card's own may lie there already."""
    machine.mute = True
    tell = await plug(insert=False)
    await tell("insert", wait=0)
    assert await machine.kinds(1) == [qemu.INIT]
    machine.mute = False
    machine.send(qemu.INIT, qemu.NOBODY, qemu.HELLO)
    machine.send(qemu.INIT, qemu.NOBODY, qemu.HELLO)
    kinds = [await machine.heard() for _ in range(2)]
    assert {message[0] for message in kinds if message} == {qemu.READER_ADD}
    await machine.card_in()
    await eventually(tell, "connected", True)


async def test_a_command_to_the_card_before_fails(machine: FakeQemu, plug: Plug) -> None:
    """A card that died is still in QEMU's reader; the guest's driver would wait for minutes."""
    machine.mute = True
    tell = await plug(insert=False)
    await tell("insert", wait=0)
    assert await machine.kinds(1) == [qemu.INIT]
    machine.send(qemu.APDU, 0, bytes.fromhex(RIGHT))
    assert await machine.kinds(1) == [qemu.ERROR]
    assert (await tell("status"))["exchanges"] == 0


async def test_a_refused_reader_is_tried_again(machine: FakeQemu, plug: Plug) -> None:
    machine.refuses = {qemu.READER_ADD: 2}
    tell = await plug(insert=False)
    await tell("insert", wait=0)
    assert await machine.kinds(4) == [qemu.INIT, qemu.READER_ADD, None, qemu.INIT]
    assert (await tell("status"))["connected"] is False
    machine.refuses = {}
    await machine.card_in()
    await eventually(tell, "connected", True)


async def test_a_refused_atr_is_no_insertion_and_a_better_one_is(
    machine: FakeQemu, plug: Plug, caplog: pytest.LogCaptureFixture
) -> None:
    machine.refuses = {qemu.ATR: 1}
    tell = await plug(insert=False)
    await tell("insert", wait=0)
    await machine.card_in()
    async with asyncio.timeout(DEADLINE):
        while "refused" not in caplog.text:  # noqa: ASYNC110 - a log
            await asyncio.sleep(0.01)
    assert (await tell("status"))["connected"] is False
    machine.refuses = {}
    await tell("remove")
    await tell("set-atr", hex="3B00")
    assert (await tell("insert", wait=DEADLINE))["connected"] is True
    assert await machine.card_in() == b"\x3b\x00"


@pytest.mark.parametrize(
    "rubbish",
    [
        qemu.HEADER.pack(qemu.INIT, 0, 12) + b"DCSV" + bytes(8),
        qemu.HEADER.pack(qemu.INIT, 0, 0),
        qemu.HEADER.pack(qemu.APDU, 0, 0xFFFFFFFF),
        qemu.HEADER.pack(qemu.APDU, 0, 65545),
        qemu.HEADER.pack(qemu.ERROR, 0, 3) + bytes(3),
        b"\xff" * 4096,
    ],
)
async def test_what_is_not_the_protocol_ends_the_connection_and_the_card_comes_back(
    machine: FakeQemu, plug: Plug, rubbish: bytes
) -> None:
    tell = await plug()
    await machine.ask(RIGHT)
    machine.write(rubbish)
    assert await machine.kinds(5) == [None, *FIRST_TIME]
    assert await machine.ask(STATUS) == FRESH
    assert (await tell("status"))["inserted"] is True


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (qemu.READER_ADD, b""),
        (qemu.READER_REMOVE, b""),
        (qemu.ATR, b"\x3b\x00"),
        (qemu.CARD_REMOVE, b""),
        (qemu.FLUSH_COMPLETE, b""),
        (0, b""),
        (0xFFFFFFFF, b"what?"),
        (qemu.ERROR, bytes(4)),
        (qemu.ERROR, bytes([0, 0, 0, 1])),
    ],
)
async def test_what_a_reader_does_not_say_is_ignored(
    machine: FakeQemu, plug: Plug, kind: int, body: bytes
) -> None:
    tell = await plug()
    await machine.ask(RIGHT)
    machine.send(kind, 0, body)
    assert await machine.ask(STATUS) == VERIFIED
    assert (await tell("status"))["connected"] is True


async def test_the_longest_command_arrives(machine: FakeQemu, plug: Plug) -> None:
    await plug()
    assert await machine.ask(bytes(65544)) == b"\x67\x00"
    assert await machine.ask(b"") == b"\x67\x00"


async def test_an_answer_that_would_block_qemu_for_ever_is_not_sent(
    machine: FakeQemu, plug: Plug
) -> None:
    tell = await plug()
    await tell("answer-at", n=1, hex="00" * (0x10000 - 12))
    assert len(await machine.ask(STATUS)) == 0x10000 - 12
    await tell("answer-at", n=2, hex="00" * (0x10000 - 11))
    machine.send(qemu.APDU, 0, bytes.fromhex(STATUS))
    assert await machine.kinds(5) == [None, *FIRST_TIME]


async def test_a_machine_that_does_not_answer_cannot_keep_a_card(
    machine: FakeQemu, plug: Plug
) -> None:
    tell = await plug(pace=Pace(empty=0.05, farewell=0.05))
    machine.mute = True
    async with asyncio.timeout(DEADLINE):
        await tell("remove")
    assert await machine.kinds(2) == [qemu.CARD_REMOVE, None]
    machine.mute = False
    await tell("insert", wait=DEADLINE)
    assert await machine.kinds(4) == FIRST_TIME, "it may not have heard of the removal"


async def test_a_card_can_be_removed_before_it_was_taken(machine: FakeQemu, plug: Plug) -> None:
    tell = await plug(pace=Pace(empty=60), insert=False)
    await tell("insert", wait=0)
    assert await machine.kinds(3) == FIRST_TIME[:3]
    async with asyncio.timeout(DEADLINE):
        await tell("remove")
    assert await machine.kinds(1) == [None]


async def test_over_tcp(plug: Plug) -> None:
    async with FakeQemu() as machine:
        tell = await plug(machine)
        assert await machine.ask(RIGHT) == VERIFIED
        await tell("remove")
        assert await machine.kinds(2) == [qemu.CARD_REMOVE, None]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/card 0.sock", Address(path="/run/card 0.sock")),
        ("unix:card:0", Address(path="card:0")),
        ("localhost:1", Address(host="localhost", port=1)),
        ("127.0.0.1:65535", Address(host="127.0.0.1", port=65535)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert Address.read(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "unix:", "unix:/" + "x" * 107, "unix:a\0b", "host", "host:", ":1", "host:0"),
        *(
            "host:65536",
            "host:-1",
            "host:+1",
            "host:\uff11",
            "host:1e3",
            "[::1]:1",
            "::1:1",
            "a..b:1",
        ),
        *("x" * 64 + ":1", "a..b:1", "/run/card.sock"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Address.read(text)
