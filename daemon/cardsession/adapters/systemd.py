"""What systemd is told: ready, what is going on, stopping, and that we are alive (sd_notify(3)).

A datagram to the socket that the environment names; without one, nothing happens. Nothing here
waits and nothing raises: that the service manager cannot be told is no reason to end sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, MutableMapping
from typing import Final, Self

_STATUS_CHARS: Final = 200
_RETRY_SECONDS: Final = 0.1
_PINGS: Final = 3
"""Pings in one watchdog time: one may be late and one may be lost."""


class Notifier:
    """The service manager's ear."""

    def __init__(self, address: str | None = None, watchdog_seconds: float = 0.0) -> None:
        """`address` as in NOTIFY_SOCKET: a path, or `@` and an abstract name; 0 s: no watchdog."""
        self._address = _address(address)
        self._pending: dict[str, str] = {}
        self._retrying = False
        self.interval = watchdog_seconds / _PINGS if self._address else 0.0

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Self:
        """As systemd set us up; its variables are taken out of `environ`.

        A child would take them for its own: it could declare us ready, or ping for us when we
        hang. WATCHDOG_PID guards only the second, and only if the child looks.
        """
        address = environ.pop("NOTIFY_SOCKET", None)
        period = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        ours = pid in ("", str(os.getpid()))
        return cls(address, int(period) / 1e6 if ours and _is_period(period) else 0.0)

    @property
    def enabled(self) -> bool:
        """Whether anybody listens."""
        return self._address is not None

    def ready(self, status: str) -> None:
        """The name is ours and the readers are listed: clients may come."""
        self._tell(READY="1", STATUS=_line(status))

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._tell(STATUS=_line(text))

    def stopping(self) -> None:
        """Sessions are being ended; do not wait for us to be ready again."""
        self._tell(STOPPING="1")

    async def watchdog(self, progress: Callable[[], bool]) -> None:
        """Say that we are alive, until cancelled, from the loop's own turn.

        Only while `progress` says that the reader workers come forward: a loop that turns over
        workers that hang is no living daemon. Returns at once if nobody set a watchdog.
        """
        while self.interval:
            if _says_yes(progress):
                self._tell(WATCHDOG="1")
            await asyncio.sleep(self.interval)

    def _tell(self, **facts: str) -> None:
        """Send now, or with the next: what was not taken is kept, the latest word on each fact."""
        if self._address is None:
            return
        self._pending |= facts
        message = "\n".join(f"{name}={value}" for name, value in self._pending.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(), self._address)
        except BlockingIOError:
            self._retry()
        except OSError:
            # Gone or never there: whoever comes later learns from the messages to come.
            self._pending.clear()
        else:
            self._pending.clear()

    def _retry(self) -> None:
        """READY must arrive, or the start fails: try again soon, if there is a loop to do it."""
        if self._retrying:
            return
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._resume)
            self._retrying = True

    def _resume(self) -> None:
        """Send what is still pending."""
        self._retrying = False
        if self._pending:
            self._tell()


def _address(name: str | None) -> str | None:
    """A socket's address; systemd knows other families (vsock), which are not for a daemon here."""
    if not name or name[0] not in "/@" or "\0" in name or len(name) == 1:
        return None
    return "\0" + name[1:] if name[0] == "@" else name


def _is_period(text: str) -> bool:
    """Microseconds, more than none, less than for ever."""
    return text.isascii() and text.isdigit() and len(text) < len(str(1 << 64)) and int(text) > 0


def _line(text: str) -> str:
    """One line: a second one would be another assignment."""
    return "".join(char if char.isprintable() else " " for char in text[:_STATUS_CHARS])


def _says_yes(progress: Callable[[], bool]) -> bool:
    """A question that fails is no yes: systemd restarts us, which is what a watchdog is for."""
    try:
        return progress()
    except Exception:
        return False
