"""What a session's owner may attach to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardsession.core.context import FORMATS, context
from cardsession.core.errors import Failure, Problem

CANARY = "73194682"
GOOD = {"ods-code": "FA123", "role-code": "R8003", "role-profile-id": "555086415105"}


def test_the_keys_of_the_contract() -> None:
    assert set(FORMATS) == {"ods-code", "role-code", "role-profile-id"}
    assert context(GOOD) == GOOD
    assert context({}) == {}


def test_what_is_published_does_not_change_with_what_the_caller_gave() -> None:
    given_ = dict(GOOD)
    kept = context(given_)
    given_["ods-code"] = "X"
    assert kept == GOOD


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ods-code", "FFF"),
        ("ods-code", "8HX12"),
        ("ods-code", "A1B2C"),
        ("ods-code", "B82007001"),
        ("ods-code", "A" * 10),
        ("role-code", "R0001"),
        ("role-code", "S0030:G0100:R0620"),
        ("role-profile-id", "000000000000"),
    ],
)
def test_what_is_well_formed(key: str, value: str) -> None:
    assert context({key: value}) == {key: value}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ods-code", ""),
        ("ods-code", "FA"),
        ("ods-code", "A" * 11),
        ("ods-code", "fa123"),
        ("ods-code", "FA 12"),
        ("ods-code", "FA123\n"),
        ("ods-code", "ФA123"),
        ("ods-code", "FA12\N{ARABIC-INDIC DIGIT THREE}"),
        ("role-code", ""),
        ("role-code", "R800"),
        ("role-code", "R80000"),
        ("role-code", "r8000"),
        ("role-code", "8000"),
        ("role-code", "S0030:R0620"),
        ("role-code", "S0030:G0100:R0620:B0001"),
        ("role-code", "G0100:S0030:R0620"),
        ("role-code", "R8000\n"),
        ("role-profile-id", CANARY),
        ("role-profile-id", "5550864151050"),
        ("role-profile-id", "55508641510a"),
        ("role-profile-id", "555 086 415 105"),
        ("role-profile-id", "\N{FULLWIDTH DIGIT FIVE}" * 12),
    ],
)
def test_what_is_not_names_the_key_and_not_the_value(key: str, value: str) -> None:
    with pytest.raises(Failure) as caught:
        context({**GOOD, key: value})
    assert caught.value.problem is Problem.INVALID_CONTEXT
    assert caught.value.text == f"{key}: expected {FORMATS[key].expected}"
    assert CANARY not in caught.value.text


@pytest.mark.parametrize("key", ["", "ODS-CODE", "ods_code", "name", CANARY, "ods-code\0"])
def test_a_key_that_there_is_not_is_not_repeated(key: str) -> None:
    with pytest.raises(Failure) as caught:
        context({**GOOD, key: "FA123"})
    assert caught.value.problem is Problem.INVALID_CONTEXT
    assert caught.value.text == (
        "no other keys than ods-code, role-code, role-profile-id were expected"
    )


@given(
    st.dictionaries(
        st.sampled_from([*FORMATS, "x"]) | st.text(max_size=20),
        st.sampled_from([*GOOD.values()]) | st.text(max_size=40),
    )
)
def test_whatever_comes_is_kept_whole_or_refused(facts: dict[str, str]) -> None:
    good = all(key in FORMATS and FORMATS[key].pattern.fullmatch(facts[key]) for key in facts)
    if not good:
        with pytest.raises(Failure) as caught:
            context(facts)
        assert caught.value.problem is Problem.INVALID_CONTEXT
        assert caught.value.text.isprintable()
        return
    kept = context(facts)
    assert kept == facts
    assert all(value.isascii() and value.isprintable() for value in kept.values())
