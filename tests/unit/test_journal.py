"""The log: what arrives in the journal or on standard error, and what must never arrive."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cardsession.adapters import journal
from cardsession.core.secret import Secret

# After the adapter, which keeps structlog from importing what a daemon has no use for.
import structlog  # isort: skip

CANARY = "73194682"
DIGITS = list(CANARY.encode())


class Journal:
    """A socket in the journal's place."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)

    def raw(self) -> bytes:
        """The next datagram; what was sent is there already."""
        return self.socket.recv(1 << 20)

    def entry(self) -> dict[str, str]:
        """The next datagram's fields, by the journal's own reading of it."""
        rest, fields = self.raw(), dict[str, str]()
        while rest:
            line, _, rest = rest.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:
                length = int.from_bytes(rest[:8], "little")
                value, rest = rest[8 : 8 + length], rest[8 + length :]
                assert rest[:1] == b"\n"
                rest = rest[1:]
            fields[name.decode("ascii")] = value.decode()
        return fields


@pytest.fixture
def fake_journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal that listens."""
    listener = Journal(tmp_path / "journal")
    with closing(listener.socket):
        yield listener


class Pipe:
    """Standard error as a pipe that somebody reads."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)

    def raw(self) -> bytes:
        """What was written so far."""
        parts = []
        try:
            while part := os.read(self.reader, 1 << 16):
                parts.append(part)
        except BlockingIOError:
            pass
        return b"".join(parts)

    def entries(self) -> list[dict[str, Any]]:
        """The objects of all lines."""
        return [json.loads(line) for line in self.raw().splitlines()]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A standard error of our own."""
    made = Pipe()
    yield made
    os.close(made.reader)
    os.close(made.writer)


@contextmanager
def to_journal(fake: Journal, level: str = "debug") -> Iterator[journal.Log]:
    """The log set up on that journal."""
    with journal.configure(level, "journal", journal=fake.path) as log:
        yield log


@contextmanager
def to_pipe(pipe: Pipe, level: str = "debug") -> Iterator[journal.Log]:
    """The log set up as JSON lines."""
    with journal.configure(level, "json", stderr=pipe.writer) as log:
        yield log


def test_journal_fields(fake_journal: Journal) -> None:
    """Native fields, upper case, and one line that a person reads."""
    with to_journal(fake_journal):
        structlog.get_logger("cardsession.desk").warning(
            "pin.judged", outcome="incorrect", left=2, reader="Virtual PCD 00 00"
        )
    assert fake_journal.entry() == {
        "MESSAGE": "pin.judged outcome=incorrect left=2 reader=Virtual PCD 00 00",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "cardsessiond",
        "CARDSESSION_EVENT": "pin.judged",
        "CARDSESSION_LOGGER": "cardsession.desk",
        "CARDSESSION_OUTCOME": "incorrect",
        "CARDSESSION_LEFT": "2",
        "CARDSESSION_READER": "Virtual PCD 00 00",
    }


def test_json_lines(pipe: Pipe) -> None:
    """The same event as one object on one line."""
    with to_pipe(pipe):
        structlog.get_logger("x").info("card.ready", left=None, labels={"user": 3}, holder="Jörg")
    (entry,) = pipe.entries()
    assert entry.pop("timestamp").endswith("+00:00")
    assert entry == {
        "level": "info",
        "event": "card.ready",
        "logger": "x",
        "left": None,
        "labels": {"user": 3},
        "holder": "Jörg",
    }


@pytest.mark.parametrize(
    ("level", "priorities"), [("debug", "7643"), ("info", "643"), ("warning", "43"), ("error", "3")]
)
def test_levels(fake_journal: Journal, level: str, priorities: str) -> None:
    """What is below the level is not sent, and the rest has syslog's priorities."""
    with to_journal(fake_journal, "error") as log:
        log.set_level(level)
        logger = structlog.get_logger()
        for name in ("debug", "info", "warning", "error"):
            logger.log(logging.getLevelNamesMapping()[name.upper()], "x")
    assert [fake_journal.entry()["PRIORITY"] for _ in priorities] == list(priorities)
    with pytest.raises(BlockingIOError):
        fake_journal.raw()


def test_auto_asks_whether_stderr_is_the_journal(
    fake_journal: Journal, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal on the machine is no reason to leave the terminal of who started us."""
    status = os.fstat(pipe.writer)
    for stream, to_the_journal in (
        (f"{status.st_dev}:{status.st_ino}", True),
        (f"{status.st_dev}:{status.st_ino + 1}", False),
        ("", False),
    ):
        monkeypatch.setenv("JOURNAL_STREAM", stream)
        with journal.configure("info", "auto", journal=fake_journal.path, stderr=pipe.writer):
            structlog.get_logger().info("x")
        assert bool(pipe.raw()) is not to_the_journal
        if to_the_journal:
            assert fake_journal.entry()["MESSAGE"] == "x"


def test_a_journal_that_is_gone_leaves_stderr(tmp_path: Path, pipe: Pipe) -> None:
    """Never there, or there no more: the event is a JSON line."""
    with journal.configure("info", "journal", journal=str(tmp_path / "no"), stderr=pipe.writer):
        structlog.get_logger().info("x", left=2)
    assert pipe.entries()[0]["left"] == 2


def test_a_journal_that_does_not_read_loses_events_and_time_is_not_lost(
    fake_journal: Journal,
) -> None:
    """Dropped and counted; the next event that leaves says how many were not."""
    with to_journal(fake_journal) as log:
        logger = structlog.get_logger()
        sent = 0
        while not log.dropped:
            logger.info("x")
            sent += 1
        logger.info("x")
        assert log.dropped == 2
        for _ in range(sent - 1):
            assert "CARDSESSION_DROPPED" not in fake_journal.entry()
        logger.info("y")
        assert fake_journal.entry()["CARDSESSION_DROPPED"] == "2"
        logger.info("z")
        assert "CARDSESSION_DROPPED" not in fake_journal.entry()


def test_a_stderr_that_nobody_reads_blocks_nobody(pipe: Pipe) -> None:
    """A full pipe in blocking mode: this test would not end otherwise. Lines stay whole."""
    with to_pipe(pipe) as log:
        logger = structlog.get_logger()
        written = 0
        while not log.dropped:
            logger.info("x", text="y" * 400)
            written += 1
        assert len(pipe.entries()) == written - 1
        logger.info("z")
        assert pipe.entries()[0]["dropped"] == 1
    assert os.get_blocking(pipe.writer)


def test_a_closed_stderr_is_no_reason_to_stop(pipe: Pipe) -> None:
    """Nor is one that was never there."""
    reader, writer = os.pipe()
    os.close(reader)
    with journal.configure("info", "json", stderr=writer) as log:
        structlog.get_logger().info("x")
        os.close(writer)
        structlog.get_logger().info("x")
        assert log.dropped == 2


@dataclass(frozen=True, slots=True)
class Command:
    """A record with bytes in it, as an APDU is."""

    ins: int
    data: bytes
    rest: bytes


class Unprintable:
    """An object whose text is our bug."""

    def __repr__(self) -> str:
        raise RuntimeError(CANARY)


LEAKS: list[dict[str, Any]] = [
    {"pin": CANARY},
    {"newPin": CANARY},
    {"old_secret": CANARY},
    {"puk": int(CANARY)},
    {"pin_hex": CANARY},
    {"apdu": DIGITS},
    {"response_data": CANARY},
    {"password": [CANARY]},
    {"value": CANARY.encode()},
    {"value": bytearray(CANARY.encode())},
    {"value": memoryview(CANARY.encode())},
    {"value": Secret(bytearray(CANARY.encode()))},
    {"value": [CANARY.encode(), {"x": CANARY.encode()}]},
    {"value": {"call": {"pin": CANARY, CANARY.encode(): 1}}},
    {"value": DIGITS},
    {"value": tuple(DIGITS)},
    {"value": repr(CANARY.encode())},
    {"value": f"sent {[0, 32, 0, 128, 8, *DIGITS]} to it"},
    {"value": "00 20 00 80 08 " + CANARY.encode().hex(" ")},
    {"value": Command(0x20, CANARY.encode(), CANARY.encode())},
    {"value": ValueError(CANARY.encode())},
    {"value": Unprintable()},
    {"event": f"sent {CANARY.encode()!r}"},
]
SPELLINGS = (CANARY, CANARY.encode().hex(), CANARY.encode().hex(" "), str(DIGITS)[1:-1])


@pytest.mark.parametrize("facts", LEAKS, ids=lambda facts: next(iter(facts)))
def test_the_passcode_is_in_no_event(
    facts: dict[str, Any], fake_journal: Journal, pipe: Pipe
) -> None:
    """Under whatever name and in whatever wrapping."""
    outputs = []
    for context, read in ((to_journal(fake_journal), fake_journal.raw), (to_pipe(pipe), pipe.raw)):
        with context as log:
            structlog.get_logger().info(**{"event": "x", **facts})
            assert log.dropped == 0
        outputs.append(read().decode())
    for output in outputs:
        assert output
        assert not [spelling for spelling in SPELLINGS if spelling in output]


def test_what_is_harmless_stays(pipe: Pipe) -> None:
    """Redaction that hides everything would be switched off by the first technician."""
    facts = {
        "pin_tries": 3,
        "data_length": 8,
        "label": "user",
        "sw": 0x63C2,
        "atr": "3b8f8001804f0ca0000003060300030000000068",
        "lefts": [3, 3, 10],
    }
    with to_pipe(pipe):
        structlog.get_logger().info("x", value=b"four", path=Path("/run/pcscd"), **facts)
    (entry,) = pipe.entries()
    assert {key: entry[key] for key in facts} == facts
    assert "/run/pcscd" in entry["path"]
    assert entry["value"] == "<4 bytes>"


def test_a_traceback_has_no_variables(fake_journal: Journal, pipe: Pipe) -> None:
    """Its lines are there, its frames' contents are not."""

    def verify() -> None:
        passcode = CANARY
        command = CANARY.encode()
        raise ValueError(f"sw 6F00 after {command!r}"[: len(passcode) + 20])

    with to_journal(fake_journal):
        try:
            verify()
        except ValueError:
            structlog.get_logger().exception("desk.fault")
    entry = fake_journal.entry()
    assert entry["MESSAGE"] == "desk.fault"
    assert entry["PRIORITY"] == "3"
    assert "in verify" in entry["CARDSESSION_EXCEPTION"]
    assert entry["CARDSESSION_EXCEPTION"].count("\n") > 3
    assert CANARY not in str(entry)
    with to_pipe(pipe):
        try:
            verify()
        except ValueError as error:
            structlog.get_logger().error("desk.fault", exc_info=error)
    (line,) = pipe.entries()
    assert "in verify" in line["exception"]
    assert CANARY not in str(line)


def test_nothing_that_a_terminal_obeys(fake_journal: Journal, pipe: Pipe) -> None:
    """Escapes, controls, surrogates, direction marks, line breaks; in names of facts as well."""
    hostile = "A\x1b[2J\x00\x07\n\r\x9b31m\u202eB\ud800\u2028PRIORITY=0"
    for context, read in ((to_journal(fake_journal), fake_journal.raw), (to_pipe(pipe), pipe.raw)):
        with context:
            structlog.get_logger(hostile).info(hostile, holder=hostile, **{hostile: hostile})
        text = read().decode()
        assert all(char.isprintable() or char == "\n" for char in text)
        assert not any(line.startswith("PRIORITY=0") for line in text.splitlines())


def test_no_event_is_too_large(fake_journal: Journal, pipe: Pipe) -> None:
    """Bounded in length, in number and in depth; what is left is still an event."""
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep]
    facts: dict[str, Any] = {f"fact{at}": "x" * 10_000 for at in range(300)}
    facts |= {"deep": deep, "huge": 1 << 20_000}
    with to_journal(fake_journal) as log:
        structlog.get_logger().error("desk.fault", exception="line\n" * 10_000, **facts)
        structlog.get_logger().error("y", deep=deep, huge=1 << 20_000, nan=float("nan"))
        assert log.dropped == 0
    raw = fake_journal.raw()
    assert raw.startswith(b"MESSAGE=desk.fault ")
    assert len(raw) < 60_000
    assert fake_journal.entry()["CARDSESSION_HUGE"] == "<huge>"
    with to_pipe(pipe):
        structlog.get_logger().error("desk.fault", **facts)
        structlog.get_logger().error("desk.fault", exception="a line\n" * 1000 + "the last", left=2)
    whole, trace = pipe.raw().splitlines()
    assert len(whole) < 4096 and len(trace) < 4096
    assert json.loads(whole)["event"] == "desk.fault"
    assert json.loads(trace)["exception"].endswith("a line\nthe last")
    assert json.loads(trace)["left"] == 2


def test_libraries_go_the_same_way(fake_journal: Journal) -> None:
    """Their loggers and warnings; their arguments hold no bytes when they become text."""
    with to_journal(fake_journal, "info"):
        library = logging.getLogger("dbus_next.message_bus")
        library.info("noise")
        library.warning("got %s and %r, %d left", CANARY.encode(), bytearray(b"73194682"), 2)
        library.error("%(secret)s of %(value)s", {"secret": CANARY, "value": DIGITS})
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("a feature is old", DeprecationWarning, stacklevel=1)
    entry = fake_journal.entry()
    assert entry["MESSAGE"] == "got <8 bytes> and '<8 bytes>', 2 left"
    assert entry["CARDSESSION_LOGGER"] == "dbus_next.message_bus"
    assert entry["PRIORITY"] == "4"
    assert fake_journal.entry()["MESSAGE"] == "<masked> of <8 bytes>"
    assert "a feature is old" in fake_journal.entry()["MESSAGE"]


def test_a_library_that_logs_wrongly(
    fake_journal: Journal, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """logging itself would print the arguments to standard error."""
    # pytest's own handlers are stricter than a daemon's
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with to_journal(fake_journal) as log:
        logging.getLogger("x").warning("%d tries", CANARY)
        logging.getLogger("x").log(35, "between the levels")
        assert log.dropped == 1
    assert fake_journal.entry()["PRIORITY"] == "4"
    assert CANARY not in "".join(capfd.readouterr())


def test_context_travels_with_events(fake_journal: Journal) -> None:
    """What is bound for a task is in each of its events."""
    with to_journal(fake_journal), structlog.contextvars.bound_contextvars(reader="r1"):
        structlog.get_logger().info("x")
    assert fake_journal.entry()["CARDSESSION_READER"] == "r1"


def test_capture_and_afterwards(fake_journal: Journal) -> None:
    """`capture_logs` sees events as they were written; at the end all is as it was."""
    handlers = list(logging.getLogger().handlers)
    with to_journal(fake_journal):
        with structlog.testing.capture_logs() as events:
            structlog.get_logger().info("pin.judged", left=2)
        assert events == [{"event": "pin.judged", "left": 2, "log_level": "info"}]
    assert logging.getLogger().handlers == handlers
    assert not structlog.is_configured()


def test_the_daemon_does_not_load_a_console() -> None:
    """rich is there for the command line only; hidden from structlog, it still imports later."""
    code = (
        "import sys, cardsession.adapters.journal\n"
        "assert 'structlog' in sys.modules and 'rich' not in sys.modules, 'loaded'\n"
        "assert not [name for name in sys.modules if name.startswith(('rich.', 'pygments'))]\n"
        "import rich.table\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
