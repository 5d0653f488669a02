"""PC/SC: one thread that waits for status changes, one thread for each reader's card.

The only importers of `smartcard.scard`. Return codes become `Failure`s here and travel no
further. Contexts are never shared between threads: a transmit on a context with a pending
status wait would wait for it.
"""

from .channel import PcscChannel
from .watch import PcscWatch

__all__ = ["PcscChannel", "PcscWatch"]
