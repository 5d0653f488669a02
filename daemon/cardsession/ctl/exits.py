"""How a command ends: the exit codes, and each failure's own message.

A script asks the code, a person reads the message; both are chosen here, by who must act.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from cardsession.client import BusLost, BusRefused, CardSessionError, ServiceAbsent, ServiceError
from cardsession.client import errors as answers


class Exit(IntEnum):
    """The exit codes; part of the interface, as the bus is."""

    OK = 0
    NOT_ACCEPTED = 1
    NOT_PERMITTED = 3
    ABSENT = 4
    NO_CARD = 5
    BLOCKED = 6
    BUSY = 7
    FAILED = 8
    USAGE = 64
    INTERNAL = 70
    INTERRUPTED = 130


MEANINGS: Final = {
    Exit.OK: "done; for verify: the passcode is right",
    Exit.NOT_ACCEPTED: "the passcode is wrong, or was not sent (the outcome says why)",
    Exit.NOT_PERMITTED: "the message bus cannot be reached or refuses this user",
    Exit.ABSENT: "cardsessiond is not running",
    Exit.NO_CARD: "there is no such card or session, or it went away",
    Exit.BLOCKED: "the passcode is blocked",
    Exit.BUSY: "the card or its reader is busy, or in use elsewhere",
    Exit.FAILED: "cardsessiond cannot or will not do it; the message says why",
    Exit.USAGE: "the command line is not understood",
    Exit.INTERNAL: "a fault of cardsessionctl",
    Exit.INTERRUPTED: "interrupted (143 by SIGTERM, 129 by SIGHUP)",
}

_CARD_GONE: Final = frozenset(
    {"card-removed", "card-replaced", "reader-removed", "card-reset", "card-mute"}
)
"""End reasons for which somebody looks at the reader."""


class Complaint(Exception):
    """A command cannot go on: `exit` for scripts, the text for people."""

    def __init__(self, code: Exit, text: str) -> None:
        super().__init__(text)
        self.exit = code


_SAID: Final[dict[type[ServiceError], tuple[Exit, str]]] = {
    answers.NotAuthorized: (Exit.NOT_PERMITTED, "cardsessiond does not permit this user to do it"),
    answers.NotOwner: (Exit.NOT_PERMITTED, "the session belongs to another program"),
    answers.NoCard: (Exit.NO_CARD, "there is no card"),
    answers.CardRemoved: (Exit.NO_CARD, "the card is gone"),
    answers.UnknownObject: (Exit.NO_CARD, "the card or session is gone"),
    answers.ReaderRemoved: (Exit.NO_CARD, "the reader is gone"),
    answers.CardReset: (Exit.NO_CARD, "the card was reset by another program: try again"),
    answers.CardMute: (Exit.NO_CARD, "the card does not answer: check how it is inserted"),
    answers.Busy: (Exit.BUSY, "the card has a session already"),
    answers.InUseElsewhere: (Exit.BUSY, "another program is using the card"),
    answers.ReaderStuck: (Exit.BUSY, "the reader is stuck: unplug it and plug it in again"),
    answers.BackendUnavailable: (Exit.FAILED, "the card service (pcscd) is not available"),
    answers.NotSupported: (Exit.FAILED, "cardsessiond does not support this"),
    answers.NoReply: (Exit.FAILED, "cardsessiond does not answer"),
}


def complaint(error: CardSessionError) -> Complaint:
    """What a failure of the client library means for a command."""
    match error:
        case BusRefused():
            text = "is it running, and are you in the group cardsession?"
            return Complaint(Exit.NOT_PERMITTED, f"no access to the message bus: {error}; {text}")
        case BusLost():
            return Complaint(Exit.NOT_PERMITTED, f"the message bus is gone: {error}")
        case ServiceAbsent():
            text = "cardsessiond is not running"
            return Complaint(Exit.ABSENT, text)
        case answers.SessionEnded():
            return ended(error.text)
        case ServiceError() if type(error) in _SAID:
            code, text = _SAID[type(error)]
            return Complaint(code, f"{text} ({error})")
    return Complaint(Exit.FAILED, f"cardsessiond answers: {error}")


def ended(reason: str) -> Complaint:
    """A session that is over before its work was done."""
    match reason:
        case "pin-blocked":
            return Complaint(Exit.BLOCKED, "the passcode is blocked")
        case "service-gone" | "daemon-stopping":
            return Complaint(Exit.ABSENT, "cardsessiond has stopped")
        case "bus-lost":
            return Complaint(Exit.NOT_PERMITTED, "the message bus is gone")
    code = Exit.NO_CARD if reason in _CARD_GONE else Exit.FAILED
    return Complaint(code, f"the session has ended: {reason}")
