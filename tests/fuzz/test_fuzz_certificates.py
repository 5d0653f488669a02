"""Certificates, chains and revocation lists with a byte wrong: what cannot be read is not trusted,
and nothing that was changed is trusted for more than it was."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import strategies as st

from cardsession.adapters.truststore import TrustStore
from cardsession.core import certificate, revocation, trust
from cardsession.core.facts import Revocation, Trust
from cardsession.core.signing import Algorithm
from cardsession.core.text import clean
from cardsession.core.trust_rules import Legacy, Store, TrustRules
from fakes import pki
from fakes.pki import NOW
from fakes.trust_worlds import World, old, three
from fuzz.cases import fuzz
from fuzz.mutations import SOME, TREES, Edit, changed, noise

RULES = st.sampled_from([TrustRules(), TrustRules(admitted=frozenset(Legacy))])
AUTHENTICATION = "authentication"


@cache
def worlds() -> tuple[tuple[World, x509.CertificateRevocationList], ...]:
    """A chain of three, and a card of 2016; each with a list that names its holder."""
    root = pki.root()
    sub = root.sub("SubCA02")
    points = x509.CRLDistributionPoints([pki.directory_point("CRL1")]), False
    made = three(root, sub, points), old()
    return tuple((world, _list(world)) for world in made)


def _list(world: World) -> x509.CertificateRevocationList:
    issuer = world.intermediates[0]
    key = pki.rsa_key(2048, "list")
    made = pki.Authority(key, issuer)
    return pki.Revoked(made, (world.leaf,)).make()


WHICH = st.integers(0, 1)


@fuzz(600, WHICH, SOME, RULES, noise(200) | TREES, st.booleans())
def test_a_certificate(
    which: int, edits: list[Edit], rules: TrustRules, junk: bytes, whole: bool
) -> None:
    """As a card has it; `junk` is in another slot of it."""
    world, _ = worlds()[which]
    true = pki.der(world.leaf)
    der = changed(true, edits) if whole else junk
    found = trust.read_all({AUTHENTICATION: der, "signature": junk, "ca": true})
    for each in found.values():
        assert clean(each.subject) == each.subject
    store = Store(world.anchors, world.intermediates, ())
    standing = trust.judge(found, store, rules, NOW)
    assert clean(standing.detail) == standing.detail
    assert standing.trust is not Trust.TRUSTED or _same_body(der, true)
    with suppress(ValueError):
        trust.signature_holds(der, Algorithm.RSA_SHA256, bytes(32), junk)
        trust.signature_holds(der, Algorithm.ECDSA_SHA256, bytes(32), junk)


def _same_body(der: bytes, true: bytes) -> bool:
    """What is signed was not touched: only then may it be trusted."""
    found, meant = certificate.opened(der), certificate.opened(true)
    assert found and meant
    return found.tbs_certificate_bytes == meant.tbs_certificate_bytes


@fuzz(400, WHICH, SOME, SOME | st.just([]), RULES)
def test_an_authority(
    which: int, edits: list[Edit], leaf_edits: list[Edit], rules: TrustRules
) -> None:
    """One on the card, or in the directory, that is not what it was."""
    world, revoked = worlds()[which]
    sub = pki.der(world.intermediates[0])
    damaged = changed(sub, edits)
    leaf = changed(pki.der(world.leaf), leaf_edits)
    found = trust.read_all({AUTHENTICATION: leaf, "ca": damaged})
    standing = trust.judge(found, Store(world.anchors, (), ()), rules, NOW)
    assert standing.trust is not Trust.TRUSTED or _same_body(damaged, sub)
    opened = certificate.opened(damaged)
    if opened is not None:
        store = Store((opened,), (opened,), (revoked,))
        trust.judge(found, store, rules, NOW)
        certificate.key_of(opened), certificate.name_of(opened.subject)


@fuzz(500, WHICH, SOME, RULES)
def test_a_list(which: int, edits: list[Edit], rules: TrustRules) -> None:
    """A revocation list: what cannot be read, or is not signed, proves nothing."""
    world, revoked = worlds()[which]
    raw = changed(revoked.public_bytes(Encoding.DER), edits)
    try:
        found = x509.load_der_x509_crl(raw)
        revocation.readable(found)
    except Exception:  # as the store takes it: cryptography raises a good many things
        return
    store = Store(world.anchors, world.intermediates, (found,))
    standing = trust.judge(trust.read_all({AUTHENTICATION: pki.der(world.leaf)}), store, rules, NOW)
    assert standing.revocation is not Revocation.REVOKED, "it was signed by another key"


@fuzz(300, WHICH, SOME, SOME, st.booleans(), noise(100))
def test_a_site_s_files(
    which: int, edits: list[Edit], list_edits: list[Edit], pem: bool, junk: bytes
) -> None:
    """Anchors and lists on a disk, of which some are damaged; nothing is raised, or logged as a
    fault of ours."""
    world, revoked = worlds()[which]
    with tempfile.TemporaryDirectory() as name:
        anchors, lists = Path(name, "anchors"), Path(name, "lists")
        anchors.mkdir()
        lists.mkdir()
        good = (*world.anchors, *world.intermediates)
        content = pki.pem(*good) if pem else pki.der(good[0])
        (anchors / "good.pem").write_bytes(pki.pem(*good))
        (anchors / "bad.pem").write_bytes(changed(content, edits))
        (anchors / "junk.der").write_bytes(junk)
        raw = pki.pem(revoked) if pem else pki.der(revoked)
        (lists / "list.crl").write_bytes(changed(raw, list_edits))
        store = TrustStore(anchors, lists, TrustRules(admitted=frozenset(Legacy)))
        found = trust.read_all({AUTHENTICATION: pki.der(world.leaf)})
        standing = store.judge(found, NOW * 1_000_000)
        assert standing.detail != "the certificate could not be judged"
        assert standing.trust is not Trust.REVOKED
        assert all(line.isprintable() for line in store.problems)
