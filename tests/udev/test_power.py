"""What is done to a reader's power, after what libccid's rules do: judged by udevadm."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from udev.judge import PLACE, POWER, Judge

SYSTEMD: Final = POWER.parents[1] / "systemd"
CCID: Final = {"INTERFACE": "11/0/0", "PRODUCT": "8e6/4433/201"}
ON: Final = {"1-4/power/control": "on", "1-4/power/persist": "0"}


def test_what_libccid_s_rules_do_is_undone(judge: Judge) -> None:
    """Its file of Debian 12, if it is there: else the claim in ours is nobody's."""
    theirs = Path("/usr/lib/udev/rules.d/92-libccid.rules")
    assert theirs.is_file() and theirs.name < POWER.name
    first = judge.device("1-5", ID_USB_INTERFACES=":0b0000:")
    assert first.written == {"1-5/power/control": "auto"}
    second = judge.interface("1-5:1.0", **CCID)
    assert second.written == {"1-5/power/control": "on", "1-5/power/persist": "0"}
    assert judge.attribute("1-5", "power/persist") == "0"


@pytest.mark.parametrize(
    ("properties", "written"),
    [
        (CCID, ON),
        ({"INTERFACE": "255/0/0", "PRODUCT": "46a/3e/100"}, ON),
        ({"INTERFACE": "3/1/1", "PRODUCT": "413c/2100/100"}, {}),
        ({"INTERFACE": "255/0/0", "PRODUCT": "46a/3ef/100"}, {}),
        (CCID | {"CARDSESSION_READER": "ignore"}, {}),
        (CCID | {"CARDSESSION_POWER": "leave"}, {}),
    ],
    ids=["ccid", "vendor", "keyboard", "another", "ignored", "left alone"],
)
def test_readers_and_nothing_else(
    judge: Judge, properties: dict[str, str], written: dict[str, str]
) -> None:
    assert judge.interface("1-4:1.0", **properties).written == written


@pytest.mark.parametrize(
    ("action", "done"), [("add", True), ("change", True), ("bind", False), ("remove", False)]
)
def test_when(judge: Judge, action: str, done: bool) -> None:
    """Not whenever pcscd takes hold of it: what a tool has set since stays."""
    assert judge.interface("1-4:1.0", action, **CCID).written == (ON if done else {})


def test_a_keyboard_with_a_reader_in_it_stays_on(judge: Judge) -> None:
    judge.device("1-5", ID_USB_INTERFACES=":030101:0b0000:")
    assert not judge.interface("1-5:1.0", INTERFACE="3/1/1").written
    assert len(judge.interface("1-5:1.1", **CCID).written) == 2


def test_a_token_with_a_drive_keeps_its_drive_over_sleep(judge: Judge) -> None:
    judge.device("1-5", ID_USB_INTERFACES=":080650:0b0000:")
    assert judge.interface("1-5:1.1", **CCID).written == {"1-5/power/control": "on"}


def test_a_device_that_has_no_such_switch(judge: Judge) -> None:
    """TEST== first: udev would log an error for each."""
    judge.device("1-5", {"power/control": "auto"})
    assert judge.interface("1-5:1.0", **CCID).written == {"1-5/power/control": "on"}
    judge.device("1-6", {})
    assert not judge.interface("1-6:1.0", **CCID).written


def quoted(text: str) -> str:
    """The one rule that a comment recommends."""
    (rule,) = re.findall(r"^#\s+(SUBSYSTEM==.*)$", text, re.MULTILINE)
    return f"{rule}\n"


def test_the_exemption_that_its_comment_recommends(judge: Judge) -> None:
    judge.site_rule("71-site-readers.rules", quoted(POWER.read_text()))
    assert not judge.interface("1-4:1.0", **CCID).written
    assert judge.interface("1-4:1.0", **CCID | {"PRODUCT": "76b/3031/100"}).written == ON


def test_the_device_itself_is_given_to_whoever_sits_there_unless_a_site_says_no(
    judge: Judge,
) -> None:
    """As the comment of the narrowed socket has it, and its recommendation."""
    words = {"ID_USB_INTERFACES": ":0b0000:", "MAJOR": "189", "MINOR": "4", "DEVNAME": "/dev/x"}
    assert "uaccess" in judge.device("1-5", **words).tags
    dropin = (SYSTEMD / "pcscd.socket.d" / "cardsession.conf").read_text()
    judge.site_rule("72-site-readers.rules", quoted(dropin))
    assert "uaccess" not in judge.device("1-6", **words).tags


def test_they_run_nothing_and_change_nobody_s_rights() -> None:
    rules = [line for line in POWER.read_text().splitlines() if not line.startswith("#")]
    keys = set(re.findall(r"(?:^|, )([A-Z]+)", "\n".join(rules), re.MULTILINE))
    assert keys <= {"ACTION", "SUBSYSTEM", "ENV", "GOTO", "LABEL", "TEST", "ATTR", "IMPORT"}
    assert str(PLACE) not in "\n".join(rules)
