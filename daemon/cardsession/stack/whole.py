"""All parts together, in the order in which they need each other."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from cardsession.stack.bus import Bus
from cardsession.stack.card import Card
from cardsession.stack.daemon import Daemon
from cardsession.stack.monitor import plain
from cardsession.stack.pcscd import SOCKET, Pcscd
from cardsession.stack.processes import (
    DEADLINE,
    Child,
    StackError,
    accepts,
    child_environment,
    program,
    wait_until,
)

_NAME: Final = "org.cardsession1"
_ROOT: Final = "/org/cardsession1"
_CARD: Final = "org.cardsession1.Card"
_C = TypeVar("_C", bound=Child)


@contextmanager
def run_directory(*, shared: bool = False) -> Iterator[Path]:
    """A directory for sockets and logs, removed at the end; `shared` lets other users enter.

    Not below a deep temporary directory: a socket's path has room for 107 bytes.
    """
    path = Path(tempfile.mkdtemp(prefix="cardsession."))
    try:
        path.chmod(0o755 if shared else 0o700)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Stack:
    """A bus and a card service at once, daemon and cards when asked for. A context manager.

    With `real`, the machine's own card service and readers instead of the virtual ones. What was
    started last is ended first.
    """

    def __init__(self, *, real: bool = False) -> None:
        self.real = real
        self.children: list[Child] = []
        self.daemon: Daemon | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        try:
            self.directory = self._open.enter_context(run_directory())
            self.bus = self._begin(Bus(self.directory))
            if not self.real:
                self._begin(Pcscd(self.directory))
            elif not accepts(SOCKET):
                raise StackError(
                    f"this machine's card service does not answer at {SOCKET}:"
                    " systemctl start pcscd.socket"
                )
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _begin(self, child: _C) -> _C:
        # stop() is registered first: a part that starts but never gets ready is ended too.
        self._open.callback(child.stop)
        self.children.append(child)
        child.start()
        return child

    def start_daemon(self, **options: Any) -> Daemon:
        """cardsessiond, ready; `options` as for `Daemon`."""
        self.daemon = self._begin(Daemon(self.directory, self.bus.address, **options))
        return self.daemon

    def start_card(self, **options: Any) -> Card:
        """The developer's card; `options` as for `Card`."""
        return self._begin(Card(self.directory, **options))

    def wait_card_ready(self) -> None:
        """Wait until a card is ready on the bus, asked by a subscriber that is not ours."""

        def ready() -> bool:
            listing = self.list_objects().values()
            return any(each.get(_CARD, {}).get("State") == "ready" for each in listing)

        what = "the card becomes ready"
        if self.daemon is None:
            wait_until(what, ready)
        else:
            self.daemon.wait_for(what, ready)

    def list_objects(self) -> dict[str, dict[str, dict[str, Any]]]:
        """GetManagedObjects by busctl: path → interface → property → value; {} if it fails."""
        command = [program("busctl"), f"--address={self.bus.address}", "--json=short", "call"]
        question = [_NAME, _ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"]
        answer = subprocess.run(  # noqa: S603 - a list, no shell
            [*command, *question],
            env=child_environment(),
            capture_output=True,
            check=False,
            timeout=DEADLINE,
        )
        if answer.returncode != 0:
            return {}
        objects: dict[str, Any] = plain(json.loads(answer.stdout)["data"])[0]
        return objects

    def logs(self) -> str:
        """The end of every part's log."""
        return "\n".join(child.log_tail() for child in self.children)
