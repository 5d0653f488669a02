"""How a card's facts follow from what was read, asked and judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from . import policy
from .facts import CardFacts, CardState, Certificate, PinFacts
from .tries import Judged, NoSuchPin, Outcome, PinStatus, Source, Unknown


def counted(card: CardFacts, tries: Mapping[str, PinStatus] | None, usec: int) -> CardFacts:
    """The counters as the card told them at `usec`; None: it could not be asked."""
    if tries is None:
        return stale(card)
    known = {label: status for label, status in tries.items() if status != NoSuchPin()}
    told = any(not isinstance(status, Unknown) for status in known.values())
    source = Source.CARD if told else Source.NONE
    return replace(card, pins=PinFacts(known, source, usec))


def judged(card: CardFacts, label: str, verdict: Judged, usec: int) -> CardFacts:
    """One PIN after a submission; where nothing was sent the count is a fresh reading."""
    if verdict.outcome is Outcome.BAD_FORMAT and not verdict.sent:
        return card  # nothing was asked either
    told = verdict.sent and not verdict.read_back
    source = Source.LAST_VERIFY if told else Source.CARD
    if isinstance(verdict.status, Unknown):
        source = Source.STALE if verdict.sent else Source.NONE
    status = {**card.pins.status, label: verdict.status}
    return replace(card, pins=PinFacts(status, source, usec))


def stale(card: CardFacts) -> CardFacts:
    """A try may be gone: no number is shown until the card is asked again."""
    status: dict[str, PinStatus] = dict.fromkeys(card.pins.status, Unknown())
    return replace(card, pins=PinFacts(status, Source.STALE, card.pins.read_usec))


def identified(  # noqa: PLR0913 - what a probe finds, once
    card: CardFacts,
    *,
    profile: str,
    serial: str,
    tries: Mapping[str, PinStatus],
    certificates: Mapping[str, Certificate],
    usec: int,
    renewal_days: int,
    known: bool,
) -> CardFacts:
    """A probed card; `known` tells whether any family reads it."""
    state = CardState.UNKNOWN
    if known:
        state = CardState.READY if "authentication" in certificates else CardState.BLANK
    card = replace(
        card, profile=profile, serial=serial, state=state, certificates=dict(certificates)
    )
    if not known:
        return card
    return aged(counted(card, tries, usec), usec, renewal_days)


def aged(card: CardFacts, usec: int, renewal_days: int) -> CardFacts:
    """What time alone changes of a card."""
    now = usec // 1_000_000
    until = card.holder.not_after if card.holder else 0
    verdict, detail = policy.unchecked_trust(card.holder, now)
    return replace(
        card,
        days_left=policy.days_left(until, now),
        renewal_due=policy.renewal_due(until, now, renewal_days),
        trust=verdict,
        trust_detail=detail,
    )
