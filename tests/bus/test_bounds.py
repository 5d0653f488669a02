"""What strangers may cost us: descriptors, long messages, many calls."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress

import pytest

from cardsession.bus import serving
from cardsession.bus.connection import (
    Answer,
    BusError,
    Call,
    Connection,
    Refusal,
    Variant,
)
from cardsession.bus.contract import ErrorName
from cardsession.bus.frames import Frame, Kind, close_fds

from .test_frames import junk
from .util import Connect, Until, ask, open_fds, pair

# -- descriptors


async def test_descriptors_go_both_ways(connect: Connect) -> None:
    server, client = await connect(), await connect()

    async def handler(call: Call) -> Answer:
        second, first = call.take_fd(1), call.take_fd(0)
        text = os.read(first, 10) + os.read(second, 10)
        close_fds([first, second])
        with pytest.raises(Refusal):
            call.take_fd(0)
        with pytest.raises(Refusal):
            call.take_fd(2)
        out, into = os.pipe()
        os.write(into, text)
        os.close(into)
        return Answer("h", (0,), (out,))

    server.serve(handler)
    before = open_fds()
    for turn in range(20):
        pipes = [os.pipe() for _ in range(2)]
        for (_, into), text in zip(pipes, (b"%d" % turn, b"b"), strict=True):
            os.write(into, text)
        ends = tuple(out for out, _ in pipes)
        reply = await client.call(server.unique_name, "/", "a.b", "Do", "hh", (0, 1), ends)
        assert os.read(reply.fds[0], 10) == b"%db" % turn
        assert not os.get_inheritable(reply.fds[0])
        close_fds(reply.fds)
        for each in pipes:
            close_fds(each)
    assert open_fds() == before


async def test_many_calls_with_descriptors_in_one_read(connect: Connect) -> None:
    """Each call gets its own descriptors, however many messages one read gave."""
    server = await connect()
    clients = [await connect() for _ in range(8)]

    async def handler(call: Call) -> Answer:
        if not call.fd_count:
            return Answer("s", ("none",))
        fd = call.take_fd(0)
        try:
            return Answer("s", (os.read(fd, 20).decode(),))
        finally:
            os.close(fd)

    server.serve(handler)
    before = open_fds()

    async def one(client: Connection, number: int) -> str:
        if number % 3 == 0:
            return str((await ask(client, server)).body[0])
        out, into = os.pipe()
        os.write(into, b"%d" % number)
        try:
            reply = await ask(client, server, "Do", "h", (0,), (out,))
        finally:
            close_fds([out, into])
        return str(reply.body[0])

    numbers = range(64)
    answers = await asyncio.gather(*(one(clients[n % 8], n) for n in numbers))
    assert answers == [str(n) if n % 3 else "none" for n in numbers]
    assert open_fds() == before


async def test_stray_descriptors_are_closed(connect: Connect) -> None:
    """50 junk calls, of every kind that takes none: refused, failed, unknown, not even `h`."""
    server, client = await connect(), await connect()

    async def handler(call: Call) -> Answer:
        match call.member:
            case "Refused":
                raise Refusal(ErrorName.BUSY, "no")
            case "Failed":
                raise RuntimeError("no")
        return Answer()

    server.serve(handler)
    fds = tuple(os.open("/dev/null", os.O_RDONLY) for _ in range(4))
    before = open_fds()
    for number in range(50):
        bodies = [("h", (0,)), ("", ()), ("s", ("x",)), ("v", (Variant("h", 3),))]
        signature, body = bodies[number % 4]
        member = ["Good", "Refused", "Failed"][number % 3]
        with suppress(BusError):
            await ask(client, server, member, signature, body, fds)
    assert open_fds() == before
    client.emit("/", "a.b", "Sig", destination=server.unique_name)
    close_fds(fds)


async def test_descriptors_of_an_unwanted_reply_are_closed(connect: Connect, until: Until) -> None:
    server, client = await connect(), await connect()

    async def handler(call: Call) -> Answer:
        return Answer("h", (0,), (os.open("/dev/null", os.O_RDONLY),))

    server.serve(handler)
    before = open_fds()
    for _ in range(20):
        task = asyncio.create_task(ask(client, server))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: server.calls_running == 0)
    await until(lambda: open_fds() == before)


async def test_descriptors_of_a_reply_that_crosses_the_cancellation(connect: Connect) -> None:
    """The reply is here, but its caller is cancelled before it wakes up."""
    server, client = await connect(), await connect()

    async def handler(call: Call) -> Answer:
        return Answer("h", (0,), (os.open("/dev/null", os.O_RDONLY),))

    server.serve(handler)
    received = client._stream._on_frame

    def receive(frame: Frame) -> None:
        with_fds = bool(frame.fds)
        received(frame)
        if with_fds:
            task.cancel()

    client._stream._on_frame = receive
    before = open_fds()
    task = asyncio.create_task(ask(client, server))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert open_fds() == before


async def test_descriptors_of_an_unfit_answer_are_closed(connect: Connect) -> None:
    server, client = await connect(), await connect()

    async def handler(call: Call) -> Answer:
        return Answer("sh", ("nul\0", 0), (os.open("/dev/null", os.O_RDONLY),))

    server.serve(handler)
    before = open_fds()
    with pytest.raises(BusError):
        await ask(client, server)
    assert open_fds() == before


# -- bounds


async def test_a_long_call_is_refused_and_stalls_nobody(connect: Connect) -> None:
    """4 MB of junk: not held, not parsed, answered; the loop turns meanwhile."""
    server, client = await pair(connect)
    seen: list[str] = []

    async def handler(call: Call) -> Answer:
        seen.append(call.member)
        return Answer()

    server.serve(handler)
    wire = junk(4 * 1024 * 1024, Kind.CALL, server.unique_name)
    future = asyncio.get_running_loop().create_future()
    client._pending[9] = (server.unique_name, future)
    longest = 0.0
    spent = time.thread_time()
    client._stream.send(wire)
    async with asyncio.timeout(60):
        while not future.done():
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - spent)
            spent = time.thread_time()
    with pytest.raises(BusError) as caught:
        future.result()
    assert caught.value.name == ErrorName.LIMITS_EXCEEDED
    await ask(client, server)
    assert seen == ["Do"]
    assert longest < 0.1, "CPU seconds in one turn of the loop"


async def test_one_sender_cannot_have_too_many_calls(connect: Connect, until: Until) -> None:
    server, client, other = [await connect() for _ in range(3)]
    go = asyncio.Event()

    async def handler(call: Call) -> Answer:
        await go.wait()
        return Answer()

    server.serve(handler)
    calls = [asyncio.create_task(ask(client, server)) for _ in range(100)]
    more = asyncio.create_task(ask(other, server))
    await until(lambda: server.calls_running == serving.MAX_CALLS + 1)
    await until(lambda: sum(call.done() for call in calls) == 100 - serving.MAX_CALLS)
    go.set()
    await more
    results = await asyncio.gather(*calls, return_exceptions=True)
    refused = [result for result in results if isinstance(result, BusError)]
    assert {error.name for error in refused} == {ErrorName.LIMITS_EXCEEDED}
    assert len(refused) == 100 - serving.MAX_CALLS
    await ask(client, server)


async def test_one_sender_cannot_hold_too_many_descriptors(connect: Connect, until: Until) -> None:
    server, client = await connect(), await connect()
    go = asyncio.Event()

    async def handler(call: Call) -> Answer:
        await go.wait()
        return Answer()

    server.serve(handler)
    fds = tuple(os.open("/dev/null", os.O_RDONLY) for _ in range(8))
    calls = [asyncio.create_task(ask(client, server, "Do", "h", (0,), fds)) for _ in range(10)]
    await until(lambda: server.calls_running == 2 and sum(call.done() for call in calls) == 8)
    go.set()
    await asyncio.gather(*calls, return_exceptions=True)
    close_fds(fds)


async def test_new_signatures_are_not_kept_for_ever(connect: Connect) -> None:
    from dbus_next.signature import SignatureTree  # noqa: PLC0415 (whose leak this is)

    server, client = await pair(connect)
    for number in range(1500):
        digits = "".join("yb"[int(bit)] for bit in f"{number:011b}")
        value = Variant(f"({digits})", [bool(int(bit)) for bit in f"{number:011b}"])
        await ask(client, server, "Do", "v", (value,))
    assert len(SignatureTree._cache) < 1500
