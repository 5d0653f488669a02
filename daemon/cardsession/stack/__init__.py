"""The real parts of the test bed, each a child process: bus, card service, card, daemon.

`daemon/try.sh` and the tests bring them up through this package, inside the namespace that
`daemon/setup.sh` makes. It imports the standard library only, and nothing imports it.
"""

from __future__ import annotations

from cardsession.stack.bus import Bus
from cardsession.stack.card import Card, CardError
from cardsession.stack.daemon import Daemon
from cardsession.stack.pcscd import Pcscd, in_namespace
from cardsession.stack.processes import Child, StackError, wait_until
from cardsession.stack.whole import Stack, run_directory

__all__ = [
    "Bus",
    "Card",
    "CardError",
    "Child",
    "Daemon",
    "Pcscd",
    "Stack",
    "StackError",
    "in_namespace",
    "run_directory",
    "wait_until",
]
