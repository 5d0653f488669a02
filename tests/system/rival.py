"""Another program at the same reader, as a process of its own: lines in, lines out.

hold / exclusive: take the card (a transaction, or the whole reader); free: let go, the card as
it is; verify PIN, state: VERIFY with and without data to a PIV card; apdu HEX; reset.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Self

from cardsession.stack.processes import child_environment

SCRIPT = r"""
import sys
from smartcard import scard
_, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
card = None
def connect(mode):
    global card, protocol
    code, card, protocol = scard.SCardConnect(context, sys.argv[1], mode, 3)
    return code
def say(text):
    code, answer = scard.SCardTransmit(card, protocol, list(bytes.fromhex(text)))
    return bytes(answer).hex() if code == 0 else f"error {code:08X}"
PIV = "00A4040009A00000030800001000"
for line in sys.stdin:
    word, *rest = line.split()
    if word == "hold":
        code = connect(scard.SCARD_SHARE_SHARED) or scard.SCardBeginTransaction(card)
        print(f"{code:08X}")
    elif word == "exclusive":
        print(f"{connect(scard.SCARD_SHARE_EXCLUSIVE):08X}")
    elif word == "shared":
        print(f"{connect(scard.SCARD_SHARE_SHARED):08X}")
    elif word == "free":
        print(f"{scard.SCardDisconnect(card, scard.SCARD_LEAVE_CARD):08X}")
    elif word == "reset":
        print(f"{scard.SCardDisconnect(card, scard.SCARD_RESET_CARD):08X}")
    elif word == "verify":
        say(PIV)
        print(say("0020008008" + rest[0].encode().hex().ljust(16, "f")))
    elif word == "apdu":
        print(say(rest[0]))
    elif word == "state":
        say(PIV)
        print(say("00200080"))
    sys.stdout.flush()
"""


class Rival:
    """The process. A context manager; `say` gives what it answered."""

    def __init__(self, reader: str = "Virtual PCD 00 00") -> None:
        self._reader = reader

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, self._reader],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment({"PCSCLITE_NO_BLOCKING": "1"}),
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def say(self, line: str) -> str:
        """One line to it, and its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()
