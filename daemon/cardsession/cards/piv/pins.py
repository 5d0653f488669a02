"""The PINs of a PIV card: which there are, their counters, and how an authority is ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cardsession.cards.profile import Pin, Probe
from cardsession.core.apdu import Command
from cardsession.core.dialogue import Dialogue, Noted, Reset, transmit
from cardsession.core.errors import Failure, Problem
from cardsession.core.tries import PinStatus, Unknown, Verified, read_query

from .objects import same_card

# Part 1 table 4a names the references. Part 2 clause 3.2.1: VERIFY with an absent data field asks
# for the number of further allowed retries and compares nothing; clause 2.4.3: a PIN has six to
# eight bytes, filled up with FF. The card judges whether an old one is too short, which costs
# nothing (6A80): passcodes of four characters are in use, and stay valid until they are changed.
APPLICATION_PIN = Pin("user", 0x80, stored_length=8, pad=0xFF, asking_is_free=True)
GLOBAL_PIN = replace(APPLICATION_PIN, reference=0x00)
PUK = replace(
    # Clause 2.4.3 wants eight bytes of any kind; cards in the field give out PUKs of six to
    # eight, filled up like a PIN, which is eight bytes too. VERIFY never takes one.
    APPLICATION_PIN,
    label="puk",
    reference=0x81,
    asking_is_free=False,
    grants=False,
    verifiable=False,
)

_GLOBAL_EXISTS, _FINGERS_EXIST = 0x20, 0x10
_GLOBAL_IS_PRIMARY = 0x20
_FINGERS = (0x96, 0x97)
"""On-card comparison of a finger opens the keys as well; we never ask for one."""

_NOT_HERE = frozenset({0x6982, 0x6A81})
"""A PIN command over the contactless interface, without the virtual contact interface, fails and
counts nothing (part 2 clauses 3.2.1 to 3.2.3): 6982; or 6A81, where the command is not offered
there at all (part 2 table 2)."""


def listed(exist: int, primary: int) -> tuple[dict[str, Pin], tuple[int, ...]]:
    """The PINs that a policy speaks of, by label, the primary one first; and references that we
    do not use, and a rival may have left verified."""
    others = _FINGERS if exist & _FINGERS_EXIST else ()
    pins = [APPLICATION_PIN]
    if exist & _GLOBAL_EXISTS:
        pins = [APPLICATION_PIN, replace(GLOBAL_PIN, label="global")]
        if primary == _GLOBAL_IS_PRIMARY:
            pins = [GLOBAL_PIN, replace(APPLICATION_PIN, label="application")]
    return {pin.label: pin for pin in (*pins, PUK)}, others


def count(pin: Pin) -> Dialogue[PinStatus]:
    """What the card says when it is asked plainly; `Unknown` where that is not free."""
    if not pin.asking_is_free:
        return Unknown()
    reply = yield from transmit(Command(0x00, 0x20, 0x00, pin.reference))
    return read_query(reply.sw)


def noted_count(probe: Probe, pin: Pin) -> Dialogue[PinStatus]:
    """The same, and the ledger is told."""
    status = yield from count(pin)
    yield Noted(probe.identity, pin.counter, status)
    return status


def sober_count(probe: Probe, pin: Pin) -> Dialogue[PinStatus]:
    """The count, where 9000 would blind us: end that authority first, then ask again.

    A card that did not, whatever it answered, is reset; one that is verified even then is none
    that we can speak for.
    """
    status = yield from count(pin)
    if isinstance(status, Verified) or _odd(status):
        yield from deauthenticate((pin.reference,))
        status = yield from count(pin)
        if isinstance(status, Verified):
            yield Reset()
            yield from same_card(probe)
            status = yield from count(pin)
    if isinstance(status, Verified):
        raise Failure(Problem.IN_USE_ELSEWHERE, "a verification by another program does not end")
    yield Noted(probe.identity, pin.counter, status)
    return status


def _odd(status: PinStatus) -> bool:
    """An answer that tells nothing, so that a verification may stand behind it."""
    return isinstance(status, Unknown) and status.sw is not None and status.sw not in _NOT_HERE


def deauthenticate(references: Iterable[int]) -> Dialogue[bool]:
    """End these authorities (part 2 clause 3.2.1, P1 = FF); False if only a reset can."""
    clean = True
    for reference in references:
        reply = yield from transmit(Command(0x00, 0x20, 0xFF, reference))
        clean = clean and reply.sw.ok
    return clean


def refuse_contactless(status: PinStatus) -> None:
    """Failure where the card answered that it takes no passcode on this interface.

    Its own answer decides: the ATR that a reader makes up for a contactless card (PC/SC part 3
    clause 3.1.3.2.3) may be a contact card's too, and some cards take a PIN over either.
    """
    if isinstance(status, Unknown) and status.sw in _NOT_HERE:
        raise Failure(
            Problem.NOT_SUPPORTED,
            "the card takes no passcode over its contactless interface: use a contact reader",
        )
