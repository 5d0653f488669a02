"""Removal, series, temporary cards, trust, EPS functions, new passcodes: the site's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardsession.core import policy
from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import Revocation, SessionFacts, SessionState, Standing, Trust
from cardsession.core.passcode import NewPinRule, pin_change_due
from cardsession.core.secret import Secret

CANARY = "73194682"
ME, OTHER = ":1.7", ":1.8"
DAY_USEC = 86_400 * 1_000_000
NOW = 1_765_000_000 * 1_000_000


def test_removal_has_the_contract_s_words() -> None:
    assert list(policy.Removal) == ["end", "lock", "keep"]


# series and serial numbers


@pytest.mark.parametrize("series", ["01", "1", " 1", "1 ", "3", "03", "003", "6", "06"])
def test_a_retired_series_however_it_is_written(series: str) -> None:
    assert policy.retired(series, policy.RETIRED_SERIES)
    assert policy.retired("3", frozenset({series, " 3 "}))


@pytest.mark.parametrize(
    "series",
    ["", " ", "unknown", "Unknown ", "07", "8", "08", "9", "10", "30", "0", "00", "³", "٣"],
)
def test_a_series_that_is_live_or_not_known_is_not_retired(series: str) -> None:
    assert not policy.retired(series, policy.RETIRED_SERIES)


def test_what_is_unknown_is_not_retired_by_a_list_that_says_so() -> None:
    for series in ("", "unknown", "8"):
        assert not policy.retired(series, frozenset({"", " ", "unknown", "UNKNOWN"}))
    assert policy.retired("A1", frozenset({"a1"}))
    assert not policy.retired("3", frozenset())


@pytest.mark.parametrize(
    ("serial", "listed", "temporary"),
    [
        ("a1b2c3", "A1B2C3", True),
        ("A1:B2:C3", "a1 b2 c3", True),
        ("A1-B2.C3", "a1_b2c3", True),
        ("00A1", "A1", False),  # a leading zero is part of it
        ("A1B2", "A1B2C3", False),
        ("", "", False),
        ("", ":-", False),
        (":", "", False),
    ],
)
def test_a_temporary_card_is_one_that_the_site_lists(
    serial: str, listed: str, temporary: bool
) -> None:
    assert policy.is_temporary(serial, frozenset({"FFFF", listed})) is temporary
    assert not policy.is_temporary(serial, frozenset())


# trust


@pytest.mark.parametrize("trust", list(Trust))
def test_what_the_site_accepts_is_admitted_and_nothing_else(trust: Trust) -> None:
    standing = Standing(trust)
    assert policy.admits(standing, frozenset(Trust))
    assert policy.admits(standing, frozenset({trust}))
    assert not policy.admits(standing, frozenset(Trust) - {trust})
    assert not policy.admits(standing, frozenset())


@pytest.mark.parametrize("trust", list(Trust))
def test_a_refusal_says_why_in_words_of_ours(trust: Trust) -> None:
    failure = policy.not_trusted(Standing(trust, detail="O=Mallory"))
    assert failure.problem is Problem.NOT_TRUSTED
    assert "Mallory" not in failure.text
    revoked = policy.not_trusted(Standing(trust, revocation=Revocation.REVOKED))
    assert "revoked" in revoked.text


def test_refusals_differ() -> None:
    assert len({policy.not_trusted(Standing(trust)).text for trust in Trust}) == len(Trust)


# EPS functions


def session(
    number: int, state: SessionState, owner: str = ME, card: int | None = 1
) -> SessionFacts:
    return SessionFacts(
        number, card, "r", owner, 1000, "", "", opened_usec=1, expires_usec=2, state=state
    )


@pytest.mark.parametrize("function", policy.CARD_FUNCTIONS)
def test_a_card_function_needs_an_active_session_of_the_caller(function: str) -> None:
    mine, theirs = session(1, SessionState.ACTIVE), session(2, SessionState.ACTIVE, OTHER)
    both = (theirs, mine)
    assert policy.check_function(function, both, ME, None) == (True, "")
    assert policy.check_function(function, both, ME, 1) == (True, "")
    assert policy.check_function(function, both, ME, 2) == (False, "not-owner")
    assert policy.check_function(function, both, ME, 3) == (False, "no-session")
    assert policy.check_function(function, (), ME, None) == (False, "no-session")
    assert policy.check_function(function, (theirs,), ME, None) == (False, "no-session")


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (SessionState.UNVERIFIED, "session-unverified"),
        (SessionState.VERIFYING, "session-verifying"),
        (SessionState.ACTIVE, ""),
        (SessionState.LOCKED, "session-locked"),
        (SessionState.ENDED, "session-ended"),
    ],
)
def test_the_reason_names_the_state_of_the_session(state: SessionState, reason: str) -> None:
    for number in (None, 1):
        found = policy.check_function("claim", (session(1, state),), ME, number)
        assert found == (reason == "", reason)


def test_every_state_has_a_reason() -> None:
    for state in SessionState:
        assert policy.check_function("claim", (session(1, state),), ME, 1)[1] != "no-session"


def test_a_kept_session_without_its_card_still_counts() -> None:
    kept = session(1, SessionState.ACTIVE, card=None)
    assert policy.check_function("claim", (kept,), ME, None) == (True, "")
    locked = session(1, SessionState.LOCKED, card=None)
    assert policy.check_function("claim", (locked,), ME, None) == (False, "session-locked")


def test_of_several_sessions_the_nearest_answers_whatever_their_order() -> None:
    unverified, locked = session(1, SessionState.UNVERIFIED), session(2, SessionState.LOCKED)
    verifying, active = session(3, SessionState.VERIFYING), session(4, SessionState.ACTIVE)
    for order in ((unverified, locked), (locked, unverified)):
        assert policy.check_function("claim", order, ME, None) == (False, "session-locked")
        assert policy.check_function("claim", (*order, verifying), ME, None)[1] == (
            "session-verifying"
        )
        assert policy.check_function("claim", (*order, active), ME, None) == (True, "")
    assert policy.check_function("claim", (active, locked), ME, 2) == (False, "session-locked")


def test_an_automatic_download_needs_no_session_not_even_one_that_exists() -> None:
    for number in (None, 9):
        assert policy.check_function("nominated-download", (), ME, number) == (True, "")


@pytest.mark.parametrize("function", ["", "dance", "Claim", "claim ", "nomin"])
def test_what_is_no_function_is_an_error_even_with_an_active_session(function: str) -> None:
    with pytest.raises(Failure) as caught:
        policy.check_function(function, (session(1, SessionState.ACTIVE),), ME, None)
    assert caught.value.problem is Problem.NO_SUCH_FUNCTION
    assert not function or function not in caught.value.text.split()


# new passcodes


def secret(text: str) -> Secret:
    return Secret(bytearray(text.encode("latin-1")))


@pytest.mark.parametrize(
    ("text", "admitted"),
    [
        ("", False),
        ("1234", False),
        ("12345", False),
        ("123456", True),
        ("1234567", True),
        (CANARY, True),
        ("123456789", False),
        ("12345a", False),
        ("/23456", False),  # 2F, before the digits
        ("12345:", False),  # 3A, after them
        ("123 56", False),
        ("12345\xb2", False),  # a digit to Unicode
    ],
)
def test_a_new_passcode_has_6_to_8_digits(text: str, admitted: bool) -> None:
    assert NewPinRule().admits(secret(text)) is admitted


def test_the_site_may_have_another_rule() -> None:
    rule = NewPinRule(min_length=4, max_length=12, digits_only=False)
    assert rule.admits(secret("pass"))
    assert rule.admits(secret("correct horse"[:12]))
    assert not rule.admits(secret("pas"))
    assert not rule.admits(secret("correct horse"))


def test_a_secret_that_was_wiped_is_no_new_passcode() -> None:
    held = secret(CANARY)
    held.wipe()
    assert not NewPinRule(min_length=0, digits_only=False).admits(held)


def test_judging_a_passcode_leaves_it_as_it_was() -> None:
    held = secret(CANARY)
    assert NewPinRule().admits(held)
    assert held.formed(8, None) == CANARY.encode()
    assert CANARY not in f"{held!r} {NewPinRule()!r}"


@given(st.binary(max_size=64))
def test_only_digits_means_ascii_digits(raw: bytes) -> None:
    assert Secret(bytearray(raw)).digits_only is all(byte in b"0123456789" for byte in raw)


@pytest.mark.parametrize(
    ("changed", "days", "due"),
    [
        (NOW - 90 * DAY_USEC, 90, True),
        (NOW - 90 * DAY_USEC + 1, 90, False),
        (NOW - 91 * DAY_USEC, 90, True),
        (NOW, 90, False),
        (NOW + DAY_USEC, 90, False),  # the clock was set back
        (0, 90, False),  # unknown
        (1, 0, False),  # off
        (1, -1, False),
    ],
)
def test_a_passcode_is_to_be_changed_by_our_own_record(changed: int, days: int, due: bool) -> None:
    assert pin_change_due(changed, NOW, days) is due
