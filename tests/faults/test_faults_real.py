"""The fault matrix with real parts: pcscd, the virtual reader, a bus, the daemon's process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import pytest

from cardsession.stack import Pcscd
from faults.matrix import Fault, Moment, Way, driven, expected
from faults.parts import PARTS
from faults.real import AT_CARD, Scene
from faults.room import Plan, Room, rooms
from system.rival import Rival
from system.subscriber import Subscriber

pytestmark = [pytest.mark.fault_matrix, pytest.mark.slow]
CELLS = sorted(driven(Way.REAL), key=lambda cell: list(PARTS).index(cell[0]))


@pytest.fixture(scope="module")
def room(pcscd: Pcscd) -> Iterator[Callable[[Plan], AbstractContextManager[Room]]]:
    yield from rooms(pcscd)


@pytest.mark.parametrize(("fault", "moment"), CELLS)
async def test_cell(
    fault: Fault,
    moment: Moment,
    room: Callable[[Plan], AbstractContextManager[Room]],
    filled: Callable[..., None],
) -> None:
    cell, part = expected(fault, moment), PARTS[fault]
    with room(part.plan) as here, ExitStack() as rival:
        async with (
            await Subscriber.open(here.bus.address) as seen,
            await Subscriber.open(here.bus.address) as owner,
        ):
            scene = Scene(here, seen, owner, part)
            if part.rival:
                scene.rival = rival.enter_context(Rival())
            await scene.run(moment, cell)
            assert scene.shown() == cell.shown
            if part.asks or (moment in AT_CARD and cell.answer):
                assert scene.answer == cell.answer
            assert scene.verifies() == cell.verifies, "the card's own book"
            await scene.heal()
    filled(fault, moment, Way.REAL)
