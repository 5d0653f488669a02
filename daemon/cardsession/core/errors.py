"""The closed family of errors, sorted by who must act.

Whatever goes wrong below (a PC/SC code, a status word, a caller's mistake) becomes one
`Failure` here; its `Problem` is the name that the bus contract publishes.
"""

from __future__ import annotations

from enum import StrEnum


class Problem(StrEnum):
    """The contract's error names, `org.cardsession1.Error.<value>` (bus contract, "Errors")."""

    # the caller may not, or asked for what there is not
    NOT_AUTHORIZED = "NotAuthorized"
    NOT_OWNER = "NotOwner"
    NO_SUCH_FUNCTION = "NoSuchFunction"
    NO_SUCH_PIN = "NoSuchPin"
    NO_SUCH_SLOT = "NoSuchSlot"
    NOT_VERIFIED = "NotVerified"
    NOT_TRUSTED = "NotTrusted"
    USED_BY_REQUIRED = "UsedByRequired"
    UNSUPPORTED_ALGORITHM = "UnsupportedAlgorithm"
    INVALID_CONTEXT = "InvalidContext"
    SECRET_INVALID = "SecretInvalid"  # noqa: S105 - an error's name
    INVALID_APDU = "InvalidApdu"
    APDU_FILTERED = "ApduFiltered"
    NOT_SUPPORTED = "NotSupported"
    INVALID_ARGS = "InvalidArgs"
    # wait, or close and ask again
    BUSY = "Busy"
    IN_USE_ELSEWHERE = "InUseElsewhere"
    SUSPENDED = "Suspended"
    TIMEOUT = "Timeout"
    SESSION_ENDED = "SessionEnded"
    # the card
    NO_CARD = "NoCard"
    CARD_REMOVED = "CardRemoved"
    CARD_RESET = "CardReset"
    CARD_MUTE = "CardMute"
    # the reader, the card service
    READER_REMOVED = "ReaderRemoved"
    READER_STUCK = "ReaderStuck"
    BACKEND_UNAVAILABLE = "BackendUnavailable"
    # our bug
    INTERNAL = "Internal"


TEXTS = {
    Problem.BUSY: "another operation is under way",
    Problem.SESSION_ENDED: "the session has ended",
    Problem.NOT_VERIFIED: "the session is not active",
    Problem.NO_CARD: "there is no card",
    Problem.CARD_MUTE: "the card does not answer; check its orientation",
    Problem.CARD_REMOVED: "the card was removed",
    Problem.READER_REMOVED: "the reader was removed",
    Problem.READER_STUCK: "the reader does not answer",
    Problem.IN_USE_ELSEWHERE: "another program holds the card",
    Problem.BACKEND_UNAVAILABLE: "the card service went away",
    Problem.SUSPENDED: "the machine is about to sleep",
    Problem.INTERNAL: "an internal error",
}
"""What a caller is told where the place of the failure adds nothing."""


class Failure(Exception):
    """Something that was asked for cannot be done; `text` may be shown to a caller.

    The text is one of ours: never a secret, never data from a card, never a traceback.
    """

    def __init__(self, problem: Problem, text: str) -> None:
        super().__init__(f"{problem}: {text}")
        self.problem = problem
        self.text = text


class Malformed(Exception):
    """A card's answer does not follow the standard that it claims; the text names the place."""


class Unexpected(Exception):
    """Our bug: an event that the transition table has no place for."""
