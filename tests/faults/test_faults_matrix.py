"""The table of faults itself: whole, and driven as it says."""

from __future__ import annotations

import pytest

from faults.matrix import LEAST, MATRIX, Fault, Impossible, Moment, Way, driven
from faults.parts import PARTS
from faults.strikes import STRIKES

pytestmark = pytest.mark.fault_matrix


def test_every_cell_is_driven_or_has_its_reason() -> None:
    for fault in Fault:
        assert list(MATRIX[fault]) == list(Moment), fault
        for moment, cell in MATRIX[fault].items():
            if isinstance(cell, Impossible):
                assert len(cell.why.split()) > 3, (fault, moment)
            else:
                assert cell.ways, (fault, moment)


def test_enough_of_them_are_driven() -> None:
    cells = set(driven(Way.SIMULATED)) | set(driven(Way.REAL))
    assert len(cells) >= LEAST
    assert len(driven(Way.REAL)) >= LEAST, "with real parts"


def test_no_cell_lets_a_card_see_more_than_was_submitted() -> None:
    before = {Moment.IDLE, Moment.PROBING, Moment.UNVERIFIED}
    for fault, moment in {*driven(Way.SIMULATED), *driven(Way.REAL)}:
        cell = MATRIX[fault][moment]
        assert isinstance(cell, Impossible) or cell.verifies <= (moment not in before)


def test_whatever_is_said_to_be_driven_has_its_driver() -> None:
    assert {fault for fault, _ in driven(Way.SIMULATED)} == set(STRIKES)
    assert {fault for fault, _ in driven(Way.REAL)} == set(PARTS)
