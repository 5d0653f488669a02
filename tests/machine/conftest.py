"""A machine as it is after the installation, for each scenario anew; what is kept of a failed one.

`sh tests/machine/run.sh` starts this; it says where image and package are.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machine.evidence import keep
from machine.installed import Installed, install
from machine.machine import Machine


def _given(name: str) -> Path:
    if not (value := os.environ.get(f"CARDSESSION_MACHINE_{name}")):
        pytest.fail("start this with sh tests/machine/run.sh", pytrace=False)
    return Path(value)


@pytest.fixture(scope="session")
def workplace() -> Iterator[Path]:
    """For disks, sockets and consoles: short enough for a socket, and no RAM disk.

    CARDSESSION_MACHINE_KEEP names a directory that stays, and with it the installed machine: for
    whoever works on one scenario.
    """
    if kept := os.environ.get("CARDSESSION_MACHINE_KEEP"):
        Path(kept).mkdir(parents=True, exist_ok=True)
        yield Path(kept)
        return
    path = Path(tempfile.mkdtemp(prefix="counter-", dir="/var/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def installed(workplace: Path) -> Installed:
    """Boot the bare machine, install the package as the README says, keep that as a snapshot."""
    kept = workplace / "installed"
    if kept.exists():
        return Installed.read(kept)
    found = install(workplace, _given("IMAGE"), _given("PACKAGE"))
    if "CARDSESSION_MACHINE_KEEP" in os.environ:
        kept.write_text(found.text())
    return found


@pytest.fixture
def machine(installed: Installed, workplace: Path) -> Iterator[Machine]:
    """The machine right after the installation, running, with nothing plugged in."""
    directory = Path(tempfile.mkdtemp(prefix="m", dir=workplace))
    with installed.machine(directory) as machine:
        machine.resume()
        yield machine
    shutil.rmtree(directory, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Keep what there is of a failed scenario while its machine still runs."""
    report: pytest.TestReport = yield
    machine = getattr(item, "funcargs", {}).get("machine")
    if report.failed and report.when == "call" and machine is not None:
        kept = keep(machine, item.name.removeprefix("test_")[:60])
        report.sections.append(("kept", str(kept)))
    return report


# -- a line for each scenario

WORDS = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}


def pytest_configure(config: pytest.Config) -> None:
    """The lines that are printed."""
    config.pluginmanager.register(Lines(config), "machine-lines")


class Lines:
    """One line a scenario: what became of it, how long it took, its sentence."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._spent = 0.0

    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """No letters and dots."""
        if isinstance(report, pytest.TestReport):
            silent = report.when != "call" and not report.failed
            return ("" if silent else report.outcome), "", ""
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Say it."""
        self._spent = report.duration + (0 if report.when == "setup" else self._spent)
        if report.when == "teardown" and not report.failed:
            return
        if report.when == "setup" and report.passed:
            return
        sentence = report.nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ")
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        reporter.write_line(f"{WORDS[report.outcome]:7} {self._spent:6.1f} s  {sentence}")
        for title, text in report.sections:
            if title == "kept":
                reporter.write_line(f"{'':16} kept in {text}")
