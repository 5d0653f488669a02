"""What a site admits of the past: SHA-1 and short keys, and nothing else with them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cardsession.core import trust
from cardsession.core.facts import Trust
from cardsession.core.trust_rules import Legacy, TrustRules
from fakes import pki
from fakes.pki import LOGON, SERVER
from fakes.trust_worlds import (
    OLD,
    PLAIN,
    World,
    below,
    ca_of,
    extension,
    names,
    old,
    on_card,
    three,
    two,
)


def admitting(*what: Legacy) -> TrustRules:
    return TrustRules(admitted=frozenset(what))


def test_the_card_of_2016_is_shown_and_not_trusted() -> None:
    world = old()
    facts = trust.read("authentication", pki.der(world.leaf))
    assert facts.subject == "CN=555012345678,OU=people,O=nhs"
    assert (facts.key_type, facts.key_bits, facts.organisation) == ("rsa", 1024, "nhs")
    assert world.standing().trust is Trust.UNTRUSTED


def test_the_card_of_2016_is_trusted_where_all_of_its_past_is_admitted(tmp_path: Path) -> None:
    world = old()
    assert world.standing(admitting(Legacy.SHA1)).trust is Trust.UNTRUSTED
    assert world.standing(admitting(Legacy.RSA_1024)).trust is Trust.UNTRUSTED
    found = world.standing(OLD)
    assert found.trust is Trust.TRUSTED
    assert found.detail.startswith("admitted: sha1, rsa-1024; ")
    assert world.openssl(tmp_path, "-auth_level", "0")


@pytest.mark.parametrize(
    ("world", "rules", "said"),
    [
        (lambda: old(2048), admitting(Legacy.SHA1), "admitted: sha1;"),
        (lambda: two(key=pki.rsa_key(1024)), admitting(Legacy.RSA_1024), "admitted: rsa-1024;"),
        (lambda: below(key=pki.rsa_key(1024)), admitting(Legacy.RSA_1024), "admitted: rsa-1024;"),
        (
            lambda: below(root=pki.root(key=pki.rsa_key(1024))),
            admitting(Legacy.RSA_1024),
            "admitted: rsa-1024;",
        ),
    ],
)
def test_what_was_admitted_is_said(
    world: Callable[[], World], rules: TrustRules, said: str
) -> None:
    found = world().standing(rules)
    assert found.trust is Trust.TRUSTED, found.detail
    assert found.detail.startswith(said)


def test_what_is_admitted_and_not_needed_is_not_said() -> None:
    assert "admitted" not in two().standing(OLD).detail


@pytest.mark.parametrize("bits", [512, 768])
def test_shorter_keys_are_never_admitted(bits: int) -> None:
    world = below()
    short = key_of_openssl(bits)
    root = pki.root()
    found = World(root.leaf(key=short), (root.certificate,)).standing(OLD)
    assert found.trust is Trust.UNTRUSTED
    assert world.standing(OLD).trust is Trust.TRUSTED


def key_of_openssl(bits: int) -> pki.Private:
    """A key that cryptography does not make any more."""
    made = subprocess.run(
        ["openssl", "genrsa", str(bits)], capture_output=True, check=True, timeout=30
    )
    return load_pem_private_key(made.stdout, None, unsafe_skip_rsa_key_validation=True)


def test_a_longer_key_may_be_wanted_of_all() -> None:
    rules = TrustRules(minimum_rsa_bits=3072)
    assert two(key=pki.rsa_key()).standing(rules).trust is Trust.UNTRUSTED
    found = below(root=pki.root(key=pki.rsa_key())).standing(rules)
    assert found.detail == "Root's RSA key has 2048 bits, 3072 are wanted"
    assert below().standing(rules).trust is Trust.TRUSTED


def test_elliptic_curves_of_the_past_are_signed_with_sha1_too() -> None:
    root = pki.root(sha1=True)
    found = World(root.leaf(), (root.certificate,)).standing(admitting(Legacy.SHA1))
    assert found.trust is Trust.TRUSTED
    assert found.detail.startswith("admitted: sha1;")


def test_a_root_that_signed_itself_with_sha1_is_an_anchor_like_any() -> None:
    root = pki.root(sha1=True)
    modern = pki.Authority(root.key, root.certificate)
    for rules in (PLAIN, OLD):
        found = World(modern.leaf(), (root.certificate,)).standing(rules)
        assert found.trust is Trust.TRUSTED
        assert "admitted" not in found.detail, "nobody asks who signed an anchor"


def changed(world: World, raw: bytes) -> World:
    """With another leaf."""
    leaf = x509.load_der_x509_certificate(raw)
    return World(leaf, world.anchors, world.intermediates)


# The minimal way of our own must not be a way round the verifier's.
LEGACY_BROKEN: dict[str, Callable[[], World]] = {
    "a changed signature": lambda: changed(
        world := old(), (raw := pki.der(world.leaf))[:-1] + bytes([raw[-1] ^ 1])
    ),
    "a changed name": lambda: changed(
        world := old(), pki.der(world.leaf).replace(b"555012345678", b"555012345679")
    ),
    "expired SubCA": lambda: old(days=(-1000, -1)),
    "SubCA of tomorrow": lambda: old(days=(1, 1000)),
    "SubCA is none": lambda: old(basic=pki.constraints(ca=False)),
    "no SubCA": lambda: World(old().leaf, old().anchors),
    "SubCA on the card only": lambda: on_card(old()),
    "SubCA for servers": lambda: old_below(pki.eku(SERVER)),
    "names, critical": lambda: old_below(names(critical=True)),
    "names, not critical": lambda: old_below(names(critical=False)),
    "a critical unknown": lambda: old_below(extension("private", critical=True)),
    "leaf with a critical unknown": lambda: old_leaf(extension("private", critical=True)),
    "path length": lambda: old_below(root_extensions=ca_of(0)),
    "root may not sign": lambda: old_below(
        root_extensions=[pki.constraints(), (pki.usage("crl_sign"), True)]
    ),
    "root without key usage": lambda: old_below(root_extensions=[pki.constraints()]),
    "six authorities": lambda: old_long(6),
    "the same key under another name": lambda: World(
        old().leaf, old().anchors, (old_sub_named("SubCA03"),)
    ),
}


def old_below(
    *extra: pki.Extension, root_extensions: Iterable[pki.Extension] | None = None
) -> World:
    """As `old`, with another SubCA or another root."""
    extensions = ca_of(None) if root_extensions is None else root_extensions
    root = pki.root(key=pki.rsa_key(2048, "root"), extensions=extensions, sha1=True)
    return three(root, root.sub("SubCA02", *extra, key=pki.rsa_key(2048, "sub"), sha1=True))


def old_sub_named(common: str) -> x509.Certificate:
    """The key of the SubCA of `old`, under another name."""
    root = pki.root("Root CA", key=pki.rsa_key(2048, "root"), sha1=True)
    return root.sub(common, key=pki.rsa_key(2048, "sub"), sha1=True).certificate


def old_leaf(*extra: pki.Extension) -> World:
    """As `old`, with more in the leaf."""
    root = pki.root(key=pki.rsa_key(2048, "root"), sha1=True)
    return three(root, root.sub(key=pki.rsa_key(2048, "sub"), sha1=True), *extra)


def old_long(authorities: int) -> World:
    """So many authorities between root and leaf, of which only the root signs with SHA-1."""
    chain = [pki.root(sha1=True)]
    for number in range(authorities):
        chain.append(chain[-1].sub(f"SubCA{number}"))
    between = tuple(each.certificate for each in chain[1:])
    return World(chain[-1].leaf(), (chain[0].certificate,), between)


@pytest.mark.parametrize("kind", LEGACY_BROKEN)
def test_a_chain_of_the_past_must_hold_as_well(kind: str) -> None:
    assert LEGACY_BROKEN[kind]().standing(OLD).trust is Trust.UNTRUSTED


def test_the_chains_of_the_past_that_were_broken_hold_unbroken() -> None:
    same = World(old().leaf, old().anchors, (old_sub_named("SubCA02"),))
    for world in (old(), old_below(), old_leaf(), old_long(5), old_below(pki.eku(LOGON)), same):
        assert world.standing(OLD).trust is Trust.TRUSTED


def test_a_demanded_eku_is_demanded_of_the_past_too() -> None:
    rules = TrustRules(required_eku=(LOGON,), admitted=frozenset(Legacy))
    assert old_leaf().standing(rules).trust is Trust.UNTRUSTED
    assert old_leaf(pki.eku(LOGON)).standing(rules).trust is Trust.TRUSTED


def test_two_authorities_that_issued_each_other_end() -> None:
    one, other = pki.rsa_key(2048, "one"), pki.rsa_key(2048, "other")
    first = pki.root("First", key=one, sha1=True)
    second = pki.root("Second", key=other, sha1=True)
    crossed = (first.sub("Second", key=other), second.sub("First", key=one))
    leaf = first.leaf(key=pki.rsa_key())
    world = World(leaf, (pki.root().certificate,), tuple(each.certificate for each in crossed))
    assert world.standing(OLD).trust is Trust.UNTRUSTED
