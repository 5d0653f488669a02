"""The daemon under what its unit leaves it, with the real parts: nothing that it needs is closed.

(What only a running systemd can set up is tested on the whole machine, tests/machine.)
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from cardsession.__main__ import ASLEEP
from cardsession.bus.connection import Connection
from cardsession.stack import Bus, Child, Daemon
from cardsession.stack.processes import child_environment, python_module
from fakes import cards
from fakes.cards import make_card
from system.logind import Logind, announce, inhibitors
from system.subscriber import Subscriber
from system.usb import OMNIKEY, Bed
from systemd import confined
from systemd.units import UNIT

CONFINED: Final = [sys.executable, "-P", confined.__file__, str(UNIT)]

PROBES: Final = {
    "exec": "subprocess.run(['/bin/true'])",
    "internet": "socket.socket(socket.AF_INET)",
    "written and executed": "mmap.mmap(-1, 4096, prot=7)",
    "priority": "os.setpriority(0, 0, 5)",
    "user": "os.setuid(5)",
    "owner": "os.chown('.', 0, 0)",
    "namespace": "libc('unshare', 0x10000000)",
    "tracing": "libc('ptrace', 0, 0, 0, 0)",
    "mount": "libc('mount', b'x', b'/mnt', b'tmpfs', 0, 0)",
    "pyudev's own way to its library": "pyudev.Context()",
}
TRY: Final = f"""
import ctypes, json, mmap, os, socket, subprocess
import pyudev
def libc(name, *words):
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*words):
        raise OSError(ctypes.get_errno(), name)
refused = []
for name, probe in {PROBES!r}.items():
    try:
        eval(probe)
    except (OSError, ImportError):
        refused.append(name)
socket.socket(socket.AF_UNIX), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)
print(json.dumps(refused))
"""


def run(program: str) -> str:
    """What a program prints that is confined as the daemon is."""
    done = subprocess.run(
        [*CONFINED, sys.executable, "-P", "-c", program],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_it_does_not_need_is_closed() -> None:
    """Otherwise the tests below would prove nothing."""
    only_root_can_close = {"exec", "pyudev's own way to its library"} if os.geteuid() else set()
    assert set(json.loads(run(TRY))) == set(PROBES) - only_root_can_close


def test_every_library_is_loaded_and_calls_back() -> None:
    said = run("""
import ctypes
import cryptography.x509, dbus_next, smartcard.scard, structlog
from cryptography.hazmat.primitives.asymmetric import ec
from cardsession.adapters import udev
back = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda number: number + 1)
ec.generate_private_key(ec.SECP256R1())
print(back(1), type(udev._context()).__name__)
""")
    assert said.split() == ["2", "Context"]


@pytest.fixture
def confined_daemon(bed_daemon: Callable[..., Daemon], tmp_path: Path) -> Daemon:
    """cardsessiond, confined, with readers to plug in; its site trusts the cards' authority."""
    make_card()  # and their authority
    anchors = tmp_path / "anchors"
    anchors.mkdir()
    (anchors / "authority.pem").write_bytes(cards._authority[0].pem())
    command = [*CONFINED, *python_module("cardsession")]
    return bed_daemon(command=command, configuration=f'[trust]\nanchors = "{anchors}"\n')


@pytest.fixture
def logind(bus: Bus, begin: Callable[[Child], Child], rundir: Path) -> Child:
    """A logind on the daemon's bus."""
    return begin(Logind(rundir, bus))


@pytest.mark.usefixtures("logind")
async def test_a_whole_session(bed: Bed, bus: Bus, canary: str, confined_daemon: Daemon) -> None:
    def says(status: str) -> None:
        told = confined_daemon.notify.all
        confined_daemon.wait_for(f"says {status}", lambda: told("STATUS")[-1] == status)

    async with (
        await Subscriber.open(bus.address) as seen,
        await Connection.open(bus.address) as other,
    ):
        bed.plug("1-4", OMNIKEY).slot.insert(make_card())
        await seen.until("there is a card", lambda: bool(seen.all("Card")))
        (reader,) = seen.all("Reader").values()
        assert reader["PortPath"] == "1-4", "udev's events came"
        path, facts = await seen.card_in_state("ready")
        assert facts["Trust"] == "trusted", "cryptography was there to judge"
        session = await seen.open_session(path)
        assert (await seen.verify(session, canary.encode()))[0] == "verified"
        body = ("authentication", "ecdsa-sha256", hashlib.sha256(b"x").digest(), {})
        assert (await seen.call(session, "Session", "Sign", "ssaya{sv}", body))[0]

        async with asyncio.timeout(20):
            while not await inhibitors(other):  # noqa: ASYNC110 - it is asked
                await asyncio.sleep(0.01)
        await announce(other, sleep=True)
        await seen.until("it sleeps", lambda: not seen.all("Reader"))
        says(ASLEEP)
        await announce(other, sleep=False)
        await seen.card_in_state("ready")
        says("1 readers")
        bed.unplug("1-4")
        await seen.until("the reader is gone", lambda: not seen.all("Reader"))
    assert list(confined_daemon.state.glob("audit-*.jsonl")), "state was written"
    assert confined_daemon.stop() == 0
    assert "Traceback" not in confined_daemon.log()
