"""The kinds of what can be verified, told by the files that are there, and the checks of each kind."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from riyaz import adapters
from riyaz.adapters.adapter import Adapter
from riyaz.artifact import COLLECTION, LABELS, NAME, TAMPERED, TRAINED, Artifact, read_examples
from riyaz.errors import RiyazError, shown
from riyaz.families import describe
from riyaz.files import is_bare
from riyaz.json_files import read_json
from riyaz.limits.limits_file import artifact_hash
from riyaz.results import (
    COMPARE,
    LIMITS,
    PREDICTIONS,
    RESULT,
    RUN,
    TERNARIZE,
    Answer,
    ArmResult,
    Comparison,
    Evaluation,
    Limits,
)
from riyaz.retrieval import collection
from riyaz.retrieval.database import MAGIC
from riyaz.sources import open_source, store
from riyaz.verifying.checks import Checks, Verified
from riyaz.verifying.runs import MANIFEST, check_checkpoint, check_checkpoints, check_run
from riyaz.verifying.weights import check_gguf, check_model, check_safetensors

KNOWN = "name a model, an artifact, a collection, a comparison, a run, a checkpoint or a limits.json"


def verify(path: Path) -> Verified:
    """Check what lies at a path, or a model of the store by its name. Raises RiyazError where it is nothing that can be
    verified, or cannot be listed."""
    if not path.exists():
        entry = store.find(str(path))
        if entry is None:
            raise RiyazError("no such file or folder, and no model that riyaz models lists", str(path), KNOWN)
        path = entry.path
    if not path.is_file() and not path.is_dir():
        raise RiyazError("is neither a file nor a folder", str(path), KNOWN)
    kind, check = _kind_of(path)
    checks = Checks(path if path.is_dir() else path.parent)
    try:
        inside = not path.is_dir() or checks.entries()
        if path.is_file():
            checks.counts["files"] += 1
        if inside:  # else a reader would follow the link
            check(checks, path)
    except OSError as error:
        raise RiyazError(f"cannot be read ({error.strerror or error})", str(path), "check its permissions") from error
    return Verified(str(path), kind, dict(checks.counts), checks.unchecked, checks.problems)


def _kind_of(path: Path) -> tuple[str, Callable[[Checks, Path], object]]:
    """The kind of a path and its check. Raises RiyazError for an unknown one."""
    if path.is_dir():
        names = {each.name for each in path.iterdir()}
        of_folders: tuple[tuple[set[str], str, Callable[[Checks, Path], object]], ...] = (
            ({COMPARE, "settings.json"}, "comparison", _check_comparison),
            ({NAME}, "artifact", _check_artifact),
            ({RUN, TERNARIZE}, "run", check_run),
            ({MANIFEST}, "checkpoint", check_checkpoint),
            ({adapters.CONFIG}, "adapter", _check_adapter),
            ({"config.json", *(name for name in names if name.endswith((".gguf", ".safetensors.index.json")))}, "model",
             check_model),
            ({LIMITS}, "limits", lambda checks, folder: _check_limits(checks, folder / LIMITS)),
        )  # fmt: skip
        for marks, kind, check in of_folders:
            if marks & names:
                return kind, check
        if any(name.startswith("step-") for name in names):
            return "checkpoints", check_checkpoints
        raise RiyazError("holds nothing that riyaz verifies", str(path), KNOWN)
    try:
        with open(path, "rb") as file:
            begins = file.read(len(MAGIC))
    except OSError as error:
        raise RiyazError(f"cannot be read ({error.strerror or error})", str(path), "check its permissions") from error
    if begins.startswith(b"GGUF") or path.suffix == ".gguf":
        return "GGUF", check_gguf
    if path.suffix == ".safetensors":
        return "safetensors", check_safetensors
    if begins == MAGIC or path.suffix == ".sqlite":
        return "collection", _check_collection
    if path.name == LIMITS:
        return "limits", _check_limits
    raise RiyazError("is no file that riyaz verifies", str(path), KNOWN)


def _check_collection(checks: Checks, path: Path) -> None:
    """A collection: SQLite's own check, and every text, chunk and vector against its hash."""
    if any(Path(f"{path}{ending}").exists() for ending in ("-journal", "-wal")):
        checks.add(path, "has an unfinished write beside it; open it once with riyaz rag verify, which takes it back")
        return
    for problem in checks.attempt(path, lambda: collection.verify(path, "ro")) or []:
        checks.add(path, problem)


def _check_limits(checks: Checks, path: Path) -> None:
    """A limits.json; beside the artifact that it was measured of also whether that is the same still."""
    limits = checks.attempt(path, lambda: Limits.read(path))
    if limits is not None and (path.parent / NAME).is_file() and limits.sha256 != artifact_hash(path.parent):
        checks.unchecked.append(f"{checks.name(path)} was measured of another version of this artifact")


def _check_artifact(checks: Checks, folder: Path) -> None:
    """An artifact: every checksum, then what its files hold."""
    path = folder / NAME
    document = checks.attempt(path, lambda: read_json(path, TAMPERED))
    sums = document.get("checksums", {}) if isinstance(document, dict) else None
    if document is not None and (not isinstance(sums, dict) or not all(is_bare(name) for name in sums)):
        checks.add(path, "checksums is no list of bare file names with their hashes")
        return
    intact = [checks.expect_hash(folder / name, wanted) for name, wanted in sorted((sums or {}).items())]
    artifact = checks.attempt(path, lambda: Artifact.read(folder)) if document is not None and all(intact) else None
    for each in sorted(folder.glob("*.safetensors")):
        file = check_safetensors(checks, each)
        if file is not None and artifact is not None and each.name == LABELS and artifact.task is not None:
            rows = {info.shape[0] for info in file.tensors.values() if len(info.shape) == 2}
            if artifact.task.choices not in rows:
                checks.add(each, "its rows are not the labels", artifact.task.choices, sorted(rows))
    if (folder / COLLECTION).is_file():
        _check_collection(checks, folder / COLLECTION)
    if (folder / TRAINED).is_file():
        checks.counts["rows"] += len((folder / TRAINED).read_text("utf-8", "replace").split())
    for each in sorted(folder.glob("examples.jsonl")):
        checks.counts["rows"] += len(checks.attempt(each, partial(read_examples, each)) or [])
    if (folder / LIMITS).is_file():
        _check_limits(checks, folder / LIMITS)
    if (folder / adapters.CONFIG).is_file():
        _check_shapes(checks, folder, artifact.source_name() if artifact is not None else None)
    elif (folder / "config.json").is_file():
        _expect_model(checks, folder)


def _expect_model(checks: Checks, folder: Path) -> None:
    """The shapes of a whole model, whose numbers are checked already."""
    before = checks.counts["tensors finite"]
    check_model(checks, folder)
    checks.counts["tensors finite"] = before


def _check_adapter(checks: Checks, folder: Path) -> None:
    """An adapter without an artifact around it."""
    for each in sorted(folder.glob("*.safetensors")):
        check_safetensors(checks, each)
    if not (folder / adapters.WEIGHTS).is_file() and not list(folder.glob("*.safetensors")):
        checks.add(folder / adapters.WEIGHTS, "is missing", "a file", "none")
    _check_shapes(checks, folder, None)


def _check_shapes(checks: Checks, folder: Path, base: str | None) -> None:
    """The shapes of an adapter against its base, where that is on this machine."""
    config = checks.attempt(folder / adapters.CONFIG, lambda: read_json(folder / adapters.CONFIG))
    named = base or (config.get("base_model_name_or_path") if isinstance(config, dict) else None)
    try:
        family = describe(open_source(str(named)))
    except RiyazError as error:
        checks.unchecked.append(f"shapes of the adapter against its base {shown(str(named))}: {error.what}")
        return
    adapter: Adapter | None = checks.attempt(folder, lambda: adapters.read(folder, family))
    checks.counts["layers that fit the base"] += len(adapter.pairs) if adapter is not None else 0


def _check_comparison(checks: Checks, folder: Path) -> None:
    """A comparison: its documents, the rows of each part, and every arm's artifact and predictions."""
    for name in ("settings.json", "plan.json"):
        if (folder / name).is_file():
            checks.attempt(folder / name, partial(read_json, folder / name))
    rows = {}
    for path in sorted(folder.glob("split/*/*.jsonl")):
        examples = checks.attempt(path, partial(read_examples, path))
        counted = None if examples is None else len(examples)
        rows[path.parent.name, path.stem] = counted
        checks.counts["rows"] += counted or 0
    if not (folder / COMPARE).is_file():
        checks.unchecked.append(f"the comparison is not finished: it has no {COMPARE}")
        arms: list[ArmResult] = []
    else:
        comparison = checks.attempt(folder / COMPARE, lambda: Comparison.read(folder / COMPARE))
        arms = comparison.arms if comparison is not None else []
        kept = {part: number for (name, part), number in rows.items() if name == "kept" and number is not None}
        for part, number in kept.items() if comparison is not None and not comparison.data.rows.get("folds") else ():
            expected = comparison.data.rows.get(part) if comparison is not None else None
            path = folder / "split" / "kept" / f"{part}.jsonl"
            checks.expect_equal(path, f"its rows are not those of {COMPARE}", expected, number)
    for arm in arms:
        if arm.status == "ok" and is_bare(arm.name) and not (folder / "arms" / arm.name / "kept").is_dir():
            checks.add(folder / "arms" / arm.name / "kept", "is missing", "a folder", "none")
    for path in sorted(folder.glob("arms/*/*")):
        _check_part(checks, path, rows)


def _check_part(checks: Checks, part: Path, rows: dict[tuple[str, str], int | None]) -> None:
    """One fit of an arm: its artifact, its result and its predictions, one for each test row."""
    if (part / "artifact" / NAME).is_file():
        _check_artifact(checks, part / "artifact")
    if (part / RESULT).is_file():
        checks.attempt(part / RESULT, lambda: Evaluation.read(part / RESULT))
    if (part / PREDICTIONS).is_file():
        path, expected = part / PREDICTIONS, rows.get((part.name, "test"))
        answers = checks.attempt(path, lambda: len(Answer.read(path)))
        if answers is not None and expected is not None:
            checks.expect_equal(path, "its lines are not the test rows", expected, answers)
        checks.counts["rows"] += answers or 0
