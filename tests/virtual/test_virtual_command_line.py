"""`cardsession-virtual` as a process."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cardsession.virtual.arguments import parser
from cardsession.virtual.control_client import Control, default_path
from cardsession.virtual.options import Family
from cardsession.virtual.pkcs15.options import Mechanism, Padding, Pkcs15Options
from cardsession.virtual.run import options_of, secrets_of

if TYPE_CHECKING:
    # At run time this name could be another directory's conftest.
    from conftest import FakeReader

CANARY = "73194682"
DEADLINE = 10.0
PROGRAM = (sys.executable, "-m", "cardsession.virtual")
VERIFY = "0020008008" + CANARY.encode().hex()
Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(tmp_path: Path, reader: FakeReader) -> Iterator[Run]:
    """Start a card's process with these arguments; it is ended afterwards."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*PROGRAM, "run", "--port", str(reader.port), *arguments],
            env={**os.environ, "CARDSESSION_CARD": str(tmp_path / "card.sock"), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def tell(tmp_path: Path, *arguments: str, entered: str = "") -> subprocess.CompletedProcess[str]:
    """Run one client command."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        env={**os.environ, "CARDSESSION_CARD": str(tmp_path / "card.sock")},
        input=entered,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


async def test_a_card_runs_and_ends_cleanly(run: Run, reader: FakeReader, tmp_path: Path) -> None:
    process = run("--holder", "555000000009", CARDSESSION_CARD_PIN=CANARY)
    await reader.card_in()
    assert await reader.ask(VERIFY) == b"\x90\x00"
    process.send_signal(signal.SIGTERM)
    await reader.card_gone()
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert output.count("\n") == 1
    assert "555000000009" in output
    assert str(tmp_path / "card.sock") in output
    assert CANARY not in output
    assert not (tmp_path / "card.sock").exists()


async def test_the_pin_comes_from_a_file_and_the_client_speaks(
    run: Run, reader: FakeReader, tmp_path: Path
) -> None:
    (tmp_path / "pin").write_text(CANARY + "\n")
    process = run("--pin-file", str(tmp_path / "pin"), "--not-inserted")
    Control(tmp_path / "card.sock").wait_ready(DEADLINE)
    assert tell(tmp_path, "insert").returncode == 0
    await reader.card_in()
    assert await reader.ask(VERIFY) == b"\x90\x00"
    told = tell(tmp_path, "pull-at", "2", "--ins", "20", "--with-data", "--stage", "after")
    assert '"ins": "20"' in told.stdout
    assert tell(tmp_path, "set-pin", entered="246810\n").returncode == 0
    assert await reader.ask(VERIFY) == b"\x63\xc2"
    refused = tell(tmp_path, "set-tries", "99")
    assert refused.returncode == 1
    assert "from 0 to 15" in refused.stderr
    assert tell(tmp_path, "quit").returncode == 0
    assert process.wait(DEADLINE) == 0


def test_the_authority_is_kept_where_asked_and_only_there(run: Run, tmp_path: Path) -> None:
    kept, control = tmp_path / "authority.pem", Control(tmp_path / "card.sock")
    shown = []
    for _ in range(2):
        process = run("--authority", str(kept), "--not-inserted")
        control.wait_ready(DEADLINE)
        shown.append(control.send("authority")["pem"])
        control.send("quit")
        process.wait(DEADLINE)
    assert shown[0] == shown[1]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"authority.pem"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--slots", "9F"),
        ("--guid", "00"),
        ("--tries", "77"),
        ("--atr", "3B0"),
        ("--algorithm", "rsa4096"),
        ("--family", "openpgp"),
        ("--slack", "-1", "--family", "pkcs15"),
        ("--mechanisms", "RSA_PKCS", "--family", "pkcs15"),
    ],
)
def test_what_describes_no_card_is_refused(run: Run, arguments: tuple[str, ...]) -> None:
    process = run(*arguments)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 64
    assert arguments[0].strip("-") in output


def test_a_pin_that_fits_no_card_is_refused_and_not_shown(run: Run) -> None:
    for family in ("piv", "pkcs15"):
        process = run("--family", family, CARDSESSION_CARD_PIN=CANARY + "0")
        output, _ = process.communicate(timeout=DEADLINE)
        assert process.returncode == 64
        assert CANARY not in output


@pytest.mark.parametrize("flag", ["--pin-file", "--authority"])
def test_a_file_that_cannot_be_read_is_named(run: Run, tmp_path: Path, flag: str) -> None:
    missing = tmp_path / "nowhere" / "file"
    process = run(flag, str(missing))
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert output == f"cardsession-virtual: {missing}: No such file or directory\n"


def test_an_authority_that_is_none_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "authority.pem").write_text("nothing")
    process = run("--authority", str(tmp_path / "authority.pem"))
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 64
    assert "authority.pem" in output


@pytest.mark.parametrize("arguments", [(), ("unheard-of",), ("run", "--unheard-of"), ("pull-at",)])
def test_bad_usage_ends_with_64(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    told = tell(tmp_path, *arguments)
    assert told.returncode == 64
    assert "usage: cardsession-virtual" in told.stderr


async def test_a_pkcs15_card_runs_and_obeys(run: Run, reader: FakeReader, tmp_path: Path) -> None:
    run("--family", "pkcs15", "--no-pin-local", "--slack", "3", CARDSESSION_CARD_PIN=CANARY)
    await reader.card_in()
    assert await reader.ask(VERIFY.replace("0020008008", "0020008108")) == b"\x90\x00"
    tries = tell(tmp_path, "set-tries", "2")
    assert '"81": {' in tries.stdout
    refused = tell(tmp_path, "set-tries", "2", "--reference", "80")
    assert refused.returncode == 1
    assert "81, 83" in refused.stderr
    assert '"3F002F00"' in tell(tmp_path, "set-object", "3F0050155031", "3000").stdout
    assert tell(tmp_path, "set-object", "5FC105", "00").returncode == 1
    assert tell(tmp_path, "answer-at", "1", "6983", "--ins", "20").returncode == 0
    assert await reader.ask(VERIFY) == b"\x69\x83"
    swapped = tell(tmp_path, "swap", "--options", '{"family": "piv", "pkcs15": {"slack": 1}}')
    assert '"family": "piv"' in swapped.stdout
    await reader.card_in()
    assert await reader.ask("00200080") == b"\x63\xc3"


def test_every_field_of_a_pkcs15_card_is_a_flag() -> None:
    line = "run --family pkcs15 --algorithm rsa2048 --no-puk --pin-reference 0x11 --padding none"
    line += " --mechanisms RSA_PKCS,RSA_X_509 --serial 0102"
    arguments = parser().parse_args([*line.split(), "--files", '{"3F002F00": null}'])
    chosen = options_of(arguments)
    assert chosen.family is Family.PKCS15
    assert chosen.pkcs15 == Pkcs15Options(
        puk=False,
        pin_reference=0x11,
        padding=Padding.NONE,
        files={"3F002F00": None},
        mechanisms=(Mechanism.RSA_PKCS, Mechanism.RSA_X_509),
        serial=b"\x01\x02",
    )


def test_nobody_there_is_an_error_of_one_line(tmp_path: Path) -> None:
    told = tell(tmp_path, "status")
    assert told.returncode == 1
    assert told.stderr.count("\n") == 1


def test_the_environment_is_cleared_of_the_secrets() -> None:
    environment = {"CARDSESSION_CARD_PIN": CANARY, "CARDSESSION_CARD_PUK": "8" * 8, "HOME": "/"}
    secrets = secrets_of(parser().parse_args(["run"]), environment)
    assert (secrets.pin, secrets.puk, secrets.global_pin) == (CANARY, "8" * 8, "654321")
    assert environment == {"HOME": "/"}
    assert CANARY not in repr(secrets)


def test_the_control_path_is_found() -> None:
    assert default_path({"CARDSESSION_CARD": "/x/y"}) == Path("/x/y")
    assert default_path({"XDG_RUNTIME_DIR": "/run/user/7"}).parent == Path("/run/user/7")
    assert default_path({}).name.startswith("cardsession-card-")
