"""USB readers that the card service does not list."""

from __future__ import annotations

import pytest

from cardsession.config import Config, ReadersConfig
from cardsession.core.facts import ReaderState
from fakes.ports import DRIVERLESS_SECONDS, Model, Ports, replug, withdrawn

TWIN = Model("ACME Twin")
UNKNOWN = Model("Unknown Reader", driver=False)
FIRST = "ACME Twin 00 00"
SECOND = "ACME Twin 01 00"
PLACE = "1-1:0:0"


async def test_a_reader_that_is_never_listed_is_shown_without_a_driver() -> None:
    ports = Ports(Config(readers=ReadersConfig(labels={PLACE: "Counter 1"})))
    ports.plug("1-1", UNKNOWN)
    await ports.all()
    await ports.wait(DRIVERLESS_SECONDS - 0.1)
    assert ports.readers == []
    await ports.wait(0.2)
    (reader,) = ports.readers
    assert (reader.id, reader.name, reader.state) == (PLACE, "", ReaderState.NO_DRIVER)
    assert (reader.port_path, reader.label, reader.vendor_id) == ("1-1", "Counter 1", 0x08E6)
    assert reader.last_error
    assert ports.desks.readers() == [reader]
    ports.unplug("1-1")
    await ports.udev()
    assert ports.readers == [] and ports.clock.pending == []


async def test_it_has_its_time_anew_when_it_comes_again() -> None:
    for shown in (False, True):
        ports = Ports()
        ports.plug("1-1", UNKNOWN)
        await ports.all()
        await ports.wait(DRIVERLESS_SECONDS if shown else 4.0)
        replug(ports)
        await ports.udev()
        assert ports.readers == []
        await ports.wait(4.0)
        assert ports.readers == []
        await ports.wait(2.0)
        assert [each.state for each in ports.readers] == [ReaderState.NO_DRIVER]


async def test_never_without_driver_while_the_service_is_down() -> None:
    ports = Ports()
    ports.plug("1-1", UNKNOWN)
    await ports.udev()
    await ports.wait(60.0)
    assert ports.readers == [], "nothing was heard of the service yet"
    ports.down = True
    await ports.status()
    await ports.wait(60.0)
    assert ports.readers == []
    ports.down = False
    await ports.pcscd()
    await ports.wait(2.0)
    ports.down = True
    await ports.status()
    await ports.wait(60.0)
    assert ports.readers == [] and ports.clock.pending == []


@pytest.mark.parametrize("hung", [False, True])
async def test_a_driver_that_comes_takes_over_under_the_same_path(*, hung: bool) -> None:
    ports = Ports()
    plug = ports.plug("1-1", UNKNOWN)
    await ports.all()
    await ports.wait(DRIVERLESS_SECONDS)
    plug.model = Model(UNKNOWN.name)
    ports.serve()
    (name,) = ports.opened
    ports.hung = {name} if hung else set()
    await ports.status()
    assert set(ports.shown) == {PLACE}, "the object stays while it is asked"
    ports.hung.clear()
    await ports.answer()
    assert ports.shown == {PLACE: name}
    assert ports.reader(PLACE).state is ReaderState.EMPTY
    assert ports.reader(PLACE).last_error == ""
    assert withdrawn(ports) == []
    assert len(ports.desks.readers()) == 1
    ports.unplug("1-1")
    await ports.all()
    assert withdrawn(ports) == [PLACE] and ports.readers == []


async def test_a_driver_that_goes_leaves_a_reader_without_one() -> None:
    ports = Ports()
    plug = ports.plug("1-1", TWIN)
    await ports.all()
    plug.model = UNKNOWN
    ports.opened.clear()
    await ports.status()
    assert ports.readers == []
    await ports.wait(DRIVERLESS_SECONDS)
    assert [each.state for each in ports.readers] == [ReaderState.NO_DRIVER]


async def test_a_reader_whose_place_nobody_knows_is_not_shown_twice() -> None:
    ports = Ports()
    ports.taken = {FIRST, SECOND}
    ports.plug("1-1", TWIN)
    ports.plug("1-2", TWIN)
    await ports.all()
    await ports.wait(60.0)
    assert {each.state for each in ports.readers} == {ReaderState.EMPTY}
    ports.unplug("1-2")
    ports.plug("1-3", UNKNOWN)
    await ports.all()
    ports.taken.clear()
    await ports.wait(60.0)
    assert {each.name for each in ports.readers} == {FIRST, ""}


async def test_one_interface_of_a_device_that_is_listed_says_enough() -> None:
    ports = Ports()
    plug = ports.plug("1-1", Model("X", labels=("Contact", "Contactless")))
    await ports.udev()
    ports.serve()
    ports.opened = {
        name: each for name, each in ports.opened.items() if each.interface and each.plug is plug
    }
    await ports.status()
    await ports.wait(DRIVERLESS_SECONDS)
    assert ports.shown == {"1-1:1:0": "X [Contactless] 01 00"}


async def test_without_udev_nobody_is_without_a_driver() -> None:
    ports = Ports()
    ports.plug("1-1", UNKNOWN)
    await ports.all()
    await ports.wait(DRIVERLESS_SECONDS)
    assert ports.readers
    await ports.tell(None)
    assert ports.readers == [] and ports.clock.pending == []


async def test_two_readers_that_udev_has_in_one_place_are_one_object() -> None:
    ports = Ports()
    (usb,) = ports.plug("1-1", UNKNOWN).usb()
    (again,) = ports.plug("1-1", UNKNOWN).usb()
    await ports.tell((usb, again))
    await ports.pcscd()
    await ports.wait(DRIVERLESS_SECONDS)
    assert len(ports.desks.readers()) == len(ports.readers) == 1
    await ports.tell(())
    assert ports.readers == [] and ports.clock.pending == []
