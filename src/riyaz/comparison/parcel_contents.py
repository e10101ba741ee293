"""What of a comparison's folder travels to a machine that does not see it, and what never does: documents and their
index, test rows, the teacher's address, paths and models of this machine."""

from pathlib import Path
from typing import Any

from riyaz.comparison.at_node import REPLAY
from riyaz.comparison.bases import instruction_of, method_of, rate_of
from riyaz.comparison.folder import FINAL, TEACHER, ComparisonFolder
from riyaz.comparison.parcel import files_below
from riyaz.comparison.speeds import MEASURED
from riyaz.config import SELF
from riyaz.files import encoded
from riyaz.json_files import read_json, to_json
from riyaz.methods.fitting.learning_rate import SEARCH
from riyaz.results import FIT

Files = dict[str, Path | bytes]


def reason_at_home(arm: str, settings: dict[str, Any]) -> str:
    """Why an arm is fitted on this machine only; "" where it may travel. `settings` is what settings.json holds."""
    method = method_of(arm)
    if method.needs_documents:
        return "documents stay here"
    if method.of:
        return "the artifacts that are joined are here"
    if "databases" in settings["data"]:
        return "the databases that score rows stay here"
    if settings.get("artifact"):
        return "the artifact that training goes on from is here"
    return ""


def fit_files(folder: ComparisonFolder, arm: str, part: str, made_in: Path) -> Files:
    """What fitting one part of an arm reads, with what was begun in the folder `made_in`, by its names there."""
    rows = part if (folder.path / "split" / part).is_dir() else FINAL  # an extra run has the rows of the final part
    files: Files = {"settings.json": _settings(folder), "plan.json": folder.path / "plan.json"}
    for which in ("train", "valid"):
        files |= _present(folder, folder.path / "split" / rows / f"{which}.jsonl")
    for other, name in ((rate_of(arm), SEARCH), (instruction_of(arm), FIT)):
        files |= _present(folder, folder.part(other, rows) / name) if other else {}
    if method_of(arm).needs_teacher:
        files |= files_below(folder.path / TEACHER, TEACHER)
    if replay := _replayed(folder):
        files[REPLAY] = replay
    return files | files_below(made_in, f"arms/{arm}/{part}")


def measure_files(folder: ComparisonFolder, measured: Path) -> Files:
    """What measuring reads, with what was measured before into the folder `measured`. Methods that stay here are not
    measured elsewhere."""
    files: Files = {"settings.json": _settings(folder, travelling_only=True)}
    for which in ("train", "valid"):
        files |= _present(folder, folder.path / "split" / FINAL / f"{which}.jsonl")
    files |= files_below(folder.path / TEACHER, TEACHER)
    if replay := _replayed(folder):
        files[REPLAY] = replay
    known = files_below(measured, "made")
    return files | {name: path for name, path in known.items() if path.name == MEASURED}


def _settings(folder: ComparisonFolder, travelling_only: bool = False) -> bytes:
    """settings.json without what stays here."""
    document = read_json(folder.path / "settings.json")
    if travelling_only:
        document["methods"] = [name for name in document["methods"] if not reason_at_home(name, document)]
    for key in ("documents", "teacher"):
        document.pop(key, None)
    for key in ("general", "unlabelled"):
        document["settings"][key] = None
    if document["settings"].get("replay_from") not in (None, SELF):
        document["settings"]["replay_from"] = REPLAY
    return encoded(to_json(document, indent=2))


def _replayed(folder: ComparisonFolder) -> Path | None:
    """The user's text that is rehearsed; None where the base writes its own."""
    chosen = folder.settings().settings
    return Path(chosen.replay_from) if chosen.replay and chosen.replay_from not in (None, SELF) else None


def _present(folder: ComparisonFolder, path: Path) -> Files:
    return {path.relative_to(folder.path).as_posix(): path} if path.exists() else {}
