"""What is kept of a machine in which something failed."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from machine.machine import UNIT, Machine

_SECONDS = 60.0

_ASKED = {
    "journal": "journalctl --boot=all --no-pager -o short-precise",
    "journal-of-ours": f"journalctl -u {UNIT} -o json-pretty --no-pager",
    "units": f"systemctl status --no-pager -l {UNIT} pcscd.service pcscd.socket; "
    "systemctl --failed; systemctl list-jobs",
    "bus": "busctl tree org.cardsession1; busctl --json=pretty call org.cardsession1 "
    "/org/cardsession1 org.freedesktop.DBus.ObjectManager GetManagedObjects",
    "packages": "cat /var/log/dpkg.log /var/log/apt/term.log",
}


def keep(machine: Machine, name: str) -> Path:
    """Console, journal, units and the cards' logs, in a directory of the scenario's name."""
    top = Path(os.environ.get("CARDSESSION_MACHINE_EVIDENCE", "/var/tmp"))  # noqa: S108
    top.mkdir(parents=True, exist_ok=True)
    kept = Path(tempfile.mkdtemp(prefix=f"machine-{name}-", dir=top))
    for pattern in ("console", "*.log", "*.pcap"):
        for file in machine.directory.glob(pattern):
            with suppress(OSError):
                shutil.copy(file, kept)
    for card in machine.cards:
        with suppress(Exception):
            (kept / f"{card.name}.book").write_text(f"{card.tell('status')}\n")
    for what, command in _ASKED.items():
        try:
            text = machine.ask(command, seconds=_SECONDS).text
        except Exception as error:
            (kept / what).write_text(f"no answer: {error}\n")
            break
        (kept / what).write_text(text)
    return kept
