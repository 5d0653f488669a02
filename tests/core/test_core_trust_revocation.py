"""Revocation lists: which count, and what follows. OpenSSL judges some of them, too."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import ReasonFlags

from cardsession.core import trust
from cardsession.core.facts import Revocation, Standing, Trust
from cardsession.core.trust_rules import Legacy, Store, TrustRules
from fakes import pki
from fakes.pki import NOW

GOOD, REVOKED, UNCHECKED = Revocation.GOOD, Revocation.REVOKED, Revocation.NOT_CHECKED
PLAIN = TrustRules()
OLD = TrustRules(admitted=frozenset(Legacy))


@dataclass(frozen=True)
class Site:
    """Root, SubCA and a holder; `sha1` makes all of it of the past."""

    root: pki.Authority
    sub: pki.Authority
    leaf: x509.Certificate

    def standing(self, *lists: pki.Revoked, rules: TrustRules = PLAIN, now: int = NOW) -> Standing:
        """With these lists."""
        certificates = trust.read_all({"authentication": pki.der(self.leaf)})
        made = tuple(each.make() for each in lists)
        store = Store((self.root.certificate,), (self.sub.certificate,), made)
        return trust.judge(certificates, store, rules, now)


def points(*names: str, **others: object) -> pki.Extension:
    """The holder's distribution points, as directory names."""
    found = [replace_point(pki.directory_point(each), **others) for each in names]
    return x509.CRLDistributionPoints(found), False


def replace_point(point: x509.DistributionPoint, **others: object) -> x509.DistributionPoint:
    """The same with reasons, or an issuer."""
    parts = {"full_name": point.full_name, "relative_name": None, "reasons": None}
    return x509.DistributionPoint(**(parts | {"crl_issuer": None} | others))  # type: ignore[arg-type]


def site(*extra: pki.Extension, sub: tuple[pki.Extension, ...] = (), sha1: bool = False) -> Site:
    """One with these extensions in the holder's and in SubCA's certificate."""
    root = pki.root(sha1=sha1)
    authority = root.sub("SubCA02", *sub, sha1=sha1)
    return Site(root, authority, authority.leaf(*extra))


def scope(**limits: object) -> pki.Extension:
    """An issuing distribution point."""
    nothing: dict[str, object] = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**(nothing | limits)), True  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def here() -> Site:
    return site()


def test_no_list(here: Site) -> None:
    found = here.standing()
    assert found == Standing(
        Trust.TRUSTED, "revocation not checked: there is no list of SubCA02", UNCHECKED
    )


def test_a_list_that_does_not_name_the_holder(here: Site) -> None:
    assert here.standing(here.sub.revoke(here.sub.leaf())) == Standing(Trust.TRUSTED, "", GOOD)


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (None, "revoked on 2026-08-22"),
        (ReasonFlags.key_compromise, "revoked on 2026-08-22 (keyCompromise)"),
        (ReasonFlags.affiliation_changed, "revoked on 2026-08-22 (affiliationChanged)"),
        (ReasonFlags.certificate_hold, "revoked on 2026-08-22 (certificateHold)"),
    ],
)
def test_a_list_that_names_the_holder(here: Site, reason: ReasonFlags | None, said: str) -> None:
    found = here.standing(here.sub.revoke(here.leaf, here.sub.leaf(), reason=reason))
    assert found == Standing(Trust.REVOKED, said, REVOKED)


def test_taken_off_the_list_is_not_on_it(here: Site) -> None:
    found = here.standing(here.sub.revoke(here.leaf, reason=ReasonFlags.remove_from_crl))
    assert (found.trust, found.revocation) == (Trust.TRUSTED, GOOD)


def test_an_entry_with_something_unknown_is_a_revocation(here: Site) -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    found = here.standing(here.sub.revoke(here.leaf, entry=((unknown, True),)))
    assert found.trust is Trust.REVOKED


DELTA = (x509.DeltaCRLIndicator(1), True)
INDIRECT = scope(indirect_crl=True)
PRIVATE = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)
SOME = scope(only_some_reasons=frozenset({ReasonFlags.key_compromise}))
RELATIVE = scope(
    relative_name=x509.RelativeDistinguishedName(
        [x509.NameAttribute(x509.NameOID.COMMON_NAME, "CRL1")]
    )
)

# Why a list does not count, in its words.
USELESS: dict[str, tuple[Callable[[Site], pki.Revoked], str]] = {
    "stale": (lambda s: s.sub.revoke(days=(-9, -2)), "is stale since 2026-09-19 14:13 UTC"),
    "ends this second": (lambda s: s.sub.revoke(days=(-9, 0)), "is stale since"),
    "endless": (lambda s: s.sub.revoke(endless=True), "is stale"),
    "of tomorrow": (lambda s: s.sub.revoke(days=(1, 2)), "is not valid before 2026-09-22"),
    "another key": (lambda s: s.sub.revoke(signer=pki.ec_key()), "is not signed by its key"),
    "an RSA key": (lambda s: s.sub.revoke(signer=pki.rsa_key()), "is not signed by its key"),
    "of the root": (lambda s: s.root.revoke(), "there is no list of SubCA02"),
    "of a namesake": (lambda _: site().sub.revoke(), "is not signed by its key"),
    "delta": (lambda s: s.sub.revoke(extensions=(DELTA,)), "difference to another list"),
    "indirect": (lambda s: s.sub.revoke(extensions=(INDIRECT,)), "an indirect one"),
    "some reasons": (lambda s: s.sub.revoke(extensions=(SOME,)), "or a part"),
    "relative": (lambda s: s.sub.revoke(extensions=(RELATIVE,)), "or a part"),
    "critical unknown": (
        lambda s: s.sub.revoke(extensions=(PRIVATE,)),
        "a critical extension that is not known",
    ),
    "for authorities": (
        lambda s: s.sub.revoke(extensions=(scope(only_contains_ca_certs=True),)),
        "another kind of certificates",
    ),
    "for attributes": (
        lambda s: s.sub.revoke(extensions=(scope(only_contains_attribute_certs=True),)),
        "another kind of certificates",
    ),
    "another point": (
        lambda s: s.sub.revoke(extensions=(scope(full_name=[x509.DirectoryName(pki.name("9"))]),)),
        "another distribution point",
    ),
    "SHA-1": (lambda s: replace(s.sub, sha1=True).revoke(), "is signed with SHA-1"),
}


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("kind", USELESS)
def test_a_list_that_does_not_count_is_said_and_decides_nothing(
    here: Site, kind: str, named: bool
) -> None:
    make, said = USELESS[kind]
    revoked = make(here)
    if named:
        revoked = replace(revoked, certificates=(here.leaf,))
    found = here.standing(revoked)
    assert (found.trust, found.revocation) == (Trust.TRUSTED, UNCHECKED)
    assert found.detail.startswith("revocation not checked: ")
    assert said in found.detail


def test_a_stale_list_that_names_the_holder_says_so(here: Site) -> None:
    found = here.standing(here.sub.revoke(here.leaf, days=(-9, -2)))
    assert found.detail.endswith("is stale since 2026-09-19 14:13 UTC, and has it as revoked")
    assert "revoked" in found.detail.removeprefix("revocation")
    assert "has it" not in here.standing(here.sub.revoke(days=(-9, -2))).detail


@pytest.mark.parametrize("kind", USELESS)
def test_beside_one_that_counts_the_others_are_nothing(here: Site, kind: str) -> None:
    useless = replace(USELESS[kind][0](here), certificates=(here.leaf,))
    assert here.standing(useless, here.sub.revoke()) == Standing(Trust.TRUSTED, "", GOOD)
    clean = replace(useless, certificates=())
    found = here.standing(clean, here.sub.revoke(here.leaf))
    assert found.trust is Trust.REVOKED


def test_the_newest_that_counts_decides(here: Site) -> None:
    older, newer = here.sub.revoke(here.leaf, days=(-9, 9)), here.sub.revoke(days=(-1, 1))
    for lists in ((older, newer), (newer, older)):
        assert here.standing(*lists).revocation is GOOD
    held, freed = replace(older, days=(-1, 1)), replace(newer, days=(-9, 9))
    for lists in ((held, freed), (freed, held)):
        assert here.standing(*lists).revocation is REVOKED
    # two days on the newer one is stale, and the older one holds
    assert here.standing(older, newer, now=NOW + 2 * pki.DAY).revocation is REVOKED


def test_a_list_counts_from_its_first_second_to_before_its_last(here: Site) -> None:
    revoked = here.sub.revoke(days=(-1, 1))
    seconds = {at: here.standing(revoked, now=NOW + at).revocation for at in edges()}
    assert list(seconds.values()) == [UNCHECKED, GOOD, GOOD, UNCHECKED]


def edges() -> tuple[int, ...]:
    """About a list of one day either way."""
    return (-pki.DAY - 1, -pki.DAY, pki.DAY - 1, pki.DAY)


# -- lists for a part of the certificates -----------------------------------------------------


def part_of(*names: str) -> pki.Extension:
    """The list of these points."""
    return scope(full_name=[x509.DirectoryName(pki.name(each)) for each in names])


@pytest.mark.parametrize(
    ("holder", "its", "counts"),
    [
        (points("CRL7"), part_of("CRL7"), True),
        (points("CRL6", "CRL7"), part_of("CRL7", "CRL8"), True),
        (points("CRL7"), part_of("CRL8"), False),
        (points("CRL7"), scope(only_contains_user_certs=True), True),
        (points("CRL7", reasons=frozenset({ReasonFlags.superseded})), part_of("CRL7"), False),
        (
            points("CRL7", crl_issuer=[x509.DirectoryName(pki.name("Somebody"))]),
            part_of("CRL7"),
            False,
        ),
        (
            points("CRL7", crl_issuer=[x509.DirectoryName(pki.name("SubCA02"))]),
            part_of("CRL7"),
            True,
        ),
    ],
)
def test_a_list_for_a_distribution_point(
    holder: pki.Extension, its: pki.Extension, counts: bool
) -> None:
    here = site(holder)
    clean = here.sub.revoke(extensions=(its,))
    assert here.standing(clean).revocation is (GOOD if counts else UNCHECKED)
    named = replace(clean, certificates=(here.leaf,))
    assert here.standing(named).revocation is (REVOKED if counts else UNCHECKED)


def test_without_points_the_issuers_name_is_the_point(here: Site) -> None:
    whole = here.sub.revoke(extensions=(part_of("SubCA02"),))
    assert here.standing(whole).revocation is GOOD


def test_the_lists_of_other_points_do_not_stand_in(here: Site) -> None:
    holder = site(points("CRL7"))
    newer = holder.sub.revoke(extensions=(part_of("CRL8"),), days=(-1, 9))
    older = holder.sub.revoke(holder.leaf, extensions=(part_of("CRL7"),), days=(-2, 9))
    assert holder.standing(newer, older).revocation is REVOKED


# -- authorities ------------------------------------------------------------------------------


def test_a_revoked_authority_takes_its_holders_with_it(here: Site) -> None:
    found = here.standing(here.sub.revoke(), here.root.revoke(here.sub.certificate))
    assert found == Standing(Trust.REVOKED, "SubCA02: revoked on 2026-08-22", REVOKED)


def test_the_holders_own_revocation_is_told_first(here: Site) -> None:
    lists = here.sub.revoke(here.leaf), here.root.revoke(here.sub.certificate)
    assert here.standing(*lists).detail == "revoked on 2026-08-22"


def test_the_lists_of_authorities_need_not_be_there(here: Site) -> None:
    assert here.standing(here.sub.revoke()).revocation is GOOD
    stale = here.root.revoke(here.sub.certificate, days=(-9, -2))
    assert here.standing(here.sub.revoke(), stale).revocation is GOOD


def test_a_clean_authority_says_nothing_of_its_holders(here: Site) -> None:
    assert here.standing(here.root.revoke()).revocation is UNCHECKED


def test_an_authority_that_may_not_sign_lists_signs_none() -> None:
    root = pki.root()
    key = pki.ec_key()
    extensions = (pki.constraints(), (pki.usage("key_cert_sign"), True))
    sub = pki.Authority(key, root.issue(pki.name("SubCA02"), key, extensions))
    here = Site(root, sub, sub.leaf())
    found = here.standing(sub.revoke(here.leaf))
    assert (found.trust, found.revocation) == (Trust.TRUSTED, UNCHECKED)
    assert "it may not sign lists" in found.detail


def test_a_list_of_a_key_that_the_anchor_is_not_revokes_nothing(here: Site) -> None:
    """The root itself is nobody's to revoke."""
    found = here.standing(here.sub.revoke(), here.root.revoke(here.root.certificate))
    assert (found.trust, found.revocation) == (Trust.TRUSTED, GOOD)


# -- with a chain that does not hold ----------------------------------------------------------


def test_a_revocation_wins_over_what_else_is_wrong(here: Site) -> None:
    wants = TrustRules(required_eku=(pki.LOGON,))
    assert here.standing(here.sub.revoke(), rules=wants).trust is Trust.UNTRUSTED
    found = here.standing(here.sub.revoke(here.leaf), rules=wants)
    assert found == Standing(Trust.REVOKED, "revoked on 2026-08-22", REVOKED)


def test_a_useless_list_does_not_win_over_what_else_is_wrong(here: Site) -> None:
    wants = TrustRules(required_eku=(pki.LOGON,))
    for make, _ in USELESS.values():
        revoked = replace(make(here), certificates=(here.leaf,))
        found = here.standing(revoked, rules=wants)
        assert (found.trust, found.revocation) == (Trust.UNTRUSTED, UNCHECKED)
        assert "lacks the extended key usage" in found.detail


def test_a_stranger_on_the_card_revokes_nobody(here: Site) -> None:
    """Only the site's own authorities speak for certificates without a chain."""
    other = site()
    certificates = trust.read_all(
        {"authentication": pki.der(other.leaf), "ca": pki.der(other.sub.certificate)}
    )
    store = Store((here.root.certificate,), (), (other.sub.revoke(other.leaf).make(),))
    found = trust.judge(certificates, store, PLAIN, NOW)
    assert (found.trust, found.revocation) == (Trust.UNTRUSTED, UNCHECKED)


def test_the_list_of_an_authority_that_only_the_card_has_counts_with_its_chain(
    here: Site,
) -> None:
    certificates = trust.read_all(
        {"authentication": pki.der(here.leaf), "ca": pki.der(here.sub.certificate)}
    )
    store = Store((here.root.certificate,), (), (here.sub.revoke(here.leaf).make(),))
    assert trust.judge(certificates, store, PLAIN, NOW).trust is Trust.REVOKED


def test_what_is_expired_is_not_looked_up(here: Site) -> None:
    found = here.standing(here.sub.revoke(here.leaf), now=NOW + 101 * pki.DAY)
    assert (found.trust, found.revocation) == (Trust.EXPIRED, UNCHECKED)


# -- the past ---------------------------------------------------------------------------------


def test_lists_of_the_past_count_where_the_past_is_admitted() -> None:
    here = site(points("CRL7"), sha1=True)
    clean = here.sub.revoke(extensions=(part_of("CRL7"),))
    found = here.standing(clean, rules=OLD)
    assert found == Standing(Trust.TRUSTED, "admitted: sha1", GOOD)
    assert here.standing(here.sub.revoke(here.leaf), rules=OLD).trust is Trust.REVOKED
    forged = here.sub.revoke(signer=pki.ec_key())
    assert here.standing(forged, rules=OLD).revocation is UNCHECKED


# -- the second judge -------------------------------------------------------------------------


def openssl_revokes(here: Site, directory: Path, revoked: pki.Revoked) -> str:
    """What OpenSSL says with the list of SubCA: `ok`, or its reason."""
    (directory / "leaf.pem").write_bytes(pki.pem(here.leaf))
    (directory / "sub.pem").write_bytes(pki.pem(here.sub.certificate))
    (directory / "root.pem").write_bytes(pki.pem(here.root.certificate))
    (directory / "list.pem").write_bytes(pki.pem(revoked.make()))
    command = ["openssl", "verify", "-attime", str(NOW), "-no-CApath", "-no-CAstore"]
    command += ["-CAfile", "root.pem", "-untrusted", "sub.pem"]
    command += ["-CRLfile", "list.pem", "-crl_check", "leaf.pem"]
    done = subprocess.run(
        command,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return "ok" if done.returncode == 0 else done.stderr


OPENSSL: dict[str, tuple[Callable[[Site], pki.Revoked], str]] = {
    "good": (lambda s: s.sub.revoke(), "ok"),
    "revoked": (lambda s: s.sub.revoke(s.leaf), "certificate revoked"),
    "hold": (
        lambda s: s.sub.revoke(s.leaf, reason=ReasonFlags.certificate_hold),
        "certificate revoked",
    ),
    "stale": (USELESS["stale"][0], "CRL has expired"),
    "of tomorrow": (USELESS["of tomorrow"][0], "CRL is not yet valid"),
    "another key": (USELESS["another key"][0], "CRL signature failure"),
    "of the root": (USELESS["of the root"][0], "unable to get certificate CRL"),
    "indirect": (USELESS["indirect"][0], "error"),
    "another point": (USELESS["another point"][0], "scope"),
    "its point": (lambda s: s.sub.revoke(extensions=(part_of("CRL7"),)), "ok"),
}


@pytest.mark.parametrize("kind", OPENSSL)
def test_openssl_says_the_same(kind: str, tmp_path: Path) -> None:
    here = site(points("CRL7"))
    make, said = OPENSSL[kind]
    assert said in openssl_revokes(here, tmp_path, make(here))
    ours = here.standing(make(here)).revocation
    expected = {"ok": GOOD, "certificate revoked": REVOKED}.get(said, UNCHECKED)
    assert ours is expected
