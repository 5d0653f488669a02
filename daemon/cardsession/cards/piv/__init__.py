"""PIV cards: NIST SP 800-73-4 part 1 (data model) and part 2 (card application commands)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cardsession.cards.guard import Submission, misfit, submit
from cardsession.cards.profile import Key, Pin, Probe, Request
from cardsession.core.dialogue import Dialogue, Reset
from cardsession.core.errors import Failure, Malformed, Problem
from cardsession.core.secret import Secret
from cardsession.core.tries import (
    Act,
    Consent,
    Judged,
    NoSuchPin,
    Outcome,
    PinStatus,
    Unknown,
    Verified,
)

from . import keys, objects, pins
from .objects import CERTIFICATES, inflate

__all__ = ["CERTIFICATES", "NAME", "Piv", "inflate"]

NAME = "piv"


class Piv:
    """The family's dialogues (see `Profile`)."""

    name = NAME

    def probe(self, atr: bytes) -> Dialogue[Probe | None]:
        """SELECT, discovery, CHUID, counter, authentication certificate: no more before ready.

        The ATR tells nothing that the card would not tell better.
        """
        if not (yield from objects.select()):
            return None
        listed, others = pins.listed(*(yield from objects.pin_policy()))
        chuid = yield from objects.chuid()
        tries: dict[str, PinStatus] = dict.fromkeys(listed, Unknown())
        tries["user"] = yield from pins.count(listed["user"])
        if isinstance(tries["user"], NoSuchPin):
            listed, tries = {}, {}
        found = yield from objects.certificate("authentication")
        return Probe(
            profile=NAME,
            identity=chuid.guid or objects.fingerprint(found),
            serial=chuid.guid or chuid.fasc_n,
            pins=listed,
            tries=tries,
            certificates={"authentication": found} if found else {},
            others=others,
            withheld=not found and (yield from objects.withheld("authentication")),
        )

    def certificates(self, probe: Probe) -> Dialogue[Mapping[str, bytes]]:
        """The slots that the probe did not read."""
        yield from objects.same_card(probe)
        found: dict[str, bytes] = {}
        for slot in CERTIFICATES:
            if slot not in probe.certificates:
                certificate = yield from objects.certificate(slot)
                if certificate:
                    found[slot] = certificate
        return found

    def question(self, probe: Probe) -> Dialogue[Mapping[str, PinStatus]]:
        """The counters now; a card that somebody left verified is de-authenticated first.

        Where the card takes no PIN command (over the contactless interface), they are unknown.
        """
        yield from objects.same_card(probe)
        if not (yield from pins.deauthenticate(probe.others)):
            yield Reset()
            yield from objects.same_card(probe)
        tries: dict[str, PinStatus] = {}
        for label, pin in probe.pins.items():
            tries[label] = yield from pins.sober_count(probe, pin)
        return tries

    def key(self, probe: Probe, slot: str) -> Key | None:
        """Part 1 table 4b; what kind of key it is its certificate tells."""
        return keys.KEYS.get(slot)

    def verify(self, probe: Probe, pin: Pin, secret: Secret, consent: Consent) -> Dialogue[Judged]:
        """Select, identify, ask, guard, and then one VERIFY (part 2 clause 3.2.1), never two."""
        secrets = ((pin, secret),)
        return (yield from _submit(probe, _submission(Act.VERIFY, probe, pin, secrets, consent)))

    def change(
        self, probe: Probe, pin: Pin, old: Secret, new: Secret, consent: Consent
    ) -> Dialogue[Judged]:
        """One CHANGE REFERENCE DATA (part 2 clause 3.2.2), of the PUK too.

        After it the card is asked what it thinks of the PIN (by its standard it is verified); of
        a PUK nobody can know.
        """
        secrets = ((pin, old), (pin, new))
        submission = _submission(Act.CHANGE, probe, pin, secrets, consent)
        judged = yield from _submit(probe, submission)
        if judged.outcome is Outcome.CHANGED:
            return replace(judged, status=(yield from _told(probe, pin)))
        return judged

    def unblock(
        self, probe: Probe, pin: Pin, puk: Secret, new: Secret, consent: Consent
    ) -> Dialogue[Judged]:
        """One RESET RETRY COUNTER (part 2 clause 3.2.3), which knows the application's PIN only.

        The status is the PUK's, which nobody can ask for; the PIN's own is in `others`.
        """
        held = probe.pins.get(pins.PUK.label)
        if held is None or pin.reference != pins.APPLICATION_PIN.reference:
            raise Failure(Problem.NOT_SUPPORTED, f"a PUK does not unblock the PIN {pin.label}")
        secrets = ((held, puk), (pin, new))
        submission = replace(
            _submission(Act.UNBLOCK, probe, held, secrets, consent), reference=pin.reference
        )
        judged = yield from _submit(probe, submission)
        if judged.outcome is Outcome.UNBLOCKED:
            return replace(judged, others={pin.label: (yield from _told(probe, pin))})
        return judged

    def sign(self, probe: Probe, request: Request, *, fresh: bool) -> Dialogue[bytes]:
        """One GENERAL AUTHENTICATE (part 2 clause 3.2.4): see `Profile`. The signature key wants
        the PIN right before it ("PIN always"): `NotVerified`."""
        asked = keys.challenge(request)
        if not fresh:
            yield from objects.same_card(probe, keep=True)
        return (yield from keys.signed(asked))

    def sign_with_pin(
        self, probe: Probe, request: Request, secret: Secret, consent: Consent
    ) -> Dialogue[tuple[Judged, bytes]]:
        """VERIFY of the primary PIN, guarded, and the very next command is the signature.

        What can be refused without the card is, as a Failure. Once the PIN was judged its outcome
        counts more: a card that verifies and then does not sign gives b"" with `verified`.
        """
        asked = keys.challenge(request)
        pin = probe.pins.get("user")
        if pin is None:
            raise Failure(Problem.NO_SUCH_PIN, "the card has no PIN user")
        judged = yield from self.verify(probe, pin, secret, consent)
        if judged.outcome is not Outcome.VERIFIED:
            return judged, b""
        try:
            return judged, (yield from keys.signed(asked))
        except (Failure, Malformed):
            return judged, b""

    def release(self, probe: Probe) -> Dialogue[Mapping[str, PinStatus] | None]:
        """De-authenticate every PIN (part 2 clause 3.2.1, P1 = FF), and count once more."""
        yield from objects.same_card(probe)
        used = {label: pin for label, pin in probe.pins.items() if pin.verifiable}
        references = (*(pin.reference for pin in used.values()), *probe.others)
        clean = yield from pins.deauthenticate(references)
        tries: dict[str, PinStatus] = {}
        for label, pin in probe.pins.items():
            tries[label] = yield from pins.count(pin)
            clean = clean and not isinstance(tries[label], Verified)
        return tries if clean else None


def _submission(
    act: Act, probe: Probe, judged: Pin, secrets: tuple[tuple[Pin, Secret], ...], consent: Consent
) -> Submission:
    """6A80 moves no counter (part 2 clauses 3.2.1 to 3.2.3)."""
    return Submission(
        act, probe.identity, judged, judged.reference, secrets, consent, format_uncounted=True
    )


def _submit(probe: Probe, submission: Submission) -> Dialogue[Judged]:
    """The guard's way to this very card; nothing is said for a secret that no card takes."""
    unfit = misfit(submission)
    if unfit:
        return unfit
    yield from objects.same_card(probe)
    judged = submission.judged
    if not judged.asking_is_free:
        yield from _ask_in_its_place(judged)

    def count() -> Dialogue[PinStatus]:
        status = yield from pins.sober_count(probe, judged)
        pins.refuse_contactless(status)
        return status

    return (yield from submit(submission, count, lambda: objects.same_card(probe)))


def _ask_in_its_place(puk: Pin) -> Dialogue[None]:
    """A PUK cannot be asked about, the application's PIN can: whether it is there, and whether
    the card takes such commands on this interface at all. An authority of ours is left alone."""
    status = yield from pins.count(pins.APPLICATION_PIN)
    pins.refuse_contactless(status)
    if isinstance(status, NoSuchPin):
        raise Failure(Problem.NO_SUCH_PIN, f"the card has no PIN for its {puk.label}")


def _told(probe: Probe, pin: Pin) -> Dialogue[PinStatus]:
    """What the card says of a PIN that was just set; nothing that it answers undoes that."""
    try:
        return (yield from pins.noted_count(probe, pin))
    except Malformed:
        return Unknown()
