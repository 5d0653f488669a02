"""`sh daemon/try.sh` as a person runs it: in a namespace of its own, inside that of the tests."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from cardsession.stack import in_namespace, wait_until

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.real


@pytest.fixture(autouse=True)
def _place() -> None:
    if not in_namespace():
        pytest.fail("sets nothing up by itself: run sh tests/run.sh", pytrace=False)


def run_try(*arguments: str) -> subprocess.CompletedProcess[str]:
    """try.sh in another directory than the checkout: nothing may depend on it."""
    return subprocess.run(
        ["sh", ROOT / "daemon" / "try.sh", *arguments],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


def test_the_story() -> None:
    done = run_try("--scripted")
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.findall(r"^ *\d+ .*? s  \+.*? s  (\S+ \S+)", done.stdout, re.MULTILINE)
    assert told == [
        "reader appears",
        "card present",
        "card ready",
        "session opened",
        "wrong passcode",
        "session over",
        "session opened",
        "right passcode",
        "card pulled",
        "card gone",
        "card present",
        "card ready",
    ]


def test_a_command_finds_reader_card_bus_and_tools() -> None:
    done = run_try(
        *("--exec", "sh", "-c"),
        "opensc-tool -l; cardsession-virtual status; cardsessionctl --help >/dev/null || exit 3;"
        " busctl call org.cardsession1 /org/cardsession1 org.cardsession1.Manager ListReaders;"
        " pwd; exit 7",
    )
    assert done.returncode == 7, done.stdout + done.stderr
    assert re.search(r"^0 +Yes +Virtual PCD 00 00$", done.stdout, re.MULTILINE)
    assert '"inserted": true' in done.stdout
    assert "/org/cardsession1/reader/" in done.stdout
    assert done.stdout.endswith("\n/\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_is_left_when_it_is_told_to_end(number: signal.Signals) -> None:
    script = 'echo "$DBUS_SYSTEM_BUS_ADDRESS"; exec sleep 600'
    command = ["sh", ROOT / "daemon" / "try.sh", "--exec", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        address = running.stdout.readline().strip()
        parts = _below(running.pid)
        assert len(parts) >= 5, "bus, card service, daemon, card, command"
        running.send_signal(number)
        status = running.wait(60)
    wait_until("no process is left", lambda: not any(map(_alive, parts)))
    directory = Path(address.removeprefix("unix:path=")).parent
    if number == signal.SIGKILL:
        shutil.rmtree(directory)
    else:
        assert status == 128 + number
        assert not directory.exists()


def _below(pid: int) -> set[int]:
    """The processes that `pid` started, and theirs."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = {int(child) for child in children}
    return found.union(*map(_below, found))


def _alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
