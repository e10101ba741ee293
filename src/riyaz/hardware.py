"""This machine's cores, instruction sets, memory and disk, and the refusal of what does not fit them. Standard library
only; Linux and macOS.

In a container, /proc describes the host; the cgroup's CPU quota and memory limit are therefore read too, and the
smaller value is used. `root` is "/" except in tests, which create a tree of their own.
"""

import contextlib
import math
import mmap
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riyaz import system
from riyaz.errors import RiyazError

ROOT = Path("/")
MB = 2**20  # bytes in the "MB" of every report
TORCH_MB = 230  # memory of Python, numpy and torch before there is a model
TORCH_SPACE_MB, THREAD_SPACE_MB = 820, 64  # address space that torch, and each thread, reserve and mostly do not fill
# Address space that numpy, the tokenizers and our modules reserve on import, scipy, and each thread of both's OpenBLAS.
START_SPACE_MB, SCIPY_SPACE_MB, BLAS_SPACE_MB = 110, 60, 40
OUT_OF_MEMORY = "out of memory"
MORE_MEMORY = "take a smaller model, close other programs or raise the limit (ulimit -v)"

RAN_OUT = (
    "can't allocate memory", "cannot allocate memory", "not enough memory", "failed to map segment", "bad_alloc",
    "can't start new thread", "out of memory", "could not create a primitive",
)  # fmt: skip

# Instruction sets that affect the speed of matrix products, by Linux's names; x86, then ARM.
INSTRUCTION_SETS = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512vbmi"),
    *("avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
BF16 = frozenset({"amx_bf16", "bf16"})  # faster than float32 on every CPU that has them
AMD = "AuthenticAMD"  # so is avx512_bf16 here; a Xeon without AMX has it at half float32's speed (140, 332 GFLOP/s)

# macOS's names (sysctl keys on ARM, feature words on Intel) -> Linux's.
MACOS_ARM = {
    "hw.optional.AdvSIMD": "asimd",
    "hw.optional.arm.FEAT_FP16": "asimdhp",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
}
MACOS_INTEL = {
    "SSE4.2": "sse4_2",
    "AVX1.0": "avx",
    "F16C": "f16c",
    "FMA": "fma",
    "AVX2": "avx2",
    "AVX512F": "avx512f",
    "AVX512BW": "avx512bw",
    "AVX512VL": "avx512vl",
    "AVX512VBMI": "avx512vbmi",
    "AVX512VNNI": "avx512_vnni",
}


@dataclass(frozen=True)
class Memory:
    """Memory in bytes: what this process may use in total, and what is available (free or reclaimable) now."""

    total: int
    available: int


@dataclass(frozen=True)
class CpuTime:
    """Seconds that the threads of this process ran, and that they waited for a CPU that ran something else."""

    ran: float
    waited: float


def _text(path: Path) -> str:
    """The text of a system file, or "" if it is unreadable or missing."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    """The integer in a system file; None if the file is missing or holds no integer (such as "max")."""
    text = _text(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _command(*arguments: str) -> str:
    """The standard output of a system tool, or "" if it is missing or fails."""
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cgroups(controller: str, root: Path) -> list[Path]:
    """The folders of this process's cgroup and all its parents, v1 and v2; the limits of all of them apply."""
    mount, folders = root / "sys/fs/cgroup", []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        names, _, group = rest.partition(":")
        if not names:
            bases = [mount, mount / "unified"]
        elif controller in names.split(","):
            bases = [mount / controller, mount / names]
        else:
            continue
        parts = [part for part in group.split("/") if part]
        if ".." in parts:  # the group is outside our namespace; only the mount point is visible
            parts = []
        folders += [base.joinpath(*parts[:depth]) for base in bases for depth in range(len(parts), -1, -1)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _quota(root: Path) -> float:
    """The cgroup's CPU quota in CPUs, possibly fractional; infinity without a limit."""
    quota = math.inf
    for folder in _cgroups("cpu", root):
        microseconds, _, period = _text(folder / "cpu.max").strip().partition(" ")  # v2: "150000 100000"
        if microseconds.isdigit() and period.isdigit():
            quota = min(quota, int(microseconds) / max(1, int(period)))
        limit, span = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if limit and span and limit > 0:  # v1: -1 means no limit
            quota = min(quota, limit / span)
    return quota


def cores(root: Path = ROOT) -> int:
    """Cores this process may use: the smaller of CPU affinity and the cgroup's quota rounded down, at least 1."""
    # rounded down, because one throttled thread stalls all threads that wait for it
    return max(1, int(min(system.usable_cores(), _quota(root))))


def threads() -> int:
    """Threads to compute with: OMP_NUM_THREADS where it holds a number of at least 1, else `cores()`."""
    setting = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(setting) if setting.isdecimal() and int(setting) else cores()


def use_threads(count: int) -> None:
    """Set the number of threads, of this process and those that it starts; torch reads it when it is imported."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(count)


def isa(root: Path = ROOT) -> tuple[str, ...]:
    """Instruction sets that every core has, by Linux's names, in the order of INSTRUCTION_SETS."""
    features: set[str] | None = None
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            features = set(value.split()) if features is None else features & set(value.split())
    if features is None:
        features = _isa_macos()
    return tuple(name for name in INSTRUCTION_SETS if name in features)


def _isa_macos() -> set[str]:
    """Instruction sets from macOS's sysctl, by Linux's names; empty on other systems."""
    words = _command("sysctl", "-n", "machdep.cpu.features", "machdep.cpu.leaf7_features").split()
    features = {MACOS_INTEL[word] for word in words if word in MACOS_INTEL}
    if platform.machine() == "arm64":
        features |= {name for key, name in MACOS_ARM.items() if _command("sysctl", "-n", key) == "1"}
    return features


def bf16_is_fast(root: Path = ROOT) -> bool:
    """Whether matrix products in bf16 are faster than in float32: with AMX, ARM BF16, or AVX-512 BF16 by AMD."""
    has = isa(root)
    return not BF16.isdisjoint(has) or ("avx512_bf16" in has and AMD in _text(root / "proc/cpuinfo"))


def cpu_model(root: Path = ROOT) -> str:
    """The CPU's model name, plus family and model numbers if it has no number (as "AMD EPYC" in virtual machines).

    On ARM Linux, which reports no name, the implementer and part number.
    """
    fields: dict[str, str] = {}
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    if name := fields.get("model name"):
        numbered = re.search(r"\d", name) or not {"cpu family", "model"} <= fields.keys()
        return name if numbered else f"{name} (family {fields['cpu family']}, model {fields['model']})"
    if "CPU part" in fields:
        return f"{platform.machine()} {fields.get('CPU implementer', '?')}:{fields['CPU part']}"
    return _command("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or platform.machine()


def memory(root: Path = ROOT) -> Memory:
    """Total and available memory in bytes, within cgroup limits; 0 where the system does not report it."""
    fields = {}
    for line in _text(root / "proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        if value.split()[1:] == ["kB"]:
            fields[key] = int(value.split()[0]) * 1024
    if "MemTotal" not in fields:
        return _memory_macos()
    total, available = fields["MemTotal"], fields.get("MemAvailable", fields.get("MemFree", 0))
    for folder in _cgroups("memory", root):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        if not limit or limit >= fields["MemTotal"]:  # cgroup v1 writes a huge number for "no limit"
            continue
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes") or 0
        total, available = min(total, limit), min(available, limit - used + _reclaimable(folder))
    return Memory(total, max(1, min(available, total)))  # 0 means that it is not known


def trim() -> None:
    """Give memory that is free again back to the system, where the C library keeps it for later (glibc)."""
    if malloc_trim := system.c_function("malloc_trim"):
        malloc_trim(0)


def address_space(root: Path = ROOT) -> int | None:
    """Bytes of address space that this process may still reserve (`ulimit -v`); None without a limit."""
    most = system.limit("AS")[0]
    pages = _text(root / "proc/self/statm").split()
    if most == math.inf or not pages:
        return None
    return max(0, int(most) - int(pages[0]) * mmap.PAGESIZE)


def expect_memory(what: str, need: float, hint: str, root: Path = ROOT, torch: bool = True) -> None:
    """Raises RiyazError unless `need` MB, and torch's own where it will be used and is not loaded yet, fit the free
    memory, the limits of the cgroup and the address space. `what` begins the message: who needs it. scipy may come
    later, and without space its OpenBLAS tries for ever, or ends the process."""
    loaded = not torch or "torch" in sys.modules
    refuse_memory(what, need + (0 if loaded else TORCH_MB), memory(root).available / MB, hint)
    space = need + THREAD_SPACE_MB * threads() + (0 if loaded else TORCH_SPACE_MB)
    if "scipy.special" not in sys.modules:
        space += SCIPY_SPACE_MB + BLAS_SPACE_MB * threads()
    _expect_space(what, space, root)


def expect_start(root: Path = ROOT) -> None:
    """Raises RiyazError unless numpy and the tokenizers can be imported: without address space they end the process
    themselves, with lines of their own or with a signal."""
    if "numpy" not in sys.modules:
        _expect_space("riyaz", START_SPACE_MB + BLAS_SPACE_MB * threads(), root)


def _expect_space(what: str, need: float, root: Path) -> None:
    """Raises RiyazError unless `need` MB of address space are left."""
    space = address_space(root)
    if space is not None and need > space / MB:
        figures = f"about {need:,.0f} MB of address space and {space / MB:,.0f} MB are left of its limit"
        raise RiyazError(f"{what} needs {figures}", hint="raise the limit (ulimit -v) or remove it")


def refuse_memory(what: str, need: float, free: float, hint: str, where: str = "", purpose: str = "") -> None:
    """Raises RiyazError when `need` MB are more than the `free` ones; 0 free means that they are not known."""
    if free and need > free:
        figures = f"about {need:,.0f} MB of memory{purpose} and {free:,.0f} MB are free"
        raise RiyazError(f"{what} needs {figures}", where, hint)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory, address space or threads ran out, in the words of Python, torch or the
    loader of shared libraries."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, (RuntimeError, OSError, ImportError)) and any(words in text for words in RAN_OUT)
    )


def _reclaimable(folder: Path) -> int:
    """Bytes of file cache in a cgroup that the kernel can reclaim."""
    stat = dict(line.split() for line in _text(folder / "memory.stat").splitlines() if line.count(" ") == 1)
    return int(stat.get("total_inactive_file", stat.get("inactive_file", "0")))


def _memory_macos() -> Memory:
    """Memory from macOS's sysctl and vm_stat; free, inactive, speculative and purgeable pages count as available."""
    total = _command("sysctl", "-n", "hw.memsize")
    head, *lines = _command("vm_stat").splitlines() or [""]
    page = next((int(word) for word in head.split() if word.isdigit()), 4096)
    counts = dict(line.split(":", 1) for line in lines if ":" in line)
    names = ("Pages free", "Pages inactive", "Pages speculative", "Pages purgeable")
    pages = sum(int(counts[name].strip(" .")) for name in names if name in counts)
    return Memory(int(total) if total.isdigit() else 0, pages * page)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    import importlib.metadata  # takes 25 ms and 4 MB, which an answer does not need

    installed = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


def disk_free(path: Path | str = ".") -> int:
    """Free bytes on the disk of `path`, or of its nearest existing parent."""
    folder = Path(path).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def peak_rss(root: Path = ROOT) -> int:
    """Peak resident memory of this process so far, bytes; 0 where the system does not report it."""
    # on Linux, ru_maxrss survives exec, so a child would report its parent's peak; VmHWM is reset
    for line in _text(root / "proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return system.most_memory()


def process_seconds(root: Path = ROOT) -> float:
    """Wall seconds since this process began, its imports included; 0 where the system does not say."""
    fields = _text(root / "proc/self/stat").rpartition(")")[2].split()  # the name before it may hold anything
    seconds = system.since_boot(int(fields[19])) if len(fields) >= 20 else None
    return max(0.0, seconds or 0.0)


def cpu_time(root: Path = ROOT) -> CpuTime | None:
    """The CPU time of all threads that live now; None where the system does not count it."""
    fields = [_text(path).split() for path in (root / "proc/self/task").glob("*/schedstat")]
    counts = [(int(ran), int(waited)) for ran, waited, *_ in filter(None, fields)]  # nanoseconds
    if not counts:
        return None
    ran, waited = map(sum, zip(*counts))
    return CpuTime(ran / 1e9, waited / 1e9)


def share_waited(before: CpuTime | None, after: CpuTime | None) -> float | None:
    """The share of the CPU time asked for between two readings that was not had; None if it is unknown."""
    if before is None or after is None:
        return None
    waited, wanted = after.waited - before.waited, after.ran + after.waited - before.ran - before.waited
    return min(1.0, max(0.0, waited / wanted)) if wanted > 0 else None


def describe(path: Path | str = ".") -> dict[str, Any]:
    """This machine as JSON-serialisable values; `disk_free_mb` is of the disk that holds `path`."""
    now = memory()
    return {
        "cpu": cpu_model(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": cores(),
        "isa": list(isa()),
        "bf16_is_fast": bf16_is_fast(),
        "memory_total_mb": now.total // MB or None,  # not known
        "memory_available_mb": now.available // MB or None,
        "disk_free_mb": disk_free(path) // MB,
    }
