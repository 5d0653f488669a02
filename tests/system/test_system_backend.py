"""The card service's life: not there, killed, back, closed to us, of another kind, or silent.

What is measured: how soon everything is shown again, and how often a service is asked that is
not there (the connections that an impostor sees).
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cardsession.adapters.pcsc.watch import BACKOFF
from cardsession.bus.connection import Variant
from cardsession.stack import Bus, Card, Child, Daemon, Pcscd
from cardsession.stack.pcscd import READERS, SOCKET
from system.crash import submissions
from system.impostor import Impostor
from system.subscriber import NAME, ROOT, Subscriber
from system.test_system_quiet import wakeups

BACK_SECONDS = 2.0
"""Within which everything is shown again when the service is back."""
STOP_SECONDS = 3.0
RIGHT, WRONG = b"73194682", b"11112222"
NOBODY = 65534
MEASURED = 5.0
"""Seconds in which attempts are counted."""
ATTEMPTS = MEASURED / BACKOFF[-1] + len(BACKOFF) + 1
"""As many as the pauses allow for in that time, from the shortest on."""


@pytest.fixture
def service(pcscd: Pcscd) -> Iterator[Pcscd]:
    """The card service, which a test may end: the next test finds it again."""
    yield pcscd
    if pcscd.returncode is not None:
        pcscd.start()


@pytest_asyncio.fixture
async def looking(bus: Bus) -> AsyncIterator[Subscriber]:
    """A subscriber who is there before any reader is."""
    async with await Subscriber.open(bus.address) as subscriber:
        yield subscriber


async def backend(seen: Subscriber) -> str:
    """`Manager.Backend`, asked."""
    get = (ROOT, "org.freedesktop.DBus.Properties", "Get", "ss")
    (value,) = await seen.call(*get, (f"{NAME}.Manager", "Backend"))
    return str(value.value)


async def until_backend(seen: Subscriber, state: str, seconds: float = 20.0) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while (found := await backend(seen)) != state:
        assert time.monotonic() < deadline, f"{found}, not {state}"
        await asyncio.sleep(0.01)


def told(seen: Subscriber) -> list[str]:
    """Every state of the card service that was signalled, in order."""
    changed = [each.body for _, each in seen.signals if each.member == "PropertiesChanged"]
    managers = [body[1] for body in changed if body[0] == f"{NAME}.Manager"]
    return [str(body["Backend"].value) for body in managers if "Backend" in body]


def reasons(seen: Subscriber) -> list[str]:
    """Why sessions ended."""
    return [each.body[0] for _, each in seen.signals if each.member == "Ended"]


async def comes_back(seen: Subscriber, service: Pcscd) -> None:
    """Start the service; both readers are shown soon after it is ready."""
    await asyncio.to_thread(service.start)
    await seen.until("all readers", lambda: len(seen.all("Reader")) == len(READERS), BACK_SECONDS)
    assert await backend(seen) == "ok"


async def from_here_on(seen: Subscriber) -> None:
    """What was told before is not asked about."""
    await until_backend(seen, "ok")
    seen.signals.clear()


async def nothing_left(seen: Subscriber) -> None:
    """No reader, no card, no session; and the daemon says why."""
    await seen.until(
        "nothing is shown",
        lambda: (
            not seen.objects or not any(seen.all(each) for each in ("Reader", "Card", "Session"))
        ),
    )
    await until_backend(seen, "pcscd-down")


# not there, and back


async def test_not_there_at_the_start(
    service: Pcscd, daemons: Callable[..., Daemon], looking: Subscriber
) -> None:
    service.stop()
    daemon = daemons()
    assert await backend(looking) == "pcscd-down"
    assert daemon.notify.all("STATUS")[-1] == "card service: pcscd-down"
    await comes_back(looking, service)
    assert told(looking)[-1] == "ok"
    assert looking.all("Session") == {}


async def test_nobody_listens_at_a_socket_that_is_there(
    service: Pcscd, daemon: Daemon, seen: Subscriber
) -> None:
    await from_here_on(seen)
    service.kill()
    assert SOCKET.exists()
    await nothing_left(seen)
    await asyncio.sleep(1.0)
    before, start = wakeups(daemon.pid), time.monotonic()
    await asyncio.sleep(3.0)  # the span that is measured
    rate = (wakeups(daemon.pid) - before) / (time.monotonic() - start)
    assert rate < 20, "a few for each attempt"
    await comes_back(seen, service)
    assert told(seen) == ["pcscd-down", "ok"]


@pytest.mark.slow
async def test_stopped_and_started_ten_times(
    service: Pcscd, daemon: Daemon, seen: Subscriber, card: Card
) -> None:
    await from_here_on(seen)
    card.insert()
    numbers = [(await seen.card_in_state("ready"))[0]]
    descriptors, threads = held(daemon)
    for _ in range(10):
        await asyncio.to_thread(service.stop)
        await nothing_left(seen)
        await comes_back(seen, service)
        numbers.append((await seen.card_in_state("ready"))[0])
    assert len(set(numbers)) == 11, "no number is used twice"
    assert told(seen) == ["pcscd-down", "ok"] * 10
    deadline = time.monotonic() + 10
    while held(daemon) > (descriptors + 2, threads):
        assert time.monotonic() < deadline, held(daemon)
        await asyncio.sleep(0.1)


def held(daemon: Daemon) -> tuple[int, int]:
    """Descriptors and threads."""
    process = Path(f"/proc/{daemon.pid}")
    return len([*(process / "fd").iterdir()]), len([*(process / "task").iterdir()])


async def test_it_exits_by_itself_and_is_started_again(
    service: Pcscd, daemons: Callable[..., Daemon], looking: Subscriber, card: Card
) -> None:
    """What --auto-exit does 60 s after the last client left is an alarm; measured: none is set
    while we hold a context. Should it go off all the same, that is an exit like any other."""
    service.stop()
    service.command.append("--auto-exit")
    try:
        service.start()
        daemons()
        await looking.until("readers", lambda: len(looking.all("Reader")) == len(READERS))
        card.insert()
        await looking.card_in_state("ready")
        service.signal(signal.SIGALRM)
        await looking.until("it exits", lambda: service.returncode is not None)
        assert service.returncode == 0
        await nothing_left(looking)
    finally:
        service.command.remove("--auto-exit")
    await comes_back(looking, service)
    await looking.card_in_state("ready")


# killed in each state of a session


async def opened(seen: Subscriber, card: Card) -> tuple[str, asyncio.Future[Any] | None]:
    """Nobody is verified."""
    return await seen.open_session((await seen.card_in_state("ready"))[0]), None


async def verifying(seen: Subscriber, card: Card) -> tuple[str, asyncio.Future[Any] | None]:
    """The card has the wrong passcode, and its answer does not come."""
    session, _ = await opened(seen, card)
    card.tell("silent-at", n=1, ins="20", with_data=True, stage="after")
    call = asyncio.ensure_future(seen.verify(session, WRONG))
    await seen.until("the card has it", lambda: card.status()["silent"])
    return session, call


async def active(seen: Subscriber, card: Card) -> tuple[str, asyncio.Future[Any] | None]:
    """Verified."""
    session, _ = await opened(seen, card)
    assert (await seen.verify(session, RIGHT))[0] == "verified"
    return session, None


async def locked(seen: Subscriber, card: Card) -> tuple[str, asyncio.Future[Any] | None]:
    """Verified, and locked after that."""
    session, _ = await active(seen, card)
    await seen.call(session, "Session", "Lock")
    return session, None


async def ending(seen: Subscriber, card: Card) -> tuple[str, asyncio.Future[Any] | None]:
    """Closed by its owner; the card does not answer to that."""
    session, _ = await active(seen, card)
    card.tell("silent-at", n=card.status()["exchanges"] + 1)
    call = asyncio.ensure_future(seen.call(session, "Session", "Close"))
    await seen.until("the card has it", lambda: card.status()["silent"])
    return session, call


MOMENTS = {
    "unverified": (opened, "backend-lost", 0),
    "verifying": (verifying, "backend-lost", 1),
    "active": (active, "backend-lost", 0),
    "locked": (locked, "backend-lost", 0),
    "ending": (ending, "closed", 0),
}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_killed_in_a_session(
    service: Pcscd, seen: Subscriber, card: Card, moment: str
) -> None:
    begin, reason, wrong = MOMENTS[moment]
    card.insert()
    session, call = await begin(seen, card)
    service.kill()
    since = int(time.time() * 1_000_000)
    await nothing_left(seen)
    assert reasons(seen) == [reason]
    assert await seen.refused(session, "Session", "KeepAlive") == "SessionEnded"
    if call is not None:
        await asyncio.gather(call, return_exceptions=True)  # answered, whatever it is
    card.tell("speak")
    await comes_back(seen, service)
    _, facts = await seen.card_in_state("ready")
    assert facts["PinTries"] == {"user": 3 - wrong}, "as the card has it"
    assert facts["PinTriesReadUSec"] > since, "read anew"
    status = card.status()
    assert status["references"]["80"]["verified"] is False
    assert status["wrong"] == wrong
    sent = wrong + (moment in ("active", "locked", "ending"))
    assert submissions(status) == sent, "nothing is sent again"


async def test_killed_while_a_card_is_read(service: Pcscd, seen: Subscriber, card: Card) -> None:
    card.tell("silent-at", n=3)
    card.insert()
    await seen.until("it is silent", lambda: card.status()["silent"])
    service.kill()
    await nothing_left(seen)
    card.tell("speak")
    await comes_back(seen, service)
    assert (await seen.card_in_state("ready"))[1]["PinTries"] == {"user": 3}


# closed to us, of another kind, or silent


async def test_closed_to_us(service: Pcscd, rundir: Path, begin: Callable[[Child], Child]) -> None:
    uid = NOBODY if os.getuid() == 0 else None
    policy = rundir / "policy.conf"
    policy.write_text(
        f'<busconfig><policy user="{uid or os.getuid()}"><allow own="{NAME}"/></policy>'
        f'<policy user="{os.getuid()}"><allow send_destination="{NAME}"/></policy></busconfig>'
    )
    bus = Bus(rundir, policies=[policy])
    begin(bus)
    SOCKET.chmod(0o000)
    try:
        daemon = Daemon(rundir, bus.address, uid=uid)
        begin(daemon)
        async with await Subscriber.open(bus.address) as seen:
            assert await backend(seen) == "denied"
            assert daemon.notify.all("STATUS")[-1] == "card service: denied"
            SOCKET.chmod(0o666)
            readers = len(READERS)
            await seen.until("it is open", lambda: len(seen.all("Reader")) == readers, BACK_SECONDS)
            SOCKET.chmod(0o000)
            service.kill()
            await until_backend(seen, "denied")
            assert told(seen)[-2:] == ["pcscd-down", "denied"]
            assert not seen.all("Reader")
    finally:
        SOCKET.chmod(0o666)


@pytest.mark.parametrize(
    ("mode", "state", "each"),
    [
        ("mismatch", "protocol-mismatch", 1),
        ("hangs-up", "denied", 2),  # a second time, to see whether anybody is there
        ("dies", "pcscd-down", 2),
        ("silent", "pcscd-down", 1),
    ],
)
@pytest.mark.slow
async def test_an_impostor_is_named_and_asked_seldom(  # noqa: PLR0913, PLR0917 - fixtures
    service: Pcscd,
    daemon: Daemon,
    seen: Subscriber,
    rundir: Path,
    mode: str,
    state: str,
    each: int,
) -> None:
    await from_here_on(seen)
    service.stop()
    await nothing_left(seen)
    with Impostor(rundir, mode) as impostor:
        await seen.until("it is asked", lambda: impostor.connections)
        await until_backend(seen, state)
        before, woken = impostor.connections, wakeups(daemon.pid)
        await asyncio.sleep(MEASURED)  # the span that is measured
        asked = impostor.connections - before
        assert asked <= each * ATTEMPTS
        assert asked >= 3 or mode == "silent", "it is asked again and again"
        assert wakeups(daemon.pid) - woken < 40 * ATTEMPTS
        assert await backend(seen) == state
        assert told(seen) == ["pcscd-down", *([state] if state != "pcscd-down" else [])]
    await comes_back(seen, service)


async def test_a_service_that_is_silent_holds_nobody_up(
    service: Pcscd, daemons: Callable[..., Daemon], looking: Subscriber, rundir: Path
) -> None:
    service.stop()
    with Impostor(rundir, "silent"):
        daemon = daemons()
        assert await backend(looking) == "pcscd-down"
        start = time.monotonic()
        await backend(looking)
        assert time.monotonic() - start < 1
        start = time.monotonic()
        assert await asyncio.to_thread(daemon.stop) == 0
        assert time.monotonic() - start < STOP_SECONDS


async def test_a_service_that_falls_silent_stalls_its_readers_and_nothing_else(
    service: Pcscd, daemon: Daemon, seen: Subscriber, card: Card
) -> None:
    """Stopped, not ended: every call of the library waits for it, the cancelling ones as well."""
    card.insert()
    path, _ = await seen.card_in_state("ready")
    session = await seen.open_session(path)
    assert (await seen.verify(session, RIGHT))[0] == "verified"
    service.signal(signal.SIGSTOP)
    try:
        signing = ("authentication", "ecdsa-sha256", bytes(32), {})
        body = (session, "Session", "Sign", "ssaya{sv}", signing)
        call = asyncio.ensure_future(seen.call(*body))
        for _ in range(5):
            start = time.monotonic()
            assert await backend(seen) == "ok"
            assert time.monotonic() - start < 1
            await asyncio.sleep(0.05)
        waits = {"wait_usec": Variant("t", 100_000)}
        with pytest.raises(Exception, match="Busy"):
            await seen.open_session(path, **waits)
    finally:
        service.signal(signal.SIGCONT)
    await call
    assert seen.all("Session")[session]["State"] == "active"
