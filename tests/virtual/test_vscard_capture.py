"""Power and reset of QEMU's reader, read from a capture that the test writes as QEMU does."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from cardsession.virtual import vscard
from cardsession.virtual.capture import Capture
from cardsession.virtual.card import VirtualCard
from cardsession.virtual.identity import Authority
from cardsession.virtual.line import Power
from cardsession.virtual.options import CardOptions, Secrets, TransmissionProtocol
from cardsession.virtual.seat import Seat
from cardsession.virtual.vscard_wire import Address
from fakes import qemu
from fakes.qemu import FakeQemu

CANARY = "73194682"
DEADLINE = 10.0
RIGHT = "0020008008" + CANARY.encode().hex()
HEAD = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 4160, 220)
OUT, IN, INTERRUPT, CONTROL, BULK = 3, 0x82, 1, 2, 3
ON, OFF = b"\x62" + bytes(9), b"\x63" + bytes(9)


def packet(  # noqa: PLR0913 - a record has that many fields
    event: str,
    data: bytes = b"",
    *,
    number: int = 1,
    transfer: int = BULK,
    endpoint: int = OUT,
    status: int = 0,
    length: int | None = None,
) -> bytes:
    """One record: of libpcap 16 bytes, of usbmon 64, and the data."""
    length = len(data) if length is None else length
    about = struct.pack(
        "=QcBBBHccqiiII",
        number,
        event.encode(),
        transfer,
        endpoint,
        1,
        0,
        b"\0",
        b"=",
        0,
        0,
        status,
        length,
        64,
    )
    body = about + bytes(24) + data
    return struct.pack("=IIII", 0, 0, len(body), len(body)) + body


def message(data: bytes, status: int = 0, number: int = 1, length: int | None = None) -> bytes:
    """A transfer to the reader: submitted, and done."""
    sent = packet("S", data, number=number, length=length)
    return sent + packet("C", number=number, status=status)


def transmit(command: bytes) -> bytes:
    """PC_to_RDR_XfrBlock."""
    return b"\x6f" + len(command).to_bytes(4, "little") + bytes(5) + command


def begin(file: Path) -> None:
    """As QEMU does, where its device appears."""
    file.write_bytes(HEAD + message(ON))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "usb.pcap"


def test_power_on_and_off_are_told_once_and_in_order(file: Path) -> None:
    capture = Capture(file)
    assert capture.words() == []  # not there yet
    file.write_bytes(b"")
    assert capture.words() == []
    file.write_bytes(HEAD + message(ON) + message(transmit(bytes(4))) + message(OFF))
    assert capture.words() == [Power.ON, Power.OFF]
    assert capture.words() == []
    with file.open("ab") as more:
        more.write(message(ON))
    assert capture.words() == [Power.ON]


def test_what_is_half_written_is_read_when_it_is_whole(file: Path) -> None:
    whole = HEAD + message(ON) + message(OFF)
    capture, found = Capture(file), []
    for size in range(len(whole) + 1):
        file.write_bytes(whole[:size])
        found += capture.words()
    assert found == [Power.ON, Power.OFF]


@pytest.mark.parametrize(
    "records",
    [
        packet("S", ON),  # under way
        packet("S", ON) + packet("C", number=2),
        packet("C"),
        message(ON, status=-121),
        packet("S", ON, endpoint=IN) + packet("C", ON, endpoint=IN),
        packet("S", ON, transfer=CONTROL) + packet("C", transfer=CONTROL),
        packet("S", ON, transfer=INTERRUPT) + packet("C", transfer=INTERRUPT),
        message(ON[:9]),
        message(b""),
        message(b"\x65" + bytes(9)),
    ],
)
def test_what_is_no_power_message(file: Path, records: bytes) -> None:
    file.write_bytes(HEAD + records)
    capture = Capture(file)
    assert capture.words() == []
    with file.open("ab") as more:
        more.write(message(OFF, number=3))
    assert capture.words() == [Power.OFF]


def test_a_command_in_parts_is_not_taken_for_messages(file: Path) -> None:
    whole = transmit(bytes(200))
    # Each part begins as a power on would.
    parts = [whole[:64], *(ON + whole[at + len(ON) : at + 64] for at in range(64, len(whole), 64))]
    assert len(parts) == 4
    file.write_bytes(HEAD + b"".join(map(message, parts)) + message(OFF))
    assert Capture(file).words() == [Power.OFF]


def test_a_long_transfer_is_cut_in_the_file_and_counted_whole(file: Path) -> None:
    whole = transmit(bytes(600))
    file.write_bytes(HEAD + message(whole[:256], length=len(whole)) + message(ON))
    assert Capture(file).words() == [Power.ON]


def test_a_part_that_fails_ends_its_message(file: Path) -> None:
    first = transmit(bytes(600))[:64]
    file.write_bytes(HEAD + message(first) + message(bytes(64), status=-121) + message(ON))
    assert Capture(file).words() == [Power.ON]


def test_transfers_that_were_given_up_are_not_kept_for_ever(file: Path) -> None:
    lost = b"".join(packet("S", ON, number=number) for number in range(10, 1000))
    file.write_bytes(HEAD + lost + message(OFF))
    assert Capture(file).words() == [Power.OFF]


def test_a_file_that_is_begun_anew_is_read_anew(file: Path) -> None:
    capture = Capture(file)
    file.write_bytes(HEAD + message(ON) + message(ON))
    assert capture.words() == [Power.ON] * 2
    file.write_bytes(HEAD + message(OFF))
    assert capture.words() == [Power.OFF]
    file.write_bytes(HEAD + message(ON))
    capture.rewind()  # nobody can see that it is another
    assert capture.words() == [Power.ON]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"\0" * 100, "USB packets"),
        (struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 4160, 1), "USB packets"),
        (HEAD + struct.pack("=IIII", 0, 0, 63, 63) + bytes(100), "63 bytes"),
        (HEAD + struct.pack("=IIII", 0, 0, 0xFFFFFFFF, 0) + bytes(100), "4294967295 bytes"),
    ],
)
def test_what_is_no_capture_is_said_once(
    file: Path, raw: bytes, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_bytes(raw)
    capture = Capture(file)
    assert [capture.words() for _ in range(3)] == [[]] * 3
    assert caplog.text.count(said) == 1
    file.write_bytes(HEAD + message(ON))
    capture.rewind()
    assert capture.words() == [Power.ON]


def test_a_pipe_is_no_file(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(file)
    assert Capture(file).words() == []
    assert "a file was expected" in caplog.text


def test_a_big_file_is_read_to_its_end(file: Path) -> None:
    file.write_bytes(HEAD + message(transmit(bytes(4))) * 10_000 + message(ON))
    assert file.stat().st_size > 1 << 20
    assert Capture(file).words() == [Power.ON]


@dataclass(frozen=True)
class Plugged:
    """A card in a reader whose traffic is captured."""

    seat: Seat
    machine: FakeQemu
    file: Path

    def driver_says(self, what: bytes) -> None:
        with self.file.open("ab") as capture:
            capture.write(message(what))


@pytest.fixture
async def plugged(tmp_path: Path, file: Path, authority: Authority) -> AsyncIterator[Plugged]:
    begin(file)
    async with FakeQemu(tmp_path / "card.sock") as machine:
        pace = vscard.Pace(empty=0.05, failed=0.05)
        connect = partial(vscard.Link, Address.read(machine.address), Capture(file), pace)
        options, secrets = CardOptions(protocol=TransmissionProtocol.T0), Secrets(pin=CANARY)
        seat = Seat(connect, options, lambda chosen: VirtualCard(chosen, secrets, authority))
        assert await seat.insert(DEADLINE)
        await machine.card_in()
        yield Plugged(seat, machine, file)
        await seat.remove()


@pytest.mark.parametrize("word", [ON, OFF])
async def test_a_reset_reaches_the_card_before_the_command_after_it(
    plugged: Plugged, word: bytes
) -> None:
    assert await plugged.machine.ask(RIGHT) == b"\x90\x00"
    assert await plugged.machine.ask("00200080") == b"\x90\x00"
    plugged.driver_says(word)
    assert await plugged.machine.ask("00200080") == b"\x63\xc3"


async def test_power_is_followed_without_a_command(plugged: Plugged) -> None:
    assert await plugged.machine.ask(RIGHT) == b"\x90\x00"
    assert plugged.seat.card.pins.satisfied
    plugged.driver_says(OFF)
    async with asyncio.timeout(DEADLINE):
        while plugged.seat.powered:  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.01)
    assert not plugged.seat.card.pins.satisfied
    plugged.driver_says(ON)
    async with asyncio.timeout(DEADLINE):
        while not plugged.seat.powered:  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.01)


async def test_a_reader_plugged_in_anew_has_a_new_capture(plugged: Plugged) -> None:
    plugged.driver_says(transmit(bytes(4)))
    await plugged.machine.ask(RIGHT)
    begin(plugged.file)
    for _ in range(10):  # longer than it was: its size does not tell that it is another
        plugged.driver_says(transmit(bytes(40)))
    plugged.machine.send(qemu.INIT, qemu.NOBODY, qemu.HELLO)
    await plugged.machine.card_in()
    assert await plugged.machine.ask(RIGHT) == b"\x90\x00"
    plugged.driver_says(ON)
    assert await plugged.machine.ask("00200080") == b"\x63\xc3"
