"""Readers get their seats: whoever hears of them first, and whatever they say of themselves."""

from __future__ import annotations

import asyncio
from itertools import permutations

import pytest

from cardsession.config import Config, ReadersConfig
from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import Backend, Hotplug, ReaderState
from cardsession.core.reports import Listing, SlotReport
from cardsession.core.seats import Attributes
from cardsession.seating import RETRY_SECONDS
from fakes.counter import make_card, settle
from fakes.ports import DRIVERLESS_SECONDS, SEATED_SECONDS, Model, Ports

TWIN = Model("ACME Twin")
OTHER = Model("Other Reader", serial="0815")
PLAIN = Model("Plain Reader", channel=False)
"""Its driver tells no channel id."""
FIRST = "ACME Twin 00 00"
SECOND = "ACME Twin 01 00"


def no_timers(ports: Ports) -> bool:
    """Whether nothing waits for time to go by."""
    return ports.clock.pending == []


# who is first


async def test_udev_first() -> None:
    ports = Ports()
    ports.plug("1-4.2", TWIN)
    await ports.udev()
    assert ports.readers == []
    await ports.pcscd()
    assert ports.shown == {"1-4.2:0:0": FIRST}
    reader = ports.reader("1-4.2:0:0")
    assert (reader.port_path, reader.vendor_id, reader.product_id) == ("1-4.2", 0x08E6, 0x3437)
    assert (reader.model, reader.state) == ("ACME_Twin", ReaderState.EMPTY)
    assert ports.clock.passed == 0 and no_timers(ports)


async def test_the_card_service_first() -> None:
    ports = Ports()
    await ports.udev()
    ports.plug("1-1", TWIN)
    await ports.pcscd()
    await ports.wait(0.9)
    assert ports.readers == []
    await ports.udev()
    assert ports.shown == {"1-1:0:0": FIRST}
    assert no_timers(ports)


async def test_the_join_after_a_second_changes_properties_and_never_the_path() -> None:
    ports = Ports(Config(readers=ReadersConfig(labels={"1-1:0:0": "Counter 1"})))
    await ports.udev()
    ports.plug("1-1", TWIN)
    await ports.pcscd()
    await ports.wait(SEATED_SECONDS)
    assert ports.shown == {FIRST: FIRST}
    assert ports.reader(FIRST).port_path == ports.reader(FIRST).label == ""
    await ports.udev()
    assert ports.shown == {FIRST: FIRST}
    assert (ports.reader(FIRST).port_path, ports.reader(FIRST).label) == ("1-1", "Counter 1")
    assert [each.what for each in ports.publisher.lines].count("withdraw") == 0


async def test_without_udev_a_reader_is_shown_at_once_under_its_name() -> None:
    ports = Ports()
    ports.plug("1-1", TWIN)
    await ports.tell(None)
    await ports.pcscd()
    assert ports.shown == {FIRST: FIRST}
    assert ports.publisher.told("hotplug")[-1].facts is Hotplug.PCSC_ONLY
    await ports.udev()
    assert ports.publisher.told("hotplug")[-1].facts is Hotplug.UDEV
    assert ports.shown == {FIRST: FIRST}
    assert ports.reader(FIRST).port_path == "1-1"


async def test_who_waits_for_udev_waits_no_more_when_it_is_gone() -> None:
    ports = Ports()
    await ports.udev()
    ports.plug("1-1", TWIN)
    await ports.pcscd()
    assert ports.readers == []
    await ports.tell(None)
    assert ports.shown == {FIRST: FIRST}
    assert no_timers(ports)


@pytest.mark.parametrize("model", [TWIN, OTHER, PLAIN])
async def test_udev_that_goes_takes_nothing_along(model: Model) -> None:
    ports = Ports()
    ports.plug("1-1", model, card=True)
    await ports.all()
    await ports.wait(SEATED_SECONDS)
    (name,) = ports.opened
    session = await ports.session(name)
    for readers in (None, (), None):
        await ports.tell(readers)
        await ports.wait(100.0)
        assert ports.shown == {"1-1:0:0": name}
        assert ports.reader("1-1:0:0").port_path == "1-1"
    await ports.udev()
    assert ports.publisher.session.number == session.number


async def test_duplicate_reports_change_nothing() -> None:
    ports = Ports()
    ports.plug("1-1", TWIN)
    ports.plug("1-2", Model("no driver", driver=False))
    await ports.all()
    await ports.wait(DRIVERLESS_SECONDS)
    lines = len(ports.publisher.told("show")), len(ports.publisher.told("withdraw"))
    asked = ports.channel(FIRST).asked
    for _ in range(5):
        await ports.udev()
        await ports.pcscd()
        await ports.wait(1.0)
    assert lines == (len(ports.publisher.told("show")), len(ports.publisher.told("withdraw")))
    assert ports.channel(FIRST).asked == asked


async def test_what_udev_learns_later_of_a_reader_is_told() -> None:
    ports = Ports()
    ports.plug("1-1", PLAIN, card=True)
    await ports.all()
    await ports.wait(SEATED_SECONDS)
    (name,) = ports.opened
    await ports.session(name)
    ports.plugs["1-1"].model = Model("Plain Reader", serial="4711", channel=False)
    await ports.udev()
    await ports.wait(1.0)
    assert ports.reader("1-1:0:0").serial == "4711"
    assert ports.publisher.session, "it is the same reader"


# how it is joined


@pytest.mark.parametrize("order", list(permutations(["udev", "pcscd", "udev", "pcscd"]))[:6])
async def test_two_of_a_kind_have_their_own_ports(order: tuple[str, ...]) -> None:
    ports = Ports()
    await ports.udev()
    for port, what in zip(("1-2", "", "1-1", ""), order, strict=True):
        if port:
            ports.plug(port, TWIN)
        await getattr(ports, what)()
    await ports.all()
    assert ports.shown == {"1-2:0:0": FIRST, "1-1:0:0": SECOND}


async def test_two_of_a_kind_that_say_nothing_are_never_guessed() -> None:
    ports = Ports()
    ports.plug("1-1", PLAIN)
    ports.plug("1-2", PLAIN)
    await ports.all()
    await ports.wait(DRIVERLESS_SECONDS)
    names = {"Plain Reader 00 00", "Plain Reader 01 00"}
    assert set(ports.shown) == names, "nor are they called readers without a driver"
    assert {each.port_path for each in ports.readers} == {""}
    await ports.udev()
    assert {each.port_path for each in ports.readers} == {""}


async def test_of_two_of_a_kind_that_say_nothing_one_goes() -> None:
    ports = Ports()
    ports.plug("1-1", PLAIN)
    ports.plug("1-2", PLAIN)
    await ports.all()
    await ports.wait(SEATED_SECONDS)
    ports.unplug("1-1")
    await ports.udev()
    assert {each.port_path for each in ports.readers} == {""}, "both are listed: which one is it?"
    await ports.pcscd()
    assert ports.shown == {"Plain Reader 01 00": "Plain Reader 01 00"}
    assert ports.readers[0].port_path == "1-2"


async def test_a_reader_that_tells_no_place_is_joined_by_its_model_when_its_time_is_over() -> None:
    ports = Ports()
    ports.plug("1-1", PLAIN)
    await ports.all()
    assert ports.readers == []
    await ports.wait(SEATED_SECONDS)
    assert ports.shown == {"1-1:0:0": "Plain Reader 00 00"}


async def test_a_reader_is_joined_by_its_serial_number_at_once() -> None:
    ports = Ports()
    for port, serial in (("1-1", "A"), ("1-2", "B")):
        ports.plug(port, Model("Plain Reader", serial=serial, channel=False))
    await ports.all()
    assert set(ports.shown) == {"1-1:0:0", "1-2:0:0"}
    assert {each.serial: each.port_path for each in ports.readers} == {"A": "1-1", "B": "1-2"}


async def test_one_serial_number_for_all_is_no_hindrance_with_channel_ids() -> None:
    ports = Ports()
    for port in ("1-1", "1-2", "1-3"):
        ports.plug(port, Model("Cheap", serial="0001"))
    await ports.all()
    assert set(ports.shown) == {"1-1:0:0", "1-2:0:0", "1-3:0:0"}


async def test_slots_and_interfaces_have_their_own_seats() -> None:
    ports = Ports()
    ports.plug("1-1", Model("Two slots", slots=2))
    ports.plug("1-2", Model("Two interfaces", labels=("Contact", "Contactless")))
    ports.plug("1-3", Model("Nameless interfaces", labels=("", "")))
    await ports.all()
    assert ports.shown == {each.seat: name for name, each in ports.opened.items()}
    assert set(ports.shown) == {
        "1-1:0:0", "1-1:0:1", "1-2:0:0", "1-2:1:0", "1-3:0:0", "1-3:1:0",
    }  # fmt: skip


async def test_nameless_interfaces_have_the_same_seats_whoever_answers_first() -> None:
    for late in (0, 1):
        ports = Ports()
        ports.plug("1-1", Model("X", labels=("", "")))
        ports.serve()
        ports.hung = {list(ports.opened)[late]}
        await ports.udev()
        await ports.status()
        assert ports.readers == []
        ports.hung.clear()
        await ports.answer()
        assert ports.shown == {"1-1:0:0": "X 00 00", "1-1:1:0": "X 01 00"}


async def test_labels_by_name_and_by_seat() -> None:
    labels = {FIRST: "by its name", "1-2:0:0": "by its port", "1-3:0:0": "nothing yet"}
    ports = Ports(Config(readers=ReadersConfig(labels=labels)))
    ports.plug("1-1", TWIN)
    ports.plug("1-2", TWIN)
    ports.plug("1-3", Model("no driver", driver=False))
    await ports.all()
    await ports.wait(DRIVERLESS_SECONDS)
    shown = {each.id: each.label for each in ports.readers}
    assert shown == {
        "1-1:0:0": "by its name", "1-2:0:0": "by its port", "1-3:0:0": "nothing yet",
    }  # fmt: skip


async def test_two_readers_of_one_name_are_one() -> None:
    ports = Ports()
    await ports.udev()
    ports.desks.listing(Listing(Backend.OK, (SlotReport("X 00 00"), SlotReport("X 00 00"))))
    await ports.wait(SEATED_SECONDS)
    assert ports.shown == {"X 00 00": "X 00 00"}
    assert len(ports.open) == 1


async def test_two_names_that_look_the_same_are_two_objects() -> None:
    ports = Ports()
    names = ("X\x01 00 00", "X\x02 00 00")
    await ports.udev()
    ports.desks.listing(Listing(Backend.OK, tuple(map(SlotReport, names))))
    await ports.wait(SEATED_SECONDS)
    assert [each.id for each in ports.readers] == ["X\ufffd 00 00", "X\ufffd 00 00*"]
    assert len({each.id for each in ports.desks.readers()}) == 2
    ports.desks.listing(Listing(Backend.OK))
    assert ports.readers == []


async def test_a_name_that_is_another_s_seat_is_no_clash() -> None:
    ports = Ports()
    ports.plug("1-1", TWIN)
    await ports.udev()
    ports.serve()
    slots = (SlotReport("1-1:0:0"), SlotReport(FIRST))
    ports.hung = {FIRST}
    ports.desks.listing(Listing(Backend.OK, slots))
    await ports.wait(SEATED_SECONDS)
    assert len(ports.shown) == 2
    ports.hung.clear()
    await ports.answer()
    await ports.wait(DRIVERLESS_SECONDS)
    assert {each.name for each in ports.readers} == {"1-1:0:0", FIRST}


async def test_two_readers_that_claim_one_device_do_not_get_one_seat() -> None:
    ports = Ports()
    ports.plug("1-1", TWIN)
    await ports.udev()
    ports.serve()
    ports.opened[SECOND] = ports.opened[FIRST]
    await ports.status()
    await ports.wait(SEATED_SECONDS)
    assert ports.shown == {"1-1:0:0": FIRST, SECOND: SECOND}


# readers that do not answer


async def test_a_reader_that_hangs_over_the_question_is_shown_after_a_second_all_the_same() -> None:
    ports = Ports()
    ports.hung = {FIRST}
    ports.plug("1-1", TWIN)
    ports.plug("1-2", TWIN)
    await ports.all()
    assert ports.shown == {"1-2:0:0": SECOND}, "others do not wait for it"
    await ports.wait(SEATED_SECONDS)
    assert ports.shown == {"1-1:0:0": FIRST, "1-2:0:0": SECOND}, "there is only one port left"
    await ports.wait(100.0)
    assert ports.channel(FIRST).asked == 1, "it is not asked again and again"
    ports.hung.clear()
    await ports.answer()
    assert set(ports.shown) == {"1-1:0:0", "1-2:0:0"}


async def test_a_reader_that_hangs_is_asked_once_whatever_udev_tells() -> None:
    ports = Ports()
    ports.plug("1-1", TWIN)
    await ports.all()
    ports.hung = {FIRST}
    ports.unplug("1-1")
    for _ in range(20):
        await ports.udev()
    assert ports.channel(FIRST).asked == 2


async def test_a_card_that_comes_before_its_reader_is_shown_is_shown_with_it() -> None:
    ports = Ports()
    await ports.udev()
    plug = ports.plug("1-1", TWIN)
    await ports.pcscd()
    plug.card = make_card()
    await ports.status()
    assert ports.publisher.objects == {}
    await ports.udev()
    assert ports.publisher.card.reader_id == "1-1:0:0"


async def test_a_reader_that_hung_and_is_another_than_we_thought_is_corrected() -> None:
    ports = Ports()
    ports.hung = {FIRST}
    ports.plug("1-1", TWIN)
    await ports.pcscd()
    await ports.udev()
    ports.plug("1-2", TWIN)
    ports.unplug("1-1")
    await ports.udev()  # the service is behind
    ports.plugs["1-1"] = ports.opened[FIRST].plug
    await ports.wait(SEATED_SECONDS)
    await ports.udev()
    await ports.pcscd()
    ports.hung.clear()
    await ports.answer()
    await ports.wait(SEATED_SECONDS)
    paths = {each.id: each.port_path for each in ports.readers}
    assert paths in ({FIRST: "1-1", "1-2:0:0": "1-2"}, {"1-1:0:0": "1-1", "1-2:0:0": "1-2"})


async def test_a_rival_that_keeps_a_reader_for_itself_is_waited_for_without_haste() -> None:
    ports = Ports()
    ports.taken = {FIRST, SECOND}
    ports.plug("1-1", TWIN)
    ports.plug("1-2", TWIN)
    await ports.all()
    await ports.wait(SEATED_SECONDS)
    assert ports.shown == {FIRST: FIRST, SECOND: SECOND}
    await ports.wait(3600.0)
    assert 3600 / RETRY_SECONDS[-1] - 2 < ports.channel(FIRST).asked < 3600 / RETRY_SECONDS[-1] + 8
    ports.taken = {SECOND}
    await ports.wait(RETRY_SECONDS[-1])
    assert ports.shown == {FIRST: FIRST, SECOND: SECOND}
    assert ports.reader(FIRST).port_path == "1-1"
    ports.taken.clear()
    await ports.wait(RETRY_SECONDS[-1])
    assert ports.reader(SECOND).port_path == "1-2"
    assert no_timers(ports)


async def test_a_rival_that_lets_go_in_time_is_no_hindrance() -> None:
    ports = Ports()
    ports.taken = {FIRST}
    ports.plug("1-1", TWIN)
    ports.plug("1-2", TWIN)
    await ports.all()
    await ports.wait(0.2)
    ports.taken.clear()
    await ports.wait(0.3)
    assert ports.shown == {"1-1:0:0": FIRST, "1-2:0:0": SECOND}


async def test_a_reader_that_a_rival_keeps_has_its_seat_where_there_is_only_one() -> None:
    ports = Ports()
    ports.plug("1-1", OTHER)
    ports.serve()
    ports.taken = set(ports.opened)
    await ports.all()
    await ports.wait(SEATED_SECONDS)
    assert set(ports.shown) == {"1-1:0:0"}


async def test_a_reader_that_goes_while_it_is_asked_leaves_nothing() -> None:
    ports = Ports()
    ports.hung = {FIRST}
    ports.plug("1-1", TWIN)
    await ports.all()
    ports.unplug("1-1")
    await ports.pcscd()
    assert ports.open == []
    await ports.udev()
    assert no_timers(ports)
    ports.hung.clear()
    await ports.answer()
    await ports.wait(100.0)
    assert ports.readers == [] and no_timers(ports)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_surprise_in_the_answer_keeps_no_reader_from_its_place() -> None:
    ports = Ports()
    await ports.udev()
    ports.plug("1-1", TWIN)
    ports.serve()

    class Broken(dict[str, object]):
        def get(self, *_: object) -> object:
            raise RuntimeError("our bug")

    opened, ports.opened = ports.opened, Broken(ports.opened)  # type: ignore[assignment]
    await ports.status()
    await ports.wait(SEATED_SECONDS)
    assert ports.shown == {FIRST: FIRST}
    ports.opened = opened
    await ports.udev()
    await ports.wait(RETRY_SECONDS[-1])
    assert ports.reader(FIRST).port_path == "1-1"


# the end


@pytest.mark.parametrize("hung", [False, True])
async def test_the_end_while_readers_arrive_leaves_no_task_no_channel_and_no_timer(
    *, hung: bool
) -> None:
    ports = Ports()
    ports.plug("1-1", TWIN)
    ports.plug("1-2", TWIN)
    ports.plug("1-3", Model("no driver", driver=False))
    await ports.all()
    await ports.wait(DRIVERLESS_SECONDS)
    ports.plug("1-4", Model("no driver either", driver=False))
    ports.plug("1-5", PLAIN)
    ports.plug("1-6", TWIN)
    ports.hung = {"Plain Reader 02 00", "ACME Twin 03 00"} if hung else set()
    ports.desks.usb(ports.reported)
    ports.serve()
    ports.desks.listing(Listing(Backend.OK, tuple(map(SlotReport, ports.opened))))
    closing = asyncio.ensure_future(ports.desks.close())
    await asyncio.sleep(0)
    ports.plug("1-7", TWIN)
    await ports.all()
    async with asyncio.timeout(10):
        await closing
    await ports.all()
    await settle()
    assert ports.open == [] and ports.readers == [] and no_timers(ports)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_failure_that_is_nobody_s_fault_is_tried_again() -> None:
    ports = Ports()
    await ports.udev()
    ports.plug("1-1", TWIN)
    await ports.pcscd()
    broken = ports.channel(FIRST)
    says, broken._says = broken._says, _fail  # type: ignore[method-assign]
    ports.unplug("1-1")
    ports.plug("1-1", TWIN)
    ports.serve()
    await ports.udev()
    await ports.wait(0.5)
    broken._says = says  # type: ignore[method-assign]
    await ports.wait(2.0)
    assert ports.shown == {"1-1:0:0": FIRST} or ports.reader(FIRST).port_path == "1-1"


def _fail() -> Attributes:
    raise Failure(Problem.CARD_RESET, "PC/SC error 80100001")
