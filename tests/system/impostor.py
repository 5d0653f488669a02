"""Something that is no card service at its socket, as a process of its own, and what it saw.

`mismatch`: says that it speaks another protocol, as pcscd does (winscard_msg.h: `CMD_VERSION`, and
`struct version_struct` with major, minor and rv). `silent`: accepts, and never answers. `hangs-up`:
accepts, and closes at once. `dies`: gives a context, and hangs up at the first question.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from cardsession.stack.pcscd import SOCKET
from cardsession.stack.processes import Child, accepts, child_environment

SCRIPT: Final = r"""
import os, socket, struct, sys, threading
path, mode = sys.argv[1:]
HEADER, VERSION, ESTABLISH = struct.Struct("=II"), struct.Struct("=iiI"), struct.Struct("=III")
def body(link):
    size, _ = HEADER.unpack(link.recv(HEADER.size, socket.MSG_WAITALL))
    return link.recv(size, socket.MSG_WAITALL)
def serve(link):
    with link:
        if mode == "silent":
            while link.recv(4096):
                pass
        elif mode == "mismatch":
            body(link)
            link.sendall(VERSION.pack(5, 0, 0x8010001E))
            link.recv(1)
        elif mode == "dies":
            body(link)
            link.sendall(VERSION.pack(4, 4, 0))
            body(link)
            link.sendall(ESTABLISH.pack(2, 4711, 0))
            link.recv(1)
door = socket.socket(socket.AF_UNIX)
door.bind(path)
os.chmod(path, 0o666)
door.listen(50)
while True:
    link, _ = door.accept()
    print("connected", flush=True)
    if mode == "hangs-up":
        link.close()
    else:
        threading.Thread(target=serve, args=(link,), daemon=True).start()
"""
OURS: Final = 1
"""We come once, to see whether it listens."""


class Impostor(Child):
    """See the module. A context manager; it listens when entered, and its socket goes with it."""

    def __init__(self, directory: Path, mode: str) -> None:
        super().__init__(
            f"impostor that {mode}",
            [sys.executable, "-c", SCRIPT, str(SOCKET), mode],
            directory / "impostor.log",
            child_environment(),
        )

    def start(self) -> None:
        """Start it in the place of the card service, which must have ended."""
        SOCKET.unlink(missing_ok=True)
        super().start()
        self.wait_for("listens", lambda: accepts(SOCKET))
        self.wait_for("counts", lambda: self._accepted >= OURS)

    def stop(self, seconds: float = 10.0) -> int | None:
        """End it, and take its socket away."""
        code = super().stop(seconds)
        SOCKET.unlink(missing_ok=True)
        return code

    @property
    def connections(self) -> int:
        """How often somebody else came; the daemon may have been there before us."""
        return self._accepted - OURS

    @property
    def _accepted(self) -> int:
        return self.log().count("connected")
