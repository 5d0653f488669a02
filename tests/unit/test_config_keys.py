"""Every key of the settings: what it takes at its limits, what it refuses, and with which words."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cryptography.x509 import ObjectIdentifier
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardsession import config
from cardsession.config import Config, ConfigError, reading, vocabulary
from cardsession.config.rules import Problems
from cardsession.core import filter as apdu_filter
from cardsession.core.facts import Remedy, Trust
from cardsession.core.passcode import NewPinRule
from cardsession.core.policy import Removal
from fakes.tomltext import VALUES, document, tables

CANARY = "73194682"
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def load(tmp_path: Path, text: str | bytes) -> Config:
    """What the daemon makes of a file with this text."""
    path = tmp_path / "site.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return config.load(path)


def refusal(tmp_path: Path, text: str) -> str:
    """Why it does not start with it."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return str(caught.value)


def outcome(tmp_path: Path, text: str | bytes) -> Config | str:
    """One or the other."""
    try:
        return load(tmp_path, text)
    except ConfigError as error:
        return str(error)


def test_the_defaults_are_the_documented_ones() -> None:
    """Those of the NHS where it has rules, else the cautious ones."""
    got = Config()
    assert (got.session.removal, got.session.grace_seconds) == (Removal.END, 900)
    assert (got.pin.change_days, got.pin.unblock) == (0, frozenset())
    pin = got.pin
    assert NewPinRule(pin.new_min_length, pin.new_max_length, pin.new_digits_only) == NewPinRule()
    assert got.card.temporary == frozenset()
    assert got.card.retired_series == {"01", "02", "03", "04", "05", "06"}
    assert got.card.declarations == Path("/etc/cardsession/cards.d")
    assert got.trust.anchors == Path("/etc/cardsession/anchors.d")
    assert got.trust.revocation == Path("/etc/cardsession/revocation.d")
    assert (got.trust.required_eku, got.trust.admit) == ((), frozenset())
    assert got.trust.accepted == set(Trust)
    assert set(got.contacts) == set(Remedy)
    assert not any(got.contacts.values())
    assert dict(got.transmit) == {}
    assert got.audit.retention_days == 365


NUMBERS = [
    ("session", "idle-seconds", 30, 86400),
    ("session", "max-age-seconds", 60, 604800),
    ("session", "grace-seconds", 10, 86400),
    ("pin", "new-min-length", 1, 64),
    ("pin", "new-max-length", 1, 64),
    ("pin", "change-days", 0, 3650),
    ("card", "renewal-days", 0, 3650),
    ("audit", "retention-days", 1, 3650),
]


@pytest.mark.parametrize(("section", "key", "low", "high"), NUMBERS)
def test_whole_numbers_to_their_limits(
    tmp_path: Path, section: str, key: str, low: int, high: int
) -> None:
    """Both limits are in, one beyond is out, and nothing else is a number."""
    other = {"new-min-length": "new-max-length = 64\n", "new-max-length": "new-min-length = 1\n"}
    for value in (low, high):
        text = f"[{section}]\n{other.get(key, '')}{key} = {value}"
        assert getattr(getattr(load(tmp_path, text), section), key.replace("-", "_")) == value
    expected = f"\n  {section}.{key}: expected a whole number from {low} to {high}, found "
    for written, found in (
        (low - 1, f"the number {low - 1}"),
        (high + 1, f"the number {high + 1}"),
        ("true", "a boolean"),
        (f"{low}.0", f"the number {float(low)}"),
        (f"'{low}'", "a text"),
        ("[]", "an empty list"),
        ("1979-05-27", "a date or time"),
    ):
        assert expected + found in refusal(tmp_path, f"[{section}]\n{key} = {written}")


@pytest.mark.parametrize(
    ("text", "key", "answer"),
    [
        ("[session]\nremoval = 'suspend'", "session.removal", 'one of "end", "lock", "keep", fo'),
        ("[session]\nremoval = 1", "session.removal", "found the number 1"),
        ("[session]\nremoval = ['end']", "session.removal", "found a list"),
        ("[pin]\nnew-digits-only = 1", "pin.new-digits-only", "true or false, found the number 1"),
        ("[pin]\nnew-digits-only = 'yes'", "pin.new-digits-only", "true or false, found a text"),
        ("[pin]\nunblock = 'piv'", "pin.unblock", 'names, such as ["piv"], found a text'),
        ("[pin]\nunblock = ['piv', 'PIV']", "pin.unblock.1", "a profile name (a-z, 0-9, hyphen)"),
        ("[pin]\nunblock = true", "pin.unblock", "found a boolean"),
        ("[card]\ntemporary = '00'", "card.temporary", 'such as ["00:1A:2B:3C"], found a text'),
        ("[card]\ntemporary = ['0']", "card.temporary.0", "1 to 64 bytes, two hexadecimal dig"),
        ("[card]\ntemporary = ['00', '']", "card.temporary.1", "found an empty text"),
        ("[card]\ntemporary = [' : ']", "card.temporary.0", "a serial number: 1 to 64 bytes"),
        ("[card]\ntemporary = ['0G']", "card.temporary.0", "a serial number"),
        ("[card]\ntemporary = ['\u0661\u0662']", "card.temporary.0", "a serial number"),
        (f"[card]\ntemporary = ['{'00' * 65}']", "card.temporary.0", "1 to 64 bytes"),
        ("[card]\ntemporary = [12]", "card.temporary.0", "found the number 12"),
        ("[card]\nretired-series = '01'", "card.retired-series", 'such as ["01", "02"]'),
        ("[card]\nretired-series = [1]", "card.retired-series.0", "1 to 16 printable characters"),
        ("[card]\nretired-series = ['']", "card.retired-series.0", "found an empty text"),
        (f"[card]\nretired-series = ['{'1' * 17}']", "card.retired-series.0", "1 to 16"),
        ("[card]\ndeclarations = 'cards.d'", "card.declarations", "an absolute path, such as"),
        ("[card]\ndeclarations = ''", "card.declarations", "found an empty text"),
        ('[card]\ndeclarations = "/a\\u0000b"', "card.declarations", "an absolute path"),
        (f"[card]\ndeclarations = '/{'x' * 1024}'", "card.declarations", "an absolute path"),
        ("[card]\ndeclarations = ['/etc']", "card.declarations", "found a list"),
        ("[trust]\nanchors = './a'", "trust.anchors", "an absolute path"),
        ("[trust]\nanchors = 7", "trust.anchors", "found the number 7"),
        ("[trust]\nrevocation = '~/a'", "trust.revocation", "an absolute path"),
        ("[trust]\nrevocation = {}", "trust.revocation", "found an empty table"),
        ("[trust]\nrequired-eku = '1.3.6'", "trust.required-eku", "a list of object identifiers"),
        ("[trust]\nrequired-eku = ['smartcardLogon']", "trust.required-eku.0", "in digits, such"),
        ("[trust]\nrequired-eku = ['1']", "trust.required-eku.0", "an object identifier"),
        ("[trust]\nrequired-eku = ['1.3.']", "trust.required-eku.0", "an object identifier"),
        ("[trust]\nrequired-eku = ['1.03']", "trust.required-eku.0", "an object identifier"),
        ("[trust]\nrequired-eku = ['3.1']", "trust.required-eku.0", "an object identifier"),
        ("[trust]\nrequired-eku = ['1.40']", "trust.required-eku.0", "an object identifier"),
        ("[trust]\nrequired-eku = [1.3]", "trust.required-eku.0", "found the number 1.3"),
        ("[trust]\nrequired-eku = ['1.\u0663']", "trust.required-eku.0", "an object identifier"),
        (f"[trust]\nrequired-eku = ['1.3{'.1' * 31}']", "trust.required-eku.0", "identifier"),
        ("[trust]\nadmit = 'sha1'", "trust.admit", 'a list of "sha1", "rsa-1024", found a text'),
        ("[trust]\nadmit = ['md5']", "trust.admit.0", 'one of "sha1", "rsa-1024", found a text'),
        ("[trust]\naccepted = []", "trust.accepted", "no card could be used, found an empty list"),
        ("[trust]\naccepted = ['any']", "trust.accepted.0", 'one of "trusted", "untrusted", "exp'),
        ("[trust]\naccepted = 'trusted'", "trust.accepted", "a list of at least one of"),
        ("contacts = 'desk'", "contacts", 'the remedies are "renew", "self-unlock"'),
        ("[contacts]\nrenew = ''", "contacts.renew", "printable characters, found an empty text"),
        ("[contacts]\nrenew = 112", "contacts.renew", "found the number 112"),
        ('[contacts]\nrenew = "a\\nb"', "contacts.renew", "printable characters, found a text"),
        (f"[contacts]\nrenew = '{'x' * 201}'", "contacts.renew", "printable characters"),
        ("transmit = ['F8']", "transmit", 'such as piv = ["F8"], found a list'),
        ("[transmit]\npiv = 'F8'", "transmit.piv", 'such as ["F8"], found a text'),
        ("[transmit]\nPIV = ['F8']", "transmit.PIV", "a key that is a profile name (a-z, 0-9"),
        ("[transmit]\npiv = [0xF8]", "transmit.piv.0", "found the number 248"),
        ("[transmit]\npiv = ['F8', '8']", "transmit.piv.1", "an instruction in two hexadecimal"),
        ("[transmit]\npiv = ['F 8']", "transmit.piv.0", "found a text"),
        ("[transmit]\npiv = ['FFF']", "transmit.piv.0", "found a text"),
        ("[transmit]\npiv = ['6A']", "transmit.piv.0", "found 6A, which is no instruction"),
        ("[transmit]\npiv = ['9f']", "transmit.piv.0", "found 9F, which is no instruction"),
    ],
)
def test_refusals_name_the_key_and_what_it_takes(
    tmp_path: Path, text: str, key: str, answer: str
) -> None:
    """Wrong type, out of range, wrong form."""
    message = refusal(tmp_path, text)
    assert message.count("\n") == 1
    assert f"\n  {key}: expected " in message
    assert answer in message


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("[session]\nremove = 'end'", "session.remove: unknown key; did you mean session.removal?"),
        ("[pin]\nmin-length = 4", "pin.min-length: unknown key; did you mean pin.new-min-length?"),
        ("[card]\nanchor = '/a'", "card.anchor: unknown key; did you mean trust.anchors?"),
        ("[trust]\naccept = []", "trust.accept: unknown key; did you mean trust.accepted?"),
        ("[audit]\nenabled = true", "audit.enabled: unknown key"),
        ("[contacts]\nself-unlok = 'x'", "self-unlok: unknown key; did you mean contacts.self-un"),
        ("[contacts]\ndesk = 'x'", "contacts.desk: unknown key"),
        ("[session]\nself-unlock = 'x'", "self-unlock: unknown key; did you mean contacts.self-"),
        ("[transmits]\npiv = []", "transmits: unknown section; did you mean [transmit]?"),
        ("[contact]\nrenew = 'x'", "contact: unknown section; did you mean [contacts]?"),
        ('[pin]\n"a.unblock" = []', "pin.a.unblock: unknown key; did you mean pin.unblock?"),
    ],
)
def test_unknown_keys_of_the_new_sections(tmp_path: Path, text: str, answer: str) -> None:
    """A typo is not a default, and the nearest key is named."""
    assert answer in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (
            "new-min-length = 9\nnew-max-length = 8",
            "expected at most pin.new-max-length, which is 8, found the number 9",
        ),
        (
            "new-min-length = 9",
            "expected at most pin.new-max-length, which is 8, found the number 9",
        ),
        (
            "new-max-length = 5",
            "expected at most pin.new-max-length, which is 5, found the number 6, its default",
        ),
    ],
)
def test_the_shortest_passcode_is_no_longer_than_the_longest(
    tmp_path: Path, text: str, answer: str
) -> None:
    """Else no passcode could be set at all; either of the two may be the default."""
    assert refusal(tmp_path, f"[pin]\n{text}").endswith(
        f"1 problem\n  pin.new-min-length: {answer}"
    )


def test_lengths_that_are_equal_agree_and_wrong_ones_are_told_once(tmp_path: Path) -> None:
    """A value that is refused by itself is not compared as well."""
    pin = load(tmp_path, "[pin]\nnew-min-length = 8").pin
    assert (pin.new_min_length, pin.new_max_length) == (8, 8)
    message = refusal(tmp_path, "[pin]\nnew-min-length = 9\nnew-max-length = 0\nunblock = 1")
    assert "2 problems" in message
    assert "at most" not in message


def test_a_serial_number_is_written_as_one_likes(tmp_path: Path) -> None:
    """One card, however it was copied from the bus, a label or another program."""
    written = ["0a1b2c", "0A:1B:2C", "0A-1B-2C", "0A 1B 2C", "0A.1B.2C", "0a_1b_2c"]
    got = load(tmp_path, f"[card]\ntemporary = {written}")
    assert got.card.temporary == {"0A1B2C"}


@pytest.mark.parametrize("ins", ["20", "21", "24", "25", "2C", "2D", "26", "27", "28", "29"])
def test_instructions_that_touch_a_passcode_are_refused_by_name(tmp_path: Path, ins: str) -> None:
    """However they are written; the technician reads what the two digits mean."""
    names = {"20": "VERIFY", "24": "CHANGE REFERENCE DATA", "2C": "RESET RETRY COUNTER"}
    for written in (ins, ins.lower()):
        message = refusal(tmp_path, f"[transmit]\npiv = ['F8', '{written}']")
        assert "transmit.piv.1: expected an instruction " in message
        assert "spends no try, changes no passcode" in message
        assert f"found {ins}, " in message
        assert names.get(ins, "") in message


def test_what_transmit_never_carries_cannot_be_configured(tmp_path: Path) -> None:
    """The filter's list is ours: a setting that it would ignore is refused, all others arrive."""
    taken = set()
    for ins in range(256):
        got = outcome(tmp_path, f"[transmit]\npiv = ['{ins:02x}']")
        if isinstance(got, Config):
            taken |= got.transmit["piv"]
            continue
        name = vocabulary.FORBIDDEN.get(ins & 0xFE, "which is no instruction")
        assert got.endswith(f"found {ins:02X}, {name}")
        assert (ins & 0xFE in vocabulary.FORBIDDEN) != (ins >> 4 in {6, 9})
    assert taken == set(range(256)) - apdu_filter.NEVER


@pytest.mark.parametrize("remedy", Remedy)
def test_every_remedy_has_its_contact(tmp_path: Path, remedy: Remedy) -> None:
    """At full length; a longer one, which the remedies would leave out, is refused."""
    text = "ä" * vocabulary.CONTACT_LIMIT
    got = load(tmp_path, f"[contacts]\n{remedy} = '{text}'")
    assert got.contacts[remedy] == text
    assert sum(map(bool, got.contacts.values())) == 1
    assert f"contacts.{remedy}: expected" in refusal(tmp_path, f"[contacts]\n{remedy} = '{text}x'")


def test_a_passcode_in_the_wrong_place_is_not_repeated(tmp_path: Path) -> None:
    """Whichever key it was given to."""
    for row in config.describe():
        section, _, key = row.key.partition(".")
        for value in (f"'{CANARY}'", f"['{CANARY}']", f"{{ renew = ['{CANARY}'] }}"):
            text = f"[{section}]\n{key} = {value}" if key else f"{section} = {value}"
            got = outcome(tmp_path, text)
            assert isinstance(got, Config) or CANARY not in got


@PATIENT
@given(st.text("0123456789.", max_size=80) | st.from_regex(r"[0-2](\.[0-9]{1,12}){1,20}"))
def test_an_object_identifier_that_is_taken_can_be_used(text: str) -> None:
    """What cryptography would refuse later, in the middle of a session, is refused here."""
    if vocabulary._is_oid(text):
        assert ObjectIdentifier(text).dotted_string == text


KNOWN = {"contacts": list(Remedy), "transmit": ["piv"]} | {
    section.name: list(reading._keys(section))
    for section in reading.fields(Config)
    if not reading._rule(section)
}


@PATIENT
@given(tables(KNOWN))
def test_no_table_does_anything_but_load_or_refuse(found: dict[str, object]) -> None:
    """Anything that TOML can say, by way of TOML; and a refusal is for a terminal."""
    problems = Problems()
    try:
        content = tomllib.loads(document(found))
    except tomllib.TOMLDecodeError:  # an inline table with a name twice, after escaping
        pytest.fail(f"the test writes bad TOML: {document(found)!r}")
    got = reading.settings_of(content, problems)
    assert all(key.isprintable() and text.isprintable() for key, text in problems)
    if not problems:
        assert hash(got) == hash(reading.settings_of(content, problems))


@PATIENT
@given(
    st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="replace"))
)
def test_no_file_does_anything_but_load_or_refuse(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Noise: it is no TOML, or has unknown keys, or is empty."""
    path = tmp_path_factory.getbasetemp()
    got = outcome(path, content)
    assert got == Config() or str(got).startswith(f"{path / 'site.toml'}: ")


@PATIENT
@given(st.sampled_from(list(KNOWN["trust"] + KNOWN["pin"] + KNOWN["card"])), VALUES)
def test_one_key_with_any_value(key: str, value: object) -> None:
    """One at a time, so that most of what is tried reaches the rule of that key."""
    section = next(name for name, keys in KNOWN.items() if key in keys)
    problems = Problems()
    reading.settings_of(tomllib.loads(document({section: {key: value}})), problems)
    assert len(problems) <= 40


def test_the_reference_is_complete_and_true() -> None:
    """Every key has a row; its defaults, written to a file, change nothing."""
    rows = list(config.describe())
    assert len(rows) == 28
    assert len({row.key for row in rows}) == len(rows)
    assert all(row.type and row.meaning.endswith(".") for row in rows)
    lines = "\n".join(f"{row.key} = {row.default}" for row in rows)
    settings = reading.settings_of(tomllib.loads(lines), problems := Problems())
    assert (settings, list(problems)) == (Config(), [])


def test_the_reference_is_a_file_that_changes_nothing() -> None:
    text = config.reference()
    settings = reading.settings_of(tomllib.loads(text), problems := Problems())
    assert (settings, list(problems)) == (Config(), [])
    for row in config.describe():
        assert f"{row.key.rpartition('.')[2]} = {row.default}\n" in text
    assert max(map(len, text.splitlines())) <= 120


def test_the_reference_writes_every_type_as_toml() -> None:
    """Booleans, paths, sets in order, tables, tuples, and a limit that is another key."""
    rows = {row.key: row for row in config.describe()}
    assert rows["pin.new-digits-only"].default == "true"
    assert rows["card.declarations"].default == '"/etc/cardsession/cards.d"'
    assert rows["card.retired-series"].default == '["01", "02", "03", "04", "05", "06"]'
    assert tomllib.loads(f"a = {rows['trust.accepted'].default}") == {"a": sorted(Trust)}
    assert rows["session.removal"].default == '"end"'
    assert rows["trust.required-eku"].default == "[]"
    assert rows["contacts"].default == "{}"
    assert rows["transmit"].default == "{}"
    assert rows["readers.stuck-seconds"].default == "10"
    assert rows["pin.new-min-length"].type.endswith("from 1 to 64, at most pin.new-max-length")
    assert reading._toml({"piv": frozenset({"F8"}), "x": ""}) == '{ "piv" = ["F8"] }'
    assert reading._toml((1, 2.5, False)) == "[1, 2.5, false]"
    with pytest.raises(TypeError):
        reading._toml(None)


def test_settings_do_not_import_cryptography() -> None:
    """It costs 50 ms and 9 MiB; whoever only reads settings has no use for it."""
    code = (
        "import sys, cardsession.config, cardsession.declarations;"
        "sys.exit(bool({'cryptography', 'asyncio', 'difflib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0
