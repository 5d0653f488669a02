"""A reader that is being pulled answers, and says nothing: found with the stock pcscd."""

from __future__ import annotations

import pytest

from cardsession.core.seats import Attributes
from fakes.ports import SEATED_SECONDS, Model, Ports, SeatChannel

TWIN = Model("ACME Twin")


async def test_a_reader_that_was_silent_as_it_was_pulled_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The service answers every question about it as if it had no such word; and the next reader
    has its name before anybody has listed, so nothing else tells of it."""
    ports = Ports()
    for port in ("1-1", "1-2"):
        ports.plug(port, TWIN)
    await ports.all()
    for port in ("1-1", "1-2"):
        ports.unplug(port)
    with monkeypatch.context() as pulled:
        pulled.setattr(SeatChannel, "_says", lambda _: Attributes())
        await ports.udev()
        for port in ("1-2", "1-1"):
            ports.plug(port, TWIN)
        await ports.udev()
        await ports.wait(0.3)
    ports.serve()
    await ports.wait(SEATED_SECONDS)
    assert ports.shown == {each.seat: name for name, each in ports.opened.items()}
    assert set(ports.shown) == {"1-1:0:0", "1-2:0:0"}


async def test_a_reader_that_never_says_a_word_is_not_asked_for_ever() -> None:
    ports = Ports()
    ports.plug("1-1", Model("no driver", driver=False))
    ports.plug("1-2", Model("silent", channel=False))
    await ports.all()
    await ports.wait(100.0)
    asked = ports.open[0].asked
    await ports.wait(1000.0)
    assert ports.open[0].asked == asked <= 10
