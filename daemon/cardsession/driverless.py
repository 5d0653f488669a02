"""USB readers that the card service does not list: shown as readers without a driver, not as
nothing. A technician sees the reader that "is not there", and where it is plugged in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from structlog import get_logger

from cardsession.actor import Timers
from cardsession.core.facts import ReaderFacts, ReaderState
from cardsession.core.seats import Attributes, UsbReader, seated
from cardsession.ports import Clock, Publisher

log = get_logger(__name__)

DRIVER_SECONDS = 5.0
"""So long may the card service take to list a reader that udev sees."""
NO_DRIVER = "the card service has no driver for this reader, or cannot open it"


class Driverless:
    """See the module."""

    def __init__(self, clock: Clock, publisher: Publisher, labels: Mapping[str, str]) -> None:
        self.there = False
        """Whether the card service is: else nobody can say what it does not list."""
        self._publisher = publisher
        self._labels = labels
        self._timers = Timers(clock)
        self._waiting: set[str] = set()
        self._shown: dict[str, ReaderFacts] = {}
        """By syspath."""

    @property
    def shown(self) -> list[ReaderFacts]:
        """What is shown now."""
        return list(self._shown.values())

    def fit(self, unlisted: Iterable[UsbReader]) -> None:
        """Make what is shown fit these; one that is new is given time."""
        now = {each.syspath: each for each in unlisted}
        for syspath in [each for each in self._shown if each not in now]:
            self._publisher.withdraw(self._shown.pop(syspath))
        for syspath in self._waiting - now.keys():
            self._timers.cancel(syspath)
        self._waiting &= now.keys()
        for syspath, usb in now.items():
            if syspath not in self._shown and syspath not in self._waiting:
                self._waiting.add(syspath)
                self._timers.set(syspath, DRIVER_SECONDS, partial(self._show, usb))

    def taken_over(self, place: str) -> None:
        """A desk shows this reader from now on: the object stays, and is another one's."""
        for syspath in [at for at, each in self._shown.items() if each.id == place]:
            del self._shown[syspath]

    def _show(self, usb: UsbReader) -> None:
        self._waiting.discard(usb.syspath)
        place = usb.seat(0)
        log.warning("reader.no-driver", reader=place, model=usb.model)
        facts = ReaderFacts(
            id=place,
            name="",
            label=self._labels.get(place, ""),
            state=ReaderState.NO_DRIVER,
            last_error=NO_DRIVER,
        )
        self._shown[usb.syspath] = seated(facts, Attributes(), usb)
        self._publisher.show(self._shown[usb.syspath])
