"""Which interfaces are marked as readers, and what that starts: judged by udevadm, and held
against libccid's list, the adapter's words and the unit's name."""

from __future__ import annotations

import plistlib
import re
from pathlib import Path
from typing import Final

import pytest

from cardsession.core import usb
from udev.judge import MARKS, PLACE, Judge

LIBCCID: Final = Path("/etc/libccid_Info.plist")
"""The driver's own list, of Debian's package."""
UNIT: Final = MARKS.parents[1] / "systemd" / "cardsessiond.service"
LISTED: Final = re.compile(r"\b([0-9a-f]+)/([0-9a-f]+)/\*")
CCID: Final = {"INTERFACE": "11/0/0", "PRODUCT": "8e6/4433/201"}


def vendors() -> set[tuple[int, int]]:
    """Vendor and product of what the rules mark `vendor`."""
    lines = [line for line in MARKS.read_text().splitlines() if '="vendor"' in line]
    found = [LISTED.findall(line) for line in lines]
    assert all(found)
    return {(int(vendor, 16), int(product, 16)) for each in found for vendor, product in each}


def test_udevadm_reads_them(judge: Judge) -> None:
    assert judge.interface("1-4:1.0").properties["SUBSYSTEM"] == "usb"


def test_udevadm_would_say_so_if_they_were_wrong(judge: Judge) -> None:
    with (PLACE / MARKS.name).open("a") as rules:
        rules.write('ENV{X}=="1, ENV{Y}="2"\n')
    with pytest.raises(SyntaxError, match="Invalid key/value pair"):
        judge.interface("1-4:1.0")


@pytest.mark.parametrize(
    ("properties", "mark"),
    [
        (CCID, "ccid"),
        ({"INTERFACE": "11/1/2"}, "ccid"),
        ({"INTERFACE": "255/0/0", "PRODUCT": "46a/3e/100"}, "vendor"),
        ({"INTERFACE": "255/0/0", "PRODUCT": "4e6/e003/510"}, "vendor"),
        ({"INTERFACE": "255/0/0", "CARDSESSION_READER": "vendor"}, "vendor"),  # a site's own
        ({"INTERFACE": "3/1/1", "PRODUCT": "413c/2100/100"}, None),  # the keyboard of a keyboard
        ({"INTERFACE": "255/0/0", "PRODUCT": "46a/3ef/100"}, None),
        ({"INTERFACE": "255/0/0", "PRODUCT": "1046a/3e/100"}, None),
        ({"INTERFACE": "255/0/0"}, None),
        ({"INTERFACE": "1/11/0"}, None),
        ({"INTERFACE": "11/0/0", "CARDSESSION_READER": "ignore"}, "ignore"),
        ({"INTERFACE": "11/0/0", "DEVTYPE": "usb_device"}, None),
    ],
)
def test_what_they_mark_and_what_that_starts(
    judge: Judge, properties: dict[str, str], mark: str | None
) -> None:
    verdict = judge.interface("1-4:1.0", **properties)
    assert verdict.properties.get(usb.MARK) == mark
    assert verdict.wants == ([UNIT.name] if mark in usb.MARKS else [])
    assert ("systemd" in verdict.tags) is (mark in usb.MARKS)


@pytest.mark.parametrize("action", ["add", "change", "bind", "unbind"])
def test_systemd_sees_the_same_at_every_event(judge: Judge, action: str) -> None:
    """A device that loses its tag is gone, to systemd, and comes back at the next event: pcscd
    that lets go of a reader would start a daemon that somebody has stopped."""
    verdict = judge.interface("1-4:1.0", action, **CCID)
    assert verdict.tags == {"systemd"} and verdict.wants == [UNIT.name]


def test_a_removal_is_left_alone(judge: Judge) -> None:
    verdict = judge.interface("1-4:1.0", "remove", **CCID)
    assert usb.MARK not in verdict.properties
    assert not verdict.wants


def test_a_site_excludes_a_reader_by_a_file_that_sorts_before(judge: Judge) -> None:
    rule = 'ENV{DEVTYPE}=="usb_interface", ENV{PRODUCT}=="8e6/4433/*", ENV{%s}="ignore"\n'
    judge.site_rule("60-site.rules", rule % usb.MARK)
    verdict = judge.interface("1-4:1.0", **CCID)
    assert verdict.properties[usb.MARK] == usb.IGNORED
    assert not verdict.wants and not verdict.tags and not verdict.written


def test_every_listed_reader_is_marked_and_known_by_the_adapter(judge: Judge) -> None:
    for vendor, product in vendors():
        words = {"INTERFACE": "255/0/0", "PRODUCT": f"{vendor:x}/{product:x}/100"}
        marked = judge.interface("1-4:1.0", **words).properties
        found = usb.reader("/sys/devices/1-4/1-4:1.0", marked.get, {}.get)
        assert found is not None, words
        assert (found.vendor_id, found.product_id) == (vendor, product)


def test_every_listed_reader_is_in_the_driver_s_own_list() -> None:
    driver = plistlib.loads(LIBCCID.read_bytes())
    pairs = zip(driver["ifdVendorID"], driver["ifdProductID"], strict=True)
    known = {(int(vendor, 16), int(product, 16)) for vendor, product in pairs}
    assert len(vendors()) == 16
    assert vendors() <= known


def test_rules_and_adapter_have_the_same_words() -> None:
    rules = [line for line in MARKS.read_text().splitlines() if not line.startswith("#")]
    set_here = set(re.findall(r'ENV\{(\w+)\}="(\w+)"', "\n".join(rules)))
    assert set_here == {(usb.MARK, mark) for mark in usb.MARKS}
    assert usb.IGNORED in MARKS.read_text()
    assert UNIT.is_file()


def test_they_run_nothing_and_change_nobody_s_rights() -> None:
    rules = [line for line in MARKS.read_text().splitlines() if not line.startswith("#")]
    keys = set(re.findall(r"(?:^|, )([A-Z]+)", "\n".join(rules), re.MULTILINE))
    assert keys <= {"ACTION", "SUBSYSTEM", "ENV", "GOTO", "LABEL", "TAG"}
