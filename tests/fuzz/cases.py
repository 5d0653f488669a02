"""What every fuzz test has in common: each case is counted, and held to what holds for all.

`CARDSESSION_FUZZ_SECONDS=3600` makes the run so long, shared by the tests that were selected, each
round with another seed, which is printed; `CARDSESSION_FUZZ_SEED=N` repeats one.
"""

from __future__ import annotations

import os
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from fakes.cards import CANARY, WRONG
from fakes.piv import NEW
from fakes.process import logged

SECONDS = float(os.environ.get("CARDSESSION_FUZZ_SECONDS", "0"))
SEED = os.environ.get("CARDSESSION_FUZZ_SEED", "")
SECRETS = (CANARY, WRONG, NEW)
"""The PUK is left out: a holder's number has its digits."""
ROUND = 100
"""Cases of one seed, where time is what counts."""
MOST_CPU_SECONDS = 20.0
"""Of one case; it takes a few milliseconds. Of the processor, so that a busy machine is none."""

FAULTS = ("fault", ".failed")
"""How an event is called that is a bug of ours."""

DECLARED: dict[str, int] = {}
"""Cases that each test tries."""
RAN: Counter[str] = Counter()
"""Cases that were tried in this run."""
SELECTED: list[str] = []
"""The fuzz tests of this run, which share its time."""

Case = Callable[..., None]
_LIMITS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


def fuzz(
    cases: int, *strategies: SearchStrategy[Any], **named: SearchStrategy[Any]
) -> Callable[[Case], Case]:
    """Make a test of a function of one case."""

    def made(case: Case) -> Case:
        DECLARED[case.__name__] = cases

        @wraps(case)
        def test() -> None:
            explore(cases, case, *strategies, **named)

        del test.__wrapped__  # type: ignore[attr-defined]  # its arguments are no fixtures
        return pytest.mark.timeout(0 if SECONDS else 600)(test)

    return made


def explore(
    cases: int, case: Case, *strategies: SearchStrategy[Any], **named: SearchStrategy[Any]
) -> None:
    """Try so many cases; or for as long as the environment says."""
    DECLARED.setdefault(case.__name__, cases)
    limits = settings(_LIMITS, max_examples=min(cases, ROUND) if SECONDS else cases)
    if SEED:
        _round(int(SEED), limits, case, strategies, named)
    elif not SECONDS:
        limits(given(*strategies, **named)(_held(case)))()
    until = time.monotonic() + SECONDS / max(len(SELECTED), 1)
    while SECONDS and not SEED and time.monotonic() < until:
        number = random.SystemRandom().randrange(1 << 32)
        print(case.__name__, "seed", number, file=sys.stderr, flush=True)  # noqa: T201
        _round(number, limits, case, strategies, named)


def _round(number: int, limits: settings, case: Case, strategies: Any, named: Any) -> None:
    limits = settings(limits, derandomize=False)
    limits(seed(number)(given(*strategies, **named)(_held(case))))()


def _held(case: Case) -> Case:
    """A case, counted, and what holds for each: descriptors, time, and no word of a secret."""

    @wraps(case)
    def held(*arguments: Any, **named: Any) -> None:
        RAN[case.__name__] += 1
        events: list[dict[str, Any]] = []
        start, before = time.process_time(), _descriptors()
        with logged(events):
            case(*arguments, **named)
        assert _descriptors() <= before, "descriptors are left"
        assert time.process_time() - start < MOST_CPU_SECONDS
        for event in events:
            silent(repr(event))
            assert not str(event["event"]).endswith(FAULTS), event

    return held


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted


def silent(text: str) -> None:
    """No secret in it, in any spelling."""
    lower = text.lower()
    for each in SECRETS:
        octets = each.encode()
        spelt = (each, octets.hex(), octets.hex(" "), str(list(octets))[1:-1], each[::-1])
        assert not [one for one in spelt if one in lower], f"{each} is told: {text}"


def quiet(error: BaseException) -> None:
    """Neither an exception, nor what led to it, nor what it holds, tells a secret."""
    silent("".join(traceback.format_exception(error)) + repr(vars(error)))
