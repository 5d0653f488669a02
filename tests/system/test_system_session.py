"""A card becomes a session: the whole path over the real card service and a real bus."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from cardsession.bus.connection import BusError, Variant
from cardsession.stack import Bus, Card, Daemon
from system.readers import empty
from system.subscriber import ROOT, Subscriber

WRONG = b"00000000"


async def test_from_reader_to_subscriber_and_back(
    seen: Subscriber, card: Card, canary: str
) -> None:
    assert [reader["State"] for reader in seen.all("Reader").values()] == ["empty", "empty"]
    card.insert()
    path, facts = await seen.card_in_state("ready")
    assert (facts["Profile"], facts["HolderId"]) == ("piv", "555012345678")
    assert facts["PinTries"] == {"user": 3}
    assert facts["PinTriesSource"] == "card"
    assert facts["Trust"] == "not-checked"
    assert facts["NotAfter"] > facts["NotBefore"] > 0
    assert 700 < facts["DaysLeft"] < 740
    assert bytes(facts["Atr"]).hex() == card.status()["atr"]
    await seen.until("CardReady", lambda: "CardReady" in seen.members(ROOT))

    session = await seen.open_session(path)
    assert facts["Session"] == session
    assert await seen.verify(session, WRONG) == ("incorrect", 2)
    assert facts["PinTries"] == {"user": 2}, "the count is signalled before the reply"
    assert await seen.verify(session, canary.encode()) == ("verified", -1)
    state = seen.all("Session")[session]
    assert (state["State"], state["HolderId"]) == ("active", "555012345678")
    assert facts["PinTries"] == {}, "while verified the count cannot be known"
    assert await seen.call(ROOT, "Manager", "CheckFunction", "so", ("claim", "/")) == (True, "")

    card.remove()
    await seen.no_card()
    ended = [each for _, each in seen.signals if each.member == "Ended"]
    assert [(each.path, each.body[0]) for each in ended] == [(session, "card-removed")]
    assert seen.all("Session") == {}
    card.insert()
    again, facts = await seen.card_in_state("ready")
    assert again != path
    assert facts["PinTries"] == {"user": 3}
    assert card.status()["wrong"] == 1


async def test_what_happened_before_the_daemon_is_no_insertion(
    seen: Subscriber, card: Card, daemons: Callable[..., Daemon], daemon: Daemon
) -> None:
    """pcscd counts on: a daemon that starts later sees a number, not an event."""
    card.insert()
    await seen.card_in_state("ready")
    card.remove()
    await seen.no_card()
    await asyncio.to_thread(daemon.stop)
    await seen.until("pcscd has noticed too", empty)
    seen.signals.clear()
    daemons(name="second")
    await seen.until("two readers", lambda: seen.members(ROOT).count("InterfacesAdded") >= 2)
    card.insert()
    path, _ = await seen.card_in_state("ready")
    assert path == "/org/cardsession1/card/1"
    assert (
        seen.objects[seen.objects[path]["org.cardsession1.Card"]["Reader"]][
            "org.cardsession1.Reader"
        ]["InsertCount"]
        == 1
    )


async def test_two_readers_are_two_states(seen: Subscriber, cards: object, canary: str) -> None:
    first, second = cards(0), cards(1, options=["--holder", "555099999999", "--tries", "2"])  # type: ignore[operator]
    first.insert()
    second.insert()
    one, facts_one = await seen.card_in_state("ready", 0)
    two, facts_two = await seen.card_in_state("ready", 1)
    assert (facts_one["HolderId"], facts_two["HolderId"]) == ("555012345678", "555099999999")
    assert (facts_one["PinTries"], facts_two["PinTries"]) == ({"user": 3}, {"user": 2})
    session_one, session_two = await seen.open_session(one), await seen.open_session(two)
    assert await seen.verify(session_one, canary.encode()) == ("verified", -1)
    assert await seen.verify(session_two, WRONG) == ("incorrect", 1)
    second.remove()
    await seen.no_card(1)
    assert seen.all("Session")[session_one]["State"] == "active"
    assert list(seen.all("Session")) == [session_one]
    assert (first.status()["wrong"], second.status()["wrong"]) == (0, 1)


async def test_double_click_spends_one_try(seen: Subscriber, card: Card) -> None:
    card.insert()
    path, _ = await seen.card_in_state("ready")
    session = await seen.open_session(path)
    card.tell("slow", ms=100)  # a real card takes its time; and so does a busy machine's bus
    results = await asyncio.gather(
        *(seen.verify(session, WRONG) for _ in range(5)), return_exceptions=True
    )
    assert results[0] == ("incorrect", 2)
    for late in results[1:]:
        assert isinstance(late, BusError)
        assert late.name.endswith(".Busy")
    assert card.status()["wrong"] == 1


async def test_last_try_is_kept_back(seen: Subscriber, cards: object) -> None:
    card = cards(options=["--tries", "1"])  # type: ignore[operator]
    card.insert()
    path, facts = await seen.card_in_state("ready")
    assert facts["PinState"] == {"user": "last-try", "puk": "unknown"}
    session = await seen.open_session(path)
    assert await seen.verify(session, WRONG) == ("refused-last-try", 1)
    assert card.status()["wrong"] == 0
    assert await seen.verify(session, WRONG, spend_last_try=True) == ("now-blocked", 0)
    assert card.status()["wrong"] == 1
    await seen.until("the session ended", lambda: not seen.all("Session"))
    assert facts["PinState"]["user"] == "blocked"
    assert facts["PinTries"] == {"user": 0}
    session = await seen.open_session(path)
    assert await seen.verify(session, WRONG, spend_last_try=True) == ("was-blocked", 0)
    assert card.status()["wrong"] == 1


async def test_owner_leaves(bus: Bus, seen: Subscriber, card: Card, canary: str) -> None:
    card.insert()
    path, facts = await seen.card_in_state("ready")
    async with await Subscriber.open(bus.address) as owner:
        session = await owner.open_session(path)
        assert await owner.verify(session, canary.encode()) == ("verified", -1)
        assert await seen.refused(session, "Session", "Close") == "NotOwner"
        assert await seen.refused(session, "Session", "KeepAlive") == "NotOwner"
        allowed = await seen.call(ROOT, "Manager", "CheckFunction", "so", ("claim", session))
        assert allowed == (False, "not-owner")
        assert await seen.refused(path, "Card", "OpenSession", "sa{sv}", ("", {})) == "Busy"
    await seen.until("the session ended", lambda: not seen.all("Session"))
    ended = [each.body[0] for _, each in seen.signals if each.member == "Ended"]
    assert ended == ["owner-vanished"]
    assert facts["PinTries"] == {"user": 3}
    assert card.status()["references"]["80"]["verified"] is False


async def test_lifetime(seen: Subscriber, card: Card, canary: str) -> None:
    card.insert()
    path, _ = await seen.card_in_state("ready")
    session = await seen.open_session(path)
    await seen.verify(session, canary.encode())
    reply = await seen.connection.call(
        "org.cardsession1", session, "org.cardsession1.Session", "TakeLifetime"
    )
    assert seen.all("Session")[session]["State"] == "active"
    os.close(reply.fds[0])
    await seen.until("the session ended", lambda: not seen.all("Session"))
    ended = [each.body[0] for _, each in seen.signals if each.member == "Ended"]
    assert ended == ["lifetime-closed"]


async def test_lock_and_close(seen: Subscriber, card: Card, canary: str) -> None:
    card.insert()
    path, facts = await seen.card_in_state("ready")
    session = await seen.open_session(path)
    assert await seen.refused(session, "Session", "KeepAlive") == "NotVerified"
    assert await seen.refused(session, "Session", "Lock") == "NotVerified"
    await seen.verify(session, canary.encode())
    await seen.call(session, "Session", "Lock")
    assert seen.all("Session")[session]["State"] == "locked"
    assert seen.all("Session")[session]["HolderId"] == ""
    assert card.status()["references"]["80"]["verified"] is False
    answer = await seen.call(ROOT, "Manager", "CheckFunction", "so", ("claim", session))
    assert answer == (False, "session-locked")
    query = await seen.call(session, "Session", "QueryPin", "s", ("user",))
    assert query == ("unverified", 3)
    assert await seen.verify(session, canary.encode()) == ("verified", -1)
    await seen.call(session, "Session", "KeepAlive")
    await seen.call(session, "Session", "Close")
    assert seen.all("Session") == {}
    assert await seen.refused(session, "Session", "Close") == "SessionEnded"
    assert card.status()["references"]["80"]["verified"] is False
    assert facts["PinTries"] == {"user": 3}


async def test_certificates_are_read_after_ready_and_never_in_a_session(
    seen: Subscriber, card: Card
) -> None:
    card.insert()
    path, _ = await seen.card_in_state("ready")
    await seen.open_session(path)  # queued behind the reading
    before = card.status()["exchanges"]
    (rows,) = await seen.call(path, "Card", "ListCertificates")
    slots = [row[0] for row in rows]
    assert slots == ["authentication", "card-authentication", "encryption", "signature"]
    (der,) = await seen.call(path, "Card", "GetCertificate", "s", ("signature",))
    assert der.hex() == card.tell("certificate", slot=0x9C)["der"]
    assert await seen.refused(path, "Card", "GetCertificate", "s", ("nothing",)) == "NoSuchSlot"
    assert card.status()["exchanges"] == before


async def test_probe_is_short(seen: Subscriber, card: Card) -> None:
    """SELECT, discovery, CHUID, counter, and the authentication certificate by 256 bytes."""
    card.insert()
    await seen.card_in_state("ready")
    headers = card.status()["headers"]
    select_again = [at for at, header in enumerate(headers) if header == "00a40400"][1:]
    probe = headers[: select_again[0]] if select_again else headers
    size = len(card.tell("certificate", slot=0x9A)["der"]) // 2 + 16
    assert len(probe) <= 4 + -(-size // 256)
    assert [header for header in probe if header.startswith("0020")] == ["00200080"]


async def test_takeover_by_the_same_user(bus: Bus, seen: Subscriber, card: Card) -> None:
    card.insert()
    path, _ = await seen.card_in_state("ready")
    async with await Subscriber.open(bus.address) as other:
        first = await other.open_session(path)
        second = await seen.open_session(path, replace=Variant("b", True))
        assert second != first
        ended = [(each.path, each.body[0]) for _, each in seen.signals if each.member == "Ended"]
        assert ended == [(first, "forced")]


async def test_a_technician_ends_a_session(
    bus: Bus, seen: Subscriber, card: Card, canary: str
) -> None:
    card.insert()
    path, _ = await seen.card_in_state("ready")
    session = await seen.open_session(path)
    await seen.verify(session, canary.encode())
    async with await Subscriber.open(bus.address) as technician:
        end = (ROOT, "Diagnostics", "EndSession", "os")
        assert await technician.refused(*end, ("/", "because")) == "InvalidArgs"
        await technician.call(*end, (session, "because"))
        assert technician.all("Session") == {}
        assert await technician.refused(*end, (session, "again")) == "SessionEnded"
    ended = [each.body[0] for _, each in seen.signals if each.member == "Ended"]
    assert ended == ["forced"]
    assert card.status()["references"]["80"]["verified"] is False


async def test_open_waits_for_a_card_that_is_being_read(seen: Subscriber, card: Card) -> None:
    card.tell("slow", ms=100)
    card.insert()
    path, _ = await seen.card_in_state("probing")
    assert await seen.refused(path, "Card", "OpenSession", "sa{sv}", ("", {})) == "Busy"
    session = await seen.open_session(path, wait_usec=Variant("t", 15_000_000))
    assert seen.all("Session")[session]["State"] == "unverified"


async def test_stop_ends_sessions_and_drops_authority(
    daemon: Daemon, seen: Subscriber, card: Card, canary: str
) -> None:
    card.insert()
    path, _ = await seen.card_in_state("ready")
    session = await seen.open_session(path)
    await seen.verify(session, canary.encode())
    assert await asyncio.to_thread(daemon.stop) == 0
    await seen.until("Ended", lambda: "Ended" in seen.members())
    ended = [each.body[0] for _, each in seen.signals if each.member == "Ended"]
    assert ended == ["daemon-stopping"]
    assert card.status()["references"]["80"]["verified"] is False
    assert daemon.notify.all("STOPPING") == ["1"]
