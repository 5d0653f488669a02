"""PKCS#15 cards: PKCS #15 v1.1 and its successor ISO/IEC 7816-15."""

from __future__ import annotations

from .conversation import NAME
from .family import Pkcs15

__all__ = ["NAME", "Pkcs15"]
