"""The set-up's shell functions, with stand-ins for what they call; the locks; the namespace."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ["daemon/setup.sh", "daemon/try.sh", "tests/run.sh", "tests/bare.sh"]


class Shell:
    """Runs setup.sh's functions in a checkout of its own, with commands of our own on the PATH."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "checkout"
        self.bin = directory / "bin"
        self.log = directory / "called"
        (self.root / "daemon").mkdir(parents=True)
        self.bin.mkdir()
        for name in ("build", "dev"):
            (self.root / "daemon" / f"requirements-{name}.txt").write_text(name)
        (self.root / "daemon" / "requirements.txt").write_text("runtime")

    def command(self, name: str, script: str = "") -> None:
        """A stand-in that writes its name and arguments down, then runs `script`."""
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.log}"\n{script}\n')
        path.chmod(0o755)

    def run(self, code: str) -> subprocess.CompletedProcess[str]:
        """Source setup.sh, then run `code`."""
        return subprocess.run(
            ["sh", "-c", f'. "{ROOT}/daemon/setup.sh"; {code}'],
            env={"PATH": f"{self.bin}:{os.environ['PATH']}", "ROOT": str(self.root)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def called(self) -> list[str]:
        """What was called since the last time."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    # Of all packages only "there" is installed; "half" was removed but for its configuration.
    states = "case $4 in there) echo installed ;; half) echo config-files ;; *) exit 1 ;; esac"
    shell.command("dpkg-query", states)
    shell.command("id", "echo 0")
    shell.command("apt-get")
    return shell


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_posix_shell(script: str) -> None:
    done = subprocess.run(["sh", "-n", ROOT / script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_is_missing(shell: Shell) -> None:
    assert shell.run("missing_packages 'there half absent'").stdout.split() == ["half", "absent"]


def test_apt_is_left_alone_if_nothing_is_missing(shell: Shell) -> None:
    assert shell.run("install_packages there").returncode == 0
    assert not [line for line in shell.called() if line.startswith("apt-get")]


def test_missing_packages_are_installed_in_one_go_after_one_update(shell: Shell) -> None:
    shell.run("install_packages 'there half absent'")
    update, install = (line for line in shell.called() if line.startswith("apt-get"))
    assert update.endswith(" update")
    assert install.endswith(" install --no-install-recommends half absent")


def test_a_failing_apt_is_quoted_and_the_packages_named(shell: Shell) -> None:
    shell.command("apt-get", "echo its own words; exit 100")
    done = shell.run("install_packages 'there absent'; echo went on")
    assert done.returncode == 1
    assert "its own words" in done.stderr
    assert "could not install: absent" in done.stderr
    assert "went on" not in done.stdout


def test_a_plain_user_needs_sudo_for_packages_only(shell: Shell) -> None:
    shell.command("id", "echo 1000")
    shell.command("sudo", 'exec "$@"')
    shell.run("install_packages absent")
    assert any("sudo env DEBIAN_FRONTEND=noninteractive apt-get" in c for c in shell.called())


@pytest.mark.parametrize(("version", "usable"), [("3.10.9", False), ("3.11.0", True)])
def test_an_old_python_is_not_taken(shell: Shell, version: str, usable: bool) -> None:
    code = 0 if version >= "3.11" else 1
    shell.command("oldpython", f"exit {code}")
    done = shell.run(f'usable_python "{shell.bin}/oldpython" && echo yes')
    assert (done.stdout == "yes\n") is usable


def test_the_systems_python_comes_before_a_version_managers(shell: Shell) -> None:
    shell.command("python3", "exit 0")
    assert shell.run("find_python").stdout.strip() == "/usr/bin/python3"


# A Python that makes environments with itself in them; `pip` fails while the file "broken" exists.
FAKE_PYTHON = """
case "$*" in
    *-VV*) echo Python 3.11.2 ;;
    *venv*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; echo made >"$4/pyvenv.cfg" ;;
    *--editable*) echo >"$(dirname "$0")/cardsessiond"; chmod +x "$(dirname "$0")/cardsessiond" ;;
    *pip*) [ ! -e "$ROOT/broken" ] ;;
esac
"""


@pytest.fixture
def environment(shell: Shell) -> Shell:
    shell.command("fakepython", FAKE_PYTHON)
    for name in ("setup.cfg", "pyproject.toml"):
        (shell.root / name).write_text(name)
    return shell


def ensure(shell: Shell, level: str) -> subprocess.CompletedProcess[str]:
    """Set the environment up; `called` tells what that took."""
    setup = f"export ROOT; PYTHON={shell.bin}/fakepython; ensure_environment {level}"
    return shell.run(f"{setup}; ensure_project")


def installs(shell: Shell) -> list[str]:
    """The pip calls since the last time, shortened to what was installed."""
    calls = [line for line in shell.called() if "pip --quiet install" in line]
    return [Path(line.split()[-1]).name for line in calls]


def test_a_second_run_installs_nothing(environment: Shell) -> None:
    assert ensure(environment, "RUNTIME").returncode == 0
    assert installs(environment) == ["requirements-build.txt", "requirements.txt", "checkout"]
    assert ensure(environment, "RUNTIME").returncode == 0
    assert installs(environment) == []


def test_the_checks_need_more_and_the_runtime_then_no_less(environment: Shell) -> None:
    ensure(environment, "RUNTIME")
    installs(environment)
    ensure(environment, "DEV")
    assert installs(environment) == ["requirements-dev.txt"]
    ensure(environment, "RUNTIME")
    assert installs(environment) == []


def test_an_interrupted_set_up_starts_over(environment: Shell) -> None:
    broken = environment.root / "broken"
    broken.touch()
    assert ensure(environment, "RUNTIME").returncode == 1
    leftover = environment.root / ".venv" / "leftover"
    leftover.touch()
    broken.unlink()
    installs(environment)
    assert ensure(environment, "RUNTIME").returncode == 0
    assert installs(environment) == ["requirements-build.txt", "requirements.txt", "checkout"]
    assert not leftover.exists()


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ("daemon/requirements.txt", ["requirements-build.txt", "requirements.txt", "checkout"]),
        ("setup.cfg", ["checkout"]),
    ],
)
def test_what_changed_is_done_again(environment: Shell, changed: str, again: list[str]) -> None:
    ensure(environment, "RUNTIME")
    installs(environment)
    (environment.root / changed).write_text("changed")
    ensure(environment, "RUNTIME")
    assert installs(environment) == again


def run_try(*arguments: str) -> subprocess.CompletedProcess[str]:
    """try.sh; only for arguments with which it sets nothing up."""
    return subprocess.run(
        ["sh", ROOT / "daemon" / "try.sh", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(flag: str) -> None:
    done = run_try(flag)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: sh daemon/try.sh")


@pytest.mark.parametrize(
    "arguments",
    [["--scritped"], ["extra"], ["--exec"], ["--real", "--scripted"], ["--scripted", "extra"]],
)
def test_what_is_not_understood_is_refused_before_anything_happens(arguments: list[str]) -> None:
    done = run_try(*arguments)
    assert (done.returncode, done.stdout) == (64, "")
    assert "usage: sh daemon/try.sh" in done.stderr


def pins(name: str) -> dict[str, str]:
    """Package → version of a lock; every one has a hash."""
    text = (ROOT / "daemon" / name).read_text()
    entries = re.findall(
        r"^([a-z0-9-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)+)", text, re.MULTILINE
    )
    assert len(entries) == text.count("==")
    return {package: version for package, version, _ in entries}


def test_the_locks_agree() -> None:
    runtime, dev = pins("requirements.txt"), pins("requirements-dev.txt")
    assert runtime.items() <= dev.items()
    assert pins("requirements-build.txt").keys() == {"setuptools"}


def test_the_locks_hold_what_setup_cfg_asks_for() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = config["options"]["install_requires"], config["options.extras_require"]["test"]
    for text, lock in zip(wanted, ("requirements.txt", "requirements-dev.txt"), strict=True):
        lines = [line for line in text.split("\n") if line and not line.startswith("#")]
        names = {re.split("[<>=]", line)[0] for line in lines}
        assert names <= pins(lock).keys()
    assert f"dbus-next=={pins('requirements.txt')['dbus-next']}" in wanted[0]


@pytest.mark.usefixtures("pcscd")
def test_the_namespace_shows_the_virtual_reader_and_nothing_of_this_machines() -> None:
    assert [path.name for path in Path("/etc/reader.conf.d").iterdir()] == ["vpcd"]
    assert list(Path("/usr/lib/pcsc/drivers").iterdir()) == []
    usb = Path("/dev/bus/usb")
    assert not usb.exists() or list(usb.iterdir()) == []
    interfaces = Path("/proc/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
