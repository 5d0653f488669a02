"""USB readers as udev sees them (see `HotplugWatch`): no thread, woken by udev's events alone.

An event only says that something happened: what there is, is asked of sysfs each time, with one
enumeration. So it does not matter in which order events come, how often, or whether the kernel
dropped some of them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

from pyudev import Context, Device, Enumerator, Monitor
from pyudev._ctypeslib import utils as _loader
from structlog import get_logger

from cardsession.core import usb
from cardsession.core.seats import UsbReader

log = get_logger(__name__)

LIBRARY: Final = "lib{}.so.1"
"""libudev, by the name that its interface has had since 2012 (udev 183)."""
CONTROL: Final = "/run/udev/control"
"""Where udevd listens; libudev, too, takes it for udevd's sign of life."""
BATCH: Final = 64
"""Events taken in one turn of the loop; those behind them wake us again."""
REST_SECONDS: Final = 0.1
"""Between two enumerations because of events: a plug makes four or more, and an enumeration of a
large bus takes milliseconds of the loop's time."""
SETTLE_SECONDS: Final = 0.5
"""So long after the last event sysfs is looked at once more: an event may be told before sysfs
shows what it tells."""

Report = Callable[[tuple[UsbReader, ...] | None], None]


class UdevHotplug:
    """See the module."""

    def __init__(self, control: str = CONTROL) -> None:
        self._loop = asyncio.get_running_loop()
        self._control = control
        self._report: Report = lambda _: None
        self._context: Context | None = None
        self._monitor: Monitor | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._resting = False
        self._missed = False
        """Whether there were events while we rested."""
        self._told: tuple[UsbReader, ...] | None = ()
        self._closed = False

    def start(self, report: Report) -> None:
        """Begin; all readers that there are, or that there is no udev, is told before this
        returns."""
        self._report = report
        self.look_again()

    def look_again(self) -> None:
        """Enumerate anew now. Whether udevd came or went is noticed here, and only here."""
        if self._closed or not self._is_there():
            self._unlisten()
        elif self._monitor is None:
            self._listen()
        self._tell()

    def close(self) -> None:
        """Stop; nothing is told after this."""
        self._closed = True
        self._unlisten()
        if self._timer is not None:
            self._timer.cancel()
        self._report = lambda _: None

    def _is_there(self) -> bool:
        """Whether there is an udevd, and a libudev to hear it with."""
        if not os.access(self._control, os.F_OK):
            return False
        if self._context is None:
            try:
                self._context = _context()
            except (ImportError, OSError) as error:
                log.error("udev.unusable", kind=type(error).__name__, text=str(error))
                return False
        return True

    # events

    def _listen(self) -> None:
        """Hear of events from now on: begun before anything is enumerated, so that nothing can
        come in between. (A monitor that began without udevd stays deaf for ever.)"""
        try:
            monitor = Monitor.from_netlink(self._context)
            monitor.filter_by(usb.SUBSYSTEM)
            monitor.start()
        except OSError as error:
            log.error("udev.deaf", errno=error.errno)
            return
        self._monitor = monitor
        self._loop.add_reader(monitor.fileno(), self._heard)

    def _unlisten(self) -> None:
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            self._loop.remove_reader(monitor.fileno())

    def _heard(self) -> None:
        """Something happened, perhaps more than the kernel had room for."""
        if not self._drained():
            log.warning("udev.events-lost")
            self._unlisten()
            self._listen()
        self._missed = True
        if not self._resting:
            self._look()

    def _look(self) -> None:
        self._missed = False
        self._tell()
        self._resting = True
        self._later(REST_SECONDS, self._rested)

    def _rested(self) -> None:
        self._resting = False
        if self._missed:
            self._look()
        else:
            self._later(SETTLE_SECONDS, self._settle)

    def _settle(self) -> None:
        readers = self._enumerated()
        if readers != self._told:
            self._say(readers)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        """In place of what was to come."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, call)

    def _drained(self) -> bool:
        """Take events out; False if some were lost.

        Not by `Monitor.poll`: it looks for an error before it reads, and only reading clears
        the error that an overrun leaves (ENOBUFS).
        """
        assert self._monitor is not None  # noqa: S101 - it is what woke us
        try:
            for _ in range(BATCH):
                if self._monitor._receive_device() is None:  # noqa: SLF001 - as above
                    break
        except (OSError, ValueError):
            return False
        return True

    # what there is

    def _tell(self) -> None:
        self._say(self._enumerated())

    def _say(self, readers: tuple[UsbReader, ...] | None) -> None:
        self._told = readers
        self._report(readers)

    def _enumerated(self) -> tuple[UsbReader, ...] | None:
        """All readers, each once; None where nobody would say that there are others."""
        if self._monitor is None or self._context is None:
            return None
        interfaces = Enumerator(self._context).match_subsystem(usb.SUBSYSTEM)
        for name, pattern in usb.CANDIDATES:
            interfaces.match_property(name, pattern)
        found: dict[str, UsbReader] = {}
        try:
            for interface in interfaces:
                reader = _reader(interface)
                if reader is not None:
                    found[reader.syspath] = reader
        except OSError as error:
            log.warning("udev.enumeration", errno=error.errno)
            return self._told or ()
        return tuple(found[syspath] for syspath in sorted(found))


def _context() -> Context:
    """libudev, found by its name. Left to itself, pyudev has ldconfig run to find it, or else a
    compiler: programs that a confined service may not run, nor need be there."""
    search, _loader.find_library = _loader.find_library, LIBRARY.format
    try:
        return Context()
    finally:
        _loader.find_library = search


def _reader(interface: Device) -> UsbReader | None:
    """None if it is none, or is pulled while we look."""
    try:
        device = interface.parent
        if device is None:
            return None
        return usb.reader(interface.sys_path, _look(interface), _look(device))
    except (OSError, ValueError):
        return None


def _look(device: Device) -> usb.Look:
    """Properties are in capitals, attributes are not; what cannot be read is not there."""

    def look(word: str) -> str | None:
        try:
            if word.isupper():
                return str(device.properties[word])
            return bytes(device.attributes.get(word) or b"").decode(errors="replace") or None
        except (KeyError, OSError, ValueError):
            return None

    return look
