"""Run a command as a systemd unit confines it: its system calls and its kinds of sockets, by a seccomp filter.

    python confined.py UNIT COMMAND…

Needs Linux, libseccomp and systemd-analyze; no systemd has to run, and no rights are needed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

LIBRARY = "libseccomp.so.2"
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_EQUAL = 4


class _Compared(ctypes.Structure):
    """libseccomp's ``scmp_arg_cmp``: argument ``arg`` of a call, and what it must be."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def settings(unit: Path, name: str) -> list[str]:
    """Return the words that ``unit`` gives to ``name``, line by line."""
    lines = unit.read_text().splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")]


def calls_allowed(unit: Path) -> set[str]:
    """Return the system calls that the unit's ``SystemCallFilter`` lines leave."""
    allowed: set[str] = set()
    for line in settings(unit, "SystemCallFilter"):
        named = {call for word in line.removeprefix("~").split() for call in _calls(word)}
        allowed = allowed - named if line.startswith("~") else allowed | named
    return allowed


def _calls(word: str) -> set[str]:
    """Return the calls of a group such as ``@system-service``, and of the groups in it."""
    if not word.startswith("@"):
        return {word}
    shown = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter", word], capture_output=True, text=True, check=True
    ).stdout
    inside = [line.strip() for line in shown.splitlines()[1:]]
    return {call for one in inside if one and not one.startswith("#") for call in _calls(one)}


def confine(calls: set[str], families: list[int]) -> None:
    """Refuse all other system calls, and sockets of other families, in this process and what it becomes."""
    library = ctypes.CDLL(LIBRARY)
    library.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(library.seccomp_init(_REFUSE | errno.EPERM))
    for call in sorted(calls - {"socket"}):
        number = library.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:
            _succeeded(library.seccomp_rule_add_array(rules, _ALLOW, number, 0, None), call)
    number = library.seccomp_syscall_resolve_name(b"socket")
    for family in families:
        compared = _Compared(0, _EQUAL, family, 0)
        _succeeded(library.seccomp_rule_add_array(rules, _ALLOW, number, 1, ctypes.byref(compared)), "socket")
    _succeeded(library.seccomp_load(rules), "the filter")


def _succeeded(code: int, what: str) -> None:
    if code != 0:
        raise OSError(-code, f"{what}: {os.strerror(-code)}")


if __name__ == "__main__":
    unit, *command = sys.argv[1:]
    words = " ".join(settings(Path(unit), "RestrictAddressFamilies")).split()
    confine(calls_allowed(Path(unit)), [getattr(socket, word).value for word in words])
    os.execvp(command[0], command)
