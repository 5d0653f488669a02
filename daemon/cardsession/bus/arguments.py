"""What callers hand in, checked: every fault is named, with what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cardsession.core import signing
from cardsession.core.errors import Failure, Problem
from cardsession.core.text import LIMIT, clean
from cardsession.core.tries import Act, Consent
from cardsession.ports import OpenRequest, PinRequest, SignRequest

MAX_WAIT_USEC = 20_000_000
_OPEN_OPTIONS = {"wait-usec": "t", "idle-usec": "t", "used-by": "s", "replace": "b"}
_PIN_OPTIONS = {"spend-last-try": "b", "accept-unknown": "b"}


def open_request(purpose: str, options: Mapping[str, Any]) -> OpenRequest:
    """OpenSession's arguments."""
    values = _options(options, _OPEN_OPTIONS)
    wait = values.get("wait-usec", 0)
    if wait > MAX_WAIT_USEC:
        raise _invalid(f"wait-usec: at most {MAX_WAIT_USEC} was expected")
    idle = values.get("idle-usec")
    if idle == 0:
        raise _invalid("idle-usec: more than 0 was expected")
    return OpenRequest(
        purpose=_short("purpose", purpose),
        used_by=_short("used-by", values.get("used-by", "")),
        wait=wait / 1_000_000,
        idle=None if idle is None else idle / 1_000_000,
        replace=values.get("replace", False),
    )


def pin_request(act: Act, pin: str, options: Mapping[str, Any]) -> PinRequest:
    """What VerifyPin and its like ask for, without their secrets."""
    values = _options(options, _PIN_OPTIONS)
    consent = Consent(
        spend_last_try=values.get("spend-last-try", False),
        accept_unknown=values.get("accept-unknown", False),
    )
    return PinRequest(act, label(pin), (), consent)


def sign_request(slot: str, name: str, digest: bytes) -> SignRequest:
    """What Sign and SignWithPin are to sign: Failure also for an algorithm that is not ours."""
    algorithm = signing.algorithm(name)
    if len(digest) != algorithm.digest_size:
        raise _invalid(f"digest: {algorithm.digest_size} bytes were expected for {algorithm}")
    return SignRequest(label(slot), algorithm, digest)


def no_options(options: Mapping[str, Any]) -> None:
    """The options of a method that has none yet."""
    _options(options, {})


def label(text: str) -> str:
    """A PIN's or slot's label: short, or there is none of that name."""
    return _short("label", text)


def _options(options: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    for name, variant in options.items():
        if name not in known:
            expected = f"one of {', '.join(sorted(known))}" if known else "no option"
            raise _invalid(f"option {clean(name)}: {expected} was expected")
        if variant.signature != known[name]:
            raise _invalid(f"option {name}: type {known[name]} was expected")
    return {name: variant.value for name, variant in options.items()}


def _short(what: str, text: str) -> str:
    if len(text) > LIMIT:
        raise _invalid(f"{what}: at most {LIMIT} characters were expected")
    return clean(text)


def _invalid(text: str) -> Failure:
    return Failure(Problem.INVALID_ARGS, text)
