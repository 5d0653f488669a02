"""`watch`: what is there, then every change; lines in a pipe, a live table on a terminal."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from typing import Any

from bus.fakeservice import FakeService
from cardsession.bus.connection import Connection
from cardsession.client import Event
from cardsession.ctl.exits import Exit
from cardsession.ctl.watch import _BARE, _SAID
from cardsession.stack import Bus

from .conftest import NAME, AtTerminal, Screen, Start, Tool, add_card

CARD = "/org/cardsession1/card/1"
READER = "/org/cardsession1/reader/r1"
SESSION = "/org/cardsession1/session/1"


async def objects(tool: Tool, number: int) -> list[dict[str, Any]]:
    """The next lines as JSON, without their times."""
    found = [json.loads(await tool.line()) for _ in range(number)]
    for each in found:
        assert re.fullmatch(r"20\d\d-.*\+00:00", each.pop("time"))
    return found


async def test_json(start: Start, service: FakeService) -> None:
    """Every line is there as soon as it happens; the whole first, then what changes."""
    tool = await start("watch", "--json")
    manager, reader, card = await objects(tool, 3)
    assert [each["event"] for each in (manager, reader, card)] == ["present"] * 3
    assert [each["kind"] for each in (manager, reader, card)] == ["manager", "reader", "card"]
    assert card["properties"]["pin_tries"] == {"user": 3}

    service.change(CARD, PinTries={"user": 2})
    assert await objects(tool, 1) == [
        {
            "event": "changed",
            "kind": "card",
            "path": CARD,
            "properties": {"pin_tries": {"user": 2}},
        }
    ]
    service.add(SESSION, "org.cardsession1.Session", State="unverified")
    (added,) = await objects(tool, 1)
    assert (added["event"], added["properties"]["state"]) == ("added", "unverified")
    service.say(SESSION, "org.cardsession1.Session", "Ended", "card-removed", {})
    service.remove(SESSION)
    service.say(
        "/org/cardsession1", "org.cardsession1.Manager", "CardGone", CARD, READER, "removed"
    )
    service.remove(CARD)
    assert await objects(tool, 4) == [
        {"event": "ended", "kind": "session", "path": SESSION, "reason": "card-removed"},
        {"event": "removed", "kind": "session", "path": SESSION},
        {"event": "card-gone", "kind": "card", "path": CARD, "reader": READER, "reason": "removed"},
        {"event": "removed", "kind": "card", "path": CARD},
    ]


async def test_lines(start: Start, service: FakeService) -> None:
    tool = await start("watch")
    there = [(await tool.line())[9:].rstrip() for _ in range(3)]
    assert there == [
        "cardsessiond: backend ok",
        f"reader {NAME}: state ready",
        f"card 1 in {NAME}: state ready, holder-id Ada Example, profile piv, pin-tries user 3,"
        " until 2030-01-01",
    ]
    service.change(CARD, PinTries={"user": 2}, PinTriesReadUSec=5)
    assert (await tool.line())[9:] == (f"card 1 in {NAME}: pin-tries user 2\n")
    service.change(CARD, PinTriesReadUSec=6)  # of no interest to a person
    service.change(CARD, HolderId="\x1b[2J\u202e")
    assert (await tool.line())[9:] == f"card 1 in {NAME}: holder-id \ufffd[2J\ufffd\n"
    service.remove(CARD)
    assert (await tool.line())[9:] == f"card 1 in {NAME}: gone\n"


async def test_the_daemon_goes_and_comes(bus: Bus, start: Start, service: FakeService) -> None:
    """The watcher stays: whoever restarts the daemon need not restart it too."""
    tool = await start("watch")
    await tool.until("card 1")
    await service.connection.close()
    assert "cardsessiond has left the bus" in await tool.line()
    async with await Connection.open(bus.address) as connection:
        add_card(await FakeService.start(connection), 5)
        assert "cardsessiond is on the bus" in await tool.line()
        await tool.until("card 5")
    tool.process.send_signal(signal.SIGINT)
    assert (await tool.end()).code == Exit.INTERRUPTED


async def test_a_live_table(at_terminal: AtTerminal, screen: Screen, service: FakeService) -> None:
    """It follows, and leaves the last state on the terminal."""
    process = await at_terminal("watch", term="xterm")
    await screen.until(b"Ada Example")
    service.change(CARD, HolderId="[red]Bob Beispiel")
    await screen.until(b"[red]Bob Beispiel")
    service.change(CARD, PinTries={"user": 0})
    await screen.until(b"user blocked")
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        assert await process.wait() == Exit.INTERRUPTED
    await screen.until(b"\x1b[?25h")  # the cursor is back
    assert b"Traceback" not in screen.shown


async def test_who_reads_us_has_enough(start: Start, service: FakeService) -> None:
    """`cardsessionctl watch | head -1`."""
    tool = await start("watch")
    await tool.until("card 1")
    transport = tool.process._transport  # type: ignore[attr-defined]
    transport.get_pipe_transport(1).close()
    async with asyncio.timeout(20):
        while tool.process.returncode is None:
            service.change(READER, InsertCount=service_count(service))
            await asyncio.sleep(0.01)
    assert tool.process.returncode == 128 + signal.SIGPIPE


def service_count(service: FakeService) -> int:
    """One more insertion."""
    count: int = service.objects[READER]["org.cardsession1.Reader"]["InsertCount"].value
    return count + 1


def test_every_event_has_words() -> None:
    """Those without facts by a table, the others by a match."""
    assert set(_BARE) == set(_SAID)
    assert set(_BARE) < set(Event.__args__)
