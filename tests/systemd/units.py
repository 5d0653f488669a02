"""The shipped files, and a scratch root in which they lie where the package puts them, beside the
units of Debian that they name. systemd's own tools judge there; no systemd runs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cardsession.stack.processes import child_environment, program
from systemd.confined import settings

SHIPPED: Final = Path(__file__).parents[2] / "systemd"
UNIT: Final = SHIPPED / "cardsessiond.service"
SYSUSERS: Final = SHIPPED / "cardsession.sysusers.conf"
TMPFILES: Final = SHIPPED / "cardsession.tmpfiles.conf"
DROP_IN: Final = SHIPPED / "pcscd.socket.d" / "cardsession.conf"
ACTIVATION: Final = SHIPPED / "org.cardsession1.service"
POLICY: Final = SHIPPED / "org.cardsession1.conf"

_SYSTEM: Final = Path("lib/systemd/system")
_NEIGHBOURS: Final = ("pcscd.socket", "pcscd.service", "dbus.socket", "dbus.service", "*.target")
_NEIGHBOUR: Final = (
    "[Unit]\nDescription=Stands in for a package that is not installed\n[{section}]\n{what}\n"
)
"""pcscd is always there; the units of the bus are in Debian's dbus, which dbus-daemon is not."""


def setting(unit: Path, name: str) -> str:
    """What a unit assigns once."""
    (value,) = settings(unit)[name]
    return value


class Root:
    """A scratch root."""

    def __init__(self, path: Path) -> None:
        self.path = path
        system = path / _SYSTEM
        system.mkdir(parents=True)
        for pattern in _NEIGHBOURS:
            for each in Path("/", _SYSTEM).glob(pattern):
                shutil.copy(each, system)
        self._stand_in("dbus.socket", "Socket", "ListenStream=/run/dbus/system_bus_socket")
        self._stand_in("dbus.service", "Service", "ExecStart=/usr/bin/cardsessiond")
        for unit in system.glob("*.service"):
            for line in settings(unit).get("ExecStart", []):
                self.command(line.lstrip("@-+!:").split()[0])
        self.put(UNIT, f"{_SYSTEM}/{UNIT.name}")
        self.command("/usr/bin/cardsessiond")

    def _stand_in(self, name: str, section: str, what: str) -> None:
        file = self.path / _SYSTEM / name
        if not file.exists():
            file.write_text(_NEIGHBOUR.format(section=section, what=what))

    def command(self, name: str) -> None:
        """Something that can be executed."""
        file = self.path / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)

    def put(self, source: Path, place: str, changes: Mapping[str, str] | None = None) -> Path:
        """A file at its place, with lines of it changed."""
        text = source.read_text()
        for old, new in (changes or {}).items():
            assert old in text
            text = text.replace(old, new)
        target = self.path / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """One of systemd's tools, on this root."""
        name, *arguments = command
        return subprocess.run(
            [program(name), f"--root={self.path}", *arguments],
            env=child_environment({"SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": "", "LANG": "C.UTF-8"}),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def verify(self, unit: str) -> str:
        """What `systemd-analyze verify` objects to; "" is clean."""
        done = self.run("systemd-analyze", "verify", "--man=no", unit)
        return done.stdout + done.stderr + (f"status {done.returncode}" if done.returncode else "")
