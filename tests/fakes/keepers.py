"""What the desks know from elsewhere, in memory: an audit trail that is a list, a judge who says
what a test wants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cardsession.core.facts import Certificate, Standing
from cardsession.core.trust import judge
from cardsession.core.trust_rules import Store, TrustRules


class FakeTrail:
    """See `cardsession.ports.Trail`."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def record(self, event: str, **fields: str | int) -> None:
        """Note it."""
        self.entries.append({"event": event, **fields})

    def told(self, event: str) -> list[dict[str, Any]]:
        """Every entry of one kind."""
        return [entry for entry in self.entries if entry["event"] == event]


class FakeJudge:
    """See `cardsession.ports.Judge`."""

    def __init__(self) -> None:
        self.standing: Standing | None = None
        self.asked: list[Mapping[str, Certificate]] = []

    def judge(self, certificates: Mapping[str, Certificate], usec: int) -> Standing:
        """What the test said, else what a site without anchors says."""
        self.asked.append(certificates)
        if self.standing is not None:
            return self.standing
        return judge(certificates, Store(), TrustRules(), usec // 1_000_000)
