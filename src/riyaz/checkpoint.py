"""Checkpoints that survive a kill at any moment: written aside, hashed, renamed; the newest that verifies is used.

A folder `step-000050/` holds masters.safetensors, optimizer.safetensors, state.json and MANIFEST.json;
`best.safetensors` beside it holds the weights with the lowest validation loss. All carry the run's name, and what
another run has left is not taken for its own.
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
from riyaz.models import to_arrays
from riyaz.sources import safetensors

MANIFEST = "MANIFEST.json"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Checkpoints:
    """The checkpoints of the run called `run`, in `folder`; one is kept, besides the best weights."""

    def __init__(self, folder: Path, run: str) -> None:
        self.folder, self.run = folder, run
        self.best = folder / "best.safetensors"
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
            (aside / "state.json").write_text(json.dumps(asdict(state)))
            (aside / MANIFEST).write_text(json.dumps(self._manifest(aside)))
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
            read_tensors(folder / "masters.safetensors", masters)
            moments = {f"{name}.{key}": _moment(master, key) for name, master in masters.items() for key in MOMENTS}
            read_tensors(folder / "optimizer.safetensors", moments)
            for name, master in masters.items():
                optimizer.state[master] = {key: moments[f"{name}.{key}"] for key in MOMENTS}
            return kind(**json.loads((folder / "state.json").read_text(encoding="utf-8")))
        return kind()

    def save_best(self, masters: Mapping[str, nn.Parameter]) -> None:
        """Keep these weights as the best so far."""
        write_tensors(self.best, masters, self.run)

    def load_best(self, masters: Mapping[str, nn.Parameter]) -> None:
        """Put the best weights back; they stay as they are when no validation ever ran."""
        if self.best.exists() and safetensors.read(self.best).metadata.get("run") == self.run:
            read_tensors(self.best, masters)

    def _all(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*") if path.suffix != ".tmp")

    def _manifest(self, folder: Path) -> dict[str, Any]:
        files = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
        return {"run": self.run, "files": files}

    def _verifies(self, folder: Path) -> bool:
        try:
            return json.loads((folder / MANIFEST).read_text(encoding="utf-8")) == self._manifest(folder)
        except (OSError, ValueError):
            return False


def write_tensors(path: Path, tensors: Mapping[str, Tensor], run: str = "") -> None:
    """Write tensors as safetensors, atomically, with the name of the run they belong to."""
    safetensors.write(path, to_arrays(tensors), {"format": "pt", "run": run})


@torch.no_grad()
def read_tensors(path: Path, into: Mapping[str, Tensor]) -> None:
    """Copy the file's tensors into these; names and shapes must agree."""
    file = safetensors.read(path)
    assert set(file.tensors) == set(into), path
    for name, tensor in into.items():
        tensor.copy_(torch.from_numpy(file.array(name).copy()).view(tensor.shape))


def _moment(master: nn.Parameter, key: str) -> Tensor:
    return torch.zeros(()) if key == "step" else torch.empty_like(master.data)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
