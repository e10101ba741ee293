"""Where limits.json is kept: in the folder that was named, else in an artifact's own folder; a model has none."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from riyaz import artifact, events, folders
from riyaz.errors import RiyazError
from riyaz.events import EVENTS, Listen, quiet
from riyaz.files import file_sha256
from riyaz.json_files import write_json
from riyaz.results import COMPARE, LIMITS, SUITES, Limits


def write_limits(document: Limits, target: str, out: Path | None) -> tuple[Path | None, Limits]:
    """Write limits.json; returns its path, None for a model without `out`, and what is in it: suites that were measured
    before on the same target and not now are kept. Raises RiyazError."""
    folder = out or _own(target)
    if folder is None:
        return None, document
    path = folder / LIMITS
    if folder.exists() and not folder.is_dir():
        raise RiyazError("is a file", str(folder), "name a folder with --out")
    if path.is_file():
        before = Limits.read(path)
        if (before.sha256, before.served) == (document.sha256, document.served) and before.sha256:
            document = _joined(before, document)
    write_json(path, document)
    return path, document


@contextmanager
def recorder(out: Path | None, command: str) -> Iterator[Listen]:
    """A listener that keeps the events of a measuring in `out`, where the page follows them; not in a folder that holds
    other things too, which may have events of its own. Raises RiyazError where another process works in it."""
    if out is None or (out.exists() and not _is_own(out)):
        yield quiet
        return
    with (
        folders.locked(out, lambda _: True, (out / LIMITS).exists),
        events.recorded(out / EVENTS, command, quiet) as keep,
    ):
        yield keep


def _is_own(folder: Path) -> bool:
    """Whether a folder holds nothing but what `riyaz limits` writes."""
    ours = {LIMITS, "limits.md", "limits.html", EVENTS, ".lock"}
    return folder.is_dir() and all(path.name in ours for path in folder.iterdir())


def comparison_of(path: Path) -> Path | None:
    """The folder of the comparison whose arm keeps this limits.json; None for any other."""
    *_, arms, _, part, artifact_folder, _ = ("",) * 5 + path.absolute().parts
    folder = path.absolute().parents[4] if len(path.absolute().parents) > 4 else path.parent
    inside = (arms, part, artifact_folder) == ("arms", "kept", "artifact")
    return folder if inside and (folder / COMPARE).is_file() else None


def read_limits(target: str) -> Limits | None:
    """The limits that an artifact keeps; None if none were measured, or the artifact was made anew since."""
    folder = _own(target)
    if folder is None or not (folder / LIMITS).is_file():
        return None
    limits = Limits.read(folder / LIMITS)
    return limits if limits.sha256 == artifact_hash(folder) else None


def artifact_hash(folder: Path) -> str:
    """The hash of an artifact's riyaz.json, which holds the hashes of its files."""
    return file_sha256(folder / artifact.NAME)


def _own(target: str) -> Path | None:
    folder = artifact.resolve(target)
    return folder if (folder / artifact.NAME).is_file() else None


def _joined(before: Limits, new: Limits) -> Limits:
    """The new suites, and those measured before that are not among them."""
    suites = {each.name: each for each in (*before.suites, *new.suites)}
    ordered = [suites[name] for name in SUITES if name in suites]
    return replace(new, suites=ordered)
