"""Values to bytes and back, by way of dbus-next: the only module that imports it.

Four things are taken from it: Variant, the parser of signatures, Message (values to bytes) and
Unmarshaller (bytes to values). To change to dbus-fast, change these imports.
"""

from __future__ import annotations

import io
import re
from typing import Any

from dbus_next._private.unmarshaller import Unmarshaller as _Unmarshaller
from dbus_next.constants import MessageFlag, MessageType
from dbus_next.message import Message as _Message
from dbus_next.signature import SignatureTree as _SignatureTree
from dbus_next.signature import Variant

from .frames import Flag, Kind
from .model import Body

__all__ = ["Variant", "decode", "encode", "is_bus_name", "printable"]

MAX_OUTGOING = 16 * 1024 * 1024
MAX_OUTGOING_FDS = 16
"""dbus-daemon disconnects whoever sends longer messages (32 MiB) or more descriptors than this."""
_MAX_ERROR_TEXT = 1024
_MAX_CACHED_SIGNATURES = 512

_PATH = re.compile(r"/|(?:/[A-Za-z0-9_]+)+")
_INTERFACE = re.compile(r"(?=.{1,255}\Z)[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)+")
_MEMBER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_BUS_NAME = re.compile(
    r"(?=.{1,255}\Z)(?::[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+"
    r"|[A-Za-z_-][A-Za-z0-9_-]*(?:\.[A-Za-z_-][A-Za-z0-9_-]*)+)"
)
_NAMES = {
    "path": _PATH,
    "interface": _INTERFACE,
    "error_name": _INTERFACE,
    "member": _MEMBER,
    "destination": _BUS_NAME,
}

# dbus-next's annotations do not hold up under a strict check: untyped at the border.
_message: Any = _Message
_unmarshaller: Any = _Unmarshaller
_signatures: Any = _SignatureTree


def _sound(kind: Any, value: Any) -> Any:
    """The value as dbus-next wants it (lists for tuples, bytes for any buffer), every string fit
    for the wire: for one that is not the bus would disconnect us. Raises ValueError, TypeError."""
    match kind.token:
        case "s" | "g":
            if "\0" in value:
                raise ValueError("a string contains NUL")
            return value  # a lone surrogate raises UnicodeEncodeError, a ValueError, further on
        case "o":
            if not _PATH.fullmatch(value):
                raise ValueError("not an object path")
            return value
        case "v":
            return Variant(value.signature, _sound(value.type, value.value))
        case "(":
            return [_sound(*pair) for pair in zip(kind.children, value, strict=True)]
        case "a":
            return _sound_array(kind.children[0], value)
        case _:
            return value


def _sound_array(kind: Any, value: Any) -> Any:
    match kind.token:
        case "{":
            keys, values = kind.children
            return {_sound(keys, key): _sound(values, each) for key, each in value.items()}
        case "y":
            return bytes(memoryview(value))
        case _ if isinstance(value, list | tuple):
            return [_sound(kind, each) for each in value]
        case _:
            raise TypeError("an array is a list or a tuple")


def encode(  # noqa: PLR0913 (a message has this many parts)
    kind: Kind,
    serial: int,
    signature: str,
    body: Body,
    *,
    fds: int = 0,
    flags: Flag = Flag.NONE,
    **header: str | int | None,
) -> bytes:
    """A message as bytes, with the header fields that are given by their names in snake_case.

    Raises ValueError if the bus would not take it (it would disconnect us).
    """
    for name, pattern in _NAMES.items():
        if (value := header.get(name)) is not None and not pattern.fullmatch(str(value)):
            raise ValueError(f"invalid {name}")
    if fds > MAX_OUTGOING_FDS:
        raise ValueError("too many descriptors")
    try:
        tree = _signatures(signature)
        values = [_sound(*pair) for pair in zip(tree.types, body, strict=True)]
        message = _message(
            message_type=MessageType(kind),
            flags=MessageFlag(flags),
            serial=serial,
            signature=signature,
            body=values,
            unix_fds=[0] * fds,  # only their number is put into bytes
            **header,
        )
        data = bytes(message._marshall(negotiate_unix_fd=True))  # noqa: SLF001 (pinned)
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError("the body does not fit its signature") from error
    if len(data) > MAX_OUTGOING:
        raise ValueError("too long a message")
    return data


def decode(raw: bytes) -> Body:
    """The body of a whole message. Raises ValueError."""
    cache = getattr(_signatures, "_cache", {})
    if len(cache) > _MAX_CACHED_SIGNATURES:
        cache.clear()  # senders choose signatures: each new one would be kept for ever
    try:
        message = _unmarshaller(io.BytesIO(raw)).unmarshall()
        return tuple(message.body)
    except Exception as error:
        raise ValueError("malformed message") from error


def is_bus_name(text: str) -> bool:
    """Whether a message can be sent there."""
    return _BUS_NAME.fullmatch(text) is not None


def printable(text: str) -> str:
    """An error's text, fit for the wire whatever was put into it."""
    clean = text[:_MAX_ERROR_TEXT].replace("\0", "\ufffd")
    return clean.encode("utf-8", "replace").decode()
