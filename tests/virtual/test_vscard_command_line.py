"""`cardsession-virtual run --vscard` as a process, and the T=0 card that it runs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cardsession.virtual.arguments import parser
from cardsession.virtual.card import VirtualCard
from cardsession.virtual.control_client import Control
from cardsession.virtual.options import TransmissionProtocol
from cardsession.virtual.run import options_of
from fakes import qemu
from fakes.qemu import FakeQemu

CANARY = "73194682"
DEADLINE = 10.0
PROGRAM = (sys.executable, "-m", "cardsession.virtual")
VERIFY = "0020008008" + CANARY.encode().hex()
Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Start a card's process with these arguments; it is ended afterwards."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*PROGRAM, "run", *arguments],
            env={
                **os.environ,
                "CARDSESSION_CARD": str(tmp_path / "control.sock"),
                "CARDSESSION_CARD_PIN": CANARY,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("family", ["piv", "pkcs15"])
async def test_a_card_behind_qemu_is_inserted_and_leaves_when_it_ends(
    run: Run, tmp_path: Path, family: str
) -> None:
    async with FakeQemu(tmp_path / "card.sock") as machine:
        process = run("--vscard", machine.address, "--family", family)
        atr = await machine.card_in()
        assert atr[:4] == bytes([0x3B, 0x8C, 0x40, 0x01])
        if family == "piv":
            assert await machine.ask(VERIFY) == b"\x90\x00"
        process.send_signal(signal.SIGTERM)
        assert await machine.kinds(2) == [qemu.CARD_REMOVE, None]
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert output.count("\n") == 1
    assert machine.address in output
    assert CANARY not in output


async def test_its_control_socket_is_that_of_any_card(run: Run, tmp_path: Path) -> None:
    async with FakeQemu(tmp_path / "card.sock") as machine:
        run("--vscard", machine.address, "--not-inserted")
        control = Control(tmp_path / "control.sock")
        control.wait_ready(DEADLINE)
        assert control.send("status")["connected"] is False
        told = await asyncio.to_thread(control.send, "insert", wait=DEADLINE)
        assert told["connected"] is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--vscard", "/run/card.sock"), "--vscard: unix:PATH or HOST:PORT was expected"),
        (("--vscard", "host:0"), "unix:PATH or HOST:PORT"),
        (("--vscard", "unix:"), "a path of 1 to 107 bytes"),
        (("--vscard", "unix:x", "--slot", "0"), "--slot: not together with --vscard"),
        (("--vscard", "unix:x", "--port", "1"), "--port: not together with --vscard"),
        (("--vscard", "unix:x", "--host", "h"), "--host: not together with --vscard"),
        (("--vscard-capture", "x"), "--vscard-capture: only together with --vscard"),
        (("--vscard", "unix:x", "--protocol", "t2"), "--protocol"),
    ],
)
def test_two_readers_or_none_are_refused(run: Run, arguments: tuple[str, ...], said: str) -> None:
    process = run(*arguments)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 64
    assert said in output


@pytest.mark.parametrize(
    ("line", "protocol"),
    [
        ("run", TransmissionProtocol.T1),
        ("run --protocol t0", TransmissionProtocol.T0),
        ("run --vscard unix:x", TransmissionProtocol.T0),
        ("run --vscard unix:x --protocol t1", TransmissionProtocol.T1),
    ],
)
def test_behind_qemu_a_card_speaks_t0_unless_it_is_told(
    line: str, protocol: TransmissionProtocol
) -> None:
    assert options_of(parser().parse_args(line.split())).protocol is protocol


def test_a_t0_card_says_so_and_takes_no_extended_length(
    make_card: Callable[..., VirtualCard],
) -> None:
    card = make_card(protocol=TransmissionProtocol.T0)
    # TS, T0 with TD1 and the historical bytes; TD1: TC2, T=0; TC2; no TCK (7816-3 clause 8.2.5).
    assert card.atr[:4] == bytes([0x3B, 0x8C, 0x40, 0x01])
    assert len(card.atr) == 4 + 12
    # Card capabilities, third byte: chaining, and no extended length (7816-4 table 119).
    assert card.atr[4:9] == bytes([0x80, 0x73, 0xC0, 0x21, 0x80])
    assert card.process(bytes.fromhex("00CB3FFF0000055C035FC1050000")) == b"\x67\x00"
    # Without Le, as T=0 wants it, the card says what is waiting.
    assert card.process(bytes.fromhex("00CB3FFF055C035FC105"))[0] == 0x61
    assert len(card.process(bytes.fromhex("00C0000000"))) == 256 + 2
