"""A child process that cannot outlive us, and waiting with a deadline."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

DEADLINE: Final = 20.0
"""Seconds for a part to come up: generous, a busy two-core machine is the normal case."""
STOP_DEADLINE: Final = 10.0
"""Seconds between SIGTERM and SIGKILL."""
_POLL: Final = 0.01
_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/sbin:/sbin"
_TAIL_LINES: Final = 40

# What would lead a child to somebody else's bus, notify socket or card service.
_NOT_INHERITED: Final = (
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_STARTER_ADDRESS",
    "DBUS_SYSTEM_BUS_ADDRESS",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "PCSCLITE_CSOCK_NAME",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
)


class StackError(Exception):
    """A part did not come up, or went away; the text says which, and shows its log."""


def wait_until(what: str, condition: Callable[[], bool], seconds: float = DEADLINE) -> float:
    """Poll until `condition` holds; how long it took. StackError names `what` if it never does."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            raise StackError(f"{what}: not within {seconds:g} s")
        time.sleep(_POLL)
    return time.monotonic() - start


def accepts(path: Path) -> bool:
    """Whether somebody listens on the stream socket at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def program(name: str) -> str:
    """The path of a program, the system's own directories included. StackError if there is none."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}")
    if found is None:
        raise StackError(f"{name} is not installed: run sh daemon/try.sh or sh tests/run.sh")
    return found


def python_module(module: str) -> list[str]:
    """The command that runs `module` with this interpreter; the working directory is no source."""
    return [sys.executable, "-P", "-m", module]


def child_environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what leads elsewhere, our tools first on the PATH."""
    kept = {key: value for key, value in os.environ.items() if key not in _NOT_INHERITED}
    tools = str(Path(sys.executable).parent)
    return kept | {"PATH": f"{tools}:{kept.get('PATH', os.defpath)}"} | dict(changes or {})


def bound_to_us(command: Sequence[str], number: str = "TERM") -> list[str]:
    """`command` so that the kernel sends it signal `number` if we die without ending it."""
    return [program("setpriv"), "--pdeathsig", number, "--", *command]


class Child:
    """A background process with its log in a file. A context manager; ended by its pid.

    It gets a session of its own: Ctrl-C at the terminal is for whoever is in front, and the
    parts behind are then ended in order. `uid` (with a group of the same number) needs root.
    Start it in a thread that lasts: to the kernel, the thread that started it is the parent.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        uid: int | None = None,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log_path = log
        self.environment = dict(environment)
        self.uid = uid
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it; its output is appended to the log."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - a list, no shell
                bound_to_us(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
                user=self.uid,
                group=self.uid,
                extra_groups=None if self.uid is None else [],
            )

    @property
    def pid(self) -> int:
        """Its process id. StackError before start."""
        if self.process is None:
            raise StackError(f"{self.name} was not started")
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative: the signal that ended it (as in `subprocess`)."""
        return None if self.process is None else self.process.poll()

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens if it has ended."""
        if self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait: for tests of what happens then."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_DEADLINE)

    def stop(self, seconds: float = STOP_DEADLINE) -> int | None:
        """SIGTERM, then SIGKILL after `seconds`; the return code."""
        if self.process is None:
            return None
        self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(STOP_DEADLINE)

    def wait_for(
        self, what: str, condition: Callable[[], bool], seconds: float = DEADLINE
    ) -> float:
        """Like `wait_until`, and fails at once if the process ends; the error has its log."""

        def holds() -> bool:
            if condition():
                return True
            if self.returncode is not None:
                raise StackError(f"{self.name} ended with status {self.returncode}")
            return False

        try:
            return wait_until(f"{self.name}: {what}", holds, seconds)
        except StackError as error:
            raise StackError(f"{error}\n{self.log_tail()}") from None

    def log(self) -> str:
        """All it has printed."""
        try:
            return self.log_path.read_text(errors="backslashreplace")
        except FileNotFoundError:
            return ""

    def log_tail(self, lines: int = _TAIL_LINES) -> str:
        """The end of its log, under a heading."""
        tail = self.log().splitlines()[-lines:]
        return "\n".join([f"--- {self.name}: last lines of its log", *tail, "---"])
