"""The line to the reader, the faults, and the control socket, against a reader in the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cardsession.virtual.card import VirtualCard
from cardsession.virtual.commands import Commands
from cardsession.virtual.control import ControlServer
from cardsession.virtual.control_client import Control, ControlError
from cardsession.virtual.identity import Authority
from cardsession.virtual.options import CardOptions, Secrets
from cardsession.virtual.seat import Seat
from cardsession.virtual.vpcd import Link

if TYPE_CHECKING:
    # At run time this name could be another directory's conftest.
    from conftest import FakeReader

CANARY = "73194682"
DEADLINE = 10.0
STATUS = "00200080"
RIGHT = "0020008008" + CANARY.encode().hex()
WRONG = "0020008008313131313131FFFF"
Answer = dict[str, object]
Send = Callable[..., Awaitable[Answer]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "card.sock"


@pytest.fixture
async def send(reader: FakeReader, authority: Authority, path: Path) -> AsyncIterator[Send]:
    """Send a command over the control socket of a card that is not inserted yet."""
    secrets = Secrets(pin=CANARY)
    seat = Seat(
        partial(Link, "127.0.0.1", reader.port),
        CardOptions(),
        lambda options: VirtualCard(options, secrets, authority),
    )
    control = Control(path)

    async def over_the_socket(command: str, **fields: object) -> Answer:
        return await asyncio.to_thread(control.send, command, **fields)

    async with ControlServer(path, Commands(seat, authority, asyncio.Event())):
        yield over_the_socket
        await seat.remove()


@pytest.fixture
async def inserted(send: Send, reader: FakeReader) -> Send:
    """The same, with the card in the reader."""
    assert (await send("insert", wait=DEADLINE))["connected"]
    await reader.card_in()
    return send


async def eventually(send: Send, field: str, value: object) -> Answer:
    """Poll the status until `field` has `value`."""
    async with asyncio.timeout(DEADLINE):
        while (status := await send("status"))[field] != value:  # noqa: ASYNC110 - over a socket
            await asyncio.sleep(0.01)
        return status


def verifies(status: Answer) -> dict[str, int]:
    counts = status["counts"]
    assert isinstance(counts, dict)
    found: dict[str, int] = counts.get("80", {}).get("verify", {})
    return found


async def test_insert_answers_and_remove_closes(inserted: Send, reader: FakeReader) -> None:
    atr = await reader.ask(b"\4")
    assert atr.hex() == (await inserted("status"))["atr"]
    assert await reader.ask(STATUS) == b"\x63\xc3"
    await inserted("remove")
    await reader.card_gone()
    assert (await inserted("status"))["inserted"] is False


@pytest.mark.parametrize("word", [0x00, 0x01, 0x02])
async def test_power_words_drop_the_security_status(
    inserted: Send, reader: FakeReader, word: int
) -> None:
    assert await reader.ask(RIGHT) == b"\x90\x00"
    reader.control(word)
    assert await reader.ask(STATUS) == b"\x63\xc3"


async def test_removal_takes_the_power(inserted: Send, reader: FakeReader) -> None:
    await reader.ask(RIGHT)
    await inserted("remove")
    status = await inserted("status")
    assert status["powered"] is False
    assert '"verified": true' not in json.dumps(status)


async def test_an_unknown_control_word_is_not_answered(inserted: Send, reader: FakeReader) -> None:
    reader.control(0x77)
    assert await reader.ask(STATUS) == b"\x63\xc3"


async def test_the_book_counts_since_insertion_and_keeps_the_tries(
    inserted: Send, reader: FakeReader
) -> None:
    await reader.ask(WRONG)
    status = await inserted("status")
    assert (status["exchanges"], status["headers"]) == (1, ["00200080"])
    await inserted("remove")
    await inserted("insert")
    await reader.card_in()
    assert await reader.ask(STATUS) == b"\x63\xc2"
    status = await inserted("status")
    assert (status["exchanges"], status["insertions"], status["wrong"]) == (1, 2, 1)
    await inserted("reset-book")
    assert (await inserted("status"))["wrong"] == 0


@pytest.mark.parametrize(("stage", "left", "received"), [("before", 3, 0), ("after", 2, 1)])
async def test_a_card_pulled_in_the_middle_of_an_exchange(
    inserted: Send, reader: FakeReader, stage: str, left: int, received: int
) -> None:
    await inserted("pull-at", n=2, stage=stage)
    assert await reader.ask(STATUS) == b"\x63\xc3"
    reader.send(bytes.fromhex(WRONG))
    await reader.card_gone()
    status = await inserted("status")
    assert status["inserted"] is False
    assert (status["wrong"], status["exchanges"]) == (received, 2)
    await inserted("insert")
    await reader.card_in()
    assert await reader.ask(STATUS) == bytes([0x63, 0xC0 | left])


async def test_a_pulled_card_does_not_come_back_by_itself(
    inserted: Send, reader: FakeReader
) -> None:
    await inserted("pull-at", n=1)
    reader.send(bytes.fromhex(STATUS))
    await reader.card_gone()
    assert await reader.nobody_new(within=0.3)
    assert (await inserted("status"))["faults"] == []


async def test_a_fault_on_an_instruction_with_data(inserted: Send, reader: FakeReader) -> None:
    await inserted("answer-at", n=2, ins="20", with_data=True, hex="", stage="after")
    for command in (STATUS, RIGHT, "00CB3FFF035C017E00", STATUS):
        assert len(await reader.ask(command)) >= 2
    assert await reader.ask(WRONG) == b""
    assert await reader.ask(STATUS) == b"\x63\xc2"


async def test_an_overridden_answer_never_reached_the_card(
    inserted: Send, reader: FakeReader
) -> None:
    await inserted("answer-at", n=1, hex="6F00")
    assert await reader.ask(WRONG) == b"\x6f\x00"
    assert await reader.ask(STATUS) == b"\x63\xc3"


@pytest.mark.parametrize(("stage", "meanwhile"), [("before", 0), ("after", 1)])
async def test_silence_ends_with_speak(
    inserted: Send, reader: FakeReader, stage: str, meanwhile: int
) -> None:
    await inserted("silent-at", n=1, stage=stage)
    reader.send(bytes.fromhex(WRONG))
    status = await eventually(inserted, "silent", True)
    assert verifies(status).get("wrong", 0) == meanwhile
    await inserted("speak")
    assert await reader.receive() == b"\x63\xc2"
    assert (await inserted("status"))["wrong"] == 1


async def test_a_silent_card_can_be_removed(inserted: Send, reader: FakeReader) -> None:
    await inserted("silent-at", n=1)
    reader.send(bytes.fromhex(WRONG))
    await eventually(inserted, "silent", True)
    await inserted("remove")
    await reader.card_gone()
    assert (await inserted("insert"))["inserted"]
    await reader.card_in()
    assert (await inserted("status"))["silent"] is False
    assert await reader.ask(STATUS) == b"\x63\xc3"


async def test_a_slow_card_answers_later(inserted: Send, reader: FakeReader) -> None:
    await inserted("slow", ms=150)
    start = asyncio.get_running_loop().time()
    await reader.ask(STATUS)
    assert asyncio.get_running_loop().time() - start >= 0.14


async def test_a_swap_is_another_card_and_a_name_brings_the_first_back(
    inserted: Send, reader: FakeReader
) -> None:
    await reader.ask(WRONG)
    before = await inserted("status")
    other = await inserted("swap", options={"holder": "555000000001", "tries_limit": 5})
    await reader.card_in()
    assert other["guid"] != before["guid"]
    assert other["holder"] == "555000000001"
    assert await reader.ask(STATUS) == b"\x63\xc5"
    again = await inserted("swap", name="first")
    await reader.card_in()
    assert again["guid"] == before["guid"]
    assert await reader.ask(STATUS) == b"\x63\xc2"


async def test_a_new_card_waits_for_insert(inserted: Send, reader: FakeReader) -> None:
    assert (await inserted("new-card"))["inserted"] is False
    await reader.card_gone()
    await inserted("insert")
    await reader.card_in()
    assert await reader.ask(STATUS) == b"\x63\xc3"


async def test_tries_pin_objects_and_atr_can_be_set(inserted: Send, reader: FakeReader) -> None:
    await inserted("set-tries", left=0)
    assert await reader.ask(STATUS) == b"\x69\x83"
    answer = await inserted("set-pin", pin="246810")
    assert "246810" not in json.dumps(answer)
    assert await reader.ask("0020008008323436383130FFFF") == b"\x90\x00"
    await inserted("set-object", tag="7E", hex="7E00")
    assert await reader.ask("00CB3FFF035C017E00") == b"\x7e\x00\x90\x00"
    await inserted("set-object", tag="7E", hex=None)
    assert await reader.ask("00CB3FFF035C017E00") == b"\x6a\x82"
    await inserted("set-atr", hex="3B00")
    assert await reader.ask(b"\4") == b"\x3b\x00"


async def test_the_card_waits_for_a_reader_and_comes_back(send: Send, reader: FakeReader) -> None:
    await reader.stop()
    assert (await send("insert", wait=0))["connected"] is False
    await reader.listen()
    await reader.card_in()
    await reader.ask(RIGHT)
    await reader.stop()
    await reader.listen()
    await reader.card_in()
    assert await reader.ask(STATUS) == b"\x63\xc3"
    assert (await send("status"))["insertions"] == 1


@pytest.mark.parametrize(
    ("command", "fields", "expected"),
    [
        ("dance", {}, "insert"),
        ("set-tries", {}, "left"),
        ("set-tries", {"left": 16}, "15"),
        ("set-tries", {"left": True}, "left"),
        ("set-tries", {"left": 1, "reference": "96"}, "80, 81"),
        ("set-pin", {"pin": CANARY + "9"}, "1 to 8"),
        ("set-pin", {"pin": "7319468é"}, "1 to 8"),
        ("pull-at", {"n": 0}, "from 1"),
        ("pull-at", {"n": 1, "stage": "during"}, "before, after"),
        ("answer-at", {"n": 1, "hex": "9"}, "hexadecimal"),
        ("silent-at", {"n": 1, "ins": "2020"}, "a byte"),
        ("insert", {"wait": -1}, "seconds"),
        ("swap", {"options": {"holdr": "x"}}, "holder"),
        ("swap", {"options": {"slots": "9F"}}, "9A"),
        ("certificate", {"slot": "9B"}, "9A, 9C"),
    ],
)
async def test_refusals_name_what_was_expected(
    send: Send, command: str, fields: dict[str, object], expected: str
) -> None:
    with pytest.raises(ControlError, match=expected) as refused:
        await send(command, **fields)
    assert "7319468" not in str(refused.value)


async def test_noise_on_the_control_socket_is_answered(send: Send, path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(path))
    for line in (b"noise\n", b"[1]\n", b'{"command": "status"}\n'):
        writer.write(line)
    answers = [json.loads(await asyncio.wait_for(reader.readline(), DEADLINE)) for _ in range(3)]
    assert [answer["ok"] for answer in answers] == [False, False, True]
    writer.close()


async def test_the_control_socket_is_this_users_alone(send: Send, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600  # noqa: ASYNC240


async def test_two_cards_do_not_share_a_control_socket(send: Send, path: Path) -> None:
    with pytest.raises(OSError, match="another card"):
        async with ControlServer(path, None):  # type: ignore[arg-type]
            pass
    assert (await send("status"))["ok"] is True
