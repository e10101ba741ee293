"""Model files: `open_source` opens a model by name or path, `pull` downloads or copies one into the local store."""

from pathlib import Path

from riyaz.errors import RiyazError, shown
from riyaz.sources.origins import PREFIXES, called, catalogue_name, hub_name, hub_origin, pull, stored_name
from riyaz.sources.package import CATALOGUE
from riyaz.sources.source import PRECISION, Source, open_path
from riyaz.sources.store import SAMPLES, ModelEntry, find, home, models, valid_name
from riyaz.sources.tensor_files import TensorInfo

__all__ = [
    "CATALOGUE",
    "PRECISION",
    "SAMPLES",
    "ModelEntry",
    "Source",
    "TensorInfo",
    "called",
    "catalogue_name",
    "find",
    "home",
    "hub_name",
    "hub_origin",
    "models",
    "open_source",
    "pull",
]


def open_source(name_or_path: str | Path) -> Source:
    """Opens a stored model by name, a GGUF file or model folder by path, or a sample of the package by name. Raises
    RiyazError listing known names."""
    name = str(name_or_path)
    on_the_hub = hub_name(name) if isinstance(name_or_path, str) else name  # hf:OWNER/MODEL for OWNER/MODEL
    stored = find(stored_name(on_the_hub)) if isinstance(name_or_path, str) else None
    if stored:
        return open_path(stored.path, stored.name)
    if isinstance(name_or_path, str) and name.startswith(PREFIXES):
        raise RiyazError(f"the model {name} has not been pulled yet", hint=f"run `riyaz pull {name}`")
    path = Path(name).expanduser()
    if name and path.exists():
        return open_path(path)
    if valid_name(name) and (SAMPLES / "models" / name).is_dir():
        return open_path(SAMPLES / "models" / name, name)
    if name in CATALOGUE:
        raise RiyazError(f"the model {name} has not been pulled yet", hint=f"run `riyaz pull {name}`")
    if len(path.parts) > 1 or path.suffix:
        on_the_hub = name if path.suffix == ".gguf" or path.parent.exists() else on_the_hub
        hint = f"if it is a model of the Hugging Face hub, run `riyaz pull {on_the_hub}`" * (on_the_hub != name)
        raise RiyazError("no such file or folder", name, hint)
    names = ", ".join(sorted({*CATALOGUE, *(entry.name for entry in models())}))
    raise RiyazError(f"unknown model {shown(name)}", hint=f"known models: {names}; or give a path")
