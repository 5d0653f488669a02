"""Another program at the same readers."""

from __future__ import annotations

from collections.abc import Callable

from fakes.clock import FakeClock
from fakes.pcscd import OK, FakePcscd, Handle, Slot
from fakes.specimens import PASSCODES, PUK, SELECT_ANOTHER, Specimen

ACTS: dict[str, Callable[[Specimen], tuple[bytes, ...]]] = {
    "verifies": lambda card: card.verify(card.recipe.pins["user"], PASSCODES[0]),
    "verifies another": lambda card: card.verify(card.other, PASSCODES[0]),
    "tries": lambda card: card.verify(card.recipe.pins["user"], "00000000"),
    "tries another": lambda card: card.verify(card.other, "00000000"),
    "tries the puk": lambda card: card.unblock(card.recipe.pins["user"], "00000000"),
    "unblocks": lambda card: card.unblock(card.recipe.pins["user"], PUK),
    "selects another": lambda card: (SELECT_ANOTHER,),
    "looks": lambda card: (),
}
"""What it says to a card; it may be wrong about a passcode that was changed since."""
SECONDS = 0.001
"""That it takes."""


class Rival:
    """What it does at a card, and what it keeps of it."""

    def __init__(self, pcscd: FakePcscd[Specimen], clock: FakeClock) -> None:
        self.handles: dict[str, Handle[Specimen]] = {}
        """What it holds, by reader."""
        self._pcscd = pcscd
        self._clock = clock
        self._waits: tuple[str, bool, int] | None = None

    def act(self, slot: Slot[Specimen], what: str, *, reset: bool) -> None:
        """It does it, where it can have the card, and leaves the card so, or resets it."""
        kept = self.handles.get(slot.name)
        handle = kept or self._pcscd.rival(slot)
        mine = slot.holder is None or slot.holder is handle
        if handle is None or handle.code != OK or not mine or slot.answers is None:
            return
        slot.answers.rival(*ACTS[what](slot.answers))
        self._clock.advance(SECONDS)
        if kept is None:
            self._pcscd.release(handle, reset=reset)

    def wait(self, what: str, gaps: int, *, reset: bool) -> None:
        """It comes in between two calls of ours, when so many such moments have passed."""
        self._waits = what, reset, gaps

    def give_up(self) -> None:
        """It waits no longer."""
        self._waits = None

    def gap(self, slot: Slot[Specimen]) -> None:
        """Such a moment."""
        if self._waits is None or slot.holder is not None:
            return
        what, reset, gaps = self._waits
        self._waits = (what, reset, gaps - 1) if gaps else None
        if not gaps:
            self.act(slot, what, reset=reset)

    def keep(self, name: str, kind: str) -> None:
        """It keeps a handle: `shared`, `exclusive`, or with a `transaction`."""
        slot = self._pcscd.slots.get(name)
        handle = slot and self._pcscd.rival(slot, exclusive=kind == "exclusive")
        if slot and handle:
            self.handles[name] = handle
            if kind == "transaction" and slot.holder is None:
                slot.holder = handle

    def release(self, name: str, *, reset: bool) -> None:
        """It lets go of it."""
        self._pcscd.release(self.handles.pop(name), reset=reset)
