"""udev's adapter on the kernel's own sockets: forged events, an overrun, and life after it.

As root in the namespace of `sh tests/run.sh`: there it is nobody else's udev, and /run/udev is
the test's.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyudev import Context, Monitor
from structlog.testing import capture_logs

from cardsession.adapters.udev import BATCH, CONTROL, SETTLE_SECONDS, UdevHotplug
from cardsession.core.seats import UsbReader
from cardsession.stack.pcscd import in_namespace

NETLINK_KOBJECT_UEVENT = 15
UDEV_GROUP = 2
MAGIC = 0xFEEDCAFE
_HEADER = struct.Struct("=8s8I")
"""What udevd puts before an event's properties; libudev's filter in the kernel reads it."""
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may send events")
Reports = list[tuple[UsbReader, ...] | None]
Begin = Callable[[], UdevHotplug]


def murmur2(key: bytes) -> int:
    """MurmurHash2 with seed 0, by which the filter knows the subsystem."""
    factor, mask = 0x5BD1E995, 0xFFFFFFFF
    value = len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * factor & mask
        word = (word ^ word >> 24) * factor & mask
        value = (value * factor & mask) ^ word
    if rest := key[whole:]:
        value = (value ^ int.from_bytes(rest, "little")) * factor & mask
    value = (value ^ value >> 13) * factor & mask
    return value ^ value >> 15


def event(padding: int = 0) -> bytes:
    """A change of a USB interface that does not exist."""
    words = {
        "ACTION": "change",
        "DEVPATH": "/devices/forged/1-4/1-4:1.0",
        "SUBSYSTEM": "usb",
        "DEVTYPE": "usb_interface",
        "INTERFACE": "11/0/0",
        "SEQNUM": "1",
        "PADDING": "x" * padding,
    }
    body = b"".join(f"{name}={value}".encode() + b"\0" for name, value in words.items())
    hashes = [socket.htonl(murmur2(each)) for each in (b"usb", b"usb_interface")]
    head = (b"libudev\0", socket.htonl(MAGIC), _HEADER.size, _HEADER.size, len(body), *hashes, 0, 0)
    return _HEADER.pack(*head) + body


class Udevd:
    """Sends what udevd would."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT)

    def say(self, times: int = 1, padding: int = 0) -> None:
        """The same event, so often."""
        raw = event(padding)
        for _ in range(times):
            try:
                self._socket.sendto(raw, (0, UDEV_GROUP))
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # nobody had room
                    raise

    def overrun(self, monitor: Monitor | None) -> None:
        """More than this monitor's buffer takes. (Root's is 128 MiB, anybody else's 200 kB.)"""
        assert monitor is not None
        with socket.socket(fileno=os.dup(monitor.fileno())) as its:
            its.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least there is
        self.say(50, padding=1000)

    def nonsense(self) -> None:
        """What is no event, or not quite."""
        whole = event()
        for raw in (b"libudev\0", b"\0" * 100, whole[:-30], whole[:45], b"add@/x\0ACTION=add\0"):
            self._socket.sendto(raw, (0, UDEV_GROUP))

    def close(self) -> None:
        """The end."""
        self._socket.close()


@pytest.fixture
def udevd() -> Iterator[Udevd]:
    if not in_namespace():
        pytest.fail("no udev of our own here: run sh tests/run.sh", pytrace=False)
    Path(CONTROL).touch()
    udevd = Udevd()
    yield udevd
    udevd.close()
    Path(CONTROL).unlink()


@pytest.fixture
def reports() -> Reports:
    return []


@pytest.fixture
def hotplug(udevd: Udevd, reports: Reports) -> Iterator[Begin]:
    """The adapter, begun; closed after the test."""
    begun: list[UdevHotplug] = []

    def begin() -> UdevHotplug:
        begun.append(UdevHotplug())
        begun[0].start(reports.append)
        return begun[0]

    yield begin
    for each in begun:
        each.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - conditions of all kinds
            await asyncio.sleep(0.01)


async def test_a_forged_event_is_heard(hotplug: Begin, udevd: Udevd, reports: Reports) -> None:
    hotplug()
    assert len(reports) == 1 and reports[0] is not None
    udevd.say()
    await until(lambda: len(reports) == 2)
    assert reports[1] == reports[0]


async def test_after_an_overrun_events_are_heard_again(
    hotplug: Begin, udevd: Udevd, reports: Reports
) -> None:
    """A monitor that polls is beside it: it shows that there was an overrun, and its fault."""
    polled = Monitor.from_netlink(Context())
    polled.filter_by("usb")
    polled.start()
    adapter = hotplug()
    udevd.overrun(polled)
    with capture_logs() as logs:
        for _ in range(3):
            before = len(reports)
            udevd.overrun(adapter._monitor)  # while the loop does not turn
            await until(lambda before=before: len(reports) > before)
            udevd.say()
            before = len(reports)
            await until(lambda before=before: len(reports) > before)
    lost = [line for line in logs if line["event"] == "udev.events-lost"]
    assert len(lost) == 3, "once for each overrun"
    failed = 0
    for _ in range(200):
        try:
            polled.poll(0)
        except (OSError, ValueError):
            failed += 1
    assert failed == 200, "the known fault, which we are not to have"


async def test_after_an_overrun_the_loop_is_quiet(
    hotplug: Begin, udevd: Udevd, reports: Reports
) -> None:
    """Nothing wakes us for ever: an error that nobody clears would."""
    udevd.overrun(hotplug()._monitor)
    await until(lambda: len(reports) > 1)
    await asyncio.sleep(2 * SETTLE_SECONDS)  # what is measured is that nothing happens
    before = len(reports)
    await asyncio.sleep(2 * SETTLE_SECONDS)
    assert len(reports) == before
    udevd.say()
    await until(lambda: len(reports) > before)


async def test_a_flood_does_not_hold_the_loop_up(
    hotplug: Begin, udevd: Udevd, reports: Reports
) -> None:
    """Events are taken in batches, between which others have their turn, and told together."""
    adapter = hotplug()
    batches: list[bool] = []
    drained = adapter._drained
    adapter._drained = lambda: batches.append(drained()) or batches[-1]  # type: ignore[method-assign,func-returns-value]
    udevd.say(3 * BATCH)
    await until(lambda: len(batches) >= 3)
    await until(lambda: len(reports) >= 3)
    assert all(batches)
    assert len(reports) < BATCH, "not a report for each"


async def test_what_is_no_event_is_survived(hotplug: Begin, udevd: Udevd, reports: Reports) -> None:
    hotplug()
    udevd.nonsense()
    udevd.say()
    await until(lambda: len(reports) > 1)
    before = len(reports)
    udevd.say()
    await until(lambda: len(reports) > before)


async def test_descriptors_are_given_back(hotplug: Begin, udevd: Udevd, reports: Reports) -> None:
    adapter = hotplug()
    before = descriptors()
    for _ in range(5):
        reported = len(reports)
        udevd.overrun(adapter._monitor)
        await until(lambda reported=reported: len(reports) > reported)
    assert descriptors() == before
    adapter.close()
    assert descriptors() == before - 1
