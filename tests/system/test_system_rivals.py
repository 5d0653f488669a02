"""Other programs at the same reader: bounded waits, no left-over authority, no lost try."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from cardsession.bus.connection import Variant
from cardsession.stack import Card, Pcscd
from cardsession.stack.processes import wait_until
from system.rival import Rival
from system.subscriber import Subscriber, memfd

VERIFIED, FREE = "9000", "63c3"


@pytest.fixture
def rival(pcscd: Pcscd) -> Iterator[Rival]:
    with Rival() as process:
        yield process


async def test_a_verification_left_by_a_rival_ends_before_the_session_exists(
    seen: Subscriber, card: Card, rival: Rival, canary: str
) -> None:
    card.insert()
    path, facts = await seen.card_in_state("ready")
    rival.say("shared")
    assert rival.say(f"verify {canary}") == VERIFIED
    rival.say("free")
    session = await seen.open_session(path)
    assert card.status()["references"]["80"]["verified"] is False
    assert facts["PinTries"] == {"user": 3}
    rival.say("shared")
    assert rival.say(f"verify {canary}") == VERIFIED
    rival.say("free")
    await seen.call(session, "Session", "Close")
    assert card.status()["references"]["80"]["verified"] is False


async def test_an_active_session_keeps_rivals_out_and_leaves_nothing_behind(
    seen: Subscriber, card: Card, rival: Rival, canary: str
) -> None:
    card.insert()
    path, _ = await seen.card_in_state("ready")
    session = await seen.open_session(path)
    assert rival.say("shared") == "00000000", "no handle is held before anybody is verified"
    rival.say("free")
    await seen.verify(session, canary.encode())
    assert rival.say("shared") == "8010000B"
    await seen.call(session, "Session", "Close")
    assert rival.say("shared") == "00000000"
    assert rival.say("state") == FREE


async def test_a_rival_s_wrong_try_is_counted_before_ours(
    seen: Subscriber, card: Card, rival: Rival
) -> None:
    card.insert()
    path, facts = await seen.card_in_state("ready")
    session = await seen.open_session(path)
    rival.say("shared")
    assert rival.say("verify 99999999") == "63c2"
    assert rival.say("verify 99999999") == "63c1"
    rival.say("free")
    assert facts["PinTries"] == {"user": 3}, "what was read, until somebody asks"
    assert await seen.verify(session, b"00000000") == ("refused-last-try", 1)
    assert facts["PinTries"] == {"user": 1}
    assert card.status()["wrong"] == 2


async def test_a_session_is_at_rest_when_its_caller_hears_that_the_card_is_not_to_be_had(
    seen: Subscriber, card: Card, rival: Rival, canary: str
) -> None:
    card.insert()
    path, _ = await seen.card_in_state("ready")
    session = await seen.open_session(path)
    rival.say("shared")
    call = (session, "Session", "VerifyPin", "sha{sv}", ("user", 0, {}))
    assert await seen.refused(*call, (memfd(canary.encode()),)) == "InUseElsewhere"
    rival.say("free")
    assert await seen.verify(session, canary.encode()) == ("verified", -1)
    assert card.status()["counts"]["80"]["verify"]["right"] == 1


def takes_all(rival: Rival) -> None:
    """It has the reader for itself, as soon as the daemon has let go of what it was reading."""
    wait_until("the rival has it", lambda: rival.say("exclusive") == "00000000")


async def test_an_exclusive_holder_is_told_from_a_fault(
    seen: Subscriber, card: Card, rival: Rival
) -> None:
    card.insert()
    path, _ = await seen.card_in_state("ready")
    takes_all(rival)
    open_it = (path, "Card", "OpenSession", "sa{sv}", ("", {}))
    assert await seen.refused(*open_it) == "InUseElsewhere"
    rival.say("free")
    session = await seen.open_session(path)
    takes_all(rival)
    assert await seen.refused(session, "Session", "QueryPin", "s", ("user",)) == "InUseElsewhere"
    assert seen.all("Session")[session]["State"] == "unverified"


@pytest.mark.slow
async def test_a_long_transaction_is_in_use_elsewhere_and_never_stuck(
    seen: Subscriber, card: Card, rival: Rival, canary: str
) -> None:
    card.insert()
    path, _ = await seen.card_in_state("ready")
    session = await seen.open_session(path)
    assert rival.say("hold") == "00000000"
    states: set[str] = set()

    async def watch() -> None:
        while True:
            states.update(reader["State"] for reader in seen.all("Reader").values())
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    call = (session, "Session", "VerifyPin", "sha{sv}")
    secret = (memfd(canary.encode()),)
    assert await seen.refused(*call, ("user", 0, {}), secret) == "InUseElsewhere"
    await seen.until(
        "the session is at rest", lambda: seen.all("Session")[session]["State"] == "unverified"
    )
    await asyncio.sleep(6)  # longer than a hung reader would be given
    assert "stuck" not in states
    assert card.status()["references"]["80"]["verified"] is False
    rival.say("free")

    async def verified() -> bool:
        try:
            return await seen.verify(session, canary.encode()) == ("verified", -1)
        except Exception:  # our thread may still be on its way out of the card service
            return False

    for _ in range(50):
        if await verified():
            break
        await asyncio.sleep(0.1)
    assert seen.all("Session")[session]["State"] == "active"
    assert card.status()["wrong"] == 0
    watching.cancel()


@pytest.mark.slow
async def test_a_card_inserted_under_a_transaction_is_waited_for(
    seen: Subscriber, card: Card, rival: Rival
) -> None:
    card.tell("slow", ms=150)
    card.insert()
    path, _ = await seen.card_in_state("probing")
    assert rival.say("hold") == "00000000"
    card.tell("slow", ms=0)
    states = {"Virtual PCD 00 00": ""}

    def state() -> str:
        states.update({each["Name"]: each["State"] for each in seen.all("Reader").values()})
        return states["Virtual PCD 00 00"]

    await seen.until("settled", lambda: state() in ("in-use-elsewhere", "ready"))
    waiting = asyncio.create_task(seen.open_session(path, wait_usec=Variant("t", 19_000_000)))
    await asyncio.sleep(0.2)
    rival.say("free")
    assert (await waiting).startswith("/org/cardsession1/session/")
