"""What a session proves and may do, through the whole daemon: judged by openssl and by the card."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from cardsession.bus.connection import Variant
from cardsession.stack import Bus, Card, Daemon
from fakes.signatures import openssl_accepts, public_pem
from system.subscriber import Subscriber, memfd

NEW = b"86421357"
PUK = b"12345678"
WRONG = b"11112222"
DIGESTS = {"sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}

Daemons = Callable[..., Daemon]
Cards = Callable[..., Card]


async def certificate(seen: Subscriber, card: str, slot: str) -> bytes:
    """DER, as the bus hands it out."""
    (der,) = await seen.call(card, "Card", "GetCertificate", "s", (slot,))
    return bytes(der)


async def active(seen: Subscriber, card: Card, canary: str, **options: Variant) -> tuple[str, str]:
    """Card and session, verified."""
    card.insert()
    path, _ = await seen.card_in_state("ready")
    session = await seen.open_session(path, **options)
    assert (await seen.verify(session, canary.encode()))[0] == "verified"
    return path, session


HASHES = {
    "rsa2048": ["sha256", "sha384", "sha512"],
    "rsa3072": ["sha256"],
    "p256": ["sha256"],
    "p384": ["sha384"],
}


@pytest.mark.parametrize("key", HASHES)
async def test_signatures_are_what_openssl_verifies(
    seen: Subscriber, cards: Cards, canary: str, tmp_path: Path, key: str
) -> None:
    card = cards(options=["--algorithm", key])
    path, session = await active(seen, card, canary)
    assert seen.all("Session")[session]["PossessionProved"] is True
    assert seen.all("Session")[session]["HolderVerified"] is False
    pem = public_pem(await certificate(seen, path, "authentication"))
    kind = "rsa" if key.startswith("rsa") else "ecdsa"
    for name in HASHES[key]:
        digest = DIGESTS[name](b"a prescription").digest()
        algorithm = f"rsa-pkcs1-{name}" if kind == "rsa" else f"ecdsa-{name}"
        body = ("authentication", algorithm, digest, {})
        (signature,) = await seen.call(session, "Session", "Sign", "ssaya{sv}", body)
        assert openssl_accepts(tmp_path, pem, kind, name, digest, bytes(signature))


async def test_sign_with_pin_is_one_try_and_one_signature(
    seen: Subscriber, card: Card, canary: str, tmp_path: Path
) -> None:
    path, session = await active(seen, card, canary)
    await seen.until(
        "all certificates are read",
        lambda: card.status()["exchanges"] > 0 and _has(seen, path),
    )
    listed = {row[0] for row in (await seen.call(path, "Card", "ListCertificates"))[0]}
    assert "signature" in listed
    digest = hashlib.sha256(b"a prescription").digest()
    plain = ("signature", "ecdsa-sha256", digest, {})
    assert await seen.refused(session, "Session", "Sign", "ssaya{sv}", plain) == "NotVerified"
    body = ("signature", "ecdsa-sha256", digest, 0, {})
    call = (session, "Session", "SignWithPin", "ssayha{sv}", body)
    outcome, left, signature = await seen.call(*call, (memfd(canary.encode()),))
    assert (outcome, left) == ("verified", -1)
    pem = public_pem(await certificate(seen, path, "signature"))
    assert openssl_accepts(tmp_path, pem, "ecdsa", "sha256", digest, bytes(signature))
    outcome, left, signature = await seen.call(*call, (memfd(WRONG),))
    assert (outcome, left, bytes(signature)) == ("incorrect", 2, b"")
    assert card.status()["wrong"] == 1
    assert seen.all("Session")[session]["State"] == "unverified"


def _has(seen: Subscriber, path: str) -> bool:
    return path in seen.all("Card")


async def test_a_passcode_is_changed_and_a_bad_new_one_is_not(
    seen: Subscriber, card: Card, canary: str
) -> None:
    card.insert()
    path, facts = await seen.card_in_state("ready")
    session = await seen.open_session(path)

    async def change(old: bytes, new: bytes) -> tuple[str, int]:
        body = ("user", 0, 1, {})
        fds = (memfd(old), memfd(new))
        outcome, left = await seen.call(session, "Session", "ChangePin", "shha{sv}", body, fds)
        return outcome, left

    assert await change(canary.encode(), b"1234") == ("bad-new-pin", -1)
    assert await change(WRONG, NEW) == ("incorrect", 2)
    assert (await change(canary.encode(), NEW))[0] == "changed"
    await seen.until("the change is shown", lambda: facts["PinChangedUSec"] > 0)
    assert facts["PinTries"]["user"] == 3
    assert (await seen.verify(session, NEW))[0] == "verified"


async def test_unblocking_where_the_site_enables_it(
    daemons: Daemons, cards: Cards, bus: Bus, canary: str
) -> None:
    daemons(configuration='[pin]\nunblock = ["piv"]\n')
    async with await Subscriber.open(bus.address) as seen:
        card = cards(options=["--tries", "1"])
        card.insert()
        path, facts = await seen.card_in_state("ready")
        session = await seen.open_session(path)
        assert await seen.verify(session, WRONG, spend_last_try=True) == ("now-blocked", 0)
        await seen.until("the session ended", lambda: not seen.all("Session"))
        assert facts["PinState"]["user"] == "blocked"
        assert facts["RemedyText"]
        session = await seen.open_session(path)
        body = ("user", 0, 1, {"accept-unknown": Variant("b", True)})
        call = (session, "Session", "UnblockPin", "shha{sv}", body)
        assert await seen.call(*call, (memfd(WRONG), memfd(NEW))) == ("incorrect", 2)
        assert facts["PinTries"]["puk"] == 2
        outcome, _ = await seen.call(*call, (memfd(PUK), memfd(NEW)))
        assert outcome == "unblocked"
        assert facts["PinTries"]["user"] == 3
        assert (await seen.verify(session, NEW))[0] == "verified"


async def test_transmit_is_an_allow_list(seen: Subscriber, card: Card, canary: str) -> None:
    _, session = await active(seen, card, canary)
    discovery = bytes.fromhex("00CB3FFF035C017E00")
    data, sw = await seen.call(session, "Session", "Transmit", "aya{sv}", (discovery, {}))
    assert (bytes(data)[:1], sw) == (b"\x7e", 0x9000)
    for apdu, refused in (
        (bytes.fromhex("0020008008") + WRONG, "ApduFiltered"),
        (bytes.fromhex("002C008000"), "ApduFiltered"),
        (bytes.fromhex("80CA0000"), "ApduFiltered"),
        (b"\x00", "InvalidApdu"),
    ):
        call = (session, "Session", "Transmit", "aya{sv}", (apdu, {}))
        assert await seen.refused(*call) == refused
    assert card.status()["wrong"] == 0


async def test_context_is_published(seen: Subscriber, card: Card, canary: str) -> None:
    _, session = await active(seen, card, canary)
    await seen.call(session, "Session", "SetContext", "a{ss}", ({"ods-code": "FA123"},))
    assert seen.all("Session")[session]["Context"] == {"ods-code": "FA123"}
    bad = ({"ods-code": "not one"},)
    assert await seen.refused(session, "Session", "SetContext", "a{ss}", bad) == "InvalidContext"


@pytest.mark.parametrize("removal", ["lock", "keep"])
async def test_a_card_put_back_takes_its_session_up_again(
    daemons: Daemons, cards: Cards, bus: Bus, canary: str, removal: str
) -> None:
    daemons(configuration=f'[session]\nremoval = "{removal}"\n')
    async with await Subscriber.open(bus.address) as seen:
        card = cards()
        path, session = await active(seen, card, canary)
        card.remove()
        await seen.until("the card is gone", lambda: path not in seen.objects)
        shown = seen.all("Session")[session]
        assert (shown["Card"], shown["Reader"]) == ("/", "/")
        assert shown["State"] == ("locked" if removal == "lock" else "active")
        may = (await seen.call(
            "/org/cardsession1", "Manager", "CheckFunction", "so", ("claim", session)
        ))  # fmt: skip
        assert tuple(may) == ((False, "session-locked") if removal == "lock" else (True, ""))
        card.insert()
        again, _ = await seen.card_in_state("ready")
        await seen.until("the session has it back", lambda: shown["Card"] == again)
        assert shown["PossessionProved"] is False
        assert (await seen.verify(session, canary.encode()))[0] == "verified"
        assert shown["PossessionProved"] is True


async def test_the_trail_tells_who_did_what_and_no_secret(
    seen: Subscriber, daemon: Daemon, card: Card, canary: str
) -> None:
    _, session = await active(seen, card, canary, used_by=Variant("s", "A. Locum"))
    await seen.call(session, "Session", "Close")

    def told() -> list[dict[str, object]]:
        files = sorted(daemon.state.glob("audit-*.jsonl"))
        return [json.loads(line) for each in files for line in each.read_text().splitlines()]

    await seen.until("it is all written", lambda: told() and told()[-1]["event"] == "session.ended")
    names = [entry["event"] for entry in told()]
    assert names == ["card.read", "session.opened", "pin.judged", "session.ended"]
    assert {entry["used_by"] for entry in told()[1:]} == {"A. Locum"}
    for each in daemon.state.rglob("*"):
        assert canary.encode() not in each.read_bytes() if each.is_file() else True
        mode = stat.S_IMODE(each.stat().st_mode)
        assert mode & 0o007 == 0, f"{each.name} is for the service and its administrators only"
