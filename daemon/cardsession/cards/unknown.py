"""A card that no profile reads: announced with its ATR, and left alone.

Hospital and third-party cards lie in pharmacy readers too. Nothing is asked of them, for the
question itself may cost a try.
"""

from __future__ import annotations

from .profile import Probe

NAME = "unknown"

PROBE = Probe(NAME)
"""What is known of such a card: no family, no PIN, nothing."""
