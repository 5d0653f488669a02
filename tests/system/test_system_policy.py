"""Who may: the shipped bus policy in a real dbus-daemon, with two more users."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cardsession.stack import Bus, Card, Child, Daemon, Pcscd
from cardsession.stack.processes import StackError, child_environment, program, wait_until

POLICY = Path(__file__).parents[2] / "systemd" / "org.cardsession1.conf"
# Users and groups of Debian's base-passwd: the bus knows nobody who is not in the table.
SERVICE, MEMBER, STRANGER = 2, 1, 65534  # bin, daemon, nobody
GROUP, ADMINISTRATORS = 60, 12  # games, man
GET = ["org.cardsession1", "/org/cardsession1", "org.freedesktop.DBus.Properties", "Get", "ss"]


def rendered(directory: Path) -> Path:
    """The shipped file with numbers for names that this machine does not have."""
    text = POLICY.read_text()
    for name, number in (
        ('user="cardsession"', f'user="{SERVICE}"'),
        ('group="cardsession"', f'group="{GROUP}"'),
        ('group="cardsession-admin"', f'group="{ADMINISTRATORS}"'),
    ):
        assert name in text
        text = text.replace(name, number)
    path = directory / "policy.conf"
    path.write_text(text)
    return path


class Someone:
    """A user of the bus, by tools that are not ours."""

    def __init__(self, bus: Bus, uid: int, groups: tuple[int, ...] = ()) -> None:
        self.bus, self.uid, self.groups = bus, uid, groups

    def busctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program("busctl"), f"--address={self.bus.address}", *arguments],
            env=child_environment(),
            user=self.uid,
            group=self.uid,
            extra_groups=list(self.groups),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )


class Listener(Child):
    """Another user who asked for every signal there is."""

    def __init__(self, directory: Path, bus: Bus, uid: int) -> None:
        super().__init__(
            f"listener {uid}",
            [program("gdbus"), "monitor", "--system", "--dest", "org.cardsession1"],
            directory / f"listener{uid}.log",
            child_environment({"DBUS_SYSTEM_BUS_ADDRESS": bus.address}),
            uid,
        )


@pytest.fixture
def guarded(rundir: Path, begin: Callable[[Child], Child]) -> Bus:
    """A bus that loads the shipped policy."""
    assert os.getuid() == 0, "two users need root: sudo sh tests/run.sh"
    return begin(Bus(rundir, policies=[rendered(rundir)]))  # type: ignore[return-value]


def test_only_the_groups_may_call_or_listen(
    pcscd: Pcscd,
    guarded: Bus,
    rundir: Path,
    begin: Callable[[Child], Child],
    cards: Callable[..., Card],
) -> None:
    card = cards()
    card.insert()
    listeners = {}
    for uid in (STRANGER, MEMBER):
        listeners[uid] = Listener(rundir, guarded, uid)
    # gdbus of a member needs the member's group: the group policy is by group only
    listeners[MEMBER].command = [
        program("setpriv"), f"--reuid={MEMBER}", f"--regid={MEMBER}", f"--groups={GROUP}", "--",
        *listeners[MEMBER].command,
    ]  # fmt: skip
    listeners[MEMBER].uid = None
    for listener in listeners.values():
        begin(listener)
        listener.wait_for("listens", lambda each=listener: "Monitoring signals" in each.log())
    daemon = Daemon(rundir, guarded.address, uid=SERVICE)
    begin(daemon)
    wait_until("a member hears of the card", lambda: "CardReady" in listeners[MEMBER].log())
    heard = listeners[STRANGER].log()
    assert "/org/cardsession1" not in heard.replace("org.cardsession1 is owned", "")

    version = [*GET, "org.cardsession1.Manager", "Version"]
    assert Someone(guarded, MEMBER, (GROUP,)).busctl("call", *version).returncode == 0
    refused = Someone(guarded, STRANGER).busctl("call", *version)
    assert refused.returncode != 0
    assert "denied" in refused.stderr.lower()
    report = [
        "call", "org.cardsession1", "/org/cardsession1",
        "org.cardsession1.Diagnostics", "GetReport",
    ]  # fmt: skip
    assert "denied" in Someone(guarded, MEMBER, (GROUP,)).busctl(*report).stderr.lower()
    admin = Someone(guarded, MEMBER, (ADMINISTRATORS,)).busctl(*report)
    assert "not built yet" in admin.stderr


def test_nobody_else_may_own_the_name(guarded: Bus) -> None:
    request = [
        "call", "org.freedesktop.DBus", "/", "org.freedesktop.DBus", "RequestName", "su",
        "org.cardsession1", "4",
    ]  # fmt: skip
    for uid in (STRANGER, MEMBER):
        assert "denied" in Someone(guarded, uid, (GROUP,)).busctl(*request).stderr.lower()
    assert Someone(guarded, SERVICE).busctl(*request).returncode == 0


def test_a_daemon_that_may_not_own_the_name_says_so_and_ends(
    pcscd: Pcscd, guarded: Bus, rundir: Path
) -> None:
    daemon = Daemon(rundir, guarded.address, uid=STRANGER)
    with pytest.raises(StackError, match="ended with status 1"), daemon:
        pytest.fail("it started")
    assert "bus.lost" in daemon.log()


def test_an_open_policy_does_not_open_diagnostics(
    pcscd: Pcscd, rundir: Path, begin: Callable[[Child], Child]
) -> None:
    """The file is one that somebody may edit: the process asks for itself."""
    path = rendered(rundir)
    open_to_all = path.read_text().replace("<deny send_dest", "<allow send_dest")
    path.write_text(open_to_all.replace("<deny receive_sender", "<allow receive_sender"))
    bus = Bus(rundir, policies=[path])
    begin(bus)
    begin(Daemon(rundir, bus.address, uid=SERVICE))
    end = [
        "call", "org.cardsession1", "/org/cardsession1", "org.cardsession1.Diagnostics",
        "EndSession", "os", "/org/cardsession1/session/1", "because",
    ]  # fmt: skip
    assert "only group cardsession-admin" in Someone(bus, STRANGER).busctl(*end).stderr
    assert "no such session" in Someone(bus, SERVICE).busctl(*end).stderr
