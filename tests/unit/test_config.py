"""The settings: what is accepted, and that everything else refuses to start and says why."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from cardsession import config
from cardsession.config import (
    CardConfig,
    Config,
    ConfigError,
    Hold,
    LogFormat,
    LogLevel,
    PinConfig,
    SpendLastTry,
    TrustConfig,
)
from cardsession.core.facts import Remedy, Trust
from cardsession.core.policy import Removal
from cardsession.core.trust_rules import Legacy

CANARY = "73194682"


def written(tmp_path: Path, text: str | bytes) -> Path:
    """A settings file with that content."""
    path = tmp_path / "site.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(tmp_path: Path, text: str | bytes) -> str:
    """What the daemon says about that file before it refuses to start."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message


FULL = """
[session]
idle-seconds = 30
max-age-seconds = 604800
hold = "shared"
spend-last-try = "never"
removal = "lock"
grace-seconds = 10
accept-unknown = ["piv", "pkcs15"]
[pin]
new-min-length = 64
new-max-length = 64
new-digits-only = false
change-days = 3650
unblock = ["piv"]
[card]
renewal-days = 0
temporary = ["00:1a-2b 3C", "d4e7"]
retired-series = []
declarations = "/srv/cards"
[trust]
anchors = "/srv/anchors"
revocation = "/srv/lists"
required-eku = ["1.3.6.1.4.1.311.20.2.2", "2.999.4294967295"]
admit = ["rsa-1024", "sha1"]
accepted = ["trusted", "not-checked"]
[contacts]
self-unlock = "Self-service desk, 01234 567 890"
[transmit]
piv = ["F8", "cb"]
other-card = []
[readers]
stuck-seconds = 7.5
[readers.labels]
"Virtual PCD 00 00" = "Schalter 1 (links), Straße"
"1-2.4_0" = "till"
[audit]
retention-days = 1
[log]
level = "debug"
format = "json"
"""


def test_every_key_arrives(tmp_path: Path) -> None:
    """One file with all keys, limits included, each as the type that its room uses."""
    got = config.load(written(tmp_path, FULL))
    assert got.session.idle_seconds == 30
    assert got.session.max_age_seconds == 604800
    assert got.session.hold is Hold.SHARED
    assert got.session.spend_last_try is SpendLastTry.NEVER
    assert got.session.accept_unknown == {"piv", "pkcs15"}
    assert (got.session.removal, got.session.grace_seconds) == (Removal.LOCK, 10)
    assert got.pin == PinConfig(64, 64, False, 3650, frozenset({"piv"}))
    assert got.card == CardConfig(
        0, frozenset({"001A2B3C", "D4E7"}), frozenset(), Path("/srv/cards")
    )
    assert got.trust == TrustConfig(
        Path("/srv/anchors"),
        Path("/srv/lists"),
        ("1.3.6.1.4.1.311.20.2.2", "2.999.4294967295"),
        frozenset(Legacy),
        frozenset({Trust.TRUSTED, Trust.NOT_CHECKED}),
    )
    assert got.contacts[Remedy.SELF_UNLOCK] == "Self-service desk, 01234 567 890"
    assert got.contacts[Remedy.RENEW] == ""
    assert dict(got.transmit) == {"piv": {0xF8, 0xCB}, "other-card": frozenset()}
    assert got.audit.retention_days == 1
    assert got.readers.stuck_seconds == 7.5
    assert dict(got.readers.labels) == {
        "Virtual PCD 00 00": "Schalter 1 (links), Straße",
        "1-2.4_0": "till",
    }
    assert (got.log.level, got.log.format) == (LogLevel.DEBUG, LogFormat.JSON)


def test_defaults(tmp_path: Path) -> None:
    """No file, an empty one and no argument mean the same; only a named file must exist."""
    absent = tmp_path / "absent.toml"
    assert config.load(None, default=absent) == Config() == config.load(written(tmp_path, ""))
    assert Config().session.idle_seconds == 900
    assert Config().session.max_age_seconds == 43200
    with pytest.raises(ConfigError, match="there is none"):
        config.load(absent)


def test_the_default_file_is_read_if_there_is_one(tmp_path: Path) -> None:
    """And a link to nowhere is not "no file": somebody meant something by it."""
    path = written(tmp_path, "[card]\nrenewal-days = 7\n")
    assert config.load(None, default=path).card.renewal_days == 7
    dangling = tmp_path / "link.toml"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="there is none"):
        config.load(None, default=dangling)


def test_settings_do_not_change_after_the_start(tmp_path: Path) -> None:
    """Frozen, down to the table of labels."""
    got = config.load(written(tmp_path, FULL))
    with pytest.raises(dataclasses.FrozenInstanceError):
        got.session.idle_seconds = 1  # type: ignore[misc]
    for table in (got.readers.labels, got.contacts, got.transmit):
        with pytest.raises(TypeError):
            table["x"] = "y"  # type: ignore[index]
    assert hash(got) == hash(config.load(written(tmp_path, FULL)))


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("[session]\nidle-seconds = 29", "session.idle-seconds", "from 30 to 86400, found the"),
        ("[session]\nidle-seconds = 86401", "session.idle-seconds", "from 30 to 86400"),
        ("[session]\nidle-seconds = true", "session.idle-seconds", "whole number"),
        ("[session]\nidle-seconds = 900.0", "session.idle-seconds", "whole number"),
        ("[session]\nidle-seconds = '900'", "session.idle-seconds", "found a text"),
        ("[session]\nidle-seconds = 0x" + "f" * 9000, "session.idle-seconds", "a huge number"),
        ("[session]\nmax-age-seconds = 59", "session.max-age-seconds", "from 60 to 604800"),
        ("[session]\nhold = 'exclusve'", "session.hold", '"exclusive", "shared"'),
        ("[session]\nhold = ['shared']", "session.hold", "found a list"),
        ("[session]\nspend-last-try = 1", "session.spend-last-try", '"caller"'),
        ("[session]\naccept-unknown = 'piv'", "session.accept-unknown", "a list of"),
        ("[session]\naccept-unknown = ['piv', 3]", "session.accept-unknown.1", "a profile name"),
        ("[session]\naccept-unknown = ['']", "session.accept-unknown.0", "a profile name"),
        ("[session]\naccept-unknown = [['piv']]", "session.accept-unknown.0", "found a list"),
        ("[card]\nrenewal-days = -1", "card.renewal-days", "from 0 to 3650"),
        ("[card]\nrenewal-days = 1979-05-27", "card.renewal-days", "found a date"),
        ("[readers]\nstuck-seconds = nan", "readers.stuck-seconds", "from 6 to 300"),
        ("[readers]\nstuck-seconds = inf", "readers.stuck-seconds", "from 6 to 300"),
        ("[readers]\nstuck-seconds = false", "readers.stuck-seconds", "a number"),
        ("[readers]\nlabels = []", "readers.labels", "a table"),
        ("[readers.labels]\na = 5", "readers.labels.a", "printable"),
        ("[readers.labels]\na = ''", "readers.labels.a", "printable"),
        ('[readers.labels]\na = "x\\u001B[2J"', "readers.labels.a", "printable"),
        (f"[readers.labels]\na = '{'x' * 129}'", "readers.labels.a", "1 to 128"),
        ('[readers.labels]\n"\\u001B" = "x"', "readers.labels.'\\x1b'", "a key that is 1 to 128"),
        ("[log]\nlevel = 'INFO'", "log.level", '"info"'),
        ("[log]\nformat = {}", "log.format", "found an empty table"),
        ("session = 3", "session", "a table, [session]"),
        ("[[session]]\nhold = 'shared'", "session", "found a list"),
    ],
)
def test_wrong_values_name_key_and_expectation(
    tmp_path: Path, text: str, key: str, expected: str
) -> None:
    """File, dotted key, what was expected, what was found."""
    message = refusal(tmp_path, text)
    assert f"\n  {key}: expected " in message
    assert expected in message


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (
            "[session]\nidle-secnds = 5",
            "session.idle-secnds: unknown key; did you mean session.idle",
        ),
        ("[session]\nidle_seconds = 5", "did you mean session.idle-seconds?"),
        ("[session]\nrenewal-days = 5", "did you mean card.renewal-days?"),
        ("renewal-days = 5", "renewal-days: unknown key; did you mean card.renewal-days?"),
        ("[sesion]\nhold = 'shared'", "sesion: unknown section; did you mean [session]?"),
        ("[session]\nqqqq = 5", "session.qqqq: unknown key"),
        ('[session]\n"\\u001B[2J" = 5', "'\\x1b[2J': unknown key"),
    ],
)
def test_unknown_keys_are_refused_and_the_nearest_is_named(
    tmp_path: Path, text: str, answer: str
) -> None:
    """A typo is not a default."""
    assert answer in refusal(tmp_path, text)


def test_all_problems_at_once(tmp_path: Path) -> None:
    """Nobody restarts a service five times to learn of five mistakes."""
    message = refusal(
        tmp_path, "[session]\nidle-seconds = 1\nhold = 'x'\n[log]\nlvl = 'info'\n[bogus]\n"
    )
    assert "4 problems" in message
    for key in ("session.idle-seconds", "session.hold", "log.lvl", "bogus"):
        assert f"\n  {key}: " in message


def test_many_problems_are_counted_not_told(tmp_path: Path) -> None:
    """A file of junk fills one screen."""
    message = refusal(tmp_path, "".join(f"idle{at} = 1\n" for at in range(5000)))
    assert "5000 problems" in message
    assert message.endswith("\n  and 4960 more")
    assert len(message.splitlines()) == 42


def test_a_value_is_never_repeated(tmp_path: Path) -> None:
    """Somebody will put a passcode where it does not belong; the journal need not know it."""
    text = f'[session]\npin = "{CANARY}"\nhold = "{CANARY}"\nidle-seconds = "{CANARY}"\n'
    assert CANARY not in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (b"\x7fELF\x00\x01\x02\xff\xfe", "UTF-8"),
        (b"[card]\nrenewal-days = 5\n# \xff\n", "at line 3"),
        (b"[card]\nrenewal-days = 5\x00\n", "valid TOML"),
        (b"[card]\nrenewal-days = 5\nrenewal-days = 6\n", "line 3"),
        (b"[card]\n[card]\n", "valid TOML"),
        (b"[card\n", "line 1"),
        (b"a = " + b"[" * 20000, "valid TOML"),
        (b"a = " + b"9" * 6000, "valid TOML"),
        (b"# " + b"x" * config.MAX_BYTES, "at most 65536 bytes"),
        (b"a." * 30000 + b"b = 1", "at most 2000 dots"),
    ],
)
def test_files_that_are_no_toml(tmp_path: Path, content: bytes, answer: str) -> None:
    """Junk is named as such, on one screen, without anything a terminal obeys."""
    message = refusal(tmp_path, content)
    assert answer in message
    assert message.isprintable()
    assert len(message) < 400


def test_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    """Sparse, so that only a reader that believes in it suffers."""
    path = tmp_path / "big.toml"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ConfigError, match="at most 65536 bytes"):
        config.load(path)


def test_things_that_are_no_file(tmp_path: Path) -> None:
    """A directory, a pipe that nobody writes, a device without end, a file as directory, a NUL."""
    os.mkfifo(tmp_path / "fifo")
    written(tmp_path, "")
    for path, answer in (
        (tmp_path, "a directory"),
        (tmp_path / "fifo", "no regular file"),
        (Path("/dev/zero"), "no regular file"),
        (tmp_path / "site.toml" / "x", "readable"),
        (tmp_path / "a\0b", "not a file name"),
        (tmp_path / ("x" * 300), "readable"),
    ):
        with pytest.raises(ConfigError, match=answer):
            config.load(path)


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """Named as unreadable, not as absent; root, who may read everything, steps down for it."""
    path = written(tmp_path, "")
    path.chmod(0)
    uid = os.geteuid()
    os.seteuid(uid or 65534)
    try:
        with pytest.raises(ConfigError, match="readable"):
            config.load(path)
    finally:
        os.seteuid(uid)
