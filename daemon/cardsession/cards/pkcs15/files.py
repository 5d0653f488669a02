"""A card's files: selecting and reading them, ISO/IEC 7816-4:2020 clauses 7.2, 7.3 and 11.2.

Cards differ in what SELECT they take. We ask for the control information (P2 = 00), and where a
card calls that wrong, for none (0C); we go by the whole path from the master file (P1 = 08), and
where that leads nowhere, step by step by file identifiers (P1 = 00). What worked once is tried
first from then on. None of it can cost a try.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cardsession.core import tlv
from cardsession.core.apdu import SHORT_LE, SUCCESS, SW, Command, Response
from cardsession.core.dialogue import Dialogue, transmit
from cardsession.core.errors import Malformed

from .objects import ENTRIES_LIMIT, Directories, Path

MF = bytes.fromhex("3F00")
_HOME = bytes.fromhex("3FFF")
"""What stands for the application's own directory at the head of a path (7816-15 clause 8.2)."""
_BY_IDENTIFIER, _BY_NAME, _FROM_MF, _FROM_HERE = 0x00, 0x04, 0x08, 0x09
"""P1 of SELECT."""
_CONTROL_INFORMATION, _NOTHING = 0x00, 0x0C
"""P2: what is to be answered."""
_ABOUT_PARAMETERS = frozenset({0x6A86, 0x6B00, 0x6A81, 0x6700, 0x6A87})
"""The card does not take the command in this form: P1-P2, the function, Le, Lc."""
_NO_BINARY = 0x6981
"""Command incompatible with the file's structure: it has records."""
_BY_NUMBER = 0x04
"""P2 of READ RECORD: the record of the number in P1."""
_ADDRESSABLE = 0x8000
"""READ BINARY has an offset of fifteen bits: no file is read further."""
FILES_LIMIT = 32
"""Files read in one conversation; one more is not to be had."""
EXCHANGES_LIMIT = 400
"""Commands of one conversation: a card's transaction is short, whatever the card answers."""


@dataclass(frozen=True, slots=True)
class Manner:
    """What this card takes, as learnt so far."""

    control: int = _CONTROL_INFORMATION
    steps: bool = False
    settled: bool = False
    """Whether a path of more than one step ever led somewhere."""
    longest: int = SHORT_LE
    """Bytes of the longest answer; more than 256: by extended length fields."""
    extended: bool = False
    """Whether it takes commands with extended length fields."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where an application is: selected by its name, at a path from the master file, or both
    (a card on a card: its name first, then its own file system)."""

    aid: bytes = b""
    path: bytes = b""
    directories: Directories = field(default_factory=Directories)
    listed: bytes = b""
    """The application identifier that EF.DIR has for it."""


@dataclass(frozen=True, slots=True)
class Control:
    """What SELECT told of a file."""

    raw: bytes = b""
    size: int | None = None
    records: bool = False


class Files:
    """The files of one card in one conversation."""

    def __init__(
        self, manner: Manner | None = None, home: Home | None = None, *, inside: bool = False
    ) -> None:
        """`inside`: the application is selected already, by its name if it has no path."""
        self.manner = manner or Manner()
        self.home = home or Home()
        self._exchanges = 0
        self._files = 0
        self._directory: bytes | None = b"" if inside and not self.home.path else None
        """Where we are: a path, b"" for the application by its name; None: who knows."""

    def send(self, command: Command) -> Dialogue[Response]:
        """One command of a bounded conversation."""
        self._exchanges += 1
        if self._exchanges > EXCHANGES_LIMIT:
            raise Malformed(f"a card that takes more than {EXCHANGES_LIMIT} commands to read")
        return (yield from transmit(command))

    def name(self, aid: bytes) -> Dialogue[Control | None]:
        """SELECT by DF name; None if the card has none such."""
        found = yield from self._select(_BY_NAME, aid)
        self._directory = b"" if found else None
        return found

    def select(self, path: bytes) -> Dialogue[Control | None]:
        """SELECT a file; None if it is not to be had."""
        target = self.place(path)
        if target[:2] == MF:
            found = yield from self._absolute(target)
        else:
            found = yield from self._relative(target)
        return found

    def place(self, path: bytes) -> bytes:
        """The path from the master file, where the application's own is known."""
        if path[:2] == MF:
            return path
        inside = path[2:] if path[:2] == _HOME else path
        return self.home.path + inside

    def go(self, path: bytes) -> Dialogue[bool]:
        """The same for a directory that we may be in already; b"" is the application's own."""
        target = self.place(path)
        if target == self._directory:
            return True
        return (yield from self.select(target)) is not None

    def read(self, path: Path, *, one_object: bool = False) -> Dialogue[bytes | None]:
        """A file's content, or the part of it that `path` names; None if it is not to be had.

        `one_object`: it holds a single BER-TLV object, and what follows that is not read.
        """
        self._files += 1
        control = (yield from self.select(path.value)) if self._files <= FILES_LIMIT else None
        if control is None:
            return None
        if control.records:
            return (yield from self._records(path.index))
        start = path.index or 0
        size = path.length or (None if control.size is None else control.size - start)
        content, sw = yield from self._binary(start, size, one_object=one_object)
        if sw == _NO_BINARY and not content:
            return (yield from self._records(path.index))
        return content or None

    # how

    def _absolute(self, target: bytes) -> Dialogue[Control | None]:
        if len(target) == len(MF):
            found = yield from self._select(_BY_IDENTIFIER, target)
        else:
            found = None
            if not self.manner.steps:
                found = yield from self._select(_FROM_MF, target[2:])
            if found is None and (self.manner.steps or not self.manner.settled):
                found = yield from self._stepwise(target)
                self.manner = replace(self.manner, steps=found is not None or self.manner.steps)
            if found is not None:
                self.manner = replace(self.manner, settled=True)
        self._arrived(target, found)
        return found

    def _stepwise(self, target: bytes) -> Dialogue[Control | None]:
        """Only the last step, where we are in its directory already."""
        known = self._directory is not None and self._directory == target[:-2]
        found: Control | None = None
        for at in range(len(target) - 2 if known else 0, len(target), 2):
            found = yield from self._select(_BY_IDENTIFIER, target[at : at + 2])
            if found is None:
                return None
        return found

    def _relative(self, target: bytes) -> Dialogue[Control | None]:
        """From the application's own directory, to which only its name leads."""
        if not self.home.aid:
            return None
        if self._directory != b"" and (yield from self.name(self.home.aid)) is None:
            return None
        if not target:
            return Control()
        deep = len(target) > 2  # noqa: PLR2004 - one file identifier
        found = yield from self._select(_FROM_HERE if deep else _BY_IDENTIFIER, target)
        if deep or found is None:
            self._directory = None
        return found

    def _arrived(self, target: bytes, found: Control | None) -> None:
        at_home = target in (self.home.path, MF)
        self._directory = None if found is None else target if at_home else target[:-2]

    def _select(self, p1: int, data: bytes) -> Dialogue[Control | None]:
        first = self.manner.control
        for p2 in (first, _CONTROL_INFORMATION ^ _NOTHING ^ first):
            ne = None if p2 == _NOTHING else SHORT_LE
            reply = yield from self.send(Command(0x00, 0xA4, p1, p2, data, ne))
            if reply.sw.ok or reply.sw.sw1 == 0x62:  # noqa: PLR2004 - a warning: it is selected
                self.manner = replace(self.manner, control=p2)
                return _control(reply.data)
            if reply.sw not in _ABOUT_PARAMETERS:
                return None
        return None

    def _binary(self, start: int, size: int | None, *, one_object: bool) -> Dialogue[Response]:
        """READ BINARY (clause 11.2.3) until the file, its object or the card's patience ends."""
        content = bytearray()
        while True:
            offset = start + len(content)
            wanted = min(self.manner.longest, _ADDRESSABLE - offset)
            wanted = wanted if size is None else min(wanted, size - len(content))
            if wanted <= 0:
                return Response(bytes(content), SW(SUCCESS))
            long = wanted > SHORT_LE
            command = Command(0x00, 0xB0, offset >> 8, offset & 0xFF, b"", wanted, extended=long)
            reply = yield from self.send(command)
            content += reply.data[:wanted]
            short = size is None and len(reply.data) < min(wanted, SHORT_LE)
            if not reply.sw.ok or not reply.data or short or _blank(reply.data):
                return Response(bytes(content), reply.sw)
            if one_object and _complete(content):
                return Response(bytes(content), reply.sw)

    def _records(self, only: int | None) -> Dialogue[bytes | None]:
        """READ RECORD (clause 11.3.3): all of them, one after the other, or a single one."""
        content = bytearray()
        for number in (only,) if only else range(1, ENTRIES_LIMIT + 1):
            p1 = number & 0xFF
            reply = yield from self.send(Command(0x00, 0xB2, p1, _BY_NUMBER, b"", SHORT_LE))
            if not reply.sw.ok:
                break
            content += reply.data
        return bytes(content) or None


def _control(raw: bytes) -> Control:
    """File control information (clause 7.4): 80 size, 82 descriptor. What is none says nothing."""
    try:
        outer = dict(tlv.items(raw))
        fields = dict(tlv.items(outer.get(0x6F, b"") or outer.get(0x62, b"")))
    except Malformed:
        return Control(raw)
    sizes = [fields[tag] for tag in (0x80, 0x81) if 0 < len(fields.get(tag, b"")) <= 4]  # noqa: PLR2004
    descriptor = fields.get(0x82, b"")[:1] or b"\x01"
    structure = descriptor[0] & 0x07
    return Control(
        raw,
        size=int.from_bytes(sizes[0], "big") if sizes else None,
        records=structure > 1 and descriptor[0] & 0x38 != 0x38,  # noqa: PLR2004 - not a DF
    )


def _complete(content: bytearray) -> bool:
    try:
        return next(tlv.items(bytes(content)), None) is not None
    except Malformed:
        return False


def _blank(piece: bytes) -> bool:
    """Whether a full piece of a file is nothing but filling: nothing will follow it."""
    return len(piece) >= SHORT_LE and not piece.strip(piece[:1]) and piece[0] in (0x00, 0xFF)
