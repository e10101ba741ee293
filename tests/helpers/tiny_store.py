"""A store of models for tests: a tiny model under the name of a real one."""

import shutil
from pathlib import Path

from riyaz.sources import open_source, store


def keep(folder: Path, name: str) -> None:
    """Put a copy of the model in `folder` into the store of RIYAZ_HOME, called `name`."""
    with store.workspace() as space:
        shutil.copytree(folder, space / name)
        entry = store.ModelEntry(name, space / name, "hf", "x", "unknown", open_source(folder).sha256(), 1)
        store.add_model(space / name, entry)
