"""Readers are pulled and plugged in again."""

from __future__ import annotations

import pytest

from cardsession.core.facts import ReaderState
from cardsession.core.seats import Attributes
from cardsession.seating import REPLUGGED_SECONDS, RETRY_SECONDS
from fakes.ports import DRIVERLESS_SECONDS, SEATED_SECONDS, Model, Ports, replug, withdrawn

TWIN = Model("ACME Twin")
PLAIN = Model("Plain Reader", channel=False)
SERIAL = Model("Serial Reader", serial="4711", channel=False)
UNKNOWN = Model("Unknown Reader", driver=False)
FIRST = "ACME Twin 00 00"
SECOND = "ACME Twin 01 00"
PLACE = "1-1:0:0"


@pytest.mark.parametrize("order", ["udev pcscd", "pcscd udev"])
async def test_each_of_two_readers_gets_its_old_path_back_whatever_the_order(order: str) -> None:
    ports = Ports()
    ports.plug("1-1", TWIN)
    ports.plug("1-2", TWIN)
    await ports.all()
    assert ports.shown == {PLACE: FIRST, "1-2:0:0": SECOND}
    for port in ("1-1", "1-2"):
        ports.unplug(port)
        for what in order.split():
            await getattr(ports, what)()
    assert ports.readers == []
    for port in ("1-2", "1-1"):
        ports.plug(port, TWIN)
        for what in order.split():
            await getattr(ports, what)()
    assert ports.shown == {"1-2:0:0": FIRST, PLACE: SECOND}, "the names went round, not the seats"


@pytest.mark.parametrize("model", [TWIN, SERIAL, PLAIN])
@pytest.mark.parametrize("to", ["1-1", "1-2"])
@pytest.mark.parametrize("session", [False, True])
async def test_a_reader_that_comes_again_between_two_listings_is_another_one(
    model: Model, to: str, *, session: bool
) -> None:
    ports = Ports()
    ports.plug("1-1", model, card=True)
    await ports.all()
    await ports.wait(SEATED_SECONDS)
    (name,) = ports.opened
    if session:
        await ports.session(name)
    channel = ports.channel(name)
    replug(ports, to=to)
    await ports.pcscd()
    await ports.udev()
    await ports.wait(SEATED_SECONDS)
    assert ports.publisher.reasons() == ["reader-removed"] * session
    assert withdrawn(ports) == [PLACE]
    assert ports.shown == {f"{to}:0:0": name}
    assert ports.reader(f"{to}:0:0").port_path == to
    assert channel.closed and len(ports.open) == 1
    assert len(ports.publisher.cards) == 1, "the card is in the reader, and is read anew"


@pytest.mark.parametrize("session", [False, True])
async def test_the_card_service_is_behind_udev_when_a_reader_comes_again(*, session: bool) -> None:
    ports = Ports()
    ports.plug("1-1", TWIN, card=True)
    await ports.all()
    if session:
        await ports.session(FIRST)
    replug(ports)
    await ports.udev()
    await ports.wait(3.0)
    assert ports.shown == {PLACE: FIRST}, "the service is the truth"
    assert bool(ports.publisher.sessions) is session
    ports.serve()  # and nobody hears of it: the listing is the same as before
    await ports.wait(sum(RETRY_SECONDS))
    assert withdrawn(ports) == [PLACE]
    assert ports.shown == {PLACE: FIRST}
    assert len(ports.open) == 1
    assert ports.publisher.reasons() == ["reader-removed"] * session


async def pulled_and_listed_yet() -> Ports:
    """The card service has not let go of it, and cannot say anything of it any more."""
    ports = Ports()
    ports.plug("1-1", TWIN)
    await ports.all()
    await ports.wait(SEATED_SECONDS)
    ports.unplug("1-1")
    ports.leaving = {FIRST}
    await ports.udev()
    return ports


async def test_a_service_that_is_slow_to_let_go_of_a_reader_costs_the_next_one_no_place() -> None:
    """It lists the old one; then, in one turn, the new one."""
    ports = await pulled_and_listed_yet()
    await ports.wait(SEATED_SECONDS + 0.5)
    assert ports.shown == {}
    ports.plug("1-1", TWIN)
    await ports.udev()
    ports.serve()
    ports.leaving = set()
    await ports.wait(1.0)
    assert ports.shown == {PLACE: FIRST}


async def test_one_that_never_says_anything_is_shown_in_the_end() -> None:
    ports = await pulled_and_listed_yet()
    await ports.wait(SEATED_SECONDS + REPLUGGED_SECONDS)
    assert ports.shown == {FIRST: FIRST}, "it is listed: the service is the truth"


async def test_a_reader_shown_under_its_name_comes_again_between_two_listings() -> None:
    ports = Ports()
    await ports.udev()
    ports.plug("1-1", TWIN)
    await ports.pcscd()
    await ports.wait(SEATED_SECONDS)
    assert ports.shown == {FIRST: FIRST}
    replug(ports)
    await ports.udev()
    ports.serve()
    await ports.wait(DRIVERLESS_SECONDS)
    assert set(ports.shown.values()) == {FIRST}, "it is listed, and has a driver"
    assert ports.readers[0].port_path == "1-1"


async def test_the_same_with_a_session_whose_handle_leads_nowhere() -> None:
    ports = Ports()
    ports.plug("1-1", TWIN, card=True)
    await ports.pcscd()
    await ports.session(FIRST)
    replug(ports)
    ports.serve()
    await ports.udev()
    await ports.wait(1.0)
    assert ports.publisher.reasons() == ["reader-removed"]
    assert ports.shown == {PLACE: FIRST}, "udev is there by now"


async def test_the_same_with_a_reader_that_a_rival_kept_from_us_at_first() -> None:
    ports = Ports()
    ports.taken = {FIRST}
    ports.plug("1-1", TWIN, card=True)
    await ports.pcscd()
    await ports.session(FIRST)
    replug(ports)
    ports.taken.clear()
    ports.serve()
    await ports.wait(RETRY_SECONDS[-1])
    assert ports.publisher.reasons() == ["reader-removed"], "the handle led nowhere"
    await ports.udev()
    assert ports.reader(FIRST).port_path == "1-1"


async def test_a_path_is_never_shown_as_without_driver_while_somebody_sits_there() -> None:
    ports = Ports()
    ports.plug("1-1", TWIN)
    await ports.all()
    ports.hung = {FIRST}
    replug(ports)
    await ports.udev()
    await ports.wait(60.0)
    assert [each.state for each in ports.readers] == [ReaderState.EMPTY]
    ports.hung.clear()
    ports.serve()
    await ports.answer()
    await ports.wait(60.0)
    assert ports.shown == {PLACE: FIRST}


@pytest.mark.parametrize("first", [FIRST, SECOND])
async def test_two_readers_are_swapped_between_two_listings(first: str) -> None:
    ports = Ports()
    ports.plug("1-1", TWIN)
    ports.plug("1-2", TWIN)
    await ports.all()
    ports.unplug("1-1")
    ports.unplug("1-2")
    ports.plug("1-2", TWIN)
    ports.plug("1-1", TWIN)
    ports.hung = {first}
    ports.serve()
    assert {name: each.plug.port for name, each in ports.opened.items()} == {
        FIRST: "1-2", SECOND: "1-1",
    }  # fmt: skip
    await ports.udev()
    ports.hung.clear()
    await ports.answer()
    await ports.status()
    assert ports.shown == {"1-2:0:0": FIRST, PLACE: SECOND}
    assert len(ports.open) == 2


async def test_a_reader_that_is_still_listed_keeps_its_seat_until_the_service_lets_it_go() -> None:
    ports = Ports()
    ports.plug("1-1", TWIN)
    await ports.all()
    before = dict(ports.opened)
    ports.unplug("1-1")
    ports.plug("1-1", TWIN)
    ports.serve()
    ports.opened = {FIRST: before[FIRST], SECOND: ports.opened[FIRST]}
    await ports.udev()
    await ports.status()
    assert ports.shown == {PLACE: FIRST}
    await ports.wait(0.5)
    del ports.opened[FIRST]
    await ports.status()
    assert ports.shown == {PLACE: SECOND}, "it waited for it"


async def test_a_reader_whose_seat_is_not_let_go_is_shown_under_its_name() -> None:
    ports = Ports()
    ports.plug("1-1", TWIN)
    await ports.all()
    before = dict(ports.opened)
    replug(ports)
    ports.serve()
    ports.opened = {FIRST: before[FIRST], SECOND: ports.opened[FIRST]}
    await ports.udev()
    await ports.status()
    await ports.wait(SEATED_SECONDS)
    assert ports.shown == {PLACE: FIRST, SECOND: SECOND}
    assert ports.reader(SECOND).port_path == "1-1"


async def test_a_reader_that_told_its_place_and_tells_none_now_is_another_one() -> None:
    ports = Ports()
    ports.plug("1-1", TWIN, card=True)
    ports.plug("1-2", TWIN)
    await ports.all()
    await ports.session(FIRST)
    ports.channel(FIRST)._says = Attributes  # type: ignore[method-assign]
    ports.unplug("1-1")
    await ports.udev()
    assert ports.publisher.reasons() == ["reader-removed"]


async def test_a_reader_that_goes_takes_its_session_along() -> None:
    for order in ("udev", "pcscd"), ("pcscd", "udev"):
        ports = Ports()
        ports.plug("1-1", TWIN, card=True)
        await ports.all()
        await ports.session(FIRST)
        ports.unplug("1-1")
        for what in order:
            await getattr(ports, what)()
        assert ports.publisher.reasons() == ["reader-removed"]
        assert ports.publisher.objects == {} and ports.open == []


async def test_udev_alone_ends_no_session() -> None:
    ports = Ports()
    ports.plug("1-1", TWIN, card=True)
    await ports.all()
    await ports.session(FIRST)
    ports.unplug("1-1")
    await ports.udev()
    await ports.wait(60.0)
    assert ports.publisher.sessions
    assert ports.channel(FIRST).asked < 12, "it is asked again without haste"
    await ports.pcscd()
    assert ports.publisher.reasons() == ["reader-removed"]


async def test_a_service_that_goes_takes_all_along_and_brings_all_back() -> None:
    ports = Ports()
    ports.plug("1-1", TWIN, card=True)
    ports.plug("1-2", UNKNOWN)
    await ports.all()
    await ports.wait(DRIVERLESS_SECONDS)
    await ports.session(FIRST)
    ports.down = True
    ports.opened.clear()
    await ports.status()
    assert ports.publisher.reasons() == ["backend-lost"]
    assert ports.readers == [] and ports.open == []
    await ports.wait(60.0)
    assert ports.readers == [], "nobody can say what a service that is down does not list"
    ports.down = False
    await ports.pcscd()
    assert ports.shown == {PLACE: FIRST}
    await ports.wait(DRIVERLESS_SECONDS)
    assert ports.shown == {PLACE: FIRST, "1-2:0:0": ""}


async def test_a_reader_of_a_kind_that_udev_does_not_know_is_not_asked_for_ever() -> None:
    ports = Ports()
    ports.plug("1-1", TWIN)
    await ports.tell(())
    await ports.pcscd()
    await ports.wait(3600.0)
    assert ports.shown == {FIRST: FIRST}
    assert ports.channel(FIRST).asked == 1 + len(RETRY_SECONDS)
    assert ports.clock.pending == []
    await ports.udev()
    assert ports.reader(FIRST).port_path == "1-1"
