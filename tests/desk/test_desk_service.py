"""Desks and the service together: what leaves on the bus around a reply, and in which order."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Any

import pytest

from cardsession.bus import contract
from cardsession.bus.service import Service
from cardsession.core.session import State
from fakes.channel import is_verify_with_data, removed
from fakes.connection import FakeConnection
from fakes.counter import CANARY, WRONG, Counter, make_card, settle

READER_1 = f"{contract.CARDS}/1"
SESSION_1 = f"{contract.SESSIONS}/1"


class Served(Counter):
    """A counter whose publisher is the service, over a connection that leads nowhere."""

    connection: FakeConnection

    @classmethod
    async def start(cls) -> Served:
        """Everything wired together."""
        made = cls()
        made.connection = FakeConnection()
        service = Service(made.connection, "0", (900, 43_200))  # type: ignore[arg-type]
        made.desks._publisher = service
        made.desk.shown._office = _replaced(made.desk.shown._office, service)
        made.desk._office = made.desk._effects._office = made.desk.shown._office
        made.desk._effects._card._office = made.desk._office
        service.show(made.desk.shown.reader)
        await service.start(made.desks, spend_last_try="caller")
        return made

    async def opened(self) -> None:
        """A card in and a session open."""
        self.insert(make_card())
        await settle()
        self.connection.call(READER_1, contract.CARD, "OpenSession", "sa{sv}", "test", {})
        await settle()
        assert self.state is State.UNVERIFIED

    def verify_pin(self, text: str, index: int = 0) -> None:
        """VerifyPin with a pipe, as a caller makes it."""
        theirs, ours = os.pipe()
        os.write(ours, text.encode())
        os.close(ours)
        self.connection.call(
            SESSION_1, contract.SESSION, "VerifyPin", "sha{sv}", "user", index, {}, fds=(theirs,)
        )


def _replaced(office: Any, publisher: Service) -> Any:
    return replace(office, publisher=publisher)


async def told(counter: Served) -> None:
    """Until a reply left: the pipe is read in real time."""
    async with asyncio.timeout(10):
        while not any(" to VerifyPin" in each for each in counter.connection.order):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await settle()


async def test_insertion_is_told_in_order() -> None:
    counter = await Served.start()
    await counter.opened()
    assert counter.connection.order == [
        "InterfacesAdded", "CardReady", "InterfacesAdded", "reply to OpenSession",
    ]  # fmt: skip


@pytest.mark.parametrize("text", [CANARY, WRONG], ids=["right", "wrong"])
async def test_the_count_leaves_before_the_reply(text: str) -> None:
    counter = await Served.start()
    await counter.opened()
    counter.connection.sent.clear()
    counter.verify_pin(text)
    await told(counter)
    sent = counter.connection.sent
    reply = next(at for at, each in enumerate(sent) if each.what == "reply to VerifyPin")
    counts = [
        each.body[1]["PinTries"].value
        for each in sent[:reply]
        if each.what == "PropertiesChanged" and "PinTries" in each.body[1]
    ]
    assert counts == ([{}] if text == CANARY else [{"user": 2}])
    assert sent[reply].body == (("verified", -1) if text == CANARY else ("incorrect", 2))
    assert not [each for each in sent[reply:] if "PinTries" in str(each.body)]


async def test_a_card_pulled_in_a_call_the_call_is_answered_then_ended_then_gone() -> None:
    counter = await Served.start()
    await counter.opened()

    def pull(_: int, apdu: bytes) -> None:
        if is_verify_with_data(apdu):
            counter.pull()
            raise removed()

    counter.channel.pump.before = pull
    counter.connection.sent.clear()
    counter.verify_pin(WRONG)
    await told(counter)
    assert counter.connection.order == [
        "CardRemoved to VerifyPin", "Ended", "InterfacesRemoved", "CardGone", "InterfacesRemoved",
    ]  # fmt: skip


async def test_a_session_that_is_closed_is_gone_for_who_closed_it() -> None:
    counter = await Served.start()
    await counter.opened()
    counter.connection.sent.clear()
    counter.connection.call(SESSION_1, contract.SESSION, "Close")
    await settle()
    assert counter.connection.order == ["Ended", "InterfacesRemoved", "reply to Close"]


async def test_a_descriptor_that_was_never_sent_is_the_caller_s_mistake_and_nobody_else_s() -> None:
    counter = await Served.start()
    await counter.opened()
    counter.verify_pin(CANARY, index=5)
    await told(counter)
    assert counter.state is State.UNVERIFIED
    assert counter.channel.pump.verifies == []
    (reply,) = [each for each in counter.connection.order if "VerifyPin" in each]
    assert reply in {"InvalidArgs to VerifyPin", "SecretInvalid to VerifyPin"}


async def test_a_stranger_s_call_changes_nothing() -> None:
    counter = await Served.start()
    await counter.opened()
    for member in ("Close", "Lock", "KeepAlive", "TakeLifetime"):
        counter.connection.call(SESSION_1, contract.SESSION, member, sender=":1.9")
        await settle()
        assert counter.connection.order[-1] == f"NotOwner to {member}"
    assert counter.state is State.UNVERIFIED
