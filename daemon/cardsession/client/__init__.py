"""The contract as a typed asyncio library: what a dispensing program would use.

    async with await CardSessionClient.open() as client:
        for card in client.cards():
            session = await client.open_session(card.path, "dispensing")
            verdict = await session.verify_pin(bytearray(b"..."))

Over bus/connection.py and bus/contract.py only: nothing of the daemon is known here. A session
belongs to the client that opened it and ends with its connection. Words of the contract's closed
sets are enumerations in `words`, equal to its own strings; one that this version does not know is
`UNKNOWN`. Each error of the contract has a class in `errors`.
"""

from . import errors, words
from .client import CardSessionClient, Events
from .diagnostics import Diagnostics
from .errors import BusLost, BusRefused, CardSessionError, ServiceAbsent, ServiceError
from .records import (
    Added,
    CardGone,
    CardInfo,
    CardReady,
    Certificate,
    Changed,
    Ended,
    Event,
    Exchange,
    Info,
    Lost,
    ManagerInfo,
    Permission,
    PinStatus,
    ReaderInfo,
    Removed,
    ServiceBack,
    ServiceGone,
    SessionInfo,
    Signed,
    Transmitted,
    Verdict,
)
from .session import Session

__all__ = [
    "Added",
    "BusLost",
    "BusRefused",
    "CardGone",
    "CardInfo",
    "CardReady",
    "CardSessionClient",
    "CardSessionError",
    "Certificate",
    "Changed",
    "Diagnostics",
    "Ended",
    "Event",
    "Events",
    "Exchange",
    "Info",
    "Lost",
    "ManagerInfo",
    "Permission",
    "PinStatus",
    "ReaderInfo",
    "Removed",
    "ServiceAbsent",
    "ServiceBack",
    "ServiceError",
    "ServiceGone",
    "Session",
    "SessionInfo",
    "Signed",
    "Transmitted",
    "Verdict",
    "errors",
    "words",
]
