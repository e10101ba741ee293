"""Packages that only some commands need: which extra of pyproject.toml installs them, and the line that says so.

`pip install riyaz` answers and serves; comparing and searching documents need scipy and more, training needs torch. A
package can also be half there: of a version that riyaz cannot use, or one that fails when it is imported.
"""

import importlib
import re
import sys
import traceback
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from riyaz.errors import RiyazError, joined

ROOT = Path(__file__).parents[2]  # of a clone
COMPARING = ("scipy", "matplotlib", "sacrebleu", "bm25s")
PACKAGES = {"compare": COMPARING, "train": ("torch", *COMPARING)}  # extra -> what is imported of its packages
TRIED = 60  # seconds in which a package must be imported


def install(extra: str) -> str:
    """The hint for a package that is not installed: the command that installs an extra, into a clone if this is one."""
    if (ROOT / "pyproject.toml").is_file() and (ROOT / "src/riyaz").is_dir():
        return f"in riyaz's folder: pip install -e '.[{extra}]'"
    return f"pip install 'riyaz[{extra}]'"


def again(name: str) -> str:
    """The hint for a package that is there and does not work: the command that installs it once more."""
    oldest = _oldest().get(name)
    return f"pip install --force-reinstall '{name}{f'>={oldest}' if oldest else ''}'"


def require(extra: str, instead: str = "") -> None:
    """Say at once what is not installed, or too old, not after minutes of work. Raises RiyazError, with the command
    that installs the extra and what one can do `instead`."""
    if missing := absent(extra):
        what = f"{joined(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        raise RiyazError(what, hint=install(extra) + instead)
    name, wrong = unfit(extra)
    if wrong:
        raise RiyazError(wrong, hint=again(name) + instead)


def load(extra: str) -> None:
    """Import the packages of an extra, before hours of work that end with them. Raises RiyazError as `require`, and for
    one that cannot be imported."""
    import logging

    require(extra)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a home folder that is not there
    for name in PACKAGES[extra]:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise RiyazError(f"{name} cannot be imported: {one_line(error)}", hint=again(name)) from error


def absent(extra: str) -> list[str]:
    """What an extra installs and is not here."""
    return [name for name in PACKAGES[extra] if find_spec(name) is None]


def unfit(extra: str) -> tuple[str, str]:
    """(the first package of an extra that riyaz cannot use by its metadata, why); empty if there is none."""
    from importlib import metadata  # late, like all that `riyaz --help` does not need: 20 ms

    oldest = _oldest()
    for name in PACKAGES[extra]:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            return name, f"{name} is only half installed: its version is not known"
        if _numbers(version) < _numbers(oldest.get(name, "")):
            return name, f"{name} {version} is installed, and riyaz needs {oldest[name]} or newer"
    return "", ""


def _oldest() -> dict[str, str]:
    """Package -> the oldest version that riyaz's own metadata allows; empty where there is none, as in a bare copy."""
    from importlib import metadata

    try:
        lines = metadata.requires("riyaz") or []
    except metadata.PackageNotFoundError:
        return {}
    ranges = (re.match(r"([\w.-]+).*?>=([\d.]+)", line) for line in lines)
    return {match[1]: match[2] for match in ranges if match}


def _numbers(version: str) -> tuple[int, ...]:
    """2.13.0+cpu -> (2, 13)."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def import_error(extra: str) -> tuple[str, str]:
    """(the first package of an extra that cannot be imported, why); empty if there is none."""
    return next(((name, why) for name in PACKAGES[extra] if (why := _tried(name))), ("", ""))


@cache
def _tried(name: str) -> str:
    """Why a package cannot be imported, "" if it can. A process of its own tries it: torch takes 200 MB and, half
    installed, may end a process."""
    import subprocess

    script = [sys.executable, "-c", f"import {name}; {name}.__version__"]
    try:
        done = subprocess.run(script, capture_output=True, text=True, errors="replace", timeout=TRIED)
    except subprocess.TimeoutExpired:
        return f"{name} could not be imported in {TRIED} seconds"
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines() or [f"Python ended with status {done.returncode}"]
    return f"{name} cannot be imported: {lines[-1][:200]}"


def one_line(error: BaseException) -> str:
    """What an error says, in one line of at most 200 characters, or its kind."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def absence(error: BaseException) -> str | None:
    """The line for an import that failed because a package of an extra is missing or does not work; None for any other
    error."""
    packages = {name: extra for extra, names in reversed(PACKAGES.items()) for name in names}
    name = next((name for name in _at_fault(error) if name in packages), None)
    if name is None:
        return None
    if isinstance(error, ModuleNotFoundError) and error.name == name:
        return f"{name} is not installed; {install(packages[name])}"
    return f"{name} cannot be imported: {one_line(error)}; {again(name)}"


def _at_fault(error: BaseException) -> list[str]:
    """The packages that an import ended in: what the error names, and whose modules were being run."""
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):  # an empty folder is a package too
        return [] if hasattr(error.obj, "__version__") else [error.obj.__name__]
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "<module>"]
    names = [error.name or ""] if isinstance(error, ImportError) else []
    names += [str(frame.f_globals.get("__name__", "")) for frame in frames]
    if isinstance(error, SyntaxError):  # of a file that was not run
        names += Path(error.filename or "").parts
    return [name.partition(".")[0] for name in names]
