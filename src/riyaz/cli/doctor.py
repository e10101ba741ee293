"""`riyaz doctor`: versions, packages, hardware and folders, to be copied into a bug report."""

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from riyaz import __version__, extras
from riyaz.cli.options import Json
from riyaz.cli.output import Screen
from riyaz.commit import commit, version_line
from riyaz.errors import joined

PACKAGES = ("torch", "numpy", "scipy", "tokenizers", "safetensors", "jinja2", "bm25s", "sacrebleu", "rich")


def doctor(*, json: Json = False) -> None:
    """Show versions, packages, hardware, the model cache and what is wrong with any of them."""
    from riyaz import hardware, native
    from riyaz.sources import store

    screen = Screen(json)
    versions: dict[str, str | None] = {
        "riyaz": __version__,
        "commit": commit() or None,
        "python": platform.python_version(),
    }
    versions |= {name: _version(name) for name in PACKAGES}
    machine, models = hardware.describe(store.home()), [entry.name for entry in store.models()]
    home, here, time = store.home(), Path.cwd(), datetime.now(UTC).isoformat(timespec="seconds")
    absent = {extra: extras.absent(extra) for extra in extras.PACKAGES}
    rows = [
        ("riyaz", f"{version_line(__version__)} on Python {versions['python']}, {platform.platform()}"),
        ("packages", ", ".join(f"{name} {versions[name] or 'absent'}" for name in PACKAGES)),
        *((extra, _said(extra, names)) for extra, names in absent.items()),
        ("CPU", f"{machine['cpu']}, {machine['cores']} cores usable"),
        ("instructions", " ".join(machine["isa"])),
        ("C++ engine", _kernels() if native.available() else native.why_not()),
        ("memory", _memory(machine["memory_total_mb"], machine["memory_available_mb"])),
        ("cache", f"{home}, {machine['disk_free_mb']:,} MB free{_refused(home)}"),
        ("models", ", ".join(models) or "none yet; riyaz pull smollm2-135m"),
        ("this folder", f"{here}{_refused(here)}"),
        ("time", time),
    ]
    for name, text in rows:
        screen.fact(name, text, indent=14)
    engine = {"isa": native.isa(), "isas": list(native.isas())} if native.available() else {"absent": native.why_not()}
    folders = {str(path): _writable(path) for path in (home, here)}
    screen.finish({
        "versions": versions, "absent": absent, "hardware": machine, "engine": engine, "home": str(home),
        "models": models, "writable": folders, "time": time,
    })  # fmt: skip


def _kernels() -> str:
    """Which kernels run, and that plain loops are slow."""
    from riyaz import native

    slow = ", which are plain loops and slow: this CPU or RIYAZ_ISA allows no others"
    return f"kernels for {native.isa()}{slow if native.isa() == 'scalar' else ''}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory(total: int | None, available: int | None) -> str:
    """Memory in MB, in words."""
    known = [f"{total:,} MB"] if total else []
    return ", ".join([*known, f"{available:,} MB available"] if available else known) or "not known on this system"


def _said(extra: str, absent: list[str]) -> str:
    """Whether the commands of an extra can work here."""
    return f"{joined(absent)} missing; {extras.install(extra)}" if absent else "all packages are installed"


def _refused(folder: Path) -> str:
    """`, cannot be written` of such a folder; else nothing."""
    return "" if _writable(folder) else ", cannot be written"


def _writable(folder: Path) -> bool:
    """Whether this user may write into a folder, or make it where it is missing."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK)
