"""Files and their control parameters (ISO/IEC 7816-4 clauses 7.3 and 7.4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from cardsession.virtual.tlv import tlv

MF: Final = 0x3F00
_TRANSPARENT: Final = 0x01
_LINEAR_VARIABLE: Final = 0x04
_DF: Final = 0x38
_ONE_BYTE_CODING: Final = 0x21
_ACTIVE: Final = 0x05
_IDENTIFIER_BYTES: Final = 2


@dataclass(slots=True)
class Ef:
    """An elementary file: bytes, or records where `records` is not None.

    `short` is its short identifier (0: none), `guarded` whether reading needs the user's PIN.
    """

    identifier: int
    content: bytes = b""
    short: int = 0
    records: tuple[bytes, ...] | None = None
    guarded: bool = False

    def parameters(self) -> bytes:
        """The data objects of its FCP: size, descriptor, identifier, life cycle, short one."""
        size = len(self.content if self.records is None else b"".join(self.records))
        made = tlv(0x80, size.to_bytes(2, "big")) + tlv(0x82, self._descriptor())
        made += tlv(0x83, self.identifier.to_bytes(2, "big")) + tlv(0x8A, bytes([_ACTIVE]))
        return made + (tlv(0x88, bytes([self.short << 3])) if self.short else b"")

    def _descriptor(self) -> bytes:
        """Clause 7.4.5: for records the largest one's size in two bytes, and how many."""
        if self.records is None:
            return bytes([_TRANSPARENT])
        largest = max((len(record) for record in self.records), default=0)
        coding = bytes([_LINEAR_VARIABLE, _ONE_BYTE_CODING])
        return coding + largest.to_bytes(2, "big") + bytes([len(self.records)])


@dataclass(slots=True)
class Df:
    """A dedicated file, and the master file. `name` is the application's, if it is one."""

    identifier: int
    name: bytes = b""
    children: dict[int, Df | Ef] = field(default_factory=dict)
    parent: Df | None = field(default=None, repr=False)

    def add(self, child: Df | Ef) -> None:
        """Put a file in; one with the same identifier goes."""
        self.children[child.identifier] = child
        if isinstance(child, Df):
            child.parent = self

    def parameters(self) -> bytes:
        """The data objects of its FCP."""
        made = tlv(0x82, bytes([_DF])) + tlv(0x83, self.identifier.to_bytes(2, "big"))
        return made + (tlv(0x84, self.name) if self.name else b"") + tlv(0x8A, bytes([_ACTIVE]))

    def walk(self, path: bytes) -> Df | Ef | None:
        """The file at `path` from here, two bytes a step; None where there is none."""
        here: Df | Ef | None = self
        if len(path) % _IDENTIFIER_BYTES:
            return None
        for step in steps(path):
            here = here.children.get(step) if isinstance(here, Df) else None
        return here

    def by_short(self, short: int) -> Ef | None:
        """The elementary file in this DF with that short identifier."""
        for child in self.children.values():
            if isinstance(child, Ef) and child.short == short:
                return child
        return None

    def listing(self, before: str = "") -> Iterator[str]:
        """The paths of all elementary files below, in hexadecimal."""
        here = f"{before}{self.identifier:04X}"
        for child in self.children.values():
            if isinstance(child, Df):
                yield from child.listing(here)
            else:
                yield f"{here}{child.identifier:04X}"


def steps(path: bytes) -> list[int]:
    """The file identifiers in a path."""
    return [int.from_bytes(path[at : at + 2], "big") for at in range(0, len(path), 2)]
