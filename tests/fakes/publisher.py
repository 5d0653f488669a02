"""What was shown, as a list (see `cardsession.ports.Publisher`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cardsession.core.facts import Backend, CardFacts, Hotplug, ReaderFacts, SessionFacts

Facts = ReaderFacts | CardFacts | SessionFacts
Key = tuple[str, str | int]


@dataclass(frozen=True)
class Line:
    """One thing that was told: `what` is show, withdraw, ended, card-ready, card-gone, backend,
    or a reply that a test noted."""

    what: str
    facts: Any
    detail: Any = None


def key(facts: Facts) -> Key:
    """Which object a record is about."""
    match facts:
        case ReaderFacts():
            return "reader", facts.id
        case CardFacts():
            return "card", facts.number
        case SessionFacts():
            return "session", facts.number


class FakePublisher:
    """A list of lines, and the objects that a subscriber would know of now.

    It refuses what no subscriber could make sense of: an object that is taken away twice, or
    one that comes back under a number that is never used again.
    """

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.objects: dict[Key, Facts] = {}
        self._gone: set[Key] = set()

    def show(self, facts: ReaderFacts | CardFacts | SessionFacts) -> None:
        """Note it."""
        assert key(facts) not in self._gone or isinstance(facts, ReaderFacts), f"a ghost: {facts}"
        self.objects[key(facts)] = facts
        self.lines.append(Line("show", facts))

    def withdraw(self, facts: ReaderFacts | CardFacts | SessionFacts) -> None:
        """Note it."""
        del self.objects[key(facts)]
        self._gone.add(key(facts))
        self.lines.append(Line("withdraw", facts))

    def ended(self, session: SessionFacts, detail: Mapping[str, Any]) -> None:
        """Note it."""
        assert key(session) in self.objects, "Ended comes before the object goes"
        self.lines.append(Line("ended", session, dict(detail)))

    def card_ready(self, card: CardFacts) -> None:
        """Note it."""
        self.lines.append(Line("card-ready", card))

    def card_gone(self, card: CardFacts, reason: str) -> None:
        """Note it."""
        self.lines.append(Line("card-gone", card, reason))

    def backend(self, state: Backend) -> None:
        """Note it."""
        self.lines.append(Line("backend", state))

    def hotplug(self, state: Hotplug) -> None:
        """Note it."""
        self.lines.append(Line("hotplug", state))

    def replied(self, what: Any) -> None:
        """A test notes when an answer came."""
        self.lines.append(Line("reply", what))

    async def fence(self) -> None:
        """Nobody's call is on its way."""

    # what a subscriber knows now

    @property
    def readers(self) -> list[ReaderFacts]:
        """All readers."""
        return [each for each in self.objects.values() if isinstance(each, ReaderFacts)]

    @property
    def cards(self) -> list[CardFacts]:
        """All cards."""
        return [each for each in self.objects.values() if isinstance(each, CardFacts)]

    @property
    def sessions(self) -> list[SessionFacts]:
        """All sessions."""
        return [each for each in self.objects.values() if isinstance(each, SessionFacts)]

    @property
    def card(self) -> CardFacts:
        """The only card."""
        (card,) = self.cards
        return card

    @property
    def session(self) -> SessionFacts:
        """The only session."""
        (session,) = self.sessions
        return session

    @property
    def reader(self) -> ReaderFacts:
        """The only reader."""
        (reader,) = self.readers
        return reader

    def told(self, what: str) -> list[Line]:
        """Every line of one kind."""
        return [line for line in self.lines if line.what == what]

    def reasons(self) -> list[str]:
        """Why each session ended, in order."""
        return [line.facts.end_reason for line in self.told("ended")]
