"""What `riyaz verify` has checked, and every thing that is wrong."""

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from riyaz.errors import RiyazError, shown
from riyaz.files import chunks

MOST_ENTRIES = 100_000  # files and folders below one that is checked
T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: the file, what is wrong with it, and where they are known what was expected and read."""

    file: str
    what: str
    expected: str | None = None
    actual: str | None = None

    def __str__(self) -> str:
        compared = "" if self.expected is None else f": expected {self.expected}, is {self.actual}"
        return f"{self.file}: {self.what}{compared}"


@dataclass(frozen=True)
class Verified:
    """The kind of what was checked, how many files, hashes, tensors and rows, what could not be checked, and every
    problem."""

    path: str
    kind: str
    counts: dict[str, int]
    unchecked: list[str]
    problems: list[Problem]

    @property
    def line(self) -> str:
        """What was checked, such as `ok: model, 12 files, 3 hashes, 210 tensors finite`."""
        named = [f"{number:,} {name}" for name, number in self.counts.items() if number]
        return ", ".join([f"ok: {self.kind}", *named])


@dataclass
class Checks:
    """The checks below one folder, while they are made; paths in problems are relative to it."""

    root: Path
    counts: Counter[str] = field(default_factory=Counter)
    unchecked: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, path: Path, what: str, expected: object = None, actual: object = None) -> None:
        """One thing that is wrong."""
        sides = [None if side is None else str(side) for side in (expected, actual)]
        problem = Problem(self.name(path), what, *sides)
        if problem not in self.problems:
            self.problems.append(problem)

    def name(self, path: Path) -> str:
        """A path as problems name it."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) and path != self.root else str(path)

    def attempt(self, path: Path, call: Callable[[], T]) -> T | None:
        """What a reader returns; None where it refuses the file, which is then a problem."""
        try:
            return call()
        except RiyazError as error:
            at = Path(error.where.rsplit(":", 1)[0]) if error.where else path
            hint = f"; {error.hint}" if error.what.startswith("made by a newer") else ""
            line = f"{error.where.removeprefix(str(at))} ".lstrip(":") if at != path and error.where else ""
            self.add(at if at.is_relative_to(self.root) else path, f"{line.strip()} {error.what}{hint}".strip())
        except OSError as error:
            self.add(path, f"cannot be read ({error.strerror or error})")
        return None

    def entries(self) -> bool:
        """Whether everything below the root is a file or folder inside it. Links that lead out, and what is neither a
        file nor a folder, are problems. Raises RiyazError for more than MOST_ENTRIES."""
        before, root = len(self.problems), self.root.resolve()
        roots = [root, root.parents[1] / "blobs"] if root.parent.name == "snapshots" else [root]  # the hub's cache
        waiting, seen = [self.root], 0
        while waiting:
            for entry in os.scandir(waiting.pop()):
                seen += 1
                if seen > MOST_ENTRIES:
                    raise RiyazError(f"holds more than {MOST_ENTRIES:,} files and folders", str(self.root))
                path = Path(entry.path)
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISLNK(mode):
                    if not any(path.resolve().is_relative_to(place) for place in roots) or not path.exists():
                        self.add(path, "is a link out of the folder", "a file", shown(os.readlink(path)))
                    elif path.is_file():
                        self.counts["files"] += 1
                        self._expect_blob(path)
                elif stat.S_ISDIR(mode):
                    waiting.append(path)
                elif stat.S_ISREG(mode):
                    self.counts["files"] += 1
                else:
                    self.add(path, "is neither a file nor a folder")
        return len(self.problems) == before

    def _expect_blob(self, path: Path) -> None:
        """A link into the hub's cache: the name of its blob is a hash of its bytes, SHA-256 of large files and git's of
        small ones."""
        blob = path.resolve()
        if blob.parent.name != "blobs" or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
            return
        if len(blob.name) == 64:
            self.expect_digest(path, [blob], blob.name)
            return
        digest = hashlib.sha1(f"blob {blob.stat().st_size}\0".encode(), usedforsecurity=False)
        for piece in chunks(blob):
            digest.update(piece)
        self._expect_same(path, blob.name, digest.hexdigest())

    def expect_hash(self, path: Path, wanted: object) -> bool:
        """Whether a file has the SHA-256 that is recorded."""
        if not path.is_file():
            self.add(path, "is missing", f"a file with sha256 {str(wanted)[:12]}…", "none")
            return False
        return self.expect_digest(path, [path], wanted)

    def expect_digest(self, path: Path, files: list[Path], wanted: object) -> bool:
        """Whether the bytes of files, one behind the other, have the SHA-256 that is recorded."""
        digest = hashlib.sha256()
        for file in files:
            for piece in chunks(file):
                digest.update(piece)
        return self._expect_same(path, wanted, digest.hexdigest())

    def _expect_same(self, path: Path, wanted: object, digest: str) -> bool:
        self.counts["hashes"] += 1
        if digest != wanted:
            self.add(path, "does not have its hash", f"{str(wanted)[:12]}…", f"{digest[:12]}…")
        return digest == wanted

    def expect_equal(self, path: Path, what: str, expected: object, actual: object) -> None:
        """Two numbers that must agree."""
        if expected != actual:
            self.add(path, what, expected, actual)
