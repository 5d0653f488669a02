"""Sixteen readers at once, in bursts: what a subscriber makes of the signals is what is there."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from cardsession.bus import contract
from cardsession.virtual.card import VirtualCard
from fakes.cards import make_card
from fakes.crowd import CountingConnection, Crowd, settle
from fakes.process import logged

READERS = [f"Some Reader {number:02X} 00" for number in range(16)]
"""As many as the card service has."""
MOST_CHANGES = 4
"""Of one card, from its insertion until it is read: what happens in one turn is one signal."""
_cards: list[VirtualCard] = []


def cards() -> list[VirtualCard]:
    """One for each reader, made once."""
    if not _cards:
        _cards.extend(make_card(holder=str(number)) for number in range(len(READERS)))
    return _cards


class Watched(CountingConnection):
    """Counts the signals of each object, too."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[tuple[str, str]] = Counter()

    def emit(self, path: str, interface: str, member: str, signature: str, body: Any) -> None:
        """A signal."""
        super().emit(path, interface, member, signature, body)
        self.of[body[0] if path == contract.ROOT else path, member] += 1


@pytest_asyncio.fixture
async def crowd() -> AsyncIterator[Crowd]:
    """A daemon without readers."""
    with logged(deque(maxlen=4)):  # type: ignore[arg-type]
        made = Crowd(Watched())
        await made.start()
        yield made
        await made.desks.close()


def watched(crowd: Crowd) -> Watched:
    connection = crowd.service._connection
    assert isinstance(connection, Watched)
    return connection


def mirrored(crowd: Crowd) -> bool:
    """Whether whoever followed the signals knows what somebody who asks is told."""
    told = {path: each for path, each in watched(crowd).objects.items() if path != contract.ROOT}
    return told == crowd.service._tree.managed()


async def test_sixteen_cards_at_once(crowd: Crowd) -> None:
    for name in READERS:
        crowd.plug(name)
    await settle()
    connection = watched(crowd)
    connection.of.clear()
    crowd.insert(zip(READERS, cards(), strict=True))
    await settle(200)
    assert mirrored(crowd)
    found = [path for path in connection.objects if path.startswith(contract.CARDS)]
    assert len(found) == len(READERS)
    states = {connection.objects[path][contract.CARD]["State"].value for path in found}
    assert states == {"ready"}
    for path in found:
        assert connection.of[path, "InterfacesAdded"] == 1
        assert connection.of[path, "CardReady"] == 1
        assert connection.of[path, "PropertiesChanged"] <= MOST_CHANGES
    crowd.pull(*READERS)
    await settle()
    assert mirrored(crowd)
    assert all(connection.of[path, "InterfacesRemoved"] == 1 for path in found)
    assert all(connection.of[path, "CardGone"] == 1 for path in found)


async def test_what_happens_in_one_turn_is_told_once(crowd: Crowd) -> None:
    """A hundred listings before anybody could look: the latest is what counts."""
    for name in READERS:
        crowd.plug(name)
    await settle()
    connection = watched(crowd)
    connection.of.clear()
    for _ in range(100):
        crowd.insert(zip(READERS, cards(), strict=True))
        crowd.pull(*READERS)
    await settle(400)
    assert mirrored(crowd)
    readers = [path for path in connection.objects if "/reader/" in path]
    assert len(readers) == len(READERS)
    assert all(connection.of[path, "PropertiesChanged"] <= MOST_CHANGES for path in readers)
    states = {connection.objects[path][contract.READER]["State"].value for path in readers}
    assert states == {"empty"}
    added, removed = (connection.cards[each] for each in ("InterfacesAdded", "InterfacesRemoved"))
    assert added == removed


@pytest.mark.parametrize("seed", range(4))
async def test_bursts_of_everything_converge(crowd: Crowd, seed: int) -> None:
    """Readers and cards come and go, many in one turn of the loop, some turns apart."""
    chance = random.Random(seed)  # noqa: S311
    plugged: set[str] = set()
    full: set[str] = set()
    for _ in range(400):
        name = chance.choice(READERS)
        if name not in plugged:
            crowd.plug(name)
            plugged.add(name)
        elif name not in full and chance.random() < 0.8:
            crowd.insert([(name, cards()[READERS.index(name)])])
            full.add(name)
        elif name in full and chance.random() < 0.7:
            crowd.pull(name)
            full.remove(name)
        else:
            crowd.unplug(name)
            plugged.remove(name)
            full.discard(name)
        await settle(chance.choice([0, 0, 0, 1, 2, 7]))
    await settle(400)
    assert mirrored(crowd)
    connection = watched(crowd)
    assert sum("/reader/" in path for path in connection.objects) == len(plugged)
    assert sum(path.startswith(contract.CARDS) for path in connection.objects) == len(full)
    came, went = (connection.cards[each] for each in ("InterfacesAdded", "InterfacesRemoved"))
    assert came == went + len(full)
