"""Desks and the service together: what leaves on the bus around a reply, and in which order."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from cardsession.bus import contract
from cardsession.bus.service import Service
from cardsession.bus.values import Constants
from cardsession.core.policy import Removal
from cardsession.core.states import State
from fakes.channel import is_verify_with_data, removed
from fakes.connection import FakeConnection, Sent
from fakes.counter import CANARY, WRONG, Counter, make_card, settle

READER_1 = f"{contract.CARDS}/1"
CONSTANTS = Constants("0", Removal.END, 900, 43_200)
SESSION_1 = f"{contract.SESSIONS}/1"


class Served(Counter):
    """A counter whose publisher is the service, over a connection that leads nowhere."""

    connection: FakeConnection
    silent: list[int]
    """Writing ends of pipes that nobody writes to; the test's to close."""

    @classmethod
    async def start(cls) -> Served:
        """Everything wired together."""
        made = cls()
        made.connection = FakeConnection()
        made.silent = []
        service = Service(made.connection, CONSTANTS)  # type: ignore[arg-type]
        for each in ("show", "withdraw", "ended", "card_ready", "card_gone", "backend"):
            setattr(made.publisher, each, getattr(service, each))
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

    async def active(self) -> None:
        """The same, and the right passcode."""
        await self.opened()
        self.verify_pin(CANARY)
        await told(self)
        assert self.state is State.ACTIVE
        self.connection.sent.clear()

    def ask(self, member: str, *body: Any, secrets: tuple[str | None, ...] = ()) -> None:
        """A session's method with pipes, as a caller makes them; None is never written to."""
        fds = []
        for text in secrets:
            theirs, ours = os.pipe()
            fds.append(theirs)
            if text is None:
                self.silent.append(ours)
            else:
                os.write(ours, text.encode())
                os.close(ours)
        signature = contract.method(contract.SESSION, member).in_signature
        self.connection.call(SESSION_1, contract.SESSION, member, signature, *body, fds=tuple(fds))

    def verify_pin(self, text: str, index: int = 0) -> None:
        """VerifyPin."""
        self.ask("VerifyPin", "user", index, {}, secrets=(text,))

    async def answer(self, member: str, *body: Any, secrets: tuple[str, ...] = ()) -> Sent:
        """The same, and its reply."""
        self.connection.sent.clear()
        self.ask(member, *body, secrets=secrets)
        await told(self, member)
        (reply,) = self.connection.replies()
        return reply


async def told(counter: Served, member: str = "VerifyPin") -> None:
    """Until a reply left: the pipe is read in real time."""
    async with asyncio.timeout(20):
        while not any(f" to {member}" in each for each in counter.connection.order):  # noqa: ASYNC110
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


# what else a session does, over the same way

DIGEST = bytes(range(32))
SIGN = ("authentication", "ecdsa-sha256", DIGEST)
NEW = "24681357"


async def test_a_changed_passcode_and_then_the_new_one() -> None:
    counter = await Served.start()
    await counter.opened()
    reply = await counter.answer("ChangePin", "user", 0, 1, {}, secrets=(CANARY, NEW))
    assert (reply.what, reply.body[0]) == ("reply to ChangePin", "changed")
    assert (await counter.answer("VerifyPin", "user", 0, {}, secrets=(NEW,))).body[0] == "verified"


async def test_a_wrong_old_passcode_costs_its_try_and_the_count_leaves_first() -> None:
    counter = await Served.start()
    await counter.opened()
    reply = await counter.answer("ChangePin", "user", 0, 1, {}, secrets=(WRONG, NEW))
    assert reply.body == ("incorrect", 2)
    sent = counter.connection.sent
    counted = [at for at, each in enumerate(sent) if "PinTries" in str(each.body)]
    assert counted and max(counted) < sent.index(reply)


async def test_a_puk_is_not_taken_unless_the_site_says_so() -> None:
    counter = await Served.start()
    await counter.opened()
    reply = await counter.answer("UnblockPin", "user", 0, 1, {}, secrets=(WRONG, NEW))
    assert reply.what == "NotSupported to UnblockPin"


async def test_no_pin_has_an_empty_label() -> None:
    """It stands for the PIN that guards a key, in SignWithPin only."""
    counter = await Served.start()
    await counter.opened()
    for member, secrets in (("VerifyPin", (CANARY,)), ("ChangePin", (CANARY, NEW))):
        reply = await counter.answer(member, "", *range(len(secrets)), {}, secrets=secrets)
        assert reply.what == f"NoSuchPin to {member}"
    assert counter.channel.pump.verifies == []


async def test_before_a_passcode_nothing_is_signed_sent_or_attached() -> None:
    counter = await Served.start()
    await counter.opened()
    asked: dict[str, tuple[Any, ...]] = {
        "Sign": (*SIGN, {}),
        "Transmit": (bytes.fromhex("00CB3FFF055C035FC102"), {}),
        "SetContext": ({"ods-code": "FA123"},),
    }
    for member, body in asked.items():
        assert (await counter.answer(member, *body)).what == f"NotVerified to {member}"
    reply = await counter.answer("SignWithPin", *SIGN, 0, {}, secrets=(CANARY,))
    assert reply.what == "NotVerified to SignWithPin"
    assert counter.channel.pump.verifies == []


async def test_what_an_active_session_is_for() -> None:
    counter = await Served.start()
    await counter.active()
    signed = await counter.answer("Sign", *SIGN, {})
    assert (signed.what, signed.body[0][:1]) == ("reply to Sign", b"\x30"), "DER"
    with_pin = await counter.answer("SignWithPin", *SIGN, 0, {}, secrets=(CANARY,))
    assert with_pin.body[:2] == ("verified", -1)
    assert with_pin.body[2][:1] == b"\x30"
    read = await counter.answer("Transmit", bytes.fromhex("00CB3FFF055C035FC10200"), {})
    assert (read.what, read.body[1]) == ("reply to Transmit", 0x9000)


async def test_an_apdu_that_would_spend_a_try_is_filtered() -> None:
    counter = await Served.start()
    await counter.active()
    before = len(counter.channel.pump.verifies)
    apdu = bytes.fromhex("0020008008") + WRONG.encode()
    assert (await counter.answer("Transmit", apdu, {})).what == "ApduFiltered to Transmit"
    assert (await counter.answer("Transmit", b"\x00", {})).what == "InvalidApdu to Transmit"
    assert len(counter.channel.pump.verifies) == before


async def test_a_context_is_shown_before_its_reply() -> None:
    counter = await Served.start()
    await counter.active()
    context = {"ods-code": "FA123"}
    await counter.answer("SetContext", context)
    shown, reply = counter.connection.sent
    assert shown.body[1]["Context"].value == context
    assert reply.what == "reply to SetContext"
    wrong = await counter.answer("SetContext", {"shoe-size": "43"})
    assert wrong.what == "InvalidContext to SetContext"


async def test_an_owner_that_leaves_while_its_secrets_are_read() -> None:
    counter = await Served.start()
    await counter.opened()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (counted, not looked at)
    counter.connection.sent.clear()
    counter.ask("ChangePin", "user", 0, 1, {}, secrets=(CANARY, None))
    await settle()
    counter.connection.leaves(":1.7")
    async with asyncio.timeout(20):
        while "InterfacesRemoved" not in counter.connection.order:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await settle()
    told = {each.what: each.body for each in counter.connection.sent}
    assert told["Ended"][0] == "owner-vanished"
    assert counter.channel.pump.verifies == []
    for end in counter.silent:
        os.close(end)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
