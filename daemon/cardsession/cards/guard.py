"""The one way to a card for a secret, whatever the family: ask, guard, record, send once, settle.

Nothing else builds a command that carries one (card-rules A4 to A6); a family says how its
counter is asked for and how its command looks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from cardsession.core.apdu import Command
from cardsession.core.dialogue import Attempt, Dialogue, Settle, lowest_seen, transmit
from cardsession.core.errors import Failure, Malformed, Problem
from cardsession.core.secret import Secret, wipe
from cardsession.core.tries import (
    Act,
    Blocked,
    Consent,
    Judged,
    Known,
    NoSuchPin,
    Outcome,
    PinStatus,
    Unknown,
    Verified,
    judge,
    may_spend,
    read_back,
)

from .profile import Pin

SUBMIT = {Act.VERIFY: 0x20, Act.CHANGE: 0x24, Act.UNBLOCK: 0x2C}
"""INS of VERIFY, CHANGE REFERENCE DATA, RESET RETRY COUNTER (ISO/IEC 7816-4 clause 11.5)."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What is submitted to which card.

    `judged` is the PIN whose counter is at stake (the PUK, for an unblocking), `reference` is P2
    of the command, `secrets` its data, in order: each with the PIN whose form it takes.
    """

    act: Act
    identity: str
    judged: Pin
    reference: int
    secrets: tuple[tuple[Pin, Secret], ...]
    consent: Consent
    format_uncounted: bool = False
    """The card's standard promises that 6A80 left the counter alone."""


Count = Callable[[], Dialogue[PinStatus]]
"""Asks for the counter of the PIN that is judged, with nobody left verified; `Unknown` where
asking is not free. It may refuse the submission with a Failure: nothing was sent then."""


_NOTHING_REMEMBERED = 0
"""The count of a card that nothing tells from another, and that cannot be asked: its last answer
was not written down anywhere, so this try may be the last one."""


def takes(pin: Pin, secret: Secret) -> bool:
    """Whether the card takes a passcode of this length at all: an old one or a new one."""
    most = pin.coding.characters(pin.stored_length) if pin.max_length is None else pin.max_length
    within = max(1, pin.min_length) <= len(secret) <= most
    return within and secret.fits(pin.stored_length, pin.coding)


def misfit(submission: Submission) -> Judged | None:
    """The refusal of a secret that the card cannot take, before a word is said to it."""
    for at, (pin, secret) in enumerate(submission.secrets):
        if not takes(pin, secret):
            outcome = Outcome.BAD_NEW_PIN if at else Outcome.BAD_FORMAT
            return Judged(outcome, Unknown(), sent=False)
    return None


Here = Callable[[], Dialogue[object]]
"""Be with the card that was meant, where its counter is asked for; Failure if another one lies
in the reader."""


def submit(submission: Submission, count: Count, here: Here) -> Dialogue[Judged]:
    """At most one command that carries a secret; the application is selected, the card is the
    one that was meant (the family's part, before this). The secrets are wiped, whatever happens.
    """
    try:
        return (yield from _guarded(submission, count, here))
    finally:
        for _, secret in submission.secrets:
            secret.wipe()


def _guarded(submission: Submission, count: Count, here: Here) -> Dialogue[Judged]:
    """Every rule in its order; after the command nothing but a transport that fails raises."""
    unfit = misfit(submission)
    if unfit:
        return unfit
    identity, pin = submission.identity, submission.judged
    if submission.act is Act.VERIFY and not pin.verifiable:
        raise Failure(Problem.NOT_SUPPORTED, f"{pin.label} only serves to set a new passcode")
    before = yield from count()
    if isinstance(before, NoSuchPin):
        raise Failure(Problem.NO_SUCH_PIN, f"the card has no PIN {pin.label}")
    lowest = yield from lowest_seen(identity, pin.counter)
    if not identity and submission.consent.accept_unknown:
        lowest = _NOTHING_REMEMBERED
    refusal = may_spend(before, submission.consent, lowest)
    if refusal:
        return refusal
    yield Attempt(identity, pin.counter)
    judged = yield from _send(submission, before)
    if isinstance(judged.status, Unknown):
        judged = yield from _asked_back(judged, submission.act, before, count, here)
    taken = judged.outcome in (Outcome.CHANGED, Outcome.UNBLOCKED)
    changed = submission.secrets[-1][0].counter if taken else None
    yield Settle(identity, pin.counter, _remembered(judged, lowest), changed)
    if isinstance(judged.status, Verified) and not pin.verifiable:
        return replace(judged, status=Unknown())  # right, but a PUK is never left verified
    return judged


def _send(submission: Submission, before: PinStatus) -> Dialogue[Judged]:
    """The one command. An answer that is none leaves it uncertain whether a try is gone."""
    act = submission.act
    data = _data(submission)
    try:
        ins, reference = SUBMIT[act], submission.reference
        reply = yield from transmit(Command(0x00, ins, 0x00, reference, data, effect=True))
        return judge(reply.sw, before, act, format_uncounted=submission.format_uncounted)
    except Malformed:
        return Judged(Outcome.UNCERTAIN, Unknown())
    finally:
        wipe(data)
        for _, secret in submission.secrets:
            secret.wipe()


def _data(submission: Submission) -> bytearray:
    """The data field: every secret in its form, one after the other; no copy stays behind (a
    buffer that grew would have left one)."""
    parts = [
        secret.formed(pin.stored_length, pin.pad, pin.coding) for pin, secret in submission.secrets
    ]
    data, start = bytearray(sum(map(len, parts))), 0
    for part in parts:
        data[start : start + len(part)] = part
        start += len(part)
        wipe(part)
    return data


def _asked_back(
    judged: Judged, act: Act, before: PinStatus, count: Count, here: Here
) -> Dialogue[Judged]:
    """The count that the answer did not tell, asked for afterwards, of the same card: an answer
    that tells nothing may be all that is left of one that was torn out. Where that fails, what is
    known already is not lost."""
    try:
        yield from here()
        now = yield from count()
    except (Failure, Malformed):
        return judged
    return read_back(judged, act, before, now) if isinstance(now, Known | Blocked) else judged


def _remembered(judged: Judged, lowest: int | None) -> PinStatus:
    """What the ledger is told; `Verified` makes it forget the counts that it saw.

    A right PUK need not refill the PUK's own counter (SP 800-73-4 part 2 clause 3.2.3 leaves that
    to the card), and a form that was not compared moved none: the lowest count stays.
    """
    match judged.outcome:
        case Outcome.UNBLOCKED:
            return Known(lowest) if lowest else Verified()
        case Outcome.BAD_FORMAT | Outcome.BAD_NEW_PIN if isinstance(judged.status, Unknown):
            if lowest is None:
                return Verified()  # nothing was known, and the attempt is over
            return Known(lowest) if lowest else Blocked()
    return judged.status
