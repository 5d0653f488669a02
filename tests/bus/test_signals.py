"""Signals over a real dbus-daemon: order, matching, forgery, what the bus would not take."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from cardsession.bus.connection import (
    BusGone,
    Connection,
    Signal,
    Variant,
)

from .util import CANARY, Connect, Until, ask, close_and_wait, pair

# -- outgoing strings


@pytest.mark.parametrize(
    ("signature", "value"),
    [
        ("s", "nul\0"), ("s", "\ud800"), ("as", ["ok", "nul\0"]),
        ("a{sv}", {"nul\0": Variant("s", "")}),
        ("v", Variant("as", ["\udcff"])), ("(s)", ["nul\0"]), ("o", "/new\nline"), ("o", "/line\n"),
        ("o", ""), ("s", 5), ("s", None), ("as", "text"), ("u", -1), ("ay", 5), ("ss", "x"),
        ("zz", "x"), ("(s", ["x"]), ("v", "x"), ("a{sv}", ["x"]), ("g", "a\0"),
    ],
)  # fmt: skip
async def test_what_the_bus_would_not_take_is_refused(
    connect: Connect, signature: str, value: Any
) -> None:
    server, client = await pair(connect)
    got: list[str] = []
    await client.subscribe(lambda each: got.append(each.body[0]), sender=server.unique_name)
    server.emit("/a", "a.b", "Text", "s", ("before",))
    with pytest.raises(ValueError):
        server.emit("/a", "a.b", "Text", signature, (value,))
    with pytest.raises(ValueError):
        await ask(client, server, "Do", signature, (value,))
    server.emit("/a", "a.b", "Text", "s", ("after",))
    assert (await ask(client, server, "Do", "s", ("x",))).body == ("x",)
    assert got == ["before", "after"]


@pytest.mark.parametrize(
    "header",
    [
        ("/a\n", "a.b", "C"), ("/a/", "a.b", "C"), ("a", "a.b", "C"), ("/a", "a", "C"),
        ("/a", "a.b\n", "C"), ("/a", "a.b", "C\n"), ("/a", "a.b", "C.D"), ("/a", "a.b", ""),
        ("/a", "a." + "b" * 255, "C"), ("/a", "a.b", "C" * 256),
    ],
)  # fmt: skip
async def test_names_the_bus_would_not_take(connect: Connect, header: tuple[str, str, str]) -> None:
    server, client = await pair(connect)
    with pytest.raises(ValueError):
        server.emit(*header)
    with pytest.raises(ValueError):
        await client.call(server.unique_name, *header)
    await ask(client, server)


# -- signals


@pytest.mark.parametrize("number", [400, 5000])
async def test_many_signals_in_one_turn(connect: Connect, until: Until, number: int) -> None:
    server, client = await connect(), await connect()
    got: list[int] = []
    await client.subscribe(lambda each: got.append(each.body[0]), interface="a.b")
    for each in range(number):
        server.emit("/a", "a.b", "Count", "us", (each, "x" * 100))
    assert server.queued_messages == number
    await until(lambda: len(got) == number, 60)
    assert got == list(range(number))
    assert not server.closed.done()


async def test_matching(connect: Connect) -> None:
    server, client = await pair(connect)
    got: list[tuple[str, str]] = []

    async def listen(name: str, **match: str) -> Any:
        return await client.subscribe(lambda each: got.append((name, each.body[0])), **match)

    subscription = await listen("member", interface="a.b", member="One")
    await listen("path", path="/a/b", interface="a.b")
    await listen("namespace", path_namespace="/a/b", interface="a.b")
    await listen("arg0", arg0="it's", interface="a.b")
    server.emit("/a/b", "a.b", "One", "s", ("1",))
    server.emit("/a/b/c", "a.b", "Two", "s", ("2",))
    server.emit("/a/bc", "a.b", "Two", "s", ("it's",))
    await ask(client, server)
    assert got == [("member", "1"), ("path", "1"), ("namespace", "1"), ("namespace", "2"),
                   ("arg0", "it's")]  # fmt: skip
    got.clear()
    await subscription.close()
    await subscription.close()
    server.emit("/x", "a.b", "One", "s", ("1",))
    await ask(client, server)
    assert got == []


async def test_a_failing_callback_costs_nobody_else(connect: Connect) -> None:
    server, client = await pair(connect)
    got: list[Signal] = []

    def fail(each: Signal) -> None:
        raise RuntimeError(CANARY)

    await client.subscribe(fail, interface="a.b")
    await client.subscribe(got.append, interface="a.b")
    with structlog.testing.capture_logs() as logs:
        server.emit("/a", "a.b", "One")
        await ask(client, server)
    assert len(got) == 1
    assert [entry["event"] for entry in logs] == ["signal.failed"]
    assert CANARY not in str(logs)


async def test_a_strangers_signals_are_not_the_services(connect: Connect) -> None:
    """Anybody may send us a signal directly: the sender's name is checked against its owner."""
    first, second, client, stranger = [await connect() for _ in range(4)]
    got: list[str] = []
    await first.own_name("org.cardsession1")
    await client.subscribe(lambda each: got.append(each.body[0]), sender="org.cardsession1")

    async def tell(sender: Connection, text: str) -> None:
        sender.emit("/a", "a.b", "Said", "s", (text,), destination=client.unique_name)
        await sender.call(client.unique_name, "/", None, "Ping")

    await tell(stranger, "forged")
    await tell(first, "first")
    await close_and_wait(first, stranger)
    await tell(stranger, "forged")
    await second.own_name("org.cardsession1")
    await tell(second, "second")
    await tell(stranger, "forged")
    assert got == ["first", "second"]


async def test_the_drivers_signals_cannot_be_forged(connect: Connect, until: Until) -> None:
    client, stranger, other = [await connect() for _ in range(3)]
    got: list[Signal] = []
    await client.subscribe(got.append, interface="org.freedesktop.DBus", member="NameOwnerChanged")
    try:
        stranger.emit(
            "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged", "sss",
            (other.unique_name, other.unique_name, ""), destination=client.unique_name,
        )  # fmt: skip
        await stranger.call(client.unique_name, "/", None, "Ping")
    except BusGone:
        pass
    assert got == []
    name = other.unique_name
    await other.close()
    await client.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId")
    await until(lambda: name in [each.body[0] for each in got])
