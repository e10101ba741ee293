"""A process without network, files, other processes and most system calls, for code that a model wrote. Linux only.

`enter` gives this process its own namespaces and a root folder that holds nothing but Python's standard library,
read-only; `no_privileges` takes its rights; `forbid_calls` leaves the system calls that a computation needs. Only the
standard library is imported.
"""

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

NOBODY = 65_534
PRIVATE_USERS = 0x10000000  # CLONE_NEWUSER
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWPID, NEWNET: mounts, control groups, host name, IPC, processes, network
PRIVATE = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
READ_ONLY, NO_SUID, NO_DEVICES, REMOUNT, BIND, RECURSIVE, OWN = 1, 2, 4, 32, 4096, 16384, 1 << 18
# what a mount has (statvfs) and asks for (mount): who has no rights in its namespace may not drop these
KEPT = {"ST_NODEV": 4, "ST_NOEXEC": 8, "ST_NOATIME": 1 << 10, "ST_NODIRATIME": 1 << 11, "ST_RELATIME": 1 << 21}
LAZY = 2  # MNT_DETACH
SET_DEATH_SIGNAL, SET_DUMPABLE, SET_SECCOMP, NO_NEW_PRIVILEGES = 1, 4, 22, 38  # of prctl
KILL = 9
SCRATCH = "/proc"  # where the new root is mounted first: Python's library is never below it
TMPFS = "size=256k,nr_inodes=1000,mode=0755"

# The calls of a computation that reads modules and writes to a pipe, by machine. Not: processes, threads, signals to
# others, connections, names of files to change, limits and priorities, tracing, mounts, keys, shared memory.
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
CALLS = {
    "x86_64": """0 1 3 4 5 6 7 8 9 10 11 12 13 14 15 17 19 20 21 23 24 25 28 35 39 60 63 79 89 96 98 99 100 102 104
    107 108 110 131 186 201 202 204 217 219 228 229 230 231 262 267 269 270 271 318 332 334 439""",
    "aarch64": """17 48 57 61 62 63 64 65 66 67 72 73 78 79 80 93 94 98 101 113 114 115 123 124 128 132 134 135 139
    153 160 165 169 172 173 174 175 176 177 178 179 214 215 216 222 226 233 278 291 293 439""",
}
OPENAT = {"x86_64": 257, "aarch64": 56}
FCNTL = {"x86_64": 72, "aarch64": 25}
WRITING = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | os.O_APPEND  # flags of openat that are refused
FCNTL_COMMANDS = (0, 1, 2, 3, 1030)  # F_DUPFD, GETFD, SETFD, GETFL, DUPFD_CLOEXEC


class Missing(Exception):
    """What this machine lacks, in one line."""


def enter(folders: Sequence[str]) -> None:
    """Puts this process into namespaces of its own: no network, a root folder that holds only `folders`, read-only.
    Its next child is the first process of its namespace. Raises Missing where the system does not allow it."""
    if platform.machine() not in CALLS or not sys.platform.startswith("linux"):
        raise Missing(f"no confinement is known for {platform.system()} on {platform.machine()}")
    user, group = os.geteuid(), os.getegid()
    if _libc().unshare(PRIVATE):  # only root may do this in the namespace of all users
        _call("unshare", PRIVATE | PRIVATE_USERS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{NOBODY} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{NOBODY} {group} 1")
    _call("mount", b"none", b"/", None, RECURSIVE | OWN, None)  # what is mounted here stays here
    _new_root(folders)


def no_privileges() -> None:
    """Makes this process nobody's, without capabilities and without a way to get any; it ends with its parent."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)  # _LINUX_CAPABILITY_VERSION_3, this process
    _call("capset", header, none)
    for option, value in ((SET_DUMPABLE, 0), (NO_NEW_PRIVILEGES, 1), (SET_DEATH_SIGNAL, KILL)):
        _call("prctl", option, value, 0, 0, 0)


def filter_of_calls() -> bytes:
    """The program for the kernel (classic BPF) that lets the calls of a computation pass and answers EPERM to others;
    empty where it is not known for this machine."""
    machine = platform.machine()
    if not sys.platform.startswith("linux") or machine not in CALLS:
        return b""

    def step(code: int, value: int, when: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("=HBBI", code, when, otherwise, value)

    load, equal, any_bit, end = 0x20, 0x15, 0x45, 0x06  # LD|W|ABS, JMP|JEQ|K, JMP|JSET|K, RET|K
    allow, refuse, kill = step(end, 0x7FFF0000), step(end, 0x00050001), step(end, 0x80000000)
    low, high = 16 + 8 * 2, 16 + 8  # where the third argument's lower half stands, and the second's
    program = [step(load, 4), step(equal, ARCHITECTURES[machine], 1, 0), kill, step(load, 0)]
    program += [part for call in map(int, CALLS[machine].split()) for part in (step(equal, call, 0, 1), allow)]
    program += [step(equal, OPENAT[machine], 0, 4), step(load, low), step(any_bit, WRITING, 0, 1), refuse, allow]
    program += [step(equal, FCNTL[machine], 0, 1 + 2 * len(FCNTL_COMMANDS)), step(load, high)]
    program += [part for command in FCNTL_COMMANDS for part in (step(equal, command, 0, 1), allow)]
    return b"".join([*program, refuse])


def forbid_calls(program: bytes) -> None:
    """Puts the program of `filter_of_calls` before every system call of this process. Raises Missing if refused."""
    code = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    whole = Program(len(program) // 8, ctypes.addressof(code))
    _call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _call("prctl", SET_SECCOMP, 2, ctypes.byref(whole), 0, 0)  # SECCOMP_MODE_FILTER


def _new_root(folders: Sequence[str]) -> None:
    """A root folder of this process's own, where each of the folders stands at its path."""
    _call("mount", b"none", SCRATCH.encode(), b"tmpfs", NO_SUID | NO_DEVICES, TMPFS.encode())
    for folder in folders:
        place = SCRATCH + folder
        os.makedirs(place, 0o755)
        _call("mount", os.fsencode(folder), os.fsencode(place), None, BIND | RECURSIVE, None)
        has = os.statvfs(place).f_flag
        kept = sum(flag for name, flag in KEPT.items() if has & getattr(os, name))
        _call("mount", None, os.fsencode(place), None, kept | REMOUNT | BIND | READ_ONLY | NO_SUID, None)
        for inner in ("site-packages", "dist-packages"):  # what is installed is none of the code's business
            if os.path.isdir(f"{place}/{inner}"):
                _call("mount", b"none", os.fsencode(f"{place}/{inner}"), b"tmpfs", READ_ONLY | NO_SUID, TMPFS.encode())
    _call("mount", b"none", SCRATCH.encode(), None, REMOUNT | READ_ONLY | NO_SUID | NO_DEVICES, TMPFS.encode())
    os.chdir(SCRATCH)
    _call("syscall", PIVOT_ROOT[platform.machine()], b".", b".")  # the old root is now on top of the new one
    _call("umount2", b".", LAZY)
    os.chdir("/")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    """Calls a function of the C library. Raises Missing with the system's reason where it fails."""
    longs = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments]
    if getattr(_libc(), name)(*longs):
        raise Missing(f"{name}: {os.strerror(ctypes.get_errno())}")
