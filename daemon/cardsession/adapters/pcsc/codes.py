"""PC/SC return codes as ours, and the context that every thread needs of its own."""

from __future__ import annotations

import os

from smartcard import scard

from cardsession.core.errors import Failure, Problem

REFUSED = "the card service refuses us"
ABSENT = "the card service is not there"
FOREIGN = "the card service speaks another protocol"
_GONE = frozenset({0x8010000C, 0x80100069, 0x80100016, 0x80100003})
_BACKEND = frozenset({0x8010001D, 0x80100014})
_PROBLEMS: dict[int, tuple[Problem, str]] = {
    0x8010000B: (Problem.IN_USE_ELSEWHERE, "another program holds the card"),
    0x80100068: (Problem.CARD_RESET, "another program reset the card"),
    0x80100066: (Problem.CARD_MUTE, "the card does not answer"),
    0x80100067: (Problem.CARD_MUTE, "the card has no power"),
    0x80100065: (Problem.CARD_MUTE, "the card's answer to reset is not supported"),
    0x8010000F: (Problem.CARD_MUTE, "the card and the reader share no protocol"),
    0x80100009: (Problem.READER_REMOVED, "the reader is gone"),
    0x80100017: (Problem.READER_REMOVED, "the reader is gone"),
    0x80100013: (Problem.BACKEND_UNAVAILABLE, "the card service went away"),
    0x8010006A: (Problem.BACKEND_UNAVAILABLE, REFUSED),
    0x8010001E: (Problem.BACKEND_UNAVAILABLE, FOREIGN),
    0x8010002F: (Problem.CARD_RESET, "the exchange with the card was lost"),
}


def failure(code: int) -> Failure:
    """A PC/SC return code as one of ours."""
    code &= 0xFFFFFFFF
    if code in _GONE:
        return Failure(Problem.CARD_REMOVED, "the card was removed")
    if code in _BACKEND:
        return Failure(Problem.BACKEND_UNAVAILABLE, ABSENT)
    problem, text = _PROBLEMS.get(code, (Problem.CARD_RESET, f"PC/SC error {code:08X}"))
    return Failure(problem, text)


def check(code: int) -> None:
    """Nothing, or the code's `Failure`."""
    if code != scard.SCARD_S_SUCCESS:
        raise failure(code)


def establish() -> int:
    """A context of the calling thread's own."""
    # Without this, Connect and Transmit wait without limit for a rival's transaction.
    os.environ.setdefault("PCSCLITE_NO_BLOCKING", "1")
    code, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
    check(code)
    return int(context)
