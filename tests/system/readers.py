"""What pcscd itself believes of the virtual readers, asked without the daemon."""

from __future__ import annotations

from smartcard import scard

from cardsession.stack.pcscd import READERS


def present(slot: int) -> bool:
    """Whether it believes that a card is in."""
    _, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
    try:
        asked = [(READERS[slot], scard.SCARD_STATE_UNAWARE)]
        _, ((_, state, _),) = scard.SCardGetStatusChange(context, 0, asked)
        return bool(state & scard.SCARD_STATE_PRESENT)
    finally:
        scard.SCardReleaseContext(context)


def empty() -> bool:
    """Whether it believes that no card is in any of them."""
    return not any(present(slot) for slot in range(len(READERS)))
