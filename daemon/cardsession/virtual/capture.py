"""Power and reset, read from QEMU's capture of an emulated reader's USB traffic.

`-device usb-ccid,pcap=FILE` has QEMU write each transfer to FILE, and out to the system, when it
comes and when it is done. What the host's driver says to the reader is on a bulk endpoint:
a CCID message begins with its type and a length (USB CCID class, revision 1.1, clause 6.1).
The file is a libpcap one whose records are those of Linux' usbmon, 64 bytes and the data.
"""

from __future__ import annotations

import logging
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cardsession.virtual.line import Power

_MAGIC: Final = 0xA1B2C3D4
_USBMON: Final = 220
_HEAD: Final = struct.Struct("=I16xI")  # magic, link type
_RECORD: Final = struct.Struct("=8xII")  # bytes that follow, and how many there were
_PACKET: Final = struct.Struct("=QBBB17xiI28x")  # id, event, transfer, endpoint, status, length
_SUBMITTED: Final = ord("S")
_DONE: Final = ord("C")
_BULK: Final = 3
_IN: Final = 0x80
_CCID_HEADER: Final = 10
_LONGEST_RECORD: Final = 0x10000
_MOST_AT_ONCE: Final = 0x100000
_MOST_UNDER_WAY: Final = 64
_WORDS: Final = {0x62: Power.ON, 0x63: Power.OFF}
"""PC_to_RDR_IccPowerOn and IccPowerOff. Whether a power on is a cold reset or a warm one is the
reader's affair: the card has lost its state by either."""

_log = logging.getLogger(__name__)


class Capture:
    """Reads on where it ended. A file that is not there yet is no error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rewind()

    def rewind(self) -> None:
        """Begin at the beginning: the reader is new, and so is its file."""
        self._at = 0
        self._spoiled = False
        # Of the message on the bulk endpoint, how many bytes are still to come.
        self._left = 0
        self._sent: dict[int, tuple[bytes, int]] = {}

    def words(self) -> list[Power]:
        """What was said to the card about power since the last time, in order."""
        found: list[Power] = []
        try:
            while not self._spoiled and (data := self._unread()):
                before = self._at
                found += self._read(data)
                if self._at == before:
                    break
        except FileNotFoundError:
            return found
        except (OSError, ValueError) as error:
            self._spoiled = True
            _log.warning("%s: %s", self.path, error)
        return found

    def _unread(self) -> bytes:
        about = self.path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("a file was expected")
        if about.st_size < self._at:
            self.rewind()
        with self.path.open("rb") as file:
            file.seek(self._at)
            return file.read(_MOST_AT_ONCE)

    def _read(self, data: bytes) -> Iterator[Power]:
        """Go through the whole records in `data`, which begins where the last ones ended."""
        at = 0
        if self._at == 0 and len(data) >= _HEAD.size:
            if _HEAD.unpack_from(data) != (_MAGIC, _USBMON):
                raise ValueError("a capture of USB packets was expected")
            self._at = at = _HEAD.size
        while self._at and len(data) >= at + _RECORD.size:
            size, _ = _RECORD.unpack_from(data, at)
            if not _PACKET.size <= size <= _LONGEST_RECORD:
                raise ValueError(f"a record of {size} bytes was not expected")
            end = at + _RECORD.size + size
            if len(data) < end:
                break
            yield from self._packet(data[at + _RECORD.size : end])
            self._at += end - at
            at = end

    def _packet(self, raw: bytes) -> Iterator[Power]:
        """What a transfer to the reader says, once it has taken it."""
        number, event, transfer, endpoint, status, length = _PACKET.unpack_from(raw)
        if transfer != _BULK or endpoint & _IN:
            return
        if event == _SUBMITTED:
            if len(self._sent) >= _MOST_UNDER_WAY:
                self._sent.clear()  # transfers that were given up
            self._sent[number] = (raw[_PACKET.size :], length)
        elif event == _DONE and number in self._sent:
            body, length = self._sent.pop(number)
            if status == 0:
                yield from self._message(body, length)
            else:
                self._left = 0

    def _message(self, body: bytes, length: int) -> Iterator[Power]:
        """A CCID message, or the next part of one that did not fit into one transfer."""
        if self._left:
            self._left -= min(self._left, length)
        elif len(body) >= _CCID_HEADER:
            self._left = max(_CCID_HEADER + int.from_bytes(body[1:5], "little") - length, 0)
            if body[0] in _WORDS:
                yield _WORDS[body[0]]
