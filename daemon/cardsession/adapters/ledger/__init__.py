"""Attempts in flight and the lowest counts seen (see `cardsession.ports.Ledger`), in memory and
on the disk."""

from .durable import FileLedger
from .memory import MemoryLedger

__all__ = ["FileLedger", "MemoryLedger"]
