"""Packages that only some commands need: which extra of pyproject.toml installs them, and the line that says so.

`pip install riyaz` answers and serves; comparing and searching documents need scipy and more, training needs torch.
"""

from importlib.util import find_spec
from pathlib import Path

from riyaz.errors import RiyazError, joined

ROOT = Path(__file__).parents[2]  # of a clone
COMPARING = ("scipy", "matplotlib", "sacrebleu", "bm25s")
PACKAGES = {"compare": COMPARING, "train": ("torch", *COMPARING)}  # extra -> what is imported of its packages


def install(extra: str) -> str:
    """The hint for a package that is not installed: the command that installs an extra, into a clone if this is one."""
    if (ROOT / "pyproject.toml").is_file() and (ROOT / "src/riyaz").is_dir():
        return f"in riyaz's folder: pip install -e '.[{extra}]'"
    return f"pip install 'riyaz[{extra}]'"


def require(extra: str, instead: str = "") -> None:
    """Say at once what is not installed, not after minutes of work. Raises RiyazError, with the command that installs
    the extra and what one can do `instead`."""
    if missing := absent(extra):
        what = f"{joined(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        raise RiyazError(what, hint=install(extra) + instead)


def absent(extra: str) -> list[str]:
    """What an extra installs and is not here."""
    return [name for name in PACKAGES[extra] if find_spec(name) is None]


def absence(error: BaseException) -> str | None:
    """The line for a failed import of a package that an extra installs; None for any other error."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    name = (error.name or "").partition(".")[0]
    extra = next((extra for extra, names in PACKAGES.items() if name in names), None)
    return extra and f"{name} is not installed; {install(extra)}"
