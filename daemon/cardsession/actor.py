"""What effects ask of the desk that they belong to: events, conversations, timers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from cardsession.core.states import Event
from cardsession.ports import Clock, Timer

Conversation = Coroutine[Any, Any, tuple[Event, Any]]


class Actor(Protocol):
    """What effects ask of the desk that they belong to."""

    def post(self, event: Event, payload: Any = None) -> None:
        """Take in an event after the one under way."""

    def launch(self, work: Conversation, failed: Event) -> None:
        """Begin a conversation; it comes home as an event."""

    def new_generation(self) -> None:
        """No conversation that is under way comes home any more."""


class Timers:
    """Timers by name: setting one again replaces it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._set: dict[str, Timer] = {}

    def set(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        """Call after so many seconds, once."""

        def ring() -> None:
            self._set.pop(name, None)
            call()

        self.cancel(name)
        self._set[name] = self._clock.later(seconds, ring)

    def cancel(self, *names: str) -> None:
        """Call off these; all of them without a name."""
        for name in names or tuple(self._set):
            timer = self._set.pop(name, None)
            if timer:
                timer.cancel()

    def __contains__(self, name: str) -> bool:
        return name in self._set
