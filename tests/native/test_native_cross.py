"""The kernels of every instruction set beside plain loops, in C++: of this CPU, and emulated of AMX and aarch64."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import grids
import pytest

from riyaz import native

ROOT = Path(__file__).parents[2]
TOOLS = {"aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu", "qemu-aarch64": "qemu-user"}  # and their Debian packages
# Some of those compared
KERNELS = {"inputs", "few tokens int4k", "sketch", "ternary", "trits", "rms_norm", "gelu_erf", "attention bf16",
           "trits groups of 128", "training loss fp32", "training attention bf16", "training codes fp32"}  # fmt: skip
SOME = [] if grids.WHOLE else ["SOME=--some"]  # a sample of the slow checks where a CPU is emulated
BUILT = "STRICT="  # with warnings as they were when the engine was installed, and not all of it compiled anew
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Run:
    """What the program printed once: the instruction sets of its CPU, and of each kernel the largest error by set."""

    sets: list[str]
    found: dict[str, dict[str, float]]

    @property
    def right(self) -> bool:
        """Whether no error is larger than is allowed."""
        return all(error <= 1 for errors in self.found.values() for error in errors.values())


def make(target: str, *settings: str) -> list[Run]:
    """The runs of the program by `make TARGET`."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "CXX"))}
    command = ["make", target, f"PYTHON={sys.executable}", *settings]
    done = subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1500:]
    runs = [run.split("\n", 1) for run in done.stdout.split("this CPU runs ")[1:]]
    return [Run(sets.split(), compared(lines.splitlines()[1:])) for sets, lines in runs]


def compared(lines: list[str]) -> dict[str, dict[str, float]]:
    """Kernel -> instruction set -> its largest error, of those allowed."""
    found = {}
    for line in lines:
        if row := re.fullmatch(r"(\S.*?)  +(\S+ \S+(?:  \S+ \S+)*)", line):
            found[row[1]] = {name: float(part) for name, part in (pair.split() for pair in row[2].split("  "))}
    return found


def test_kernels_of_this_cpu_are_those_of_plain_loops() -> None:
    (run,) = make("kernels", BUILT)
    assert run.right and run.found.keys() >= KERNELS
    assert run.found["few tokens int4"].keys() == set(run.sets) == set(native.isas())


def test_kernels_in_tiles_are_those_of_plain_loops() -> None:
    if "amx" in native.isas() or "avx512bf16" not in native.isas():
        pytest.skip("this CPU has AMX, and the kernels are compared above, or not what its emulation needs")
    (run,) = make("tiles", BUILT)
    assert run.right and run.found.keys() >= KERNELS
    for kernel in ("tiles int8", "tiles bf16", "attention_tiles", "training dense"):
        assert run.found[kernel].keys() == {"amx"}, kernel


@pytest.mark.grid  # the emulation takes two and a half minutes for all cases
def test_kernels_of_aarch64_are_those_of_plain_loops() -> None:
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if missing:
        pytest.skip(f"no compiler or no emulator for aarch64; apt-get install {' '.join(missing)}")
    newest, older = make("cross", *SOME)
    assert newest.right and older.right
    assert newest.found.keys() == older.found.keys() and newest.found.keys() >= KERNELS
    assert newest.sets == ["scalar", "dotprod", "i8mm"] and newest.found["few tokens int4"].keys() == {"i8mm"}
    assert older.sets == ["scalar", "dotprod"] and older.found["few tokens int4"].keys() == {"scalar", "dotprod"}
    for run in (newest, older):
        for kernel in ("inputs", "whole numbers int8", "whole numbers int4", "whole numbers int4k", "store", "ternary",
                       "trits"):  # fmt: skip
            assert set(run.found[kernel].values()) == {0}, kernel


def test_kernels_of_windows_under_wine() -> None:
    tools = ("x86_64-w64-mingw32-g++-posix", "wine")
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        pytest.skip(f"no {', '.join(missing)}; apt-get install g++-mingw-w64-x86-64-posix wine64 wine")
    (run,) = make("windows", *SOME)
    assert run.right and run.found.keys() >= KERNELS
    assert run.found["few tokens int4"].keys() == {"scalar", "avx2"}
