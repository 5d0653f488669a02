"""The settings as dataclasses: what a key means, accepts and is by default is written here, once.

A field of `Config` is a section of the file, or a table with names of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cardsession.core.facts import Remedy, Trust
from cardsession.core.policy import RETIRED_SERIES, Removal
from cardsession.core.trust_rules import Legacy

from . import vocabulary as words
from .rules import BOOLEAN, Rule, number, one_of, whole


class Hold(StrEnum):
    """How the daemon holds the card of an active session."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"


class SpendLastTry(StrEnum):
    """Who may ask for the last try of a PIN to be spent."""

    CALLER = "caller"
    ADMIN = "admin"
    NEVER = "never"


class LogLevel(StrEnum):
    """The least important event that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """Where events go: `auto` is the journal if standard error already leads there."""

    AUTO = "auto"
    JOURNAL = "journal"
    JSON = "json"


def _about(rule: Rule, meaning: str, at_most: str = "") -> Mapping[str, Any]:
    """A field's rule, its line of the reference, and a field that it may not exceed."""
    return {"rule": rule, "meaning": meaning, "at_most": at_most}


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """How long a session lasts and what may be tried in it."""

    idle_seconds: int = field(
        default=900,
        metadata=_about(
            whole(30, 86_400), "An active session ends after this long without activity."
        ),
    )
    max_age_seconds: int = field(
        default=43_200,
        metadata=_about(
            whole(60, 604_800), "An active session ends after this long whatever happens."
        ),
    )
    removal: Removal = field(
        default=Removal.END,
        metadata=_about(
            one_of(Removal),
            "What a removed card does to its session: end ends it, lock locks it until the card"
            " is back and its passcode is given, keep leaves it active without a card.",
        ),
    )
    grace_seconds: int = field(
        default=900,
        metadata=_about(whole(10, 86_400), "How long a locked or kept session waits for its card."),
    )
    hold: Hold = field(
        default=Hold.EXCLUSIVE,
        metadata=_about(
            one_of(Hold), "Whether other programs may use the card of an active session."
        ),
    )
    spend_last_try: SpendLastTry = field(
        default=SpendLastTry.CALLER,
        metadata=_about(
            one_of(SpendLastTry), "Who may have the last try of a PIN spent on request."
        ),
    )
    accept_unknown: frozenset[str] = field(
        default=frozenset(),
        metadata=_about(
            words.PROFILES,
            "Card profiles whose PIN is sent although nothing is known of the tries left.",
        ),
    )


@dataclass(frozen=True, slots=True)
class PinConfig:
    """What a new passcode must be like (an old one is never judged), and what is done to one."""

    new_min_length: int = field(
        default=6,
        metadata=_about(
            whole(1, 64), "The fewest characters of a new passcode.", at_most="new_max_length"
        ),
    )
    new_max_length: int = field(
        default=8, metadata=_about(whole(1, 64), "The most characters of a new passcode.")
    )
    new_digits_only: bool = field(
        default=True, metadata=_about(BOOLEAN, "Whether a new passcode may have digits only.")
    )
    change_days: int = field(
        default=0,
        metadata=_about(
            whole(0, 3650),
            "A passcode is due for a change this many days after the last one made here; 0 never.",
        ),
    )
    unblock: frozenset[str] = field(
        default=frozenset(),
        metadata=_about(words.PROFILES, "Card profiles whose PIN a PUK may unblock (UnblockPin)."),
    )


@dataclass(frozen=True, slots=True)
class CardConfig:
    """What is said about cards."""

    renewal_days: int = field(
        default=90,
        metadata=_about(
            whole(0, 3650), "A card is due for renewal this many days before it expires."
        ),
    )
    temporary: frozenset[str] = field(
        default=frozenset(),
        metadata=_about(
            words.TEMPORARY, "Serial numbers of the temporary cards, as the bus has Card.Serial."
        ),
    )
    retired_series: frozenset[str] = field(
        default=RETIRED_SERIES,
        metadata=_about(
            words.RETIRED, "Card series that can be neither renewed nor unlocked any more."
        ),
    )
    declarations: Path = field(
        default=Path("/etc/cardsession/cards.d"),
        metadata=_about(
            words.PATH, "Directory of the site's card declarations, *.toml; it may be absent."
        ),
    )


@dataclass(frozen=True, slots=True)
class TrustConfig:
    """Which certificates are believed, and what a card must be worth to be used."""

    anchors: Path = field(
        default=Path("/etc/cardsession/anchors.d"),
        metadata=_about(
            words.PATH, "Directory of the certificates of the authorities that are trusted."
        ),
    )
    revocation: Path = field(
        default=Path("/etc/cardsession/revocation.d"),
        metadata=_about(words.PATH, "Directory of the authorities' revocation lists."),
    )
    required_eku: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            words.OIDS,
            "Extended key usages that a holder's certificate must name to be trusted, all of them.",
        ),
    )
    admit: frozenset[Legacy] = field(
        default=frozenset(),
        metadata=_about(
            words.ADMITTED,
            "Outdated cryptography that a trusted certificate may have; old cards need it.",
        ),
    )
    accepted: frozenset[Trust] = field(
        default=frozenset(Trust),
        metadata=_about(
            words.ACCEPTED,
            "What a card's Trust must be for its session to become active. The default takes any:"
            " the verdict is published, and is the dispensing software's to heed.",
        ),
    )


@dataclass(frozen=True, slots=True)
class ReadersConfig:
    """The readers of this site."""

    labels: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({}),
        hash=False,
        metadata=_about(
            words.LABELS, "What staff call a reader, by its PC/SC name or its reader id."
        ),
    )
    stuck_seconds: float = field(
        default=10.0,
        metadata=_about(
            number(6, 300),
            "A reader that answers nothing for this long is published as stuck. Another program"
            " is waited for up to 5 seconds: that is no hung reader.",
        ),
    )


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """The record of who used which card and how it ended; it is always kept."""

    retention_days: int = field(
        default=365,
        metadata=_about(whole(1, 3650), "A record is deleted after this many days."),
    )


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What is written about the daemon's work."""

    level: LogLevel = field(
        default=LogLevel.INFO,
        metadata=_about(one_of(LogLevel), "The least important event that is written."),
    )
    format: LogFormat = field(
        default=LogFormat.AUTO,
        metadata=_about(
            one_of(LogFormat),
            "Journal fields or JSON lines; auto asks whether standard error is the journal.",
        ),
    )


@dataclass(frozen=True, slots=True)
class Config:
    """All settings; without arguments, the defaults."""

    session: SessionConfig = SessionConfig()
    pin: PinConfig = PinConfig()
    card: CardConfig = CardConfig()
    trust: TrustConfig = TrustConfig()
    contacts: Mapping[Remedy, str] = field(
        default_factory=lambda: words.NO_CONTACTS,
        hash=False,
        metadata=_about(
            words.CONTACTS,
            "Whom to turn to at this site for a remedy, said after its name: a telephone number,"
            " a name, a room.",
        ),
    )
    transmit: Mapping[str, frozenset[int]] = field(
        default_factory=lambda: MappingProxyType({}),
        hash=False,
        metadata=_about(
            words.TRANSMIT,
            "Instructions that Transmit may carry to cards of a profile, beside its own list.",
        ),
    )
    readers: ReadersConfig = ReadersConfig()
    audit: AuditConfig = AuditConfig()
    log: LogConfig = LogConfig()
