"""Runs a program under the system calls that a unit leaves it, as systemd would set them up.

    python confined.py UNIT PROGRAM ARGUMENT…     # what may be executed: as in the unit, and the
                                                  # environment that this interpreter is in

Of systemd.exec(5): SystemCallFilter=, SystemCallErrorNumber=, MemoryDenyWriteExecute=,
RestrictAddressFamilies=, RestrictNamespaces=, NoNewPrivileges=, CapabilityBoundingSet= (empty)
and, if root, NoExecPaths=/ExecPaths= in a mount namespace. By libseccomp, which systemd uses too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ALLOW: Final = 0x7FFF0000
ERRNO: Final = 0x00050000
_EQUAL, _MASKED = 4, 7
_PROT_WRITE, _PROT_EXEC, _SHM_EXEC = 2, 4, 0o100000
_NAMESPACES: Final = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
"""CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET."""
_FAMILIES: Final = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16, "AF_PACKET": 17}
_LAST_FAMILY: Final = 45
_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 38, 24
_CAPABILITIES: Final = 64
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_NOEXEC, _MS_PRIVATE = 32, 4096, 16384, 8, 1 << 18
_MS_OPTIONS: Final = {
    "ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "nodiratime": 2048,
    "relatime": 1 << 21,
}  # fmt: skip
_CLONE_NEWNS: Final = 0x20000


def settings(unit: Path) -> dict[str, list[str]]:
    """What a unit file assigns, by name; an empty assignment begins anew, as in systemd."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";", "[")):
            found.setdefault(name, [])
            found[name] = [*found[name], value] if value else []
    return found


def system_calls(lines: Iterable[str]) -> set[str]:
    """The allow-list that SystemCallFilter= lines make; groups as this systemd has them."""
    allowed: set[str] = set()
    for line in lines:
        names = _expanded(line.removeprefix("~").split())
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed


def _expanded(words: Iterable[str]) -> set[str]:
    names: set[str] = set()
    for word in words:
        names |= _expanded(_group(word)) if word.startswith("@") else {word}
    return names


def _group(name: str) -> list[str]:
    command = ["systemd-analyze", "--no-pager", "syscall-filter", name]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    lines = [line.strip() for line in text.splitlines()[1:]]
    return [line for line in lines if line and not line.startswith("#")]


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("mask", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    )


class Filter:
    """One filter of libseccomp: `default` for everything that no rule is about."""

    def __init__(self, default: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2")
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._filter = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(default)))

    def add(self, action: int, name: str, *comparisons: tuple[int, int, int, int]) -> None:
        """One rule; a comparison is argument, operator, mask (or value), value. A system call
        that this architecture does not have needs none."""
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            return
        array = (_Comparison * len(comparisons))(*comparisons)
        count = ctypes.c_uint(len(comparisons))
        done = self._library.seccomp_rule_add_array(
            self._filter, ctypes.c_uint32(action), number, count, array
        )
        if done and done != -errno.EACCES:  # it is the default
            raise OSError(-done, name)

    def load(self) -> None:
        """From now on, for this process and what it becomes."""
        done = self._library.seccomp_load(self._filter)
        if done:
            raise OSError(-done, "seccomp_load")


def _refusals(unit: dict[str, list[str]]) -> None:
    """What is refused by its arguments."""
    refused = Filter(ALLOW)
    denied = ERRNO | errno.EPERM
    if "yes" in unit.get("MemoryDenyWriteExecute", []):
        both = _PROT_WRITE | _PROT_EXEC
        refused.add(denied, "mmap", (2, _MASKED, both, both))
        for name in ("mprotect", "pkey_mprotect"):
            refused.add(denied, name, (2, _MASKED, _PROT_EXEC, _PROT_EXEC))
        refused.add(denied, "shmat", (2, _MASKED, _SHM_EXEC, _SHM_EXEC))
    if "yes" in unit.get("RestrictNamespaces", []):
        for flag in _NAMESPACES:
            refused.add(denied, "clone", (0, _MASKED, flag, flag))
        for name in ("unshare", "setns"):
            refused.add(denied, name)
        refused.add(ERRNO | errno.ENOSYS, "clone3")
    words = " ".join(unit["RestrictAddressFamilies"]).split()
    for family in set(range(_LAST_FAMILY + 1)) - {_FAMILIES[word] for word in words}:
        refused.add(ERRNO | errno.EAFNOSUPPORT, "socket", (0, _EQUAL, family, 0))
    refused.load()


def _exec_paths(unit: dict[str, list[str]], more: Iterable[str]) -> None:
    """NoExecPaths=/ in a mount namespace: one bind mount over all that is mounted, without exec."""
    if unit.get("NoExecPaths") != ["/"]:
        return
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(source: str | None, place: str, flags: int) -> None:
        given = source and source.encode()
        if libc.mount(given, place.encode(), None, ctypes.c_ulong(flags), None):
            raise OSError(ctypes.get_errno(), f"mount {place}")

    if libc.unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    mount(None, "/", _MS_REC | _MS_PRIVATE)
    kept = [path for line in unit["ExecPaths"] for path in line.split()]
    kept = [str(Path(path).resolve()) for path in [*kept, *more] if Path(path).exists()]
    for path in kept:
        mount(path, path, _MS_BIND | _MS_REC)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        _, _, _, _, place, options, *_ = line.split()
        place = place.encode().decode("unicode_escape")
        if place not in kept and Path(place).exists():
            as_before = sum(_MS_OPTIONS.get(each, 0) for each in options.split(","))
            mount(None, place, _MS_REMOUNT | _MS_BIND | as_before | _MS_NOEXEC)


def confine(unit: Path, *, also_run: Iterable[str] = ()) -> None:
    """All of it, for this process and what it becomes."""
    assigned = settings(unit)
    allowed = system_calls(assigned["SystemCallFilter"])
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        _exec_paths(assigned, also_run)
        for capability in range(_CAPABILITIES):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _refusals(assigned)
    number = getattr(errno, assigned["SystemCallErrorNumber"][-1])
    rest = Filter(ERRNO | number)
    for name in sorted(allowed):
        rest.add(ALLOW, name)
    rest.load()


if __name__ == "__main__":
    confine(Path(sys.argv[1]), also_run=[sys.prefix])
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - no shell is what it is for
