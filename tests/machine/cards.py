"""Developer's cards behind QEMU's USB readers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cardsession.stack.processes import Child, child_environment, python_module
from cardsession.virtual.control_client import Control


class Card(Child):
    """`cardsession-virtual run --vscard`: out until inserted. A context manager.

    Its book (`status`) is what the card saw, whatever the guest believes.
    """

    def __init__(
        self, name: str, directory: Path, passcode: str, options: Sequence[str] = ()
    ) -> None:
        self.address = directory / f"{name}.line"
        self.capture = directory / f"{name}.pcap"
        path = directory / f"{name}.control"
        self._control = Control(path, timeout=30)
        command = [
            *python_module("cardsession.virtual"),
            *("run", "--vscard", f"unix:{self.address}", "--vscard-capture", str(self.capture)),
            *("--control", str(path), "--not-inserted", *options),
        ]
        environment = child_environment({"CARDSESSION_CARD_PIN": passcode})
        super().__init__(name, command, directory / f"{name}.log", environment)

    def start(self) -> None:
        """Start it and wait until it can be told something."""
        super().start()
        self.wait_for("its control socket", self._control.path.exists)
        self._control.wait_ready()

    def tell(self, command: str, **fields: object) -> dict[str, Any]:
        """One command over the control socket; its answer."""
        return self._control.send(command, **fields)

    def insert(self) -> None:
        """Put the card in."""
        self.tell("insert")

    def remove(self) -> None:
        """Pull it."""
        self.tell("remove")

    @property
    def left(self) -> int:
        """Tries left, by the card itself."""
        return int(self._reference["left"])

    @property
    def verified(self) -> bool:
        """Whether the card holds its passcode for verified."""
        return bool(self._reference["verified"])

    @property
    def _reference(self) -> dict[str, Any]:
        found: dict[str, Any] = self.tell("status")["references"]["80"]
        return found
