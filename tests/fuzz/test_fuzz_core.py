"""The core's parsers: whatever comes in, its own errors come out, in bounded time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import suppress

from hypothesis import strategies as st

from cardsession.core import context, signing, tlv
from cardsession.core.apdu import RESPONSE_LIMIT, RESPONSE_PARTS, SHORT_LC, SW, Command, exchange
from cardsession.core.dialogue import run
from cardsession.core.errors import Failure, Malformed
from cardsession.core.filter import CLASSES, NEVER, check, parse
from cardsession.core.secret import Coding, Secret
from cardsession.core.text import LIMIT, clean
from cardsession.core.tries import (
    Act,
    Blocked,
    Consent,
    Known,
    NoSuchPin,
    NotSet,
    Outcome,
    Unknown,
    Verified,
    judge,
    may_spend,
    read_back,
    read_query,
)
from fakes.cards import CANARY
from fuzz.cases import fuzz, quiet, silent
from fuzz.mutations import SOME, TREES, Edit, changed, mutants, noise

BYTES = st.integers(0, 255)


@fuzz(700, TREES, SOME | st.just([]), st.booleans())
def test_objects(tree: bytes, edits: list[Edit], cut: bool) -> None:
    data = changed(tree, edits)
    with suppress(Malformed):
        found = list(itertools.islice(tlv.items(data, cut=cut), len(data) + 1))
        assert len(found) <= len(data)
        assert sum(len(value) for _, value in found) <= len(data)
        for tag, value in found:
            assert tlv.find(tlv.encode(tag, value), tag) == value
    with suppress(Malformed):
        tlv.need(data, 0x30)


COMMANDS = st.builds(
    Command,
    cla=st.sampled_from([0x00, 0x10, 0x80]),
    ins=BYTES,
    p1=BYTES,
    p2=BYTES,
    data=st.binary(max_size=700),
    ne=st.none() | st.sampled_from([0, 1, 255, 256, 257, 65_536]),
    effect=st.booleans(),
    enough=st.sampled_from([0, 0, 1, 300]),
    extended=st.booleans(),
)
WORDS = st.sampled_from(
    [bytes.fromhex(each) for each in
     ["9000", "6100", "61FF", "6101", "6C00", "6C01", "6CFF", "63C0", "6982", "6F00", "0000"]]
)  # fmt: skip
ANSWERS = st.binary(max_size=3) | st.builds(bytes.__add__, st.binary(max_size=256), WORDS)


@fuzz(
    900, COMMANDS, st.lists(ANSWERS, max_size=6), ANSWERS, st.booleans(), st.booleans(),
)  # fmt: skip
def test_exchange(
    command: Command, answers: list[bytes], rest: bytes, t0: bool, extended: bool
) -> None:
    """`rest` is answered for ever."""
    sent: list[bytearray] = []
    kept: list[bytes] = []
    left = iter(answers)

    def wire(apdu: bytearray) -> bytes:
        sent.append(apdu)
        kept.append(bytes(apdu))
        return next(left, rest)

    with suppress(Malformed):
        response = run(exchange(command, t0=t0, extended=extended), wire)
        assert len(response.data) <= RESPONSE_LIMIT + 65_536
    parts = (len(command.data) - 1) // SHORT_LC + 1 if command.data else 1
    assert len(sent) <= parts + RESPONSE_PARTS + 3
    assert all(not each for each in sent), "wiped"
    if command.effect:
        assert len(sent) <= parts
        assert len(set(kept)) == len(kept) or command.data, "the same again"
    silent(command.header + repr(command).replace(str(command.data), ""))


APDUS = mutants(
    bytes.fromhex("00A4040009A00000030800001000"),
    bytes.fromhex("0087110482028101"),
    bytes.fromhex("00B2010C00"),
    bytes.fromhex("002A9E9A0000201122334455667788990011223344556677889900112233445566778899000000"),
    bytes.fromhex("00C0000000"),
    bytes.fromhex("0020008008") + CANARY.encode(),
    bytes.fromhex("00CB3FFF00000A") + bytes(10) + b"\0\0",
)


@fuzz(900, APDUS | noise(40), st.sets(BYTES, max_size=4), st.booleans(), st.booleans())
def test_transmit(raw: bytes, extra: set[int], t0: bool, added: bool) -> None:
    """`added`: the site lets this very instruction through."""
    extra |= set(raw[1:2]) if added else set()
    try:
        apdu = check(raw, extra)
        wire = apdu.wire(t0=t0)
    except Failure as failure:
        quiet(failure)
        return
    assert apdu.cla in CLASSES
    assert apdu.ins not in NEVER
    assert bytes(raw).startswith(wire)
    assert t0 or wire == raw
    assert parse(wire).nc == apdu.nc
    silent(apdu.header + repr(apdu))


STATUS = st.sampled_from(
    [Known(1), Known(2), Known(15), Verified(), Blocked(), NotSet(), NoSuchPin(), Unknown()]
)
STATUS_WORDS = st.integers(0, 0xFFFF) | st.integers(0x6300, 0x63FF) | st.integers(0x6980, 0x6988)


@fuzz(
    900, STATUS_WORDS, STATUS, STATUS, st.sampled_from(Act), st.booleans(),
    st.builds(Consent, st.booleans(), st.booleans()), st.none() | st.integers(0, 15),
)  # fmt: skip
def test_tries(  # noqa: PLR0913, PLR0917
    word: int, before: object, now: object, act: Act, uncounted: bool, consent: Consent,
    lowest: int | None,
) -> None:  # fmt: skip
    sw = SW(word)
    told = read_query(sw)
    assert not isinstance(told, Known) or told.left == word & 0xF
    judged = judge(sw, before, act, format_uncounted=uncounted)  # type: ignore[arg-type]
    assert (judged.outcome is Outcome(act.value)) == (word == 0x9000)
    again = read_back(judged, act, before, now)  # type: ignore[arg-type]
    assert again.sent and again.status == now
    if isinstance(before, NoSuchPin):
        return
    refused = may_spend(before, consent, lowest)  # type: ignore[arg-type]
    unknown = isinstance(before, Unknown | Verified)
    few = before == Known(1) or (unknown and lowest is not None and lowest < 2)
    assert refused is None or not refused.sent
    if few and not consent.spend_last_try:
        assert refused is not None
    if unknown and lowest is None and not consent.accept_unknown:
        assert refused is not None


@fuzz(
    500, st.sampled_from([CANARY, "73 94", "7319468273194", "abc", "x" * 64]), st.integers(0, 70),
    st.none() | BYTES, st.sampled_from(Coding),
)  # fmt: skip
def test_secret(text: str, length: int, pad: int | None, coding: Coding) -> None:
    held = Secret(bytearray(text.encode()))
    try:
        formed = held.formed(length, pad, coding)
    except ValueError as error:
        assert not held.fits(length, coding)
        quiet(error)
    else:
        assert len(formed) <= max(length, 1)
        assert pad is None or len(formed) in {length, 8}
    silent(repr(held) + f"{held}")
    held.wipe()
    assert held.wiped and not held.fits(length, coding)


KEYS = st.sampled_from(sorted(context.FORMATS)) | st.text(max_size=20)
FACTS = st.sampled_from(
    ["FA123", "R8003", "S0030:G0100:R8003", "123456789012", "FA123\n", CANARY, ""]
)


@fuzz(500, st.dictionaries(KEYS, FACTS | st.text(max_size=200), max_size=4))
def test_context(facts: Mapping[str, str]) -> None:
    try:
        kept = context.context(facts)
    except Failure as failure:
        quiet(failure)
        return
    assert kept == facts and kept is not facts
    assert all(value.isascii() and value.isprintable() for value in kept.values())


@fuzz(500, st.text(max_size=300) | noise() | mutants("Ünï\u202ecode\0\x1b[31m".encode()))
def test_text(raw: str | bytes) -> None:
    kept = clean(raw)
    assert len(kept) <= LIMIT
    assert clean(kept) == kept
    assert not {"\0", "\n", "\x1b", "\u202e"} & set(kept)
    kept.encode()


@fuzz(300, st.binary(max_size=80), st.text(max_size=20) | st.sampled_from(signing.Algorithm),
      st.integers(0, 600), st.sampled_from(["rsa", "ec", "", "dsa"]))  # fmt: skip
def test_signing(digest: bytes, name: str, size: int, kind: str) -> None:
    with suppress(Failure):
        chosen = signing.algorithm(name)
        exact = digest.ljust(chosen.digest_size, b"\0")[: chosen.digest_size]
        assert len(signing.padded(exact, size)) == size
    with suppress(Failure):
        signing.fitting(kind, size)
