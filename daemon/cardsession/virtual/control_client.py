"""Talk to a running developer's card: for tests and for the command line. Synchronous."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

ENVIRONMENT: Final = "CARDSESSION_CARD"
_POLL: Final = 0.02


class ControlError(Exception):
    """The card refused a command; the text says what was expected."""


def default_path(environment: Mapping[str, str] = MappingProxyType(os.environ)) -> Path:
    """$CARDSESSION_CARD, else a name in the user's runtime directory."""
    if named := environment.get(ENVIRONMENT):
        return Path(named)
    runtime = environment.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "cardsession-card.sock"
    return Path(tempfile.gettempdir()) / f"cardsession-card-{os.getuid()}.sock"


class Control:
    """The control socket at `path`. Each command is a connection of its own."""

    def __init__(self, path: str | Path, timeout: float = 10.0) -> None:
        self.path = Path(path)
        self._timeout = timeout

    def send(self, command: str, **fields: object) -> dict[str, object]:
        """Send one command; its answer. ControlError if refused, OSError if nobody is there."""
        line = json.dumps({"command": command, **fields}).encode() + b"\n"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(self._timeout)
            connection.connect(str(self.path))
            connection.sendall(line)
            with connection.makefile("rb") as stream:
                answer = stream.readline()
        if not answer:
            raise ConnectionError("the card closed the control socket without an answer")
        reply: dict[str, object] = json.loads(answer)
        if "error" in reply:
            raise ControlError(str(reply["error"]))
        return reply

    def status(self) -> dict[str, object]:
        """Counts, tries left, exchanges and headers since insertion."""
        return self.send("status")

    def wait_ready(self, seconds: float = 10.0) -> dict[str, object]:
        """Wait until the card's process answers; its status. TimeoutError after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.status()
            except OSError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no card answers at {self.path}") from None
                time.sleep(_POLL)
