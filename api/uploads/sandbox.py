"""The sandbox of a decoder process: what it gives up for good before it sees an uploaded byte.

Linux lets any process give these up, in a container too: no root, no namespaces, no library. Whoever takes over an
image decoder by a crafted file then has a process that can answer on one socket and read program files, no more.
Elsewhere than on Linux for x86-64 and 64-bit ARM nothing is given up.

The numbers are from Linux's user-space headers: seccomp.h, filter.h, landlock.h, prctl.h, and tables of system calls.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
import sysconfig
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path

_ROOT = Path(__file__).parents[2]

_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITIES_V3 = 0x20080522
_SET_MODE_FILTER = 1
_SPEC_ALLOW = 4  # some kernels would slow down every branch of a filtered process
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_GREATER_OR_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06
_OFFSET_OF_CALL, _OFFSET_OF_ARCHITECTURE = 0, 4
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_X32_CALLS = 0x40000000  # a second table of calls on x86-64
# Calls of the same numbers everywhere.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT, _IO_URING_SETUP = 444, 445, 446, 425
_ALL_FILE_RIGHTS = (13, 14, 15, 15, 16)  # bits that each version of Landlock knows, from its first; later: as the last
_READ_FILE, _READ_DIRECTORY = 1 << 2, 1 << 3
_PATH_BENEATH = 1
_SCOPES_SINCE, _SCOPES = 6, 0b11  # abstract sockets and signals


class Protection(StrEnum):
    """What a process can give up.

    Attributes:
        PRIVILEGES: capabilities, and the gaining of any by starting a program.
        NETWORK: sockets of every kind, and starting programs at all.
        FILES: all files but Python's own and the service's code; looking into other processes, and since Linux 6.12
            signals to them.
    """

    PRIVILEGES = "privileges"
    NETWORK = "network"
    FILES = "files"


# By machine: AUDIT_ARCH_*, and the numbers of seccomp, capset; socket, socketpair, execve, execveat.
_NUMBERS = {
    "x86_64": (0xC000003E, 317, 126, (41, 53, 59, 322)),
    "aarch64": (0xC00000B7, 277, 91, (198, 199, 221, 281)),
}


def confine() -> list[Protection]:
    """Give up for this process, which must have one thread, whatever its kernel lets it.

    Returns:
        what was given up; the rest this kernel does not offer.
    """
    if sys.platform != "linux" or platform.machine() not in _NUMBERS:
        return []
    architecture, seccomp, capset, forbidden = _NUMBERS[platform.machine()]
    libc = ctypes.CDLL(None, use_errno=True)

    def call(number: int, *arguments: int | bytes | None) -> int:
        words = (ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments)
        result = int(libc.syscall(ctypes.c_long(number), *words))
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    steps: dict[Protection, Callable[[], object]] = {
        Protection.PRIVILEGES: lambda: _give_up_privileges(libc, call, capset),
        Protection.FILES: lambda: _give_up_files(call),
        Protection.NETWORK: lambda: _filter_calls(call, seccomp, architecture, (*forbidden, _IO_URING_SETUP)),
    }
    done = []
    for protection, step in steps.items():
        try:
            step()
        except OSError:  # the kernel has it not, or a sandbox around this one forbids it
            continue
        done.append(protection)
    return done


def _give_up_privileges(libc: ctypes.CDLL, call: Callable[..., int], capset: int) -> None:
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    call(capset, struct.pack("Ii", _CAPABILITIES_V3, 0), bytes(24))


def _filter_calls(call: Callable[..., int], seccomp: int, architecture: int, forbidden: Iterable[int]) -> None:
    """Have calls fail with EPERM: the forbidden ones, and those by the numbers of another architecture."""
    refused = list(forbidden)
    steps = [
        (_LOAD, 0, 0, _OFFSET_OF_ARCHITECTURE),
        (_JUMP_IF_EQUAL, 0, len(refused) + 3, architecture),
        (_LOAD, 0, 0, _OFFSET_OF_CALL),
        (_JUMP_IF_GREATER_OR_EQUAL, len(refused) + 1, 0, _X32_CALLS),
        *((_JUMP_IF_EQUAL, len(refused) - place, 0, number) for place, number in enumerate(refused)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FAIL | errno.EPERM),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code))
    call(seccomp, _SET_MODE_FILTER, _SPEC_ALLOW, program)


def _give_up_files(call: Callable[..., int]) -> None:
    version = call(_LANDLOCK_CREATE, None, 0, 1)
    n_rights = _ALL_FILE_RIGHTS[min(version, len(_ALL_FILE_RIGHTS)) - 1]
    scopes = _SCOPES if version >= _SCOPES_SINCE else 0
    rules = struct.pack("QQQ", (1 << n_rights) - 1, 0, scopes)
    ruleset = call(_LANDLOCK_CREATE, rules, len(rules), 0)
    try:
        for path in _readable():
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                rights = _READ_FILE | (_READ_DIRECTORY if path.is_dir() else 0)
                call(_LANDLOCK_ADD, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, opened), 0)
            finally:
                os.close(opened)
        call(_LANDLOCK_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _readable() -> list[Path]:
    """Where modules and shared libraries lie, which may be loaded as late as a photo needs them."""
    packages = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    libraries = {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/sys/devices/system/cpu"}
    paths = {Path(path) for path in packages | libraries} | {_ROOT / "api", _ROOT / "shared"}
    return sorted(path for path in paths if path.exists())
