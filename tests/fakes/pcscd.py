"""The card service in memory, as `smartcard.scard` shows it: handles, share modes, transactions.

Put in that module's place it lets the real channel run over cards that lie in slots, with another
program at the same readers. What it does was measured on pcscd (card-rules C): a rival's reset
shows at the next call, a removal only once the service noticed it, and a card that takes another
one's place unnoticed answers in its stead, as vpcd has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from smartcard import scard

from cardsession.core.reports import SlotReport

OK = 0
NO_SERVICE = 0x8010001D
NO_READER = 0x80100009
NO_CARD = 0x8010000C
REMOVED = 0x80100069
RESET = 0x80100068
UNRESPONSIVE = 0x80100066
INVALID_HANDLE = 0x80100003
SHARING_VIOLATION = 0x8010000B
NOT_TRANSACTED = 0x8010002F
UNSUPPORTED = 0x8010001F
T1 = 2


class Chip(Protocol):
    """A card."""

    atr: bytes

    def reset(self) -> None:
        """Lose power."""


C = TypeVar("C", bound=Chip)


@dataclass(eq=False)
class Handle(Generic[C]):
    """One connection. `ours`, or the rival's; `code` is what its next call answers."""

    slot: Slot[C]
    ours: bool
    exclusive: bool
    code: int = OK


@dataclass(eq=False)
class Slot(Generic[C]):
    """A reader: what lies in it, and what the service has noticed of that."""

    name: str
    chip: C | None = None
    seen: C | None = None
    mute: bool = False
    """The card lies in it the wrong way."""
    wakes: bool = False
    """And yet it answers, once it has lost its power and got it again."""
    powered: int = 0
    """How often a mute card was given its power anew."""
    counter: int = 0
    moves: int = 0
    """Insertions and removals that were not noticed yet."""
    cold: bool = False
    """The card came while another one was spoken to: it has no power."""
    handles: list[Handle[C]] = field(default_factory=list)
    holder: Handle[C] | None = None
    """Whose transaction it is."""

    @property
    def answers(self) -> C | None:
        """The card that a command reaches."""
        return None if self.cold or self.mute else self.chip

    def report(self) -> SlotReport:
        """What a status wait says."""
        return SlotReport(
            self.name,
            present=self.seen is not None,
            mute=self.mute and self.seen is not None,
            exclusive=any(each.exclusive for each in self.handles),
            counter=self.counter,
            atr=self.seen.atr if self.seen and not self.mute else b"",
        )


class FakePcscd(Generic[C]):
    """See the module. `exchange` carries our commands, `gap` is called where a rival could come
    in: before each of our calls that waits for the card."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.slots = {name: Slot[C](name) for name in names}
        self.down = False
        self.exchange: Callable[[Slot[C], bytes], tuple[int, bytes]]
        self.gap: Callable[[Slot[C]], None] = lambda _: None
        self.told: Callable[[], None] = lambda: None
        self.begun: Callable[[Slot[C]], None] = lambda _: None
        self.ended: Callable[[Slot[C]], None] = lambda _: None
        self._handles: dict[int, Handle[C]] = {}
        self._direct: dict[int, Slot[C]] = {}
        """Handles that need no card."""
        self._last = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(scard, name)  # its constants

    # what happens to readers and cards

    def insert(self, slot: Slot[C], chip: C, *, mute: bool = False) -> None:
        """A card comes; nobody has noticed yet."""
        chip.reset()
        slot.chip, slot.mute = chip, mute
        slot.cold = slot.holder is not None and slot.holder.ours
        slot.moves += 1

    def pull(self, slot: Slot[C]) -> None:
        """It goes, and loses its power."""
        if slot.chip is not None:
            slot.chip.reset()
            slot.chip, slot.mute = None, False
            slot.moves += 1

    def notice(self, slot: Slot[C]) -> None:
        """The service looks: handles of a card that went are dead."""
        if not slot.moves:
            return
        if slot.seen is not None:
            self._break(slot, REMOVED)
        slot.counter += slot.moves
        slot.moves, slot.cold, slot.seen = 0, False, slot.chip
        if slot.chip:
            slot.chip.reset()

    def unplug(self, name: str) -> Slot[C]:
        """A reader goes, with whatever lies in it."""
        slot = self.slots.pop(name)
        self._break(slot, NO_READER)
        if slot.chip:
            slot.chip.reset()
        return slot

    def plug(self, name: str, chip: C | None) -> None:
        """It comes back, and counts from the start."""
        slot = self.slots[name] = Slot(name)
        slot.chip = slot.seen = chip
        slot.counter = 1 if chip else 0

    def die(self) -> None:
        """The service ends: every card loses its power, every handle is dead."""
        self.down = True
        for slot in self.slots.values():
            self._break(slot, INVALID_HANDLE)
            slot.counter = slot.moves = 0
            if slot.chip:
                slot.chip.reset()

    def rise(self) -> None:
        """It is started again."""
        self.down = False
        for slot in self.slots.values():
            slot.seen, slot.cold, slot.moves = slot.chip, False, 0

    def kill_us(self) -> None:
        """Our process is gone: the service resets whatever it held."""
        for handle in [each for each in self._handles.values() if each.ours]:
            self._close(handle, reset=True)

    def _break(self, slot: Slot[C], code: int) -> None:
        for handle in slot.handles:
            handle.code = code
        slot.handles.clear()
        slot.holder = None

    # what a rival does

    def rival(self, slot: Slot[C], *, exclusive: bool = False) -> Handle[C] | None:
        """A rival's handle, if it can have one now."""
        return self._connect(slot, ours=False, exclusive=exclusive)[1]

    def release(self, handle: Handle[C], *, reset: bool) -> None:
        """The rival lets go."""
        self._close(handle, reset=reset)

    # smartcard.scard

    def SCardEstablishContext(self, _: int) -> tuple[int, int]:  # noqa: N802
        return (NO_SERVICE if self.down else OK), 1

    def SCardReleaseContext(self, _: int) -> int:  # noqa: N802
        return OK

    def SCardConnect(  # noqa: N802
        self, _: int, name: str, mode: int, __: int
    ) -> tuple[int, int, int]:
        slot = self.slots.get(name)
        if slot:
            self.gap(slot)
        if self.down or slot is None:
            return (NO_SERVICE if self.down else NO_READER), 0, 0
        if mode == scard.SCARD_SHARE_DIRECT:
            return self._connect_direct(slot)
        code, handle = self._connect(slot, ours=True, exclusive=mode == scard.SCARD_SHARE_EXCLUSIVE)
        if handle is None:
            return code, 0, 0
        self._last += 1
        self._handles[self._last] = handle
        return OK, self._last, T1

    def SCardGetAttrib(self, _: int, __: int) -> tuple[int, list[int]]:  # noqa: N802
        return UNSUPPORTED, []  # the reader says nothing of itself

    def SCardControl(self, _: int, __: int, ___: list[int]) -> tuple[int, list[int]]:  # noqa: N802
        return UNSUPPORTED, []

    def SCardReconnect(self, card: int, _: int, __: int, ___: int) -> tuple[int, int]:  # noqa: N802
        if card in self._direct:
            return self._power(self._direct[card]), 0
        handle = self._handles[card]
        if handle.code == RESET:
            handle.code = OK
        return handle.code, T1

    def SCardDisconnect(self, card: int, disposition: int) -> int:  # noqa: N802
        if self._direct.pop(card, None):
            return OK
        handle = self._handles.pop(card, None)
        if handle is None:
            return INVALID_HANDLE
        if handle.code in (OK, RESET):
            self._close(handle, reset=disposition == scard.SCARD_RESET_CARD)
            self.gap(handle.slot)
        return OK if handle.code in (OK, RESET) else handle.code

    def SCardStatus(self, card: int) -> tuple[int, str, int, int, list[int]]:  # noqa: N802
        handle = self._handles.get(card)
        code = handle.code if handle else INVALID_HANDLE
        if handle and code == OK and handle.slot.holder not in (None, handle):
            code = SHARING_VIOLATION
        return code, "", 0, 0, []

    def SCardBeginTransaction(self, card: int) -> int:  # noqa: N802
        handle = self._handles.get(card)
        if handle is None:
            return INVALID_HANDLE
        slot = handle.slot
        self.gap(slot)
        if handle.code == OK and slot.holder not in (None, handle):
            return SHARING_VIOLATION
        if handle.code == OK:
            slot.holder = handle
            self.begun(slot)
        return handle.code

    def SCardEndTransaction(self, card: int, _: int) -> int:  # noqa: N802
        handle = self._handles.get(card)
        if handle and handle.slot.holder is handle:
            self.ended(handle.slot)
            handle.slot.holder = None
            self.gap(handle.slot)
        return OK

    def SCardTransmit(  # noqa: N802
        self, card: int, _: int, numbers: list[int]
    ) -> tuple[int, list[int]]:
        handle = self._handles.get(card)
        if handle is None or handle.code != OK:
            return (handle.code if handle else INVALID_HANDLE), []
        code, answer = self.exchange(handle.slot, bytes(numbers))
        return code, list(answer)

    def SCardGetStatusChange(  # noqa: N802
        self, _: int, msec: int, asked: list[tuple[str, int]]
    ) -> tuple[int, list[tuple[str, int, list[int]]]]:
        ((name, _state),) = asked
        slot = self.slots.get(name)
        if self.down or slot is None:
            return (NO_SERVICE if self.down else NO_READER), []
        if msec and slot.moves:  # the service looks every 400 ms, and all who wait are told
            self.notice(slot)
            self.told()
        present = scard.SCARD_STATE_PRESENT if slot.seen else scard.SCARD_STATE_EMPTY
        return OK, [(name, present, [])]

    def _connect(
        self, slot: Slot[C], *, ours: bool, exclusive: bool
    ) -> tuple[int, Handle[C] | None]:
        if slot.seen is None or slot.mute:
            return (UNRESPONSIVE if slot.mute and slot.seen else NO_CARD), None
        if any(each.exclusive for each in slot.handles) or (exclusive and slot.handles):
            return SHARING_VIOLATION, None
        handle = Handle(slot, ours, exclusive)
        slot.handles.append(handle)
        return OK, handle

    def _connect_direct(self, slot: Slot[C]) -> tuple[int, int, int]:
        if any(each.exclusive for each in slot.handles):
            return SHARING_VIOLATION, 0, 0
        self._last += 1
        self._direct[self._last] = slot
        return OK, self._last, 0

    def _power(self, slot: Slot[C]) -> int:
        slot.powered += 1
        if slot.chip:
            slot.chip.reset()
        slot.mute = slot.mute and not slot.wakes
        return UNRESPONSIVE if slot.mute else OK

    def _close(self, handle: Handle[C], *, reset: bool) -> None:
        slot = handle.slot
        if handle not in slot.handles:
            return
        slot.handles.remove(handle)
        if slot.holder is handle or reset:
            slot.holder = None  # a reset waits for another's transaction: it is over by then
        if reset:
            for other in slot.handles:
                other.code = RESET
            if slot.answers:
                slot.answers.reset()
