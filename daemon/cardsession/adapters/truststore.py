"""The site's anchors and revocation lists, from two directories, kept as fresh as the files are.

Certificates: `*.pem`, `*.crt`, `*.cer`, `*.der` in the one, lists: `*.crl`, `*.pem` in the other;
PEM, any number to a file, or DER. Of the certificates, an authority's that signed itself is an
anchor; any other authority's is an intermediate and needs a chain of its own, unless its file is
named `*.anchor.pem` (or .crt, .cer, .der), for a site that has no more than its issuing authority.
A holder's certificate is neither.

A directory that is not there is an empty one. A file that cannot be used is told in the log, once
for each version of it, and the others are used.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from base64 import b64decode
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from structlog import get_logger

from cardsession.core import trust
from cardsession.core.facts import Certificate, Standing, Trust
from cardsession.core.text import clean
from cardsession.core.trust_rules import Store, TrustRules

if TYPE_CHECKING:
    from cryptography import x509

log = get_logger(__name__)

MAX_BYTES: Final = 8 * 1024 * 1024
"""Of one file."""
MAX_FILES: Final = 500
"""Of one directory; the first by name are read."""
_CERTIFICATES: Final = (".pem", ".crt", ".cer", ".der")
_LISTS: Final = (".crl", ".pem")
_ANCHOR: Final = ".anchor"
_ASN1_SEQUENCE: Final = b"\x30"
_BLOCK: Final = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----([^-]*)-----END \1-----")
"""RFC 7468 clauses 5 and 6, without headers."""

Stamp = tuple[int, ...]
"""What changes when a file does."""


class Refused(Exception):
    """A file, or a part of it, that cannot be used; the text says what was expected."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What is in use, for a technician."""

    loaded: bool = False
    """Whether the directories were looked at; they are when the first card is judged."""
    anchors: int = 0
    intermediates: int = 0
    lists: int = 0
    oldest_next_update: int = 0
    """When the first list gets stale, or did (Unix seconds); 0 if none says."""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parts:
    """What one file holds."""

    anchors: tuple[x509.Certificate, ...] = ()
    intermediates: tuple[x509.Certificate, ...] = ()
    lists: tuple[x509.CertificateRevocationList, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Seen:
    """Both directories as they were found: the files with their stamps, and what was wrong."""

    files: Mapping[Path, Stamp] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


class TrustStore:
    """See `Judge`. Worker threads share it; the first that finds a change reads it for all."""

    def __init__(self, anchors: Path, revocation: Path, rules: TrustRules) -> None:
        """Nothing is read yet."""
        self._anchors = anchors
        self._revocation = revocation
        self._rules = rules
        self._lock = threading.Lock()
        self._seen: _Seen | None = None
        self._files: dict[Path, Parts] = {}
        self._store = Store()
        self._summary = Summary()

    @property
    def summary(self) -> Summary:
        """What was in use at the last judgement. Free: nothing is read."""
        return self._summary

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be used then: path and reason, one a line."""
        return self._summary.problems

    def judge(self, certificates: Mapping[str, Certificate], usec: int) -> Standing:
        """The holder's certificate by what the directories hold now. Never raises."""
        try:
            return trust.judge(certificates, self._current(), self._rules, usec // 1_000_000)
        except Exception:
            # Parsers of what a card and a directory hold: no card may end a reader's worker.
            log.exception("trust.judgement.failed")
            return Standing(Trust.NOT_CHECKED, "the certificate could not be judged")

    def _current(self) -> Store:
        """The store, read anew if a file or a directory changed."""
        with self._lock:
            seen = self._look()
            if seen != self._seen:
                self._read(seen)
            return self._store

    def _look(self) -> _Seen:
        """Both directories, by their entries alone."""
        files: dict[Path, Stamp] = {}
        problems: list[str] = []
        for directory, suffixes in ((self._anchors, _CERTIFICATES), (self._revocation, _LISTS)):
            try:
                found = _listed(directory, suffixes)
            except OSError as error:
                problems.append(_told(directory, f"expected a directory: {error.strerror}"))
                continue
            if len(found) > MAX_FILES:
                problems.append(_told(directory, f"expected at most {MAX_FILES} files"))
            files |= {path: _stamp(path) for path in sorted(found)[:MAX_FILES]}
        return _Seen(files, tuple(problems))

    def _read(self, seen: _Seen) -> None:
        """Read what changed, keep what did not."""
        before = self._seen or _Seen()
        for problem in seen.problems:
            if problem not in before.problems:
                log.warning("trust.directory.refused", reason=problem)
        files = {
            path: self._files[path] if before.files.get(path) == stamp else self._file(path)
            for path, stamp in seen.files.items()
        }
        store = _together(files.values())
        problems = (*seen.problems, *(each for part in files.values() for each in part.problems))
        summary = _summed(store, problems)
        self._seen, self._files, self._store, self._summary = seen, files, store, summary
        log.info(
            "trust.store.read",
            anchors=summary.anchors,
            intermediates=summary.intermediates,
            lists=summary.lists,
            refused=len(problems),
        )

    def _file(self, path: Path) -> Parts:
        """One file; what is wrong with it is logged here, and so once for each version."""
        try:
            raw = _contents(path)
            parts = _lists(raw) if path.parent == self._revocation else _certificates(path, raw)
        except OSError as error:
            parts = Parts(problems=(f"expected a readable file: {error.strerror}",))
        except Refused as reason:
            parts = Parts(problems=(str(reason),))
        for problem in parts.problems:
            log.warning("trust.file.refused", path=clean(str(path)), reason=problem)
        return Parts(
            parts.anchors,
            parts.intermediates,
            parts.lists,
            tuple(_told(path, problem) for problem in parts.problems),
        )


def _listed(directory: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of that kind; hidden ones are somebody's half-written work."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries]
    except FileNotFoundError:
        return []
    return [
        directory / name
        for name in names
        if not name.startswith(".") and name.lower().endswith(suffixes)
    ]


def _stamp(path: Path) -> Stamp:
    """Of the file itself, wherever a link leads; () for one that is not there."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _contents(path: Path) -> bytes:
    """The file, if it is one, not a pipe that never begins. OSError, Refused."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refused("expected a regular file")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise Refused(f"expected a file of at most {MAX_BYTES} bytes")
    return content


def _ders(raw: bytes, label: bytes, expected: str) -> Iterator[bytes]:
    """The DER of each object of one kind in a file. Refused: there is none."""
    found = [match[2] for match in _BLOCK.finditer(raw) if match[1] == label]
    if not found and raw[:1] == _ASN1_SEQUENCE:
        yield raw
    elif not found:
        raise Refused(f"expected {expected}, PEM or DER, found none")
    for body in found:
        try:
            yield b64decode(b"".join(body.split()), validate=True)
        except ValueError:
            yield b""


def _each(
    raw: bytes, label: bytes, expected: str, take: Callable[[bytes], None]
) -> tuple[str, ...]:
    """Take every object; what was wrong with those that were not taken."""
    problems = []
    for at, der in enumerate(_ders(raw, label, expected), 1):
        try:
            take(der)
        except Refused as reason:
            problems.append(f"number {at}: {reason}")
        except Exception:  # cryptography raises a good many things, none of them for people
            problems.append(f"number {at}: expected {expected}, this one cannot be read")
    return tuple(problems)


def _certificates(path: Path, raw: bytes) -> Parts:
    """The authorities of one file."""
    from cryptography import x509  # noqa: PLC0415 - late on purpose: see core.trust

    from cardsession.core import certificate  # noqa: PLC0415

    trusted = path.stem.lower().endswith(_ANCHOR)
    anchors: list[x509.Certificate] = []
    intermediates: list[x509.Certificate] = []

    def take(der: bytes) -> None:
        found = x509.load_der_x509_certificate(der)
        certificate.readable(found)
        if not certificate.is_authority(found):
            raise Refused("expected an authority's certificate (basicConstraints with CA:TRUE)")
        own = trusted or certificate.is_self_signed(found)
        (anchors if own else intermediates).append(found)

    problems = _each(raw, b"CERTIFICATE", "a certificate", take)
    return Parts(tuple(anchors), tuple(intermediates), problems=problems)


def _lists(raw: bytes) -> Parts:
    """The revocation lists of one file."""
    from cryptography import x509  # noqa: PLC0415 - late on purpose: see core.trust

    from cardsession.core import revocation  # noqa: PLC0415

    lists: list[x509.CertificateRevocationList] = []

    def take(der: bytes) -> None:
        found = x509.load_der_x509_crl(der)
        revocation.readable(found)
        lists.append(found)

    problems = _each(raw, b"X509 CRL", "a certificate revocation list", take)
    return Parts(lists=tuple(lists), problems=problems)


def _together(parts: Collection[Parts]) -> Store:
    """What all files hold."""
    return Store(
        anchors=tuple(each for part in parts for each in part.anchors),
        intermediates=tuple(each for part in parts for each in part.intermediates),
        lists=tuple(each for part in parts for each in part.lists),
    )


def _summed(store: Store, problems: tuple[str, ...]) -> Summary:
    """The counts."""
    ends = [each.next_update_utc for each in store.lists]
    return Summary(
        loaded=True,
        anchors=len(store.anchors),
        intermediates=len(store.intermediates),
        lists=len(store.lists),
        oldest_next_update=min((int(end.timestamp()) for end in ends if end), default=0),
        problems=problems,
    )


def _told(path: Path, reason: str) -> str:
    """A problem as one line."""
    return f"{clean(str(path))}: {reason}"
