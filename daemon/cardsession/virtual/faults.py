"""What goes wrong, and when: faults that fire once, on a chosen exchange."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

_HEADER: Final = 4
_HEADER_AND_LC: Final = 5


class FaultKind(StrEnum):
    """What happens to the exchange."""

    PULL = "pull"
    SILENT = "silent"
    ANSWER = "answer"


class Stage(StrEnum):
    """Before the card carries the command out, or after that and before the answer leaves."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(slots=True)
class Fault:
    """One fault. Without `ins`, `n` is the exchange's number since insertion, from 1.

    With `ins`, `n` counts the commands with that instruction from now on, GET RESPONSE and the
    like left aside; `with_data` skips those without a data field (an empty VERIFY).
    `answer` is what the card says instead: a silence that ends with one, before the command was
    carried out, is a command that never reached the card.
    """

    kind: FaultKind
    n: int
    stage: Stage = Stage.BEFORE
    ins: int | None = None
    with_data: bool = False
    answer: bytes = b""
    _seen: int = field(default=0, repr=False)

    def meets(self, number: int, raw: bytes) -> bool:
        """Does this fault fire on the exchange `number` with the command `raw`?"""
        if self.ins is None:
            return number == self.n
        if len(raw) < _HEADER or raw[1] != self.ins:
            return False
        if self.with_data and len(raw) <= _HEADER_AND_LC:
            return False
        self._seen += 1
        return self._seen == self.n

    def as_dict(self) -> dict[str, object]:
        """As JSON can carry it."""
        ins = None if self.ins is None else f"{self.ins:02X}"
        return {
            "kind": self.kind.value,
            "n": self.n,
            "stage": self.stage.value,
            "ins": ins,
            "with_data": self.with_data,
        }


class Faults:
    """The faults that are armed. They outlive removal: one can be armed before insertion."""

    def __init__(self) -> None:
        self._armed: list[Fault] = []

    def arm(self, fault: Fault) -> None:
        """Add one."""
        self._armed.append(fault)

    def clear(self) -> None:
        """Disarm all."""
        self._armed.clear()

    def take(self, number: int, raw: bytes) -> Fault | None:
        """The first fault that fires on this exchange; it is disarmed."""
        # Every fault sees every exchange: those with `ins` count what passes.
        hits = [fault for fault in self._armed if fault.meets(number, raw)]
        if not hits:
            return None
        self._armed.remove(hits[0])
        return hits[0]

    def as_list(self) -> list[dict[str, object]]:
        """Those still armed."""
        return [fault.as_dict() for fault in self._armed]
