"""The udev rules, judged by udevadm, and held against libccid's list and the adapter's words."""

from __future__ import annotations

import plistlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from cardsession.core import usb
from cardsession.stack.pcscd import in_namespace
from cardsession.stack.processes import child_environment, program
from system.plugs import Plugs

RULES: Final = Path(__file__).parent.parent.parent / "udev-rules" / "70-cardsession.rules"
PLACE: Final = Path("/run/udev/rules.d")
LIBCCID: Final = Path("/etc/libccid_Info.plist")
"""The driver's own list, of Debian's package."""
LISTED: Final = re.compile(r"\b([0-9a-f]+)/([0-9a-f]+)/\*")


def vendors() -> set[tuple[int, int]]:
    """Vendor and product of what the rules mark `vendor`."""
    lines = [line for line in RULES.read_text().splitlines() if '="vendor"' in line]
    found = [LISTED.findall(line) for line in lines]
    assert all(found)
    return {(int(vendor, 16), int(product, 16)) for each in found for vendor, product in each}


class Judge:
    """udevadm, with our rules, on devices that it takes for real ones."""

    def __init__(self, plugs: Plugs) -> None:
        self._plugs = plugs
        self._device = plugs.add("1-4", None, {}, {"DEVTYPE": "usb_device"})

    def of(self, action: str = "add", **properties: str) -> dict[str, str]:
        """The properties that an interface has after all rules."""
        given = {"DEVTYPE": "usb_interface"} | properties
        path = self._plugs.add("1-4:1.0", self._device, {}, given)
        text = self.run("test", f"--action={action}", path)
        self._plugs.forget(path)
        pairs = (line.partition("=") for line in text.splitlines())
        return {name: value for name, equals, value in pairs if equals and name.isupper()}

    def run(self, *arguments: str) -> str:
        """What it prints; syntax errors in a rules file of ours are failures."""
        environment = child_environment(self._plugs.environment)
        done = subprocess.run(
            [program("udevadm"), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        read = [line for line in done.stderr.splitlines() if RULES.name in line]
        if read != [f"Reading rules file: {PLACE / RULES.name}"]:
            raise SyntaxError("\n".join(read))
        return done.stdout


@pytest.fixture
def judge() -> Iterator[Judge]:
    if not in_namespace():
        pytest.fail("no udev of our own here: run sh tests/run.sh", pytrace=False)
    PLACE.mkdir()
    (PLACE / RULES.name).write_text(RULES.read_text())
    try:
        with Plugs() as plugs:
            yield Judge(plugs)
    finally:
        (PLACE / RULES.name).unlink()
        PLACE.rmdir()


def test_udevadm_reads_them(judge: Judge) -> None:
    assert judge.of()["SUBSYSTEM"] == "usb"


def test_udevadm_would_say_so_if_they_were_wrong(judge: Judge) -> None:
    with (PLACE / RULES.name).open("a") as rules:
        rules.write('ENV{X}=="1, ENV{Y}="2"\n')
    with pytest.raises(SyntaxError, match="Invalid key/value pair"):
        judge.of()


@pytest.mark.parametrize(
    ("properties", "mark"),
    [
        ({"INTERFACE": "11/0/0", "PRODUCT": "8e6/4433/201"}, "ccid"),
        ({"INTERFACE": "11/1/2"}, "ccid"),
        ({"INTERFACE": "255/0/0", "PRODUCT": "46a/3e/100"}, "vendor"),
        ({"INTERFACE": "255/0/0", "PRODUCT": "4e6/e003/510"}, "vendor"),
        ({"INTERFACE": "3/1/1", "PRODUCT": "413c/2100/100"}, None),  # the keyboard of a keyboard
        ({"INTERFACE": "255/0/0", "PRODUCT": "46a/3ef/100"}, None),
        ({"INTERFACE": "255/0/0", "PRODUCT": "1046a/3e/100"}, None),
        ({"INTERFACE": "255/0/0"}, None),
        ({"INTERFACE": "1/11/0"}, None),
        ({"INTERFACE": "11/0/0", "CARDSESSION_READER": "ignore"}, "ignore"),
        ({"INTERFACE": "11/0/0", "DEVTYPE": "usb_device"}, None),
    ],
)
def test_what_they_mark(judge: Judge, properties: dict[str, str], mark: str | None) -> None:
    assert judge.of(**properties).get(usb.MARK) == mark


def test_a_removal_is_left_alone(judge: Judge) -> None:
    assert usb.MARK not in judge.of("remove", INTERFACE="11/0/0")


def test_every_listed_reader_is_marked_and_known_by_the_adapter(judge: Judge) -> None:
    for vendor, product in vendors():
        words = {"INTERFACE": "255/0/0", "PRODUCT": f"{vendor:x}/{product:x}/100"}
        marked = judge.of(**words)
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
    rules = [line for line in RULES.read_text().splitlines() if not line.startswith("#")]
    set_here = set(re.findall(r'ENV\{(\w+)\}="(\w+)"', "\n".join(rules)))
    assert set_here == {(usb.MARK, mark) for mark in usb.MARKS}
    assert usb.IGNORED in RULES.read_text()


def test_they_run_nothing_and_change_nobody_s_rights() -> None:
    rules = [line for line in RULES.read_text().splitlines() if not line.startswith("#")]
    keys = set(re.findall(r"(?:^|, )([A-Z]+)", "\n".join(rules), re.MULTILINE))
    assert keys <= {"ACTION", "SUBSYSTEM", "ENV", "GOTO", "LABEL"}
