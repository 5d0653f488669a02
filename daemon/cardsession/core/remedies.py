"""What helps with a card, in the order to try, and how to say so at a pharmacy counter.

A `Situation` is what matters of a card; `findings` says what is wrong with it, gravest first;
two tables say what helps: one for cards under the NHS's rules, one for all others. Sources:
Community Pharmacy England, "Smartcards"; an NHS card is unlocked with a security officer's PIN
that only the national service has, so that for it no PUK is ever a remedy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from . import policy
from .facts import CardFacts, CardState, Remedy, Revocation, Trust
from .text import clean
from .tries import Blocked, Known, NotSet, PinStatus, Unknown

CONTACT_LIMIT = 96
"""Characters of a contact line. A longer one is left out: half a telephone number misleads."""
TEXT_LIMIT = 1000
"""Characters of a text, with every contact line as long as it may be."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What of a card decides what helps."""

    state: CardState = CardState.READY
    user: PinStatus = field(default_factory=Unknown)
    """The primary PIN, label `user`."""
    issued_locked: bool = False
    """It is blocked, and nobody tried it here."""
    expired: bool = False
    renewal_due: bool = False
    days_left: int = 0
    retired: bool = False
    revoked: bool = False
    temporary: bool = False
    """The site lists it as a Temporary Access Card: that is a card of the NHS's."""
    nhs: bool = False
    unblock: bool = False
    """The site lets a PUK unblock cards of this profile, and the PUK is not blocked itself."""


class Finding(Enum):
    """What is wrong with a card, or soon will be; the gravest first."""

    MUTE = auto()
    REVOKED = auto()
    RETIRED = auto()
    BLANK_TEMPORARY = auto()
    BLANK = auto()
    EXPIRED = auto()
    BLOCKED = auto()
    NOT_SET = auto()
    """It was issued locked: there is no passcode yet."""
    LAST_TRY = auto()
    RENEWAL_DUE = auto()


_UNLOCK = (Remedy.SELF_UNLOCK, Remedy.LSA_OR_SPONSOR, Remedy.RA_IN_PERSON)

NHS: Mapping[Finding, tuple[Remedy, ...]] = {
    Finding.MUTE: (Remedy.REPLACE_CARD,),
    Finding.REVOKED: (Remedy.RA_IN_PERSON,),
    Finding.RETIRED: (Remedy.REPLACE_CARD,),
    Finding.BLANK_TEMPORARY: (Remedy.ACTIVATE_TEMPORARY_CARD, Remedy.RA_IN_PERSON),
    Finding.BLANK: (Remedy.RA_IN_PERSON,),
    Finding.EXPIRED: (Remedy.RA_IN_PERSON,),
    Finding.BLOCKED: _UNLOCK,
    Finding.NOT_SET: _UNLOCK,
    Finding.LAST_TRY: (),
    Finding.RENEWAL_DUE: (Remedy.RENEW,),
}
"""What helps a card under the NHS's rules."""

OTHERS: Mapping[Finding, tuple[Remedy, ...]] = {
    Finding.MUTE: (Remedy.REPLACE_CARD,),
    Finding.REVOKED: (Remedy.CONTACT_ISSUER,),
    Finding.RETIRED: (Remedy.REPLACE_CARD,),
    Finding.BLANK: (Remedy.CONTACT_ISSUER,),
    Finding.EXPIRED: (Remedy.CONTACT_ISSUER,),
    Finding.BLOCKED: (Remedy.UNBLOCK, Remedy.CONTACT_ISSUER),
    Finding.NOT_SET: (Remedy.CONTACT_ISSUER,),
    Finding.LAST_TRY: (),
    Finding.RENEWAL_DUE: (Remedy.CONTACT_ISSUER,),
}
"""What helps any other. (A PUK replaces a passcode that is blocked, not one never set.)"""


def situation_of(
    card: CardFacts, *, retired_series: Collection[str], unblock_profiles: Collection[str]
) -> Situation:
    """The situation of a card whose days left and standing are up to date.

    `unblock_profiles`: those for which the site enables `UnblockPin`.
    """
    pins = card.pins
    standing = card.standing
    puk_blocked = isinstance(pins.status.get("puk"), Blocked)
    return Situation(
        state=card.state,
        user=pins.status.get("user", Unknown()),
        issued_locked=pins.issued_locked,
        expired=card.days_left < 0 or standing.trust is Trust.EXPIRED,
        renewal_due=card.renewal_due,
        days_left=card.days_left,
        retired=policy.retired(card.series, retired_series),
        revoked=standing.trust is Trust.REVOKED or standing.revocation is Revocation.REVOKED,
        temporary=card.temporary,
        nhs=card.nhs,
        unblock=card.profile in unblock_profiles and not puk_blocked,
    )


def findings(situation: Situation) -> tuple[Finding, ...]:
    """What is wrong. One finding that no passcode mends hides the rest; of the others a card
    may have two: one of its passcode, and that it expires soon."""
    grave = _grave(situation)
    if grave is not None:
        return (grave,)
    if situation.state is not CardState.READY:
        return ()  # not read yet, or not ours to read: of its passcode nothing is known
    due = (Finding.RENEWAL_DUE,) if situation.renewal_due else ()
    match situation.user:
        case Blocked():
            return (Finding.BLOCKED, *due)
        case NotSet():
            return (Finding.NOT_SET, *due)
        case Known(1):
            return (Finding.LAST_TRY, *due)
        case _:
            return due


def remedies(situation: Situation) -> tuple[Remedy, ...]:
    """What helps, in the order to try; nothing where nothing is wrong."""
    table = NHS if situation.nhs or situation.temporary else OTHERS
    found = dict.fromkeys(each for finding in findings(situation) for each in table[finding])
    if not situation.unblock:
        found.pop(Remedy.UNBLOCK, None)
    return tuple(found)


def remedy_text(
    remedies: tuple[Remedy, ...], situation: Situation, contacts: Mapping[Remedy, str]
) -> str:
    """The same for the person at the counter: what is wrong, then a sentence a remedy.

    `contacts` are the site's own lines. At most 1000 characters; "" where nothing is wrong. The
    last try is told although nothing needs mending yet: it is there that cards get locked.
    """
    said = [_told(finding, situation) for finding in findings(situation)]
    for at, remedy in enumerate(remedies):
        said.append(_advice(remedy, contacts.get(remedy, ""), first=at == 0))
    return " ".join(said)


def _grave(situation: Situation) -> Finding | None:
    """What no passcode mends. A card that no profile reads may still be of a retired series:
    the site can map an ATR to one."""
    if situation.state is CardState.PROBING:
        return None
    blank = Finding.BLANK_TEMPORARY if situation.temporary else Finding.BLANK
    order = (
        (situation.state is CardState.MUTE, Finding.MUTE),
        (situation.revoked, Finding.REVOKED),
        (situation.retired, Finding.RETIRED),
        (situation.state is CardState.BLANK, blank),
        (situation.expired, Finding.EXPIRED),
    )
    return next((finding for holds, finding in order if holds), None)


_FINDINGS = {
    Finding.MUTE: "The Smartcard does not answer. Take it out, turn it round and put it in again."
    " If it still does not answer, it may be broken.",
    Finding.REVOKED: "Your Smartcard has been revoked and cannot be used.",
    Finding.RETIRED: "Your Smartcard is of an old series: it can be neither renewed nor unlocked.",
    Finding.BLANK_TEMPORARY: "This Temporary Access Card is blank.",
    Finding.BLANK: "This Smartcard is blank.",
    Finding.EXPIRED: "Your Smartcard has expired.",
    Finding.BLOCKED: "Your Smartcard is blocked.",
    Finding.NOT_SET: "Your Smartcard was issued locked: it has no passcode yet.",
    Finding.LAST_TRY: "You have 1 remaining try. One more wrong passcode blocks your Smartcard.",
}
_ISSUED_LOCKED = "It may have been issued locked."

_ADVICE = {
    Remedy.RENEW: "renew it yourself before it expires",
    Remedy.SELF_UNLOCK: "unlock it yourself with the self-service unlock; for this your profile"
    " must hold an email address, a mobile number or a photo",
    Remedy.LSA_OR_SPONSOR: "ask a Local Smartcard Administrator or Sponsor to unlock it",
    Remedy.RA_IN_PERSON: "see your Registration Authority in person",
    Remedy.REPLACE_CARD: "ask your Registration Authority for a new Smartcard",
    Remedy.ACTIVATE_TEMPORARY_CARD: "ask a Sponsor or Local Smartcard Administrator to activate"
    " it, and record who uses it",
    Remedy.UNBLOCK: "unblock it with its PUK",
    Remedy.CONTACT_ISSUER: "contact whoever issued the card",
}


def _told(finding: Finding, situation: Situation) -> str:
    if finding is Finding.RENEWAL_DUE:
        return f"Your Smartcard expires {_when(situation.days_left)}."
    text = _FINDINGS[finding]
    if finding is Finding.BLOCKED and situation.issued_locked:
        text += f" {_ISSUED_LOCKED}"
    return text


def _when(days: int) -> str:
    match days:
        case 0:
            return "within a day"
        case 1:
            return "in 1 day"
        case _:
            return f"in {days} days"


def _advice(remedy: Remedy, contact: str, *, first: bool) -> str:
    """One sentence. A renewal is no alternative to what goes before it: it comes after."""
    text = _ADVICE[remedy]
    if not first:
        lead = "Once it is unlocked" if remedy is Remedy.RENEW else "If that is not possible"
        text = f"{lead}, {text}"
    line = clean(contact).strip() if len(contact) <= CONTACT_LIMIT else ""
    return f"{text[0].upper()}{text[1:]}" + (f" ({line})." if line else ".")
