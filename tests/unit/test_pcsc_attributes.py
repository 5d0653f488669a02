"""What a reader is asked of itself through PC/SC: said, not said, or not heard at all."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from cardsession.adapters.ledger import MemoryLedger
from cardsession.adapters.pcsc import channel as pcsc
from cardsession.adapters.pcsc import features
from cardsession.core.errors import Failure, Problem
from fakes.counter import settle

UNSUPPORTED = 0x8010001F


class Driver:
    """A driver's answers, in the place of `smartcard.scard`."""

    SCARD_S_SUCCESS = 0
    SCARD_ATTR_CHANNEL_ID = 1
    SCARD_ATTR_VENDOR_IFD_SERIAL_NO = 2
    SCARD_ATTR_VENDOR_IFD_TYPE = 3

    def __init__(self, **answers: tuple[int, bytes]) -> None:
        self.answers = answers

    def SCardGetAttrib(self, _: int, name: int) -> tuple[int, list[int]]:  # noqa: N802
        key = {1: "channel", 2: "serial", 3: "model"}[name]
        code, value = self.answers.get(key, (UNSUPPORTED, b""))
        return code, list(value)

    def SCardControl(self, _: int, __: int, ___: list[int]) -> tuple[int, list[int]]:  # noqa: N802
        return UNSUPPORTED, []


def test_what_is_not_supported_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Driver(channel=(0, b"\x05\x01\x20\x00"), model=(0, b"Twin\x00\x07"))
    monkeypatch.setattr(features, "scard", said)
    found = features.attributes(1)
    assert (found.usb, found.serial, found.model) == ((1, 5), "", "Twin")


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (0x8010000B, Problem.IN_USE_ELSEWHERE),  # a rival's transaction
        (0x80100003, Problem.CARD_REMOVED),  # our handle leads nowhere
        (0x80100017, Problem.READER_REMOVED),
        (0x8010001D, Problem.BACKEND_UNAVAILABLE),
    ],
)
def test_a_reader_that_could_not_be_asked_did_not_say_that_it_has_no_place(
    monkeypatch: pytest.MonkeyPatch, code: int, problem: Problem
) -> None:
    monkeypatch.setattr(features, "scard", Driver(channel=(code, b"")))
    with pytest.raises(Failure) as error:
        features.attributes(1)
    assert error.value.problem is problem


@pytest.mark.parametrize("begun", [False, True])
async def test_a_question_that_is_given_up_leaves_the_thread_to_its_work(
    monkeypatch: pytest.MonkeyPatch, *, begun: bool
) -> None:
    """Its thread once died of it, and nobody let go of the card."""
    running, go_on = threading.Event(), threading.Event()
    released: list[Any] = []
    service = SimpleNamespace(SCardReleaseContext=released.append)
    monkeypatch.setattr(pcsc, "scard", service)
    channel = pcsc.PcscChannel("X 00 00", MemoryLedger())
    channel._context = 7

    def hang() -> None:
        running.set()
        go_on.wait(10)

    first = channel.aside(hang)
    second = channel.aside(lambda: released.append("never"))
    assert await asyncio.to_thread(running.wait, 10)
    (first if begun else second).cancel()
    await settle(2)  # the thread is told in another turn of the loop
    go_on.set()
    if begun:
        await second
    else:
        await first
    await channel.close()
    assert not channel._thread.is_alive()
    assert released == (["never", 7] if begun else [7])
