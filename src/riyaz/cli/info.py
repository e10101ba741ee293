"""`riyaz info`: versions and hardware, for bug reports."""

import importlib.metadata
import platform

from riyaz import __version__
from riyaz.cli.options import Json
from riyaz.cli.output import Screen

PACKAGES = ("torch", "numpy", "scipy", "tokenizers", "safetensors", "jinja2", "bm25s", "sacrebleu", "rich")


def info(*, json: Json = False) -> None:
    """Show versions, hardware and the folder of the model cache."""
    from riyaz import hardware, native
    from riyaz.sources import store

    screen = Screen(json)
    versions: dict[str, str | None] = {"riyaz": __version__, "python": platform.python_version()}
    versions |= {name: _version(name) for name in PACKAGES}
    machine, models = hardware.describe(store.home()), [entry.name for entry in store.models()]
    home = str(store.home())
    rows = [
        ("riyaz", f"{__version__} on Python {versions['python']}"),
        ("packages", ", ".join(f"{name} {versions[name] or 'absent'}" for name in PACKAGES)),
        ("CPU", f"{machine['cpu']}, {machine['cores']} cores usable"),
        ("instructions", " ".join(machine["isa"])),
        ("C++ engine", f"kernels for {native.isa()}" if native.available() else native.why_not()),
        ("memory", f"{machine['memory_total_mb']:,} MB, {machine['memory_available_mb']:,} MB available"),
        ("cache", f"{home}, {machine['disk_free_mb']:,} MB free"),
        ("models", ", ".join(models) or "none yet; riyaz pull smollm2-135m"),
    ]
    for name, text in rows:
        screen.fact(name, text, indent=14)
    engine = {"isa": native.isa(), "isas": list(native.isas())} if native.available() else {"absent": native.why_not()}
    screen.finish({"versions": versions, "hardware": machine, "engine": engine, "home": home, "models": models})


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
