"""Users, groups and directories: made in a scratch root by systemd's own tools."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from cardsession.bus.rights import ADMINISTRATORS
from systemd.units import DROP_IN, POLICY, SYSUSERS, TMPFILES, UNIT, Root, setting

INSTALLED_USERS = "usr/lib/sysusers.d/cardsession.conf"
INSTALLED_DIRECTORIES = "usr/lib/tmpfiles.d/cardsession.conf"


@pytest.fixture
def peopled(root: Root) -> Root:
    """A root with users and groups."""
    (root.path / "etc").mkdir(exist_ok=True)
    root.put(SYSUSERS, INSTALLED_USERS)
    done = root.run("systemd-sysusers")
    assert done.returncode == 0, done.stderr
    return root


def table(root: Root, name: str) -> dict[str, list[str]]:
    """Of /etc/passwd or /etc/group: the fields, by name."""
    lines = (root.path / "etc" / name).read_text().splitlines()
    return {line.split(":")[0]: line.split(":")[1:] for line in lines}


def test_users_and_groups(peopled: Root) -> None:
    users, groups = table(peopled, "passwd"), table(peopled, "group")
    assert set(users) == {"cardsession"}
    assert set(groups) == {"cardsession", "cardsession-admin", "cardsession-pcsc"}
    _, _, group, words, home, shell = users["cardsession"]
    assert group == groups["cardsession"][1]
    assert (words, home, shell) == ("Smartcard sessions", "/", "/usr/sbin/nologin")
    members = {name: fields[2] for name, fields in groups.items() if fields[2]}
    assert members == {"cardsession-pcsc": "cardsession"}, "the others are the site's to fill"


def test_nobody_can_log_in_as_the_service(peopled: Root) -> None:
    assert table(peopled, "shadow")["cardsession"][0].startswith("!")


def test_a_second_time_changes_nothing(peopled: Root) -> None:
    before = table(peopled, "passwd"), table(peopled, "group")
    assert not peopled.run("systemd-sysusers").stderr
    assert (table(peopled, "passwd"), table(peopled, "group")) == before


def test_a_site_s_own_members_stay(peopled: Root) -> None:
    group = peopled.path / "etc" / "group"
    group.write_text(group.read_text().replace(":cardsession\n", ":cardsession,alice\n"))
    peopled.run("systemd-sysusers")
    assert table(peopled, "group")["cardsession-pcsc"][2] == "cardsession,alice"


def test_everybody_who_is_named_anywhere_exists(peopled: Root) -> None:
    """`systemd-analyze verify` and dbus-daemon do not ask."""
    users, groups = set(table(peopled, "passwd")), set(table(peopled, "group"))
    policy = POLICY.read_text()
    assert setting(UNIT, "User") in users
    assert set(re.findall(r'policy user="([^"]+)"', policy)) - {"root"} <= users
    named = {setting(UNIT, "Group"), setting(DROP_IN, "SocketGroup"), ADMINISTRATORS}
    assert named | set(re.findall(r'policy group="([^"]+)"', policy)) == groups


def test_state_is_for_technicians_to_read() -> None:
    """The audit trail's files are 0640: of the group that the daemon runs with."""
    assert setting(UNIT, "Group") == ADMINISTRATORS
    assert setting(UNIT, "StateDirectoryMode") == "0750"


def made(root: Root) -> dict[str, str]:
    """Directories below /etc/cardsession and itself: their modes."""
    top = root.path / "etc" / "cardsession"
    found = [top, *sorted(top.rglob("*"))]
    return {str(Path("/", each.relative_to(root.path))): mode(each) for each in found}


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def test_directories(peopled: Root) -> None:
    peopled.put(TMPFILES, INSTALLED_DIRECTORIES)
    done = peopled.run("systemd-tmpfiles", "--create", "cardsession.conf")
    assert (done.returncode, done.stderr) == (0, "")
    top = "/etc/cardsession"
    below = ("anchors.d", "cards.d", "revocation.d")
    assert made(peopled) == dict.fromkeys([top, *(f"{top}/{each}" for each in below)], "0755")


def test_what_a_site_has_changed_stays(peopled: Root) -> None:
    peopled.put(TMPFILES, INSTALLED_DIRECTORIES)
    peopled.run("systemd-tmpfiles", "--create", "cardsession.conf")
    anchors = peopled.path / "etc/cardsession/anchors.d"
    anchors.chmod(0o2775)
    (anchors / "root.pem").write_text("the site's own\n")
    done = peopled.run("systemd-tmpfiles", "--create", "--clean", "--remove", "cardsession.conf")
    assert (done.returncode, done.stderr) == (0, "")
    assert mode(anchors) == "2775"
    assert (anchors / "root.pem").is_file()


def test_a_mistake_would_be_told(peopled: Root) -> None:
    peopled.put(TMPFILES, INSTALLED_DIRECTORIES, {":0755 :root": "07a5 :root"})
    done = peopled.run("systemd-tmpfiles", "--create", "cardsession.conf")
    assert done.returncode != 0 or done.stderr
