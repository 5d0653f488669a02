"""Where events go, and what never does: structlog set up, redaction, journal fields or JSON lines.

An event is a noun with facts, `pin.judged outcome=incorrect left=2`. Everything, the libraries'
own loggers too, passes `redact` last: no bytes, no value under a name that smells of a secret, no
control character, no local variable of a traceback. Writing never waits: what the journal or the
reader of standard error does not take at once is dropped, and counted.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import select
import socket
import sys
import traceback
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, Self

from cardsession.core.secret import Secret

# structlog.dev imports rich whenever it is installed (for cardsessionctl it is): 30 ms and
# 4.5 MiB for a console that a daemon does not have. None makes that one import fail.
_hide = "rich" not in sys.modules
if _hide:
    sys.modules["rich"] = None  # type: ignore[assignment]
import structlog  # noqa: E402
from structlog.contextvars import merge_contextvars  # noqa: E402
from structlog.typing import EventDict, WrappedLogger  # noqa: E402

if _hide:
    del sys.modules["rich"]

IDENTIFIER: Final = "cardsessiond"
JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"

_PRIORITY: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # syslog(3)
_LINE_BYTES: Final = select.PIPE_BUF
"""A pipe that is writable takes this much without waiting."""
_TEXT_CHARS: Final = 500
_TRACE_CHARS: Final = 8000
_ITEMS: Final = 32
_DEPTH: Final = 4
_BYTES_AS_NUMBERS: Final = 6
_TRACES: Final = frozenset({"exception", "traceback", "stack"})

_HEADS: Final = ("level", "event", "logger", "exception")

_NAMES: Final = ("pin", "puk", "secret", "passcode", "password", "passphrase", "apdu")
_SECRETIVE: Final = frozenset(
    {*_NAMES, *(f"{name}s" for name in _NAMES), "data", "payload", "body"}
)
_CONTENT: Final = frozenset({"value", "values", "raw", "hex", "text", "bytes", "str", "digits"})
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_UNSAFE: Final = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
# What bytes look like once somebody has put them into a text: b'…', [0, 32, 0, 128, 8, …],
# 00 20 00 80 08 …
_SPELT: Final = re.compile(
    r"""\bb(?P<q>['"])(?:\\.|(?!(?P=q)).)*(?P=q)?"""
    r"""|[\[(](?:\s*(?:0x)?[0-9A-Fa-f]{1,3}\s*,){5,}[^\])]*[\])]?"""
    r"""|\b[0-9A-Fa-f]{2}(?: [0-9A-Fa-f]{2}){5,}\b""",
    re.DOTALL,
)


class Log:
    """The daemon's log while it is entered; afterwards structlog and logging are as before."""

    def __init__(self, level: str, socket_path: str | None, stderr: int) -> None:
        """`socket_path` of the journal, or None for JSON lines to the descriptor `stderr`."""
        self.dropped = 0
        self._unsaid = 0
        self._level = level
        self._path = socket_path
        self._stderr = stderr
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._bridge = _Bridge(self)

    def __enter__(self) -> Self:
        """Take over the logging of the process."""
        structlog.configure(
            processors=[merge_contextvars, _origin, _exception, redact, _pack],
            logger_factory=lambda *names: _Logger(self, str(names[0]) if names else ""),
            cache_logger_on_first_use=False,
        )
        logging.captureWarnings(True)
        logging.getLogger().addHandler(self._bridge)
        self.set_level(self._level)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give it back."""
        logging.getLogger().removeHandler(self._bridge)
        logging.captureWarnings(False)
        structlog.reset_defaults()
        self._socket.close()

    def set_level(self, level: str) -> None:
        """The least important event from now on; libraries are heard from `warning` at least."""
        number = logging.getLevelNamesMapping()[level.upper()]
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))
        quiet = max(number, logging.WARNING) if number > logging.DEBUG else number
        logging.getLogger().setLevel(quiet)

    def write(self, facts: EventDict) -> None:
        """Send one redacted event; never waits, never raises."""
        if self._unsaid:
            facts = {**facts, "dropped": self._unsaid}
        if self._send(facts):
            self._unsaid = 0
        else:
            self.lost()

    def lost(self) -> None:
        """One event more that nobody will read; the next one that leaves says how many."""
        self.dropped += 1
        self._unsaid += 1

    def _send(self, facts: EventDict) -> bool:
        """Whether it was taken; a journal that is gone leaves standard error."""
        if self._path is not None:
            try:
                self._socket.sendto(_as_fields(facts), self._path)
                return True
            except BlockingIOError:
                return False
            except OSError:
                pass
        return _write_line(self._stderr, _as_line(facts))


def configure(level: str, form: str, *, journal: str = JOURNAL_SOCKET, stderr: int = 2) -> Log:
    """The log to enter: `level` debug, info, warning or error; `form` auto, journal or json.

    `auto` is the journal only if standard error already leads there (JOURNAL_STREAM,
    systemd.exec(5)): that a journal runs on the machine does not mean that whoever started us
    reads it. Where the journal cannot be reached, events are JSON lines on `stderr` all the same.
    """
    to_journal = form == "journal" or (form == "auto" and _is_journal(stderr))
    return Log(level, journal if to_journal else None, stderr)


def logger(name: str) -> Any:
    """A logger, for modules that must not import structlog before this one did."""
    return structlog.get_logger(name)


def redact(_: WrappedLogger, __: str, facts: EventDict) -> EventDict:
    """The last processor but the writer: what remains may be read by every technician."""
    ordered = {key: facts[key] for key in _HEADS if key in facts} | dict(facts)
    kept = list(ordered.items())[:_ITEMS]
    return {_name(key): _shown(str(key), value, 0) for key, value in kept}


def _shown(key: str, value: object, depth: int) -> Any:
    """The value, or what is left of it; never an exception, whatever its `repr` does."""
    if _is_secretive(key):
        return "<masked>"
    try:
        return _plain(key, value, depth)
    except Exception:
        return "<unprintable>"


def _plain(key: str, value: Any, depth: int) -> Any:
    """Numbers, texts, lists and tables; everything else as a text of it."""
    plain: Any = "…"
    match value:
        case None | bool():
            plain = value
        case int():
            plain = int(value) if -(1 << 63) <= value < 1 << 64 else "<huge>"
        case float():
            plain = value if math.isfinite(value) else str(value)
        case str():
            plain = _text(value, key in _TRACES)
        case bytes() | bytearray() | Secret():
            plain = f"<{len(value)} bytes>"
        case memoryview():
            plain = f"<{value.nbytes} bytes>"
        case BaseException():
            plain = _text(f"{type(value).__name__}: {value}")
        case _ if depth < _DEPTH:
            plain = _nested(value, depth + 1)
    return plain


def _nested(value: Any, depth: int) -> Any:
    """What has parts, part by part."""
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name, None) for field in fields(value)}
    if isinstance(value, Mapping):
        kept = list(value.items())[:_ITEMS]
        return {_name(key): _shown(str(key), part, depth) for key, part in kept}
    if isinstance(value, (list, tuple, set, frozenset)):
        if len(value) >= _BYTES_AS_NUMBERS and all(_is_byte(part) for part in value):
            return f"<{len(value)} bytes>"  # pyscard spells bytes as lists of numbers
        return [_shown("", part, depth) for part in list(value)[:_ITEMS]]
    return _text(repr(value))


def _is_byte(value: object) -> bool:
    """A number that may be an octet."""
    return type(value) is int and 0 <= value <= 0xFF  # noqa: PLR2004 - an octet


@lru_cache(maxsize=512)
def _is_secretive(key: str) -> bool:
    """`pin`, `newPin`, `old_secret`, `apdu2`, `pin_hex`; not `pin_tries` nor `data_length`."""
    words = [word.lower() for word in _WORD.findall(key)]
    if not words:
        return False
    return words[-1] in _SECRETIVE or (
        words[-1] in _CONTENT and not _SECRETIVE.isdisjoint(words[:-1])
    )


def _text(text: str, trace: bool = False) -> str:
    """Printable, bounded, bytes masked; a traceback keeps its lines and its innermost end."""
    text = text[-_TRACE_CHARS:] if trace else text[:_TEXT_CHARS]
    text = _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", _SPELT.sub("<bytes>", text))
    return text if trace else text.replace("\n", "\N{REPLACEMENT CHARACTER}")


def _name(key: object) -> str:
    """A fact's name."""
    return _text(str(key))[:64]


def _origin(logger: WrappedLogger, method: str, facts: EventDict) -> EventDict:
    """Who says it, and how loudly."""
    name = getattr(logger, "name", "")
    if name:
        facts.setdefault("logger", name)
    facts["level"] = "error" if method == "exception" else method
    return facts


def _exception(_: WrappedLogger, method: str, facts: EventDict) -> EventDict:
    """`exc_info` as a text without the variables of its frames: they hold secrets."""
    given = facts.pop("exc_info", method == "exception")
    if given is True:
        given = sys.exc_info()
    error = given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        trace = traceback.TracebackException.from_exception(error, capture_locals=False)
        facts["exception"] = "".join(trace.format()).rstrip("\n")
    return facts


def _pack(_: WrappedLogger, __: str, facts: EventDict) -> tuple[tuple[EventDict], dict[str, Any]]:
    """As structlog passes it to the writer: arguments, keywords."""
    return (facts,), {}


class _Logger:
    """What structlog calls with a finished event."""

    def __init__(self, log: Log, name: str) -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = self.critical = log.write
        self.exception = self.msg = log.write


class _Bridge(logging.Handler):
    """The libraries' loggers, through the same processors."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Their texts, from arguments without bytes in them."""
        try:
            level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
            record.args = _without_bytes(record.args)
            logger = structlog.get_logger(record.name)
            logger.log(level, record.getMessage(), exc_info=record.exc_info)
        except Exception:
            self._log.lost()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base's name
        """The base prints the arguments of an event that failed, which must not be seen."""
        self._log.lost()


def _without_bytes(arguments: Any) -> Any:
    """The arguments of a %-format, redacted."""
    if isinstance(arguments, Mapping):
        return {key: _argument(str(key), value) for key, value in arguments.items()}
    return tuple(_argument("", value) for value in arguments or ())


def _argument(key: str, value: object) -> object:
    """One of them; a number stays a number, for %d."""
    plain = isinstance(value, (int, float)) and not _is_secretive(key)
    return value if plain else _shown(key, value, 0)


def _message(facts: EventDict) -> str:
    """`event key=value …` on one line: what `journalctl` shows."""
    hidden = {"event", "level", "logger", *_TRACES}
    pairs = [f"{key}={_flat(value)}" for key, value in facts.items() if key not in hidden]
    return " ".join([str(facts.get("event", "")), *pairs])


def _flat(value: object) -> str:
    """A value as one text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _as_fields(facts: EventDict) -> bytes:
    """The journal's native protocol: NAME=value, or a length in front of what has lines."""
    values = {
        "MESSAGE": _message(facts),
        "PRIORITY": str(_PRIORITY.get(facts.get("level", ""), 6)),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
    }
    for key, value in facts.items():
        if key != "level":
            values["CARDSESSION_" + re.sub("[^A-Z0-9]", "_", key.upper())[:50]] = _flat(value)
    return b"".join(_as_field(name, value.encode()) for name, value in values.items())


def _as_field(name: str, value: bytes) -> bytes:
    """One field; systemd.journal-fields(7), "Native Journal Protocol"."""
    if b"\n" not in value:
        return name.encode() + b"=" + value + b"\n"
    return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"


def _as_line(facts: EventDict) -> bytes:
    """One JSON object on one line that a pipe takes whole."""
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = _json({"timestamp": stamp, **facts})
    over = len(line) + len(', "truncated": true') - _LINE_BYTES
    if over > 0:  # the innermost end of a traceback is what one reads
        cut = {key: str(facts[key])[over:] for key in _TRACES & facts.keys()}
        line = _json({"timestamp": stamp, **facts, **cut, "truncated": True})
    if len(line) > _LINE_BYTES:
        heads = {key: facts.get(key, "") for key in ("level", "event")}
        line = _json({"timestamp": stamp, **heads, "truncated": True})
    return line


def _json(facts: EventDict) -> bytes:
    """Every value is plain already."""
    return json.dumps(facts, ensure_ascii=False).encode() + b"\n"


def _write_line(descriptor: int, line: bytes) -> bool:
    """Whether it was taken: asked first, because setting O_NONBLOCK would set it for our parent."""
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return bool(poll.poll(0)) and os.write(descriptor, line) == len(line)
    except OSError:
        return False


def _is_journal(descriptor: int) -> bool:
    """Whether JOURNAL_STREAM names the file behind `descriptor` (device:inode)."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
