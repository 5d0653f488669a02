"""Readers plugged in and pulled, udev and the card service that hear of it in any order, late or
not at all, readers that hang and rivals: what holds whatever happens, and what holds in the end.

`CARDSESSION_PROPERTY_SECONDS=3600` makes it run so long, each time with another seed.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cardsession.core.errors import Failure
from cardsession.core.facts import ReaderFacts, ReaderState
from cardsession.seating import JOIN_SECONDS, RETRY_SECONDS
from fakes.clock import FakeClock
from fakes.counter import settle
from fakes.ports import DRIVERLESS_SECONDS, Model, Opened, Plug, Ports
from fakes.publisher import Facts, FakePublisher

PORTS = ("1-1", "1-2", "1-4.2")
MODELS = (
    Model("ACME Twin"),
    Model("ACME Twin"),
    Model("Cheap", serial="0001"),
    Model("Contacts", labels=("Contact", "Contactless")),
    Model("Nameless", labels=("", "")),
    Model("Slots", slots=2),
    Model("Serial", serial="4711", channel=False),
    Model("Plain Reader", channel=False),
    Model("Unknown", driver=False),
)
REST_SECONDS = 2 * RETRY_SECONDS[-1] + DRIVERLESS_SECONDS


class SeatPublisher(FakePublisher):
    """Asks whether a reader that gets no seat could have had it."""

    def __init__(self) -> None:
        super().__init__()
        self.seatless: Callable[[ReaderFacts], None] = lambda _: None

    def show(self, facts: Facts) -> None:
        """Note it; the first time, ask."""
        new = isinstance(facts, ReaderFacts) and ("reader", facts.id) not in self.objects
        super().show(facts)
        if new and isinstance(facts, ReaderFacts) and facts.id.startswith(facts.name or "-"):
            self.seatless(facts)


class Bench(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.faults: list[str] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(str(context)))
        self.sessions: dict[int, tuple[str, Plug]] = {}
        """Where the card of each lies."""
        self.listed: dict[str, float] = {}
        """When each reader was listed for the first time, as it is now."""
        self.asleep = False

    def _do(self, work: Callable[[], Awaitable[Any]]) -> Any:
        async def doing() -> Any:
            done = await work()
            await settle(10)
            return done

        return self.loop.run_until_complete(doing())

    @initialize(udev=st.booleans(), order=st.permutations(range(3)))
    def begin(self, *, udev: bool, order: list[int]) -> None:
        """Some readers are there before us."""

        async def begun() -> None:
            publisher = SeatPublisher()
            self.ports = Ports(publisher=publisher, clock=FakeClock())
            publisher.seatless = self._seatless
            if udev:
                await self.ports.udev()
            for which in order[:2]:
                self.ports.plug(PORTS[which], MODELS[0], card=True)

        self._do(begun)

    # what happens

    @rule(which=st.integers(0, 2), model=st.sampled_from(MODELS), card=st.booleans())
    def plug(self, which: int, model: Model, *, card: bool) -> None:
        """A reader comes, if the port is free; else it goes."""
        if PORTS[which] in self.ports.plugs:
            self.ports.unplug(PORTS[which])
        else:
            self.ports.plug(PORTS[which], model, card=card and len(model.labels) == model.slots)

    @rule(which=st.integers(0, 2), to=st.integers(0, 2))
    def replug(self, which: int, to: int) -> None:
        """It comes again at once, in the same port or another one."""
        if PORTS[which] not in self.ports.plugs:
            return
        gone = self.ports.unplug(PORTS[which])
        if PORTS[to] not in self.ports.plugs:
            again = self.ports.plug(PORTS[to], gone.model)
            again.card = gone.card

    @rule(one=st.integers(0, 2), other=st.integers(0, 2))
    def swap(self, one: int, other: int) -> None:
        """Two change their ports."""
        gone = {
            each: self.ports.unplug(PORTS[each])
            for each in {one, other}
            if PORTS[each] in self.ports.plugs
        }
        for each, plug in gone.items():
            again = self.ports.plug(PORTS[other if each == one else one], plug.model)
            again.card = plug.card

    @rule()
    def udev(self) -> None:
        """udev notices, and tells."""
        self._do(self.ports.udev)

    @rule()
    def no_udev(self) -> None:
        """It is gone."""
        if self.ports.reported is not None:
            self._do(lambda: self.ports.tell(None))

    @rule()
    def overrun(self) -> None:
        """It tells what it told before, once more."""
        self._do(lambda: self.ports.tell(self.ports.reported))

    @rule()
    def serve(self) -> None:
        """The card service notices; nobody is told."""
        if not self.ports.down:
            self.ports.serve()

    @rule(notices=st.booleans())
    def status(self, *, notices: bool) -> None:
        """The status wait tells, perhaps of what the service has just noticed."""
        if notices:
            self.serve()
        now = self.ports.clock.passed
        gone = self.listed.keys() - self.ports.opened.keys()
        for name in gone:
            del self.listed[name]
        for name in self.ports.opened:
            self.listed.setdefault(name, now)
        self._do(self.ports.status)

    @rule(notices=st.booleans())
    def everybody(self, *, notices: bool) -> None:
        """All is told."""
        self.udev()
        self.status(notices=notices)

    @rule()
    def service(self) -> None:
        """The card service goes, or is back."""
        self.ports.down = not self.ports.down
        if self.ports.down:
            self.ports.opened.clear()
        self.status(notices=not self.ports.down)

    @rule(seconds=st.sampled_from([0.05, 0.2, 0.5, 1.1, 4.0, 6.0, 31.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self._do(lambda: self.ports.wait(seconds))

    @precondition(lambda self: self.ports.opened)
    @rule(data=st.data())
    def hang(self, data: st.DataObject) -> None:
        """A reader hangs, or does no more."""
        name = data.draw(st.sampled_from(sorted(self.ports.opened)))
        self.ports.hung ^= {name}
        self._do(self.ports.answer)

    @precondition(lambda self: self.ports.opened)
    @rule(data=st.data())
    def rival(self, data: st.DataObject) -> None:
        """A rival has a reader for itself, or not any more."""
        self.ports.taken ^= {data.draw(st.sampled_from(sorted(self.ports.opened)))}

    @precondition(lambda self: self.ports.publisher.cards)
    @rule(data=st.data())
    def session(self, data: st.DataObject) -> None:
        """Somebody works."""
        names = {each.id: each.name for each in self.ports.readers}
        cards = self.ports.publisher.cards
        name = names[data.draw(st.sampled_from([each.reader_id for each in cards]))]
        opened = self.ports.opened.get(name)
        if opened is None or opened.plug.card is None or name in self.ports.hung:
            return
        try:
            facts = self._do(lambda: self.ports.session(name))
        except Failure:
            return
        self.sessions[facts.number] = (name, opened.plug)

    # what holds

    @invariant()
    def no_two_in_one_place(self) -> None:
        """Each object has its own path, and whoever listens sees what the desks have."""
        if not hasattr(self, "ports"):
            return
        has = [each.id for each in self.ports.desks.readers()]
        assert len(has) == len(set(has))
        assert {each.id: each for each in self.ports.readers} == {
            each.id: each for each in self.ports.desks.readers()
        }

    @invariant()
    def a_seat_is_where_it_says(self) -> None:
        """A path that names a port tells that port."""
        if not hasattr(self, "ports"):
            return
        for each in self.ports.readers:
            if each.id.startswith("1-"):
                assert each.port_path in {"", each.id.split(":")[0]}

    @invariant()
    def no_channel_is_left(self) -> None:
        """Each reader that is listed has one, and nobody else."""
        if not hasattr(self, "ports"):
            return
        names = [each.name for each in self.ports.open]
        assert len(names) == len(set(names))
        assert set(names) == set(self.ports.desks._seating._readers)

    @invariant()
    def nothing_falls(self) -> None:
        """Nobody raises where nobody listens."""
        assert self.faults == []

    def _seatless(self, facts: ReaderFacts) -> None:
        """A reader is shown under its name: was there time, and was there doubt?"""
        ports = self.ports
        if ports.reported is None:
            return
        # PC/SC names never end in what is added to tell two of them apart
        waited = ports.clock.passed - self.listed.get(facts.name, 0.0)
        told = ports.channel(facts.name).told
        assert waited >= JOIN_SECONDS - 0.01, f"{facts.name} was shown too early"
        if told is None or told.usb is None:
            return
        here = [each for each in ports.reported if each.device_number == told.usb]
        seats = {each.seat(int(facts.name[-2:], 16)) for each in here}
        free = seats - {each.id for each in ports.readers if each.id != facts.id}
        assert not free, f"{facts.name} could have had {free}"

    def teardown(self) -> None:
        """In the end all reports agree, time went by, and everything is in its place."""
        try:
            if hasattr(self, "ports"):
                self._rest()
                self._end()
        finally:
            self.loop.close()

    def _rest(self) -> None:
        ports = self.ports
        ports.hung.clear()
        ports.taken.clear()
        ports.down = False
        self._do(ports.answer)
        self.everybody(notices=True)
        self.wait(REST_SECONDS)
        self.no_two_in_one_place()
        self.no_channel_is_left()
        shown = {each.name: each for each in ports.readers if each.name}
        assert shown.keys() == ports.opened.keys()
        for name, opened in ports.opened.items():
            self._stands_right(shown[name], opened)
        without = {each.id for each in ports.readers if each.state is ReaderState.NO_DRIVER}
        assert without == {
            usb.seat(0)
            for plug in ports.plugs.values()
            if not plug.model.driver
            for usb in plug.usb()
        }
        for session in ports.publisher.sessions:
            name, plug = self.sessions[session.number]
            # one that never tells where it is, and that udev never saw, may go unnoticed
            same = ports.opened[name].plug is plug or not plug.model.channel
            assert same, "a session survived its reader"

    def _stands_right(self, facts: ReaderFacts, opened: Opened) -> None:
        """Of those that look the same and tell nothing, only that nobody guesses."""
        alike = [
            plug for plug in self.ports.plugs.values() if plug.model.name == opened.plug.model.name
        ]
        if opened.plug.model.channel:
            assert facts.port_path == opened.plug.port
            seats = {opened.seat}
            if opened.plug.model.name == "Nameless":  # which is which, only their order tells
                seats = {usb.seat(opened.slot) for usb in opened.plug.usb()}
            assert facts.id in {*seats, facts.name, f"{facts.name}*"}
        elif len(alike) == 1:
            assert facts.port_path == opened.plug.port

    def _end(self) -> None:
        self._do(self.ports.desks.close)
        assert self.ports.open == [] and self.ports.readers == []
        assert self.ports.desks._seating._timers._set == {}
        assert self.ports.desks._seating._driverless._timers._set == {}
        tasks = asyncio.all_tasks(self.loop)
        assert tasks == set()
        self.nothing_falls()


_LIMITS = settings(
    max_examples=400,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
_SECONDS = float(os.environ.get("CARDSESSION_PROPERTY_SECONDS", "0"))


@pytest.mark.slow
@pytest.mark.timeout(0 if _SECONDS else 600)
def test_whatever_is_plugged_in_wherever_and_whoever_hears_of_it() -> None:
    if not _SECONDS:
        run_state_machine_as_test(Bench, settings=_LIMITS)
    until = time.monotonic() + _SECONDS
    while _SECONDS and time.monotonic() < until:
        number = random.SystemRandom().randrange(1 << 32)
        print("seed", number, file=sys.stderr, flush=True)  # noqa: T201 - to run it again
        run_state_machine_as_test(
            seed(number)(Bench), settings=settings(_LIMITS, derandomize=False)
        )
