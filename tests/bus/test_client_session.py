"""Sessions and diagnostics through the client library, against a service that is told."""

from __future__ import annotations

import asyncio
import os

import pytest

from cardsession.bus import contract
from cardsession.bus.connection import Answer, Call, Connection, Refusal, Variant
from cardsession.bus.contract import ErrorName
from cardsession.client import (
    CardSessionClient,
    CardSessionError,
    Certificate,
    Ended,
    Permission,
    PinStatus,
    Removed,
    ServiceError,
    Signed,
    Transmitted,
    Verdict,
    errors,
)

from .fakeservice import CARD, SESSION, FakeService
from .util import CANARY, Connect, next_of, open_fds

PIN = CANARY.encode()


# -- sessions


async def test_open_session_sends_only_what_is_asked(
    client: CardSessionClient, service: FakeService
) -> None:
    session = await client.open_session(CARD, "dispensing")
    assert service.calls[-1] == ("OpenSession", ("dispensing", {}))
    await client.open_session(CARD, "x", wait_usec=5, idle_usec=6, used_by="someone", replace=True)
    assert service.calls[-1][1][1] == {
        "wait-usec": Variant("t", 5), "idle-usec": Variant("t", 6),
        "used-by": Variant("s", "someone"), "replace": Variant("b", True),
    }  # fmt: skip
    assert session.info is not None
    assert session.info.owner == client.unique_name
    assert client.sessions() == (session.info,)


async def test_refusals_are_typed(client: CardSessionClient, service: FakeService) -> None:
    def refuse(call: Call) -> Answer:
        raise Refusal(ErrorName.BUSY, "one session per card")

    service.answers["OpenSession"] = refuse
    with pytest.raises(errors.Busy, match="one session per card"):
        await client.open_session(CARD, "test")


@pytest.mark.parametrize("kind", [bytes, bytearray])
async def test_the_secret_goes_through_a_descriptor(
    client: CardSessionClient, service: FakeService, kind: type[bytes] | type[bytearray]
) -> None:
    service.answers["VerifyPin"] = lambda call: Answer("si", ("incorrect", 2))
    session = await client.open_session(CARD, "test")
    before = open_fds()
    secret = kind(PIN)
    assert await session.verify_pin(secret) == Verdict("incorrect", 2)
    assert service.secrets == [PIN]
    assert service.calls[-1] == ("VerifyPin", ("user", 0, {}))
    assert secret == PIN  # the caller's, to be wiped by the caller
    await session.verify_pin(b"", "signature", spend_last_try=True, accept_unknown=True)
    assert service.calls[-1][1] == ("signature", 0, {
        "spend-last-try": Variant("b", True), "accept-unknown": Variant("b", True),
    })  # fmt: skip
    assert service.secrets[-1] == b""
    assert open_fds() == before


async def test_a_count_of_minus_one_is_unknown(
    client: CardSessionClient, service: FakeService
) -> None:
    service.answers["VerifyPin"] = lambda call: Answer("si", ("uncertain", -1))
    service.answers["QueryPin"] = lambda call: Answer("si", ("blocked", 0))
    session = await client.open_session(CARD, "test")
    assert await session.verify_pin(PIN) == Verdict("uncertain", None)
    assert await session.query_pin() == PinStatus("blocked", 0)


async def test_secrets_are_not_strings_and_not_in_errors(
    client: CardSessionClient, service: FakeService
) -> None:
    session = await client.open_session(CARD, "test")
    calls = len(service.calls)
    with pytest.raises(TypeError) as wrong_type:
        await session.verify_pin(CANARY)  # type: ignore[arg-type]
    with pytest.raises(ValueError) as too_long:
        await session.change_pin(PIN, PIN * 9)
    assert CANARY not in str(wrong_type.value) + str(too_long.value)
    assert len(service.calls) == calls
    before = open_fds()
    with pytest.raises(ServiceError) as refused:
        await session.verify_pin(PIN)
    assert CANARY not in str(refused.value)
    assert open_fds() == before


async def test_the_other_operations(client: CardSessionClient, service: FakeService) -> None:
    service.answers |= {
        "ChangePin": lambda call: Answer("si", ("changed", 3)),
        "UnblockPin": lambda call: Answer("si", ("unblocked", -1)),
        "Sign": lambda call: Answer("ay", (b"sig",)),
        "SignWithPin": lambda call: Answer("siay", ("verified", -1, b"sig")),
        "Transmit": lambda call: Answer("ayq", (b"\x01", 0x9000)),
        "SetContext": lambda call: Answer(),
        "KeepAlive": lambda call: Answer(),
        "Lock": lambda call: Answer(),
        "CheckFunction": lambda call: Answer("bs", (False, "not-owner")),
        "ListCertificates": lambda call: Answer("a(ssxx)", ([["signature", "CN=x", 1, 2]],)),
        "GetCertificate": lambda call: Answer("ay", (b"der",)),
    }
    session = await client.open_session(CARD, "test")
    assert await session.change_pin(b"1", b"2") == Verdict("changed", 3)
    assert await session.unblock_pin(b"3", b"4") == Verdict("unblocked", None)
    assert service.secrets == [b"1", b"2", b"3", b"4"]
    assert await session.sign("signature", "ecdsa-sha256", bytes(32)) == b"sig"
    signed = await session.sign_with_pin("signature", "ecdsa-sha256", bytes(32), PIN)
    assert signed == Signed("verified", None, b"sig")
    assert await session.transmit(b"\x00\x84\x00\x00\x08") == Transmitted(b"\x01", 0x9000)
    await session.set_context({"ods-code": "FA123"})
    assert service.calls[-1][1] == ({"ods-code": "FA123"},)
    await session.keep_alive()
    await session.lock()
    assert await client.check_function("claim") == Permission(False, "not-owner")
    assert ("CheckFunction", ("claim", "/")) in service.calls
    assert await client.list_certificates(CARD) == (Certificate("signature", "CN=x", 1, 2),)
    assert await client.get_certificate(CARD, "signature") == b"der"


async def test_lifetime(client: CardSessionClient, service: FakeService) -> None:
    ours, theirs = os.pipe()
    service.answers["TakeLifetime"] = lambda call: Answer("h", (0,), (theirs,))
    session = await client.open_session(CARD, "test")
    fd = await session.take_lifetime()
    os.set_blocking(ours, False)
    with pytest.raises(BlockingIOError):
        os.read(ours, 1)
    os.close(fd)
    assert os.read(ours, 1) == b""
    os.close(ours)


async def test_the_end_is_told_with_its_reason(
    client: CardSessionClient, service: FakeService
) -> None:
    session = await client.open_session(CARD, "test")
    events = client.events()
    service.say(SESSION, contract.SESSION, "Ended", "card-removed", {"by": Variant("s", "x")})
    service.remove(SESSION)
    async with asyncio.timeout(20):
        assert await session.ended == "card-removed"
    ended, removed = await next_of(events, 2)
    assert ended == Ended(SESSION, "card-removed", {"by": "x"})
    assert isinstance(removed, Removed)
    assert session.end_reason == "card-removed" and session.info is None


async def test_an_end_that_overtakes_us_is_not_lost(
    client: CardSessionClient, service: FakeService
) -> None:
    """The session ends right behind the reply that opens it."""

    def opened(call: Call) -> Answer:
        service.add(SESSION, contract.SESSION, Owner=call.sender)
        asyncio.get_running_loop().call_soon(ended)
        return Answer("o", (SESSION,))

    def ended() -> None:
        service.say(SESSION, contract.SESSION, "Ended", "suspend", {})
        service.remove(SESSION)

    service.answers["OpenSession"] = opened
    session = await client.open_session(CARD, "test")
    async with asyncio.timeout(20):
        assert await session.ended == "suspend"


async def test_giving_up_on_the_end_does_not_break_it(
    client: CardSessionClient, service: FakeService
) -> None:
    session = await client.open_session(CARD, "test")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await session.ended
    service.say(SESSION, contract.SESSION, "Ended", "closed", {})
    async with asyncio.timeout(20):
        assert await session.ended == "closed"


async def test_a_session_is_closed_at_the_end_of_its_block(
    client: CardSessionClient, service: FakeService
) -> None:
    service.answers["Close"] = lambda call: Answer()
    async with await client.open_session(CARD, "test"):
        pass
    assert service.calls[-1][0] == "Close"
    service.answers.pop("Close")
    async with await client.open_session(CARD, "test"):
        pass  # the refusal of Close is no matter: it is over one way or another


# -- diagnostics


async def test_diagnostics(client: CardSessionClient, service: FakeService) -> None:
    lines = b'{"event": "a"}\n\n{"event": "b"}\n'

    def history(call: Call) -> Answer:
        source, sink = os.pipe()
        os.write(sink, lines)
        os.close(sink)
        return Answer("h", (0,), (source,))

    report = {"a": Variant("a(sv)", [["x", Variant("u", 1)]])}
    done = ("Rescan", "EndSession", "SetLogLevel", "SetTrace")
    service.answers |= {name: lambda call: Answer() for name in done}
    service.answers |= {
        "GetReport": lambda call: Answer("a{sv}", (report,)),
        "GetMetrics": lambda call: Answer("a{sv}", ({},)),
        "GetHistory": history,
    }
    diagnostics = client.diagnostics
    before = open_fds()
    assert await diagnostics.report() == {"a": (("x", 1),)}
    assert await diagnostics.metrics() == {}
    found = await diagnostics.history(since_usec=5, reader="r1")
    assert found == [{"event": "a"}, {"event": "b"}]
    assert service.calls[-1][1][0] == {"since-usec": Variant("x", 5), "reader": Variant("s", "r1")}
    assert open_fds() == before
    await diagnostics.rescan()
    await diagnostics.end_session(SESSION, "stuck")
    await diagnostics.set_log_level("debug")
    await diagnostics.set_trace(True)
    assert [name for name, _ in service.calls[-4:]] == list(done)


async def test_an_unexpected_reply_is_an_error(
    client: CardSessionClient, service: FakeService
) -> None:
    service.answers["CheckFunction"] = lambda call: Answer(
        "h", (0,), (os.open("/dev/null", os.O_RDONLY),)
    )
    before = open_fds()
    with pytest.raises(CardSessionError):
        await client.check_function("claim")
    assert open_fds() == before


async def test_a_stranger_cannot_speak_for_the_service(
    client: CardSessionClient, service: FakeService, connect: Connect
) -> None:
    stranger: Connection = await connect()
    session = await client.open_session(CARD, "test")
    stranger.emit(
        SESSION, contract.SESSION, "Ended", "sa{sv}", ("closed", {}), destination=client.unique_name
    )
    await stranger.call(client.unique_name, "/", None, "Ping")
    assert session.end_reason is None
