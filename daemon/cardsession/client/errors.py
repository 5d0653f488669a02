"""What can go wrong for a client: one class for each error of the contract, by a table."""

from __future__ import annotations

from cardsession.bus.connection import BusError
from cardsession.bus.contract import ErrorName


class CardSessionError(Exception):
    """Any failure that this library reports."""


class BusRefused(CardSessionError):
    """No connection to the bus (the text says why), or its policy forbids this user the call."""


class BusLost(CardSessionError):
    """The connection to the bus has ended, and every session of this client with it."""


class ServiceAbsent(CardSessionError):
    """The daemon is not on the bus."""


class ServiceError(CardSessionError):
    """The daemon answered with an error; `name` is its full name, `text` for people."""

    def __init__(self, name: str, text: str = "") -> None:
        super().__init__(f"{name.rpartition('.')[2]}: {text}" if text else name.rpartition(".")[2])
        self.name = name
        self.text = text


_CLASSES: dict[str, type[ServiceError]] = {}


def _error(name: ErrorName) -> type[ServiceError]:
    """The class for an error name, called like its last element."""
    short = name.rpartition(".")[2]
    made = type(short, (ServiceError,), {"__module__": __name__, "__doc__": f"{name}."})
    _CLASSES[name] = made
    return made


NotAuthorized = _error(ErrorName.NOT_AUTHORIZED)
NotOwner = _error(ErrorName.NOT_OWNER)
NoSuchFunction = _error(ErrorName.NO_SUCH_FUNCTION)
NoCard = _error(ErrorName.NO_CARD)
Busy = _error(ErrorName.BUSY)
SessionEnded = _error(ErrorName.SESSION_ENDED)
CardRemoved = _error(ErrorName.CARD_REMOVED)
CardReset = _error(ErrorName.CARD_RESET)
CardMute = _error(ErrorName.CARD_MUTE)
ReaderRemoved = _error(ErrorName.READER_REMOVED)
ReaderStuck = _error(ErrorName.READER_STUCK)
InUseElsewhere = _error(ErrorName.IN_USE_ELSEWHERE)
BackendUnavailable = _error(ErrorName.BACKEND_UNAVAILABLE)
Suspended = _error(ErrorName.SUSPENDED)
InvalidApdu = _error(ErrorName.INVALID_APDU)
ApduFiltered = _error(ErrorName.APDU_FILTERED)
NoSuchPin = _error(ErrorName.NO_SUCH_PIN)
NoSuchSlot = _error(ErrorName.NO_SUCH_SLOT)
NotVerified = _error(ErrorName.NOT_VERIFIED)
NotTrusted = _error(ErrorName.NOT_TRUSTED)
UsedByRequired = _error(ErrorName.USED_BY_REQUIRED)
UnsupportedAlgorithm = _error(ErrorName.UNSUPPORTED_ALGORITHM)
InvalidContext = _error(ErrorName.INVALID_CONTEXT)
SecretInvalid = _error(ErrorName.SECRET_INVALID)
Timeout = _error(ErrorName.TIMEOUT)
NotSupported = _error(ErrorName.NOT_SUPPORTED)
Internal = _error(ErrorName.INTERNAL)
InvalidArgs = _error(ErrorName.INVALID_ARGS)
UnknownObject = _error(ErrorName.UNKNOWN_OBJECT)
NoReply = _error(ErrorName.NO_REPLY)

_ABSENT = frozenset({ErrorName.SERVICE_UNKNOWN, ErrorName.NAME_HAS_NO_OWNER})
_NOT_STARTED = "org.freedesktop.DBus.Error.Spawn."


def typed(error: BusError) -> CardSessionError:
    """An error reply as the exception it stands for."""
    if error.name in _ABSENT or error.name.startswith(_NOT_STARTED):
        return ServiceAbsent("the service is not running")
    if error.name == ErrorName.ACCESS_DENIED:
        return BusRefused("this user may not do that")
    return _CLASSES.get(error.name, ServiceError)(error.name, error.text)
