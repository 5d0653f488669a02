"""Bad input from callers and from cards: a clear error, nothing lost, nothing leaked."""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import time
import warnings
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cardsession.bus.connection import BusError, Variant
from cardsession.stack import Card, Daemon
from system.subscriber import ROOT, Subscriber, memfd

NOBODY = ("user", 0, {})
TRUE = Variant("b", True)
PROPERTIES = "org.freedesktop.DBus.Properties"
VERIFY = ("Session", "VerifyPin", "sha{sv}")


def descriptors(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


@pytest_asyncio.fixture
async def session(seen: Subscriber, card: Card) -> AsyncIterator[str]:
    card.insert()
    path, _ = await seen.card_in_state("ready")
    yield await seen.open_session(path)
    assert card.status()["wrong"] == 0, "no bad input is a try"


async def error_of(seen: Subscriber, *arguments: Any) -> tuple[str, float]:
    start = time.monotonic()
    with pytest.raises(BusError) as caught:
        await seen.call(*arguments)
    return caught.value.name.rsplit(".", 1)[1], time.monotonic() - start


def never_written() -> int:
    reading, _ = pipe()
    return reading


WRITERS: list[int] = []


def pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    WRITERS.append(writing)  # kept open: nobody ever writes or closes it
    return reading, writing


def datagram() -> int:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    WRITERS.append(theirs.detach())
    return ours.detach()


DESCRIPTORS: dict[str, Callable[[], int]] = {
    "never written": never_written,
    "a directory": lambda: os.open("/", os.O_RDONLY | os.O_DIRECTORY),
    "10 MB": lambda: memfd(b"1" * 10_000_000),
    "65 bytes": lambda: memfd(b"1" * 65),
    "a device": lambda: os.open("/dev/zero", os.O_RDONLY),
    "a file": lambda: os.open(__file__, os.O_RDONLY),
    "a datagram socket": datagram,
}


@pytest.mark.parametrize("kind", DESCRIPTORS)
async def test_descriptor_that_is_no_secret(
    daemon: Daemon, seen: Subscriber, session: str, kind: str
) -> None:
    before = descriptors(daemon)
    name, seconds = await error_of(seen, session, *VERIFY, NOBODY, (DESCRIPTORS[kind](),))
    assert name == "SecretInvalid"
    assert seconds < 5  # two, on a machine that has nothing else to do
    assert seen.all("Session")[session]["State"] == "unverified"
    await seen.until("no descriptor is left", lambda: descriptors(daemon) <= before)
    while WRITERS:
        os.close(WRITERS.pop())


@pytest.mark.parametrize("secret", [b"", b"12345\n", b"12\x0034", b"\xff" * 6, b"123456789"])
async def test_secret_that_no_card_is_given(seen: Subscriber, session: str, secret: bytes) -> None:
    assert await seen.verify(session, secret) == ("bad-format", -1)


async def test_loop_goes_on_while_a_secret_is_awaited(seen: Subscriber, session: str) -> None:
    reading, writing = os.pipe()
    pending = asyncio.create_task(seen.call(session, *VERIFY, NOBODY, (reading,)))
    await seen.until(
        "the call is under way", lambda: seen.all("Session")[session]["State"] == "verifying"
    )
    for _ in range(20):
        assert (await seen.call(ROOT, "Manager", "ListReaders"))[0]
    assert await seen.refused(session, *VERIFY, NOBODY, (memfd(b"123456"),)) == "Busy"
    assert not pending.done()
    os.close(writing)
    assert await pending == ("bad-format", -1)


@pytest.mark.parametrize(
    ("path", "call", "error"),
    [
        ("card", ("Card", "OpenSession", "s", ("x",)), "InvalidArgs"),
        ("card", ("Card", "OpenSession", "sa{sv}", ("x" * 200_000, {})), "InvalidArgs"),
        (
            "card",
            ("Card", "OpenSession", "sa{sv}", ("", {"no": Variant("b", True)})),
            "InvalidArgs",
        ),
        (
            "card",
            ("Card", "OpenSession", "sa{sv}", ("", {"wait-usec": Variant("s", "1")})),
            "InvalidArgs",
        ),
        (
            "card",
            ("Card", "OpenSession", "sa{sv}", ("", {"wait-usec": Variant("t", 2**63)})),
            "InvalidArgs",
        ),
        ("card", ("Card", "GetCertificate", "s", ("nowhere",)), "NoSuchSlot"),
        ("card", ("Card", "GetCertificate", "s", ("x" * 100_000,)), "InvalidArgs"),
        ("card", ("Card", "Nonsense", "", ()), "UnknownMethod"),
        ("card", ("Session", "Close", "", ()), "UnknownInterface"),
        ("session", ("Session", "QueryPin", "s", ("third",)), "NoSuchPin"),
        ("session", ("Session", "QueryPin", "u", (1,)), "InvalidArgs"),
        ("session", ("Session", "Sign", "s", ("x",)), "InvalidArgs"),
        ("manager", ("Manager", "CheckFunction", "so", ("dance", "/")), "NoSuchFunction"),
        (
            "manager",
            (PROPERTIES, "Get", "ss", ("a.b", "c")),
            "UnknownInterface",
        ),
        (
            "manager",
            (PROPERTIES, "Get", "ss", ("org.cardsession1.Manager", "c")),
            "UnknownProperty",
        ),
        ("/org/cardsession1/card/999", ("Card", "ListCertificates", "", ()), "CardRemoved"),
        ("/org/cardsession1/card/x", ("Card", "ListCertificates", "", ()), "UnknownObject"),
        ("/org/cardsession1/session/999", ("Session", "Close", "", ()), "SessionEnded"),
        ("/elsewhere", ("Card", "ListCertificates", "", ()), "UnknownObject"),
    ],
)
async def test_calls_that_make_no_sense(
    seen: Subscriber, session: str, path: str, call: tuple[Any, ...], error: str
) -> None:
    paths = {"card": next(iter(seen.all("Card"))), "session": session, "manager": ROOT}
    name, seconds = await error_of(seen, paths.get(path, path), *call)
    assert name == error
    assert seconds < 5
    assert list(seen.all("Session")) == [session]


async def test_wrong_pin_label_is_no_try(seen: Subscriber, session: str) -> None:
    for label in ("third", "", "x" * 100, "\U0001f600"):
        call = (session, *VERIFY, (label, 0, {}), (memfd(b"123456"),))
        assert await seen.refused(*call) == "NoSuchPin"


def certificate(name: str) -> bytes:
    """A certificate of that common name; its key is thrown away."""
    key = ec.generate_private_key(ec.SECP256R1())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is too long: that is the point
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        subject, subject, key.public_key(), 1, now, now + timedelta(days=30)
    )
    return bytes(builder.sign(key, SHA256()).public_bytes(Encoding.DER))


def wrapped(content: bytes, info: int = 0) -> str:
    """A certificate object as SP 800-73-4 part 1 appendix A has it."""
    inner = tlv(0x70, content) + tlv(0x71, bytes([info])) + tlv(0xFE, b"")
    return tlv(0x53, inner).hex()


def tlv(tag: int, value: bytes) -> bytes:
    return bytes([tag, 0x83]) + len(value).to_bytes(3, "big") + value


HOSTILE: dict[str, tuple[str, str, str]] = {
    "escapes": (
        wrapped(certificate("A\x1b[31mB\x00C\u202eD\n")),
        "A\ufffd[31mB\ufffdC\ufffdD\ufffd",
        "ready",
    ),
    "long name": (wrapped(certificate("N" * 5000)), "N" * 128, "ready"),
    "bomb": (wrapped(gzip.compress(bytes(10_000_000)), 1), "", "blank"),
    "cut gzip": (wrapped(gzip.compress(os.urandom(1000))[:500], 1), "", "blank"),
    "no certificate": (wrapped(os.urandom(300)), "", "ready"),
    "lying length": ("5383ffffff70", "", "blank"),
    "empty": ("5300", "", "blank"),
    "a million tags": (tlv(0x53, b"\x70\x00" * 8000).hex(), "", "blank"),
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_hostile_certificate(daemon: Daemon, seen: Subscriber, card: Card, kind: str) -> None:
    content, holder, state = HOSTILE[kind]
    card.tell("set-object", tag="5FC105", hex=content)
    card.insert()
    _, facts = await seen.card_in_state(state)
    assert facts["HolderId"] == holder
    assert facts["PinTries"] == {"user": 3}
    assert (await seen.call(ROOT, "Manager", "ListReaders"))[0]
    assert daemon.returncode is None


# (An answer of no bytes at all is silence to this virtual reader: that is a hung card.)
@pytest.mark.parametrize("answer", ["90", "6100", "6C00", "9000", "ff" * 300])
@pytest.mark.parametrize("moment", [1, 2, 3, 4, 5])
async def test_nonsense_in_place_of_any_answer(
    daemon: Daemon, seen: Subscriber, card: Card, answer: str, moment: int
) -> None:
    card.tell("answer-at", n=moment, hex=answer)
    card.insert()
    await seen.until(
        "the card was read",
        lambda: (found := seen.card()) and found[1]["State"] in ("ready", "blank", "unknown"),
    )
    assert card.status()["wrong"] == 0
    found = seen.card()
    assert found is not None
    assert set(found[1]["PinTries"].values()) <= {3}, "a number is the card's own, or absent"
    assert daemon.returncode is None


MOST_SELECTS = 8
"""PIV; the master file and EF.DIR by identifier and by path; PKCS#15 by its name."""


async def test_card_of_nobody_we_know(seen: Subscriber, card: Card) -> None:
    card.tell("answer-at", n=1, hex="6A82")
    card.insert()
    path, facts = await seen.card_in_state("unknown")
    assert bytes(facts["Atr"]).hex() == card.status()["atr"]
    assert (facts["Profile"], facts["PinTries"], facts["HolderId"]) == ("unknown", {}, "")
    said = card.status()["headers"]
    assert said, "asked who it is"
    assert {header[:4] for header in said} == {"00a4"}, "and nothing that could cost a try"
    assert len(said) <= MOST_SELECTS
    assert await seen.refused(path, "Card", "OpenSession", "sa{sv}", ("", {})) == "NotSupported"
