"""Judges the contents of a package: run by check.sh as `contents.py DEB ROOT CACHE`.

Prints what is wrong, a line each; exit status 1 if anything is. Nothing but the standard library:
it runs on a machine that has only what Debian gives.
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PLACE: Final = "usr/lib/cardsession"
LINKS: Final = {f"usr/bin/{name}": f"../lib/cardsession/bin/{name}" for name in
                ("cardsessiond", "cardsessionctl", "cardsession-virtual")} | {
    f"{PLACE}/bin/python": "../../../bin/python3"}  # fmt: skip
PLACES: Final = {
    "systemd/50-cardsession.rules": "usr/share/polkit-1/rules.d/50-cardsession.rules",
    "systemd/cardsession.sysusers.conf": "usr/lib/sysusers.d/cardsession.conf",
    "systemd/cardsession.tmpfiles.conf": "usr/lib/tmpfiles.d/cardsession.conf",
    "systemd/cardsessiond.service": "lib/systemd/system/cardsessiond.service",
    "systemd/cardsessiond.toml": "usr/share/doc/cardsession/examples/cardsessiond.toml",
    "systemd/org.cardsession1.conf": "usr/share/dbus-1/system.d/org.cardsession1.conf",
    "systemd/org.cardsession1.service": (
        "usr/share/dbus-1/system-services/org.cardsession1.service"
    ),
    "systemd/pcscd.socket.d/cardsession.conf": (
        "usr/share/cardsession/pcscd.socket.d/cardsession.conf"
    ),
    "udev-rules/70-cardsession.rules": "usr/lib/udev/rules.d/70-cardsession.rules",
    "udev-rules/93-cardsession-power.rules": "usr/lib/udev/rules.d/93-cardsession-power.rules",
}
"""Which file of the checkout is installed where."""
OUTSIDE: Final = (PLACE, "usr/share/doc/cardsession", "usr/share/lintian/overrides/cardsession")
"""What else there may be."""
BUILT_HERE: Final = {"pyscard"}
"""Without a wheel for Linux: its source is held by the lock's hash, not the wheel."""
NOT_OURS: Final = re.compile(
    r"\.pyc$|__pycache__|/(pip|setuptools|_distutils_hack)\b|\.pth$"
    r"|dist-info/(RECORD|INSTALLER|REQUESTED|direct_url\.json)$"
)
TRACES: Final = (b"cardsession-deb.", b"/pip-install-", b"/pip-wheel-", b"/pip-req-build-")
"""Names of directories in which things are built."""


@dataclass(frozen=True, slots=True)
class Package:
    """What is in it: members by path (without "./"), and the bytes of files."""

    members: dict[str, tarfile.TarInfo]
    files: dict[str, bytes]
    control: dict[str, str]


def read(path: Path) -> Package:
    """The package, by dpkg-deb."""
    with tarfile.open(fileobj=io.BytesIO(dpkg_deb("--fsys-tarfile", path))) as archive:
        members = {member.name.removeprefix("./").rstrip("/"): member for member in archive}
        files = {
            name: stream.read()
            for name, member in members.items()
            if member.isfile() and (stream := archive.extractfile(member))
        }
    fields = re.findall(r"^(\S+): (.*)$", dpkg_deb("--field", path).decode(), re.MULTILINE)
    return Package(members, files, dict(fields))


def dpkg_deb(action: str, path: Path) -> bytes:
    """What `dpkg-deb ACTION PATH` prints."""
    return subprocess.run(["dpkg-deb", action, path], check=True, capture_output=True).stdout


def modes(package: Package) -> Iterator[str]:
    """Everything is root's, and nobody else can write to it; only commands can be executed."""
    for name, member in package.members.items():
        if (member.uid, member.gid, member.uname, member.gname) != (0, 0, "root", "root"):
            yield f"{name}: belongs to {member.uname}:{member.gname}"
        if member.issym():
            if LINKS.get(name) != member.linkname:
                yield f"{name}: a link to {member.linkname}"
            continue
        command = name.startswith(f"{PLACE}/bin/")
        wanted = 0o755 if member.isdir() or command else 0o644
        if not (member.isdir() or member.isfile()) or member.mode != wanted:
            yield f"{name}: {member.type!r}, mode {member.mode:o}"
        if command and not package.files[name].startswith(f"#!/{PLACE}/bin/python -I\n".encode()):
            yield f"{name}: not run by the package's own Python, isolated"
    yield from (f"{name}: missing" for name in LINKS if name not in package.members)


def places(package: Package, root: Path) -> Iterator[str]:
    """Each file of the checkout is in its place, as it is there; and nothing else is."""
    for source, name in PLACES.items():
        if package.files.get(name) != (root / source).read_bytes():
            yield f"{name}: not as {source}"
    for name in package.files.keys() - set(PLACES.values()):
        if not name.startswith(OUTSIDE):
            yield f"{name}: not expected here"
        if NOT_OURS.search(name):
            yield f"{name}: no part of a package"
    if "usr/share/doc/cardsession/copyright" not in package.files:
        yield "no copyright"


def traces(package: Package, root: Path, cache: Path) -> Iterator[str]:
    """Nothing says where it was built."""
    for name, data in package.files.items():
        for trace in (*TRACES, bytes(root) + b"/", bytes(cache)):
            if trace in data:
                yield f"{name}: says {trace.decode()}"


def project(package: Package, root: Path) -> Iterator[str]:
    """The daemon is that of the checkout: the same files, the same bytes."""
    start = next(name for name in package.members if name.endswith("/site-packages/cardsession"))
    found = {
        name.removeprefix(f"{start}/"): data
        for name, data in package.files.items()
        if name.startswith(f"{start}/")
    }
    source = root / "daemon" / "cardsession"
    wanted = {
        str(path.relative_to(source)): path.read_bytes()
        for path in source.rglob("*")
        if path.suffix in {".py", ".xml"} or path.name == "py.typed"
    }
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            yield f"{start}/{name}: not as in the checkout"


def libraries(package: Package, root: Path, cache: Path) -> Iterator[str]:
    """The Python packages are those of the lock, by hash, and each file is as in its wheel."""
    lock = (root / "daemon" / "requirements.txt").read_text()
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE))
    wheels = [
        path
        for path in cache.glob("package-*/wheels/*.whl")
        if pinned.get(path.name.split("-")[0].replace("_", "-")) == path.name.split("-")[1]
    ]
    for path in wheels:
        name = path.name.split("-")[0]
        known = hashlib.sha256(path.read_bytes()).hexdigest() in lock
        if not known and name not in BUILT_HERE:
            yield f"{path}: not of the lock"
    yield from unlike(package, [wheel_files(path) for path in wheels])
    infos = {name.split("/")[-2] for name in package.files if name.endswith("/METADATA")}
    shipped = {info.partition("-")[0].replace("_", "-") for info in infos}
    if shipped != pinned.keys() | {"cardsession"}:
        yield f"packages: {sorted(shipped ^ (pinned.keys() | {'cardsession'}))}"


def unlike(package: Package, wheels: list[dict[str, bytes]]) -> Iterator[str]:
    """Files of the virtual environment that are in no wheel as they are here."""
    for path, data in package.files.items():
        _, found, name = path.partition("/site-packages/")
        if not found or name.startswith(("cardsession/", "cardsession-")):
            continue
        candidates = {wheel[name] for wheel in wheels if name in wheel}
        if name.endswith(".so"):
            candidates = {stripped(each) for each in candidates}
        if data not in candidates:
            yield f"{path}: not as in its wheel"


def wheel_files(path: Path) -> dict[str, bytes]:
    """Name → bytes of the files in a wheel."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def stripped(library: bytes) -> bytes:
    """As dh_strip leaves a shared library."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(library)
        file.flush()
        sections = ["--remove-section=.comment", "--remove-section=.note", "--strip-unneeded"]
        subprocess.run(["strip", *sections, file.name], check=True)
        return Path(file.name).read_bytes()


def control(package: Package, root: Path) -> Iterator[str]:
    """The version is the daemon's; the interpreter is held to the minor version of the files."""
    source = (root / "daemon" / "cardsession" / "__init__.py").read_text()
    version = re.search(r'__version__ = "(.*)"', source)
    if not version or not re.fullmatch(re.escape(version[1]) + r"-\d+", package.control["Version"]):
        yield f"version {package.control['Version']}"
    [minor] = {name.split("/")[4] for name in package.files if "/site-packages/" in name}
    number = int(minor.removeprefix("python3."))
    needed = {f"python3 (>= 3.{number})", f"python3 (<< 3.{number + 1})", "pcscd", "libpcsclite1",
              "libudev1", "default-dbus-system-bus | dbus-system-bus"}  # fmt: skip
    missing = needed - set(package.control["Depends"].split(", "))
    if missing:
        yield f"does not depend on {sorted(missing)}"


def main() -> int:
    """Every complaint; whether there was one."""
    path, root, cache = map(Path, sys.argv[1:])
    package = read(path)
    found = [
        *modes(package),
        *places(package, root),
        *traces(package, root, cache),
        *project(package, root),
        *libraries(package, root, cache),
        *control(package, root),
    ]
    sys.stdout.write("".join(f"{each}\n" for each in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
