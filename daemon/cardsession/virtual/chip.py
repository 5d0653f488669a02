"""The chip: transport of APDUs, command chaining, GET RESPONSE, and which applet is selected."""

from __future__ import annotations

from typing import Final, Protocol

from cardsession.virtual.apdu import CHAINING, SW, Command, Ins, Malformed, Response, parse

_BY_NAME: Final = 0x04
_NO_DATA: Final = 0x0C
_CHAIN_CAPACITY: Final = 8192
_SHORT: Final = 256


class Applet(Protocol):
    """One application on the chip."""

    def answers_to(self, name: bytes) -> bool:
        """Is `name` this application's AID, or a right-truncated form that it accepts?"""

    def select(self, form: int) -> bytes:
        """Become the selected application; what SELECT answers. `form` is P2, bits 4 and 3."""

    def deselect(self) -> None:
        """Another application was selected."""

    def reset(self) -> None:
        """The chip was reset or lost power: every security status is lost."""

    def process(self, command: Command) -> Response:
        """Answer a command other than SELECT by name (by file: here) and GET RESPONSE."""


class Chip:
    """Turns bytes into bytes. No I/O, no clock."""

    def __init__(
        self,
        applets: tuple[Applet, ...],
        *,
        default: Applet | None,
        extended: bool = True,
        chaining: bool = True,
    ) -> None:
        self._applets = applets
        self._default = default
        self._extended = extended
        self._chaining = chaining
        self._selected = default
        self._pending = b""
        self._pending_sw = int(SW.OK)
        self._chain: tuple[tuple[int, int, int], bytes] | None = None

    def reset(self) -> None:
        """Cold or warm reset: the default application is selected, nothing is verified."""
        for applet in self._applets:
            applet.reset()
        self._selected = self._default
        self._pending, self._chain = b"", None

    def process(self, raw: bytes) -> bytes:
        """Answer one command APDU with one response APDU."""
        try:
            command = parse(raw)
        except Malformed:
            return self._word(SW.WRONG_LENGTH)
        refusal = self._refuse(command)
        if refusal is not None:
            self._pending, self._chain = b"", None
            return self._word(refusal)
        if command.ins == Ins.GET_RESPONSE:
            return self._get_response(command)
        self._pending = b""
        return self._link(command)

    def _refuse(self, command: Command) -> SW | None:
        """ISO/IEC 7816-4 clause 5.4.1: no secure messaging, no logical channels, one class."""
        if command.extended and not self._extended:
            return SW.WRONG_LENGTH
        if command.cla & 0xE0:
            return SW.CLA
        if command.cla & 0x0C:
            return SW.SECURE_MESSAGING
        if command.cla & 0x03:
            return SW.CHANNEL
        if command.cla & CHAINING and not self._chaining:
            return SW.NO_CHAINING
        return None

    def _link(self, command: Command) -> bytes:
        """One link of a command chain (clause 5.3.3), or a command that stands alone."""
        head = (command.ins, command.p1, command.p2)
        chain, self._chain = self._chain, None
        if chain is not None and chain[0] != head:
            return self._word(SW.CHAIN_EXPECTED)
        data = (chain[1] if chain else b"") + command.data
        if len(data) > _CHAIN_CAPACITY:
            return self._word(SW.NO_SPACE)
        if command.cla & CHAINING:
            self._chain = (head, data)
            return self._word(SW.OK)
        whole = Command(command.cla, *head, data, command.ne, command.extended)
        response = self._dispatch(whole)
        self._pending, self._pending_sw = response.data, response.sw
        return self._portion(command.ne)

    def _dispatch(self, command: Command) -> Response:
        if command.ins == Ins.SELECT:
            return self._select(command)
        if self._selected is None:
            return Response(SW.INS)
        return self._selected.process(command)

    def _select(self, command: Command) -> Response:
        """SELECT by name. A name that no application has leaves everything as it was."""
        if command.p1 != _BY_NAME and self._selected is not None:
            return self._selected.process(command)
        if command.p1 != _BY_NAME or command.p2 & ~_NO_DATA:
            return Response(SW.WRONG_P1P2)
        found = next((applet for applet in self._applets if applet.answers_to(command.data)), None)
        if found is None:
            return Response(SW.NOT_FOUND)
        if self._selected is not None and self._selected is not found:
            self._selected.deselect()
        self._selected = found
        data = found.select(command.p2 & _NO_DATA)
        return Response(SW.OK, b"" if command.p2 == _NO_DATA else data)

    def _get_response(self, command: Command) -> bytes:
        self._chain = None
        if command.p1 or command.p2:
            return self._word(SW.WRONG_P1P2)
        if not self._pending:
            return self._word(SW.CONDITIONS)
        return self._portion(command.ne or _SHORT)

    def _portion(self, ne: int) -> bytes:
        """At most `ne` bytes of what is pending, and 61XX while more is left (clause 5.3.4)."""
        portion, self._pending = self._pending[:ne], self._pending[ne:]
        left = len(self._pending)
        sw = 0x6100 | (left if left < _SHORT else 0) if left else self._pending_sw
        return portion + self._word(sw)

    @staticmethod
    def _word(sw: int) -> bytes:
        return sw.to_bytes(2, "big")
