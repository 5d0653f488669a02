"""Upgrade, removal, purge, and once more."""

from __future__ import annotations

from machine.installed import TREE, Installed
from machine.machine import CANARY, NAME, UNIT, Machine
from machine.payload import NEWER

CONFIGURATION = "/etc/cardsession/cardsessiond.toml"
APT = "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0"
OWNED = f"busctl --list | grep -E '^{NAME} +[0-9]'"
SLOW = 300.0


def configured(machine: Machine) -> None:
    """A site's own setting, and a session's traces in the state."""
    machine.run(f"printf '[session]\\nidle-seconds = 600\\n' >{CONFIGURATION}")
    machine.run(f"systemctl restart {UNIT}")
    machine.plug(1)
    machine.card_ready("1-1")


def state(machine: Machine) -> set[str]:
    """The files of configuration and state."""
    return set(machine.run("find /etc/cardsession /var/lib/cardsession -type f").split())


def test_an_upgrade_ends_sessions_and_keeps_configuration_and_state(machine: Machine) -> None:
    configured(machine)
    chemist = machine.program("chemist")
    chemist.do("open")
    assert chemist.do("verify", passcode=CANARY) == ["verified", None]
    before, version = state(machine), machine.manager("Version")
    assert any("audit-" in each for each in before), before
    machine.run(f"{APT} install /run/payload/second/*.deb", seconds=SLOW)
    assert chemist.do("ended") == "daemon-stopping"
    machine.until_backend("ok")
    assert chemist.do("present")
    assert chemist.do("state")["manager"]["version"] == machine.manager("Version") == NEWER
    assert version != NEWER
    assert machine.manager("IdleUSec") == "600000000"
    assert before <= state(machine)
    assert machine.card_ready("1-1")[1]["PinTries"] == {"user": 3}
    chemist.do("open")
    assert chemist.do("verify", passcode=CANARY) == ["verified", None]


def test_a_removal_keeps_configuration_and_state_for_the_next_installation(
    machine: Machine,
) -> None:
    configured(machine)
    before = state(machine)
    machine.run(f"{APT} remove cardsession", seconds=SLOW)
    assert machine.ask(OWNED).status != 0
    assert machine.ask(f"systemctl cat {UNIT}").status != 0
    assert machine.ask("ls /usr/lib/cardsession /usr/bin/cardsession*").status != 0
    assert machine.ask("pgrep -u cardsession || ps -u cardsession").status != 0
    assert state(machine) == before
    machine.run(f"{APT} install /run/payload/first/*.deb", seconds=SLOW)
    machine.until_backend("ok")
    machine.card_ready("1-1")
    assert before <= state(machine)
    assert machine.manager("IdleUSec") == "600000000"


def test_a_purge_leaves_nothing_behind(machine: Machine, installed: Installed) -> None:
    configured(machine)
    machine.run("rm /root/cardsession_*.deb")
    machine.run(f"{APT} purge cardsession", seconds=SLOW)
    machine.run(f"{APT} autoremove --purge", seconds=SLOW)
    machine.run("systemctl daemon-reload")
    left = set(machine.run(TREE).splitlines()) - installed.before
    ours = {each for each in left if "cardsession" in each}
    assert ours == set()
    assert {each for each in left if each.startswith(("/etc/", "/usr/", "/lib/"))} <= others(left)
    people = machine.run("getent passwd; getent group").splitlines()
    assert {each for each in people if "cardsession" in each} == set()
    # But for the copies that passwd makes of its files before it changes them.
    assert machine.run("grep -rl --exclude='*-' cardsession /etc || true") == ""
    assert machine.ask(OWNED).status != 0


def others(left: set[str]) -> set[str]:
    """What Debian's own packages leave of themselves."""
    return {each for each in left if each.startswith(("/etc/ld.so", "/usr/share/info"))}
