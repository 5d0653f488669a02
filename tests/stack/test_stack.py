"""The test bed itself: parts come up, say why if they do not, and never outlive their maker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cardsession.stack import Bus, Card, Child, Daemon, Pcscd, StackError, wait_until
from cardsession.stack.bus import configuration
from cardsession.stack.monitor import Monitor, parse
from cardsession.stack.pcscd import READERS
from cardsession.stack.processes import child_environment, program

# A stand-in for the daemon: says what systemd would be told, then waits.
STANDIN = """
import os, signal, socket, sys
assert sys.argv[1] == "--config"
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
link.connect(os.environ["NOTIFY_SOCKET"])
link.send(b"STATUS=one reader\\nREADY=1")
print(open(sys.argv[2]).read(), os.environ["DBUS_SYSTEM_BUS_ADDRESS"], flush=True)
signal.sigwait({signal.SIGTERM})
link.send(b"STOPPING=1")
"""


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def standin(rundir: Path, code: str = STANDIN) -> Daemon:
    """A daemon of our own making."""
    command = [sys.executable, "-c", code]
    return Daemon(rundir, "unix:path=/nowhere", configuration="a = 1", command=command)


def test_the_bus_answers_and_is_of_the_system_type(bus: Bus) -> None:
    answer = subprocess.run(
        [program("busctl"), "call", "org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId"],
        env=child_environment({"DBUS_SYSTEM_BUS_ADDRESS": bus.address}),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert answer.stdout.startswith("s "), answer.stderr
    assert "<type>system</type>" in (bus.socket.parent / "bus.conf").read_text()


def test_policies_close_the_bus_to_everybody_they_do_not_name() -> None:
    text = configuration(Path("/x/bus"), open_to=None, policies=[Path("/x/a&b.conf")])
    assert '<allow own="*"/>' not in text
    assert "<include>/x/a&amp;b.conf</include>" in text
    assert '<allow own="*"/>' in configuration(Path("/x/bus"), open_to=1000)


def test_a_monitor_sees_signals_in_order(
    bus: Bus, rundir: Path, begin: Callable[[Child], Child]
) -> None:
    monitor = Monitor(rundir, bus.address)
    begin(monitor)
    for number in ("1", "2", "3"):
        subprocess.run(
            [program("busctl"), "emit", "/a", "b.c", "D", "a{sv}", "1", "x", "u", number],
            env=child_environment({"DBUS_SYSTEM_BUS_ADDRESS": bus.address}),
            check=True,
            timeout=30,
        )
    third = monitor.find("the third", lambda m: m.name == "b.c.D" and m.body == ({"x": 3},))
    told = [m.body[0]["x"] for m in monitor.messages()[: third.number + 1] if m.name == "b.c.D"]
    assert told == [1, 2, 3]
    with pytest.raises(StackError, match="the fourth"):
        monitor.find("the fourth", lambda m: m.body == ({"x": 4},), seconds=0.1)


def test_a_line_that_is_no_message_is_passed_over() -> None:
    assert parse("Monitoring bus message stream.", 0) is None


def test_a_card_is_in_the_reader_that_its_slot_names(pcscd: Pcscd, cards: object) -> None:
    assert callable(cards)
    card: Card = cards(slot=1)
    assert _with_card() == []
    card.insert()
    wait_until("the card is seen", lambda: _with_card() == [READERS[1]])
    card.remove()
    wait_until("it is gone", lambda: _with_card() == [])
    assert card.status()["inserted"] is False


def _with_card() -> list[str]:
    """The readers with a card in, as OpenSC sees them."""
    listing = subprocess.run(
        [program("opensc-tool"), "--list-readers"],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    lines = [line for line in listing.stdout.splitlines() if " Yes " in line]
    return [name for name in READERS if any(line.endswith(name) for line in lines)]


def test_a_daemon_is_ready_when_it_says_so(rundir: Path, begin: Callable[[Child], Child]) -> None:
    daemon = standin(rundir)
    begin(daemon)
    assert daemon.ready
    assert daemon.notify.all("STATUS") == ["one reader"]
    wait_until("its log", lambda: "a = 1 unix:path=/nowhere" in daemon.log())
    assert daemon.stop() == 0
    assert daemon.notify.all("STOPPING") == ["1"]


def test_a_daemon_that_ends_first_is_reported_with_its_log(rundir: Path) -> None:
    daemon = standin(rundir, "import sys; sys.exit('no such key: colour')")
    with pytest.raises(StackError, match=r"(?s)status 1.*no such key: colour"):
        daemon.start()
    daemon.stop()


def test_a_part_that_ignores_sigterm_is_killed(rundir: Path) -> None:
    code = "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); input()"
    command = [sys.executable, "-c", code.replace("input()", "signal.pause()")]
    child = Child("deaf", command, rundir / "log", child_environment())
    child.start()
    child.wait_for("begins", lambda: "deaf" in child.log())
    assert child.stop(seconds=0.2) == -signal.SIGKILL


def test_parts_die_with_a_maker_that_was_killed(rundir: Path) -> None:
    code = f"""
import time
from pathlib import Path
from cardsession.stack import Bus
bus = Bus(Path({str(rundir)!r}))
bus.start()
print(bus.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        pid = int(maker.stdout.readline())
        assert alive(pid)
        maker.kill()
    wait_until("dbus-daemon is gone", lambda: not alive(pid))


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("exec /nowhere/at/all", 127)],
)
def test_a_command_in_front_gives_its_status(script: str, status: int) -> None:
    code = "import os, sys; from cardsession.stack.__main__ import in_front\n"
    code += f"sys.exit(in_front(['sh', '-c', {script!r}], dict(os.environ)))"
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert done.returncode == status


def test_an_ending_signal_is_passed_on_to_the_command_in_front(rundir: Path) -> None:
    code = "import os, sys; from cardsession.stack.__main__ import in_front\n"
    code += "sys.exit(in_front(['sleep', '600'], dict(os.environ)))"
    with subprocess.Popen([sys.executable, "-c", code]) as maker:
        children = Path(f"/proc/{maker.pid}/task/{maker.pid}/children")
        wait_until("sleep runs", lambda: "sleep" in _commands(children.read_text().split()))
        (pid,) = map(int, children.read_text().split())
        maker.send_signal(signal.SIGTERM)
        assert maker.wait(30) == 128 + signal.SIGTERM
    assert not alive(pid)


def _commands(pids: list[str]) -> list[str]:
    """The names of the programs that the processes run."""
    names = []
    for pid in pids:
        path = Path(f"/proc/{pid}/comm")
        names += [path.read_text().strip()] if path.exists() else []
    return names


def test_waiting_ends_at_the_deadline() -> None:
    began = time.monotonic()
    with pytest.raises(StackError, match=r"^never: not within"):
        wait_until("never", lambda: False, seconds=0.1)
    assert time.monotonic() - began >= 0.1


def test_children_inherit_no_other_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/elsewhere")
    monkeypatch.setenv("NOTIFY_SOCKET", "/elsewhere")
    environment = child_environment()
    assert not {"DBUS_SYSTEM_BUS_ADDRESS", "NOTIFY_SOCKET"} & set(environment)
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
