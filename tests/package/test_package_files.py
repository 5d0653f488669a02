"""The package's description, without building it: what goes where, for whom, in which order.

What a built package is judged by is check.sh, with contents.py.
"""

from __future__ import annotations

import configparser
import re
import subprocess
from email.utils import parsedate_to_datetime
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Final

import pytest

from cardsession import __version__
from package.contents import PLACES

ROOT: Final = Path(__file__).parents[2]
DEBIAN: Final = ROOT / "systemd" / "debian"
BUILD: Final = ROOT / "systemd" / "build-deb.sh"
MAINTAINER: Final = [DEBIAN / f"cardsession.{name}" for name in ("postinst", "prerm", "postrm")]
SCRIPTS: Final = [BUILD, ROOT / "tests" / "package" / "check.sh", *MAINTAINER]
NOT_INSTALLED: Final = ("systemd/build-deb.sh", "systemd/debian/*")
HOLDER: Final = re.compile(
    r"^[\s#:*\"']*(?:\S+ =|:?copyright:)?[\s\"f]*Copyright (?:\([cC]\) |© )?([\d, -]+|)(.*)$",
    re.MULTILINE,
)
HOLDERS_END: Final = r" <|\.?$|, see| \(|, Creative|\. All rights"
NOT_A_HOLDER: Final = re.compile(r"Free Software Foundation|\[yyyy\]|Version|__author__|^\s*$")


def paragraphs(path: Path) -> list[dict[str, str]]:
    """Fields of a Debian control file, a dictionary for each paragraph."""
    found = []
    for text in path.read_text().split("\n\n"):
        fields = re.findall(r"^(\S+):((?:.*\n?)(?: .*\n?)*)", text, re.MULTILINE)
        found.append({name: value.strip() for name, value in fields})
    return found


def listed(script: Path, name: str) -> tuple[list[str], str]:
    """A shell script's list of packages, and the comment above it, with their purposes."""
    match = re.search(rf"((?:^#.*\n)+){name}='([^']*)'", script.read_text(), re.MULTILINE)
    assert match
    return match[2].split(), match[1]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_posix_shell(script: Path) -> None:
    done = subprocess.run(["sh", "-n", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_a_build_needs_is_installed_and_has_a_purpose() -> None:
    packages, purposes = listed(BUILD, "PACKAGES_BUILD")
    needed = re.split(r",\s*", paragraphs(DEBIAN / "control")[0]["Build-Depends"])
    assert needed[0] == "debhelper-compat (= 13)"
    assert {"debhelper", *needed[1:]} <= set(packages)
    assert set(packages) <= set(re.findall(r"[\w.-]+", purposes))
    packages, purposes = listed(ROOT / "tests/package/check.sh", "PACKAGES_CHECK")
    assert set(packages) <= set(re.findall(r"[\w.-]+", purposes))


def test_every_file_is_installed_or_named_as_not_to_be() -> None:
    files = [
        str(path.relative_to(ROOT))
        for top in ("systemd", "udev-rules")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    strays = [
        name
        for name in files
        if name not in PLACES and not any(fnmatch(name, each) for each in NOT_INSTALLED)
    ]
    assert strays == []
    assert PLACES.keys() <= set(files)


def test_files_go_where_the_judge_of_contents_expects_them() -> None:
    lines = [line.split() for line in (DEBIAN / "cardsession.install").read_text().splitlines()]
    placed = {
        str(path.relative_to(ROOT)): f"{place}/{path.name}"
        for pattern, place in lines
        for path in ROOT.glob(pattern)
    }
    rules = (DEBIAN / "rules").read_text().replace("\\\n", " ")
    renamed = re.findall(r"install -D -m 0644 (\S+)\s+\$\(STAGE\)/(\S+)", rules)
    assert placed | dict(renamed) == PLACES


def test_commands_are_those_of_setup_cfg() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    scripts = config["options.entry_points"]["console_scripts"].strip().splitlines()
    commands = dict(re.split(r"\s*=\s*", line) for line in scripts)
    rules = (DEBIAN / "rules").read_text()
    found = dict(re.findall(r"^(?:COMMANDS :=|\t) ?([\w-]+)=(\S+)", rules, re.MULTILINE))
    assert {name: f"{module}:main" for name, module in found.items()} == commands
    links = [line.split() for line in (DEBIAN / "cardsession.links").read_text().splitlines()]
    assert {name: [f"usr/lib/cardsession/bin/{name}", f"usr/bin/{name}"] for name in commands} == {
        Path(link).name: [target, link] for target, link in links
    }


def test_the_changelog_begins_with_the_daemons_version() -> None:
    text = (DEBIAN / "changelog").read_text()
    first = re.match(r"cardsession \((.*)-1\) bookworm; urgency=\w+\n\n  \* ", text)
    assert first and first[1] == __version__
    trailers = re.findall(r"^ -- (.+ <.+>)  (.*)$", text, re.MULTILINE)
    assert {who for who, _ in trailers} == {paragraphs(DEBIAN / "control")[0]["Maintainer"]}
    assert all(parsedate_to_datetime(when).tzinfo for _, when in trailers)


def test_each_override_says_why() -> None:
    blocks = (DEBIAN / "cardsession.lintian-overrides").read_text().strip().split("\n\n")
    for block in blocks:
        lines = block.splitlines()
        assert lines[0].startswith("# "), block
        assert not lines[-1].startswith("#"), block


def position(script: Path, *words: str) -> list[int]:
    """Where the words stand first, all being there, in what is no comment."""
    text = re.sub(r"^\s*#(?!DEBHELPER).*$", "", script.read_text(), flags=re.MULTILINE)
    places = [text.find(each) for each in words]
    assert -1 not in places, dict(zip(words, places, strict=True))
    return places


def test_what_is_installed_is_started_last() -> None:
    order = position(
        DEBIAN / "cardsession.postinst",
        "systemd-sysusers cardsession.conf",
        "systemd-tmpfiles --create cardsession.conf",
        "compileall",
        "ReloadConfig",
        "--runtime unmask cardsessiond.service",
        "udevadm control --reload",
        "udevadm trigger",
        "udevadm settle",
        "#DEBHELPER#",
    )
    assert order == sorted(order)


def test_nothing_starts_the_daemon_while_its_files_are_replaced() -> None:
    steps = "stop cardsessiond.service", "--runtime --now mask cardsessiond.service", "__pycache__"
    order = position(DEBIAN / "cardsession.prerm", *steps)
    assert order == sorted(order)
    position(DEBIAN / "cardsession.postrm", "--runtime unmask cardsessiond.service")
    position(DEBIAN / "rules", "dh_installsystemd --no-restart-after-upgrade")


def test_purge_forgets_what_sysusers_and_the_unit_made() -> None:
    sysusers = (ROOT / "systemd/cardsession.sysusers.conf").read_text()
    users = re.findall(r"^u (\S+)", sysusers, re.MULTILINE)
    groups = re.findall(r"^g (\S+)", sysusers, re.MULTILINE)
    unit = (ROOT / "systemd/cardsessiond.service").read_text()
    directories = [
        f"/{top}/{name}"
        for top, key in (("var/lib", "State"), ("etc", "Configuration"))
        for name in re.findall(rf"^{key}Directory=(.*)$", unit, re.MULTILINE)
    ]
    postrm = (DEBIAN / "cardsession.postrm").read_text()
    assert users == ["cardsession"]
    assert "userdel cardsession" in postrm
    assert f"for group in {' '.join(groups)}; do" in postrm
    assert sorted(directories) == ["/etc/cardsession", "/var/lib/cardsession"]
    assert "rm -rf /etc/cardsession /var/lib/cardsession" in postrm
    # Another directory of the unit's would have to go, too.
    assert not re.search(r"^(Cache|Logs)Directory=", unit, re.MULTILINE)


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        ("cardsession:x:998:997:Smartcard sessions:/:/usr/sbin/nologin", True),
        ("cardsession:x:1000:1000::/home/cardsession:/bin/bash", False),
        ("cardsession-pcsc:x:998:", False),
    ],
)
def test_an_account_that_is_not_the_systems_is_kept(tmp_path: Path, line: str, ours: bool) -> None:
    database = tmp_path / "passwd"
    database.write_text(f"root:x:0:0:root:/root:/bin/bash\n{line}\n")
    postrm = (DEBIAN / "cardsession.postrm").read_text()
    function = re.search(r"^system_id\(\) \{\n.*?^\}", postrm, re.MULTILINE | re.DOTALL)
    assert function
    code = f"{function[0]}\nsystem_id '{database}' cardsession"
    assert (subprocess.run(["sh", "-c", code], check=False).returncode == 0) is ours


def test_usage_is_told_and_nothing_is_built() -> None:
    for arguments in (["--help"], ["--revision", "x"], ["--output"], ["stray"]):
        done = subprocess.run(
            ["sh", BUILD, *arguments], capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.returncode, done.stdout) == (64, "")
        assert "build-deb.sh [--output DIR] [--revision N]" in done.stderr


def stanza_of(name: str) -> dict[str, str]:
    """The paragraph of the copyright file for a package of the lock."""
    found = [
        each
        for each in paragraphs(DEBIAN / "copyright")
        if any(
            fnmatch(f"site-packages/{name.replace('-', '_')}", pattern)
            for pattern in each.get("Files", "").split()[:1]
            if pattern != "*"
        )
    ]
    assert len(found) == 1, name
    return found[0]


LOCKED: Final = re.findall(
    r"^([a-z0-9-]+)==", (ROOT / "daemon" / "requirements.txt").read_text(), re.MULTILINE
)
LICENSES: Final = {
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.1+",
    "LGPL-2.1-or-later": "LGPL-2.1+",
    "MIT License": "MIT",
}
"""What the packages' metadata call what the copyright file names as Debian does."""


def licence(name: str) -> str:
    """What a package says that its licence is."""
    about = metadata.metadata(name)
    classifiers = [
        each.rpartition(" :: ")[2]
        for each in about.get_all("Classifier", [])
        if each.startswith("License ::")
    ]
    said = about.get("License-Expression") or " or ".join(classifiers)
    return LICENSES.get(said, said).replace(" OR ", " or ")


@pytest.mark.parametrize("name", LOCKED)
def test_the_licence_is_what_the_package_says(name: str) -> None:
    assert stanza_of(name)["License"] == licence(name)


def test_no_licence_is_named_without_its_text() -> None:
    every = paragraphs(DEBIAN / "copyright")
    named = {
        word
        for each in every
        if "Files" in each
        for word in re.split(r" (?:or|and) ", each["License"])
    }
    texts = {each["License"].splitlines()[0] for each in every[1:] if "Files" not in each}
    assert named == texts


@pytest.mark.parametrize("name", LOCKED)
def test_whose_the_packages_are(name: str) -> None:
    known = re.sub(r"\s+", " ", (DEBIAN / "copyright").read_text())
    missing = []
    for path in metadata.files(name) or []:
        licences = "dist-info" in str(path) and path.suffix not in {".json", ".pyc"}
        if not (path.suffix == ".py" or licences) or path.name == "METADATA":
            continue
        text = Path(str(path.locate())).read_text(encoding="utf-8", errors="replace")[:3000]
        for _, holder in HOLDER.findall(text):
            who = re.split(HOLDERS_END, holder.strip("\"' "))[0]
            if not NOT_A_HOLDER.search(who) and who.strip() not in known:
                missing.append((str(path), who))
    assert missing == []
