"""tests/ifd/handler.c from our side: the words of its protocol, and how it is compiled."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Final

from cardsession.stack.processes import StackError

SOURCE: Final = Path(__file__).parent.parent / "ifd" / "handler.c"
SOCKET_VARIABLE: Final = "CARDSESSION_IFD"
"""Where the handler finds the path of the socket."""
NUMBER: Final = 4
"""Bytes of a number, little-endian."""
LONGEST: Final = 1 << 17
"""Bytes of a packet."""
GET_FEATURES: Final = 0x42000000 + 3400
"""CM_IOCTL_GET_FEATURE_REQUEST."""
_FLAGS: Final = (
    *("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"),
    *("-pthread", "-I/usr/include/PCSC"),
)


class Call(StrEnum):
    """First bytes of the packets, as in handler.c."""

    OPEN = "O"
    EVENTS = "E"
    GET = "G"
    SET = "S"
    PROTOCOL = "N"
    POWER = "P"
    PRESENCE = "I"
    TRANSMIT = "T"
    CONTROL = "X"


class Code(IntEnum):
    """Response codes of ifdhandler.h."""

    SUCCESS = 0
    ERROR_TAG = 600
    ERROR_NOT_SUPPORTED = 606
    ERROR_POWER_ACTION = 608
    COMMUNICATION_ERROR = 612
    RESPONSE_TIMEOUT = 613
    ICC_PRESENT = 615
    ICC_NOT_PRESENT = 616


class Tag(IntEnum):
    """Tags of ifdhandler.h and reader.h that pcscd or a program asks for."""

    ATR = 0x0303
    ATR_STRING = 0x9_0303
    VENDOR_NAME = 0x1_0100
    VENDOR_IFD_TYPE = 0x1_0101
    VENDOR_IFD_SERIAL_NO = 0x1_0103
    CHANNEL_ID = 0x2_0110
    SLOT_THREAD_SAFE = 0x0FAC
    THREAD_SAFE = 0x0FAD
    SLOTS_NUMBER = 0x0FAE
    SIMULTANEOUS_ACCESS = 0x0FAF
    STOP_POLLING_THREAD = 0x0FB2
    POLLING_THREAD_WITH_TIMEOUT = 0x0FB3


class Power(IntEnum):
    """Actions of IFDHPowerICC."""

    UP = 500
    DOWN = 501
    RESET = 502


class Feature(IntEnum):
    """Tags of PC/SC part 10 clause 2.3 that the tests use."""

    VERIFY_PIN_START = 0x01
    VERIFY_PIN_DIRECT = 0x06
    MODIFY_PIN_DIRECT = 0x07


def driver() -> Path:
    """handler.c as a shared library, compiled once for each of its versions."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cardsession"
    text = SOURCE.read_bytes() + " ".join(_FLAGS).encode()
    library = cache / f"libcardsessionifd-{hashlib.sha256(text).hexdigest()[:12]}.so"
    if not library.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _compile(library)
    return library


def _compile(library: Path) -> None:
    """Renamed into place: another run may do the same now."""
    with tempfile.TemporaryDirectory(dir=library.parent) as directory:
        made = Path(directory) / library.name
        command = ["gcc", *_FLAGS, "-o", str(made), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != 0:
            raise StackError(f"tests/ifd does not compile:\n{done.stderr}")
        made.rename(library)
