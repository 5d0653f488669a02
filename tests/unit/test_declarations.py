"""The site's card declarations: every key of a file, good and bad, and the words for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cardsession import declarations
from cardsession.cards.declaration import READINGS, Declaration, Sighting, applies, matching
from cardsession.declarations import CRITERIA, FACTS, KEYS, Loaded

EXAMPLE = Path(__file__).parent / "cards.d"
GOOD = '[[card]]\nprofile = "piv"\nseries = "09"\n'


def loaded(tmp_path: Path, *texts: str | bytes) -> Loaded:
    """What is made of a directory with these files: 0.toml, 1.toml and so on."""
    directory = tmp_path / "cards.d"
    directory.mkdir(exist_ok=True)
    for at, text in enumerate(texts):
        content = text.encode() if isinstance(text, str) else text
        (directory / f"{at}.toml").write_bytes(content)
    return declarations.load(directory)


def card(tmp_path: Path, text: str) -> Declaration:
    """The one declaration with these lines."""
    got = loaded(tmp_path, f"[[card]]\n{text}")
    assert got.problems == ()
    (found,) = got.declarations
    return found


def refusal(tmp_path: Path, text: str | bytes) -> str:
    """Why a file is not used: its name, and what is wrong with it."""
    got = loaded(tmp_path, text)
    assert got.declarations == ()
    (problem,) = got.problems
    assert problem.startswith(f"{tmp_path / 'cards.d' / '0.toml'}: ")
    return problem


def test_the_example_is_understood() -> None:
    """Every file in the order of the names, every table in the order of the file."""
    got = declarations.load(EXAMPLE)
    assert got.problems == ()
    retired, vending, current, member, first = got.declarations
    assert retired.atr == bytes.fromhex("3B6A00FF4A434F50343156323231")
    assert (retired.series, retired.nhs) == ("04", True)
    assert retired.source == "the site: 10-site.toml"
    assert (len(vending.atr), vending.atr_mask[-3:]) == (16, b"\xff\0\0")
    assert vending.by_atr_alone
    assert vending.read_as == "unknown"
    assert (current.profile, current.serial_prefix, current.series) == ("piv", "D4E7", "09")
    assert current.source == "the issuer's letter of 3 March 2026"
    assert member.asking_is_free is True
    assert member.aid == first.application == bytes.fromhex("A000000063504B43532D3135")
    assert (dict(member.mechanisms), first.by_atr_alone) == ({"rsa-pkcs1": 2}, True)
    assert (member.manufacturer, member.label) == ("Example Cards Ltd", "Member card")
    assert dict(member.labels) == {"PIN": "user", "81": "signature"}


def test_the_example_says_something_of_cards() -> None:
    """As the cards' room matches it, not only as it is kept."""
    found = declarations.load(EXAMPLE).declarations
    atr = bytes.fromhex("3BF91800008131FE454A000000000102")
    assert matching(found, Sighting(atr=atr)).read_as == "unknown"
    assert matching(found, Sighting(profile="piv", serial="d4e70001")).series == "09"
    assert matching(found, Sighting(profile="piv", serial="d4e60001")).series == ""


def test_every_fact_and_criterion_has_its_key() -> None:
    """What the cards' room can use, a site can write."""
    names = {item.name.replace("_", "-") for item in dataclasses.fields(Declaration)}
    assert names == set(KEYS)
    assert set(KEYS) == {*CRITERIA, *FACTS, "atr-mask", "source"}


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("atr = '3b00'", "atr", b"\x3b\x00"),
        ("atr = '3F:00 01-02'", "atr", b"\x3f\x00\x01\x02"),
        (f"atr = '3B{'00' * 32}'", "atr", b"\x3b" + bytes(32)),
        ("aid = 'A0 00 00 03 08'", "aid", bytes.fromhex("A000000308")),
        (f"aid = '{'AB' * 16}'", "aid", b"\xab" * 16),
        ("manufacturer = 'Gemalto é'", "manufacturer", "Gemalto é"),
        (f"label = '{'x' * 128}'", "label", "x" * 128),
        ("serial-prefix = 'a'", "serial_prefix", "A"),
        ("serial-prefix = 'd4:e7'", "serial_prefix", "D4E7"),
        ("profile = 'pkcs15'", "profile", "pkcs15"),
    ],
)
def test_criteria_arrive(tmp_path: Path, line: str, name: str, value: object) -> None:
    """Bytes with spaces and colons or without, of either case; and the card is found by it."""
    got = card(tmp_path, f"{line}\nnhs = false")
    assert getattr(got, name) == value
    atr = got.atr or b"\x3b\x01"
    aids = [got.aid + b"\x01"] if got.aid else []
    seen = Sighting(
        atr=atr,
        aids=aids,
        manufacturer=got.manufacturer,
        label=got.label,
        serial=got.serial_prefix + "0",
        profile=got.profile,
    )
    assert applies(got, seen)


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("asking-is-free = true\nsource = 'manual'", "asking_is_free", True),
        ("asking-is-free = false\nsource = 'manual'", "asking_is_free", False),
        ("series = '1'", "series", "1"),
        (f"series = '{'A' * 16}'", "series", "A" * 16),
        ("nhs = true", "nhs", True),
        ("nhs = false", "nhs", False),
        (
            "labels = { 'PIN 1' = 'user', 82 = 'qualified-signature-2' }",
            "labels",
            {"PIN 1": "user", "82": "qualified-signature-2"},
        ),
        (
            "application = 'A000000063504B43532D3135'",
            "application",
            bytes.fromhex("A000000063504B43532D3135"),
        ),
        (
            "mechanisms = { rsa-raw = '0f', ecdsa = '00' }",
            "mechanisms",
            {"rsa-raw": 15, "ecdsa": 0},
        ),
        *[(f"read-as = '{each}'", "read_as", each) for each in sorted(READINGS - {""})],
    ],
)
def test_facts_arrive(tmp_path: Path, line: str, name: str, value: object) -> None:
    """One fact is enough; the others stay open."""
    got = card(tmp_path, f"atr = '3B00'\n{line}")
    assert getattr(got, name) == value
    empty = Declaration(source="x")
    for other in {each.replace("-", "_") for each in FACTS} - {name}:
        assert getattr(got, other) == getattr(empty, other)


def test_a_pin_is_named_by_its_reference_in_either_case(tmp_path: Path) -> None:
    """A label of its own that looks like a reference keeps its case."""
    got = card(tmp_path, "atr = '3B00'\nlabels = { '8a' = 'a', 'pin' = 'b' }")
    assert dict(got.labels) == {"8A": "a", "8a": "a", "pin": "b"}


def test_declarations_do_not_change(tmp_path: Path) -> None:
    """Frozen, down to the table of labels."""
    got = card(tmp_path, "atr = '3B00'\nlabels = { a = 'b' }")
    with pytest.raises(TypeError):
        got.labels["c"] = "d"  # type: ignore[index]


@pytest.mark.parametrize(
    ("line", "key", "answer"),
    [
        ("atr = 5", "atr", "an ATR that begins with 3B or 3F: 2 to 33 bytes, two hexadecimal di"),
        ("atr = ''", "atr", "found an empty text"),
        ("atr = '3B'", "atr", "2 to 33 bytes"),
        (f"atr = '3B{'00' * 33}'", "atr", "2 to 33 bytes"),
        ("atr = '3B0'", "atr", "two hexadecimal digits each"),
        ("atr = '3B0G'", "atr", "two hexadecimal digits each"),
        ("atr = '4B00'", "atr", "begins with 3B or 3F"),
        ("atr-mask = '0000'", "atr-mask", "an ATR mask that leaves something to compare"),
        ("atr-mask = ['FF']", "atr-mask", "found a list"),
        ("atr-mask = 'FFFFFF'", "atr-mask", "expected 2 bytes as in atr, found 3"),
        ("aid = 'A0000003'", "aid", "an application identifier (AID): 5 to 16 bytes"),
        (f"aid = '{'AB' * 17}'", "aid", "5 to 16 bytes"),
        ("aid = true", "aid", "found a boolean"),
        ("application = 'A0'", "application", "5 to 16 bytes"),
        ("application = {}", "application", "found an empty table"),
        ("manufacturer = ''", "manufacturer", "1 to 128 printable characters"),
        (f"manufacturer = '{'x' * 129}'", "manufacturer", "1 to 128 printable characters"),
        ("manufacturer = 1", "manufacturer", "found the number 1"),
        ('label = "a\\tb"', "label", "1 to 128 printable characters"),
        ("label = []", "label", "found an empty list"),
        ("serial-prefix = ''", "serial-prefix", "1 to 128 hexadecimal digits of a serial number"),
        ("serial-prefix = 'xyz'", "serial-prefix", "hexadecimal digits"),
        (f"serial-prefix = '{'0' * 129}'", "serial-prefix", "1 to 128"),
        ("serial-prefix = 12", "serial-prefix", "found the number 12"),
        ("profile = 'PIV'", "profile", "a profile name (a-z, 0-9, hyphen)"),
        ("profile = ['piv']", "profile", "found a list"),
        ("asking-is-free = 'yes'\nsource = 'x'", "asking-is-free", "true or false, found a text"),
        ("asking-is-free = 1\nsource = 'x'", "asking-is-free", "found the number 1"),
        (
            "asking-is-free = false",
            "source",
            "expected a text, as asking-is-free is given: known from",
        ),
        ("source = ''", "source", "1 to 400 printable characters"),
        ("source = 2026-03-03", "source", "found a date or time"),
        (f"source = '{'x' * 401}'", "source", "1 to 400 printable characters"),
        ("series = ''", "series", "1 to 16 printable characters"),
        (f"series = '{'1' * 17}'", "series", "1 to 16 printable characters"),
        ("series = 9", "series", "found the number 9"),
        ("nhs = 'no'", "nhs", "true or false"),
        ("labels = 'user'", "labels", 'such as "81" = "signature", found a text'),
        ("labels = { PIN = 'User' }", "labels.PIN", "1 to 32 of a-z, 0-9, hyphen"),
        ("labels = { PIN = '' }", "labels.PIN", "found an empty text"),
        (f"labels = {{ PIN = '{'a' * 33}' }}", "labels.PIN", "1 to 32 of"),
        ("labels = { PIN = 1 }", "labels.PIN", "found the number 1"),
        ('labels = { "" = "user" }', "labels.", "a key that is 1 to 128 printable characters"),
        ('labels = { "\\u001B" = "user" }', "labels.'\\x1b'", "a key that is 1 to 128 printable"),
        ("mechanisms = ['02']", "mechanisms", '"ecdsa" = the card\'s reference of it, such as'),
        ("mechanisms = { rsa-raw = 2 }", "mechanisms.rsa-raw", "digits, found the number 2"),
        ("mechanisms = { rsa-raw = '2' }", "mechanisms.rsa-raw", "two hexadecimal digits"),
        ("read-as = 'openpgp'", "read-as", 'one of "piv", "pkcs15", "unknown", found a text'),
        ("read-as = ''", "read-as", "found an empty text"),
        ("read-as = 'piv'\nprofile = 'piv'", "read-as", "atr and no other criterion"),
    ],
)
def test_a_wrong_value_is_told_with_key_and_expectation(
    tmp_path: Path, line: str, key: str, answer: str
) -> None:
    """Wrong type, out of range, wrong form, or at odds with another key."""
    atr = "" if line.startswith("atr =") else "atr = '3B00'\n"
    fact = "" if line.startswith("nhs") else "nhs = true\n"
    message = refusal(tmp_path, f"[[card]]\n{atr}{fact}{line}")
    assert ": 1 problem\n" in message
    assert f"\n  card.0.{key}: expected " in message
    assert answer in message


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("[[card]]\nseries = '09'", "card.0: expected a criterion, at least one of atr, aid"),
        ("[[card]]\nread-as = 'piv'", "card.0.read-as: expected beside atr"),
        (
            "[[card]]\nprofile = 'pkcs15'\napplication = 'A000000308'",
            "card.0.application: expected beside atr and no other criterion: it is needed before",
        ),
        ("[[card]]\natr-mask = 'FF00'\nnhs = true", "card.0.atr-mask: expected beside atr only"),
        ("[[card]]\nprofile = 'piv'", "card.0: expected a fact, at least one of asking-is-free"),
        ("[[card]]\nprofile = 'piv'\nlabels = {}", "card.0: expected a fact"),
        ("[[card]]\nprofile = 'piv'\nsource = 'x'", "card.0: expected a fact"),
        ("[[card]]", "card.0: expected a criterion"),
        (
            GOOD + "[[card]]\natr = '3B00'\nserie = '9'",
            "card.1.serie: unknown key; did you mean card.1.series?",
        ),
        (
            "[[card]]\naskingisfree = true",
            "card.0.askingisfree: unknown key; did you mean card.0.asking-is-free?",
        ),
        (
            "[[card]]\nserial_prefix = 'A'",
            "card.0.serial_prefix: unknown key; did you mean card.0.serial-prefix?",
        ),
        (
            "[[card]]\natr = '3B00'\nmechanisms = { rsa = '02' }",
            "card.0.mechanisms.rsa: unknown key; did you mean card.0.mechanisms.rsa-raw?",
        ),
        ("[[card]]\nqqqq = 1", "card.0.qqqq: unknown key\n"),
        ("[[cards]]\nprofile = 'piv'", "cards: unknown key; did you mean [[card]]?"),
        ("series = '09'", "series: unknown key; did you mean series, below a line [[card]]?"),
        ("[card]\nprofile = 'piv'", "card: expected tables, [[card]], found a table"),
        ("card = 1", "card: expected tables, [[card]], found the number 1"),
        ("card = [1, {}]", "card.0: expected a table, [[card]], found the number 1"),
        ('"\\u001B[2J" = 1', "'\\x1b[2J': unknown key"),
    ],
)
def test_what_a_table_must_have(tmp_path: Path, text: str, answer: str) -> None:
    """Which cards, what of them, and no key that nobody knows."""
    assert f"\n  {answer}" in refusal(tmp_path, text) + "\n"


def test_all_problems_of_a_file_at_once(tmp_path: Path) -> None:
    """Of all its tables."""
    message = refusal(tmp_path, "[[card]]\natr = 1\nnhs = 2\n[[card]]\nx = 3\n")
    keys = [line.split(":")[0].strip() for line in message.splitlines()[1:]]
    assert keys == ["card.0.atr", "card.0.nhs", "card.1.x"]
    assert "3 problems" in message


def test_a_value_is_never_repeated(tmp_path: Path) -> None:
    """Somebody will put a passcode where it does not belong."""
    canary = "73194682"
    lines = (f'{key} = ["{canary}"]\n' for key in KEYS)
    assert canary not in refusal(tmp_path, "[[card]]\n" + "".join(lines))
