"""The kernels of every instruction set beside plain loops, in C++: of this CPU, and emulated of AMX and aarch64."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import grids
import pytest

from riyaz import native

ROOT = Path(__file__).parents[2]
TOOLS = {"aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu", "qemu-aarch64": "qemu-user"}  # and their Debian packages
# Some of those compared
KERNELS = {"inputs", "few tokens int4k", "sketch", "ternary", "trits", "rms_norm", "gelu_erf", "attention bf16",
           "trits groups of 128", "training loss fp32", "training attention bf16", "training codes fp32"}  # fmt: skip
pytestmark = pytest.mark.slow


def make(target: str, *settings: str) -> list[list[str]]:
    """What `make TARGET` prints: the lines of each run of the program."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "CXX"))}
    command = ["make", target, f"PYTHON={sys.executable}", *settings]
    done = subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1500:]
    runs = done.stdout.split("largest error of each kernel")[1:]
    return [run.splitlines()[1:] for run in runs]


def compared(lines: list[str]) -> dict[str, dict[str, float]]:
    """Kernel -> instruction set -> its largest error, of those allowed."""
    found = {}
    for line in lines:
        if row := re.fullmatch(r"(\S.*?)  +(\S+ \S+(?:  \S+ \S+)*)", line):
            found[row[1]] = {name: float(part) for name, part in (pair.split() for pair in row[2].split("  "))}
    return found


def test_kernels_of_this_cpu_are_those_of_plain_loops() -> None:
    (lines,) = make("kernels")
    found = compared(lines)
    assert found.keys() >= KERNELS
    assert all(error <= 1 for errors in found.values() for error in errors.values())
    assert found["few tokens int4"].keys() == set(native.isas())


def test_kernels_in_tiles_are_those_of_plain_loops() -> None:
    if "amx" in native.isas() or "avx512bf16" not in native.isas():
        pytest.skip("this CPU has AMX, and the kernels are compared above, or not what its emulation needs")
    (lines,) = make("tiles")
    found = compared(lines)
    assert all(error <= 1 for errors in found.values() for error in errors.values())
    for kernel in ("tiles int8", "tiles bf16", "attention_tiles", "training dense"):
        assert "amx" in found[kernel], kernel


@pytest.mark.grid  # the emulation takes two and a half minutes for all cases
def test_kernels_of_aarch64_are_those_of_plain_loops() -> None:
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if missing:
        pytest.skip(f"no compiler or no emulator for aarch64; apt-get install {' '.join(missing)}")
    newest, older = (compared(lines) for lines in make("cross", *([] if grids.WHOLE else ["SOME=--some"])))
    assert newest.keys() == older.keys() and newest.keys() >= KERNELS
    assert newest["few tokens int4"].keys() == {"scalar", "dotprod", "i8mm"}
    assert older["few tokens int4"].keys() == {"scalar", "dotprod"}
    for found in (newest, older):
        assert all(error <= 1 for errors in found.values() for error in errors.values())
        for kernel in ("inputs", "whole numbers int8", "whole numbers int4", "whole numbers int4k", "store", "ternary",
                       "trits"):  # fmt: skip
            assert set(found[kernel].values()) == {0}, kernel


def test_kernels_of_windows_under_wine() -> None:
    tools = ("x86_64-w64-mingw32-g++-posix", "wine")
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        pytest.skip(f"no {', '.join(missing)}; apt-get install g++-mingw-w64-x86-64-posix wine64 wine")
    (run,) = make("windows", "SOME=--some")
    found = compared(run)
    assert found.keys() >= KERNELS and found["few tokens int4"].keys() == {"scalar", "avx2"}
    assert all(error <= 1 for errors in found.values() for error in errors.values())
