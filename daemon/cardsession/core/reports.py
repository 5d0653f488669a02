"""What a status wait says of the readers, and the events that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

from .facts import Backend
from .states import Event


@dataclass(frozen=True, slots=True)
class SlotReport:
    """One reader at one moment, in PC/SC's terms.

    `counter` is the upper half of the reader's state: pcscd adds one for each insertion and
    each removal that it noticed, and starts again when the reader is plugged in anew.
    """

    name: str
    present: bool = False
    mute: bool = False
    exclusive: bool = False
    counter: int = 0
    atr: bytes = b""


@dataclass(frozen=True, slots=True)
class Listing:
    """All readers as the card service lists them now; what is not in it is not there."""

    backend: Backend
    slots: tuple[SlotReport, ...] = ()


def came_to_life(before: SlotReport, now: SlotReport) -> bool:
    """Whether a card that was mute has told its ATR: it was given power once more, by us or by
    another program. What was shown of it, without an ATR, is another card to whoever looks."""
    stayed = before.present and now.present and before.counter == now.counter
    return stayed and before.mute and not now.mute and bool(now.atr)


def changes(before: SlotReport, now: SlotReport) -> tuple[Event, ...]:
    """The events between two reports of one reader, in the order in which they happened.

    A swap within one poll of the card service leaves both reports with a card in, and the same
    ATR perhaps: only the counter tells. Of an empty reader one that has become less tells nothing:
    a reader that was just plugged in has, for a moment, the counter of the one before it.
    """
    moved = before.counter != now.counter
    arrived = Event.CARD_MUTE if now.mute else Event.CARD_INSERTED
    match before.present, now.present:
        case False, True:
            return (arrived,)
        case True, False:
            return (Event.CARD_REMOVED,)
        case True, True if moved:
            return (Event.CARD_REMOVED, arrived)
        case False, False if now.counter > before.counter:
            return (Event.CARD_INSERTED, Event.CARD_REMOVED)
    if now.present and now.mute and not before.mute:
        return (Event.CARD_MUTE,)
    if before.exclusive and not now.exclusive:
        return (Event.RETRY,)
    return ()
