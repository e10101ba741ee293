"""The C++ engine, the extension `riyaz._native`: loaded at the first question, with one line where that fails."""

import importlib
from functools import cache
from pathlib import Path
from types import ModuleType

from riyaz.errors import RiyazError

REASON = Path(__file__).with_name("_native.txt")  # written by CMakeLists.txt where there is nothing to build with
BUILD = "install g++ 12 or newer and Python's header files, then `make native` or pip install riyaz again"


@cache
def _loaded() -> tuple[ModuleType | None, str]:
    """The extension and ``, or None and why it cannot be used."""
    try:
        module = importlib.import_module("riyaz._native")
    except ModuleNotFoundError as error:
        if error.name != "riyaz._native":
            return None, f"the C++ engine cannot be loaded: {error}"
        return None, f"the C++ engine is not built: {_reason()}; {BUILD}"
    except ImportError as error:  # built for another Python, or a library is missing
        return None, f"the C++ engine cannot be loaded: {' '.join(str(error).split())}; build it again: {BUILD}"
    try:
        module.isa()
    except ValueError as error:  # RIYAZ_ISA
        return None, str(error)
    return module, ""


def _reason() -> str:
    """What CMake found missing, or that nothing was built yet."""
    try:
        return REASON.read_text(encoding="utf-8").strip() or "no reason was written"
    except OSError:
        return "there is none for this Python"


def available() -> bool:
    """Whether the C++ engine can be used here."""
    return _loaded()[0] is not None


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
