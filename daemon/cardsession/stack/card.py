"""The developer's card, driven over its control socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cardsession.stack.processes import Child, accepts, child_environment, python_module

_ANSWER_SECONDS: Final = 30.0


def _secrets(**given: str | None) -> dict[str, str]:
    """The environment that hands the PINs over."""
    return {f"CARDSESSION_CARD_{name}": value for name, value in given.items() if value}


class CardError(Exception):
    """The card's process refused a command; the text is its own."""


class Card(Child):
    """`cardsession-virtual run` in reader slot 0 or 1. A context manager.

    Its process runs when entered; the card goes in with `insert()`, or at once with `inserted`.
    `options` are those of the command line (`--family`, `--holder`, `--tries`, …). The PINs
    are handed over in the environment: a command line is public.
    """

    def __init__(  # noqa: PLR0913 - keyword-only, each with a default
        self,
        directory: Path,
        slot: int = 0,
        *,
        inserted: bool = False,
        options: Sequence[str] = (),
        pin: str | None = None,
        puk: str | None = None,
        signature_pin: str | None = None,
        name: str = "card",
    ) -> None:
        self.control = directory / f"{name}{slot}.sock"
        command = [
            *python_module("cardsession.virtual"),
            *("run", "--slot", str(slot), "--control", str(self.control)),
            *(() if inserted else ("--not-inserted",)),
            *options,
        ]
        super().__init__(
            f"{name} in slot {slot}",
            command,
            directory / f"{name}{slot}.log",
            child_environment(_secrets(PIN=pin, PUK=puk, SIGNATURE_PIN=signature_pin)),
        )

    def start(self) -> None:
        """Start it and wait until its control socket answers. StackError with its log if not."""
        super().start()
        self.wait_for("its control socket answers", lambda: accepts(self.control))

    def tell(self, command: str, **fields: object) -> dict[str, Any]:
        """One command over the control socket; its answer. CardError if it is refused."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(_ANSWER_SECONDS)
            link.connect(str(self.control))
            link.sendall(json.dumps({"command": command, **fields}).encode() + b"\n")
            with link.makefile("rb") as lines:
                answer: dict[str, Any] = json.loads(lines.readline() or b'{"error": "no answer"}')
        if "error" in answer:
            raise CardError(f"{command}: {answer['error']}")
        return answer

    def insert(self) -> None:
        """Put the card in."""
        self.tell("insert")

    def remove(self) -> None:
        """Pull the card."""
        self.tell("remove")

    def status(self) -> dict[str, Any]:
        """The card's own book: inserted, tries left, every VERIFY it received."""
        return self.tell("status")
