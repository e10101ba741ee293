"""The C++ engine, the extension `riyaz._native`: loaded at the first question, with one line where that fails."""

import importlib
import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from riyaz.errors import RiyazError
from riyaz.extras import install

REASON = Path(__file__).with_name("_native.txt")  # written by CMakeLists.txt where there is nothing to build with
VERSION = 6  # of the kernels of training: another one where they round otherwise
PLAIN = "plain loops, which are slow: this CPU or RIYAZ_ISA allows no others"
WITHOUT = "this is the wheel without it"  # as native/wheels.py writes into REASON
BUILD = "install g++ 12 or newer and Python's header files, then `make native` or pip install riyaz again"


@cache
def _loaded() -> tuple[ModuleType | None, str]:
    """The extension and ``, or None and why it cannot be used."""
    try:
        module = importlib.import_module("riyaz._native")
    except ModuleNotFoundError as error:
        if error.name != "riyaz._native":
            return None, f"the C++ engine cannot be loaded: {error}"
        return None, f"the C++ engine is not built: {_not_built()}"
    except ImportError as error:  # built for another Python, or a library is missing
        return None, f"the C++ engine cannot be loaded: {' '.join(str(error).split())}; build it again: {BUILD}"
    try:
        module.isa()
    except ValueError as error:  # RIYAZ_ISA
        return None, str(error)
    return module, ""


def _not_built() -> str:
    """What CMake found missing, or that nothing was built yet, and what to do."""
    try:
        reason = REASON.read_text(encoding="utf-8").strip() or "no reason was written"
    except OSError:
        reason = "there is none for this Python"
    if not reason.startswith(WITHOUT):
        return f"{reason}; {BUILD}"
    return reason if find_spec("torch") else f"{reason}; {install('train')}, so that torch answers"


def available() -> bool:
    """Whether the C++ engine can be used here."""
    return _loaded()[0] is not None


def trains() -> bool:
    """Whether training uses the C++ kernels too: not with `RIYAZ_NATIVE=0`, and plain loops, which are slower than
    torch, only with `RIYAZ_NATIVE=1`."""
    return _trains(os.environ.get("RIYAZ_NATIVE"))


@cache
def _trains(setting: str | None) -> bool:
    return setting != "0" and available() and (setting == "1" or isa() != "scalar")


def multiplies() -> bool:
    """Whether training's products of bfloat16 weights are the C++ kernels': where these multiply pairs of numbers, or
    in AMX's tiles; else torch's."""
    return trains() and bool(extension().has_dense())


def trainer() -> str:
    """What computes in training, since others give the same weights but for their last bits: the instruction set of
    the C++ kernels and their VERSION, or torch."""
    if not trains():
        return "torch"
    return f"C++ {VERSION} ({isa()})"


def why_not() -> str:
    """One line that says why the C++ engine cannot be used, and what to do; `` if it can."""
    return _loaded()[1]


def extension() -> ModuleType:
    """The extension; RiyazError with `why_not()` where it cannot be used."""
    module, why = _loaded()
    if module is None:
        raise RiyazError(why)
    return module


def isa() -> str:
    """The instruction set whose kernels run: the best that this CPU has, or the one that RIYAZ_ISA forces."""
    return str(extension().isa())


def isas() -> tuple[str, ...]:
    """The instruction sets that this build holds and this CPU can run, best last."""
    return tuple(extension().isas())


def read_bandwidth_gbs(threads: int, megabytes: int = 96) -> float:
    """10^9 bytes per second that threads read together from a block of this size, the best of five rounds."""
    return float(extension().read_bandwidth(megabytes << 20, threads)) / 1e9


def matmul_peak(kind: str, threads: int) -> float:
    """10^9 operations per second, two per multiply-add, of the threads' products in registers: "int8" or "bf16"."""
    return 2 * float(extension().peak(("int8", "bf16").index(kind), threads)) / 1e9
