"""The target of an export (a model, with or without an adapter) and the temporary folder that the result is written
to."""

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riyaz import adapters, folders
from riyaz import artifact as artifacts
from riyaz.adapters import CONFIG, Adapter, base_for
from riyaz.artifact import ADAPTER_KINDS, COLLECTION, EXAMPLES, MODEL_FREE, Artifact
from riyaz.errors import RiyazError
from riyaz.families import describe
from riyaz.files import disk_error
from riyaz.sources import Source, open_source


@dataclass(frozen=True)
class Target:
    """A model's source, the folder of its adapter and the document of its artifact, None without one."""

    path: str  # its folder, or its file, for error messages
    source: Source
    adapter: Path | None
    note: str = ""  # one line on what could not be checked
    document: Artifact | None = None

    @property
    def label_head(self) -> Path | None:
        """The file of the artifact's head of labels, None without one."""
        has_head = self.document is not None and self.document.weights.label_head
        return Path(self.path) / artifacts.LABELS if has_head else None

    def model(self) -> Any:
        """The model in float32 with its adapter attached."""
        import torch

        from riyaz import models
        from riyaz.layers.swaps import lora, soft_prompt

        model = models.load(self.source, torch.float32)
        if self.adapter is None:
            return model
        adapter = self.read_adapter()
        if adapter.soft_prompt is not None:
            return soft_prompt.attach(model, adapter.soft_prompt)
        lora.attach(model, adapter)
        return model

    def read_adapter(self) -> Adapter:
        """The tensors of the adapter. Raises RiyazError if there is none."""
        if self.adapter is None:
            raise RiyazError("has no adapter to export", self.path, "export the model with --format hf")
        return adapters.read(self.adapter, describe(self.source))


def open_target(target: str, base: str | None = None) -> Target:
    """Open a model, an artifact with weights, or an adapter's folder; the base is `base` or the one that the adapter
    names."""
    folder = artifacts.resolve(target)
    if (folder / artifacts.NAME).is_file():
        return open_artifact(folder, with_weights(folder), base)
    if (folder / CONFIG).is_file():
        source, note = base_for(folder / CONFIG, base)
        return Target(str(folder), source, folder, note)
    return Target(str(folder), open_source(target), None)


def open_artifact(folder: Path, document: Artifact, base: str | None = None) -> Target:
    """The model of an artifact whose document was read. Raises RiyazError if its base has changed."""
    if document.weights.kind not in ADAPTER_KINDS:
        return Target(str(folder), open_source(folder), None, document=document)
    assert document.base is not None
    beside = folder / artifacts.BASE_FILE
    source = open_source(base or (str(beside) if beside.is_file() else document.source_name()))
    if source.sha256() != document.base.sha256:
        what = f"was made for {document.base.name} ({document.base.sha256[:12]}), which has other weights now"
        raise RiyazError(what, str(folder), "pull the model it was made for")
    return Target(str(folder), source, folder, document=document)


def with_weights(folder: Path) -> Artifact:
    """The document of an artifact. Raises RiyazError if the artifact has no weights of its own."""
    document = Artifact.read(folder)
    if document.weights.beside:
        what = f"its answers are those of a LoRA and of {document.weights.beside} together, which no other tool gives"
        raise RiyazError(what, str(folder), "answer with riyaz run or riyaz serve, or export one of the two arms")
    if document.weights.kind in (*ADAPTER_KINDS, "full"):
        return document
    if document.weights.kind in MODEL_FREE or document.base is None:
        raise RiyazError("this artifact has no language model to write", str(folder), "choose another artifact")
    what = "this artifact only changes the prompt and has no weights of its own"
    raise RiyazError(what, str(folder), f"its base model is {document.base.name}")


def text_files(folder: Path, document: Artifact) -> dict[str, Path | bytes]:
    """The files that an artifact's text part needs, but for the schema of its task, which `artifact.write` adds."""
    text, files = document.text, dict[str, Path | bytes]()
    if text.examples != "none":
        name = text.examples_file or EXAMPLES
        files[name] = folder / name
    if text.passages:
        name = text.collection_file or COLLECTION
        files[name] = folder / name
    return files


def mergeable(target: Target) -> Any:
    """The target's model with its adapter attached. Raises RiyazError for a soft prompt, which cannot be merged."""
    if target.adapter is not None:
        _refuse_soft_prompt(target, target.read_adapter())
    return target.model()


def lora_of(target: Target, tool: str) -> Adapter:
    """The target's LoRA. Raises RiyazError for a soft prompt or replaced modules, which `tool` cannot load."""
    adapter = target.read_adapter()
    _refuse_soft_prompt(target, adapter)
    if adapter.whole:
        whole = ", ".join(adapter.whole_modules)
        what = f"the adapter trained {whole} whole, which {tool} does not load from an adapter"
        raise RiyazError(what, target.path, "export it with --format hf or gguf, which merge it")
    return adapter


def _refuse_soft_prompt(target: Target, adapter: Adapter) -> None:
    if adapter.soft_prompt is not None:
        what = "a soft prompt is put before every prompt and cannot be merged into the weights"
        raise RiyazError(what, target.path, "export it with --format peft")


def own_type(source: Source) -> str:
    """The type of a model's weights if all have the same and other tools load it, else float32, which loses nothing."""
    types = {info.dtype for info in source.tensors.values()}
    return {"BF16": "bfloat16", "F16": "float16"}.get(types.pop(), "float32") if len(types) == 1 else "float32"


@contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out`, removed at the end of the `with` block. Raises RiyazError if `out` is not free
    or the disk refuses."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        with contextlib.suppress(OSError):  # the command that made it may have been killed after that
            folders.sweep(out.parent, folders.beside(out))
        raise RiyazError("already exists", str(out), "choose another --out or remove it")
    if out.exists() and out.samefile(Path.cwd()):
        hint = "name a new folder in it, such as --out model"
        raise RiyazError("is the current folder, which cannot be replaced as a whole", str(out), hint)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with folders.temporary(out.parent, folders.beside(out)) as outer:
            inner = outer / "new"
            inner.mkdir()
            try:
                yield inner
            except RiyazError as error:
                error.where = _as_published(error.where, outer, out)
                raise
    except OSError as error:
        raise _failure(error, out) from error


def _failure(error: OSError, out: Path) -> RiyazError:
    """A file that failed while `out` was made: a source that the error names, else one that is written."""
    inside = (str(out.absolute()), str(out.absolute().with_name(folders.beside(out))))
    if error.errno != errno.EIO or not error.filename or str(Path(error.filename).absolute()).startswith(inside):
        return disk_error(error, out)
    return RiyazError(str(error.strerror), str(error.filename), "nothing was kept")


def _as_published(where: str, outer: Path, out: Path) -> str:
    """A place in a folder of the workspace, as the place in `out` that it would have had."""
    place, outer = Path(where).absolute(), outer.absolute()
    return str(out.joinpath(*place.relative_to(outer).parts[1:])) if place.is_relative_to(outer) else where


def publish(work: Path, out: Path) -> None:
    """Rename a finished folder to its final name; an empty folder there is replaced. Raises RiyazError where another
    process has made it since `workspace` looked."""
    try:
        if out.exists():
            out.rmdir()
        os.replace(work, out)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        what = "already exists: another process made it meanwhile"
        raise RiyazError(what, str(out), "choose another --out or remove it") from error
