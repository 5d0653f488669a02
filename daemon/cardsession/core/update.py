"""How a card's facts follow from what was read, asked and judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from . import policy
from .facts import CardFacts, CardState, Certificate, PinFacts, Standing
from .tries import (
    SATURATED,
    Blocked,
    Judged,
    Known,
    NoSuchPin,
    Outcome,
    PinStatus,
    Source,
    Unknown,
    Verified,
    left,
)

_ANEW = (Outcome.CHANGED, Outcome.UNBLOCKED)
NHS_ORGANISATION = "nhs"


def unread(card: CardFacts, series: str) -> CardFacts:
    """A card that no family reads."""
    return replace(card, state=CardState.UNKNOWN, series=series or card.series)


def identified(  # noqa: PLR0913 - what a probe finds, once
    card: CardFacts,
    profile: str,
    serial: str,
    certificates: Mapping[str, Certificate],
    *,
    series: str = "",
    nhs: bool = False,
    temporary: bool = False,
    withheld: bool = False,
) -> CardFacts:
    """A card as a family read it; `series`, `nhs`, `temporary` as the site declares them. It is
    blank where it has no holder's certificate, and does not withhold it."""
    blank = "authentication" not in certificates and not withheld
    card = replace(
        card,
        profile=profile,
        serial=serial,
        series=series or card.series,
        state=CardState.BLANK if blank else CardState.READY,
        certificates=dict(certificates),
        temporary=temporary,
    )
    organisation = card.holder.organisation if card.holder else ""
    return replace(card, nhs=nhs or organisation.casefold() == NHS_ORGANISATION)


def counted(
    card: CardFacts,
    tries: Mapping[str, PinStatus] | None,
    usec: int,
    *,
    undisturbed: bool = False,
) -> CardFacts:
    """The counters as the card told them at `usec`; None: it could not be asked.

    A card that was not asked keeps what it told before, with its time: a wrong passcode's count,
    say. `undisturbed`: nobody but us could talk to it since what is shown was judged.
    """
    if tries is None:
        return stale(card)
    if tries and all(status == Unknown() for status in tries.values()):
        return _unasked(card, tries)
    known = {label: status for label, status in tries.items() if status != NoSuchPin()}
    told = any(not isinstance(status, Unknown) for status in known.values())
    most = {**card.pins.most, **(_most(card.pins, known) if undisturbed else {})}
    source = Source.CARD if told else Source.NONE
    return _pins(card, status=known, source=source, read_usec=usec, most=most)


def remembered(
    card: CardFacts, *, in_flight: bool, tried: bool, changed_usec: int, most: Mapping[str, int]
) -> CardFacts:
    """A card that was just counted, with what is known of it from before.

    A try whose outcome was never known makes every count that the card does not tell stale.
    `most`: the most tries of each PIN, where the card tells.
    """
    pins = card.pins
    unheard = all(isinstance(status, Unknown) for status in pins.status.values())
    source = Source.STALE if in_flight and unheard else pins.source
    locked = isinstance(pins.status.get("user"), Blocked) and not tried
    return _pins(
        card,
        source=source,
        issued_locked=locked,
        changed_usec=changed_usec,
        most={**pins.most, **most},
    )


def judged(card: CardFacts, label: str, verdict: Judged, usec: int) -> CardFacts:
    """One PIN after a submission; where nothing was sent the count is a fresh reading.

    All numbers that are shown were read at one time: those of PINs that this conversation did
    not tell of are not shown any more.
    """
    if verdict.outcome in (Outcome.BAD_FORMAT, Outcome.BAD_NEW_PIN) and not verdict.sent:
        return card  # nothing was asked either
    nothing = isinstance(verdict.status, Unknown)
    if nothing and not verdict.sent:
        return _told_nothing(card, label, verdict)
    lost = nothing and verdict.sent and verdict.outcome not in _ANEW
    others = {
        other: Unknown() if left(status) is not None else status
        for other, status in card.pins.status.items()
    }
    status = {**others, label: verdict.status, **verdict.others}
    source = Source.STALE if lost else Source.NONE
    if not lost and not (nothing and _numberless(status)):
        source = Source.LAST_VERIFY if verdict.sent and not verdict.read_back else Source.CARD
    return _pins(card, status=status, source=source, read_usec=usec, issued_locked=False)


def _told_nothing(card: CardFacts, label: str, verdict: Judged) -> CardFacts:
    """A refusal that rests on nothing the card said: what it told before stands, with its time,
    but for the PIN that it was asked about in vain."""
    pins = card.pins
    if verdict.outcome is Outcome.REFUSED_LAST_TRY and verdict.status == Unknown():
        return card
    kept = {**pins.status, label: verdict.status}
    source = Source.NONE if _numberless(kept) and pins.source is not Source.STALE else pins.source
    return _pins(card, status=kept, source=source)


def _numberless(status: Mapping[str, PinStatus]) -> bool:
    """Whether no count is shown."""
    return all(left(each) is None for each in status.values())


def changed(card: CardFacts, usec: int) -> CardFacts:
    """The passcode was replaced at `usec`, here."""
    return _pins(card, changed_usec=usec)


def stale(card: CardFacts) -> CardFacts:
    """A try may be gone: no number is shown until the card is asked again."""
    status: dict[str, PinStatus] = dict.fromkeys(card.pins.status, Unknown())
    return _pins(card, status=status, source=Source.STALE)


def aged(card: CardFacts, standing: Standing, usec: int, renewal_days: int) -> CardFacts:
    """What time alone changes of a card; `standing` is the judgement of its certificate now."""
    now = usec // 1_000_000
    until = card.holder.not_after if card.holder else 0
    return replace(
        card,
        days_left=policy.days_left(until, now),
        renewal_due=policy.renewal_due(until, now, renewal_days),
        standing=standing,
    )


def _unasked(card: CardFacts, tries: Mapping[str, PinStatus]) -> CardFacts:
    """Nothing was asked: what was told stands, but nobody is verified any more."""
    before = card.pins.status
    kept = {
        label: Unknown() if isinstance(before.get(label), Verified) else before.get(label, status)
        for label, status in tries.items()
    }
    told = any(not isinstance(status, Unknown) for status in kept.values())
    lost = card.pins.source is Source.STALE
    source = card.pins.source if told or lost else Source.NONE
    return _pins(card, status=kept, source=source)


def _most(before: PinFacts, now: Mapping[str, PinStatus]) -> dict[str, int]:
    """A count that follows a success is the most there is: a success sets the counter to its
    initial value (ISO/IEC 7816-4 clause 11.5.6). A saturated nibble tells nothing."""
    return {
        label: status.left
        for label, status in now.items()
        if isinstance(before.status.get(label), Verified)
        and isinstance(status, Known)
        and status.left < SATURATED
    }


def _pins(card: CardFacts, **changed: object) -> CardFacts:
    return replace(card, pins=replace(card.pins, **changed))  # type: ignore[arg-type]
