"""A PKCS#15 card of the tests' own: a file system, PINs and keys, its commands kept simple."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa, utils

from fakes.cards import CANARY
from fakes.pkcs15_files import AID, APP, private_key, standard_files, tlv


@dataclass
class CardPin:
    value: bytes
    left: int = 3
    limit: int = 3
    verified: bool = False


@dataclass
class CardKey:
    private: Any
    pin: int = 1
    always: bool = False
    form: str = "info"
    """What it signs: `info`, `raw`, or `digest`."""
    algorithm: int | None = None
    """What tag 80 must say."""
    file: bytes = b""
    """What tag 81 must say."""
    plain: bool = True
    """ECDSA: r and s one after the other, or DER."""


@dataclass
class FakeCard:
    """A file system with PINs and keys (see `fakes.channel.Chip`)."""

    files: Mapping[str, bytes | list[bytes]]
    pins: dict[int, CardPin] = field(default_factory=dict)
    keys: dict[int, CardKey] = field(default_factory=dict)
    names: Mapping[bytes, str] = field(default_factory=lambda: {AID: APP})
    control: frozenset[int] = frozenset({0x00, 0x0C})
    by_path: bool = True
    by_steps: bool = True
    tells_size: bool = True
    needs_pin_first: bool = False
    """MSE only after VERIFY."""
    asking: str = "free"
    """VERIFY without data: `free`, `costs`, `silent` (63CX even when verified)."""
    past_end: str = "6B00"
    here: str = "3F00"
    file: str = ""
    environment: dict[int, bytes] = field(default_factory=dict)
    spent: int = 0
    log: list[str] = field(default_factory=list)
    _chain: bytes = b""
    _waiting: bytes = b""

    def reset(self) -> None:
        self.here, self.file, self.environment = "3F00", "", {}
        for pin in self.pins.values():
            pin.verified = False
        self.log.append("reset")

    def process(self, raw: bytes) -> bytes:
        cla, ins, p1, p2 = raw[:4]
        data, ne = _body(raw[4:])
        if cla & 0x10:
            self._chain += data
            return b"\x90\x00"
        data, self._chain = self._chain + data, b""
        self.log.append(f"{ins:02X}")
        if ins == 0xC0:
            return self._answer(self._waiting, ne)
        handler = {
            0xA4: self._select, 0xB0: self._binary, 0xB2: self._record, 0x20: self._verify,
            0x24: self._change, 0x2C: self._unblock, 0x22: self._mse, 0x2A: self._pso,
        }.get(ins)  # fmt: skip
        if handler is None:
            return b"\x6d\x00"
        answer = handler(p1, p2, data, ne)
        if isinstance(answer, str):
            return bytes.fromhex(answer)
        return self._answer(answer, ne)

    def _answer(self, answer: bytes, ne: int | None) -> bytes:
        size = ne or 0
        self._waiting = answer[size:]
        if self._waiting:
            return answer[:size] + bytes([0x61, min(len(self._waiting), 256) & 0xFF])
        return answer + b"\x90\x00"

    def _known(self, where: str) -> bool:
        return where == "3F00" or any(name.startswith(where) for name in self.files)

    def _select(self, p1: int, p2: int, data: bytes, ne: int | None) -> bytes | str:
        del ne
        if p2 not in self.control or (p1 == 8 and not self.by_path):
            return "6A86"
        if p1 == 0 and not self.by_steps and data != b"\x3f\x00":
            return "6A82"
        given = data.hex().upper()
        if p1 == 4:
            found = next((where for aid, where in self.names.items() if aid.startswith(data)), "")
        elif p1 == 8:
            found = "3F00" + given
        elif p1 == 9:
            found = self.here + given
        else:
            found = given if given == "3F00" else self.here + given
        if not found or not self._known(found):
            return "6A82"
        is_file = found in self.files
        self.here = found[:-4] if is_file else found
        self.file = found if is_file else ""
        if p2 == 0x0C:
            return b""
        content = self.files.get(found, b"")
        records = isinstance(content, list)
        inside = tlv(0x82, b"\x38" if not is_file else b"\x02" if records else b"\x01")
        if is_file and not records and self.tells_size:
            inside += tlv(0x80, len(content).to_bytes(2, "big"))
        return tlv(0x6F, inside)

    def _binary(self, p1: int, p2: int, data: bytes, ne: int | None) -> bytes | str:
        del data
        content = self.files.get(self.file)
        if content is None:
            return "6986"
        if isinstance(content, list):
            return "6981"
        offset = p1 << 8 | p2
        if offset >= len(content):
            return self.past_end
        return content[offset : offset + (ne or 0)]

    def _record(self, p1: int, p2: int, data: bytes, ne: int | None) -> bytes | str:
        del p2, data, ne
        content = self.files.get(self.file)
        if not isinstance(content, list):
            return "6981"
        return content[p1 - 1] if 0 < p1 <= len(content) else "6A83"

    def _verify(self, p1: int, p2: int, data: bytes, ne: int | None) -> bytes | str:
        del p1, ne
        pin = self.pins.get(p2)
        if pin is None:
            return "6A88"
        if not data:
            if self.asking == "costs":
                self._wrong(pin)
                return "6300"
            if pin.verified and self.asking == "free":
                return "9000"
            return f"63C{pin.left:X}" if pin.left else "6983"
        return self._judge(pin, data)

    def _judge(self, pin: CardPin, data: bytes) -> str:
        if not pin.left:
            return "6983"
        pin.verified = data == pin.value
        if not pin.verified:
            self._wrong(pin)
            return f"63C{pin.left:X}"
        pin.left = pin.limit
        return "9000"

    def _wrong(self, pin: CardPin) -> None:
        pin.left, pin.verified = max(pin.left - 1, 0), False
        self.spent += 1

    def _change(self, p1: int, p2: int, data: bytes, ne: int | None) -> bytes | str:
        del p1, ne
        pin = self.pins.get(p2)
        if pin is None:
            return "6A88"
        size = len(pin.value)
        answer = self._judge(pin, data[:size])
        if answer == "9000":
            pin.value = data[size:]
        return answer

    def _unblock(self, p1: int, p2: int, data: bytes, ne: int | None) -> bytes | str:
        del p1, ne
        puk, pin = self.pins.get(2), self.pins.get(p2)
        if puk is None or pin is None:
            return "6A88"
        size = len(puk.value)
        answer = self._judge(puk, data[:size])
        if answer == "9000":
            pin.value, pin.left = data[size:], pin.limit
        return answer

    def _mse(self, p1: int, p2: int, data: bytes, ne: int | None) -> bytes | str:
        del ne
        if (p1, p2) != (0x41, 0xB6):
            return "6A86"
        self.environment = _objects(data)
        if self.needs_pin_first and not any(pin.verified for pin in self.pins.values()):
            return "6982"
        key = self._key()
        if key is None:
            return "6A88"
        algorithm = self.environment.get(0x80)
        if key.algorithm is not None and algorithm != bytes([key.algorithm]):
            return "6A80"
        if self.environment.get(0x81, b"") != key.file and key.file:
            return "6A80"
        if 0x81 in self.environment and not key.file:
            return "6A80"
        return b""

    def _key(self) -> CardKey | None:
        reference = self.environment.get(0x84, b"")
        return self.keys.get(reference[0]) if reference else self.keys.get(-1)

    def _pso(self, p1: int, p2: int, data: bytes, ne: int | None) -> bytes | str:
        del ne
        key = self._key()
        if (p1, p2) != (0x9E, 0x9A) or key is None:
            return "6985"
        pin = self.pins.get(key.pin)
        if pin and not pin.verified:
            return "6982"
        if pin and key.always:
            between = self.log[len(self.log) - 1 - self.log[::-1].index("20") + 1 :]
            if between != ["2A"]:
                return "6982"
            pin.verified = False
        return signature_of(key, data)


def _body(rest: bytes) -> tuple[bytes, int | None]:
    if not rest:
        return b"", None
    if len(rest) == 1:
        return b"", rest[0] or 256
    if rest[0] == 0 and len(rest) == 3:
        return b"", int.from_bytes(rest[1:], "big") or 65536
    if rest[0] == 0:
        size = int.from_bytes(rest[1:3], "big")
        tail = rest[3 + size :]
        return rest[3 : 3 + size], (int.from_bytes(tail, "big") or 65536) if tail else None
    tail = rest[1 + rest[0] :]
    return rest[1 : 1 + rest[0]], (tail[0] or 256) if tail else None


def _objects(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 1 < len(data):
        found[data[at]] = data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
    return found


def signature_of(key: CardKey, data: bytes) -> bytes | str:
    if isinstance(key.private, rsa.RSAPrivateKey):
        numbers = key.private.private_numbers()
        size = (key.private.key_size + 7) // 8
        block = data
        if key.form == "info":
            block = b"\x00\x01" + b"\xff" * (size - len(data) - 3) + b"\x00" + data
        if len(block) != size:
            return "6700"
        plain = pow(int.from_bytes(block, "big"), numbers.d, numbers.public_numbers.n)
        return plain.to_bytes(size, "big")
    hashed = {32: hashes.SHA256(), 48: hashes.SHA384()}[len(data)]
    der = key.private.sign(data, ec.ECDSA(utils.Prehashed(hashed)))
    if not key.plain:
        return der
    size = (key.private.key_size + 7) // 8
    return b"".join(part.to_bytes(size, "big") for part in utils.decode_dss_signature(der))


def standard_card(kind: str = "rsa2048", **options: Any) -> FakeCard:
    """The standard files, the canary passcode, its key."""
    files = {**standard_files(kind), **options.pop("files", {})}
    pins = options.pop("pins", {1: CardPin(CANARY.encode())})
    form = "info" if kind.startswith("rsa") else "digest"
    keys = options.pop("keys", {1: CardKey(private_key(kind), form=form)})
    return FakeCard(files, pins, keys, **options)
