"""The site's anchors and lists as files: what is read, what is refused and said, what is fresh."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cardsession.adapters import truststore
from cardsession.adapters.truststore import Summary, TrustStore
from cardsession.core import trust
from cardsession.core.facts import Certificate, Revocation, Standing, Trust
from cardsession.core.trust_rules import Legacy, TrustRules
from cardsession.ports import Judge
from fakes import pki
from fakes.pki import NOW

# After the adapter, which keeps structlog from importing what a daemon has no use for.
from structlog.testing import capture_logs  # isort: skip

Logs = list[MutableMapping[str, Any]]


@dataclass(frozen=True)
class Site:
    """Two directories, what fills them, and a card."""

    anchors: Path
    lists: Path
    root: pki.Authority
    sub: pki.Authority
    card: dict[str, Certificate]
    leaf: Any

    def store(self, rules: TrustRules | None = None) -> TrustStore:
        return TrustStore(self.anchors, self.lists, rules or TrustRules())

    def fill(self) -> None:
        """All that a chain and a good list need."""
        (self.anchors / "root.pem").write_bytes(pki.pem(self.root.certificate))
        (self.anchors / "sub.crt").write_bytes(pki.pem(self.sub.certificate))
        (self.lists / "sub.crl").write_bytes(pki.pem(self.sub.revoke().make()))

    def standing(self, store: TrustStore) -> Standing:
        return store.judge(self.card, NOW * 1_000_000)


ROOT = pki.root()
SUB = ROOT.sub()
LEAF = SUB.leaf()
CARD = {"authentication": trust.read("authentication", pki.der(LEAF))}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    anchors, lists = tmp_path / "anchors", tmp_path / "revocation"
    anchors.mkdir()
    lists.mkdir()
    return Site(anchors, lists, ROOT, SUB, CARD, LEAF)


@pytest.fixture
def logs() -> Iterator[Logs]:
    with capture_logs() as captured:
        yield captured


def refused(logs: Logs) -> list[tuple[str, str]]:
    """Name and reason of each file that the log names."""
    found = [each for each in logs if each["event"] == "trust.file.refused"]
    assert all(each["log_level"] == "warning" for each in found)
    return [(Path(each["path"]).name, each["reason"]) for each in found]


def test_it_is_a_judge(site: Site) -> None:
    judge: Judge = site.store()
    assert judge.judge({}, NOW * 1_000_000).trust is Trust.NO_CERTIFICATE


def test_anchors_intermediates_and_lists(site: Site, logs: Logs) -> None:
    site.fill()
    store = site.store()
    assert store.summary == Summary(), "nothing is read before the first card"
    assert site.standing(store) == Standing(Trust.TRUSTED, "", Revocation.GOOD)
    assert store.summary == Summary(True, 1, 1, 1, NOW + pki.DAY)
    assert store.problems == ()
    assert [each["event"] for each in logs] == ["trust.store.read"]
    assert logs[0] | {"anchors": 1, "intermediates": 1, "lists": 1, "refused": 0} == logs[0]


@pytest.mark.parametrize("there", [False, True])
def test_missing_and_empty_directories_are_the_same(site: Site, there: bool, logs: Logs) -> None:
    if not there:
        site.anchors.rmdir()
        site.lists.rmdir()
    store = site.store()
    found = site.standing(store)
    assert found == Standing(Trust.NOT_CHECKED, "no trust anchors are configured")
    assert store.summary == Summary(loaded=True)
    assert refused(logs) == []


@pytest.mark.parametrize("suffix", ["pem", "crt", "cer", "der", "PEM"])
@pytest.mark.parametrize("encoded", [pki.pem, pki.der])
def test_certificates_are_read_by_content_not_by_name(
    site: Site, suffix: str, encoded: Any
) -> None:
    (site.anchors / f"root.{suffix}").write_bytes(encoded(ROOT.certificate))
    (site.anchors / f"sub.{suffix}").write_bytes(encoded(SUB.certificate))
    assert site.standing(site.store()).trust is Trust.TRUSTED


@pytest.mark.parametrize("name", ["sub.crl", "sub.pem", "sub.CRL"])
@pytest.mark.parametrize("encoded", [pki.pem, pki.der])
def test_lists_are_read_by_content_not_by_name(site: Site, name: str, encoded: Any) -> None:
    site.fill()
    (site.lists / "sub.crl").unlink()
    (site.lists / name).write_bytes(encoded(SUB.revoke(LEAF).make()))
    assert site.standing(site.store()).trust is Trust.REVOKED


def test_many_to_a_file_with_text_between_them(site: Site) -> None:
    key = ROOT.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    both = b"0 s:CN=Root\r\n" + pki.pem(ROOT.certificate) + key + b"# SubCA\n"
    both += pki.pem(SUB.certificate).replace(b"\n", b"\r\n")
    (site.anchors / "bundle.pem").write_bytes(both)
    lists = pki.pem(SUB.revoke().make(), ROOT.revoke().make())
    (site.lists / "bundle.pem").write_bytes(lists)
    store = site.store()
    assert site.standing(store) == Standing(Trust.TRUSTED, "", Revocation.GOOD)
    assert store.summary == Summary(True, 1, 1, 2, NOW + pki.DAY)


def test_other_names_are_none_of_ours(site: Site, logs: Logs) -> None:
    site.fill()
    for name in ("README", ".root.pem", "root.pem~", "root.pem.bak", "ca.p7b", "old.crl"):
        (site.anchors / name).write_bytes(b"?")
    for name in ("README", ".sub.crl", "sub.crl.new", "ca.crt"):
        (site.lists / name).write_bytes(b"?")
    store = site.store()
    assert site.standing(store).trust is Trust.TRUSTED
    assert refused(logs) == []
    assert store.problems == ()


# -- who is an anchor -------------------------------------------------------------------------


def test_an_authority_that_did_not_sign_itself_is_no_anchor(site: Site) -> None:
    (site.anchors / "sub.pem").write_bytes(pki.pem(SUB.certificate))
    store = site.store()
    assert site.standing(store).detail == "no trust anchors are configured"
    assert store.summary == Summary(True, 0, 1)


@pytest.mark.parametrize("name", ["sub.anchor.pem", "Sub.Anchor.CRT", "sub.anchor.der"])
def test_unless_its_file_says_so(site: Site, name: str) -> None:
    (site.anchors / name).write_bytes(pki.pem(SUB.certificate))
    store = site.store()
    assert site.standing(store).trust is Trust.TRUSTED
    assert store.summary == Summary(True, 1)


def test_a_root_of_the_past_is_an_anchor(site: Site) -> None:
    root = pki.root(key=pki.rsa_key(2048, "root"), sha1=True)
    (site.anchors / "root.pem").write_bytes(pki.pem(root.certificate))
    leaf = root.leaf(key=pki.rsa_key(1024))
    card = {"authentication": trust.read("authentication", pki.der(leaf))}
    store = site.store(TrustRules(admitted=frozenset(Legacy)))
    found = store.judge(card, NOW * 1_000_000)
    assert found.trust is Trust.TRUSTED
    assert store.summary == Summary(True, 1)


@pytest.mark.parametrize("name", ["holder.pem", "holder.anchor.pem"])
def test_a_holders_certificate_is_no_anchor(site: Site, name: str, logs: Logs) -> None:
    own = pki.root("555012345678", extensions=[pki.LEAF_USAGE])
    (site.anchors / name).write_bytes(pki.pem(own.certificate, LEAF))
    store = site.store()
    card = {"authentication": trust.read("authentication", pki.der(own.certificate))}
    assert store.judge(card, NOW * 1_000_000).trust is Trust.NOT_CHECKED
    assert store.summary.anchors == store.summary.intermediates == 0
    expected = "expected an authority's certificate (basicConstraints with CA:TRUE)"
    assert refused(logs) == [(name, f"number {number}: {expected}") for number in (1, 2)]


# -- what is refused --------------------------------------------------------------------------


def spoilt(raw: bytes) -> bytes:
    """PEM whose content is no DER."""
    lines = raw.splitlines(keepends=True)
    return b"".join([lines[0], b"AAAA" * 16 + b"\n", *lines[2:]])


CERTIFICATE = pki.pem(ROOT.certificate)
LIST = pki.pem(SUB.revoke().make())
BAD_CERTIFICATES = {
    "empty": (b"", "expected a certificate, PEM or DER, found none"),
    "noise": (bytes(range(256)), "expected a certificate, PEM or DER, found none"),
    "a list": (LIST, "expected a certificate, PEM or DER, found none"),
    "cut": (CERTIFICATE[:-30], "expected a certificate, PEM or DER, found none"),
    "cut DER": (pki.der(ROOT.certificate)[:-1], "this one cannot be read"),
    "a list's DER": (pki.der(SUB.revoke().make()), "this one cannot be read"),
    "spoilt": (spoilt(CERTIFICATE), "this one cannot be read"),
    "no base64": (CERTIFICATE.replace(b"M", b"!"), "this one cannot be read"),
}
BAD_LISTS = {
    "empty": (b"", "expected a certificate revocation list, PEM or DER, found none"),
    "a certificate": (CERTIFICATE, "expected a certificate revocation list, PEM or DER"),
    "spoilt": (spoilt(LIST), "this one cannot be read"),
    "cut DER": (pki.der(SUB.revoke().make())[:-1], "this one cannot be read"),
}


@pytest.mark.parametrize("kind", BAD_CERTIFICATES)
def test_a_bad_certificate_is_named_and_the_others_are_used(
    site: Site, kind: str, logs: Logs
) -> None:
    site.fill()
    raw, said = BAD_CERTIFICATES[kind]
    (site.anchors / "bad.pem").write_bytes(raw)
    store = site.store()
    assert site.standing(store).trust is Trust.TRUSTED
    ((name, reason),) = refused(logs)
    assert name == "bad.pem"
    assert said in reason
    assert store.problems == (f"{site.anchors}/bad.pem: {reason}",)


@pytest.mark.parametrize("kind", BAD_LISTS)
def test_a_bad_list_is_named_and_the_others_are_used(site: Site, kind: str, logs: Logs) -> None:
    site.fill()
    raw, said = BAD_LISTS[kind]
    (site.lists / "bad.crl").write_bytes(raw)
    store = site.store()
    assert site.standing(store).revocation is Revocation.GOOD
    ((name, reason),) = refused(logs)
    assert name == "bad.crl"
    assert said in reason


def test_one_bad_certificate_of_a_bundle_leaves_the_rest(site: Site, logs: Logs) -> None:
    bundle = spoilt(CERTIFICATE) + pki.pem(ROOT.certificate, SUB.certificate)
    (site.anchors / "bundle.pem").write_bytes(bundle)
    assert site.standing(site.store()).trust is Trust.TRUSTED
    ((name, reason),) = refused(logs)
    assert (name, reason.split(":")[0]) == ("bundle.pem", "number 1")


def test_a_corrupt_list_of_the_holders_issuer_is_as_none(site: Site) -> None:
    site.fill()
    raw = bytearray(pki.der(SUB.revoke(LEAF).make()))
    raw[-1] ^= 1
    (site.lists / "sub.crl").write_bytes(raw)
    found = site.standing(site.store())
    assert (found.trust, found.revocation) == (Trust.TRUSTED, Revocation.NOT_CHECKED)
    assert "is not signed by its key" in found.detail


def test_what_is_no_file_is_refused_and_waits_for_nobody(site: Site, logs: Logs) -> None:
    site.fill()
    os.mkfifo(site.anchors / "pipe.pem")
    (site.anchors / "directory.pem").mkdir()
    (site.anchors / "nowhere.pem").symlink_to("/nonexistent")
    assert site.standing(site.store()).trust is Trust.TRUSTED
    assert dict(refused(logs)) == {
        "pipe.pem": "expected a regular file",
        "directory.pem": "expected a readable file: Is a directory",
        "nowhere.pem": "expected a readable file: No such file or directory",
    }


def test_a_directory_that_is_none(site: Site, tmp_path: Path, logs: Logs) -> None:
    site.fill()
    (tmp_path / "file").write_bytes(b"")
    store = TrustStore(site.anchors, tmp_path / "file", TrustRules())
    for _ in range(2):
        assert site.standing(store).revocation is Revocation.NOT_CHECKED
    told = [each["reason"] for each in logs if each["event"] == "trust.directory.refused"]
    assert told == [f"{tmp_path}/file: expected a directory: Not a directory"]
    assert store.problems == tuple(told)


def test_huge_files_are_refused(site: Site, logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    site.fill()
    monkeypatch.setattr(truststore, "MAX_BYTES", 4096)
    (site.anchors / "exact.pem").write_bytes(CERTIFICATE.ljust(4096))
    (site.anchors / "huge.pem").write_bytes(CERTIFICATE.ljust(4097))
    store = site.store()
    assert site.standing(store).trust is Trust.TRUSTED
    assert refused(logs) == [("huge.pem", "expected a file of at most 4096 bytes")]
    assert store.summary.anchors == 2


def test_more_files_than_one_reads(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truststore, "MAX_FILES", 3)
    for number in range(5):
        (site.anchors / f"{number}.pem").write_bytes(CERTIFICATE)
    store = site.store()
    site.standing(store)
    assert store.summary.anchors == 3
    assert store.problems == (f"{site.anchors}: expected at most 3 files",)


def test_hostile_names_stay_out_of_the_log(site: Site, logs: Logs) -> None:
    (site.anchors / "e\x1b[2J\nvil.pem").write_bytes(b"?")
    store = site.store()
    site.standing(store)
    ((_, reason),) = refused(logs)
    assert all(text.isprintable() for text in (reason, *store.problems, logs[0]["path"]))


# -- fresh ------------------------------------------------------------------------------------


def test_a_change_is_seen_at_the_next_card(site: Site) -> None:
    store = site.store()
    assert site.standing(store).trust is Trust.NOT_CHECKED
    site.fill()
    assert site.standing(store) == Standing(Trust.TRUSTED, "", Revocation.GOOD)
    (site.lists / "next").write_bytes(pki.pem(SUB.revoke(LEAF).make()))
    (site.lists / "next").rename(site.lists / "sub.crl")
    assert site.standing(store).trust is Trust.REVOKED
    (site.lists / "sub.crl").unlink()
    assert site.standing(store).revocation is Revocation.NOT_CHECKED
    (site.anchors / "sub.crt").unlink()
    assert site.standing(store).trust is Trust.UNTRUSTED
    (site.anchors / "root.pem").unlink()
    assert site.standing(store).trust is Trust.NOT_CHECKED


def test_a_file_is_read_and_complained_of_once_for_each_version(
    site: Site, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = truststore._contents
    monkeypatch.setattr(
        truststore, "_contents", lambda path: (read.append(path.name), real(path))[1]
    )
    site.fill()
    bad = site.anchors / "bad.pem"
    bad.write_bytes(b"?")
    store = site.store()
    for _ in range(3):
        site.standing(store)
    assert sorted(read) == ["bad.pem", "root.pem", "sub.crl", "sub.crt"]
    assert len(refused(logs)) == 1
    read.clear()
    (site.anchors / "another.pem").write_bytes(CERTIFICATE)
    site.standing(store)
    assert read == ["another.pem"]
    assert len(refused(logs)) == 1
    assert len(store.problems) == 1, "it is still wrong"
    bad.write_bytes(b"??")
    site.standing(store)
    assert len(refused(logs)) == 2
    bad.write_bytes(CERTIFICATE)
    site.standing(store)
    assert (len(refused(logs)), store.problems) == (2, ())


def test_a_list_gets_stale_without_a_change(site: Site) -> None:
    site.fill()
    store = site.store()
    assert site.standing(store).revocation is Revocation.GOOD
    found = store.judge(CARD, (NOW + 2 * pki.DAY) * 1_000_000)
    assert (found.trust, found.revocation) == (Trust.TRUSTED, Revocation.NOT_CHECKED)
    assert "is stale since" in found.detail


def test_the_first_list_to_get_stale_is_told(site: Site) -> None:
    site.fill()
    (site.lists / "root.crl").write_bytes(pki.der(ROOT.revoke(days=(-9, -2)).make()))
    (site.lists / "endless.crl").write_bytes(pki.der(ROOT.revoke(endless=True).make()))
    store = site.store()
    site.standing(store)
    assert store.summary.lists == 3
    assert store.summary.oldest_next_update == NOW - 2 * pki.DAY


# -- from several threads, and whatever happens -----------------------------------------------


def test_several_readers_at_once(site: Site) -> None:
    site.fill()
    store, rounds = site.store(), 20
    start = threading.Barrier(5)
    trusts: list[Trust] = []

    def work() -> None:
        start.wait(timeout=30)
        trusts.extend(site.standing(store).trust for _ in range(rounds))

    workers = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for worker in workers:
        worker.start()
    start.wait(timeout=30)
    for number in range(rounds):
        (site.anchors / "more.pem").write_bytes(CERTIFICATE * (1 + number % 2))
    for worker in workers:
        worker.join(timeout=60)
    assert trusts == [Trust.TRUSTED] * 4 * rounds


def test_our_own_fault_is_logged_and_trusts_nobody(
    site: Site, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Standing:
        raise RuntimeError("a parser's surprise")

    site.fill()
    monkeypatch.setattr(trust, "judge", fail)
    found = site.standing(site.store())
    assert found == Standing(Trust.NOT_CHECKED, "the certificate could not be judged")
    assert logs[-1]["event"] == "trust.judgement.failed"


def test_a_time_out_of_every_range_raises_nothing(site: Site) -> None:
    site.fill()
    store = site.store()
    for usec in (-(10**18), 0, 10**30):
        assert store.judge(CARD, usec).trust is not Trust.TRUSTED
