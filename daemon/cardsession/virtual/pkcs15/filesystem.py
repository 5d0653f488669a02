"""Selecting and reading files (ISO/IEC 7816-4 clauses 11.1 to 11.3)."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final

from cardsession.virtual.apdu import SW, Command, Response
from cardsession.virtual.pkcs15.files import MF, Df, Ef
from cardsession.virtual.pkcs15.options import EndOfFile, Pkcs15Options, SelectAnswer
from cardsession.virtual.tlv import tlv, walk

_FCI, _FCP, _FMD = 0x6F, 0x62, 0x64
_FORM: Final = 0x0C
_SHORT_IN_P1: Final = 0x80
_SHORT_MASK: Final = 0x1F
_SHORT_NE: Final = 256
_OFFSET_OBJECT, _DATA_OBJECT = 0x54, 0x53
_ONE_RECORD, _ALL_RECORDS = 0x04, 0x05


class By(IntEnum):
    """P1 of SELECT: how the file is named. By DF name is the chip's matter."""

    IDENTIFIER = 0x00
    CHILD_DF = 0x01
    EF = 0x02
    PARENT = 0x03
    PATH_FROM_MF = 0x08
    PATH_FROM_DF = 0x09


class Form(IntEnum):
    """P2 of SELECT, bits 4 and 3: what is answered."""

    FCI = 0x00
    FCP = 0x04
    FMD = 0x08
    NOTHING = 0x0C


class FileSystem:
    """The tree, the current DF and the current EF. A refused SELECT changes neither."""

    def __init__(self, master: Df, options: Pkcs15Options, unlocked: Callable[[], bool]) -> None:
        self.master = master
        self.df = master
        self.ef: Ef | None = None
        self._options = options
        self._unlocked = unlocked

    def reset(self) -> None:
        """The MF is selected after a reset."""
        self.enter(self.master)

    def enter(self, df: Df) -> None:
        """Make a DF the current one; no EF is."""
        self.df, self.ef = df, None

    def select(self, command: Command) -> Response:
        """SELECT otherwise than by name."""
        if command.p1 not in set(By) or command.p2 & ~_FORM:
            return Response(SW.WRONG_P1P2)
        found = self._find(By(command.p1), command.data)
        if found is None:
            return Response(SW.NOT_FOUND)
        if isinstance(found, Df):
            self.enter(found)
        else:
            # By path, the file's DF becomes the current one.
            self.df, self.ef = self._home(By(command.p1), command.data), found
        return Response(SW.OK, self.control_information(found, command.p2 & _FORM))

    def _find(self, by: By, data: bytes) -> Df | Ef | None:
        match by:
            case By.PATH_FROM_MF:
                return self.master.walk(data) if data else None
            case By.PATH_FROM_DF:
                return self.df.walk(data) if data else None
            case By.PARENT:
                return self.df.parent if not data else None
            case By.IDENTIFIER if not data:
                return self.master
        if len(data) != len(MF.to_bytes(2, "big")):
            return None
        identifier = int.from_bytes(data, "big")
        child = self.df.children.get(identifier)
        match by:
            case By.CHILD_DF:
                return child if isinstance(child, Df) else None
            case By.EF:
                return child if isinstance(child, Ef) else None
        return child or self._near(identifier)

    def _near(self, identifier: int) -> Df | None:
        """By identifier: the MF from anywhere, the DF itself, its parent."""
        for df in (self.master, self.df, self.df.parent):
            if df is not None and df.identifier == identifier:
                return df
        return None

    def _home(self, by: By, data: bytes) -> Df:
        match by:
            case By.PATH_FROM_MF:
                home = self.master.walk(data[:-2])
            case By.PATH_FROM_DF:
                home = self.df.walk(data[:-2])
            case _:
                home = self.df
        return home if isinstance(home, Df) else self.df

    def control_information(self, file: Df | Ef, form: int) -> bytes:
        """What SELECT answers of a file, as it was asked or as this card does it."""
        answer = self._options.select_answer
        if answer is SelectAnswer.NOTHING or form == Form.NOTHING:
            return b""
        if answer is SelectAnswer.AS_ASKED and form == Form.FMD:
            return tlv(_FMD)
        whole = answer is SelectAnswer.FCI or (answer is SelectAnswer.AS_ASKED and form == Form.FCI)
        return tlv(_FCI if whole else _FCP, file.parameters())

    def read_binary(self, command: Command) -> Response:
        """READ BINARY, B0: the current EF, or by short identifier in P1."""
        if command.data:
            return Response(SW.WRONG_LENGTH)
        if not command.p1 & _SHORT_IN_P1:
            return self._part(self.ef, command.p1 << 8 | command.p2, command)
        if command.p1 & ~(_SHORT_IN_P1 | _SHORT_MASK):
            return Response(SW.WRONG_P1P2)
        found = self.df.by_short(command.p1 & _SHORT_MASK)
        if found is None:
            return Response(SW.NOT_FOUND)
        self.ef = found
        return self._part(found, command.p2, command)

    def read_binary_objects(self, command: Command) -> Response:
        """READ BINARY, B1: the offset in a data object 54, the answer in a 53."""
        if command.p1 or command.p2:
            return Response(SW.WRONG_P1P2)
        try:
            ((tag, offset),) = walk(command.data)
        except ValueError:
            return Response(SW.WRONG_DATA)
        if tag != _OFFSET_OBJECT:
            return Response(SW.WRONG_DATA)
        part = self._part(self.ef, int.from_bytes(offset, "big"), command)
        return Response(part.sw, tlv(_DATA_OBJECT, part.data) if part.data else b"")

    def _part(self, ef: Ef | None, offset: int, command: Command) -> Response:
        """At most Ne bytes from `offset`; one past the end is not in the file (6B00)."""
        if (refusal := self._refuse(ef, records=False)) is not None or ef is None:
            return Response(refusal or SW.NO_CURRENT_EF)
        rest = ef.content[offset:]
        if offset > len(ef.content) or (offset and not rest):
            return Response(SW.WRONG_OFFSET)
        on = self._options.reads_on and command.ne == _SHORT_NE and not command.extended
        if on or len(rest) >= command.ne:
            return Response(SW.OK, rest if on else rest[: command.ne])
        match self._options.end_of_file:
            case EndOfFile.EXACT if len(rest) < _SHORT_NE:
                return Response(SW.EXACT_LENGTH | len(rest))
            case EndOfFile.WARNING:
                return Response(SW.END_OF_FILE, rest)
        return Response(SW.OK, rest)

    def read_record(self, command: Command) -> Response:
        """READ RECORD, B2: one by number, or all from that number on."""
        ef = self.ef
        if short := command.p2 >> 3:
            ef = self.df.by_short(short)
            if ef is None:
                return Response(SW.NOT_FOUND)
        if (refusal := self._refuse(ef, records=True)) is not None or ef is None:
            return Response(refusal or SW.NO_CURRENT_EF)
        self.ef, records = ef, ef.records or ()
        if not 0 < command.p1 <= len(records):
            return Response(SW.NO_RECORD)
        match command.p2 & 0x07:
            case n if n == _ONE_RECORD:
                answer = records[command.p1 - 1]
            case n if n == _ALL_RECORDS:
                answer = b"".join(records[command.p1 - 1 :])
            case _:
                return Response(SW.WRONG_P1P2)
        return Response(SW.OK, answer)

    def _refuse(self, ef: Ef | None, *, records: bool) -> SW | None:
        if ef is None:
            return SW.NO_CURRENT_EF
        if (ef.records is not None) is not records:
            return SW.INCOMPATIBLE
        return SW.SECURITY_STATUS if ef.guarded and not self._unlocked() else None

    def put(self, path: bytes, value: bytes | None) -> None:
        """Write a file past all rules (None: away with it). ValueError if its DF is not there."""
        identifier = int.from_bytes(path[-2:], "big")
        home = self.master.walk(path[2:-2])
        if path[:2] != MF.to_bytes(2, "big") or len(path) % 2 or not isinstance(home, Df):
            raise ValueError("a path from the MF on was expected, such as 3F0050155031")
        old = home.children.get(identifier)
        if isinstance(old, Df) or identifier == MF:
            raise ValueError(f"{path.hex().upper()} is no elementary file")
        if self.ef is not None and self.ef is old:
            self.ef = None
        if value is None:
            home.children.pop(identifier, None)
        elif old is not None and old.records is not None:
            old.records = (value,)
        elif old is not None:
            old.content = value
        else:
            home.add(Ef(identifier, value))
