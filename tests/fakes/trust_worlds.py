"""A card and a site each, for judgements: what is trusted, and what is a little wrong."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from cardsession.core import trust
from cardsession.core.facts import Standing
from cardsession.core.trust_rules import Legacy, Store, TrustRules
from fakes import pki
from fakes.pki import NOW

PLAIN = TrustRules()
OLD = TrustRules(admitted=frozenset(Legacy))


@dataclass(frozen=True)
class World:
    """A card and a site."""

    leaf: x509.Certificate
    anchors: tuple[x509.Certificate, ...] = ()
    intermediates: tuple[x509.Certificate, ...] = ()
    on_card: tuple[x509.Certificate, ...] = ()
    lists: tuple[x509.CertificateRevocationList, ...] = field(default=())

    def standing(self, rules: TrustRules = PLAIN, now: int = NOW) -> Standing:
        """What is made of it."""
        slots = {"authentication": self.leaf}
        slots |= {f"ca-{number}": each for number, each in enumerate(self.on_card)}
        certificates = trust.read_all({slot: pki.der(each) for slot, each in slots.items()})
        store = Store(self.anchors, self.intermediates, self.lists)
        return trust.judge(certificates, store, rules, now)

    def openssl(self, directory: Path, *options: str) -> bool:
        """Whether OpenSSL finds a chain."""
        (directory / "leaf.pem").write_bytes(pki.pem(self.leaf))
        (directory / "anchors.pem").write_bytes(pki.pem(*self.anchors))
        (directory / "others.pem").write_bytes(pki.pem(*self.intermediates, *self.on_card))
        others = ["-untrusted", "others.pem"] if self.intermediates + self.on_card else []
        command = ["openssl", "verify", "-attime", str(NOW), "-no-CApath", "-no-CAfile"]
        command += ["-no-CAstore", "-CAfile", "anchors.pem", *others, *options, "leaf.pem"]
        done = subprocess.run(command, cwd=directory, capture_output=True, timeout=30, check=False)
        return done.returncode == 0


def two(*extra: pki.Extension, **options: object) -> World:
    """A root and a leaf."""
    root = pki.root()
    return World(root.leaf(*extra, **options), (root.certificate,))  # type: ignore[arg-type]


def three(
    root: pki.Authority, sub: pki.Authority, *extra: pki.Extension, **options: object
) -> World:
    """A root, an authority below it in the directory, and a leaf."""
    leaf = sub.leaf(*extra, **options)  # type: ignore[arg-type]
    return World(leaf, (root.certificate,), (sub.certificate,))


def below(*extra: pki.Extension, root: pki.Authority | None = None, **options: object) -> World:
    """A plain leaf below an authority with these extensions."""
    root = root or pki.root()
    return three(root, root.sub("SubCA02", *extra, **options))  # type: ignore[arg-type]


def old(leaf_bits: int = 1024, **options: object) -> World:
    """The card of 2016: RSA-1024, everything signed with SHA-1, the point a directory's name."""
    root = pki.root("Root CA", key=pki.rsa_key(2048, "root"), sha1=True)
    sub = root.sub(key=pki.rsa_key(2048, "sub"), sha1=True, **options)  # type: ignore[arg-type]
    points = x509.CRLDistributionPoints([pki.directory_point("CRL7")]), False
    return three(root, sub, points, key=pki.rsa_key(leaf_bits))


def extension(kind: str, *, critical: bool = False) -> pki.Extension:
    """One of those that the web's rules do not like."""
    points = x509.CRLDistributionPoints([pki.directory_point("CRL1")])
    policies = x509.CertificatePolicies(
        [x509.PolicyInformation(x509.ObjectIdentifier("1.2.826.0.1.1"), None)]
    )
    upn = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x01a")
    known: dict[str, x509.ExtensionType] = {
        "crl-dp": points,
        "policies": policies,
        "upn": x509.SubjectAlternativeName([upn]),
        "private": x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
    }
    return known[kind], critical


def on_card(world: World) -> World:
    """The same, with the intermediates moved from the site to the card."""
    return World(world.leaf, world.anchors, (), world.intermediates)


def ca_of(length: int | None) -> list[pki.Extension]:
    """Extensions of an authority that bears so many below it."""
    return [pki.constraints(length=length), pki.CA_USAGE]


def names(*, critical: bool) -> pki.Extension:
    """A constraint on names that the leaf's would not meet."""
    return x509.NameConstraints([x509.DirectoryName(pki.name("x"))], None), critical
