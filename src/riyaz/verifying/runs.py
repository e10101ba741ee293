"""Checks of what trains: checkpoints, and the folders of pretraining and ternarizing runs."""

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from riyaz.files import is_bare
from riyaz.json_files import read_json, read_lines, refuse_newer
from riyaz.results import RUN, TERNARIZE, PretrainRun, TernarizeRun
from riyaz.sources.safetensors import SafetensorsFile
from riyaz.verifying.checks import Checks
from riyaz.verifying.weights import check_model, check_safetensors

MANIFEST, BEST, CHECKPOINT_FORMAT = "MANIFEST.json", "best.safetensors", 1


def check_checkpoint(checks: Checks, folder: Path) -> None:
    """A folder `step-N/`: its files against the manifest, their numbers, and the step."""
    path = folder / MANIFEST
    manifest = checks.attempt(path, lambda: read_json(path))
    if manifest is None:
        return
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not all(is_bare(name) for name in files):
        checks.add(path, "is no list of files with their hashes")
        return
    checks.attempt(path, lambda: refuse_newer(manifest.get("format"), CHECKPOINT_FORMAT, str(path)))
    present = {each.name for each in folder.iterdir()} - {MANIFEST}
    for name in sorted(present - files.keys()):
        checks.add(folder / name, "is not in the manifest")
    for name, wanted in files.items():
        if checks.expect_hash(folder / name, wanted) and name.endswith(".safetensors"):
            check_safetensors(checks, folder / name)
    state = checks.attempt(folder / "state.json", lambda: read_json(folder / "state.json"))
    if isinstance(state, dict):
        step = folder.name.removeprefix("step-")
        number = int(step) if step.isdecimal() else None
        checks.expect_equal(folder / "state.json", "its step is not the folder's", number, state.get("step"))


def check_checkpoints(checks: Checks, folder: Path) -> None:
    """A folder of checkpoints: each of them, and the best weights against the hash in their header."""
    for path in sorted(folder.glob("step-*")):
        if path.is_dir() and path.suffix != ".tmp":
            check_checkpoint(checks, path)
    if (folder / BEST).is_file() and (file := check_safetensors(checks, folder / BEST)) is not None:
        checks.counts["hashes"] += 1
        wanted, digest = file.metadata.get("sha256", ""), _digest(file)
        checks.expect_equal(folder / BEST, "does not have its hash", f"{wanted[:12]}…", f"{digest[:12]}…")


def _digest(file: SafetensorsFile) -> str:
    """The hash of the tensors' names and bytes, as the best weights record it."""
    digest = hashlib.sha256()
    for name in sorted(file.tensors):
        digest.update(name.encode())
        digest.update(file.array(name).data)
    return digest.hexdigest()


def check_run(checks: Checks, folder: Path) -> None:
    """A run of pretrain or ternarize: its documents, its checkpoints while it is unfinished, else its model."""
    kinds: Mapping[str, Any] = {RUN: PretrainRun, TERNARIZE: TernarizeRun}
    for name, kind in kinds.items():
        if (folder / name).is_file():
            checks.attempt(folder / name, partial(kind.read, folder / name))
    if (folder / "plan.json").is_file():
        checks.attempt(folder / "plan.json", lambda: read_json(folder / "plan.json"))
    for path in sorted(folder.glob("*.jsonl")):
        checks.counts["rows"] += len(checks.attempt(path, partial(_lines, path)) or [])
    for path in sorted({each.parent for each in folder.glob("work/*/step-*")}):
        check_checkpoints(checks, path)
    if (folder / "config.json").is_file():
        check_model(checks, folder)


def _lines(path: Path) -> list[Any]:
    return [value for _, value in read_lines(path)]
