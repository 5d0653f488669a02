"""The connection over a real dbus-daemon: calls, errors, names, the end."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress

import pytest
import structlog

from cardsession.bus import serving
from cardsession.bus.connection import (
    Answer,
    BusError,
    BusGone,
    Call,
    Connection,
    NameTaken,
    Refusal,
    Variant,
)
from cardsession.bus.contract import ErrorName
from cardsession.bus.frames import Flag, Kind
from cardsession.bus.wire import encode

from .util import CANARY, Bus, Connect, Until, ask, close_and_wait, echo, open_fds, pair, run

# -- calls


async def test_values_go_both_ways(connect: Connect) -> None:
    server, client = await pair(connect)
    body = (
        "é", 1, -2, True, 1.5, b"\x00\xff", ["a", "b"], {"k": Variant("a(si)", [["x", 1]])},
        [["/o", {"p": {"q": Variant("ay", b"1")}}]],
    )  # fmt: skip
    reply = await ask(client, server, "Do", "sqibdayasa{sv}a(oa{sa{sv}})", body)
    assert reply.body == body


async def test_tuples_are_taken_for_structs_and_arrays(connect: Connect) -> None:
    server, client = await pair(connect)
    reply = await ask(client, server, "Do", "a(ss)ay", ((("a", "b"), ("c", "d")), bytearray(b"1")))
    assert reply.body == ([["a", "b"], ["c", "d"]], b"1")


async def test_interleaved_calls_know_their_senders(connect: Connect) -> None:
    server = await connect()

    async def handler(call: Call) -> Answer:
        await asyncio.sleep(0.001 * (call.body[0] % 3))
        return Answer("s", (call.sender,))

    server.serve(handler)
    clients = [await connect() for _ in range(4)]
    asked = [(client, n) for n in range(20) for client in clients]
    replies = await asyncio.gather(*(ask(client, server, "Do", "u", (n,)) for client, n in asked))
    assert [reply.body[0] for reply in replies] == [client.unique_name for client, _ in asked]


async def test_a_call_without_an_interface_is_answered(connect: Connect, bus: str) -> None:
    server, client = await pair(connect)
    seen: list[str | None] = []

    async def handler(call: Call) -> Answer:
        seen.append(call.interface)
        return Answer()

    server.serve(handler)
    await client.call(server.unique_name, "/a", None, "Do")
    assert seen == [None]
    command = ["dbus-send", f"--bus={bus}", "--print-reply", f"--dest={server.unique_name}"]
    await run(*command, "/x", "org.freedesktop.DBus.Peer.Ping")


async def test_peer_is_answered_twice_and_anywhere(connect: Connect) -> None:
    server, client = await connect(), await connect()
    name = server.unique_name
    for interface in ("org.freedesktop.DBus.Peer", None):
        for path in ("/", "/any/where"):
            assert (await client.call(name, path, interface, "Ping")).body == ()
            reply = await client.call(name, path, interface, "GetMachineId")
            assert len(bytes.fromhex(reply.body[0])) == 16
    with pytest.raises(BusError) as caught:
        await client.call(name, "/", "org.freedesktop.DBus.Peer", "Pong")
    assert caught.value.name == ErrorName.UNKNOWN_METHOD


async def test_nobody_serving_is_an_unknown_method(connect: Connect) -> None:
    server, client = await connect(), await connect()
    with pytest.raises(BusError) as caught:
        await ask(client, server)
    assert caught.value.name == ErrorName.UNKNOWN_METHOD


async def test_no_reply_is_sent_where_none_is_wanted(connect: Connect, until: Until) -> None:
    server, client = await connect(), await connect()
    done: list[str] = []
    flushed: list[bool] = []

    async def handler(call: Call) -> Answer:
        done.append(call.member)
        match call.member:
            case "Refused":
                raise Refusal(ErrorName.BUSY, "no")
            case "Failed":
                raise RuntimeError("no")
        return Answer("h", (0,), (os.open("/dev/null", os.O_RDONLY),))

    server.serve(handler, before_reply=lambda: flushed.append(True))
    before = open_fds()
    for member in ("Good", "Refused", "Failed"):
        data = encode(
            Kind.CALL, 90, "", (), flags=Flag.NO_REPLY_EXPECTED, path="/", interface="a.b",
            member=member, destination=server.unique_name,
        )  # fmt: skip
        client._stream.send(data)
    await until(lambda: len(done) == 3 and server.calls_running == 0)
    assert flushed == []
    assert server.queued_messages == 0
    assert open_fds() == before
    server.serve(echo)
    assert (await ask(client, server, "Do", "s", ("still there",))).body == ("still there",)


async def test_no_reply_in_time(connect: Connect, until: Until) -> None:
    server, client = await connect(), await connect()
    go = asyncio.Event()

    async def handler(call: Call) -> Answer:
        await go.wait()
        return Answer("h", (0,), (os.open("/dev/null", os.O_RDONLY),))

    server.serve(handler)
    before = open_fds()
    with pytest.raises(BusError) as caught:
        await client.call(server.unique_name, "/", "a.b", "Do", timeout=0.05)
    assert caught.value.name == ErrorName.NO_REPLY
    go.set()
    await until(lambda: server.calls_running == 0)
    await client.call(client.unique_name, "/", None, "Ping")  # the late reply was read before this
    assert open_fds() == before
    assert client._pending == {}


async def test_before_reply_comes_before_each_reply_and_error(connect: Connect) -> None:
    server, client = await connect(), await connect()
    heard: list[str] = []

    async def handler(call: Call) -> Answer:
        if call.member == "Refused":
            raise Refusal(ErrorName.BUSY, "no")
        if call.member == "Failed":
            raise RuntimeError("no")
        return Answer()

    server.serve(handler, lambda: server.emit("/a", "a.b", "Changed"))
    await client.subscribe(lambda each: heard.append(each.member), sender=server.unique_name)
    for count, member in enumerate(("Good", "Refused", "Failed"), start=1):
        with suppress(BusError):
            await ask(client, server, member)
        assert heard == ["Changed"] * count


async def test_a_failing_before_reply_does_not_cost_the_reply(connect: Connect) -> None:
    def fail() -> None:
        raise RuntimeError(CANARY)

    server, client = await pair(connect)
    server.serve(echo, fail)
    with structlog.testing.capture_logs() as logs:
        assert (await ask(client, server, "Do", "s", ("x",))).body == ("x",)
    assert [entry["event"] for entry in logs] == ["publish.failed"]


# -- errors


async def test_a_refusal_is_that_error(connect: Connect) -> None:
    server, client = await connect(), await connect()

    async def handler(call: Call) -> Answer:
        raise Refusal(ErrorName.BUSY, "text\0 with \ud800 rubbish")

    server.serve(handler)
    with structlog.testing.capture_logs() as logs, pytest.raises(BusError) as caught:
        await ask(client, server)
    assert (caught.value.name, caught.value.text) == (ErrorName.BUSY, "text\ufffd with ? rubbish")
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("call.refused", "debug")]


@pytest.mark.parametrize("kind", ["raise", "cancel", "unfit", "name"])
async def test_our_own_faults_stay_ours(connect: Connect, kind: str) -> None:
    server, client = await connect(), await connect()

    async def handler(call: Call) -> Answer:
        secret = CANARY
        match kind:
            case "raise":
                raise RuntimeError(f"the passcode is {secret}")
            case "cancel":
                raise asyncio.CancelledError(secret)
            case "unfit":
                return Answer("u", (secret,))
            case _:
                raise Refusal("not a name", secret)

    server.serve(handler)
    with structlog.testing.capture_logs() as logs:
        for _ in range(100):
            with pytest.raises(BusError) as caught:
                await ask(client, server)
            assert caught.value.name == ErrorName.INTERNAL
            assert caught.value.text == serving.INTERNAL_TEXT
    failed = [entry for entry in logs if entry["event"] == "call.failed"]
    assert len(failed) == 1, "a caller must not be able to fill the journal"
    assert failed[0]["exception_type"]
    assert "handler" in str(failed[0]["traceback"]) or kind in {"unfit", "name"}
    assert CANARY not in str(logs)
    assert all(entry["log_level"] == "debug" for entry in logs if entry not in failed)


def test_what_was_not_said_is_counted() -> None:
    now = [0.0]
    failures = serving.FailureLog(lambda: now[0])

    def fail() -> None:
        try:
            raise KeyError("x")
        except KeyError as error:
            failures.report("call.failed", error)

    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            fail()
        now[0] = 61.0
        fail()
    assert [entry["unsaid"] for entry in logs] == [0, 4]


# -- names and credentials


async def test_a_name_has_one_owner(connect: Connect) -> None:
    first, second = await connect(), await connect()
    await first.own_name("org.cardsession1")
    await first.own_name("org.cardsession1")
    with pytest.raises(NameTaken):
        await second.own_name("org.cardsession1")
    with pytest.raises(BusError) as caught:
        await second.own_name("org.example.Forbidden")
    assert caught.value.name == ErrorName.ACCESS_DENIED
    await close_and_wait(first, second)
    await second.own_name("org.cardsession1")


async def test_credentials(connect: Connect) -> None:
    first, second = await connect(), await connect()
    found = await first.credentials(second.unique_name)
    assert (found.uid, found.pid) == (os.getuid(), os.getpid())
    assert found.groups is not None and os.getgid() in found.groups
    await close_and_wait(second, first)
    with pytest.raises(BusError):
        await first.credentials(second.unique_name)


# -- the end


async def test_the_bus_goes_away(bus_process: Bus, until: Until) -> None:
    address, process = bus_process
    before = open_fds()
    server, client = await Connection.open(address), await Connection.open(address)
    running = asyncio.Event()

    async def handler(call: Call) -> Answer:
        running.set()
        await asyncio.sleep(3600)
        return Answer()

    server.serve(handler)
    fd = os.open("/dev/null", os.O_RDONLY)
    pending = asyncio.create_task(ask(client, server, "Do", "h", (0,), (fd,)))
    await running.wait()
    os.close(fd)
    process.send_signal(signal.SIGKILL)
    async with asyncio.timeout(20):
        with pytest.raises(BusGone, match="disconnected"):
            await pending
        await client.closed
        await server.closed
        with pytest.raises(BusGone):
            await ask(client, server)
        with pytest.raises(BusGone):
            await client.subscribe(lambda each: None)
        await client.drain()
    client.emit("/", "a.b", "Nobody")
    await until(lambda: server.calls_running == 0)
    await client.close()
    await server.close()
    assert open_fds() == before


async def test_close_delivers_what_is_queued_and_leaks_nothing(
    connect: Connect, bus: str, until: Until
) -> None:
    client = await connect()
    got: list[int] = []
    await client.subscribe(lambda each: got.append(each.body[0]), interface="a.b")
    before = open_fds()
    async with await Connection.open(bus) as server:
        for number in range(1000):
            server.emit("/a", "a.b", "Count", "u", (number,))
    assert server.closed.done()
    await until(lambda: len(got) == 1000)
    assert open_fds() == before


async def test_a_handler_may_close_the_connection(connect: Connect) -> None:
    server, client = await connect(), await connect()

    async def handler(call: Call) -> Answer:
        await server.close()
        return Answer()

    server.serve(handler)
    async with asyncio.timeout(20):
        with pytest.raises(BusError):
            await ask(client, server)
        await server.closed


async def test_gdbus_and_busctl_understand_us(connect: Connect, bus: str) -> None:
    server = await connect()
    server.serve(echo)
    await server.own_name("org.cardsession1")
    said = await run(
        "gdbus", "call", "--address", bus, "--dest", "org.cardsession1", "--object-path", "/a",
        "--method", "a.b.Do", "text", "{'k': <uint32 7>}",
    )  # fmt: skip
    assert "text" in said and "uint32 7" in said
    said = await run(
        "busctl", f"--address={bus}", "call", "org.cardsession1", "/a", "a.b", "Do", "a{sv}", "1",
        "k", "s", "v",
    )  # fmt: skip
    assert said.strip() == 'a{sv} 1 "k" s "v"'
