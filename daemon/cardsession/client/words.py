"""The contract's words: closed sets that may grow, so that each has a place for what is new.

Members are strings and equal to the contract's own. A word that this version does not know is
`UNKNOWN`; of a property that an older service does not have it is `NOT_TOLD`. Reasons and outcomes
are not here: people are told them as they came, and what is not `verified` is no success whatever
it is called.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class Word(StrEnum):
    """A set of words; each has the member UNKNOWN."""

    @classmethod
    def _missing_(cls, value: object) -> Any:
        return cls.__members__["UNKNOWN"] if isinstance(value, str) else None


class Backend(Word):
    """`Manager.Backend`."""

    NOT_TOLD = ""
    UNKNOWN = "unknown"
    STARTING = "starting"
    OK = "ok"
    PCSCD_DOWN = "pcscd-down"
    DENIED = "denied"
    PROTOCOL_MISMATCH = "protocol-mismatch"


class Hotplug(Word):
    """`Manager.Hotplug`."""

    NOT_TOLD = ""
    UNKNOWN = "unknown"
    UDEV = "udev"
    PCSC_ONLY = "pcsc-only"


class RemovalPolicy(Word):
    """`Manager.RemovalPolicy`."""

    NOT_TOLD = ""
    UNKNOWN = "unknown"
    END = "end"
    LOCK = "lock"
    KEEP = "keep"


class ReaderState(Word):
    """`Reader.State`."""

    NOT_TOLD = ""
    UNKNOWN = "unknown"
    EMPTY = "empty"
    PROBING = "probing"
    READY = "ready"
    IN_USE_ELSEWHERE = "in-use-elsewhere"
    MUTE = "mute"
    STUCK = "stuck"
    NO_DRIVER = "no-driver"


class CardState(Word):
    """`Card.State`; here `unknown` is a word of the contract, too: a card that nobody reads."""

    NOT_TOLD = ""
    UNKNOWN = "unknown"
    PROBING = "probing"
    READY = "ready"
    BLANK = "blank"
    MUTE = "mute"


class Trust(Word):
    """`Card.Trust`."""

    NOT_TOLD = ""
    UNKNOWN = "unknown"
    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    REVOKED = "revoked"
    NO_CERTIFICATE = "no-certificate"
    NOT_CHECKED = "not-checked"


class Revocation(Word):
    """`Card.Revocation`."""

    NOT_TOLD = ""
    UNKNOWN = "unknown"
    GOOD = "good"
    REVOKED = "revoked"
    NOT_CHECKED = "not-checked"


class Remedy(Word):
    """`Card.Remedies`."""

    UNKNOWN = "unknown"
    RENEW = "renew"
    SELF_UNLOCK = "self-unlock"
    LSA_OR_SPONSOR = "lsa-or-sponsor"
    RA_IN_PERSON = "ra-in-person"
    REPLACE_CARD = "replace-card"
    ACTIVATE_TEMPORARY_CARD = "activate-temporary-card"
    UNBLOCK = "unblock"
    CONTACT_ISSUER = "contact-issuer"


class PinState(Word):
    """`Card.PinState`, by label; here `unknown` is a word of the contract, too."""

    UNKNOWN = "unknown"
    UNVERIFIED = "unverified"
    VERIFIED = "verified"
    LAST_TRY = "last-try"
    BLOCKED = "blocked"
    NOT_SET = "not-set"


class TriesSource(Word):
    """`Card.PinTriesSource`."""

    NOT_TOLD = ""
    UNKNOWN = "unknown"
    CARD = "card"
    LAST_VERIFY = "last-verify"
    STALE = "stale"
    NONE = "none"


class SessionState(Word):
    """`Session.State`."""

    NOT_TOLD = ""
    UNKNOWN = "unknown"
    UNVERIFIED = "unverified"
    VERIFYING = "verifying"
    ACTIVE = "active"
    LOCKED = "locked"
    ENDED = "ended"
