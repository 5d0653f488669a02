"""What the site's rules make of a card's facts: data in, data out.

Remedies have `remedies.py`, new passcodes `passcode.py`, raw APDUs `filter.py`, the owner's
context `context.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum

from .errors import Failure, Problem
from .facts import Revocation, SessionFacts, SessionState, Standing, Trust

DAY = 86_400
"""Seconds."""

CARD_FUNCTIONS = ("nomination", "download", "return", "dispense-notification", "claim")
"""The EPS functions that need an active session (Community Pharmacy England, "Smartcards")."""
FREE_FUNCTIONS = ("nominated-download",)
"""Automatic downloads of nominated prescriptions need none."""

RETIRED_SERIES = frozenset({"01", "02", "03", "04", "05", "06"})
"""Series that can be neither renewed nor unlocked: 01 to 03 for years, 4 since April 2026, 5 and
6 since May 2026. What a site that says nothing has."""

_UNKNOWN_SERIES = "unknown"
_SEPARATORS = " :.-_"
"""What people put between the digits of a serial number."""

_NEAREST = (
    SessionState.VERIFYING,
    SessionState.LOCKED,
    SessionState.UNVERIFIED,
    SessionState.ENDED,
)
"""Of several sessions none of which is active, the one that needs least is the answer."""

_NOT_TRUSTED = {
    Trust.TRUSTED: "the card's certificate is trusted, but the site does not accept it",
    Trust.UNTRUSTED: "the card's certificate is not trusted",
    Trust.EXPIRED: "the card's certificate has expired",
    Trust.NOT_YET_VALID: "the card's certificate is not valid yet",
    Trust.REVOKED: "the card's certificate has been revoked",
    Trust.NO_CERTIFICATE: "the card has no authentication certificate",
    Trust.NOT_CHECKED: "the card's certificate could not be checked",
}


class Removal(StrEnum):
    """`Manager.RemovalPolicy`: what a removed card does to its session."""

    END = "end"
    """The session is over (the Identity Agent's normal behaviour)."""
    LOCK = "lock"
    """It waits a while for the same card and its passcode (session lock persistence)."""
    KEEP = "keep"
    """It goes on for `CheckFunction` alone, until its timers end it (mobility)."""


def days_left(not_after: int, now: int) -> int:
    """Whole days until `not_after` (Unix seconds), negative when over; 0 where unknown."""
    return (not_after - now) // DAY if not_after else 0


def renewal_due(not_after: int, now: int, window_days: int) -> bool:
    """Whether the end of validity is known, ahead, and inside the window."""
    return bool(not_after) and now < not_after <= now + window_days * DAY


def retired(series: str, retired_series: Collection[str]) -> bool:
    """Whether a card's series is one of those; "3", "03" and " 3 " are the same series.

    A series that is not known is never retired: nothing on the chip tells it.
    """
    known = _series(series)
    return known not in ("", _UNKNOWN_SERIES) and known in map(_series, retired_series)


def is_temporary(serial: str, listed: Collection[str]) -> bool:
    """Whether a card's serial number (hexadecimal digits) is one of those that the site lists.

    Letter case and what separates the digits do not count; leading zeros do.
    """
    known = _digits(serial)
    return known != "" and known in map(_digits, listed)


def admits(standing: Standing, accepted: Collection[Trust]) -> bool:
    """Whether a session of a card of this standing may become active: the site says which."""
    return standing.trust in accepted


def not_trusted(standing: Standing) -> Failure:
    """The refusal of a card that `admits` does not. It says nothing that a card wrote."""
    revoked = standing.revocation is Revocation.REVOKED
    why = _NOT_TRUSTED[Trust.REVOKED if revoked else standing.trust]
    return Failure(Problem.NOT_TRUSTED, f"{why}; no passcode is sent to this card")


def check_function(
    function: str, sessions: Sequence[SessionFacts], caller: str, number: int | None
) -> tuple[bool, str]:
    """Whether an EPS function may be done now, and a stable word for why not.

    `number` is the session that is meant, None any of the caller's; one that does not exist, and
    whatever is no session at all, is `no-session`. The other words: `not-owner`, and `session-`
    with the state that the caller's session is in. A kept session is `active` without its card.
    Failure: `NoSuchFunction`.
    """
    if function in FREE_FUNCTIONS:
        return True, ""
    if function not in CARD_FUNCTIONS:
        raise Failure(Problem.NO_SUCH_FUNCTION, "an EPS function was expected")
    asked = [each for each in sessions if number in (None, each.number)]
    states = {each.state for each in asked if each.owner == caller}
    if SessionState.ACTIVE in states:
        return True, ""
    for state in _NEAREST:
        if state in states:
            return False, f"session-{state}"
    return False, "not-owner" if asked and number is not None else "no-session"


def _series(series: str) -> str:
    """One name for `3`, `03` and ` 3 `."""
    return series.strip().lstrip("0").casefold()


def _digits(serial: str) -> str:
    """A serial number's digits, as one writes them."""
    return "".join(each for each in serial if each not in _SEPARATORS).upper()
