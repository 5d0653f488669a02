"""Every method of the contract, called by callers who send anything.

Each call has one answer, with a name of the contract's; never `Internal`, never a word of a secret,
and at most one secret goes to the card.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import event
from hypothesis import strategies as st

from cardsession.bus.connection import BusError, Connection
from cardsession.bus.contract import BUS_NAME, ErrorName
from cardsession.stack import Bus
from fakes.connection import FakeConnection
from fakes.piv import sent
from fuzz.callers import CARD, SESSION, Hostile, Whole, calls, chip, closed_after, opened, settle
from fuzz.cases import explore, fuzz, quiet, silent
from fuzz.hostile import PLANS, Plan
from fuzz.hostile import Hostile as Liar

OPEN = Hostile(CARD, "org.cardsession1.Card", "OpenSession", "sa{sv}", ("test", {}))
VERIFY = Hostile(SESSION, "org.cardsession1.Session", "VerifyPin", "sha{sv}", ("user", 0, {}),
                 ("right",))  # fmt: skip
NAMES = {each.rsplit(".", 1)[1] for each in ErrorName} - {"Internal"}
DONE = 20.0


class Counter:
    """A daemon whose bus leads nowhere, and those who call it."""

    def __init__(self, liar: Any) -> None:
        self.connection = FakeConnection()
        self.whole = Whole(self.connection, liar)

    async def call(self, hostile: Hostile, sender: str = ":1.7") -> None:
        """One call, and its answer."""
        before, spent = len(self.connection.replies()), len(sent(self.whole.channel.pump))
        path = hostile.at(*self.whole.newest())
        body = hostile.read()
        self.connection.call(
            path, hostile.interface, hostile.member, hostile.signature, *body,  # type: ignore[arg-type]
            fds=opened(hostile.fds), sender=sender,
        )  # fmt: skip
        await self.answered(before + 1)
        replies = self.connection.replies()
        assert len(replies) == before + 1, replies[before:]
        what = replies[-1].what
        assert what.startswith("reply to ") or what.split(" ")[0] in NAMES, what
        assert len(sent(self.whole.channel.pump)) - spent <= 1, "two secrets"
        event(what.split(" ")[0])

    async def answered(self, number: int) -> None:
        """Time goes by on the desks' clock only if nothing else happens."""
        async with asyncio.timeout(DONE):
            turns = 0
            while len(self.connection.replies()) < number:
                await asyncio.sleep(0.001 if turns % 5 == 4 else 0)
                turns += 1
                if turns % 60 == 0:
                    self.whole.clock.advance(1.0)
        await settle(10)


ACTS = st.one_of(
    calls(), calls(), calls(), calls(),
    st.sampled_from(["pull", "insert", "leave", "minute", "open", "verify"]),
)  # fmt: skip


async def _day(liar: Any, acts: list[Hostile | str]) -> None:
    counter = Counter(liar)
    await counter.whole.start()
    for act in acts:
        match act:
            case Hostile():
                await counter.call(act)
            case "pull" | "insert":
                counter.whole.lies(act == "insert")
            case "leave":
                with suppress(KeyError):
                    counter.connection.leaves(":1.7")
            case "minute":
                counter.whole.clock.advance(61)
            case "open":
                await counter.call(OPEN)
            case "verify":
                await counter.call(VERIFY)
        await settle(15)
    await counter.whole.stop()
    assert not counter.whole.channel.holding
    given = set(counter.connection.given)
    counter.connection.cancel()
    await settle()
    for fd in given:  # a lifetime that was taken is the caller's
        with suppress(OSError):
            os.close(fd)
    silent(repr(counter.connection.sent))


def _run(liar: Any, acts: list[Any]) -> None:
    fell: list[dict[str, Any]] = []
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(lambda _, context: fell.append(context))
        runner.run(_day(liar, acts))
    assert not fell, fell


@pytest.mark.slow
@fuzz(600, st.integers(0, 3), st.lists(ACTS, min_size=1, max_size=5), st.integers(0, 2))
def test_any_call(which: int, acts: list[Any], prepared: int) -> None:
    _run(chip(which), [*["open", "verify"][:prepared], *acts])


@pytest.mark.slow
@fuzz(400, st.integers(0, 3), PLANS, st.lists(ACTS, max_size=4), st.integers(0, 2))
def test_any_call_with_a_card_that_lies(
    which: int, plan: Plan, acts: list[Any], prepared: int
) -> None:
    """A desk is at fault for nothing that a card says."""
    _run(Liar(chip(which), plan), [*["open", "verify"][:prepared], *acts])


def test_any_call_over_a_real_bus(bus: Bus) -> None:
    """Sent through dbus-daemon, which passes on what it takes for sound."""
    with asyncio.Runner() as runner:
        fell: list[dict[str, Any]] = []
        runner.get_loop().set_exception_handler(lambda _, context: fell.append(context))
        service, caller = runner.run(_connected(bus.address))
        whole = runner.run(_daemon(service))

        def real_call(hostile: Hostile, opens: bool) -> None:
            runner.run(_real(whole, caller, [*([OPEN] if opens else []), hostile]))
            assert not fell, fell

        explore(500, real_call, calls(), st.booleans())
        runner.run(_alive(caller))
        runner.run(_end(whole, service, caller))
        assert not fell, fell


async def _daemon(service: Connection) -> Whole:
    whole = Whole(service, chip(0))
    await whole.start()
    return whole


async def _connected(address: str) -> tuple[Connection, Connection]:
    return await Connection.open(address), await Connection.open(address)


async def _real(whole: Whole, caller: Connection, batch: list[Hostile]) -> None:
    for hostile in batch:
        path = hostile.at(*whole.newest())
        with closed_after(hostile.fds) as fds:
            call = asyncio.ensure_future(
                caller.call(BUS_NAME, path, hostile.interface, hostile.member, hostile.signature,
                            hostile.body, fds)
            )  # fmt: skip
            async with asyncio.timeout(DONE):
                while not call.done():
                    await asyncio.wait([call], timeout=0.05)
                    if not call.done():
                        whole.clock.advance(1.0)
            try:
                reply = call.result()
            except BusError as error:
                known(error)
            except ValueError:
                pass  # the library of the caller does not send it
            else:
                for fd in reply.fds:
                    os.close(fd)
    for each in whole.desks.sessions():
        with suppress(BusError):
            await caller.call(BUS_NAME, f"/org/cardsession1/session/{each.number}",
                              "org.cardsession1.Session", "Close")  # fmt: skip
    whole.clock.advance(1.0)
    await settle()


async def _alive(caller: Connection) -> None:
    reply = await caller.call(BUS_NAME, "/org/cardsession1", "org.cardsession1.Manager",
                              "ListReaders")  # fmt: skip
    assert reply.body[0]


def known(error: BusError) -> None:
    """One of the contract's names, and quiet."""
    assert error.name.rsplit(".", 1)[1] in NAMES, error.name
    quiet(error)


async def _end(whole: Whole, *connections: Connection) -> None:
    await whole.stop()
    for each in connections:
        await each.close()
