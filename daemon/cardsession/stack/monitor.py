"""An independent subscriber: `busctl monitor` on the private bus, its lines read as records.

A monitor sees every message in the order in which the bus passed it on, replies and signals
alike; none of our own bus code takes part.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cardsession.stack.processes import (
    DEADLINE,
    Child,
    StackError,
    child_environment,
    program,
)

_POLL: Final = 0.005
_LAST_WORDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Message:
    """One message on the bus. Absent header fields are "" or 0; `time` is Unix seconds."""

    number: int
    time: float
    type: str
    sender: str
    destination: str
    path: str
    interface: str
    member: str
    cookie: int
    reply_cookie: int
    error: str
    body: tuple[Any, ...]

    @property
    def name(self) -> str:
        """Interface and member."""
        return f"{self.interface}.{self.member}"


def plain(value: Any) -> Any:
    """A value of busctl's JSON without its variants ({"type": …, "data": …} objects)."""
    match value:
        case {"type": str(), "data": data} if len(value) == 2:  # noqa: PLR2004
            return plain(data)
        case dict():
            return {key: plain(each) for key, each in value.items()}
        case list():
            return [plain(each) for each in value]
    return value


def parse(line: str, number: int) -> Message | None:
    """One line of `busctl --json=short monitor`; None if it is not a message."""
    try:
        raw: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    payload = raw.get("payload") or {}
    return Message(
        number=number,
        time=raw.get("timestamp-realtime", 0) / 1e6,
        type=raw.get("type", ""),
        sender=raw.get("sender", ""),
        destination=raw.get("destination", ""),
        path=raw.get("path", ""),
        interface=raw.get("interface", ""),
        member=raw.get("member", ""),
        cookie=raw.get("cookie", 0),
        reply_cookie=raw.get("reply_cookie", 0),
        error=raw.get("error", raw.get("error-name", "")),
        body=tuple(plain(each) for each in payload.get("data", [])),
    )


class Monitor(Child):
    """The subscriber's process. A context manager, watching when entered."""

    def __init__(self, directory: Path, bus_address: str, name: str = "monitor") -> None:
        self._errors = directory / f"{name}.err"
        command = [program("busctl"), f"--address={bus_address}", "--json=short", "monitor"]
        script = 'exec "$@" 2>"$0"'
        super().__init__(
            f"busctl {name}",
            ["/bin/sh", "-c", script, str(self._errors), *command],
            directory / f"{name}.log",
            child_environment(),
        )
        self._messages: list[Message] = []
        self._ended = threading.Event()
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Start it, and wait until the bus has made it a monitor."""
        super().start()
        self.wait_for("watches", self._watches)
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()

    def stop(self, seconds: float = DEADLINE) -> int | None:
        """End it; what it saw stays readable."""
        code = super().stop(seconds)
        self._ended.set()
        if self._reader is not None:
            self._reader.join(DEADLINE)
        return code

    def _watches(self) -> bool:
        return self._errors.exists() and "Monitoring" in self._errors.read_text()

    def _follow(self) -> None:
        """Read the growing log, whole lines only, until told to stop."""
        with self.log_path.open(encoding="utf-8", errors="replace") as log:
            rest = ""
            while True:
                ended = self._ended.is_set()
                *lines, rest = (rest + log.read()).split("\n")
                for line in lines:
                    if message := parse(line, len(self._messages)):
                        self._messages.append(message)
                if ended:
                    return
                self._ended.wait(_POLL)

    def messages(self) -> list[Message]:
        """All that was seen so far, in order."""
        return list(self._messages)

    def find(
        self,
        what: str,
        wanted: Callable[[Message], bool],
        *,
        after: int = -1,
        seconds: float = DEADLINE,
        hopeless: Callable[[], str] = str,
    ) -> Message:
        """The first message after number `after` that is `wanted`; waits for it.

        StackError names `what` if it does not come within `seconds`, or sooner if `hopeless`
        says why it no longer can.
        """
        deadline = time.monotonic() + seconds
        position = after + 1
        reason = ""
        while True:
            if not reason and (reason := hopeless()):
                # What was sent before may still be on its way here.
                deadline = min(deadline, time.monotonic() + _LAST_WORDS)
            ended = time.monotonic() > deadline
            seen = self.messages()
            for message in seen[position:]:
                if wanted(message):
                    return message
            position = len(seen)
            if ended:
                why = reason or f"not within {seconds:g} s"
                raise StackError(f"not seen on the bus: {what} ({why})")
            time.sleep(_POLL)
