"""What the page may touch: one folder, and who may ask for it."""

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from riyaz import files
from riyaz.errors import shown
from riyaz.files import is_bare
from riyaz.results import About
from riyaz.serve.problems import Problem
from riyaz.sources import SAMPLES

PREFIX, REPORT = "/page/", "/page/report"  # routes that need the token; the one that a ticket opens
INDEX, ASSETS = "/", "/assets/"  # the built files, which hold nothing of the user's
UPLOADS = "uploads"
SAMPLE = "sample:"  # begins the names of what comes with the package, which is only read
LONGEST = 200  # bytes of an uploaded file's name


@dataclass(frozen=True)
class Page:
    """The folder that the page was started in, without links in its path, and the token of this start."""

    folder: Path
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    command: str = ""  # that started the server
    methods: Mapping[str, About] = field(default_factory=dict)  # that a comparison can run, in the order of its table
    # those of them that learn from votes, each with the methods that a comparison of it runs
    from_votes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    prefix: str = ""  # of every name, where the folder is not the user's

    @classmethod
    def of(
        cls,
        folder: Path,
        command: str = "",
        methods: Mapping[str, About] | None = None,
        from_votes: Mapping[str, tuple[str, ...]] | None = None,
    ) -> "Page":
        """The page of a folder."""
        return cls(folder.resolve(), command=command, methods=methods or {}, from_votes=from_votes or {})

    def sweep(self) -> None:
        """Remove what an upload left of a server that was killed: nobody may upload a file for long."""
        uploads = self.folder / UPLOADS
        if not uploads.is_symlink():
            files.sweep(uploads)

    def link(self, url: str) -> str:
        """The address that opens the page; browsers send nothing of what follows `#`."""
        return f"{url}/#token={self.token}"

    def is_token(self, text: str) -> bool:
        """Whether this is the token, in a time that says nothing about it."""
        return hmac.compare_digest(text.encode(), self.token.encode())

    def ticket(self, name: str) -> str:
        """What opens one report in a tab of its own, where no header can be sent: worth nothing for anything else."""
        return hmac.new(self.token.encode(), f"report {name}".encode(), hashlib.sha256).hexdigest()

    def samples(self) -> "Page":
        """The same for the samples of the package: their names begin with SAMPLE."""
        return replace(self, folder=SAMPLES.resolve(), prefix=SAMPLE)

    def holding(self, name: str) -> "Page":
        """What a name that is only read belongs to: the samples where it begins as theirs do and the folder has no such
        file, else the folder."""
        is_sample = name.startswith(SAMPLE) and not os.path.lexists(self.folder / name.partition("/")[0])
        return self.samples() if is_sample else self

    def inside(self, name: Any, param: str = "path") -> Path:
        """The file or folder of this name, relative to the folder. Raises Problem 404 for one that is not there or lies
        elsewhere, by a link too."""
        try:
            path = (self.folder / str(name).removeprefix(self.prefix)).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # not there, a NUL in it, links in a circle
            path = None
        if path is None or not path.is_relative_to(self.folder):
            raise Problem(404, f"there is no {shown(str(name))} in the page's folder", param)
        return path

    def new(self, name: str, param: str) -> Path:
        """The place of a file or folder that may not be there yet. Raises Problem for one that is not in the folder,
        and for names that are not plain."""
        parts = Path(name).parts
        if not parts or any(not is_bare(part) for part in parts):
            raise Problem(400, f"{param}: {shown(name)} is no path of plain names", param)
        place = self.folder.joinpath(*parts)
        nearest = next(path for path in (place, *place.parents) if os.path.lexists(path))
        self.inside(self.name(nearest), param)
        if place.resolve() != place:
            raise Problem(400, f"{param}: {shown(name)} leads through a link", param)
        return place

    def name(self, path: Path) -> str:
        """The name by which `inside` finds a path again."""
        return f"{self.prefix}{path.relative_to(self.folder)}"


def expect_file_name(name: str) -> None:
    """Raises Problem 400 for a name that is no plain file's: a path, one that begins with a dot, control characters."""
    plain = name.isprintable() and not any(mark in name for mark in "/\\:") and not name.startswith(".")
    if not name or not plain or len(name.encode("utf-8", "replace")) > LONGEST:
        what = f"{shown(name)} cannot be a file's name"
        raise Problem(400, f"{what}; give one without / \\ : or a dot in front, of at most {LONGEST} bytes", "name")
