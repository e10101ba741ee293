"""Checkpoints that survive a kill at any moment: written aside, hashed, renamed; the newest that verifies is used.

A folder `step-000050/` holds masters.safetensors, optimizer.safetensors, state.json and MANIFEST.json;
`best.safetensors` beside it holds the weights with the lowest validation loss, with their step, loss and hash.
All carry the run's name, and what another run has left is not taken for its own.
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
from torch import Tensor, nn

from riyaz.errors import RiyazError
from riyaz.files import write_json
from riyaz.models import to_arrays
from riyaz.sources import safetensors

MANIFEST = "MANIFEST.json"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Checkpoints:
    """The checkpoints of the run called `run`, in `folder`; one is kept, besides the best weights."""

    def __init__(self, folder: Path, run: str) -> None:
        self.folder, self.run = folder, run
        self.best = folder / "best.safetensors"
        self.damaged: list[Path] = []  # what `resume` passed over
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, masters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, state: Any) -> None:
        """Write the whole state of the run, then drop the checkpoint before it."""
        final = self.folder / f"step-{state.step:06d}"
        aside = self.folder / f"{final.name}.tmp"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            aside.mkdir()
            write_tensors(aside / "masters.safetensors", masters)
            moments = {
                f"{name}.{key}": optimizer.state[master][key] for name, master in masters.items() for key in MOMENTS
            }
            write_tensors(aside / "optimizer.safetensors", moments)
            write_state(aside / "state.json", state)
            write_json(aside / MANIFEST, self._manifest(aside), indent=None, ascii=True)
            shutil.rmtree(final, ignore_errors=True)  # one that did not verify
            os.rename(aside, final)
        except (OSError, RiyazError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            why = error.what if isinstance(error, RiyazError) else error.strerror
            raise RiyazError(f"cannot write a checkpoint ({why})", str(final), "free disk space") from error
        for other in self._all():
            if other != final:
                shutil.rmtree(other)

    def resume(self, masters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, kind: type[Any]) -> Any:
        """Load the newest checkpoint that verifies into masters and optimiser; a fresh state when there is none."""
        for folder in reversed(self._all()):
            if not self._verifies(folder):
                continue
            read_tensors(safetensors.read(folder / "masters.safetensors"), masters)
            moments = {f"{name}.{key}": _moment(master, key) for name, master in masters.items() for key in MOMENTS}
            read_tensors(safetensors.read(folder / "optimizer.safetensors"), moments)
            for name, master in masters.items():
                optimizer.state[master] = {key: moments[f"{name}.{key}"] for key in MOMENTS}
            return kind(**json.loads((folder / "state.json").read_text(encoding="utf-8")))
        return kind()

    def save_best(self, masters: Mapping[str, nn.Parameter], step: int, loss: float) -> None:
        """Keep these weights, of this step and with this validation loss, as the best so far."""
        arrays = to_arrays(masters)
        metadata = {"format": "pt", "run": self.run, "step": str(step), "loss": repr(loss), "sha256": _digest(arrays)}
        safetensors.write(self.best, arrays, metadata)

    def load_best(self, masters: Mapping[str, nn.Parameter]) -> tuple[int, float] | None:
        """Put the best weights back, and say their step and validation loss; None, and nothing is changed, when they
        are not there whole. They may be of a later step than the checkpoint from which the run went on."""
        try:
            file = safetensors.read(self.best)
        except RiyazError:
            return None
        said, arrays = file.metadata, {name: file.array(name) for name in file.tensors}
        if said.get("run") != self.run or said.get("sha256") != _digest(arrays):
            return None
        read_tensors(file, masters)  # opened again, it would stand in memory twice
        return int(said["step"]), float(said["loss"])

    def _all(self) -> list[Path]:
        found = (path for path in self.folder.glob("step-*") if path.suffix != ".tmp")
        return sorted(found, key=lambda path: (len(path.name), path.name))  # step-1000000 comes after step-999950

    def _manifest(self, folder: Path) -> dict[str, Any]:
        files = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
        return {"run": self.run, "files": files}

    def _verifies(self, folder: Path) -> bool:
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            if manifest["run"] != self.run:
                return False
            if manifest == self._manifest(folder):
                return True
        except (OSError, ValueError, KeyError, TypeError):
            pass
        self.damaged.append(folder)
        return False


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically."""
    safetensors.write(path, to_arrays(tensors), {"format": "pt"})


def write_state(path: Path, state: Any) -> None:
    """Write the state of a run; a loss that is not known yet is Infinity."""
    write_json(path, asdict(state), indent=None, ascii=True, strict=False)


@torch.no_grad()
def read_tensors(file: safetensors.SafetensorsFile, into: Mapping[str, Tensor]) -> None:
    """Copy the file's tensors into these; names and shapes must agree."""
    assert set(file.tensors) == set(into), set(file.tensors) ^ set(into)
    for name, tensor in into.items():
        tensor.copy_(torch.from_numpy(file.array(name).copy()).view(tensor.shape))


def _moment(master: nn.Parameter, key: str) -> Tensor:
    return torch.zeros(()) if key == "step" else torch.empty_like(master.data)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(arrays: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()
