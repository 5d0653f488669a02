"""What is remembered of one PIN of one card, and what each event makes of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

Key = tuple[str, int]
"""A card's identity, and the reference of one of its PINs."""

MOST_ATTEMPTS = 16
"""Attempts kept of one PIN: a card that never tells its counter settles none of them."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A try that was begun, and whose outcome is not known."""

    usec: int
    """When, in microseconds since 1970."""
    asked_by: str
    before: int | None
    """The lowest count known before it: what withdrawing it restores."""
    told: bool = False
    """The card told its counter since. It is no more in flight, but may still be withdrawn."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One PIN of one card."""

    lowest: int | None = None
    """The lowest count seen since a success, less one for each attempt in flight."""
    attempts: tuple[Attempt, ...] = ()
    spent: bool = False
    """A try was sent that is no more among the attempts."""
    changed_usec: int = 0
    """When its passcode was last changed here; 0 unknown."""

    @property
    def in_flight(self) -> bool:
        """Whether the card may have counted a try since it last told its counter."""
        return any(not attempt.told for attempt in self.attempts)

    @property
    def tried(self) -> bool:
        """Whether a try was begun, and not withdrawn."""
        return self.spent or bool(self.attempts)

    def begun(self, usec: int, asked_by: str) -> Entry:
        """A try is about to be sent: it counts as gone until the card says otherwise."""
        open_ = tuple(attempt for attempt in self.attempts if not attempt.told)
        if len(open_) == MOST_ATTEMPTS:
            # the first one knows what was true before all of them, the last one is withdrawn
            open_ = (open_[0], *open_[2:])
        return replace(
            self,
            lowest=None if self.lowest is None else max(0, self.lowest - 1),
            attempts=(*open_, Attempt(usec, asked_by, self.lowest)),
            spent=self.spent or len(open_) < len(self.attempts),
        )

    def withdrawn(self) -> Entry:
        """The attempt that began last was not sent after all: as if it had not been begun."""
        if not self.attempts:
            return self
        *others, last = self.attempts
        lowest = self.lowest if last.told else last.before
        return replace(self, lowest=lowest, attempts=tuple(others))

    def told(self, count: int) -> Entry:
        """The card told its counter: it had judged whatever was in flight.

        That may come between an attempt and its outcome, as a count that is read back, but never
        between an attempt and its command (see `core.dialogue.Attempt`).
        """
        open_ = [attempt for attempt in self.attempts if not attempt.told]
        base = open_[0].before if open_ else self.lowest
        return replace(
            self,
            lowest=count if base is None else min(base, count),
            attempts=tuple(replace(attempt, told=True) for attempt in self.attempts),
        )

    def over(self) -> Entry:
        """The outcomes of the attempts that the card has told of are known, too."""
        open_ = tuple(attempt for attempt in self.attempts if not attempt.told)
        return replace(self, attempts=open_, spent=self.spent or len(open_) < len(self.attempts))

    def forgotten(self) -> Entry:
        """A success, or a new passcode: the card counts from its maximum again."""
        return replace(self, lowest=None, attempts=(), spent=self.tried)

    def sank(self, before: Entry) -> bool:
        """Whether a count is known that is lower than what `before` knew."""
        return self.lowest is not None and (before.lowest is None or self.lowest < before.lowest)


def strictest(one: Entry, other: Entry) -> Entry:
    """Two memories of the same PIN, when nobody can tell which is newer."""
    attempts: dict[tuple[int, str], Attempt] = {}
    for mine, theirs in ((one, other), (other, one)):
        for attempt in mine.attempts:
            known = attempts.setdefault((attempt.usec, attempt.asked_by), attempt)
            # withdrawing it must not restore more than the other memory knows
            before = lowest(known.before, attempt.before, theirs.lowest)
            attempts[attempt.usec, attempt.asked_by] = replace(
                known, before=before, told=known.told and attempt.told
            )
    return Entry(
        lowest=lowest(one.lowest, other.lowest),
        attempts=tuple(sorted(attempts.values(), key=lambda each: each.usec))[-MOST_ATTEMPTS:],
        spent=one.spent or other.spent,
        changed_usec=max(one.changed_usec, other.changed_usec),
    )


def lowest(*counts: int | None) -> int | None:
    """The lowest of the counts that are known."""
    return min((count for count in counts if count is not None), default=None)
