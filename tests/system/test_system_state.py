"""The state directory through the whole daemon: what a restart keeps, and trouble with the disk.

Whatever the disk does, the counter works, staff are told, and are told when it is over.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cardsession.stack import Bus, Card, Daemon
from system.crash import Operation, remembered, trail
from system.disks import fill, remount, small
from system.subscriber import Subscriber

RIGHT, WRONG, NEW = b"73194682", b"11112222", b"86421357"
CHANGE = Operation("ChangePin", (RIGHT, NEW), right=True, ins="24")
ISSUED_LOCKED = "It may have been issued locked."

Daemons = Callable[..., Daemon]
Cards = Callable[..., Card]


def troubles(seen: Subscriber) -> list[str]:
    """LastError of each reader."""
    return [reader["LastError"] for reader in seen.all("Reader").values()]


def events(daemon: Daemon) -> list[dict[str, str]]:
    """The daemon's log."""
    return [json.loads(line) for line in daemon.log().splitlines()]


# a restart


async def test_a_restart_keeps_what_is_remembered(daemon: Daemon, card: Card, bus: Bus) -> None:
    card.insert()
    async with await Subscriber.open(bus.address) as seen:
        path, facts = await seen.card_in_state("ready")
        session = await seen.open_session(path)
        assert (await CHANGE.call(seen, session))[0] == "changed"
        assert await seen.verify(session, WRONG) == ("incorrect", 2)
        changed = facts["PinChangedUSec"]
        assert changed > 0
        assert daemon.stop() == 0
        await seen.until("the session ended", lambda: "Ended" in seen.members())
    assert remembered(daemon).lowest == 2
    before = trail(daemon)
    assert "session.ended" in [each["event"] for each in before]
    daemon.start()
    async with await Subscriber.open(bus.address) as seen:
        _, facts = await seen.card_in_state("ready")
        assert facts["PinChangedUSec"] == changed
        assert facts["PinTries"] == {"user": 2}
        assert remembered(daemon).lowest == 2
        await seen.until("the trail goes on", lambda: len(trail(daemon)) > len(before))
    assert trail(daemon)[: len(before)] == before, "nothing of before is touched"
    assert trail(daemon)[len(before)]["event"] == "card.read"


async def test_a_change_has_one_date(daemon: Daemon, card: Card, bus: Bus) -> None:
    card.insert()
    async with await Subscriber.open(bus.address) as seen:
        path, facts = await seen.card_in_state("ready")
        session = await seen.open_session(path)
        assert (await CHANGE.call(seen, session))[0] == "changed"
        await seen.until("the change is shown", lambda: facts["PinChangedUSec"] > 0)
        assert facts["PinChangedUSec"] == remembered(daemon).changed_usec


@pytest.mark.parametrize("tries", [0, 1], ids=["blocked-elsewhere", "blocked-here"])
async def test_who_blocked_it_is_known_after_a_restart(
    daemons: Daemons, cards: Cards, bus: Bus, tries: int
) -> None:
    """A card that nobody tried here may have been issued locked."""
    daemon, card = daemons(), cards(options=["--tries", str(tries)])
    card.insert()
    async with await Subscriber.open(bus.address) as seen:
        path, facts = await seen.card_in_state("ready")
        if tries:
            session = await seen.open_session(path)
            outcome = await seen.verify(session, WRONG, spend_last_try=True)
            assert outcome == ("now-blocked", 0)
        assert (ISSUED_LOCKED in facts["RemedyText"]) == (tries == 0)
    assert daemon.stop() == 0
    daemon.start()
    async with await Subscriber.open(bus.address) as seen:
        _, facts = await seen.card_in_state("ready")
        assert facts["PinState"]["user"] == "blocked"
        assert (ISSUED_LOCKED in facts["RemedyText"]) == (tries == 0)


# trouble


@contextlib.contextmanager
def full(state: Path) -> Iterator[Callable[[], object]]:
    """A disk without room; what makes some."""
    with small(state):
        yield fill(state).unlink


@contextlib.contextmanager
def read_only(state: Path) -> Iterator[Callable[[], object]]:
    """A disk that nobody may write to."""
    with small(state):
        remount(state, "ro")
        yield lambda: remount(state, "rw")


@contextlib.contextmanager
def damaged(state: Path) -> Iterator[Callable[[], object]]:
    """A ledger that nobody wrote like this. It is set aside at once, and staff are told."""
    state.mkdir()
    (state / "ledger").write_bytes(b"\x00" * 512)
    yield lambda: None


@contextlib.contextmanager
def obstructed(state: Path) -> Iterator[Callable[[], object]]:
    """A directory in the place of the trail's file, today's and tomorrow's."""
    days = (datetime.now(UTC) + timedelta(days=each) for each in (0, 1))
    places = [state / f"audit-{day.date().isoformat()}.jsonl" for day in days]
    for place in places:
        place.mkdir(parents=True)

    def over() -> None:
        for place in places:
            place.rmdir()

    yield over


TROUBLES: dict[
    str, tuple[Callable[[Path], contextlib.AbstractContextManager[Callable[[], object]]], str, str]
] = {
    "full": (full, "No space left on device", "ledger.trouble"),
    "read-only": (read_only, "Read-only file system", "ledger.trouble"),
    "damaged": (damaged, "was damaged", "ledger.damaged"),
    "obstructed": (obstructed, "The audit trail is not written", "trail.trouble"),
}


@pytest.mark.parametrize("kind", TROUBLES)
async def test_the_counter_works_and_staff_are_told(
    rundir: Path, bus: Bus, daemons: Daemons, card: Card, kind: str
) -> None:
    trouble, text, event = TROUBLES[kind]
    with trouble(rundir / "cardsessiond.state") as end:
        daemon = daemons()
        async with await Subscriber.open(bus.address) as seen:
            card.insert()
            path, facts = await seen.card_in_state("ready")
            assert facts["PinTries"] == {"user": 3}
            await seen.until("it is told", lambda: all(text in each for each in troubles(seen)))
            assert event in [each["event"] for each in events(daemon)]
            session = await seen.open_session(path)
            if kind != "damaged":  # that is over with the first try that is on record
                assert await seen.verify(session, WRONG) == ("incorrect", 2)
                assert all(text in each for each in troubles(seen))
            end()
            assert (await seen.verify(session, RIGHT))[0] == "verified"
            await seen.until("it is over", lambda: not any(troubles(seen)))
            await seen.call(session, "Session", "Close")
            assert daemon.returncode is None
        assert card.status()["wrong"] == (kind != "damaged")
        said = [each["event"] for each in events(daemon)]
        assert event.partition(".")[0] + ".recovered" in said
        assert daemon.stop() == 0
        assert remembered(daemon).tried
        assert "pin.judged" in [each["event"] for each in trail(daemon)]


async def test_trouble_outlasts_a_card(
    rundir: Path, bus: Bus, daemons: Daemons, card: Card
) -> None:
    """The next card in the reader does not make room on the disk."""
    with full(rundir / "cardsessiond.state"):
        daemons()
        async with await Subscriber.open(bus.address) as seen:
            card.insert()
            await seen.card_in_state("ready")
            await seen.until("it is told", lambda: all(troubles(seen)))
            card.remove()
            await seen.no_card()
            card.insert()
            path, _ = await seen.card_in_state("ready")
            await seen.open_session(path)
            assert all(troubles(seen))
