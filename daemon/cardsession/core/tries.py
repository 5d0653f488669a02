"""What is known of a PIN's retry counter, and when a try may be spent.

The count is the card's own. Here status words are read, nothing is guessed: *unknown* is a
value of its own, never 0 and never 3. Sources: ISO/IEC 7816-4:2020 clauses 5.6 and 11.5.6,
NIST SP 800-73-4 part 2 clause 3.2.1, and the field's practice where cards differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from .apdu import SW

SATURATED = 15
"""`63CF` says "at least fifteen": the nibble holds no more."""


@dataclass(frozen=True, slots=True)
class Known:
    """The card said that so many tries are left (1 to 15)."""

    left: int


@dataclass(frozen=True, slots=True)
class Verified:
    """The card calls the PIN verified: how many tries are left cannot be known now."""

    last: int | None = None


@dataclass(frozen=True, slots=True)
class Blocked:
    """No try is left."""


@dataclass(frozen=True, slots=True)
class NotSet:
    """There is no passcode yet: the card was issued locked."""


@dataclass(frozen=True, slots=True)
class NoSuchPin:
    """The card has no such reference."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The card did not say, or was not asked (`sw` is None)."""

    sw: SW | None = None


PinStatus = Known | Verified | Blocked | NotSet | NoSuchPin | Unknown


class Source(StrEnum):
    """Where a published count comes from (`PinTriesSource`)."""

    CARD = "card"
    LAST_VERIFY = "last-verify"
    STALE = "stale"
    NONE = "none"


class Outcome(StrEnum):
    """What became of one submission (bus contract, "Outcomes are values, not errors")."""

    VERIFIED = "verified"
    CHANGED = "changed"
    UNBLOCKED = "unblocked"
    INCORRECT = "incorrect"
    NOW_BLOCKED = "now-blocked"
    WAS_BLOCKED = "was-blocked"
    REFUSED_LAST_TRY = "refused-last-try"
    REFUSED_UNKNOWN = "refused-unknown"
    UNCERTAIN = "uncertain"
    BAD_FORMAT = "bad-format"
    BAD_NEW_PIN = "bad-new-pin"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Judged:
    """One submission's outcome, and what is known of the counter after it.

    `sent` tells whether the card was given the secret: only then can a try be gone.
    """

    outcome: Outcome
    status: PinStatus
    sent: bool = True
    read_back: bool = False
    """Whether the count was asked for after the answer, which did not tell it."""
    others: Mapping[str, PinStatus] = field(default_factory=dict)
    """Counts of other PINs, by label, that the submission changed or showed."""


@dataclass(frozen=True, slots=True)
class Consent:
    """What the caller (or the site) agreed to beyond the rule "at least two left"."""

    spend_last_try: bool = False
    accept_unknown: bool = False


KEPT_BACK = 2
"""Fewer tries than this are spent only if a person says so."""
_BLOCKED = 0x6983
"""Authentication method blocked."""
_FAILED, _FAILED_MASK = 0x6300, 0xFFF0
"""Verification failed, and the card does not say how many tries are left: 6300 says nothing at all,
and the 630X of some cards (YubiKey NEO) is no 63CX, whatever X looks like."""
_WRONG_DATA = 0x6A80
_ABOUT_FORM = frozenset({0x6A80, 0x6700, 0x6A87})
"""Wrong data, wrong length, Lc inconsistent with P1-P2."""
_TOO_SIMPLE = 0x6985
"""Conditions of use not satisfied: some cards' answer to a new passcode that they do not like."""
_COUNTED, _COUNT_MASK = 0x63C0, 0xFFF0
"""63CX: X tries are left."""
_NOT_SET = frozenset({0x62C1, 0x62C7, 0x6985})
"""Transport PIN, empty PIN (gematik); 6985: conditions of use, NullPIN (TCOS)."""
_NO_REFERENCE = frozenset({0x6A86, 0x6A88})
"""Wrong P1-P2, referenced data not found: the card does not know this PIN. (6A80 may only mean
that this card is not asked in this way: nothing is known then.)"""


def left(status: PinStatus) -> int | None:
    """The number to show, or None: absent on the bus, -1 in a reply."""
    match status:
        case Known(count):
            return count
        case Blocked():
            return 0
        case _:
            return None


def read_query(sw: SW) -> PinStatus:
    """What the answer to "is this PIN verified?" says (VERIFY without data)."""
    if sw.ok:
        return Verified()
    counted = _counted(sw)
    if counted is not None:
        return counted
    if sw in _NOT_SET:
        return NotSet()
    if sw in _NO_REFERENCE:
        return NoSuchPin()
    return Unknown(sw)


class Act(StrEnum):
    """What a secret is submitted for; the value is the outcome if the card takes it."""

    VERIFY = "verified"
    CHANGE = "changed"
    UNBLOCK = "unblocked"

    @property
    def refused_format(self) -> Outcome:
        """The outcome of a passcode that the card does not take, with no try spent."""
        return Outcome.BAD_FORMAT if self is Act.VERIFY else Outcome.BAD_NEW_PIN


def judge(
    sw: SW, before: PinStatus, act: Act = Act.VERIFY, *, format_uncounted: bool = False
) -> Judged:
    """What the answer to VERIFY, CHANGE REFERENCE DATA or RESET RETRY COUNTER says of the
    secret that was judged (the PIN; the old PIN; the PUK), knowing its count before.

    `format_uncounted`: this card's standard promises that 6A80 left the counter alone.
    """
    if sw.ok:
        return Judged(Outcome(act.value), Verified())
    match _counted(sw):
        case Known() as now:
            return Judged(Outcome.INCORRECT, now)
        case Blocked() as now:
            # 6983 may mean "it was so before" or "this was the last": the count before tells
            asleep = sw == _BLOCKED and not isinstance(before, Known)
            return Judged(Outcome.WAS_BLOCKED if asleep else Outcome.NOW_BLOCKED, now)
    if sw & _FAILED_MASK == _FAILED:
        return Judged(Outcome.INCORRECT, Unknown(sw))
    if sw == _WRONG_DATA and format_uncounted:
        return Judged(act.refused_format, before)
    return Judged(Outcome.UNCERTAIN, Unknown(sw))


def read_back(judged: Judged, act: Act, before: PinStatus, now: PinStatus) -> Judged:
    """A judgement whose answer did not tell the count, which was asked for afterwards.

    A counter that did not move, after an answer about the data's form, was not spent: the old
    passcode was never compared, or was right.
    """
    found = replace(judged, status=now, read_back=True)
    if isinstance(now, Blocked) and judged.outcome is Outcome.INCORRECT:
        return replace(found, outcome=Outcome.NOW_BLOCKED)
    sw = judged.status.sw if isinstance(judged.status, Unknown) else None
    about_form = sw in _ABOUT_FORM or (sw == _TOO_SIMPLE and act is not Act.VERIFY)
    if about_form and _unmoved(before, now):
        return replace(found, outcome=act.refused_format)
    return found


def _unmoved(before: PinStatus, now: PinStatus) -> bool:
    """Whether both are counts, below what the nibble can hold, and the same."""
    return isinstance(now, Known) and now == before and now.left < SATURATED


def may_spend(before: PinStatus, consent: Consent, lowest_seen: int | None) -> Judged | None:
    """None if a secret may be sent now; else the refusal, with nothing sent.

    `lowest_seen` is the ledger's lowest count for this card and PIN since a success. It can
    only refuse: an unknown count is never taken for two.
    """
    match before:
        case Known(count):
            return _spend_known(count, before, consent)
        case Blocked() | NotSet():
            return Judged(Outcome.WAS_BLOCKED, before, sent=False)
        case NoSuchPin():
            raise ValueError("a PIN that the card does not have cannot be tried")
        case _:
            return _spend_unknown(before, consent, lowest_seen)


def _spend_known(count: int, before: PinStatus, consent: Consent) -> Judged | None:
    if count >= KEPT_BACK or consent.spend_last_try:
        return None
    return Judged(Outcome.REFUSED_LAST_TRY, before, sent=False)


def _spend_unknown(before: PinStatus, consent: Consent, lowest: int | None) -> Judged | None:
    if lowest is None:
        refused = not consent.accept_unknown
        return Judged(Outcome.REFUSED_UNKNOWN, before, sent=False) if refused else None
    if lowest == 0:
        # The card may have been unlocked since at a desk that we do not see; only it can say.
        refused = not (consent.accept_unknown and consent.spend_last_try)
        return Judged(Outcome.REFUSED_LAST_TRY, before, sent=False) if refused else None
    return (
        None
        if lowest >= KEPT_BACK or consent.spend_last_try
        else Judged(Outcome.REFUSED_LAST_TRY, before, sent=False)
    )


def _counted(sw: SW) -> Known | Blocked | None:
    if sw & _COUNT_MASK == _COUNTED:
        count = sw & 0x000F
        return Known(count) if count else Blocked()
    return Blocked() if sw == _BLOCKED else None
