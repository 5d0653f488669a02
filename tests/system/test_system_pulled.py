"""A card pulled in the middle of every exchange: the bus is right, and no try is lost track of."""

from __future__ import annotations

import pytest

from cardsession.bus.connection import BusError
from cardsession.stack import Card, Daemon
from system.subscriber import Subscriber

WRONG = b"00000000"
STAGES = ("before", "after")


async def probe_length(seen: Subscriber, card: Card) -> int:
    """Exchanges of one whole reading of the card, the later certificates included."""
    card.insert()
    path, _ = await seen.card_in_state("ready")
    await seen.open_session(path)  # queued behind the reading
    headers: list[str] = card.status()["headers"]
    card.remove()
    await seen.no_card()
    return len(headers) - 3  # OpenSession selects, identifies, asks


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
async def test_pulled_at_every_exchange_of_the_reading(
    seen: Subscriber, card: Card, stage: str
) -> None:
    length = await probe_length(seen, card)
    assert length > 10
    for moment in range(1, length + 1):
        before = set(seen.all("Card")) | {path for _, path in removed(seen)}
        card.tell("pull-at", n=moment, stage=stage)
        card.insert()
        await seen.until(
            f"gone at exchange {moment}",
            lambda known=before: set(dict(removed(seen)).values()) - known,
        )
        await seen.no_card()
        assert [reader["State"] for reader in seen.all("Reader").values()] == ["empty", "empty"]
        assert [reader["Card"] for reader in seen.all("Reader").values()] == ["/", "/"]
    card.insert()
    _, facts = await seen.card_in_state("ready")
    assert facts["PinTries"] == {"user": 3}
    assert card.status()["wrong"] == 0


def removed(seen: Subscriber) -> list[tuple[int, str]]:
    """Card objects that were taken away, with their place in the order of signals."""
    return [
        (at, signal.body[0])
        for at, (_, signal) in enumerate(seen.signals)
        if signal.member == "InterfacesRemoved" and "/card/" in signal.body[0]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
async def test_pulled_at_every_exchange_of_a_verify(
    seen: Subscriber, card: Card, stage: str
) -> None:
    """Select, identify, ask, VERIFY: the caller hears CardRemoved, the session ends, and a try
    is gone only if the card took it."""
    submitted = 0
    for moment in range(1, 5):
        card.tell("clear-faults")
        card.tell("set-tries", left=3)
        card.tell("reset-book")
        card.insert()
        path, facts = await seen.card_in_state("ready")
        assert facts["PinTries"] == {"user": 3}
        session = await seen.open_session(path)
        sent = card.status()["exchanges"]
        card.tell("pull-at", n=sent + moment, stage=stage)
        ends = len([name for name in seen.members() if name == "Ended"])
        with pytest.raises(BusError) as caught:
            await seen.verify(session, WRONG)
        assert caught.value.name.endswith(".CardRemoved")
        await seen.no_card()
        ended = [each.body[0] for _, each in seen.signals if each.member == "Ended"]
        assert ended[-1] == "card-removed"
        assert len(ended) == ends + 1
        book = card.status()
        taken = 1 if (moment, stage) == (4, "after") else 0
        assert book["wrong"] == taken
        submitted += 1
        card.insert()
        _, facts = await seen.card_in_state("ready")
        assert facts["PinTries"] == {"user": 3 - taken}, "what the card says, nothing else"
        card.remove()
        await seen.no_card()
    assert submitted == 4


async def test_swapped_within_one_poll(seen: Subscriber, card: Card, canary: str) -> None:
    """Another card with the same ATR, before pcscd looks: the session must not survive."""
    card.insert()
    path, facts = await seen.card_in_state("ready")
    session = await seen.open_session(path)
    await seen.verify(session, canary.encode())
    card.tell("swap", name="other")
    await seen.until("the first card is gone", lambda: path not in seen.objects)
    assert seen.all("Session") == {}
    _, other = await seen.card_in_state("ready")
    assert other["Serial"] != facts["Serial"]
    assert other["PinState"]["user"] == "unverified"


async def test_hung_card_is_stuck_and_comes_back(
    daemons: object, cards: object, bus: object, canary: str
) -> None:
    daemons(configuration="[readers]\nstuck-seconds = 6\n")  # type: ignore[operator]
    async with await Subscriber.open(bus.address) as seen:  # type: ignore[attr-defined]
        card, other = cards(0), cards(1)  # type: ignore[operator]
        card.insert()
        path, _ = await seen.card_in_state("ready")
        session = await seen.open_session(path)
        card.tell("silent-at", n=card.status()["exchanges"] + 4)
        assert await seen.verify(session, canary.encode()) == ("uncertain", -1)
        states = {reader["Name"]: reader["State"] for reader in seen.all("Reader").values()}
        assert states["Virtual PCD 00 00"] == "stuck"
        await seen.until("the session ended", lambda: not seen.all("Session"))
        assert await seen.refused(path, "Card", "OpenSession", "sa{sv}", ("", {})) == "ReaderStuck"
        other.insert()
        await seen.card_in_state("ready", 1)  # the other reader goes on
        card.tell("speak")
        await seen.until(
            "the reader recovers",
            lambda: all(each["State"] == "ready" for each in seen.all("Reader").values()),
        )
        assert card.status()["references"]["80"]["verified"] is False


async def test_sigterm_with_a_hung_reader(
    daemon: Daemon, seen: Subscriber, card: Card, canary: str
) -> None:
    card.insert()
    path, _ = await seen.card_in_state("ready")
    session = await seen.open_session(path)
    await seen.verify(session, canary.encode())
    card.tell("silent-at", n=card.status()["exchanges"] + 1)
    daemon.signal(15)
    await seen.until("the daemon ended", lambda: daemon.returncode is not None, 10)
    assert daemon.returncode == 0
