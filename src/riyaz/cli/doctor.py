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
from riyaz.errors import RiyazError, joined

PACKAGES = ("torch", "numpy", "scipy", "tokenizers", "safetensors", "jinja2", "bm25s", "sacrebleu", "rich")


def doctor(*, json: Json = False) -> None:
    """Show versions, packages, hardware, the model cache and what is wrong with any of them."""
    from riyaz import hardware, native

    screen = Screen(json)
    versions: dict[str, str | None] = {
        "riyaz": __version__,
        "commit": commit() or None,
        "python": platform.python_version(),
    }
    versions |= {name: _version(name) for name in PACKAGES}
    here, time = Path.cwd(), datetime.now(UTC).isoformat(timespec="seconds")
    home, models, refused = _cache()
    machine = hardware.describe(home or here)
    absent = {extra: extras.absent(extra) for extra in extras.PACKAGES}
    broken = {extra: _broken(extra) for extra in absent if not absent[extra]}
    rows = [
        ("riyaz", f"{version_line(__version__)} on Python {versions['python']}, {platform.platform()}"),
        ("packages", ", ".join(f"{name} {versions[name] or 'absent'}" for name in PACKAGES)),
        *((extra, _said(extra, names, broken.get(extra, ""))) for extra, names in absent.items()),
        ("CPU", f"{machine['cpu']}, {machine['cores']} cores usable"),
        ("instructions", " ".join(machine["isa"])),
        ("C++ engine", _kernels() if native.available() else native.why_not()),
        ("memory", _memory(machine["memory_total_mb"], machine["memory_available_mb"])),
        ("cache", refused or f"{home}, {machine['disk_free_mb']:,} MB free{_refused(home or here, ' set RIYAZ_HOME')}"),
        ("models", (refused and "none") or ", ".join(models) or "none yet; riyaz pull smollm2-135m"),
        ("this folder", f"{here}{_refused(here)}"),
        ("time", time),
    ]
    for name, text in rows:
        screen.fact(name, text, indent=14)
    engine = {"isa": native.isa(), "isas": list(native.isas())} if native.available() else {"absent": native.why_not()}
    folders = {str(path): _writable(path) for path in (home, here) if path}
    screen.finish({
        "versions": versions, "absent": absent, "broken": broken, "hardware": machine, "engine": engine,
        "home": home and str(home), "models": models, "refused": refused, "writable": folders, "time": time,
    })  # fmt: skip


def _cache() -> tuple[Path | None, list[str], str]:
    """The folder of the models, or None where this user has none; the names of the models; what is wrong with them."""
    from riyaz.sources import store

    home = None
    try:
        home = store.home()
        return home, [entry.name for entry in store.models()], ""
    except RiyazError as error:
        return home, [], str(error)


def _kernels() -> str:
    """Which kernels run, and that plain loops are slow."""
    from riyaz import native

    return native.PLAIN if native.isa() == "scalar" else f"kernels for {native.isa()}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory(total: int | None, available: int | None) -> str:
    """Memory in MB, in words."""
    known = [f"{total:,} MB"] if total else []
    return ", ".join([*known, f"{available:,} MB available"] if available else known) or "not known on this system"


def _broken(extra: str) -> str:
    """What is wrong with the packages of an extra, and what to do; "" where nothing is."""
    name, wrong = extras.unfit(extra)
    if not wrong:
        name, wrong = extras.import_error(extra)
    return f"{wrong}; {extras.again(name)}" if wrong else ""


def _said(extra: str, absent: list[str], broken: str) -> str:
    """Whether the commands of an extra can work here."""
    if absent:
        return f"{joined(absent)} missing; {extras.install(extra)}"
    return broken or "all packages are installed"


def _refused(folder: Path, hint: str = "") -> str:
    """`, cannot be written` of such a folder, and what to do; else nothing."""
    return "" if _writable(folder) else f", cannot be written{hint and ';' + hint}"


def _writable(folder: Path) -> bool:
    """Whether this user may write into a folder, or make it where it is missing."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK)
