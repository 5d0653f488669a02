"""One signature with a card's key: ISO/IEC 7816-8 (MANAGE SECURITY ENVIRONMENT, PERFORM SECURITY
OPERATION), the mechanisms by PKCS #11's names.

What the card is given depends on what it says of the key: the DigestInfo for `rsa-pkcs1`, the
padded block for `rsa-raw`, the digest for `ecdsa`. Where it says nothing of an RSA key, it is given
the DigestInfo, and if it does not take that, the padded block. A card that only hashes by itself
gets nothing: we have the digest and not the document.
"""

from __future__ import annotations

from dataclasses import dataclass

from cardsession.cards.profile import Key, Request
from cardsession.core import tlv
from cardsession.core.apdu import SHORT_LE, SW, Command, Response
from cardsession.core.dialogue import Dialogue, transmit
from cardsession.core.errors import Failure, Malformed, Problem
from cardsession.core.signing import digest_info, padded

from .files import MF, Files
from .layout import NO_REFERENCE

_ALGORITHM, _FILE, _PRIVATE_KEY = 0x80, 0x81, 0x84
"""Tags of a control reference template (ISO/IEC 7816-4 clause 10.3)."""
_NOT_NOW = frozenset({0x6982, 0x6985, 0x6983})
"""Security status not satisfied; conditions of use not satisfied; blocked."""
_NO_KEY = frozenset({0x6A88, 0x6A82, 0x6A83})
_NOT_SO = frozenset({0x6A80, 0x6A86, 0x6A81, 0x6700, 0x6981, 0x6D00, 0x6984, 0x6A87})
_ABOUT_DATA = frozenset({0x6A80, 0x6700, 0x6A87})
_RSA_MECHANISMS = ("rsa-pkcs1", "rsa-raw")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be signed, and how the card calls it."""

    key: Key
    algorithm: int
    """`NO_REFERENCE`: the card is not told."""
    data: tuple[bytes, ...]
    """What the card is given; if it does not take that, the next one."""
    size: int
    """Bytes of an RSA signature; of one of the two numbers of an ECDSA signature."""


def plan(key: Key, request: Request) -> Plan:
    """How this signature is made. Failure: `UnsupportedAlgorithm`, before a word is said."""
    if request.algorithm.key_type != key.key_type:
        raise Failure(Problem.UNSUPPORTED_ALGORITHM, f"the key is {key.key_type}")
    known = dict(key.mechanisms)
    size = (request.key_bits + 7) // 8
    for name in _RSA_MECHANISMS if key.key_type == "rsa" else ("ecdsa",):
        if name in known:
            return Plan(key, known[name], (_input(name, request, size),), size)
    if known:
        raise Failure(Problem.UNSUPPORTED_ALGORITHM, "the card wants to hash by itself")
    names = _RSA_MECHANISMS if key.key_type == "rsa" else ("ecdsa",)
    inputs = tuple(_input(name, request, size) for name in names)
    return Plan(key, NO_REFERENCE, inputs[:1] if key.pin_always else inputs, size)


def _input(mechanism: str, request: Request, size: int) -> bytes:
    if mechanism == "ecdsa":
        return request.digest
    block = padded(request.digest, size)  # refuses a key that is too short for the digest
    return block if mechanism == "rsa-raw" else digest_info(request.digest)


def prepare(files: Files, chosen: Plan) -> Dialogue[SW]:
    """Be where the key is, and MSE SET for a digital signature; the card's last word on it."""
    path = files.place(chosen.key.path) if chosen.key.path else b""
    if path and not (yield from files.go(path)) and len(path) > len(MF):
        yield from files.go(path[:-2])  # a key may be no file that one selects
    file = b"" if path in (MF, files.home.path) else path[-2:]
    sw = SW(0)
    for data in _templates(chosen, file):
        reply = yield from transmit(Command(0x00, 0x22, 0x41, 0xB6, data))
        sw = reply.sw
        if sw.ok or sw in _NOT_NOW:
            break
    return sw


def _templates(chosen: Plan, file: bytes) -> list[bytes]:
    """The control reference template. Where the key has a file of its own: with it and the key's
    reference; as the only key of its file, whatever its directory calls it (MyEID and its kin);
    and without the file for a card that does not take that."""
    head = tail = b""
    if chosen.algorithm != NO_REFERENCE:
        head = tlv.encode(_ALGORITHM, bytes([chosen.algorithm & 0xFF]))
    if chosen.key.reference != NO_REFERENCE:
        tail = tlv.encode(_PRIVATE_KEY, bytes([chosen.key.reference]))
    if not file:
        return [head + tail]
    named = head + tlv.encode(_FILE, file)
    tails = (tail, tlv.encode(_PRIVATE_KEY, b"\x00"), b"")
    return [*dict.fromkeys(named + each for each in tails), head + tail]


def sign(files: Files, chosen: Plan) -> Dialogue[bytes]:
    """PSO: COMPUTE DIGITAL SIGNATURE; an ECDSA signature as DER."""
    ne = max(SHORT_LE, chosen.size if chosen.key.key_type == "rsa" else 0)
    extended = files.manner.extended
    reply = Response(b"", SW(0))
    for data in chosen.data:
        command = Command(0x00, 0x2A, 0x9E, 0x9A, data, ne, extended=extended)
        reply = yield from transmit(command)
        if reply.sw not in _ABOUT_DATA:
            break
    refuse(reply.sw)
    return _signature(chosen, reply.data)


def refuse(sw: SW) -> None:
    """A refusal of the card as ours."""
    if sw in _NOT_NOW:
        raise Failure(Problem.NOT_VERIFIED, "the card wants the PIN for this key")
    if sw in _NO_KEY:
        raise Failure(Problem.NO_SUCH_SLOT, "the card does not find the key")
    if sw in _NOT_SO:
        raise Failure(Problem.UNSUPPORTED_ALGORITHM, f"the card does not sign so ({sw})")
    if not sw.ok:
        raise Failure(Problem.NOT_SUPPORTED, f"the card did not sign ({sw})")


def _signature(chosen: Plan, answer: bytes) -> bytes:
    from . import asn1  # noqa: PLC0415 - it imports asn1crypto

    if chosen.key.key_type == "rsa":
        if len(answer) != chosen.size:
            raise Malformed(f"an RSA signature of {len(answer)} bytes, {chosen.size} expected")
        return answer
    if len(answer) == 2 * chosen.size:  # plain, r and s one after the other (7816-8)
        halves = answer[: chosen.size], answer[chosen.size :]
        return asn1.ecdsa_signature(*(int.from_bytes(half, "big") for half in halves))
    if asn1.is_ecdsa_signature(answer):
        return answer
    raise Malformed(f"an ECDSA signature of {len(answer)} bytes")
