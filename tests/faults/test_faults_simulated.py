"""The fault matrix, simulated: the daemon's real rooms over a card service in memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fakes.world import World
from faults.matrix import Fault, Moment, Way, driven, expected
from faults.simulated import Stage
from faults.strikes import STRIKES

pytestmark = pytest.mark.fault_matrix


@pytest.mark.parametrize(("fault", "moment"), driven(Way.SIMULATED))
def test_cell(fault: Fault, moment: Moment, filled: Callable[..., None]) -> None:
    cell, strike = expected(fault, moment), STRIKES[fault]
    with World((strike.card, "piv twin", "piv without CHUID"), strike.config,
               on_disk=strike.on_disk) as world:  # fmt: skip
        stage = Stage(world, strike, moment)
        stage.run()
        assert stage.seen == cell.shown
        if cell.answer:
            assert stage.answer == cell.answer
        assert stage.verifies == cell.verifies, "the card's own book"
        assert not stage.left_open
        stage.heal()
        assert world.witness.violations == []
    filled(fault, moment, Way.SIMULATED)
