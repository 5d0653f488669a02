"""cardsessiond as a child process, supervised over the notify socket as systemd would."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cardsession.stack.processes import DEADLINE, Child, child_environment, python_module

_LONGEST_MESSAGE: Final = 65536


class NotifySocket:
    """Receives sd_notify(3) datagrams and keeps them.

    A thread reads, so that a daemon whose supervisor is busy never finds the socket full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._received: list[tuple[str, str]] = []
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Begin anew: bind the socket, forget what was received."""
        self.close()
        self._received = []
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        bound.bind(str(self.path))
        # The daemon may run as somebody else; the directory decides who gets here at all.
        self.path.chmod(0o666)
        self._thread = threading.Thread(target=self._read, args=(bound,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading and remove the socket; what was received stays."""
        if self._thread is not None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.sendto(b"", str(self.path))
            self._thread.join(DEADLINE)
            self._thread = None
        self.path.unlink(missing_ok=True)

    def _read(self, bound: socket.socket) -> None:
        with bound:
            while data := bound.recv(_LONGEST_MESSAGE):
                self._keep(data)

    def _keep(self, data: bytes) -> None:
        for line in data.decode(errors="replace").splitlines():
            key, _, value = line.partition("=")
            self._received.append((key, value))

    def all(self, key: str) -> list[str]:
        """Every value received for `key`, in order: all("STATUS")."""
        return [value for name, value in list(self._received) if name == key]


class Daemon(Child):
    """cardsessiond on `bus_address`. A context manager, ready (READY=1) when entered.

    `configuration` is TOML; empty is the default configuration, never this machine's own file.
    `command` replaces `python -m cardsession`, for tests of this class.
    """

    def __init__(  # noqa: PLR0913 - keyword-only, each with a default
        self,
        directory: Path,
        bus_address: str,
        *,
        configuration: str = "",
        watchdog_usec: int | None = None,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        uid: int | None = None,
        name: str = "cardsessiond",
    ) -> None:
        self._file = directory / f"{name}.toml"
        self._configuration = configuration
        self.state = directory / f"{name}.state"
        """Its state directory: kept over a restart, as systemd keeps StateDirectory=."""
        self.notify = NotifySocket(directory / f"{name}.notify")
        given = {
            "DBUS_SYSTEM_BUS_ADDRESS": bus_address,
            "NOTIFY_SOCKET": str(self.notify.path),
            "STATE_DIRECTORY": str(self.state),
        }
        if watchdog_usec is not None:
            given["WATCHDOG_USEC"] = str(watchdog_usec)
        super().__init__(
            name,
            [*(command or python_module("cardsession")), "--config", str(self._file)],
            directory / f"{name}.log",
            child_environment(given | dict(environment or {})),
            uid,
        )

    def start(self, seconds: float = DEADLINE) -> None:
        """Start it and wait for READY=1. StackError with its log if it ends or takes longer."""
        self._file.write_text(self._configuration)
        self.state.mkdir(mode=0o750, exist_ok=True)
        if self.uid is not None:
            os.chown(self.state, self.uid, -1)
        self.notify.open()
        super().start()
        self.wait_for("READY=1", lambda: self.ready, seconds)

    def stop(self, seconds: float = 10.0) -> int | None:
        """As `Child.stop`; the notify socket is closed after it."""
        code = super().stop(seconds)
        self.notify.close()
        return code

    @property
    def ready(self) -> bool:
        """Whether it has said READY=1."""
        return "1" in self.notify.all("READY")

    def resident_bytes(self) -> int:
        """Resident memory now, bytes."""
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
