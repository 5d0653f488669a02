"""A card in memory, and a reader that the card connects to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest

from cardsession.virtual import vscard
from cardsession.virtual.card import VirtualCard
from cardsession.virtual.commands import Commands
from cardsession.virtual.identity import Authority
from cardsession.virtual.options import CardOptions, Family, Secrets, TransmissionProtocol
from cardsession.virtual.pkcs15.options import Pkcs15Options
from cardsession.virtual.seat import Seat
from cardsession.virtual.vscard_wire import Address
from fakes.qemu import FakeQemu

DEADLINE = 10.0
CANARY = "73194682"


@pytest.fixture(scope="session")
def authority() -> Authority:
    """One test authority for the run."""
    return Authority.make()


@pytest.fixture
def make_card(authority: Authority) -> Callable[..., VirtualCard]:
    """Make a card with the canary passcode: make_card(tries_limit=5)."""

    def make(**options: object) -> VirtualCard:
        chosen = CardOptions(**options)  # type: ignore[arg-type]
        return VirtualCard(chosen, Secrets(pin=CANARY), authority)

    return make


@pytest.fixture
def make_pkcs15(authority: Authority) -> Callable[..., VirtualCard]:
    """Make a PKCS#15 card: make_pkcs15(tries_limit=5, pkcs15={"padding": Padding.NONE})."""

    def make(pkcs15: dict[str, Any] | None = None, **options: Any) -> VirtualCard:
        inner = Pkcs15Options(**(pkcs15 or {}))
        chosen = CardOptions(family=Family.PKCS15, pkcs15=inner, **options)
        secrets = Secrets(pin=CANARY, puk="87654321", signature_pin="24681357")
        return VirtualCard(chosen, secrets, authority)

    return make


@pytest.fixture
def card(make_card: Callable[..., VirtualCard]) -> VirtualCard:
    """A card as it comes."""
    return make_card()


class FakeReader:
    """vpcd's side of the line: listens, asks, and notes when the card goes."""

    def __init__(self) -> None:
        self._lines: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.Queue()
        )
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None
        self._line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def listen(self) -> None:
        """Listen, on the port of before if there was one."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the listener and every line there was."""
        if self._server is not None:
            self._server.close()
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        await self._lines.put((reader, writer))

    async def card_in(self) -> None:
        """Wait for the next card that connects, and power it."""
        self._line = await asyncio.wait_for(self._lines.get(), DEADLINE)
        self.control(0x01)

    async def nobody_new(self, within: float) -> bool:
        """Does no further card connect in that many seconds?"""
        try:
            await asyncio.wait_for(self._lines.get(), within)
        except TimeoutError:
            return True
        return False

    def control(self, word: int) -> None:
        """Send a control word that is not answered."""
        self.send(bytes([word]))

    def send(self, body: bytes) -> None:
        """Send one frame."""
        assert self._line is not None
        self._line[1].write(len(body).to_bytes(2, "big") + body)

    async def receive(self, within: float = DEADLINE) -> bytes:
        """One frame from the card. IncompleteReadError if it was pulled."""
        assert self._line is not None
        async with asyncio.timeout(within):
            size = int.from_bytes(await self._line[0].readexactly(2), "big")
            return await self._line[0].readexactly(size)

    async def ask(self, body: bytes | str) -> bytes:
        """A command, or 04 for the ATR, and its answer."""
        self.send(bytes.fromhex(body) if isinstance(body, str) else body)
        return await self.receive()

    async def card_gone(self) -> None:
        """Wait until the card has closed the line without a word."""
        assert self._line is not None
        async with asyncio.timeout(DEADLINE):
            assert await self._line[0].read() == b""


@pytest.fixture
async def reader() -> AsyncIterator[FakeReader]:
    """A reader on a port of its own."""
    async with FakeReader() as made:
        yield made


Tell = Callable[..., Awaitable[dict[str, object]]]
Plug = Callable[..., Awaitable[Tell]]
BRISK = vscard.Pace(empty=0.05, failed=0.05, farewell=DEADLINE)


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[FakeQemu]:
    """A machine whose reader is at `card.sock`."""
    async with FakeQemu(tmp_path / "card.sock") as made:
        yield made


@pytest.fixture
async def plug(machine: FakeQemu, authority: Authority) -> AsyncIterator[Plug]:
    """Make a seat, and tell it what the control socket would: tell = await plug()."""
    secrets, seats = Secrets(pin=CANARY), list[Seat]()

    async def make(
        to: FakeQemu = machine, pace: vscard.Pace = BRISK, *, insert: bool = True
    ) -> Tell:
        connect = partial(vscard.Link, Address.read(to.address), None, pace)
        options = CardOptions(protocol=TransmissionProtocol.T0)
        seat = Seat(connect, options, lambda chosen: VirtualCard(chosen, secrets, authority))
        commands = Commands(seat, authority, asyncio.Event())
        seats.append(seat)

        async def tell(command: str, **fields: object) -> dict[str, object]:
            return await commands.run({"command": command, **fields})

        if insert:
            assert (await tell("insert", wait=DEADLINE))["connected"]
            await to.card_in()
        return tell

    yield make
    for seat in seats:
        await seat.remove()
