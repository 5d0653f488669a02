"""The unit and the opt-in drop-in, judged by systemd-analyze, and held against the code."""

from __future__ import annotations

import json
import re
from typing import Final

import pytest

from cardsession import __main__ as daemon
from cardsession.adapters.systemd import _PINGS
from cardsession.bus.contract import BUS_NAME
from cardsession.config import DEFAULT_PATH, Config
from cardsession.desks import FAREWELL_SECONDS
from systemd.confined import settings
from systemd.units import DROP_IN, TMPFILES, UNIT, Root, setting

EXPOSURE: Final = re.compile(r"Overall exposure level for cardsessiond\.service: (\d+\.\d+)")
DROP_IN_PLACE: Final = "etc/systemd/system/pcscd.socket.d/cardsession.conf"
INSTALLED_UNIT: Final = "lib/systemd/system/cardsessiond.service"


def test_it_is_clean(root: Root) -> None:
    assert not root.verify(UNIT.name)


@pytest.mark.parametrize(
    ("line", "wrong", "objection"),
    [
        ("WatchdogSec=30", "WatchdogSecs=30", "Unknown key 'WatchdogSecs'"),
        ("StateDirectoryMode=0750", "StateDirectoryMode=9", "Failed to parse mode"),
        ("ProtectClock=yes", "ProtectClock=maybe", "Failed to parse boolean"),
        ("ExecStart=/usr/bin/cardsessiond", "ExecStart=/usr/bin/nobody", "not executable"),
        ("=@system-service", "=@system-servicing", "Unknown system call group"),
        ("Type=notify", "Type=notified", "Failed to parse service type"),
    ],
)
def test_it_would_not_be_clean_if_it_were_wrong(
    root: Root, line: str, wrong: str, objection: str
) -> None:
    root.put(UNIT, INSTALLED_UNIT, {line: wrong})
    assert objection in root.verify(UNIT.name)


def test_exposure(root: Root) -> None:
    """--threshold= takes ten times the figure that is shown."""
    done = root.run(
        "systemd-analyze", "security", "--offline=true", "--threshold=10", "--no-pager", UNIT.name
    )
    assert done.returncode == 0, done.stdout
    (exposure,) = EXPOSURE.findall(done.stdout)
    assert float(exposure) <= 0.7, "less is better: write the new figure here"


def test_exposure_would_be_refused(root: Root) -> None:
    closed = ("PrivateUsers=yes", "IPAddressDeny=any", "PrivateDevices=yes")
    root.put(UNIT, INSTALLED_UNIT, dict.fromkeys(closed, ""))
    arguments = ("security", "--offline=true", "--threshold=10", "--no-pager", UNIT.name)
    assert root.run("systemd-analyze", *arguments).returncode != 0


def test_what_is_left_out_is_explained(root: Root) -> None:
    arguments = ("security", "--offline=true", "--json=short", "--no-pager", UNIT.name)
    checks = json.loads(root.run("systemd-analyze", *arguments).stdout)
    open_ = {each["name"].partition("=")[0] for each in checks if float(each["exposure"] or 0) > 0}
    assert 0 < len(open_) < 8
    _, _, reasons = UNIT.read_text().partition("# Left out, on purpose:")
    assert {name for name in open_ if f"{name}=" not in reasons} == set()


# the code's words


def test_names() -> None:
    assert setting(UNIT, "BusName") == BUS_NAME
    assert f"/var/lib/{setting(UNIT, 'StateDirectory')}" == daemon.STATE_DIRECTORY
    assert f"/etc/{setting(UNIT, 'ConfigurationDirectory')}" == str(DEFAULT_PATH.parent)
    assert setting(UNIT, "Environment") == "PCSCLITE_NO_BLOCKING=1"
    assert setting(UNIT, "ExecStart") in setting(UNIT, "ExecPaths").split()


def test_directories_that_the_configuration_names_are_made() -> None:
    made = {line.split()[1] for line in TMPFILES.read_text().splitlines() if line.startswith("d ")}
    config = Config()
    named = {config.card.declarations, config.trust.anchors, config.trust.revocation}
    assert made == {str(each) for each in named} | {str(DEFAULT_PATH.parent)}


def test_what_does_not_get_better_is_not_tried_again() -> None:
    numbers = {int(each) for each in setting(UNIT, "RestartPreventExitStatus").split()}
    assert numbers == {daemon.EX_USAGE, daemon.EX_CONFIG}
    assert setting(UNIT, "Restart") == "on-failure"


def test_restarts_by_themselves_never_end() -> None:
    """So many starts in the interval there can be at most, and one by hand beside."""
    interval, burst = (int(setting(UNIT, f"StartLimit{word}")) for word in ("IntervalSec", "Burst"))
    starts = interval // int(setting(UNIT, "RestartSec")) + 1
    assert starts + 1 < burst


def test_times() -> None:
    assert int(setting(UNIT, "TimeoutStopSec")) > FAREWELL_SECONDS + 2
    assert int(setting(UNIT, "WatchdogSec")) / _PINGS >= 10


def test_the_way_down() -> None:
    """Cards are let go of while there is a card service, and told while there is a bus."""
    before = setting(UNIT, "After").split()
    assert {"pcscd.socket", "pcscd.service", "dbus.service"} <= set(before)
    assert setting(UNIT, "Wants") == "pcscd.socket"
    assert "Requires" not in settings(UNIT) and "BindsTo" not in settings(UNIT)


# pcscd's socket


def test_the_narrowed_socket(root: Root) -> None:
    assert not root.verify("pcscd.socket")
    root.put(DROP_IN, DROP_IN_PLACE)
    assert not root.verify("pcscd.socket")
    said = root.run("systemd-analyze", "cat-config", "systemd/system/pcscd.socket").stdout
    lines = [line for line in said.splitlines() if line.startswith("Socket")]
    assert lines == ["SocketMode=0666", "SocketMode=0660", "SocketGroup=cardsession-pcsc"]


def test_the_narrowed_socket_would_not_be_clean_if_it_were_wrong(root: Root) -> None:
    root.put(DROP_IN, DROP_IN_PLACE, {"SocketGroup": "SocketGroops"})
    assert "Unknown key 'SocketGroops'" in root.verify("pcscd.socket")
