"""Readers in ports: stock pcscd and the daemon's udev on one USB bus, plugged and pulled."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from cardsession.stack import Bus, Daemon
from fakes.cards import make_card
from system.ifd import Call, Make
from system.subscriber import ROOT, Properties, Subscriber, plain
from system.usb import CHERRY, OMNIKEY, SCR, UDEVD, UNKNOWN, VENDOR_SPECIFIC, Bed, Interface

Start = Callable[..., Daemon]


def readers(seen: Subscriber) -> dict[str, Properties]:
    """All readers, by identifier."""
    return {each["Id"]: each for each in seen.all("Reader").values()}


def paths(seen: Subscriber) -> dict[str, str]:
    """Object paths, by identifier."""
    return {each["Id"]: path for path, each in seen.all("Reader").items()}


async def until_ids(seen: Subscriber, *ids: str) -> dict[str, Properties]:
    """Wait until these are the readers that are listed by the card service."""

    def there() -> bool:
        now = readers(seen)
        return set(now) == set(ids) and all(each["Name"] for each in now.values())

    await seen.until(f"the readers are {ids}", there)
    return readers(seen)


async def hotplug(seen: Subscriber) -> str:
    """The manager's word on udev."""
    asked = ("org.cardsession1.Manager", "Hotplug")
    (value,) = await seen.call(ROOT, "org.freedesktop.DBus.Properties", "Get", "ss", asked)
    return str(plain(value))


async def test_a_reader_has_the_port_s_words_and_its_own(
    bed: Bed, bed_daemon: Start, bus: Bus
) -> None:
    bed_daemon()
    async with await Subscriber.open(bus.address) as seen:
        bed.plug("1-4.2", OMNIKEY, serial="A1")
        found = (await until_ids(seen, "1-4.2:0:0"))["1-4.2:0:0"]
        assert await hotplug(seen) == "udev"
        assert found["Name"] == "HID Global OMNIKEY 3x21 Smart Card Reader (A1) 00 00"
        assert (found["PortPath"], found["Serial"]) == ("1-4.2", "A1")
        assert (found["VendorId"], found["ProductId"]) == (0x076B, 0x3031)
        assert "Smart" in found["Model"] and found["State"] == "empty"
        bed.unplug("1-4.2")
        await until_ids(seen)


async def test_what_was_plugged_in_before_us_is_found(
    bed: Bed, bed_daemon: Start, bus: Bus
) -> None:
    bed.plug("1-1", SCR)
    bed.plug("2-1.4", SCR)
    bed_daemon()
    async with await Subscriber.open(bus.address) as seen:
        found = await until_ids(seen, "1-1:0:0", "2-1.4:0:0")
        assert [found[each]["PortPath"] for each in sorted(found)] == ["1-1", "2-1.4"]


ORDERS = list(itertools.product(itertools.permutations(("1-1", "1-2")), repeat=2))


async def test_two_of_a_kind_replugged_in_every_order_keep_their_objects(
    bed: Bed, bed_daemon: Start, bus: Bus
) -> None:
    """And it is that reader: the card is in the object of the port in which we put it."""
    bed_daemon()
    ids = ("1-1:0:0", "1-2:0:0")
    async with await Subscriber.open(bus.address) as seen:
        for port in ("1-1", "1-2"):
            bed.plug(port, SCR)
        await until_ids(seen, *ids)
        before = paths(seen)
        for pulled, plugged in ORDERS:
            for port in pulled:
                bed.unplug(port)
            await until_ids(seen)
            for port in plugged:
                bed.plug(port, SCR)
            await until_ids(seen, *ids)
            assert paths(seen) == before
            for port in plugged:
                await holds_a_card(bed, seen, port)


async def holds_a_card(bed: Bed, seen: Subscriber, port: str) -> None:
    """A card that is put into the reader in this port is in this port's object."""
    slot = bed.plugged[port].slot
    slot.insert(make_card())
    (card,) = await seen.until("a card", lambda: list(seen.all("Card").values()))
    assert card["Reader"] == paths(seen)[f"{port}:0:0"]
    slot.pull()
    await seen.until("no card", lambda: not seen.all("Card"))


async def test_the_names_change_places_and_the_objects_do_not(
    bed: Bed, bed_daemon: Start, bus: Bus
) -> None:
    """One of two is replugged at once: pcscd may give it the old name, or the other one's."""
    bed_daemon()
    async with await Subscriber.open(bus.address) as seen:
        for port in ("1-1", "1-2"):
            bed.plug(port, SCR)
        await until_ids(seen, "1-1:0:0", "1-2:0:0")
        before = paths(seen)
        for port in ("1-1", "1-2", "1-1"):
            bed.unplug(port)
            bed.plug(port, SCR)
            await until_ids(seen, "1-1:0:0", "1-2:0:0")
            await holds_a_card(bed, seen, "1-1")
            await holds_a_card(bed, seen, "1-2")
            assert paths(seen) == before


async def test_in_another_port_it_is_another_object(bed: Bed, bed_daemon: Start, bus: Bus) -> None:
    bed_daemon()
    async with await Subscriber.open(bus.address) as seen:
        bed.plug("1-1", OMNIKEY, serial="A1")
        await until_ids(seen, "1-1:0:0")
        first = paths(seen)
        bed.unplug("1-1")
        bed.plug("1-2", OMNIKEY, serial="A1")
        await until_ids(seen, "1-2:0:0")
        assert set(paths(seen).values()).isdisjoint(first.values())


async def test_two_interfaces_of_one_device_are_two_places(
    bed: Bed, bed_daemon: Start, bus: Bus
) -> None:
    bed_daemon()
    async with await Subscriber.open(bus.address) as seen:
        bed.plug("1-3", SCR, interfaces=[Interface(0, name="Contact"), Interface(1, name="Radio")])
        found = await until_ids(seen, "1-3:0:0", "1-3:1:0")
        assert "Contact" in found["1-3:0:0"]["Name"] and "Radio" in found["1-3:1:0"]["Name"]


async def test_a_reader_with_two_slots_is_two_places(bed: Bed, bed_daemon: Start, bus: Bus) -> None:
    bed_daemon()
    async with await Subscriber.open(bus.address) as seen:
        bed.plug("1-3", SCR, make=Make(slots=2))
        await until_ids(seen, "1-3:0:0", "1-3:0:1")


async def test_one_without_a_driver_is_shown_nevertheless(
    bed: Bed, bed_daemon: Start, bus: Bus
) -> None:
    bed_daemon()
    async with await Subscriber.open(bus.address) as seen:
        bed.plug("1-7", UNKNOWN)
        bed.plug("1-6", UNKNOWN, interfaces=[Interface(kind=VENDOR_SPECIFIC)])  # nobody's
        await seen.until("it is shown", lambda: readers(seen))
        assert list(readers(seen)) == ["1-7:0:0"]
        found = readers(seen)["1-7:0:0"]
        assert (found["State"], found["Name"], found["PortPath"]) == ("no-driver", "", "1-7")
        assert (found["VendorId"], found["ProductId"]) == (0x1234, 0x5678)
        assert found["LastError"]
        bed.unplug("1-7")
        await seen.until("it is gone", lambda: not readers(seen))


async def test_a_driver_that_comes_later_takes_the_object_over(
    bed: Bed, bed_daemon: Start, bus: Bus
) -> None:
    bed_daemon()
    async with await Subscriber.open(bus.address) as seen:
        reader = bed.plug("1-7", OMNIKEY, refuses=True)
        await seen.until("it is shown", lambda: readers(seen))
        assert readers(seen)["1-7:0:0"]["State"] == "no-driver"
        before = paths(seen)
        reader.slot.failing.discard(Call.OPEN)
        bed.pcscd.stop()
        bed.pcscd.start()
        found = await until_ids(seen, "1-7:0:0")
        assert found["1-7:0:0"]["State"] == "empty" and not found["1-7:0:0"]["LastError"]
        assert paths(seen) == before
        await holds_a_card(bed, seen, "1-7")


async def test_a_reader_of_a_vendor_s_class_is_marked_by_our_rule(
    bed: Bed, bed_daemon: Start, bus: Bus
) -> None:
    bed_daemon()
    async with await Subscriber.open(bus.address) as seen:
        marked = {"CARDSESSION_READER": "vendor"}
        bed.plug("1-5", CHERRY, interfaces=[Interface(kind=VENDOR_SPECIFIC)], properties=marked)
        assert (await until_ids(seen, "1-5:0:0"))["1-5:0:0"]["VendorId"] == 0x046A


# who is first


async def test_udev_first_the_card_service_later(bed: Bed, bed_daemon: Start, bus: Bus) -> None:
    bed.pcscd.stop()
    bed.plug("1-1", SCR)
    bed_daemon()
    async with await Subscriber.open(bus.address) as seen:
        assert not readers(seen)
        bed.pcscd.start()
        assert (await until_ids(seen, "1-1:0:0"))["1-1:0:0"]["PortPath"] == "1-1"


async def test_the_card_service_first_udev_later(bed: Bed, bed_daemon: Start, bus: Bus) -> None:
    """udevd comes while we run: what it knows is added, and the object stays."""
    UDEVD.unlink()
    first = bed.plug("1-1", OMNIKEY, serial="A1")
    name = "HID Global OMNIKEY 3x21 Smart Card Reader (A1) 00 00"
    bed_daemon()
    async with await Subscriber.open(bus.address) as seen:
        found = (await until_ids(seen, name))[name]
        assert await hotplug(seen) == "pcsc-only"
        assert (found["PortPath"], found["Serial"]) == ("", "A1")
        before = paths(seen)[name]
        UDEVD.touch()
        bed.plug("1-2", SCR)  # another reader is reason enough to ask
        await until_ids(seen, name, "1-2:0:0")
        assert await hotplug(seen) == "udev"
        await seen.until("its port is known", lambda: readers(seen)[name]["PortPath"] == "1-1")
        assert paths(seen)[name] == before
        assert readers(seen)[name]["VendorId"] == first.model.vid


async def test_without_udev_readers_come_and_go_all_the_same(
    bed: Bed, bed_daemon: Start, bus: Bus
) -> None:
    UDEVD.unlink()
    bed_daemon()
    async with await Subscriber.open(bus.address) as seen:
        reader = bed.plug("1-1", OMNIKEY, serial="A1")
        name = "HID Global OMNIKEY 3x21 Smart Card Reader (A1) 00 00"
        await until_ids(seen, name)
        assert await hotplug(seen) == "pcsc-only"
        reader.slot.insert(make_card())
        await seen.until("a card", lambda: seen.all("Card"))
        bed.unplug("1-1")
        await seen.until("nothing is left", lambda: not readers(seen) and not seen.all("Card"))


async def test_events_that_come_twice_or_for_nothing_change_nothing(
    bed: Bed, bed_daemon: Start, bus: Bus
) -> None:
    bed_daemon()
    async with await Subscriber.open(bus.address) as seen:
        reader = bed.plug("1-1", SCR)
        await until_ids(seen, "1-1:0:0")
        reader.slot.insert(make_card())
        await seen.card_in_state("ready")
        before = len(seen.signals)
        for action in ("add", "change", "bind", "add"):
            bed.plugs.uevent(reader.interfaces[0].syspath, action)
        bed.plug("1-2", SCR)
        await until_ids(seen, "1-1:0:0", "1-2:0:0")
        assert "InterfacesRemoved" not in [each.member for _, each in seen.signals[before:]]
        assert len(seen.all("Card")) == 1


async def test_a_removal_that_nobody_told_us_is_seen_by_the_card_service(
    bed: Bed, bed_daemon: Start, bus: Bus
) -> None:
    """udev is a hint: without its events pcscd's own end of the reader counts, and the next
    reader in that port is that seat again."""
    bed_daemon()
    async with await Subscriber.open(bus.address) as seen:
        bed.plug("1-1", SCR)
        await until_ids(seen, "1-1:0:0")
        before = paths(seen)
        bed.pcscd.stop()
        bed.unplug("1-1", quietly=True)
        await seen.until("it is gone", lambda: not readers(seen))
        bed.pcscd.start()
        bed.plug("1-1", SCR)
        await until_ids(seen, "1-1:0:0")
        assert paths(seen) == before
