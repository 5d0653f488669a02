"""udevadm as the judge of the shipped rules, on devices that it takes for real ones.

    judge.device("1-4", ID_USB_INTERFACES=":0b0000:").written
    judge.interface("1-4:1.0", INTERFACE="11/0/0").wants

It writes where udevd would: only in the namespace of `sh tests/run.sh`.
"""

from __future__ import annotations

import os.path
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cardsession.stack.pcscd import in_namespace
from cardsession.stack.processes import child_environment, program
from system.plugs import Plugs

SHIPPED: Final = Path(__file__).parents[2] / "udev-rules"
MARKS: Final = SHIPPED / "70-cardsession.rules"
POWER: Final = SHIPPED / "93-cardsession-power.rules"
PLACE: Final = Path("/run/udev/rules.d")
_WRITTEN: Final = re.compile(r"ATTR '(/sys/[^']+)' writing '([^']*)'")


@dataclass(frozen=True)
class Verdict:
    """What a device has after all rules, its own and those of the packages that are installed."""

    properties: dict[str, str]
    written: dict[str, str]
    """What was written to sysfs, by path below /sys/devices. (The mock's files are no sysfs: "on"
    over "auto" makes "onto".)"""

    @property
    def tags(self) -> set[str]:
        """Its tags at this event."""
        return set(self.properties.get("CURRENT_TAGS", "").strip(":").split(":")) - {""}

    @property
    def wants(self) -> list[str]:
        """Units that systemd starts because of it."""
        return self.properties.get("SYSTEMD_WANTS", "").split()


class Judge:
    """udevadm with the shipped rules, and more of a site's own if need be."""

    def __init__(self, plugs: Plugs) -> None:
        self._plugs = plugs
        self._devices: dict[str, str] = {}

    def site_rule(self, name: str, text: str) -> None:
        """A rules file of the site's own."""
        (PLACE / name).write_text(text)

    def device(
        self, port: str, attributes: Mapping[str, str] | None = None, **properties: str
    ) -> Verdict:
        """A device, and its event; attributes as of a device that can be suspended."""
        given = {"DEVTYPE": "usb_device"} | properties
        ids = {"idVendor": "08e6", "idProduct": "4433", "power/control": "on", "power/persist": "1"}
        path = self._plugs.add(port, None, ids if attributes is None else attributes, given)
        self._devices[port] = path
        return self.event(path, "add")

    def interface(self, name: str, action: str = "add", **properties: str) -> Verdict:
        """One event of an interface of a device that there is; all is forgotten after that."""
        above = self._devices[name.partition(":")[0]]
        path = self._plugs.add(name, above, {}, {"DEVTYPE": "usb_interface"} | properties)
        try:
            return self.event(path, action)
        finally:
            self._plugs.forget(path)
            _forget()

    def attribute(self, port: str, name: str) -> str:
        """What is in sysfs now."""
        return Path(f"{self._plugs.directory}{self._devices[port]}/{name}").read_text().strip()

    def event(self, path: str, action: str) -> Verdict:
        """What udev would do; syntax errors in our files are failures."""
        done = subprocess.run(
            [program("udevadm"), "--debug", "test", f"--action={action}", path],
            env=child_environment(self._plugs.environment),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        _nothing_is_wrong(done.stderr.splitlines())
        pairs = (line.partition("=") for line in done.stdout.splitlines())
        written = (
            (os.path.relpath(path, "/sys/devices"), value)
            for path, value in _WRITTEN.findall(done.stderr)
        )
        return Verdict(
            {name: value for name, equals, value in pairs if equals and name.isupper()},
            dict(written),
        )


def _nothing_is_wrong(lines: list[str]) -> None:
    """udevadm names the file and the line of what it does not understand."""
    ours = [line for line in lines if any(f"{PLACE / each.name}:" in line for each in _files())]
    wrong = [line for line in ours if any(word in line for word in ("nvalid", "nknown", "gnor"))]
    unread = [each for each in _files() if f"Reading rules file: {each}" not in lines]
    if wrong or unread:
        raise SyntaxError("\n".join([*wrong, *(f"{each} was not read" for each in unread)]))


def _forget() -> None:
    """What udevadm noted of devices: a device of the same name is another one next time."""
    for each in ("data", "tags"):
        shutil.rmtree(PLACE.parent / each, ignore_errors=True)


def _files() -> list[Path]:
    return sorted(PLACE.glob("*.rules"))


@contextmanager
def judging() -> Iterator[Judge]:
    """The rules in their place, in a namespace in which it is nobody's machine."""
    if not in_namespace():
        raise RuntimeError("no udev of our own here: run sh tests/run.sh")
    PLACE.mkdir()
    try:
        for rules in (MARKS, POWER):
            (PLACE / rules.name).write_text(rules.read_text())
        with Plugs() as plugs:
            yield Judge(plugs)
    finally:
        for each in _files():
            each.unlink()
        PLACE.rmdir()
        _forget()
