"""Text from outside (a card, a reader's name), decoded once and made safe for everybody after.

A NUL in a published string makes the message bus throw the daemon off; an escape sequence
reaches a technician's terminal. Neither passes here.
"""

from __future__ import annotations

import unicodedata

LIMIT = 128
"""Characters kept of any text from a card."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# Cc control, Cs surrogate, Cf format (bidirectional overrides rewrite what staff read),
# Co/Cn unassigned, Zl/Zp line breaks that a terminal obeys.
_UNSAFE = frozenset({"Cc", "Cs", "Cf", "Co", "Cn", "Zl", "Zp"})


def clean(raw: str | bytes) -> str:
    """At most 128 characters, each of them printable; what is not becomes U+FFFD."""
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    return "".join(
        REPLACEMENT if unicodedata.category(char) in _UNSAFE else char for char in text[:LIMIT]
    )
