"""The security environment and PERFORM SECURITY OPERATION (ISO/IEC 7816-4 11.5.11, 7816-8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cardsession.virtual.apdu import SW, Command, Response
from cardsession.virtual.identity import Key
from cardsession.virtual.pkcs15.layout import ALG_REF
from cardsession.virtual.pkcs15.options import Mechanism
from cardsession.virtual.pkcs15.pins import Pins15
from cardsession.virtual.tlv import walk

_SET_FOR_COMPUTATION: Final = 0x41
_RESTORE: Final = 0xF3
_SIGNATURE_TEMPLATE: Final = 0xB6
_SIGNATURE_OF_DATA: Final = (0x9E, 0x9A)
_ALGORITHM, _FILE, _KEY = 0x80, 0x81, 0x84
_LEAST_FILLING: Final = 8
_PREFIX: Final = {
    20: bytes.fromhex("3021300906052B0E03021A05000414"),
    28: bytes.fromhex("302D300D06096086480165030402040500041C"),
    32: bytes.fromhex("3031300D060960864801650304020105000420"),
    48: bytes.fromhex("3041300D060960864801650304020205000430"),
    64: bytes.fromhex("3051300D060960864801650304020305000440"),
}
"""DigestInfo of SHA-1 and SHA-2 before the digest, by its length (PKCS#1 v2.2, 9.2 note 1)."""
_HASHED: Final = {
    Mechanism.SHA256_RSA_PKCS: 32,
    Mechanism.SHA384_RSA_PKCS: 48,
    Mechanism.SHA512_RSA_PKCS: 64,
}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key with the PIN that guards it; `consent`: once for each signature."""

    key: Key
    pin: int
    consent: bool


class Signer:
    """The current security environment, and signatures by it."""

    def __init__(
        self, keys: dict[int, SigningKey], mechanisms: tuple[Mechanism, ...], pins: Pins15
    ) -> None:
        self._keys = keys
        self._by_reference = {ALG_REF[each]: each for each in mechanisms}
        self._pins = pins
        self._chosen: tuple[SigningKey, Mechanism] | None = None

    def forget(self) -> None:
        """The environment is empty again."""
        self._chosen = None

    def manage(self, command: Command, *, here: bool) -> Response:
        """MANAGE SECURITY ENVIRONMENT: SET for signatures, RESTORE. `here`: the keys' DF."""
        if command.p1 == _RESTORE:
            self.forget()
            return Response(SW.OK)
        if (command.p1, command.p2) != (_SET_FOR_COMPUTATION, _SIGNATURE_TEMPLATE):
            return Response(SW.WRONG_P1P2)
        try:
            fields = dict(walk(command.data))
        except ValueError:
            return Response(SW.WRONG_DATA)
        if fields.keys() - {_ALGORITHM, _FILE, _KEY} or len(fields.get(_KEY, b"")) != 1:
            return Response(SW.WRONG_DATA)
        return self._set(fields[_KEY][0], fields.get(_ALGORITHM), here=here)

    def _set(self, reference: int, algorithm: bytes | None, *, here: bool) -> Response:
        """A card that does one thing only need not be told which."""
        self.forget()
        key = self._keys.get(reference) if here else None
        if key is None:
            return Response(SW.NO_REFERENCE)
        if algorithm is None:
            only = list(self._by_reference.values())
            mechanism = only[0] if len(only) == 1 else None
        else:
            mechanism = self._by_reference.get(int.from_bytes(algorithm, "big"))
        if mechanism is None:
            return Response(SW.WRONG_DATA)
        self._chosen = (key, mechanism)
        return Response(SW.OK)

    def perform(self, command: Command) -> Response:
        """COMPUTE DIGITAL SIGNATURE, 2A 9E 9A."""
        if (command.p1, command.p2) != _SIGNATURE_OF_DATA:
            return Response(SW.WRONG_P1P2)
        if self._chosen is None:
            return Response(SW.CONDITIONS)
        chosen, mechanism = self._chosen
        fresh = self._pins.spend(chosen.pin)
        if not self._pins.verified(chosen.pin) or (chosen.consent and not fresh):
            return Response(SW.SECURITY_STATUS)
        try:
            return Response(SW.OK, sign(chosen.key, mechanism, command.data))
        except ValueError:
            return Response(SW.WRONG_DATA)


def sign(key: Key, mechanism: Mechanism, data: bytes) -> bytes:
    """One signature as the card gives it; ValueError where `data` is not what it signs."""
    if mechanism is Mechanism.ECDSA:
        return key.sign_plain(data)
    if mechanism is Mechanism.RSA_X_509:
        return key.raw(data)
    if mechanism in _HASHED:
        if len(data) != _HASHED[mechanism]:
            raise ValueError("the digest has another length")
        data = _PREFIX[len(data)] + data
    if not any(len(data) == len(head) + n and data[:-n] == head for n, head in _PREFIX.items()):
        raise ValueError("a DigestInfo was expected")
    filling = key.size - 3 - len(data)
    if filling < _LEAST_FILLING:
        raise ValueError("the DigestInfo does not fit the key")
    return key.raw(b"\x00\x01" + b"\xff" * filling + b"\x00" + data)
