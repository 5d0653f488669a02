"""A card in a reader that can be pulled, told what to do as `cardsession.stack.Card` is.

The reader is one of tests/system/usb.py, at stock pcscd; the card lives in this process.
"""

from __future__ import annotations

import threading
from typing import Any

from cardsession.virtual.card import VirtualCard
from cardsession.virtual.faults import Fault, FaultKind, Faults, Stage
from fakes.cards import make_card
from system.ifd import Slot

LONGEST_SECONDS = 30.0


class UsbCard:
    """See the module. Its exchanges come in on threads of the reader's."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self._card: VirtualCard = make_card()
        self._faults = Faults()
        self._silent = False
        self._speaks = threading.Event()

    def into(self, slot: Slot) -> None:
        """The reader is another one from now on, and empty."""
        self.slot = slot

    def insert(self, *, mute: bool = False) -> None:
        """Put it in, the wrong way round if it is to be mute."""
        self._card.book.inserted()
        self.slot.garble = self._exchange
        self.slot.insert(self._card, mute=mute)

    def remove(self) -> None:
        """Pull it."""
        self.slot.pull()

    def status(self) -> dict[str, Any]:
        """Its own book."""
        return {
            "card": "first",
            "inserted": self.slot.chip is not None,
            "silent": self._silent,
            "atr": self._card.atr.hex(),
            "references": self._card.pins.as_dict(),
            **self._card.book.as_dict(),
        }

    def tell(self, command: str, **fields: Any) -> dict[str, Any]:
        """One order; KeyError if it is none of those that are understood."""
        orders = {
            "clear-faults": self._faults.clear,
            "reset-book": self._card.book.clear,
            "speak": self._speaks.set,
            "swap": self.insert,
            "set-tries": lambda: setattr(self._card.pins.reference(0x80), "left", fields["left"]),
            "silent-at": lambda: self._arm(**fields),
        }
        orders[command]()
        return self.status()

    def _arm(self, n: int, stage: str, ins: str = "", *, with_data: bool = False) -> None:
        number = int(ins, 16) if ins else None
        self._speaks.clear()
        self._faults.arm(Fault(FaultKind.SILENT, n, Stage(stage), number, with_data))

    def _exchange(self, raw: bytes) -> bytes:
        card, slot = self._card, self.slot
        fault = self._faults.take(card.book.exchanged(raw), raw)
        answer = card.process(raw)
        if fault is not None:
            self._silent = True
            self._speaks.wait(LONGEST_SECONDS)
            self._silent = False
        return answer if slot.chip is card else b""
