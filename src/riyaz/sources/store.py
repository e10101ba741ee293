"""The local model store: one folder per pulled model, and cached hashes of weight files.

It is the folder `RIYAZ_HOME`, or "riyaz" in the platform's cache folder. A model folder appears only when complete.
Layout: models/NAME/{entry.json, files}, hashes/, rehearsal/ (texts that bases rehearse), and .tmp-* folders while
something is being written.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from riyaz import folders
from riyaz.errors import RiyazError
from riyaz.files import chunks, disk_error, new_sha256
from riyaz.json_files import write_json

ENTRY = "entry.json"
TEMPORARY = ".tmp-"
CHUNK = 2**20
SAMPLES = Path(__file__).parents[1] / "samples"  # what comes with the package, two tiny models among it

# called with (the current phase, such as "download"; bytes done; total bytes)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ModelEntry:
    """One stored model; `path` is its GGUF file or Hugging Face folder, `nbytes` its size in bytes."""

    name: str
    path: Path
    format: str
    origin: str
    licence: str
    sha256: str
    nbytes: int


def home() -> Path:
    """The store's folder; it may not exist yet. Raises RiyazError for a user without a home folder."""
    try:
        return _home()
    except RuntimeError:  # no HOME, and the system does not know the user, as in a container with a number for one
        raise RiyazError("this user has no home folder", "HOME", "set RIYAZ_HOME to a folder for models") from None


def _home() -> Path:
    if os.environ.get("RIYAZ_HOME"):
        return Path(os.environ["RIYAZ_HOME"]).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "riyaz"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/riyaz"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "riyaz"


def _unwritten(error: OSError, path: Path) -> RiyazError:
    """A failed write below the store, whose place the user can choose."""
    failure = disk_error(error, path)
    return RiyazError(failure.what, failure.where, f"{failure.hint} with RIYAZ_HOME")


def valid_name(name: str) -> bool:
    """Whether the text can name a stored model: it must be a valid folder name on every operating system."""
    return re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}(?<!\.)", name) is not None


def names() -> list[str]:
    """The names of all stored models, sorted."""
    folder = home() / "models"
    return sorted(path.name for path in folder.iterdir() if valid_name(path.name)) if folder.is_dir() else []


def models() -> list[ModelEntry]:
    """All stored models, sorted by name."""
    entries = (find(name) for name in names())
    return [entry for entry in entries if entry is not None]


def find(name: str) -> ModelEntry | None:
    """The stored model of this name, or None. Raises RiyazError when its entry.json is damaged."""
    folder = home() / "models" / name
    if not valid_name(name) or not folder.is_dir():
        return None
    try:
        record = json.loads((folder / ENTRY).read_text(encoding="utf-8"))
        path = folder / Path(record.pop("file")).name
        return ModelEntry(**record, name=name, path=path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        hint = f"delete {folder} and pull the model again"
        raise RiyazError("the description of this stored model is damaged", str(folder / ENTRY), hint) from error


@contextmanager
def workspace() -> Iterator[Path]:
    """A temporary folder inside the store, deleted on exit; also deletes those that killed processes left behind."""
    try:
        home().mkdir(parents=True, exist_ok=True)
        with folders.temporary(home(), TEMPORARY) as folder:
            yield folder
    except OSError as error:
        if error.filename and not Path(error.filename).is_relative_to(home()):
            what, hint = f"cannot be read: {error.strerror}", "nothing was kept; check the file and its disk"
            raise RiyazError(what, str(error.filename), hint) from error
        raise _unwritten(error, home()) from error


def add_model(folder: Path, entry: ModelEntry) -> ModelEntry:
    """Moves a finished workspace folder into the store under the entry's name, atomically. Raises RiyazError."""
    target = home() / "models" / entry.name
    record = {**asdict(entry), "file": str(entry.path.relative_to(folder))}
    del record["path"], record["name"]
    write_json(folder / ENTRY, record, ascii=True)
    try:
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            os.replace(target, folder.with_name(folder.name + "-old"))
        os.replace(folder, target)
    except OSError as error:
        raise _unwritten(error, target) from error
    stored = find(entry.name)
    assert stored is not None
    return stored


def copy_file(source: Path, target: Path) -> Iterator[bytes]:
    """Copies and syncs a file; yields each chunk after writing it."""
    with open(target, "wb") as writer:
        for chunk in chunks(source):
            writer.write(chunk)
            yield chunk
        writer.flush()
        os.fsync(writer.fileno())


def link_or_copy(path: Path, target: Path) -> None:
    """Puts the file at `target`: a hard link if the file system allows it, otherwise a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path.resolve(), target)
    except OSError:
        for _ in copy_file(path, target):
            pass


def file_hash(paths: list[Path]) -> str:
    """SHA-256 of the files' concatenated bytes; cached in the store by path, size and modification time."""
    stamps = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    key = new_sha256(json.dumps([stamp[0] for stamp in stamps]).encode()).hexdigest()[:32]
    cached = home() / "hashes" / f"{key}.json"
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        record = json.loads(cached.read_text(encoding="utf-8"))
        if record["files"] == stamps:
            return str(record["sha256"])
    digest = new_sha256()
    for path in paths:
        for chunk in chunks(path):
            digest.update(chunk)
    with suppress(OSError, RiyazError):  # without a writable store the hash is computed again next time
        write_json(cached, {"files": stamps, "sha256": digest.hexdigest()}, indent=None, ascii=True)
    return digest.hexdigest()
