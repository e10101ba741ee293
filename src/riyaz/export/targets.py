"""From what the user names to what is written: a base model, an adapter on it if there is one, a place to write."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riyaz import adapters
from riyaz import artifact as artifacts
from riyaz.adapters import CONFIG, Adapter, base_for, base_of
from riyaz.artifact import ADAPTER_KINDS, Artifact
from riyaz.errors import RiyazError
from riyaz.families import describe
from riyaz.files import disk_error
from riyaz.sources import Source, open_source


@dataclass(frozen=True)
class Opened:
    """A model's source, and the folder of the adapter that stands on it, if one does."""

    target: str
    source: Source
    adapter: Path | None
    note: str = ""  # what could not be checked

    def model(self) -> Any:
        """The model in float32 with its adapter on it."""
        import torch

        from riyaz import models
        from riyaz.layers import lora, soft_prompt

        model = models.load(self.source, torch.float32)
        if self.adapter is None:
            return model
        adapter = self.read_adapter()
        if adapter.soft_prompt is not None:
            return soft_prompt.attach(model, adapter.soft_prompt)
        lora.attach(model, adapter)
        return model

    def read_adapter(self) -> Adapter:
        """The adapter's tensors; RiyazError when the model stands alone."""
        if self.adapter is None:
            raise RiyazError("is no artifact with an adapter", self.target, "export it with --format hf")
        return adapters.read(self.adapter, describe(self.source))

    def base_name(self) -> str:
        """The base as the adapter's own configuration names it, else as it was opened."""
        assert self.adapter is not None
        try:
            return base_of(self.adapter / CONFIG)
        except RiyazError:
            return self.source.name


def open_target(target: str, base: str | None = None) -> Opened:
    """A model, an artifact with weights, or a plain adapter's folder on the base that it or `base` names."""
    folder = artifacts.resolve(target)
    if (folder / artifacts.NAME).is_file():
        return open_artifact(folder, with_weights(folder), base)
    if (folder / CONFIG).is_file():
        source, note = base_for(folder / CONFIG, base)
        return Opened(str(folder), source, folder, note)
    return Opened(str(folder), open_source(target), None)


def open_artifact(folder: Path, known: Artifact, base: str | None = None) -> Opened:
    """An artifact's model; RiyazError when its base is another one now."""
    if known.weights.kind not in ADAPTER_KINDS:
        return Opened(str(folder), open_source(folder), None)
    assert known.base is not None
    source = open_source(base or known.source_name())
    if source.sha256() != known.base.sha256:
        what = f"was made for {known.base.name} ({known.base.sha256[:12]}), and that is another model now"
        raise RiyazError(what, str(folder), "pull the model it was made for")
    return Opened(str(folder), source, folder)


def with_weights(folder: Path) -> Artifact:
    """An artifact's document; RiyazError when it changes no weights."""
    known = Artifact.read(folder)
    if known.weights.kind in (*ADAPTER_KINDS, "full"):
        return known
    what = "copies answers" if known.weights.kind == "copy" else "changes the prompt"
    hint = f"its base model is {known.base.name}" if known.base else "there is nothing to write"
    raise RiyazError(f"this artifact only {what} and has no weights of its own", str(folder), hint)


def mergeable(opened: Opened) -> Any:
    """The opened model, whose adapter, if it has one, fits into the weights; RiyazError for a soft prompt."""
    if opened.adapter is not None:
        _refuse_soft_prompt(opened, opened.read_adapter())
    return opened.model()


def lora_of(opened: Opened, tool: str) -> Adapter:
    """The target's LoRA, which the tool's format can hold; RiyazError for anything else."""
    adapter = opened.read_adapter()
    _refuse_soft_prompt(opened, adapter)
    if adapter.whole:
        whole = ", ".join(adapter.whole_modules)
        what = f"the adapter trained {whole} whole, which {tool} does not load from an adapter"
        raise RiyazError(what, opened.target, "export it with --format hf or gguf, which merge it")
    return adapter


def _refuse_soft_prompt(opened: Opened, adapter: Adapter) -> None:
    if adapter.soft_prompt is not None:
        what = "a soft prompt stands before every prompt and cannot be merged into the weights"
        raise RiyazError(what, opened.target, "export it with --format peft")


def own_type(source: Source) -> str:
    """The type of a model's weights where it is one that other tools load, else float32, which loses nothing."""
    types = {info.dtype for info in source.tensors.values()}
    return {"BF16": "bfloat16", "F16": "float16"}.get(types.pop(), "float32") if len(types) == 1 else "float32"


@contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out`, which must be free; whatever is left of it is removed."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RiyazError("already exists", str(out), "choose another --out or remove it")
    if out.exists() and out.samefile(Path.cwd()):
        hint = "name a new folder in it, such as --out model"
        raise RiyazError("is the folder you are in, which cannot be put in place as a whole", str(out), hint)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        outer = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise disk_error(error, out) from error
    try:
        inner = outer / "new"
        inner.mkdir()
        yield inner
    except OSError as error:
        raise disk_error(error, out) from error
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def publish(work: Path, out: Path) -> None:
    """Gives a finished folder its own name."""
    if out.exists():
        out.rmdir()
    os.replace(work, out)
