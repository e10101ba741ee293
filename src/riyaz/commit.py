"""Which commit this riyaz was built from, or is run from; git itself is not started.

A wheel holds it in the file `_commit.txt`, which native/build_backend.py writes. In a clone it is read from `.git`.
"""

import re
from pathlib import Path

FILE = "_commit.txt"  # beside this module, in a wheel
DIGITS = 8  # of the commit's hash that are shown
PACKAGE = Path(__file__).parent


def commit_of(clone: Path) -> str:
    """The whole hash of the commit that is checked out in a clone, a worktree included; "" where it is not known."""
    git = clone / ".git"
    try:
        if git.is_file():  # of a worktree: "gitdir: PATH"
            git = clone / git.read_text(encoding="utf-8").partition("gitdir:")[2].strip()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        common = git / "commondir"
        shared = git / common.read_text(encoding="utf-8").strip() if common.is_file() else git
        return _hash_of(head.removeprefix("ref:").strip(), shared) if head.startswith("ref:") else _checked(head)
    except (OSError, ValueError):
        return ""


def _hash_of(branch: str, git: Path) -> str:
    """What a branch stands at: a file of its own, or a line of packed-refs."""
    if (git / branch).is_file():
        return _checked((git / branch).read_text(encoding="utf-8").strip())
    lines = (git / "packed-refs").read_text(encoding="utf-8").splitlines()
    named = (line.split() for line in lines if not line.startswith(("#", "^")))
    return next((_checked(parts[0]) for parts in named if parts[1:] == [branch]), "")


def _checked(text: str) -> str:
    return text if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", text) else ""


def commit(package: Path = PACKAGE) -> str:
    """The first digits of the commit of the package in this folder; "" where it is not known."""
    try:
        return _checked((package / FILE).read_text(encoding="utf-8").strip())[:DIGITS]
    except (OSError, ValueError):  # no wheel; a folder src/riyaz of a clone that is riyaz' own
        own = package.parent.name == "src" and (package.parents[1] / "native" / "build_backend.py").is_file()
        return commit_of(package.parents[1])[:DIGITS] if own else ""


def version_line(version: str) -> str:
    """The version with the commit where this is known, such as "0.2.0 (5ee4b896)"."""
    known = commit()
    return f"{version} ({known})" if known else version
