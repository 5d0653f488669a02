"""The contract as data: interfaces read from xml/*.xml, names, paths and error names.

The XML is the source (comments in it are the reference); this module reads each file once into
frozen records, so that calls, properties and signals are dispatched by the very text that
Introspect serves. It knows nothing of values: which words a property may hold is the service's.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET  # our own files only, from the package
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from html import escape  # not xml.sax.saxutils: that imports an HTTP client
from importlib import resources
from types import MappingProxyType
from typing import TypeVar

BUS_NAME = "org.cardsession1"
API_LEVEL = 1
ROOT = "/org/cardsession1"
READERS = f"{ROOT}/reader"
CARDS = f"{ROOT}/card"
SESSIONS = f"{ROOT}/session"
NO_OBJECT = "/"
"""An object path property that points nowhere."""

MANAGER = "org.cardsession1.Manager"
READER = "org.cardsession1.Reader"
CARD = "org.cardsession1.Card"
SESSION = "org.cardsession1.Session"
DIAGNOSTICS = "org.cardsession1.Diagnostics"
PEER = "org.freedesktop.DBus.Peer"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"

STANDARD = (PEER, INTROSPECTABLE, PROPERTIES)
"""What every object has besides its own interface."""

_EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"
_DOCTYPE = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
    ' "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)


class ErrorName(StrEnum):
    """Every error a caller can meet: ours, a closed list, and the standard ones."""

    NOT_AUTHORIZED = "org.cardsession1.Error.NotAuthorized"
    NOT_OWNER = "org.cardsession1.Error.NotOwner"
    NO_SUCH_FUNCTION = "org.cardsession1.Error.NoSuchFunction"
    NO_CARD = "org.cardsession1.Error.NoCard"
    BUSY = "org.cardsession1.Error.Busy"
    SESSION_ENDED = "org.cardsession1.Error.SessionEnded"
    CARD_REMOVED = "org.cardsession1.Error.CardRemoved"
    CARD_RESET = "org.cardsession1.Error.CardReset"
    CARD_MUTE = "org.cardsession1.Error.CardMute"
    READER_REMOVED = "org.cardsession1.Error.ReaderRemoved"
    READER_STUCK = "org.cardsession1.Error.ReaderStuck"
    IN_USE_ELSEWHERE = "org.cardsession1.Error.InUseElsewhere"
    BACKEND_UNAVAILABLE = "org.cardsession1.Error.BackendUnavailable"
    SUSPENDED = "org.cardsession1.Error.Suspended"
    INVALID_APDU = "org.cardsession1.Error.InvalidApdu"
    APDU_FILTERED = "org.cardsession1.Error.ApduFiltered"
    NO_SUCH_PIN = "org.cardsession1.Error.NoSuchPin"
    NO_SUCH_SLOT = "org.cardsession1.Error.NoSuchSlot"
    NOT_VERIFIED = "org.cardsession1.Error.NotVerified"
    NOT_TRUSTED = "org.cardsession1.Error.NotTrusted"
    USED_BY_REQUIRED = "org.cardsession1.Error.UsedByRequired"
    UNSUPPORTED_ALGORITHM = "org.cardsession1.Error.UnsupportedAlgorithm"
    INVALID_CONTEXT = "org.cardsession1.Error.InvalidContext"
    SECRET_INVALID = "org.cardsession1.Error.SecretInvalid"  # noqa: S105 (an error's name)
    TIMEOUT = "org.cardsession1.Error.Timeout"
    NOT_SUPPORTED = "org.cardsession1.Error.NotSupported"
    INTERNAL = "org.cardsession1.Error.Internal"

    INVALID_ARGS = "org.freedesktop.DBus.Error.InvalidArgs"
    UNKNOWN_METHOD = "org.freedesktop.DBus.Error.UnknownMethod"
    UNKNOWN_OBJECT = "org.freedesktop.DBus.Error.UnknownObject"
    UNKNOWN_INTERFACE = "org.freedesktop.DBus.Error.UnknownInterface"
    UNKNOWN_PROPERTY = "org.freedesktop.DBus.Error.UnknownProperty"
    PROPERTY_READ_ONLY = "org.freedesktop.DBus.Error.PropertyReadOnly"
    LIMITS_EXCEEDED = "org.freedesktop.DBus.Error.LimitsExceeded"
    ACCESS_DENIED = "org.freedesktop.DBus.Error.AccessDenied"
    FAILED = "org.freedesktop.DBus.Error.Failed"
    NO_REPLY = "org.freedesktop.DBus.Error.NoReply"
    NAME_HAS_NO_OWNER = "org.freedesktop.DBus.Error.NameHasNoOwner"
    SERVICE_UNKNOWN = "org.freedesktop.DBus.Error.ServiceUnknown"
    INCONSISTENT_MESSAGE = "org.freedesktop.DBus.Error.InconsistentMessage"


class Emits(StrEnum):
    """How a property's change is told (EmitsChangedSignal)."""

    CONST = "const"
    TRUE = "true"
    INVALIDATES = "invalidates"
    FALSE = "false"


@dataclass(frozen=True, slots=True)
class Arg:
    """An argument of a method or signal."""

    name: str
    signature: str


@dataclass(frozen=True, slots=True)
class Method:
    """A method; `in_args` and `out_args` in wire order."""

    name: str
    in_args: tuple[Arg, ...] = ()
    out_args: tuple[Arg, ...] = ()

    @property
    def in_signature(self) -> str:
        """The signature a call must have."""
        return "".join(arg.signature for arg in self.in_args)

    @property
    def out_signature(self) -> str:
        """The signature the reply has."""
        return "".join(arg.signature for arg in self.out_args)


@dataclass(frozen=True, slots=True)
class Property:
    """A property; all of ours are read-only."""

    name: str
    signature: str
    emits: Emits


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal."""

    name: str
    args: tuple[Arg, ...] = ()

    @property
    def signature(self) -> str:
        """The signature of its body."""
        return "".join(arg.signature for arg in self.args)


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface; members by name, in the order of the file."""

    name: str
    methods: Mapping[str, Method]
    properties: Mapping[str, Property]
    signals: Mapping[str, Signal]
    xml: str
    """The <interface> element without comments, as Introspect serves it."""


_Member = TypeVar("_Member", Method, Property, Signal)


@cache
def interfaces() -> Mapping[str, Interface]:
    """Every interface of the contract and the standard ones, by name."""
    found = {}
    for file in sorted(resources.files(__package__).joinpath("xml").iterdir(), key=str):
        if file.name.endswith(".xml"):
            for element in ET.fromstring(file.read_bytes()).iter("interface"):  # noqa: S314
                found[element.attrib["name"]] = _interface(element)
    return MappingProxyType(found)


def interface(name: str) -> Interface:
    """The interface of that name. Raises KeyError."""
    return interfaces()[name]


def method(interface_name: str, name: str) -> Method:
    """A method of an interface. Raises KeyError for either."""
    return interface(interface_name).methods[name]


def interfaces_with_method(name: str, among: Iterable[str]) -> tuple[str, ...]:
    """Which of these interfaces have a method of that name (a call may name no interface)."""
    return tuple(each for each in among if name in interface(each).methods)


def node_xml(names: Iterable[str], children: Iterable[str] = ()) -> str:
    """Introspection data of an object with these interfaces and these child node names.

    Raises KeyError for an interface that is not in the contract.
    """
    parts = [interface(name).xml for name in names]
    parts += [f'  <node name="{escape(child)}"/>\n' for child in sorted(children)]
    return f"{_DOCTYPE}<node>\n{''.join(parts)}</node>\n"


def escape_label(text: str) -> str:
    """Any text as one element of an object path, reversibly and never empty.

    As sd_bus_path_encode(3) does it: a byte other than [A-Za-z0-9], and a leading digit, become
    `_` and two hex digits; the empty text becomes `_`.
    """
    if not text:
        return "_"
    first, rest = text[:1], text[1:]
    return _escape(first, r"[^A-Za-z]") + _escape(rest, r"[^A-Za-z0-9]")


def unescape_label(label: str) -> str:
    """What escape_label was given. Raises ValueError for what it never makes."""
    if label == "_":
        return ""
    if not re.fullmatch(r"(?:[A-Za-z0-9]|_[0-9a-f]{2})+", label):
        raise ValueError("not an escaped label")
    plain = re.sub(r"_(..)", lambda found: chr(int(found[1], 16)), label)
    return plain.encode("latin-1").decode("utf-8", "surrogateescape")


def _escape(text: str, unsafe: str) -> str:
    as_bytes = text.encode("utf-8", "surrogateescape").decode("latin-1")
    return re.sub(unsafe, lambda found: f"_{ord(found[0]):02x}", as_bytes)


def _interface(element: ET.Element) -> Interface:
    return Interface(
        name=element.attrib["name"],
        methods=_by_name(_method(child) for child in element.iter("method")),
        properties=_by_name(_property(child) for child in element.iter("property")),
        signals=_by_name(_signal(child) for child in element.iter("signal")),
        xml=_served(element),
    )


def _by_name(members: Iterable[_Member]) -> Mapping[str, _Member]:
    return MappingProxyType({member.name: member for member in members})


def _args(element: ET.Element, direction: str) -> Iterator[Arg]:
    for child in element.iter("arg"):
        if child.get("direction", direction) == direction:
            yield Arg(child.attrib["name"], child.attrib["type"])


def _method(element: ET.Element) -> Method:
    return Method(element.attrib["name"], tuple(_args(element, "in")), tuple(_args(element, "out")))


def _property(element: ET.Element) -> Property:
    flags = {each.get("name"): each.get("value") for each in element.iter("annotation")}
    emits = Emits(flags.get(_EMITS) or Emits.TRUE)
    return Property(element.attrib["name"], element.attrib["type"], emits)


def _signal(element: ET.Element) -> Signal:
    return Signal(element.attrib["name"], tuple(_args(element, "out")))


def _served(element: ET.Element) -> str:
    """The element as text: two spaces a level, no comments (the parser dropped them)."""
    ET.indent(element, "  ", level=1)
    element.tail = "\n"
    return "  " + ET.tostring(element, encoding="unicode")
