"""The real parts as fixtures, their logs when a test fails, and nothing skipped under CI.

The card service needs the namespace of daemon/setup.sh: `sh tests/run.sh ARGS` runs pytest in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from cardsession.stack import Bus, Card, Child, Daemon, Pcscd, in_namespace, run_directory
from system.usb import Bed, Counter, resting

collect_ignore = ["machine"]
"""The whole machine is not for the namespace: sh tests/machine/run.sh."""

# A busy machine is slow, and that is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

CANARY = "73194682"
REAL_FIXTURES = {"bus", "pcscd", "cards", "card", "daemons", "daemon"}
CHILDREN = pytest.StashKey[list[Child]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses real parts: `-m "not real"` is the quick half."""
    for item in items:
        if REAL_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.real)


def _not_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Under CI a skip is a failure: what the machine can run is run."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, although CI=true: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """A module that skips itself."""
    report: pytest.CollectReport = yield
    _not_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows the end of the log of every part it used."""
    report: pytest.TestReport = yield
    _not_skipped(report)
    if report.failed:
        children = [*item.stash.get(CHILDREN, []), *item.session.stash.get(CHILDREN, [])]
        report.sections += [(f"log of {each.name}", each.log_tail()) for each in children]
    return report


@pytest.fixture
def canary() -> str:
    """The passcode that must turn up in no output: also the virtual cards' PIN."""
    return CANARY


@pytest.fixture
def rundir() -> Iterator[Path]:
    """A directory for sockets and logs, short enough for a socket's path."""
    with run_directory(shared=os.getuid() == 0) as path:
        yield path


@pytest.fixture
def begin(request: pytest.FixtureRequest) -> Iterator[Callable[[Child], Child]]:
    """Start a part; it is ended after the test, and its log shown if the test fails."""
    children = request.node.stash.setdefault(CHILDREN, [])
    with ExitStack() as parts:

        def start(child: Child) -> Child:
            children.append(child)
            parts.enter_context(child)
            return child

        yield start


@pytest.fixture
def bus(rundir: Path, begin: Callable[[Child], Child]) -> Bus:
    """A private bus on which this user may do anything."""
    bus = Bus(rundir)
    begin(bus)
    return bus


@pytest.fixture(scope="session")
def pcscd(request: pytest.FixtureRequest) -> Iterator[Pcscd]:
    """Stock pcscd with the two virtual readers, one for the run."""
    if not in_namespace():
        pytest.fail("no card service of our own here: run sh tests/run.sh", pytrace=False)
    with run_directory() as directory:
        child = Pcscd(directory)
        request.session.stash.setdefault(CHILDREN, []).append(child)
        with child:
            yield child


@pytest.fixture
def cards(pcscd: Pcscd, rundir: Path, begin: Callable[[Child], Child]) -> Callable[..., Card]:
    """Start a virtual card, not yet inserted: cards(slot=1, options=["--tries", "1"])."""

    def start(slot: int = 0, **options: Any) -> Card:
        card = Card(rundir, slot, **{"pin": CANARY} | options)
        begin(card)
        return card

    return start


@pytest.fixture
def card(cards: Callable[..., Card]) -> Card:
    """The developer's card in slot 0, not yet inserted; its PIN is the canary."""
    return cards()


@pytest.fixture
def daemons(
    pcscd: Pcscd, bus: Bus, rundir: Path, begin: Callable[[Child], Child]
) -> Callable[..., Daemon]:
    """Start cardsessiond, ready when returned: daemons(configuration="[session]\\n…")."""

    def start(**options: Any) -> Daemon:
        daemon = Daemon(rundir, bus.address, **options)
        begin(daemon)
        return daemon

    return start


@pytest.fixture
def daemon(daemons: Callable[..., Daemon]) -> Daemon:
    """cardsessiond as it comes, on the private bus, ready."""
    return daemons()


@pytest.fixture
def beds(
    request: pytest.FixtureRequest, pcscd: Pcscd, rundir: Path
) -> Iterator[Callable[..., Bed]]:
    """Stock pcscd with USB readers to plug in: beds(virtual=True). See tests/system/usb.py."""
    children = request.node.stash.setdefault(CHILDREN, [])
    with resting(pcscd), ExitStack() as parts:

        def start(**options: Any) -> Bed:
            bed = parts.enter_context(Bed(rundir, **options))
            children.append(bed.pcscd)
            return bed

        yield start


@pytest.fixture
def bed(beds: Callable[..., Bed]) -> Bed:
    """The same, as it comes: nothing is plugged in yet."""
    return beds()


@pytest.fixture
def bed_daemon(
    bed: Bed, bus: Bus, rundir: Path, begin: Callable[[Child], Child]
) -> Callable[..., Daemon]:
    """Start cardsessiond, ready when returned, whose udev sees what is plugged into `bed`."""

    def start(**options: Any) -> Daemon:
        given = dict(bed.environment) | options.pop("environment", {})
        daemon = Daemon(rundir, bus.address, environment=given, **options)
        begin(daemon)
        return daemon

    return start


@pytest.fixture
def counters(
    request: pytest.FixtureRequest, pcscd: Pcscd, rundir: Path
) -> Iterator[Callable[..., Counter]]:
    """Stock pcscd with readers of reader.conf: counters(16). See tests/system/usb.py."""
    children = request.node.stash.setdefault(CHILDREN, [])
    with resting(pcscd), ExitStack() as parts:

        def start(count: int = 16, **options: Any) -> Counter:
            counter = parts.enter_context(Counter(rundir, count, **options))
            children.append(counter.pcscd)
            return counter

        yield start
