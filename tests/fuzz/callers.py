"""Callers who send anything: a whole daemon over a card in memory, and calls to make to it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from cardsession.adapters.ledger import MemoryLedger
from cardsession.bus import contract
from cardsession.bus.connection import Variant
from cardsession.bus.frames import Kind
from cardsession.bus.service import Service
from cardsession.bus.values import Constants
from cardsession.bus.wire import decode, encode
from cardsession.cards import families
from cardsession.config import Config, PinConfig, SpendLastTry
from cardsession.core.facts import Backend
from cardsession.core.policy import Removal
from cardsession.core.reports import Listing, SlotReport
from cardsession.core.signing import Algorithm
from cardsession.desks import Desks, Keepers
from fakes.cards import ATR, CANARY, WRONG
from fakes.channel import FakeChannel
from fakes.clock import FakeClock
from fakes.keepers import FakeJudge, FakeTrail
from fuzz.hostile import FREE, make

READER = "Fake Reader 00 00"
CARD, SESSION = f"{contract.CARDS}/{{}}", f"{contract.SESSIONS}/{{}}"


class Whole:
    """Desks and the service of the contract, as `__main__` puts them together."""

    def __init__(self, connection: Any, chip: Any) -> None:
        self.clock, self.connection, self.chip = FakeClock(), connection, chip
        self.channel = FakeChannel(MemoryLedger(self.clock.usec))
        self.service = Service(connection, Constants("0", Removal.END, 900, 43_200))
        keepers = Keepers(families((FREE,)), self.channel.pump.ledger, FakeJudge(), FakeTrail())
        config = Config(pin=PinConfig(unblock=frozenset({"piv", "pkcs15"})))
        self.desks = Desks(config, self.clock, self.service, lambda _: self.channel, keepers)
        self._slot = SlotReport(READER)

    async def start(self) -> None:
        """A reader, and a card in it that is read."""
        await self.service.start(self.desks, spend_last_try=SpendLastTry.CALLER)
        self.lies(True)
        await settle()

    def lies(self, there: bool) -> None:
        """The card comes, or goes."""
        if not there and self.channel.chip is not None:
            self.channel.chip.reset()
        self.channel.chip = self.chip if there else None
        atr = ATR if there else b""
        self._slot = SlotReport(READER, present=there, atr=atr, counter=self._slot.counter + 1)
        self.desks.listing(Listing(Backend.OK, (self._slot,)))

    def newest(self) -> tuple[int, int]:
        """The numbers of the card that is there, and of its session; 1 if there is none."""
        shown = [desk.shown for desk in self.desks._desks.values()]
        cards = [each.card.number for each in shown if each.card]
        sessions = [each.session.number for each in shown if each.session]
        return max(cards, default=1), max(sessions, default=1)

    async def stop(self) -> None:
        """Everybody is sent away."""
        closing = asyncio.ensure_future(self.desks.close())
        for _ in range(400):
            if closing.done():
                break
            self.clock.advance(0.1)
            await settle(5)
        async with asyncio.timeout(20):
            await closing


async def settle(turns: int = 40) -> None:
    """Let everything happen that can happen without time going by."""
    for _ in range(turns):
        await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class Hostile:
    """One call. `{}` in a path is the number of the newest object of its kind."""

    path: str
    interface: str | None
    member: str
    signature: str
    body: tuple[Any, ...]
    fds: tuple[str, ...] = ()

    def at(self, card: int, session: int) -> str:
        """Its path."""
        return self.path.format(session if "/session" in self.path else card)

    def raw(self) -> bytes:
        """As bytes; what could not be sent is a ValueError."""
        return encode(
            Kind.CALL, 1, self.signature, self.body, fds=len(self.fds),
            path=self.at(1, 1), interface=self.interface, member=self.member, destination="a.b",
        )  # fmt: skip

    def read(self) -> tuple[Any, ...]:
        """The body as it arrives."""
        return decode(self.raw())


# arguments

_WORDS = ["user", "signature", "puk", "global", "authentication", "encryption",
          "card-authentication",
          "claim", "download", "nominated-download", "test", "FA123", "R8003", "", "org.a.B",
          "org.cardsession1.Card", "org.cardsession1.Session", "State", "PinTries",
          *(each.value for each in Algorithm)]  # fmt: skip
_TEXTS = (
    st.sampled_from(_WORDS)
    | st.sampled_from(_WORDS)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
    | st.sampled_from(["x" * 129, "x" * 40_000, "\x1b[31m\u202e", "\U0001f600" * 64, "../../etc"])
)
_PATHS = st.sampled_from([
    contract.ROOT, CARD, SESSION, CARD, SESSION, "/", f"{contract.CARDS}/0", f"{contract.CARDS}/01",
    f"{contract.CARDS}/999999999999999999999", f"{contract.SESSIONS}/x", f"{contract.SESSIONS}/7",
    contract.CARDS, "/elsewhere", f"{contract.ROOT}/reader/Fake_20Reader_2000_2000",
    "/org", f"{CARD}/1",
])  # fmt: skip
_APDUS = st.sampled_from([bytes.fromhex(each) for each in
    ["00A404000BA000000308000010000100", "00CB3FFF055C035FC10500", "0020008008" + "31" * 8, "00",
     "00C0000000", "10870000", "0087110082028101", "FFCA000000", "00CA006E00"]])  # fmt: skip
_BYTES = (
    st.binary(max_size=70)
    | _APDUS
    | st.sampled_from([bytes(32), bytes(48), bytes(64), bytes(9000)])
)
_NUMBERS = {
    "y": (0, 255), "n": (-(1 << 15), (1 << 15) - 1), "q": (0, (1 << 16) - 1),
    "i": (-(1 << 31), (1 << 31) - 1), "u": (0, (1 << 32) - 1), "h": (0, 3),
    "x": (-(1 << 63), (1 << 63) - 1), "t": (0, (1 << 64) - 1),
}  # fmt: skip
_OPTIONS = ["wait-usec", "idle-usec", "used-by", "replace", "spend-last-try", "accept-unknown", ""]
_SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "s": _TEXTS,
    "o": _PATHS.map(lambda each: each.format(1)),
    "g": st.sampled_from(["", "s", "a{sv}"]),
    "b": st.booleans(),
    "d": st.floats(allow_nan=False),
    **{code: st.integers(*bounds) for code, bounds in _NUMBERS.items()},
}
_RIGHT = {"wait-usec": "t", "idle-usec": "t", "used-by": "s", "replace": "b",
          "spend-last-try": "b", "accept-unknown": "b"}  # fmt: skip
_TRUE = {"wait-usec": st.sampled_from([0, 1, 5_000_000, 20_000_000, 20_000_001]),
         "idle-usec": st.sampled_from([0, 1, 10**9, 2**64 - 1])}  # fmt: skip


def _option(name: str) -> st.SearchStrategy[Variant]:
    code = _RIGHT.get(name, "s")
    right = _TRUE.get(name, _SCALARS[code]).map(lambda value: Variant(code, value))
    return st.one_of(right, right, right, _variants())


@st.composite
def _options(draw: st.DrawFn) -> dict[str, Variant]:
    names = draw(st.lists(st.sampled_from(_OPTIONS) | _TEXTS, max_size=3, unique=True))
    return {name[:40]: draw(_option(name[:40])) for name in names}


@st.composite
def _variants(draw: st.DrawFn) -> Variant:
    code = draw(st.sampled_from([*_SCALARS, "as", "ay", "a{ss}"]))
    return Variant(code, draw(values(code)))


def values(kind: str) -> st.SearchStrategy[Any]:
    """Values of one complete type."""
    if kind in _SCALARS:
        return _SCALARS[kind]
    match kind:
        case "ay":
            return _BYTES
        case "a{sv}":
            return _options()
        case "a{ss}":
            keys = st.sampled_from(["ods-code", "role-code", "role-profile-id"]) | _TEXTS
            return st.dictionaries(keys, _TEXTS, max_size=4)
        case "v":
            return _variants()
        case "as" | "ao" | "au" | "ah":
            return st.lists(_SCALARS[kind[1]], max_size=5) | st.sampled_from(
                [[], *([["x"] * 5000] if kind == "as" else [])]
            )
        case "(sv)":
            return st.tuples(_TEXTS, _variants()).map(list)
        case _:
            return st.lists(values(kind[1:]), max_size=3)


def complete(signature: str) -> list[str]:
    """The complete types of a signature."""
    found: list[str] = []
    while signature:
        end = _end(signature)
        found.append(signature[:end])
        signature = signature[end:]
    return found


def _end(signature: str) -> int:
    """Where the first complete type ends."""
    if signature[0] == "a":
        return 1 + _end(signature[1:])
    if signature[0] in "({":
        return signature.index(")" if signature[0] == "(" else "}") + 1
    return 1


_WRONG = ["", "s", "sa{sv}", "av", "(sv)", "h", "ah", "aas", "v", "ay", "sssss", "sha{sv}", "u"]
_METHODS = [
    (interface, name, method.in_signature)
    for interface, found in contract.interfaces().items()
    for name, method in found.methods.items()
]
_HOME = {contract.CARD: CARD, contract.SESSION: SESSION}
_FDS = ("right", "wrong", "empty", "closed pipe", "pipe", "zero", "directory", "o_path", "datagram",
        "write end", "long", "event")  # fmt: skip


@st.composite
def calls(draw: st.DrawFn) -> Hostile:
    """A method of the contract, mostly at home, with arguments that mostly have its types."""
    interface, member, signature = draw(st.sampled_from(_METHODS))
    home = _HOME.get(interface, contract.ROOT)
    path = draw(st.sampled_from([home, home, home])) if draw(st.integers(0, 3)) else draw(_PATHS)
    if not draw(st.integers(0, 5)):
        signature = draw(st.sampled_from(_WRONG))
    if not draw(st.integers(0, 9)):
        member = draw(st.sampled_from(["Nonsense", "Get", "Do", "VerifyPin", "_"]))
    named = None if not draw(st.integers(0, 6)) else interface
    if not draw(st.integers(0, 9)):
        named = draw(st.sampled_from([contract.SESSION, "a.b", "org.freedesktop.DBus.Peer"]))
    body = tuple(draw(values(kind)) for kind in complete(signature))
    many = st.lists(st.sampled_from(_FDS), max_size=3)
    wanted = signature.count("h")
    good = st.lists(st.sampled_from(_FDS[:2]), min_size=wanted, max_size=wanted)
    fds = draw(good | good | many) if wanted else draw(st.just([]) | many)
    if wanted and draw(st.integers(0, 3)):
        index = iter(range(wanted))
        body = tuple(next(index) if kind == "h" else value
                     for kind, value in zip(complete(signature), body, strict=True))  # fmt: skip
    return Hostile(path, named, member, signature, body, tuple(fds))


# descriptors


def _memfd(content: bytes) -> int:
    made = os.memfd_create("fuzz")
    os.write(made, content)
    return made


def _pipe(content: bytes | None) -> int:
    reading, writing = os.pipe()
    if content is not None:
        os.write(writing, content)
    os.close(writing)
    return reading


def _write_end() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def _datagram() -> int:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    theirs.close()
    return ours.detach()


_OPENED: dict[str, Callable[[], int]] = {
    "right": lambda: _memfd(CANARY.encode()),
    "wrong": lambda: _pipe(WRONG.encode()),
    "empty": lambda: _memfd(b""),
    "closed pipe": lambda: _pipe(None),
    "pipe": lambda: _pipe(b"73\n1946"),
    "zero": lambda: os.open("/dev/zero", os.O_RDONLY),
    "directory": lambda: os.open("/", os.O_RDONLY),
    "o_path": lambda: os.open("/", os.O_PATH),
    "datagram": _datagram,
    "write end": _write_end,
    "long": lambda: _memfd(b"7" * 100_000),
    "event": lambda: os.eventfd(0),
}


def opened(kinds: tuple[str, ...]) -> tuple[int, ...]:
    """Descriptors; whoever gets them closes them."""
    return tuple(_OPENED[kind]() for kind in kinds)


@contextmanager
def closed_after(kinds: tuple[str, ...]) -> Iterator[tuple[int, ...]]:
    """The same for a call that duplicates them."""
    fds = opened(kinds)
    try:
        yield fds
    finally:
        for fd in fds:
            with suppress(OSError):
                os.close(fd)


def chip(number: int) -> Any:
    """One of a few cards."""
    return make([("piv", 0), ("piv", 1), ("pkcs15", 0), ("pkcs15", 2)][number])
