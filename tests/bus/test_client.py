"""The client library against a service that is told what to say, over a real bus."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cardsession.bus import contract
from cardsession.bus.connection import Answer, BusError, Call, Refusal, Variant
from cardsession.bus.contract import ErrorName
from cardsession.client import (
    Added,
    BusLost,
    BusRefused,
    CardGone,
    CardInfo,
    CardReady,
    CardSessionClient,
    Changed,
    Ended,
    Event,
    Events,
    Exchange,
    Lost,
    Removed,
    ServiceAbsent,
    ServiceBack,
    ServiceError,
    ServiceGone,
    SessionInfo,
    errors,
    words,
)
from cardsession.client.records import field_name

from .fakeservice import CARD, READER, SESSION, FakeService
from .util import Bus, Connect, Until, next_of, open_fds

# -- records


@pytest.mark.parametrize(
    ("name", "field"),
    [("PinTriesReadUSec", "pin_tries_read_usec"), ("IdleUSec", "idle_usec"), ("Id", "id"),
     ("InsertedMonotonicUSec", "inserted_monotonic_usec"), ("OwnerUid", "owner_uid")],
)  # fmt: skip
def test_field_names(name: str, field: str) -> None:
    assert field_name(name) == field


def test_every_error_of_the_contract_has_a_class() -> None:
    for name in ErrorName:
        if name.startswith(contract.BUS_NAME):
            error = errors.typed(BusError(name, "text"))
            assert type(error).__name__ == name.rpartition(".")[2]
            assert isinstance(error, ServiceError)
            assert (error.name, error.text) == (name, "text")
            assert getattr(errors, type(error).__name__) is type(error)
    unknown = errors.typed(BusError("org.cardsession1.Error.New", "x"))
    assert type(unknown) is ServiceError


# -- snapshots and events


async def test_snapshot(client: CardSessionClient) -> None:
    (reader,), (card,) = client.readers(), client.cards()
    assert (reader.path, reader.id, reader.card) == (READER, "r1", CARD)
    assert (card.reader, card.remedies, card.state) == (READER, ("renew",), "ready")
    assert card.pin_tries == {"user": 3}
    assert "puk" not in card.pin_tries
    assert client.sessions() == ()
    assert client.manager is not None
    assert (client.manager.version, client.manager.backend) == ("1", "ok")
    assert client.present


async def test_events(client: CardSessionClient, service: FakeService) -> None:
    events = client.events()
    service.change(CARD, PinTries={"user": 2}, State="ready")
    service.change(contract.ROOT, Backend="denied")
    service.add(f"{contract.CARDS}/2", contract.CARD, Profile="piv")
    service.say(contract.ROOT, contract.MANAGER, "CardReady", CARD, READER)
    service.say(contract.ROOT, contract.MANAGER, "CardGone", CARD, READER, "removed")
    service.say(contract.ROOT, contract.DIAGNOSTICS, "Exchange", READER, 1, "00A40400", 2, 3,
                0x9000, 5)  # fmt: skip
    service.remove(CARD)
    changed, backend, added, ready, gone, exchange, removed = await next_of(events, 7)
    assert isinstance(changed, Changed) and isinstance(changed.info, CardInfo)
    assert changed.names == {"pin_tries"}
    assert changed.info.pin_tries == {"user": 2}
    assert isinstance(backend, Changed) and backend.info is client.manager
    assert isinstance(added, Added) and added.info == client.get(f"{contract.CARDS}/2")
    assert ready == CardReady(CARD, READER)
    assert gone == CardGone(CARD, READER, "removed")
    assert exchange == Exchange(READER, 1, "00A40400", 2, 3, 0x9000, 5)
    assert removed == Removed(changed.info)
    assert [card.path for card in client.cards()] == [f"{contract.CARDS}/2"]


async def test_what_a_newer_service_says_is_left_out(
    client: CardSessionClient, service: FakeService
) -> None:
    events = client.events()
    service.objects[CARD][contract.CARD]["Newer"] = Variant("s", "")
    service.change(CARD, Newer="x")
    service.say(contract.ROOT, contract.OBJECT_MANAGER, "InterfacesAdded", f"{contract.ROOT}/new/1",
                {"org.cardsession1.New": {}})  # fmt: skip
    service.change(CARD, Trust="revoked")
    service.change(CARD, Trust="something-new")
    revoked, changed = await next_of(events, 2)
    assert isinstance(revoked, Changed) and revoked.names == {"trust"}
    assert isinstance(changed, Changed) and isinstance(changed.info, CardInfo)
    assert (changed.names, changed.info.trust) == ({"trust"}, words.Trust.UNKNOWN)


LIST = "GetManagedObjects"


async def test_nothing_is_missed_or_seen_twice_around_the_listing(
    service: FakeService, bus: str
) -> None:
    """Signals right before and right after the listing's reply, in one read of the socket."""

    def listing(call: Call) -> Answer:
        answer = Answer("a{oa{sa{sv}}}", (json_copy(service.below()),))
        asyncio.get_running_loop().call_soon(after)
        return answer

    def before() -> None:
        service.flush = lambda: None
        service.change(CARD, State="mute")
        service.change(CARD, State="ready")
        service.add(f"{contract.CARDS}/7", contract.CARD)
        service.remove(f"{contract.CARDS}/7")

    def after() -> None:
        service.change(CARD, PinTries={"user": 1})
        service.add(f"{contract.CARDS}/8", contract.CARD)

    service.answers["GetManagedObjects"] = listing
    service.flush = before
    async with await CardSessionClient.open(bus) as client:
        events = client.events()
        service.change(CARD, State="blank")
        seen = []
        async with asyncio.timeout(20):
            async for event in events:
                seen.append(event)
                if isinstance(event, Changed) and "state" in event.names:
                    break
        assert {type(event) for event in seen} <= {Changed, Added}
        assert [card.path for card in client.cards()] == [CARD, f"{contract.CARDS}/8"]
        assert client.cards()[0].pin_tries == {"user": 1}
        assert client.cards()[0].state == "blank"


async def test_what_is_in_the_listing_is_not_told_again(connect: Connect, bus: str) -> None:
    """A service that comes while we listen, busy before it answers."""
    async with await CardSessionClient.open(bus, require=False) as client:
        events = client.events()
        service = FakeService(await connect())

        def before() -> None:
            service.flush = lambda: None
            service.change(CARD, State="mute")
            service.change(CARD, State="ready")

        def listing(call: Call) -> Answer:
            before()
            asyncio.get_running_loop().call_soon(lambda: service.change(CARD, State="blank"))
            return Answer("a{oa{sa{sv}}}", (json_copy(service.below()),))

        service.answers["GetManagedObjects"] = listing
        await service.connection.own_name(contract.BUS_NAME)
        back, *added, changed = await next_of(events, 5)
        assert back == ServiceBack()
        assert {type(each) for each in added} == {Added}
        assert isinstance(changed, Changed) and isinstance(changed.info, CardInfo)
        assert changed.names == {"state"}
        assert changed.info.state == "blank"


async def test_a_listing_of_a_service_that_has_gone_is_not_taken(
    client: CardSessionClient, service: FakeService
) -> None:
    """Its reply was read just before the news of its owner's going."""
    old = await client._service.call(contract.ROOT, contract.OBJECT_MANAGER, LIST)
    events = client.events()
    await service.connection.close()
    assert await next_of(events, 1) == [ServiceGone()]
    client._take(old, old)
    assert client.cards() == () and not client.present


async def test_a_new_service_counts_its_sessions_anew(
    client: CardSessionClient, service: FakeService, connect: Connect
) -> None:
    session = await client.open_session(CARD, "test")
    events = client.events()
    service.say(SESSION, contract.SESSION, "Ended", "closed", {})
    assert await next_of(events, 1) == [Ended(SESSION, "closed")]
    await service.connection.close()
    await FakeService.start(await connect())
    await next_of(events, 5)
    again = await client.open_session(CARD, "test")
    assert again.path == session.path
    assert (session.end_reason, again.end_reason) == ("closed", None)


def json_copy(objects: dict[str, Any]) -> dict[str, Any]:
    return {path: {name: dict(each) for name, each in of.items()} for path, of in objects.items()}


async def test_events_that_nobody_takes_are_bounded(
    client: CardSessionClient, service: FakeService, until: Until
) -> None:
    events = client.events()
    for number in range(6000):
        service.change(READER, InsertCount=number + 1)
    await until(lambda: client.readers()[0].insert_count == 6000)
    assert len(events._waiting) < 5000
    assert await next_of(events, 1) == [Lost()]


async def test_events_end_with_the_client(service: FakeService, bus: str) -> None:
    client = await CardSessionClient.open(bus)
    events = client.events()
    waiting = asyncio.create_task(_collect(events))
    await asyncio.sleep(0)
    await client.close()
    async with asyncio.timeout(20):
        assert await waiting == []


async def _collect(events: Events) -> list[Event]:
    return [event async for event in events]


async def test_refresh(client: CardSessionClient, service: FakeService) -> None:
    await client.open_session(CARD, "test")
    service.objects[SESSION][contract.SESSION]["ExchangeCount"] = Variant("t", 9)
    info = await client.refresh(SESSION)
    assert isinstance(info, SessionInfo) and info.exchange_count == 9
    assert await client.refresh("/none") is None


# -- the service comes and goes


async def test_no_bus(tmp_path: Path) -> None:
    with pytest.raises(BusRefused, match="no such socket"):
        await CardSessionClient.open(f"unix:path={tmp_path}/none")


async def test_no_service(bus: str) -> None:
    before = open_fds()
    with pytest.raises(ServiceAbsent):
        await CardSessionClient.open(bus)
    assert open_fds() == before


async def test_the_bus_forbids_it(service: FakeService, bus: str) -> None:
    def forbid(call: Call) -> Answer:
        raise Refusal(ErrorName.ACCESS_DENIED, "policy")

    service.answers["GetManagedObjects"] = forbid
    with pytest.raises(BusRefused):
        await CardSessionClient.open(bus)


async def test_the_service_comes_later(bus: str, connect: Connect) -> None:
    async with await CardSessionClient.open(bus, require=False) as client:
        assert not client.present and client.cards() == () and client.manager is None
        events = client.events()
        with pytest.raises(ServiceAbsent):
            await client.check_function("claim")
        await FakeService.start(await connect())
        back, *added = await next_of(events, 4)
        assert back == ServiceBack()
        assert {each.info.path for each in added if isinstance(each, Added)} == {
            contract.ROOT, READER, CARD,
        }  # fmt: skip
        assert client.present


async def test_the_service_goes_and_comes_back(
    client: CardSessionClient, service: FakeService, connect: Connect
) -> None:
    session = await client.open_session(CARD, "test")
    events = client.events()
    await service.connection.close()
    async with asyncio.timeout(20):
        assert await session.ended == "service-gone"
    assert await next_of(events, 1) == [ServiceGone()]
    assert client.cards() == () and not client.present
    new = await FakeService.start(await connect())
    assert (await next_of(events, 4))[0] == ServiceBack()
    new.change(CARD, State="mute")
    (changed,) = await next_of(events, 1)
    assert isinstance(changed, Changed) and client.cards()[0].state == "mute"
    # The new one counts from 1 again: its session 1 is not the one that ended.
    again = await client.open_session(CARD, "test")
    assert again.path == session.path and again.end_reason is None


async def test_the_bus_goes(bus_process: Bus, service: FakeService) -> None:
    address, process = bus_process
    client = await CardSessionClient.open(address)
    session = await client.open_session(CARD, "test")
    events = client.events()
    process.kill()
    async with asyncio.timeout(20):
        assert await session.ended == "bus-lost"
        with pytest.raises(BusLost):
            await _collect(events)
    with pytest.raises(BusLost):
        await session.keep_alive()
    await client.close()
