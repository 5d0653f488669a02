"""Stock pcscd with the virtual reader, and the question whether it may be started here."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cardsession.stack.processes import Child, StackError, accepts, child_environment, program

SOCKET: Final = Path("/run/pcscd/pcscd.comm")
"""Compiled into pcscd and libpcsclite: only a mount namespace can give it a place of its own."""
PORTS: Final = (35963, 35964)
"""TCP ports of the two slots of Debian's vsmartcard-vpcd."""
READERS: Final = ("Virtual PCD 00 00", "Virtual PCD 00 01")
"""Their PC/SC names."""
_MOUNTED_FROM: Final = "cardsession"
_LISTEN: Final = "0A"


def in_namespace() -> bool:
    """Whether /run/pcscd is the private one that `daemon/setup.sh` mounts."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == str(SOCKET.parent) and fields[-2] == _MOUNTED_FROM:
            return True
    return False


def listening_ports() -> set[int]:
    """TCP ports somebody listens on here. (Connecting to ask would be putting a card in.)"""
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            if state == _LISTEN:
                ports.add(int(local.rpartition(":")[2], 16))
    return ports


def _options(binary: str) -> list[str]:
    """Newer builds ask polkit, which knows nothing of a namespace."""
    text = subprocess.run(  # noqa: S603 - a list, no shell
        [binary, "--help"], capture_output=True, text=True, check=False, timeout=10
    ).stdout
    return ["--disable-polkit"] if "--disable-polkit" in text else []


class Pcscd(Child):
    """pcscd in the foreground. A context manager, ready when entered.

    `configuration`: a directory of reader.conf files of other readers than the virtual ones.
    Never with --apdu or --debug: those print what the card is sent, passcodes too.
    """

    def __init__(
        self,
        directory: Path,
        *,
        configuration: Path | None = None,
        environment: Mapping[str, str] | None = None,
        name: str = "pcscd",
    ) -> None:
        binary = program("pcscd")
        self._virtual = configuration is None
        others = [] if configuration is None else ["--config", str(configuration)]
        super().__init__(
            name,
            [binary, "--foreground", "--info", *others, *_options(binary)],
            directory / f"{name}.log",
            child_environment(environment),
        )

    def log(self) -> str:
        """All it has printed, without its word on every question for reader features."""
        lines = super().log().splitlines(keepends=True)
        return "".join(line for line in lines if "Card not transacted: 606" not in line)

    def start(self) -> None:
        """Start it and wait until it answers and the virtual readers' slots listen. StackError
        otherwise."""
        if not in_namespace():
            raise StackError(
                "this is not the namespace of daemon/setup.sh, and this machine's own card"
                " service is left alone: run sh tests/run.sh or sh daemon/try.sh"
            )
        super().start()
        self.wait_for("answers", lambda: accepts(SOCKET))
        if self._virtual:
            self.wait_for("the virtual readers listen", lambda: set(PORTS) <= listening_ports())
