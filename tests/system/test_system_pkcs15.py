"""PKCS#15 cards through the whole daemon; OpenSC, which reads the same card, agrees with it."""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from cardsession.stack import Bus, Card, Daemon, Pcscd
from fakes.signatures import openssl_accepts, public_pem
from system.opensc import Judge
from system.rival import Rival
from system.subscriber import Subscriber, memfd

WRONG = b"11112222"
SIGNATURE_PIN = "24681357"
DECLARED = """
[[card]]
manufacturer = "Declared Cards"
asking-is-free = true
source = "the developer's card, which answers 63CX to an empty VERIFY"
series = "9"
labels = { "Signature PIN" = "signature" }
"""

Daemons = Callable[..., Daemon]
Cards = Callable[..., Card]


@pytest.fixture
def declared(daemons: Daemons, rundir: Path) -> Daemon:
    """A daemon of a site that declares its cards, with a file that is refused beside it."""
    directory = rundir / "cards.d"
    directory.mkdir(exist_ok=True)
    (directory / "10-ours.toml").write_text(DECLARED)
    (directory / "20-wrong.toml").write_text("[[card]]\nasking-is-fre = true\n")
    return daemons(configuration=f'[card]\ndeclarations = "{directory}"\n')


def pkcs15(cards: Cards, *options: str, key: str = "rsa2048") -> Card:
    """A PKCS#15 card."""
    chosen = ["--family", "pkcs15", "--algorithm", key, *options]
    return cards(options=chosen, signature_pin=SIGNATURE_PIN)


async def test_opensc_agrees_on_holder_certificates_and_tries(
    declared: Daemon, cards: Cards, bus: Bus, rundir: Path, canary: str
) -> None:
    card = pkcs15(cards, "--manufacturer", "Declared Cards", "--signature-pin")
    async with await Subscriber.open(bus.address) as seen:
        card.insert()
        path, facts = await seen.card_in_state("ready")
        assert (facts["Profile"], facts["Series"]) == ("pkcs15", "9")
        assert facts["PinTries"] == {"user": 3, "signature": 3}
        session = await seen.open_session(path)
        assert await seen.verify(session, WRONG) == ("incorrect", 2)
        await seen.call(session, "Session", "Close")
        judge = Judge(rundir, card)
        listed = await judge("pkcs15-tool", "--list-info")
        assert re.search(rf"Serial number *: {facts['Serial']}", listed, re.IGNORECASE)
        (rows,) = await seen.call(path, "Card", "ListCertificates")
        for slot, name in (("authentication", "45"), ("signature", "46")):
            pem = await judge("pkcs15-tool", "--read-certificate", name)
            (der,) = await seen.call(path, "Card", "GetCertificate", "s", (slot,))
            assert ssl.PEM_cert_to_DER_cert(pem) == bytes(der)
            assert slot in {row[0] for row in rows}
        (judge.directory / "holder.pem").write_text(
            await judge("pkcs15-tool", "--read-certificate", "45")
        )
        subject = await judge.openssl("x509", "-in", "holder.pem", "-noout", "-subject")
        assert f"CN = {facts['HolderId']}" in subject
        asked = await judge(
            *("opensc-tool", "--send-apdu", "00A404000CA000000063504B43532D3135"),
            *("--send-apdu", "00200081"),
        )
        assert re.findall(r"SW1=0x63, SW2=0xC(\d)", asked) == [str(facts["PinTries"]["user"])]
        await judge(
            *("pkcs15-tool", "--verify-pin", "--auth-id", "01"),
            *("--pin", WRONG.decode()),
            fails=True,
        )
        session = await seen.open_session(path)
        assert facts["PinTries"]["user"] == 1, "a rival's try is seen when a session opens"
        assert await seen.verify(session, canary.encode()) == ("refused-last-try", 1)
    assert "20-wrong.toml" in declared.log()
    assert "did you mean" in declared.log()


@pytest.mark.parametrize("key", ["rsa2048", "rsa4096", "p256", "p384"])
async def test_signatures_are_what_openssl_verifies(
    seen: Subscriber, cards: Cards, canary: str, tmp_path: Path, key: str
) -> None:
    card = pkcs15(cards, "--signature-pin", key=key)
    card.insert()
    path, facts = await seen.card_in_state("ready")
    assert facts["PinTries"] == {}, "nobody says that asking is free"
    session = await seen.open_session(path)
    assert await seen.verify(session, canary.encode()) == ("refused-unknown", -1)
    assert card.status()["wrong"] == 0
    outcome, _ = await seen.verify(session, canary.encode(), accept_unknown=True)
    assert outcome == "verified"
    assert seen.all("Session")[session]["PossessionProved"] is True
    kind, name = ("rsa", "sha512") if key.startswith("rsa") else ("ecdsa", "sha256")
    name = "sha384" if key == "p384" else name
    algorithm = f"rsa-pkcs1-{name}" if kind == "rsa" else f"ecdsa-{name}"
    digest = hashlib.new(name, b"a prescription").digest()
    (der,) = await seen.call(path, "Card", "GetCertificate", "s", ("authentication",))
    body = ("authentication", algorithm, digest, {})
    (signature,) = await seen.call(session, "Session", "Sign", "ssaya{sv}", body)
    assert openssl_accepts(tmp_path, public_pem(bytes(der)), kind, name, digest, bytes(signature))


async def test_a_key_with_a_pin_of_its_own(
    declared: Daemon, cards: Cards, bus: Bus, canary: str, tmp_path: Path
) -> None:
    card = pkcs15(cards, "--manufacturer", "Declared Cards", "--signature-pin")
    async with await Subscriber.open(bus.address) as seen:
        card.insert()
        path, facts = await seen.card_in_state("ready")
        session = await seen.open_session(path)
        await seen.verify(session, canary.encode())
        digest = hashlib.sha256(b"a prescription").digest()
        body = ("signature", "rsa-pkcs1-sha256", digest, 0, {})
        call = (session, "Session", "SignWithPin", "ssayha{sv}", body)
        outcome, left, _ = await seen.call(*call, (memfd(WRONG),))
        assert (outcome, left) == ("incorrect", 2)
        outcome, _, signature = await seen.call(*call, (memfd(SIGNATURE_PIN.encode()),))
        assert outcome == "verified"
        (der,) = await seen.call(path, "Card", "GetCertificate", "s", ("signature",))
        pem = public_pem(bytes(der))
        assert openssl_accepts(tmp_path, pem, "rsa", "sha256", digest, bytes(signature))
        assert seen.all("Session")[session]["State"] == "active"
        assert facts["State"] == "ready"


async def test_a_card_whose_question_costs_a_try_is_never_asked(
    seen: Subscriber, cards: Cards, canary: str
) -> None:
    card = pkcs15(cards, "--empty-verify", "costs")
    card.insert()
    path, facts = await seen.card_in_state("ready")
    session = await seen.open_session(path)
    state, left = await seen.call(session, "Session", "QueryPin", "s", ("user",))
    assert (state, left) == ("unknown", -1)
    assert await seen.verify(session, WRONG) == ("refused-unknown", -1)
    assert card.status()["references"]["81"]["left"] == 3
    assert (await seen.verify(session, canary.encode(), accept_unknown=True))[0] == "verified"
    await seen.call(session, "Session", "Close")
    session = await seen.open_session(path)
    await seen.call(session, "Session", "Close")
    assert card.status()["references"]["81"]["left"] == 3
    assert facts["PinTriesSource"] == "none"


async def test_issued_locked_is_told_from_blocked(seen: Subscriber, cards: Cards) -> None:
    card = pkcs15(cards, "--no-pin-initialized")
    card.insert()
    path, facts = await seen.card_in_state("ready")
    assert facts["PinState"]["user"] == "not-set"
    assert "issued locked" in facts["RemedyText"]
    session = await seen.open_session(path)
    assert await seen.verify(session, WRONG, accept_unknown=True) == ("was-blocked", -1)
    assert card.status()["wrong"] == 0


async def test_the_next_program_finds_nobody_verified(
    seen: Subscriber, cards: Cards, pcscd: Pcscd, canary: str
) -> None:
    select, question = "00A404000CA000000063504B43532D3135", "00200081"
    card = pkcs15(cards)
    card.insert()
    path, _ = await seen.card_in_state("ready")
    with Rival() as rival:
        # what a rival leaves behind is gone when a session exists
        assert rival.say("shared") == "00000000"
        rival.say(f"apdu {select}")
        padded = canary.encode().ljust(8, b"\xff").hex()
        assert rival.say(f"apdu 0020008108{padded}") == "9000"
        rival.say("free")
        session = await seen.open_session(path)
        rival.say("shared")
        rival.say(f"apdu {select}")
        assert rival.say(f"apdu {question}") == "63c3"
        rival.say("free")
        # and so is what a session leaves behind
        assert (await seen.verify(session, canary.encode(), accept_unknown=True))[0] == "verified"
        assert rival.say("shared") == "8010000B"
        await seen.call(session, "Session", "Close")
        rival.say("shared")
        rival.say(f"apdu {select}")
        assert rival.say(f"apdu {question}") == "63c3"
