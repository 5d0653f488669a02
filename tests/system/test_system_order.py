"""What comes first on the bus, as `busctl monitor` saw it: none of our code takes part."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from cardsession.bus.connection import BusError
from cardsession.stack import Bus, Card, Child, Daemon
from cardsession.stack.monitor import Message, Monitor
from system.subscriber import NAME, Subscriber


@pytest.fixture
def monitor(bus: Bus, rundir: Path, begin: Callable[[Child], Child]) -> Monitor:
    """Watches the bus from before the daemon is there."""
    return begin(Monitor(rundir, bus.address))  # type: ignore[return-value]


def changed(message: Message, name: str) -> bool:
    return message.member == "PropertiesChanged" and name in message.body[1]


def answers(message: Message, asked: Message) -> bool:
    """Whether it is the answer to that call: another caller's may have the same number."""
    return (message.reply_cookie, message.destination) == (asked.cookie, asked.sender)


def removed(message: Message) -> bool:
    return message.member == "InterfacesRemoved"


async def test_count_before_reply_and_reply_before_farewell(
    bus: Bus, monitor: Monitor, daemons: Callable[[], Daemon], cards: Callable[..., Card]
) -> None:
    daemons()
    card = cards()
    async with await Subscriber.open(bus.address) as seen:
        card.insert()
        path, _ = await seen.card_in_state("ready")
        session = await seen.open_session(path)
        await seen.verify(session, b"00000000")
        card.tell("pull-at", n=card.status()["exchanges"] + 4, stage="after")
        with contextlib.suppress(BusError):
            await seen.verify(session, b"00000000")
        await seen.no_card()

    asked = monitor.find("VerifyPin", lambda each: each.member == "VerifyPin")
    reply = monitor.find("its reply", lambda each: answers(each, asked))
    count = monitor.find("the count", lambda each: changed(each, "PinTries"), after=asked.number)
    assert reply.body == ("incorrect", 2)
    assert asked.number < count.number < reply.number

    again = monitor.find(
        "the second VerifyPin", lambda each: each.member == "VerifyPin", after=reply.number
    )
    refusal = monitor.find("its error", lambda each: answers(each, again))
    ended = monitor.find("Ended", lambda each: each.member == "Ended")
    monitor.find("the card goes", lambda each: removed(each) and each.body[0] == path)
    gone = [each.body[0] for each in monitor.messages() if removed(each)]
    assert again.number < refusal.number < ended.number
    assert gone == [session, path]


async def test_nothing_is_signalled_before_the_name_is_ours(
    rundir: Path, begin: Callable[[Child], Child], daemons: Callable[[], Daemon], monitor: Monitor
) -> None:
    daemon = daemons()
    owned = monitor.find(
        "the name has an owner",
        lambda each: each.member == "NameOwnerChanged" and each.body[0] == NAME,
    )
    first = monitor.find(
        "the first signal of the daemon",
        lambda each: each.type == "signal" and each.sender == owned.body[2],
    )
    assert owned.number < first.number
    assert daemon.ready
