"""Text from cards and readers, and passcodes: what never gets out."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardsession.core.facts import Certificate
from cardsession.core.secret import Secret, wipe
from cardsession.core.text import LIMIT, REPLACEMENT, clean

CANARY = "73194682"
HOSTILE = {
    "NUL": "a\0b",
    "newline": "a\nb",
    "carriage return": "a\rb",
    "escape": "a\x1bb",
    "delete": "a\x7fb",
    "C1 CSI": "a\x9bb",
    "surrogate": "a\ud800b",
    "right-to-left override": "a\u202eb",
    "isolate": "a\u2066b",
    "zero width joiner": "a\u200db",
    "line separator": "a\u2028b",
    "paragraph separator": "a\u2029b",
    "private use": "a\ue000b",
    "unassigned": "a\U000e0fffb",
    "noncharacter": "a\uffffb",
    "tag": "a\U000e0041b",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_harms_a_bus_a_log_or_a_terminal_is_replaced(text: str) -> None:
    assert clean(text) == f"a{REPLACEMENT}b"


def test_names_stay_as_they_are() -> None:
    for name in ("O'Brien-Smith, Zoë", "Łukasz Żółć", "李小龍", "עברית", "555012345678", "Δ 🙂"):
        assert clean(name) == name
        assert clean(name.encode()) == name


def test_an_escape_sequence_shows_as_harmless_text() -> None:
    assert clean("\x1b[2J\x1b]0;root\x07") == "�[2J�]0;root�"


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    assert clean(b"a\xff\xfeb\xed\xa0\x80").encode()  # can be put on the bus
    assert clean(b"\xff") == REPLACEMENT


@given(st.text(max_size=400) | st.binary(max_size=400))
def test_whatever_comes_in_what_comes_out_is_short_printable_and_stays_so(raw: str | bytes) -> None:
    text = clean(raw)
    assert len(text) <= LIMIT == 128
    text.encode("utf-8")
    assert all(unicodedata.category(each)[0] != "C" for each in text)
    assert "\0" not in text
    assert clean(text) == text


def secret() -> Secret:
    return Secret(bytearray(CANARY.encode()))


def test_no_way_of_looking_at_a_secret_shows_it() -> None:
    held = secret()
    views = [repr(held), str(held), f"{held}", f"{held!r:>40}", "%s" % held, f"{[held]}"]  # noqa: UP031
    assert not any(CANARY in view for view in views)
    for serialise in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError) as error:
            serialise(held)
        assert CANARY not in str(error.value)
    with pytest.raises(TypeError):
        json.dumps(held)
    with pytest.raises(AttributeError):
        held.__dict__  # noqa: B018 - there is none to look into


def test_no_exception_of_a_secret_shows_it() -> None:
    held = secret()
    for broken in (lambda: held.formed(4, 0xFF), lambda: held.formed(0, 0xFF)):
        with pytest.raises(ValueError) as error:
            broken()
        assert CANARY not in "".join(traceback.format_exception(error.value))


def test_a_secret_is_padded_with_what_was_asked_for() -> None:
    assert secret().formed(8, 0xFF) == CANARY.encode()
    assert secret().formed(12, 0x00) == CANARY.encode() + bytes(4)
    assert secret().formed(8, None) == secret().formed(12, None) == CANARY.encode()
    assert len(secret()) == 8


def test_a_wiped_secret_is_overwritten_where_it_lay_and_cannot_be_used() -> None:
    buffer = bytearray(CANARY.encode())
    with Secret(buffer) as held:
        assert not held.wiped
    assert held.wiped
    assert buffer == b""
    with pytest.raises(ValueError):
        held.formed(8, 0xFF)
    held.wipe()  # twice does no harm


def test_wiping_overwrites_before_it_forgets() -> None:
    seen: list[bytes] = []

    class Watched(bytearray):
        def clear(self) -> None:
            seen.append(bytes(self))
            super().clear()

    wipe(Watched(CANARY.encode()))
    assert seen == [bytes(8)]


def test_a_certificate_prints_no_der() -> None:
    assert "der" not in repr(Certificate("authentication", b"abc"))
