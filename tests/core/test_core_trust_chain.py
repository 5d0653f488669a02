"""Chains: what is trusted, what is not, and what is said of it. OpenSSL is a second judge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from cardsession.core import trust
from cardsession.core.facts import Revocation, Standing, Trust
from cardsession.core.trust_rules import Store, TrustRules
from fakes import pki
from fakes.pki import CLIENT, LOGON, NOW, SERVER
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

FINE: dict[str, Callable[[], World]] = {
    "two": two,
    "no SAN, no EKU, no key usage": lambda: two(usage=False),
    "EKU of card log-on alone": lambda: two(pki.eku(LOGON)),
    "EKU of something else, nothing demanded": lambda: two(pki.eku(SERVER)),
    "P-384": lambda: two(key=pki.ec_key(ec.SECP384R1())),
    "P-521": lambda: two(key=pki.ec_key(ec.SECP521R1())),
    "RSA-2048": lambda: two(key=pki.rsa_key()),
    "RSA-3072": lambda: two(key=pki.rsa_key(3072)),
    "a directory's name for a point": lambda: two(extension("crl-dp")),
    "a user principal name": lambda: two(extension("upn")),
    "policies": lambda: two(extension("policies")),
    "an unknown extension": lambda: two(extension("private")),
    "RSA authorities": lambda: below(root=pki.root(key=pki.rsa_key()), key=pki.rsa_key(2048, 1)),
    "SubCA in the directory": below,
    "SubCA on the card": lambda: on_card(below()),
    "SubCA without key identifiers, not critical": lambda: below(
        basic=pki.constraints(critical=False)
    ),
    "an old root, nothing critical": lambda: below(
        root=pki.root(
            extensions=[pki.constraints(critical=False), (pki.CA_USAGE[0], False)],
        )
    ),
    "a root without end for names": lambda: below(root=pki.root("Root " + "x" * 50)),
    "SubCA for card log-on": lambda: below(pki.eku(LOGON)),
    "SubCA for clients": lambda: below(pki.eku(CLIENT)),
    "a path length that suffices": lambda: below(root=pki.root(extensions=ca_of(1))),
    "two roots of one name": lambda: namesakes(right=True),
}


def namesakes(*, right: bool) -> World:
    """Two roots of one name; the leaf is of the second, which the site may not have."""
    first, second = pki.root(), pki.root()
    anchors = (first.certificate, *((second.certificate,) if right else ()))
    return World(second.leaf(), anchors)


@pytest.mark.parametrize("kind", FINE)
def test_trusted(kind: str, tmp_path: Path) -> None:
    world = FINE[kind]()
    found = world.standing()
    assert found.trust is Trust.TRUSTED, found.detail
    assert found.revocation is Revocation.NOT_CHECKED
    assert "there is no list of" in found.detail
    # it tries one authority of a name only, unless key identifiers tell them apart
    assert world.openssl(tmp_path) or kind == "two roots of one name"


def unknown_issuer() -> World:
    """A leaf of a root that the site does not have."""
    return World(pki.root("Other").leaf(), (pki.root().certificate,))


def issued_by_a_leaf() -> World:
    """A holder who issues certificates."""
    root = pki.root()
    key = pki.ec_key()
    holder = pki.Authority(key, root.leaf(key=key))
    return World(holder.leaf(), (root.certificate,), (holder.certificate,))


def self_signed(*extensions: pki.Extension) -> World:
    """A card that signed its own certificate."""
    own = pki.root("555012345678", extensions=extensions)
    return World(own.certificate, (pki.root().certificate,))


def pinned() -> World:
    """A certificate that signed itself and got among the anchors."""
    own = pki.root("555012345678", extensions=[pki.LEAF_USAGE])
    return World(own.certificate, (own.certificate,))


def long_chain(authorities: int) -> World:
    """So many authorities between root and leaf."""
    root = pki.root()
    chain = [root]
    for number in range(authorities):
        chain.append(chain[-1].sub(f"SubCA{number}"))
    between = tuple(each.certificate for each in chain[1:])
    return World(chain[-1].leaf(), (root.certificate,), between)


# What is wrong, and a word of what is said of it.
BROKEN: dict[str, tuple[Callable[[], World], str]] = {
    "unknown issuer": (unknown_issuer, "Other, is not known"),
    "a namesake's key": (lambda: namesakes(right=False), "no valid signature of the Root"),
    "no SubCA": (lambda: World(below().leaf, below().anchors), "SubCA02, is not known"),
    "SubCA of another root": (
        lambda: World(below().leaf, (pki.root().certificate,), below().intermediates),
        "no valid signature of the SubCA02",
    ),
    "a root on the card only": (
        lambda: World(
            (world := two()).leaf, (pki.root("Another").certificate,), on_card=world.anchors
        ),
        "Root is self-signed, and no anchor",
    ),
    "self-signed": (lambda: self_signed(pki.LEAF_USAGE), "the certificate is self-signed"),
    "self-signed authority": (lambda: self_signed(*ca_of(None)), "an authority's"),
    "pinned": (pinned, "self-signed"),
    "expired SubCA": (lambda: below(days=(-1000, -1)), "SubCA02 expired on 2026-09-20"),
    "SubCA of tomorrow": (lambda: below(days=(1, 1000)), "SubCA02 is not valid before"),
    "expired root": (lambda: below(root=pki.root(days=(-2000, -1))), "Root expired on"),
    "issued by a holder": (issued_by_a_leaf, "no authority"),
    "no basic constraints": (
        lambda: below(root=pki.root(extensions=[pki.CA_USAGE])),
        "Root is no authority",
    ),
    "CA:FALSE": (lambda: below(basic=pki.constraints(ca=False)), "SubCA02 is no authority"),
    "SubCA may not sign": (
        lambda: below(root=pki.root(extensions=[pki.constraints(), (pki.usage("crl_sign"), True)])),
        "Root is no authority",
    ),
    "path length": (
        lambda: below(root=pki.root(extensions=ca_of(0))),
        "Root may not have so many authorities",
    ),
    "SubCA for servers": (lambda: below(pki.eku(SERVER)), "not for the certificates of cards"),
    "names": (lambda: below(names(critical=True)), "constraints"),
    "SubCA with a critical unknown": (
        lambda: below(extension("private", critical=True)),
        "constraints",
    ),
    "leaf with a critical unknown": (
        lambda: two(extension("private", critical=True)),
        "critical",
    ),
    "RSA-1024": (lambda: two(key=pki.rsa_key(1024)), "1024 bits, 2048 are wanted"),
    "RSA-1024 SubCA": (
        lambda: below(key=pki.rsa_key(1024)),
        "SubCA02's RSA key has 1024 bits, 2048 are wanted",
    ),
    "RSA-1024 root": (
        lambda: below(root=pki.root(key=pki.rsa_key(1024))),
        "Root's RSA key has 1024 bits",
    ),
    "P-192": (lambda: two(key=pki.ec_key(ec.SECP192R1())), "192 bits, 224 are wanted"),
    "Ed25519": (
        lambda: two(key=ed25519.Ed25519PrivateKey.generate()),
        "neither RSA nor on an elliptic curve",
    ),
    "SHA-1": (lambda: old(2048), "signed with SHA-1, which is not admitted"),
    "a chain too long": (lambda: long_chain(6), "too long"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_untrusted_and_why(kind: str) -> None:
    make, said = BROKEN[kind]
    found = make().standing()
    assert found.trust is Trust.UNTRUSTED
    assert said in found.detail
    assert found.revocation is Revocation.NOT_CHECKED


OPENSSL_AGREES = (
    "unknown issuer",
    "a namesake's key",
    "no SubCA",
    "SubCA of another root",
    "a root on the card only",
    "self-signed",
    "expired SubCA",
    "SubCA of tomorrow",
    "expired root",
    "issued by a holder",
    "CA:FALSE",
    "SubCA may not sign",
    "path length",
    "names",
    "SubCA with a critical unknown",
    "leaf with a critical unknown",
)


@pytest.mark.parametrize("kind", OPENSSL_AGREES)
def test_openssl_does_not_trust_it_either(kind: str, tmp_path: Path) -> None:
    assert not BROKEN[kind][0]().openssl(tmp_path)


LEGACY_CURES = {"RSA-1024", "RSA-1024 SubCA", "RSA-1024 root", "SHA-1"}


@pytest.mark.parametrize("kind", BROKEN.keys() - LEGACY_CURES)
def test_what_is_admitted_of_the_past_cures_nothing_else(kind: str) -> None:
    assert BROKEN[kind][0]().standing(OLD).trust is Trust.UNTRUSTED


def test_five_authorities_are_not_too_many() -> None:
    assert long_chain(5).standing().trust is Trust.TRUSTED


def demanded(*oids: str) -> TrustRules:
    """What the site wants of a holder's certificate."""
    return TrustRules(required_eku=oids)


@pytest.mark.parametrize(
    ("world", "rules", "fits"),
    [
        (lambda: two(pki.eku(LOGON)), demanded(LOGON), True),
        (lambda: two(pki.eku(LOGON, CLIENT)), demanded(CLIENT, LOGON), True),
        (two, demanded(LOGON), False),
        (lambda: two(pki.eku(CLIENT)), demanded(LOGON), False),
        (lambda: two(pki.eku(CLIENT)), demanded(CLIENT, LOGON), False),
        (lambda: two(pki.eku("2.5.29.37.0")), demanded(LOGON), False),
    ],
)
def test_a_demanded_eku(world: Callable[[], World], rules: TrustRules, fits: bool) -> None:
    found = world().standing(rules)
    assert (found.trust is Trust.TRUSTED) == fits
    assert fits or "lacks the extended key usage 1.3.6.1" in found.detail


def test_an_authority_must_leave_room_for_a_demanded_eku() -> None:
    root = pki.root()
    for allowed, fits in ((LOGON, True), ("2.5.29.37.0", True), (CLIENT, False)):
        world = three(root, root.sub("SubCA02", pki.eku(allowed)), pki.eku(LOGON))
        assert (world.standing(demanded(LOGON)).trust is Trust.TRUSTED) == fits, allowed


@pytest.mark.parametrize(
    ("days", "verdict", "said"),
    [
        ((-100, -1), Trust.EXPIRED, "expired on 2026-09-20"),
        ((2, 100), Trust.NOT_YET_VALID, "not valid before 2026-09-23"),
        ((0, 1), Trust.TRUSTED, ""),
        ((-1, 0), Trust.TRUSTED, ""),
    ],
)
def test_time(days: tuple[float, float], verdict: Trust, said: str) -> None:
    found = two(days=days).standing()
    assert found.trust is verdict
    assert said in found.detail


def test_the_last_second_counts_and_the_next_does_not() -> None:
    world = two(days=(-1, 1))
    assert world.standing(now=NOW + pki.DAY).trust is Trust.TRUSTED
    assert world.standing(now=NOW + pki.DAY + 1).trust is Trust.EXPIRED
    assert world.standing(now=NOW - pki.DAY).trust is Trust.TRUSTED
    assert world.standing(now=NOW - pki.DAY - 1).trust is Trust.NOT_YET_VALID


def test_without_a_certificate_or_anchors() -> None:
    nobody = trust.judge({}, Store(), PLAIN, NOW)
    assert nobody == Standing(Trust.NO_CERTIFICATE, "no authentication certificate on the card")
    found = World(two().leaf).standing()
    assert found == Standing(Trust.NOT_CHECKED, "no trust anchors are configured")
    only = World(below().leaf, (), below().intermediates)
    assert only.standing().trust is Trust.NOT_CHECKED


@pytest.mark.parametrize("raw", [b"", b"\x30\x00", bytes(range(256)), b"\x30\x82\x04\x00" * 99])
def test_what_is_no_certificate_is_not_checked(raw: bytes) -> None:
    store = Store((pki.root().certificate,))
    certificates = trust.read_all({"authentication": raw})
    found = trust.judge(certificates, store, PLAIN, NOW)
    assert found == Standing(Trust.NOT_CHECKED, "the certificate cannot be read")


def test_rubbish_beside_the_holder_is_passed_over() -> None:
    world = on_card(below())
    slots = {"signature": b"\x30\x00", "x": bytes(99), "ca": pki.der(world.on_card[0])}
    slots["authentication"] = pki.der(world.leaf)
    found = trust.judge(trust.read_all(slots), Store(world.anchors), PLAIN, NOW)
    assert found.trust is Trust.TRUSTED


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_every_byte_of_the_holders_certificate_may_be_wrong_and_none_makes_it_trusted() -> None:
    world = two()
    good = pki.der(world.leaf)
    store = Store(world.anchors)
    # how many bits of the signature's last byte do not count: read, and of no consequence
    unused = good.index(b"\x03", len(good) - len(world.leaf.signature) - 3) + 2
    assert good[unused:] == b"\0" + world.leaf.signature
    for at in set(range(len(good))) - {unused}:
        bad = good[:at] + bytes([good[at] ^ 0x01]) + good[at + 1 :]
        found = trust.judge({"authentication": trust.read("authentication", bad)}, store, OLD, NOW)
        assert found.trust is not Trust.TRUSTED, at
        assert len(found.detail) <= 200
        assert found.detail.isprintable()


def test_names_from_outside_are_cleaned_in_what_is_said() -> None:
    root = pki.root("Evil\x1b[2J\0\u202e" + "x" * 40)
    found = World(root.leaf(), (pki.root().certificate,)).standing()
    assert found.trust is Trust.UNTRUSTED
    assert "Evil" in found.detail
    assert found.detail.isprintable()
    assert len(found.detail) <= 200
