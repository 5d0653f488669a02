"""Signatures of a PIV card: GENERAL AUTHENTICATE (SP 800-73-4 part 2 clause 3.2.4)."""

from __future__ import annotations

from dataclasses import dataclass

from cardsession.cards.profile import Key, Request
from cardsession.core import signing, tlv
from cardsession.core.apdu import SW, Command
from cardsession.core.dialogue import Dialogue, transmit
from cardsession.core.errors import Failure, Malformed, Problem

KEYS = {
    key.slot: key
    for key in (
        Key("authentication", 0x9A, key_type="", key_bits=0),
        Key("signature", 0x9C, key_type="", key_bits=0, pin_always=True),
        Key("card-authentication", 0x9E, key_type="", key_bits=0, pin=""),
    )
}
"""Part 1 table 4b. 9D is missing: a key management key decrypts or agrees, and signs nothing.
Of which kind they are only their certificates tell."""
_KEEPS_KEYS = "encryption"

_ALGORITHMS = {
    ("rsa", 1024): 0x06,  # no longer issued, but cards that were prove their possession
    ("rsa", 2048): 0x07,
    ("rsa", 3072): 0x05,
    ("ec", 256): 0x11,
    ("ec", 384): 0x14,
}
"""SP 800-78-4 table 6-2: P1, by the kind of key and its bits."""

_TEMPLATE, _CHALLENGE, _ANSWER = 0x7C, 0x81, 0x82
_SEQUENCE, _INTEGER = 0x30, 0x02

_NO_KEY = frozenset({0x6A82, 0x6A86, 0x6A88})
"""P1-P2 wrong, or nothing found for them: P1 is what the slot's certificate says, so that there
is no such key."""
_NOT_THUS = frozenset({0x6700, 0x6A80, 0x6A81, 0x6884})
"""The card does not take this challenge: its length, its form, or that it is chained."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a key is given to sign, and how its answer is to look."""

    reference: int
    algorithm: int
    block: bytes
    size: int
    """Bytes of the modulus, or of a coordinate."""
    rsa: bool


def challenge(request: Request) -> Challenge:
    """The same request in the card's terms. Failure: `NoSuchSlot`, `UnsupportedAlgorithm`, or
    `InvalidArgs` for a digest that is not the algorithm's; no word was said to the card then."""
    kind, digest = request.algorithm.key_type, request.digest
    if request.slot == _KEEPS_KEYS:
        raise Failure(Problem.UNSUPPORTED_ALGORITHM, "a key management key does not sign")
    if request.slot not in KEYS:
        raise Failure(Problem.NO_SUCH_SLOT, "a PIV card has no such slot")
    if (kind, request.key_bits) not in _ALGORITHMS:
        raise Failure(Problem.UNSUPPORTED_ALGORITHM, "the key is not made for this algorithm")
    if len(digest) != request.algorithm.digest_size:
        raise Failure(Problem.INVALID_ARGS, "the digest has not the algorithm's length")
    size = request.key_bits // 8
    return Challenge(
        KEYS[request.slot].reference,
        _ALGORITHMS[kind, request.key_bits],
        signing.padded(digest, size) if kind == "rsa" else _number(digest, size),
        size,
        kind == "rsa",
    )


def signed(asked: Challenge) -> Dialogue[bytes]:
    """One GENERAL AUTHENTICATE; the signature as the card made it, its form checked.

    Failure: `NotVerified`, `NoSuchSlot`, `UnsupportedAlgorithm`, `NotSupported`.
    """
    template = tlv.encode(_ANSWER, b"") + tlv.encode(_CHALLENGE, asked.block)
    data = tlv.encode(_TEMPLATE, template)
    reply = yield from transmit(Command(0x00, 0x87, asked.algorithm, asked.reference, data, ne=256))
    if not reply.sw.ok:
        raise _refusal(reply.sw)
    signature = _only(_only(reply.data, _TEMPLATE), _ANSWER)
    _check(signature, asked)
    return signature


def _number(digest: bytes, size: int) -> bytes:
    """The digest as wide as the curve's order: its leftmost bits where it is longer (FIPS 186-4
    clause 6.4), and the same number where it is shorter."""
    return digest[:size].rjust(size, b"\x00")


def _refusal(sw: SW) -> Failure:
    if sw == 0x6982:  # noqa: PLR2004 - security status not satisfied
        return Failure(Problem.NOT_VERIFIED, "the key wants the passcode first")
    if sw in _NO_KEY:
        return Failure(Problem.NO_SUCH_SLOT, "the card has no such key in this slot")
    if sw in _NOT_THUS:
        return Failure(Problem.UNSUPPORTED_ALGORITHM, "the card does not sign in this way")
    return Failure(Problem.NOT_SUPPORTED, f"the card did not sign: {sw}")


def _only(data: bytes, tag: int) -> bytes:
    """The value of `data`, which is this one object and not a byte more."""
    value = tlv.need(data, tag)
    head = data[: len(data) - len(value)]  # and what follows the value, if anything does
    if not _is_head(head, tag, len(value)):
        raise Malformed(f"object {tag:X} does not stand alone")
    return value


def _is_head(head: bytes, tag: int, length: int) -> bool:
    """Whether these are this tag and length; a length may have leading zeros."""
    if head[:1] != bytes([tag]):
        return False
    field = head[1:]
    if len(field) == 1:
        return field[0] == length
    return field[0] == 0x80 | (len(field) - 1) and int.from_bytes(field[1:], "big") == length


def _check(signature: bytes, asked: Challenge) -> None:
    """Malformed unless it is as long as the modulus, or DER of two positive numbers."""
    if asked.rsa:
        if len(signature) != asked.size:
            raise Malformed(f"an RSA signature of {len(signature)} bytes")
        return
    numbers = [value for _, value in tlv.items(_only(signature, _SEQUENCE))]
    der = tlv.encode(_SEQUENCE, b"".join(tlv.encode(_INTEGER, each) for each in numbers))
    if len(numbers) != 2 or der != signature:  # noqa: PLR2004 - r and s
        raise Malformed("an ECDSA signature that is not DER of two numbers")
    if not all(_is_positive(each, asked.size) for each in numbers):
        raise Malformed("an ECDSA signature with a number that is none")


def _is_positive(number: bytes, size: int) -> bool:
    """An INTEGER above zero, in its shortest form, no wider than the curve."""
    value = int.from_bytes(number, "big")
    shortest = value.bit_length() // 8 + 1
    return bool(value) and len(number) == shortest and value.bit_length() <= 8 * size
