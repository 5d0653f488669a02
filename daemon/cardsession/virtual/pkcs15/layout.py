"""The files of a PKCS#15 card, and the keys behind them (PKCS#15 v1.1 clause 5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cardsession.virtual.identity import Identity
from cardsession.virtual.options import ELLIPTIC, Algorithm, Slot
from cardsession.virtual.pkcs15 import structures
from cardsession.virtual.pkcs15.files import MF, Df, Ef
from cardsession.virtual.pkcs15.options import (
    CertificatePlace,
    Mechanism,
    Padding,
    Paths,
    PinType,
    Pkcs15Options,
)
from cardsession.virtual.pkcs15.passcode import Format
from cardsession.virtual.pkcs15.structures import (
    AlgorithmInfo,
    KeyEntry,
    ObjectClass,
    Path,
    PinEntry,
    PinFlag,
)

APPLICATION: Final = 0x5015
SLOTS: Final = (Slot.AUTHENTICATION, Slot.SIGNATURE)
KEY_REFERENCE: Final = {Slot.AUTHENTICATION: 0x91, Slot.SIGNATURE: 0x92}
ALG_REF: Final = {
    Mechanism.RSA_X_509: 0x01,
    Mechanism.RSA_PKCS: 0x02,
    Mechanism.ECDSA: 0x04,
    Mechanism.SHA256_RSA_PKCS: 0x42,
    Mechanism.SHA384_RSA_PKCS: 0x52,
    Mechanism.SHA512_RSA_PKCS: 0x62,
}
"""What MSE SET takes in tag 80; on purpose not the `reference` of the AlgorithmInfo."""

_EF_DIR, _ODF, _TOKEN_INFO = 0x2F00, 0x5031, 0x5032
_AODF, _PRKDF, _CDF, _TRUSTED_CDF = 0x4401, 0x4402, 0x4403, 0x4404
_CERTIFICATE: Final = {Slot.AUTHENTICATION: 0x4301, Slot.SIGNATURE: 0x4302}
_SHARED, _AUTHORITY = 0x4310, 0x43CA
_SHORT: Final = {
    _EF_DIR: 0x1E,
    _ODF: 0x11,
    _TOKEN_INFO: 0x12,
    _AODF: 0x14,
    _PRKDF: 0x15,
    _CDF: 0x16,
    _TRUSTED_CDF: 0x17,
}
_LABEL: Final = {Slot.AUTHENTICATION: "Authentication", Slot.SIGNATURE: "Signature"}
_IDENTIFIER: Final = {Slot.AUTHENTICATION: b"\x45", Slot.SIGNATURE: b"\x46"}
_AUTHORITY_IDENTIFIER: Final = b"\xca"
_USER, _SECOND, _UNBLOCKING = b"\x01", b"\x02", b"\x03"


def _path(*identifiers: int) -> bytes:
    return b"".join(each.to_bytes(2, "big") for each in identifiers)


def mechanisms(options: Pkcs15Options, algorithm: Algorithm) -> tuple[Mechanism, ...]:
    """What the keys do. ValueError if keys of that type cannot."""
    elliptic = algorithm in ELLIPTIC
    chosen = options.mechanisms or (Mechanism.ECDSA if elliptic else Mechanism.RSA_PKCS,)
    if any((each is Mechanism.ECDSA) is not elliptic for each in chosen):
        raise ValueError(f"mechanisms: a key of type {algorithm} cannot do that")
    return chosen


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything that one card's files are made from."""

    options: Pkcs15Options
    algorithm: Algorithm
    identity: Identity
    authority: bytes

    @property
    def serial(self) -> bytes:
        """TokenInfo's serialNumber."""
        return self.options.serial or self.identity.guid

    def master_file(self) -> Df:
        """The MF with everything in it."""
        master = Df(MF)
        application = Df(APPLICATION, self.options.aid)
        master.add(application)
        if self.options.ef_dir:
            master.add(self._directory())
        info = structures.token_info(
            self.serial, self.options.manufacturer, self.options.label, self._told()
        )
        application.add(Ef(_TOKEN_INFO, info, _SHORT[_TOKEN_INFO]))
        for ef in self._object_files():
            application.add(ef)
        return master

    def _directory(self) -> Ef:
        place = _path(MF, APPLICATION)
        template = structures.application_template(self.options.aid, self.options.label, place)
        return self._ef(_EF_DIR, [template], records=self.options.dir_records)

    def _object_files(self) -> Iterator[Ef]:
        certificates, files = self._certificates()
        found: dict[ObjectClass, tuple[int, list[bytes]]] = {
            ObjectClass.AUTH_OBJECTS: (_AODF, list(self._pins())),
            ObjectClass.PRIVATE_KEYS: (_PRKDF, list(self._keys())),
            ObjectClass.CERTIFICATES: (_CDF, certificates),
        }
        if self.options.trusted_certificates:
            label, place = "Authority", Path(self._place(_AUTHORITY))
            entry = structures.certificate(label, _AUTHORITY_IDENTIFIER, place, authority=True)
            found[ObjectClass.TRUSTED_CERTIFICATES] = (_TRUSTED_CDF, [entry])
            yield Ef(_AUTHORITY, self.authority)
        yield from files
        odf = []
        for kind, (file, objects) in found.items():
            if self.options.direct_objects:
                odf.append(structures.objects_entry(kind, objects))
                continue
            odf.append(structures.directory_entry(kind, self._place(file)))
            ef = self._ef(file, objects, records=self.options.object_records)
            ef.guarded = self.options.private_keys_hidden and file == _PRKDF
            yield ef
        yield self._ef(_ODF, odf, records=self.options.odf_records)

    def _ef(self, file: int, objects: Iterable[bytes], *, records: bool) -> Ef:
        if records:
            return Ef(file, b"", _SHORT[file], tuple(objects))
        slack = bytes([self.options.slack_byte]) * self.options.slack
        return Ef(file, b"".join(objects) + slack, _SHORT[file])

    def _place(self, file: int) -> bytes:
        """A file of the application, as the directory files name it (clause 6.1.1)."""
        if self.options.paths is Paths.RELATIVE:
            return _path(file)
        return _path(MF, APPLICATION, file)

    def algorithms(self) -> tuple[AlgorithmInfo, ...]:
        """What the card can do, told or not."""
        return tuple(
            AlgorithmInfo(number, mechanism, ALG_REF[mechanism])
            for number, mechanism in enumerate(mechanisms(self.options, self.algorithm), start=1)
        )

    def _told(self) -> tuple[AlgorithmInfo, ...]:
        return self.algorithms() if self.options.tell_algorithms else ()

    def _pins(self) -> Iterator[bytes]:
        chosen, form = self.options, Format.of(self.options)
        where = _path(MF, APPLICATION) if chosen.pin_path else b""
        guard = _UNBLOCKING if chosen.puk else b""
        flags = self._flags()
        user = flags - ({PinFlag.INITIALIZED} if not chosen.pin_initialized else set())
        if not chosen.pin_change:
            user |= {PinFlag.CHANGE_DISABLED}
        entries = [PinEntry(chosen.pin_label, _USER, chosen.pin_reference, user, where, guard)]
        if chosen.signature_pin:
            label, at = chosen.signature_pin_label, chosen.signature_pin_reference
            entries.append(PinEntry(label, _SECOND, at, flags, where, guard))
        if chosen.puk:
            role = {PinFlag.UNBLOCKING_PIN, PinFlag.UNBLOCK_DISABLED}
            role |= {PinFlag.SO_PIN} if chosen.so_pin else set()
            entries.append(
                PinEntry(chosen.puk_label, _UNBLOCKING, chosen.puk_reference, flags | role, where)
            )
        for entry in entries:
            yield structures.pin_object(
                entry, form, tell_maximum=chosen.tell_maximum, short=chosen.short_references
            )

    def _flags(self) -> frozenset[PinFlag]:
        """The flags that all PINs of the card share."""
        chosen = self.options
        told = {
            PinFlag.INITIALIZED: True,
            PinFlag.LOCAL: chosen.pin_local,
            PinFlag.CASE_SENSITIVE: chosen.pin_type is PinType.UTF8,
            PinFlag.NEEDS_PADDING: chosen.padding is not Padding.NONE,
            PinFlag.UNBLOCK_DISABLED: not chosen.puk,
        }
        return frozenset(flag for flag, is_set in told.items() if is_set)

    def _keys(self) -> Iterator[bytes]:
        chosen = self.options
        told = tuple(info.reference for info in self._told())
        for slot, key in self.identity.keys.items():
            commits = slot is Slot.SIGNATURE
            entry = KeyEntry(
                f"{_LABEL[slot]} key",
                _IDENTIFIER[slot],
                KEY_REFERENCE[slot],
                told,
                _SECOND if commits and chosen.signature_pin else _USER,
                _path(MF, APPLICATION),
                commits,
                commits and chosen.consent,
            )
            yield structures.private_key(
                entry, key, field_size=chosen.field_size, short=chosen.short_references
            )

    def _certificates(self) -> tuple[list[bytes], list[Ef]]:
        """The entries of the CDF, and the files that they name."""
        entries, files, shared = [], [], b""
        for slot, encoded in self.identity.certificates.items():
            place: Path | bytes
            match self.options.certificates:
                case CertificatePlace.DIRECT:
                    place = encoded
                case CertificatePlace.SHARED_FILE:
                    place = Path(self._place(_SHARED), len(shared), len(encoded))
                    shared += encoded
                case CertificatePlace.OWN_FILE:
                    place = Path(self._place(_CERTIFICATE[slot]))
                    files.append(Ef(_CERTIFICATE[slot], encoded))
            label = f"{_LABEL[slot]} certificate"
            entries.append(structures.certificate(label, _IDENTIFIER[slot], place))
        return entries, [*files, Ef(_SHARED, shared)] if shared else files
