"""Where on a card a PKCS#15 application is: ISO/IEC 7816-15:2016 clause 7, PKCS #15 v1.1
clause 5.5.

In this order: what EF.DIR lists; the customary directory 3F00/5015; the application's names, by
the standard and by declarations, and behind such a name, again EF.DIR and 3F00/5015 (an applet
with a file system of its own). A card is one of ours only if an object directory is found there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from cardsession.core import tlv
from cardsession.core.dialogue import Dialogue
from cardsession.core.errors import Malformed

from .files import MF, Control, Files, Home
from .objects import PATH_LIMIT, Directories, Path, Reference

PKCS15 = bytes.fromhex("A000000063504B43532D3135")
"""RSA Laboratories' name of the application: its registered identifier and "PKCS-15"."""
ISO = bytes.fromhex("E828BD080F")
"""ISO/IEC 7816-15 clause 7.5.2: the standard's own identifier; the issuer's may follow."""
_NAMED = b"PKCS-15"
_DIR, _USUAL = Path(bytes.fromhex("3F002F00")), bytes.fromhex("3F005015")
_ODF, TOKEN_INFO = Path(bytes.fromhex("5031")), Path(bytes.fromhex("5032"))
_TEMPLATE, _AID, _PATH, _DISCRETIONARY = 0x61, 0x4F, 0x51, 0x73
"""Tags of an application template (ISO/IEC 7816-4 clause 12.2.2)."""
CANDIDATES_LIMIT = 4
"""Applications of one EF.DIR that are looked at."""
NAME_LIMIT = 16
"""Bytes of an application identifier."""


def find(files: Files, names: Sequence[bytes]) -> Dialogue[list[Reference]]:
    """Enter the application, the first one that there is (`files.home`); the entries of its
    object directory, none if the card has no such application. `names`: of declarations."""
    if (yield from files.select(MF)) is not None:
        odf = yield from _behind(files, b"", names)
        if odf:
            return odf
    for aid in dict.fromkeys((*names, PKCS15, ISO)):
        control = yield from files.name(aid)
        if control is None:
            continue
        home = Home(aid=aid, directories=_told(control), listed=aid)
        odf = yield from _object_directory(files, home)
        if not odf and (yield from files.select(MF)) is not None:
            odf = yield from _behind(files, aid, names)
        if odf:
            return odf
    return []


def token_path(home: Home) -> Path:
    """Where EF.TokenInfo is."""
    return home.directories.token_info or TOKEN_INFO


def _behind(files: Files, aid: bytes, names: Sequence[bytes]) -> Dialogue[list[Reference]]:
    """What EF.DIR lists, and the customary place. The master file is selected."""
    files.home = Home(aid=aid)
    content = yield from files.read(_DIR)
    homes = [home for home in _templates(content or b"") if _is_ours(home.listed, names)]
    if not any(home.path == _USUAL for home in homes):
        homes.append(Home(path=_USUAL))
    for home in homes[:CANDIDATES_LIMIT]:
        placed = replace(home, aid=aid or (b"" if home.path else home.listed))
        odf = yield from _object_directory(files, placed)
        if odf:
            return odf
    return []


def _object_directory(files: Files, home: Home) -> Dialogue[list[Reference]]:
    """EF.ODF's entries; the standard wants one for certificates, or there is nothing to read."""
    from . import asn1  # noqa: PLC0415 - it imports asn1crypto

    files.home = home
    content = yield from files.read(home.directories.odf or _ODF)
    return asn1.references(content) if content else []


def _is_ours(aid: bytes, names: Sequence[bytes]) -> bool:
    return aid.startswith(ISO) or _NAMED in aid or any(aid.startswith(name) for name in names)


def _templates(content: bytes) -> list[Home]:
    """EF.DIR's application templates, up to one that is damaged."""
    return [_home(value) for tag, value in _sound(content) if tag == _TEMPLATE]


def _home(template: bytes) -> Home:
    fields = dict(_sound(template))
    path = fields.get(_PATH, b"")
    if path and path[:2] != MF:
        path = MF + path
    if len(path) > PATH_LIMIT or len(path) % 2:
        path = b""
    discretionary = fields.get(_DISCRETIONARY, b"")
    return Home(b"", path, _directories(discretionary), fields.get(_AID, b"")[:NAME_LIMIT])


def _told(control: Control) -> Directories:
    """The same template in what SELECT told of the application."""
    for tag, value in _sound(control.raw):
        inside = dict(_sound(value)) if tag in (0x6F, _TEMPLATE) else {}
        template = dict(_sound(inside.get(_TEMPLATE, b"")))
        found = inside.get(_DISCRETIONARY) or template.get(_DISCRETIONARY)
        if found:
            return _directories(found)
    return Directories()


def _directories(template: bytes) -> Directories:
    from . import asn1  # noqa: PLC0415 - it imports asn1crypto

    try:
        return asn1.directories(template) if template else Directories()
    except Malformed:
        return Directories()


def _sound(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The objects of a card's data, up to one that is damaged."""
    try:
        yield from tlv.items(content)
    except Malformed:
        return
