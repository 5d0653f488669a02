"""The status wait without a card service: what its codes mean, and how often it is asked."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from smartcard import scard

from cardsession.adapters.pcsc import codes, service, watch
from cardsession.adapters.pcsc.service import state_of
from cardsession.adapters.pcsc.watch import BACKOFF, PcscWatch, pause
from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import Backend
from cardsession.core.reports import Listing

BACKEND = (0x80100013, 0x8010001D, 0x8010001E, 0x80100014, 0x8010006A)
TOLD_TO_WAIT = 20.0


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        *((code, Problem.BACKEND_UNAVAILABLE) for code in BACKEND),
        *((code, Problem.CARD_REMOVED) for code in (0x8010000C, 0x80100069, 0x80100016)),
        (0x80100003, Problem.CARD_REMOVED),
        *((code, Problem.CARD_MUTE) for code in (0x80100065, 0x80100066, 0x80100067, 0x8010000F)),
        *((code, Problem.READER_REMOVED) for code in (0x80100009, 0x80100017)),
        (0x8010000B, Problem.IN_USE_ELSEWHERE),
        (0x80100068, Problem.CARD_RESET),
        (0x8010002F, Problem.CARD_RESET),
        (0x80100001, Problem.CARD_RESET),
    ],
)
def test_what_a_code_means(code: int, problem: Problem) -> None:
    assert codes.failure(code).problem is problem
    assert codes.failure(code - (1 << 32)).problem is problem, "as a signed number, too"


def test_the_pauses_grow_and_stay_bounded() -> None:
    pauses = [pause(attempt) for attempt in range(100)]
    assert pauses == sorted(pauses)
    assert pauses[: len(BACKOFF)] == list(BACKOFF)
    assert min(pauses) >= 0.05
    assert max(pauses) < 1.0, "within 2 s of its return everything is shown again"


# which way it is not there


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the card service would listen."""
    path = tmp_path / "comm"
    monkeypatch.setenv("PCSCLITE_CSOCK_NAME", str(path))
    return path


@contextlib.contextmanager
def listening(path: Path) -> Iterator[None]:
    """Somebody does."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        bound.listen(50)
        yield


def state(code: int) -> Backend:
    """What a context that was refused with this code is called."""
    return state_of(codes.failure(code))


def test_nobody_there(door: Path) -> None:
    assert state(0x8010001D) is Backend.PCSCD_DOWN
    with listening(door):
        pass
    assert door.exists()
    for code in (0x8010001D, 0x80100013, 0x8010006A):
        assert state(code) is Backend.PCSCD_DOWN, "nobody listens: so nobody refused"


def test_somebody_who_does_not_want_us(door: Path) -> None:
    with listening(door):
        assert state(0x8010006A) is Backend.DENIED
        assert state(0x80100013) is Backend.PCSCD_DOWN
        assert state(0x8010001D) is Backend.PCSCD_DOWN, "he just came"
        again = state_of(codes.failure(0x8010001D), Backend.DENIED)
        assert again is Backend.DENIED, "he hung up before anything was sent"
        assert state(0x8010001E) is Backend.PROTOCOL_MISMATCH


def test_a_socket_that_is_closed_to_us(door: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(socket.socket):
        def connect(self, _: Any) -> None:
            raise PermissionError

    monkeypatch.setattr(service, "socket", SimpleNamespace(**vars(socket) | {"socket": Closed}))
    assert state(0x8010001D) is Backend.DENIED


# the thread


class Service:
    """`smartcard.scard` in its place: it is there or not, and it may hang."""

    def __init__(self) -> None:
        self.code = scard.SCARD_E_NO_SERVICE
        self.asked: list[float] = []
        self.hangs = threading.Event()
        self.hangs.set()
        self.woken = threading.Event()
        self.cancelled = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(scard, name)

    def SCardEstablishContext(self, _: int) -> tuple[int, int]:  # noqa: N802
        self.asked.append(time.monotonic())
        self.hangs.wait(TOLD_TO_WAIT)
        return self.code, 7

    def SCardReleaseContext(self, _: int) -> int:  # noqa: N802
        return 0

    def SCardListReaders(self, *_: Any) -> tuple[int, list[str]]:  # noqa: N802
        return self.code, []

    def SCardGetStatusChange(self, *_: Any) -> tuple[int, list[Any]]:  # noqa: N802
        self.woken.wait(TOLD_TO_WAIT)
        self.woken.clear()
        return self.code or scard.SCARD_E_CANCELLED, []

    def SCardCancel(self, _: int) -> int:  # noqa: N802
        self.cancelled += 1
        self.hangs.wait(TOLD_TO_WAIT)
        self.woken.set()
        return 0


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, door: Path) -> Iterator[Service]:
    fake = Service()
    monkeypatch.setattr(watch, "scard", fake)
    monkeypatch.setattr(codes, "scard", fake)
    yield fake
    fake.hangs.set()
    fake.woken.set()


@pytest_asyncio.fixture
async def told(fake: Service) -> AsyncIterator[tuple[PcscWatch, list[Listing]]]:
    """A watch that runs, and what it reports."""
    listings: list[Listing] = []
    watching = PcscWatch()
    watching.start(listings.append)
    yield watching, listings
    fake.hangs.set()
    fake.woken.set()
    await watching.close()
    assert not watching.alive


async def until(condition: Callable[[], Any]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + TOLD_TO_WAIT
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


Told = tuple[PcscWatch, list[Listing]]
DOWN, OK = Listing(Backend.PCSCD_DOWN), Listing(Backend.OK)


async def test_it_is_asked_less_and_less_often_and_told_once(fake: Service, told: Told) -> None:
    await until(lambda: len(fake.asked) == 5)
    pauses = [later - earlier for earlier, later in zip(fake.asked, fake.asked[1:], strict=False)]
    assert all(took >= least for took, least in zip(pauses, BACKOFF, strict=False))
    assert told[1] == [DOWN]
    fake.code = 0
    await until(lambda: told[1] == [DOWN, OK])


async def test_one_that_comes_and_goes_is_asked_less_often_too(fake: Service, told: Told) -> None:
    await until(lambda: told[1] == [DOWN])
    fake.code = 0
    lives = len(BACKOFF) + 1
    for life in range(1, lives + 1):
        await until(lambda life=life: told[1].count(OK) == life)
        fake.code = scard.SCARD_F_COMM_ERROR
        fake.woken.set()
        await until(lambda life=life: told[1].count(DOWN) > life)
        fake.code = 0
    assert fake.asked[-1] - fake.asked[0] >= sum(BACKOFF[1:]) - BACKOFF[0]


async def test_silence_is_called_down_and_waited_out(
    fake: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "ANSWER_SECONDS", 0.1)
    fake.code = 0
    fake.hangs.clear()
    listings: list[Listing] = []
    watching = PcscWatch()
    watching.start(listings.append)
    await until(lambda: listings == [DOWN])
    fake.hangs.set()
    await until(lambda: listings == [DOWN, OK])
    assert len(fake.asked) == 1
    fake.woken.set()
    await watching.close()


async def test_a_service_that_hangs_never_holds_the_loop_up(fake: Service, told: Told) -> None:
    fake.code = 0
    watching, listings = told
    await until(lambda: OK in listings)
    fake.hangs.clear()
    start = time.monotonic()
    for _ in range(20):
        watching.look_again()
    assert time.monotonic() - start < 2
    await until(lambda: fake.cancelled == 1)
    fake.hangs.set()


async def test_it_is_given_up_after_a_deadline_and_says_nothing_more(
    fake: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "CLOSE_SECONDS", 0.1)
    fake.hangs.clear()
    listings: list[Listing] = []
    watching = PcscWatch()
    watching.start(listings.append)
    await until(lambda: fake.asked)
    await watching.close()
    assert watching.alive
    fake.hangs.set()
    await until(lambda: not watching.alive)
    await asyncio.sleep(0)
    assert listings == []


async def test_a_restart_tells_again_what_did_not_change(fake: Service, told: Told) -> None:
    fake.code = 0
    watching, listings = told
    await until(lambda: OK in listings)
    before, contexts = len(listings), len(fake.asked)
    watching.restart()
    assert len(listings) == before
    await until(lambda: listings[before:] == [OK])
    assert len(fake.asked) == contexts + 1, "over a context of its own"


def test_a_failure_without_a_code_of_ours_is_named_by_its_place(door: Path) -> None:
    assert state_of(Failure(Problem.INTERNAL, "whatever")) is Backend.PCSCD_DOWN
