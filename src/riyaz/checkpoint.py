"""Checkpoints of a training run. A process killed at any moment leaves a whole one: each is written under a temporary
name, hashed and renamed, and a run resumes from the newest whose hashes are right.

A folder `step-000050/` holds masters.safetensors, optimizer.safetensors, state.json and MANIFEST.json (hashes);
`best.safetensors` beside it holds the weights that were best on validation rows, with their step, loss, accuracy and
hash. All of them name their run, and checkpoints of another run are ignored.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riyaz.errors import RiyazError
from riyaz.files import file_sha256
from riyaz.json_files import refuse_newer, write_json
from riyaz.models import to_arrays, to_torch
from riyaz.sources import safetensors

MANIFEST = "MANIFEST.json"
FORMAT = 1  # of a checkpoint's files; absent: 1; a newer one is refused


class Checkpoints:
    """The checkpoints in `folder` of the run with the name `run`; the newest and the best weights are kept. Of several
    processes only the first one (`rank` 0) reads and writes; for the others there are none."""

    def __init__(self, folder: Path, run: str, rank: int = 0) -> None:
        self.folder, self.run, self.rank = folder, run, rank
        self.best = folder / "best.safetensors"
        self.damaged: list[Path] = []  # checkpoints of this run that `resume` did not use
        if not rank:
            folder.mkdir(parents=True, exist_ok=True)

    def save(self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], state: Any) -> None:
        """Write a checkpoint, then remove the older ones. Raises RiyazError when the disk refuses."""
        if self.rank:
            return
        final = self.folder / f"step-{state.step:06d}"
        temporary = self.folder / f"{final.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            write_tensors(temporary / "masters.safetensors", weights)
            write_tensors(temporary / "optimizer.safetensors", moments)
            write_state(temporary / "state.json", state)
            write_json(temporary / MANIFEST, self._manifest(temporary), indent=None, ascii=True)
            shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
            os.rename(temporary, final)
        except (OSError, RiyazError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            why = error.what if isinstance(error, RiyazError) else error.strerror
            raise RiyazError(f"cannot write a checkpoint ({why})", str(final), "free disk space") from error
        for other in self._folders():
            if other != final:
                shutil.rmtree(other)

    def resume(self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], kind: type[Any]) -> Any:
        """Load the newest undamaged checkpoint into weights and moments and return its state; without one `kind()`, a
        new state."""
        for folder in [] if self.rank else reversed(self._folders()):
            if not self._verifies(folder):
                continue
            try:
                state = _state(folder / "state.json", kind)
                masters = safetensors.read(folder / "masters.safetensors")
                optimizer = safetensors.read(folder / "optimizer.safetensors")
                _expect_tensors(masters, weights)
                _expect_tensors(optimizer, moments)
            except (RiyazError, OSError, ValueError):
                self.damaged.append(folder)
                continue
            read_tensors(masters, weights)
            read_tensors(optimizer, moments)
            return state
        return kind()

    def save_best(self, weights: Mapping[str, Tensor], step: int, loss: float, accuracy: float) -> None:
        """Write these weights as the best so far, with their step and their loss and accuracy on validation rows."""
        if self.rank:
            return
        arrays = to_arrays(weights)
        metadata = {
            "format": "pt", "run": self.run, "step": str(step), "loss": repr(loss), "accuracy": repr(accuracy),
            "sha256": _digest(arrays),
        }  # fmt: skip
        safetensors.write(self.best, arrays, metadata)

    def load_best(self, weights: Mapping[str, Tensor]) -> tuple[int, float, float] | None:
        """Load the best weights into `weights` and return their step, validation loss and accuracy; None, with these
        unchanged, when the file is missing or damaged. The step may be later than the checkpoint's that was resumed."""
        if self.rank:
            return None
        try:
            file = safetensors.read(self.best)
        except RiyazError:
            return None
        metadata, arrays = file.metadata, {name: file.array(name) for name in file.tensors}
        if metadata.get("run") != self.run or metadata.get("sha256") != _digest(arrays):
            return None
        try:  # the hash is of the tensors alone
            said = int(metadata["step"]), float(metadata["loss"]), float(metadata.get("accuracy", 0))
            _expect_tensors(file, weights)
        except (KeyError, ValueError):
            return None
        read_tensors(file, weights)  # opening it again would take its memory twice
        return said

    def _folders(self) -> list[Path]:
        folders = (path for path in self.folder.glob("step-*") if path.suffix != ".tmp")
        return sorted(folders, key=lambda path: (len(path.name), path.name))  # step-1000000 comes after step-999950

    def _manifest(self, folder: Path) -> dict[str, Any]:
        files = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
        return {"format": FORMAT, "run": self.run, "files": files}

    def _verifies(self, folder: Path) -> bool:
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            refuse_newer(manifest.get("format"), FORMAT, str(folder))
            if manifest["run"] != self.run:
                return False
            if {"format": 1, **manifest} == self._manifest(folder):
                return True
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        self.damaged.append(folder)
        return False


def _state(path: Path, kind: type[Any]) -> Any:
    """The state in a file. Raises ValueError for a file that no `write_state` of this kind has written: its hash is
    right where a stranger has made both."""
    values = json.loads(path.read_text(encoding="utf-8"))
    known = asdict(kind())
    if not isinstance(values, dict) or not values.keys() <= known.keys():
        raise ValueError("other fields")
    for name, value in values.items():
        kinds = (int, float) if isinstance(known[name], float) else type(known[name])
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(known[name], bool):
            raise ValueError(f"{name} is of another type")
        if isinstance(value, list) and not all(isinstance(entry, dict) for entry in value):
            raise ValueError(f"{name} holds entries of another type")
    return kind(**values)


def _expect_tensors(file: safetensors.SafetensorsFile, into: Mapping[str, Tensor]) -> None:
    """Raises ValueError for a file whose tensors have other names or shapes than those in `into`."""
    held = {name: tuple(info.shape) for name, info in file.tensors.items()}
    if held != {name: tuple(tensor.shape) for name, tensor in into.items()}:
        raise ValueError("other tensors")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically."""
    safetensors.write(path, to_arrays(tensors), {"format": "pt"})


def write_state(path: Path, state: Any) -> None:
    """Write the state of a run as JSON; a loss that is not measured yet is Infinity."""
    write_json(path, asdict(state), indent=None, ascii=True, strict=False)


@torch.no_grad()
def read_tensors(file: safetensors.SafetensorsFile, into: Mapping[str, Tensor]) -> None:
    """Copy the file's tensors into the tensors `into`; names and shapes must be the same. The file's memory is freed
    meanwhile, since moments and their file together would be the most that a run ever needs."""
    assert set(file.tensors) == set(into), set(file.tensors) ^ set(into)
    for name, tensor in into.items():
        tensor.copy_(to_torch(file.tensors[name].dtype, file.array(name)).view(tensor.shape))
        file.forget()


def _digest(arrays: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        array = arrays[name][1] if isinstance(arrays[name], tuple) else arrays[name]
        digest.update(array.data)
    return digest.hexdigest()
