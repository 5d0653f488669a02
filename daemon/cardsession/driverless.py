"""USB readers that the card service does not list: shown as readers without a driver, not as
nothing. A technician sees the reader that "is not there", and where it is plugged in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

from structlog import get_logger

from cardsession.actor import Timers
from cardsession.core.facts import ReaderFacts, ReaderState
from cardsession.core.seats import Attributes, UsbReader, seated
from cardsession.core.text import clean
from cardsession.ports import Clock, Publisher

log = get_logger(__name__)

DRIVER_SECONDS = 5.0
"""So long may the card service take to list a reader that udev sees."""
NO_DRIVER = "the card service has no driver for this reader, or cannot open it"


class Driverless:
    """See the module."""

    def __init__(self, clock: Clock, publisher: Publisher, labels: Mapping[str, str]) -> None:
        self._publisher = publisher
        self._labels = labels
        self._timers = Timers(clock)
        self._waiting: dict[str, UsbReader] = {}
        self._shown: dict[str, tuple[UsbReader, ReaderFacts]] = {}
        """Both by their identifier: nothing is shown twice."""

    @property
    def shown(self) -> list[ReaderFacts]:
        """What is shown now."""
        return [facts for _, facts in self._shown.values()]

    def fit(self, unlisted: Collection[UsbReader], unclear: Collection[UsbReader]) -> None:
        """Make what is shown fit the readers that are not listed; one that is new is given time.

        `unclear`: those that may be listed, which is known in a moment: what is shown stays.
        """
        for place, (usb, facts) in list(self._shown.items()):
            if not _has(unlisted, usb) and not _has(unclear, usb):
                del self._shown[place]
                self._publisher.withdraw(facts)
        for place, usb in list(self._waiting.items()):
            if not _has(unlisted, usb):
                del self._waiting[place]
                self._timers.cancel(place)
        for usb in unlisted:
            if usb.seat(0) in self._shown:
                self._show(usb)
            else:
                self._wait(usb)

    def taken_over(self, place: str) -> None:
        """A desk shows this reader from now on: the object stays, and is another one's."""
        self._shown.pop(place, None)

    def _wait(self, usb: UsbReader) -> None:
        place = usb.seat(0)
        if place not in self._waiting:
            self._timers.set(place, DRIVER_SECONDS, partial(self._time_is_over, place))
        self._waiting[place] = usb

    def _time_is_over(self, place: str) -> None:
        usb = self._waiting.pop(place)
        log.warning("reader.no-driver", reader=place, model=clean(usb.model))
        self._show(usb)

    def _show(self, usb: UsbReader) -> None:
        place = usb.seat(0)
        facts = ReaderFacts(
            id=place,
            name="",
            label=self._labels.get(place, ""),
            state=ReaderState.NO_DRIVER,
            last_error=NO_DRIVER,
        )
        now = usb, seated(facts, Attributes(), usb)
        if self._shown.get(place) != now:
            self._shown[place] = now
            self._publisher.show(now[1])


def _has(readers: Collection[UsbReader], usb: UsbReader) -> bool:
    return any(each.is_still(usb) for each in readers)
