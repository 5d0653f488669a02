"""udev's adapter over a USB bus that libumockdev makes: sysfs, properties, events in any order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from cardsession.core.seats import UsbReader
from fakes.usbbus import CONTROLLER, Readers, UsbBus


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[UsbBus]:
    """A bus without devices; the adapter has not begun."""
    with UsbBus(tmp_path) as bus:
        yield bus


def none(readers: Readers) -> bool:
    return not readers


def numbers(readers: Readers) -> list[int]:
    return [each.device for each in readers.values()]


def test_what_is_there_is_told_at_once_with_all_that_udev_knows(bus: UsbBus) -> None:
    bus.do(("plug", "1-4.2", 5), ("plug", "2-1", 6, {"INTERFACE": "3/1/1"}), ("start",))
    readers = bus.until(lambda _: True)
    assert readers == {
        "1-4.2:0": UsbReader(
            syspath=f"{CONTROLLER}/1-4.2/1-4.2:1.0",
            port_path="1-4.2",
            interface=0,
            bus=1,
            device=5,
            vendor_id=0x08E6,
            product_id=0x4433,
            serial="S5",
            model="Test Reader",
            label="Interface 0",
        )
    }


def test_a_reader_comes_and_goes_and_comes_elsewhere(bus: UsbBus) -> None:
    bus.do(("start",))
    bus.until(none)
    bus.do(("plug", "1-4", 5))
    bus.until(lambda readers: list(readers) == ["1-4:0"])
    bus.do(("unplug", "1-4"))
    bus.until(none)
    bus.do(("plug", "1-3", 6))
    assert bus.until(lambda readers: list(readers) == ["1-3:0"])["1-3:0"].device == 6


def test_replugged_in_one_turn_it_is_another_device(bus: UsbBus) -> None:
    bus.do(("plug", "1-4", 5), ("start",))
    bus.until(lambda readers: numbers(readers) == [5])
    bus.do(("unplug", "1-4"), ("plug", "1-4", 6))
    bus.until(lambda readers: numbers(readers) == [6])


def test_a_reader_of_a_vendor_s_class_is_known_by_the_rule_s_mark(bus: UsbBus) -> None:
    own = {"INTERFACE": "255/0/0"}
    bus.do(
        ("plug", "1-1", 5, own),
        ("plug", "1-2", 6, own | {"CARDSESSION_READER": "vendor"}),
        ("plug", "1-3", 7, {"CARDSESSION_READER": "ignore"}),
        ("start",),
    )
    assert list(bus.until(lambda _: True)) == ["1-2:0"]


def test_two_interfaces_of_one_device_are_two_readers(bus: UsbBus) -> None:
    bus.do(("start",), ("device", "1-4", 5), ("interface", "1-4", 0), ("interface", "1-4", 1))
    readers = bus.until(lambda readers: len(readers) == 2)
    assert {each.device_number for each in readers.values()} == {(1, 5)}
    assert [each.label for each in readers.values()] == ["Interface 0", "Interface 1"]


def test_every_event_is_followed_by_a_report_even_if_nothing_changed(bus: UsbBus) -> None:
    bus.do(("plug", "1-4", 5), ("start",))
    same = bus.until(lambda readers: len(readers) == 1)
    for action in ("change", "bind", "add", "add"):
        before = bus.do(("event", action, "1-4:1.0"))
        assert bus.until(lambda readers: len(readers) == 1, since=before) == same


def test_events_that_come_twice_make_no_second_reader(bus: UsbBus) -> None:
    bus.do(("start",), ("plug", "1-4", 5))
    for _ in range(25):
        bus.do(*[("event", "add", "1-4:1.0")] * 8)
    bus.until(lambda readers: len(readers) == 1)
    bus.do(*[("event", "remove", "1-4:1.0")] * 3, ("unplug", "1-4"))
    bus.until(none)


ORDERS = [
    ("event", "add", "1-4:1.0"),
    ("event", "remove", "1-4:1.0"),
    ("event", "remove", "1-4"),
    ("event", "add", "1-4"),
]


@pytest.mark.parametrize("stays", [True, False])
def test_in_whatever_order_events_come_what_is_there_counts(bus: UsbBus, stays: bool) -> None:
    """Removals that overtake insertions, too: each order of four, told in one turn."""
    bus.do(("start",))
    for number, order in enumerate(itertools.permutations(ORDERS), start=1):
        before = bus.do(("plug", "1-4", number), *order, *([] if stays else [("vanish", "1-4")]))
        if stays:
            bus.until(lambda readers, number=number: numbers(readers) == [number], before)
            bus.do(("unplug", "1-4"))
        bus.until(none, before)


def test_what_sysfs_tells_after_the_event_is_seen_nevertheless(bus: UsbBus) -> None:
    bus.do(("plug", "1-4", 5), ("start",))
    bus.until(lambda readers: len(readers) == 1)
    before = bus.do(("event", "remove", "1-4:1.0"))
    bus.until(lambda readers: len(readers) == 1, since=before)
    bus.do(("vanish", "1-4"))  # nobody says so
    bus.until(none)


def test_asked_to_look_again_it_finds_what_no_event_told(bus: UsbBus) -> None:
    bus.do(("plug", "1-4", 5), ("start",), ("vanish", "1-4"), ("look_again",))
    bus.until(none)


def test_without_udevd_it_says_so_and_when_udevd_comes_and_goes(bus: UsbBus) -> None:
    bus.control.unlink()
    bus.do(("plug", "1-4", 5), ("start",))
    bus.until_none()
    before = bus.do(("look_again",))
    bus.until_none(before)
    bus.control.touch()
    bus.do(("look_again",))
    bus.until(lambda readers: len(readers) == 1)
    bus.do(("plug", "1-3", 6))  # and events are heard from now on
    bus.until(lambda readers: len(readers) == 2)
    bus.control.unlink()
    bus.do(("look_again",))
    bus.until_none()


def test_nothing_is_told_after_the_end(bus: UsbBus) -> None:
    bus.do(("plug", "1-4", 5), ("start",), ("close",))
    bus.until(lambda readers: len(readers) == 1)
    before = bus.do(("unplug", "1-4"), ("look_again",), ("close",))
    bus.__exit__()
    assert len(bus.reports) == before == 1


def test_sixteen_readers_at_once(bus: UsbBus) -> None:
    bus.do(("start",))
    for port in range(1, 17):
        bus.do(("plug", f"1-{port}", port))
    bus.until(lambda readers: len(readers) == 16)
    for port in range(1, 17):
        bus.do(("unplug", f"1-{port}"))
    bus.until(none)
