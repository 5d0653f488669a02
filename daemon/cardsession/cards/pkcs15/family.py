"""The dialogues of PKCS#15 cards (see `Profile`).

Whether an empty VERIFY costs a try is no card's own to say, and there are cards on which it does
(card-rules A1): a counter is asked for only where a declaration says that it is free. Else it is
unknown, and the guard goes by what the ledger saw.

The standard has no command that ends an authority, and a card may answer 63CX although a PIN is
verified. So nobody is known to be verified only after a reset: `question` and `release` begin
with one. It costs a tenth of a second, once a session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from cardsession.cards.declaration import Declaration, Sighting, matching
from cardsession.cards.guard import Submission, misfit, submit
from cardsession.cards.profile import Key, Pin, Probe, Request
from cardsession.core.dialogue import Dialogue, Reset
from cardsession.core.errors import Failure, Malformed, Problem
from cardsession.core.secret import Secret
from cardsession.core.tries import Act, Consent, Judged, Outcome, PinStatus, Unknown

from . import signing
from .application import find
from .capabilities import learn
from .conversation import (
    NAME,
    at_pin,
    count,
    counts,
    identity_of,
    key_of,
    layout_of,
    read_slot,
    same_card,
    serial_of,
    sober_count,
)
from .directory import certificate, contents, objects
from .files import Files
from .layout import SLOTS, Layout, Named, as_pin, named, slug, unique, unknown_form
from .objects import Kind, PinFlag, TokenInfo

_NOT_SIGNED_YET = frozenset({0x6982, 0x6985})
"""A card that wants the PIN before it hears of the key."""


class Pkcs15:
    """The family's dialogues (see `Profile`), with what is declared of certain cards."""

    name = NAME

    def __init__(self, declarations: Sequence[Declaration] = ()) -> None:
        self._declarations = tuple(declarations)

    def probe(self, atr: bytes) -> Dialogue[Probe | None]:
        """The application, its directories, the authentication certificate; no PIN is asked
        about but where that is free."""
        files = Files()
        odf = yield from find(files, self._names(atr))
        if not odf:
            return None
        yield from learn(files, atr)
        found = yield from contents(files, odf)
        seen = _seen(atr, files, found.token)
        declared = matching(self._declarations, seen)
        known = named(found, declared.labels)
        layout = Layout(
            home=files.home,
            manner=files.manner,
            seen=seen,
            declared=declared,
            odf=odf,
            certificates=known.certificates,
            keys_shown=bool(found.keys),
            pins=known.pins,
            algorithms=found.token.algorithms,
        )
        signing_keys = {slot: entry for slot, entry in known.keys.items() if entry.signs}
        keys = {slot: layout.key(slot, entry) for slot, entry in signing_keys.items()}
        layout = replace(layout, keys=keys)
        der = yield from read_slot(files, layout, "authentication")
        pins = _pins(known, layout)
        return Probe(
            profile=NAME,
            identity=identity_of(found.token, der),
            serial=serial_of(found.token),
            pins=pins,
            tries=(yield from counts(files, layout, pins)),
            certificates={"authentication": der} if der else {},
            series=declared.series,
            nhs=bool(declared.nhs),
            layout=layout,
        )

    def certificates(self, probe: Probe) -> Dialogue[Mapping[str, bytes]]:
        """The slots that the probe did not read, and then the authorities that the card trusts
        or finds useful, under their own labels: they may be links of a chain."""
        from . import asn1  # noqa: PLC0415 - it imports asn1crypto

        layout = layout_of(probe)
        files = yield from same_card(probe)
        wanted = dict(layout.certificates)
        for kind in (Kind.TRUSTED_CERTIFICATES, Kind.USEFUL_CERTIFICATES):
            for entry in (yield from objects(files, layout.odf, kind, asn1.certificates)):
                if entry not in wanted.values():
                    wanted[unique(slug(entry.label, "authority"), wanted, SLOTS)] = entry
        found: dict[str, bytes] = {}
        for slot, entry in wanted.items():
            if slot not in probe.certificates:
                der = yield from certificate(files, entry)
                if der:
                    found[slot] = der
        return found

    def key(self, probe: Probe, slot: str) -> Key | None:
        """The key that the directories link to the slot's certificate, if it signs."""
        return layout_of(probe).keys.get(slot)

    def question(self, probe: Probe) -> Dialogue[Mapping[str, PinStatus]]:
        """The counters now, where asking is free; a reset first, so that nobody is verified."""
        yield Reset()
        files = yield from same_card(probe)
        tries: dict[str, PinStatus] = {}
        for label, pin in probe.pins.items():
            if pin.asking_is_free:
                yield from files.go(pin.path)
            tries[label] = yield from sober_count(probe, pin, partial(at_pin, probe, pin))
        return tries

    def verify(self, probe: Probe, pin: Pin, secret: Secret, consent: Consent) -> Dialogue[Judged]:
        """One submission, guarded: at most one VERIFY."""
        with secret:
            _usable(pin)
            secrets = ((pin, secret),)
            return (yield from _submit(Act.VERIFY, probe, pin, secrets, consent))

    def change(
        self, probe: Probe, pin: Pin, old: Secret, new: Secret, consent: Consent
    ) -> Dialogue[Judged]:
        """CHANGE REFERENCE DATA with the old passcode and the new one (P1 = 00)."""
        with old, new:
            _usable(pin)
            _allowed(probe, pin, PinFlag.CHANGE_DISABLED)
            secrets = ((pin, old), (pin, new))
            judged = yield from _submit(Act.CHANGE, probe, pin, secrets, consent)
            if judged.outcome is Outcome.CHANGED:
                return replace(judged, status=(yield from _told(probe, pin)))
            return judged

    def unblock(
        self, probe: Probe, pin: Pin, puk: Secret, new: Secret, consent: Consent
    ) -> Dialogue[Judged]:
        """RESET RETRY COUNTER with the PUK and the new passcode (P1 = 00). The status is the
        PUK's, the PIN's own is in `others`."""
        with puk, new:
            held = probe.pins.get("puk")
            if held is None or held.stored_length == 0:
                raise Failure(Problem.NOT_SUPPORTED, "the card has no PUK that we can use")
            _usable(pin)
            _allowed(probe, pin, PinFlag.UNBLOCK_DISABLED)
            for form in (PinFlag.RESET_RETRY_COUNTER_1, PinFlag.RESET_RETRY_COUNTER_2):
                _allowed(probe, held, form)  # the card wants another P1 than 00
            secrets = ((held, puk), (pin, new))
            judged = yield from _submit(Act.UNBLOCK, probe, pin, secrets, consent)
            if judged.outcome is Outcome.UNBLOCKED:
                return replace(judged, others={pin.label: (yield from _told(probe, pin))})
            return judged

    def sign(self, probe: Probe, request: Request, *, fresh: bool) -> Dialogue[bytes]:
        """One signature with a key that the session's authority opens."""
        layout = layout_of(probe)
        files = Files(layout.manner, layout.home, inside=True)
        known = request.slot in layout.keys or layout.keys_shown
        if not fresh and not known:
            files = yield from same_card(probe)
        key = yield from key_of(files, layout, request.slot)
        if key.pin_always:
            raise Failure(Problem.NOT_VERIFIED, "this key wants its PIN for each signature")
        chosen = signing.plan(key, request)
        if not fresh and known:
            files = yield from same_card(probe)
        signing.refuse((yield from signing.prepare(files, chosen)))
        return (yield from signing.sign(files, chosen))

    def sign_with_pin(
        self, probe: Probe, request: Request, secret: Secret, consent: Consent
    ) -> Dialogue[tuple[Judged, bytes]]:
        """The key first, then VERIFY, then the signature: with a key that wants its PIN each
        time nothing may stand between them. (Some cards do not hear of a key before its PIN.)

        What can be refused before VERIFY is, as a Failure. Once the PIN was judged its outcome
        counts more: a card that verifies and then does not sign gives b"" with `verified`.
        """
        with secret:
            layout = layout_of(probe)
            files = Files(layout.manner, layout.home)
            if not (request.slot in layout.keys or layout.keys_shown):
                files = yield from same_card(probe)
            key = yield from key_of(files, layout, request.slot)
            chosen = signing.plan(key, request)
            pin = probe.pins.get(key.pin)
            if pin is None:
                raise Failure(Problem.NO_SUCH_PIN, "no PIN of the card guards this key")
            _usable(pin)
            signature = _Signature(probe, pin, chosen)
            secrets = ((pin, secret),)
            judged = yield from _submit(
                Act.VERIFY, probe, pin, secrets, consent, signature.be_ready
            )
            if judged.outcome is not Outcome.VERIFIED:
                return judged, b""
            try:
                return judged, (yield from signature.made())
            except (Failure, Malformed):
                return judged, b""

    def release(self, probe: Probe) -> Dialogue[Mapping[str, PinStatus] | None]:
        """The standard has no command for it: only a reset ends an authority for certain. The
        counters are asked for after it, where there is one to be asked."""
        if any(pin.asking_is_free for pin in probe.pins.values()):
            return (yield from self.question(probe))
        yield Reset()
        return dict.fromkeys(probe.pins, Unknown())

    def _names(self, atr: bytes) -> list[bytes]:
        """Names of applications by declarations: of this ATR's first, then what others go by."""
        told = matching(self._declarations, Sighting(atr=atr)).application
        others = [each.aid for each in self._declarations if each.aid and each.read_as != "piv"]
        return [name for name in (told, *others) if name]


class _Signature:
    """One signature that is prepared before its PIN is verified, where the card lets us."""

    def __init__(self, probe: Probe, pin: Pin, chosen: signing.Plan) -> None:
        self._probe, self._pin, self._chosen = probe, pin, chosen
        self._files = Files()
        self._prepared = False

    def be_ready(self) -> Dialogue[Files]:
        """Be where the PIN is, then where the key is, and tell the card of the key."""
        self._files = yield from at_pin(self._probe, self._pin)
        sw = yield from signing.prepare(self._files, self._chosen)
        self._prepared = sw.ok
        if sw not in _NOT_SIGNED_YET:
            signing.refuse(sw)
        return self._files

    def made(self) -> Dialogue[bytes]:
        """The signature; the PIN is verified."""
        if not self._prepared:
            signing.refuse((yield from signing.prepare(self._files, self._chosen)))
        return (yield from signing.sign(self._files, self._chosen))


def _seen(atr: bytes, files: Files, token: TokenInfo) -> Sighting:
    aids = [aid for aid in (files.home.aid, files.home.listed) if aid]
    return Sighting(
        atr=atr,
        aids=tuple(aids),
        manufacturer=token.manufacturer,
        label=token.label,
        serial=serial_of(token),
        profile=NAME,
    )


def _pins(known: Named, layout: Layout) -> dict[str, Pin]:
    free = layout.declared.asking_is_free is True
    pins: dict[str, Pin] = {}
    for label, entry in known.pins.items():
        grants = label == known.granting
        pin = as_pin(label, entry, home=layout.home, free=free, grants=grants)
        pins[label] = pin or unknown_form(label, entry, grants=grants)
    return pins


def _usable(pin: Pin) -> None:
    if not pin.verifiable:
        raise Failure(Problem.NOT_SUPPORTED, f"{pin.label} cannot be verified here")


def _allowed(probe: Probe, pin: Pin, forbidding: PinFlag) -> None:
    if forbidding in layout_of(probe).flags(pin.label):
        raise Failure(Problem.NOT_SUPPORTED, f"the card does not allow that with {pin.label}")


def _submit(  # noqa: PLR0913, PLR0917 - what one submission needs
    act: Act,
    probe: Probe,
    pin: Pin,
    secrets: tuple[tuple[Pin, Secret], ...],
    consent: Consent,
    ready: Callable[[], Dialogue[Files]] | None = None,
) -> Dialogue[Judged]:
    """The guard's way to this very card, to be used where `ready` takes us; nothing is said for
    a secret that no card takes. The first secret's PIN is the one that is judged."""
    judged = secrets[0][0]
    submission = Submission(act, probe.identity, judged, pin.reference, secrets, consent)
    unfit = misfit(submission)
    if unfit:
        return unfit

    def be_there() -> Dialogue[Files]:
        return (yield from ready() if ready else at_pin(probe, pin))

    def asked() -> Dialogue[PinStatus]:
        return (yield from sober_count(probe, judged, be_there))

    yield from be_there()
    return (yield from submit(submission, asked, be_there))


def _told(probe: Probe, pin: Pin) -> Dialogue[PinStatus]:
    """What the card says of a PIN that was just set; nothing that it answers undoes that."""
    try:
        return (yield from count(layout_of(probe), pin))
    except Malformed:
        return Unknown()
