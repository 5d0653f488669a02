"""Card families: what each declares, and its dialogues. Pure, over core only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cardsession.core.dialogue import Dialogue

from . import unknown
from .declaration import Declaration, Sighting, matching
from .declared import BUILT_IN
from .piv import Piv
from .pkcs15 import Pkcs15
from .profile import Probe, Profile, Recognised


@dataclass(frozen=True, slots=True)
class Families:
    """Every family that we read, in the order in which a card is asked, and what is declared."""

    profiles: tuple[Profile, ...]
    declarations: tuple[Declaration, ...]


def families(declarations: Sequence[Declaration] = ()) -> Families:
    """All families: PIV first, for it costs one command to be told no. The site's declarations
    come before ours."""
    together = (*declarations, *BUILT_IN)
    return Families((Piv(), Pkcs15(together)), together)


def recognise(families: Families, atr: bytes) -> Dialogue[Recognised]:
    """The first family that knows the card; a declaration of its ATR may name the only one that
    is tried, or none: nothing is said to that card at all."""
    read_as = matching(families.declarations, Sighting(atr=atr)).read_as
    for family in families.profiles:
        if read_as and read_as != family.name:
            continue
        probe = yield from family.probe(atr)
        if probe is not None:
            return family, _declared(probe, families, atr)
    return None, _declared(unknown.PROBE, families, atr)


def _declared(probe: Probe, families: Families, atr: bytes) -> Probe:
    """The same with what is declared of it, where its family has not asked itself."""
    seen = Sighting(atr=atr, serial=probe.serial, profile=probe.profile)
    facts = matching(families.declarations, seen)
    return replace(probe, series=probe.series or facts.series, nhs=probe.nhs or bool(facts.nhs))
