"""The base model of an exported adapter: the name that other tools find it by, and its files beside the adapter.

The name is the model's repository on the Hugging Face hub. Without one, or on request, the base goes along: a Hugging
Face folder `base` for transformers and mlx-lm, a file `base.gguf` for llama.cpp.
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from riyaz.adapters import CONFIG, base_of
from riyaz.adapters.folder import BASE
from riyaz.errors import RiyazError
from riyaz.export import gguf, hf
from riyaz.export.targets import Target
from riyaz.sources import called, hub_origin
from riyaz.sources.package import model_files
from riyaz.sources.store import link_or_copy

BASE_FILE = "base.gguf"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)  # OWNER/MODEL


@dataclass(frozen=True)
class NamedBase:
    """The base in an adapter's configuration: its name, the revision of its repository, and whether it goes along."""

    name: str
    revision: str | None = None
    along: bool = False
    note: str = ""


def name_base(target: Target, out: Path, format: str, with_base: bool | None) -> NamedBase:
    """How an adapter in the folder `out` names its base. `with_base` says whether the base goes along; by default where
    the tool cannot get it by name."""
    source, origin = target.source, hub_origin(target.source)
    repository, revision = (origin.repository, origin.revision) if origin else (_named_repository(target), None)
    if with_base or (with_base is None and (repository is None or format == "gguf-lora")):
        place = out / (BASE_FILE if format == "gguf-lora" else BASE)
        name = place.as_posix() if place.is_absolute() or out.parts[:1] == ("..",) else f"./{place.as_posix()}"
        return NamedBase(name, along=True, note=f"{name} is the base model, {called(source)}")
    if format == "gguf-lora":
        path = str(source.path) if source.format == "gguf" else f"./{BASE_FILE}"
        return NamedBase(path, note=f"the adapter works on a GGUF file of {called(source)} only")
    if repository is None:
        return NamedBase(str(source.path), note="the adapter names its base by its path on this machine")
    if source.format == "hf":
        return NamedBase(repository, revision)
    return NamedBase(
        repository, revision,
        note=f"the base that the adapter names, {repository}, has weights that are not rounded as those of "
        f"{called(source)} are, so answers can differ; --with-base puts the rounded ones beside the adapter",
    )  # fmt: skip


def _named_repository(target: Target) -> str | None:
    """The hub repository that an adapter's configuration names, None for a name of another kind or a base beside it."""
    if target.adapter is None or (target.adapter / BASE).is_dir():
        return None
    try:
        name = base_of(target.adapter / CONFIG)
    except RiyazError:
        return None
    return name if REPOSITORY.fullmatch(name) and not Path(name).exists() else None


def put_base(target: Target, work: Path, format: str) -> str:
    """Put the base of an adapter into the folder `work`: hard links or copies of its files, or the model written anew
    where the tool of `format` does not load those; returns its size. Raises RiyazError."""
    source = target.source
    place = work / (BASE_FILE if format == "gguf-lora" else BASE)
    if format == "gguf-lora" and source.format == "gguf":
        link_or_copy(source.path, place)
    elif format == "gguf-lora":
        _write_gguf(target, place)
    elif source.format == "gguf":
        place.mkdir()
        hf.write(replace(target, adapter=None), place)
    else:
        for file in model_files(source):
            link_or_copy(file, place / file.relative_to(source.path))
    size = sum(file.stat().st_size for file in (place, *place.rglob("*")) if file.is_file())
    return f"{size / 2**20:,.0f} MB"


def _write_gguf(target: Target, place: Path) -> None:
    """The target's base as a GGUF file. Raises RiyazError."""
    folder = place.with_suffix("")
    folder.mkdir()
    try:
        gguf.write(replace(target, adapter=None), folder)
    except RiyazError as error:
        what = f"the base cannot be written beside the adapter: {error.what}"
        raise RiyazError(what, error.where, "leave it out with --without-base") from error
    os.replace(folder / gguf.FILE, place)
    folder.rmdir()
