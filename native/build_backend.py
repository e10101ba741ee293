"""The build backend: scikit-build-core's, but an editable installation only puts src/ on Python's path.

scikit-build-core's own editable modes add an import hook to every start of Python, or build between the sources.
Here the extension is built in build/, which is kept, and lands beside the Python files. `make native` does only that:

    python native/build_backend.py [--into FOLDER] [--folder FOLDER] [--target NAME] [-DNAME=VALUE ...]
"""

import argparse
import base64
import copy
import gzip
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import bill_of_materials

ROOT = Path(__file__).resolve().parents[1]
PATH_FILE = "_riyaz_source.pth"
NINJA = "ninja>=1.11,<2"  # as in pyproject.toml's `test`
REASON = "_native.txt"  # written by CMakeLists.txt where something that the engine needs is missing

if importlib.util.find_spec("scikit_build_core"):  # `make native` does without
    from scikit_build_core import build
    from scikit_build_core.build import (
        get_requires_for_build_sdist,
        get_requires_for_build_wheel,
        prepare_metadata_for_build_editable,
        prepare_metadata_for_build_wheel,
    )

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """PEP 660: what the build needs. Always ninja, since another version of it, such as the system's, cannot read what
    was compiled in build/: `make native` after the installation would compile for minutes again."""
    return [*build.get_requires_for_build_editable(config_settings), NINJA]


def known_commit() -> tuple[str, bytes]:
    """The file of the package that names the commit, and what it holds; nothing where the commit is not known, as in an
    sdist, which brings the file along."""
    spec = importlib.util.spec_from_file_location("commit", ROOT / "src/riyaz/commit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    known = module.commit_of(ROOT)
    return module.FILE, f"{known}\n".encode() if known else b""


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """PEP 517: the sources, with their commit, which is written into the archive and not into the clone."""
    archive = build.build_sdist(sdist_directory, config_settings)
    name, content = known_commit()
    if content:
        add_source(Path(sdist_directory, archive), f"src/riyaz/{name}", content)
    return archive


def add_source(archive: Path, name: str, content: bytes) -> None:
    """Adds one file to a source archive, with the time and the owner of its other files."""
    held = []
    with tarfile.open(archive) as old:
        for item in old:
            file = old.extractfile(item) if item.isfile() else None
            held.append((item, file.read() if file else b""))
    about = next(item for item, _ in held if item.name.endswith("/PKG-INFO"))
    added = copy.copy(about)
    added.name, added.size = f"{about.name.split('/')[0]}/{name}", len(content)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new:
        for item, old_content in [*held, (added, content)]:
            new.addfile(item, io.BytesIO(old_content) if item.isfile() else None)
    archive.write_bytes(gzip.compress(packed.getvalue(), mtime=int(about.mtime)))


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """PEP 660: builds the extension in place, and a wheel that holds the path of src/ and the commands."""
    build_in_place(ROOT / "src/riyaz")
    bare = {**(config_settings or {}), "wheel.cmake": "false", "wheel.packages": []}
    name = build.build_wheel(wheel_directory, bare)
    add_file(Path(wheel_directory, name), PATH_FILE, f"{ROOT / 'src'}\n".encode())
    return name


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """PEP 517: scikit-build-core's wheel, which names its commit, with a bill of materials (PEP 770:
    `riyaz-*.dist-info/sboms/`)."""
    name = build.build_wheel(wheel_directory, config_settings, metadata_directory)
    wheel = Path(wheel_directory, name)
    with zipfile.ZipFile(wheel) as archive:
        engine = any(re.fullmatch(r"riyaz/_native\..*(so|pyd)", held) for held in archive.namelist())
    text = json.dumps(bill_of_materials.bill(engine), indent=1) + "\n"
    about = "-".join(name.split("-")[:2])
    add_file(wheel, f"{about}.dist-info/sboms/riyaz.cdx.json", text.encode())
    file, commit = known_commit()
    of_sdist = ROOT / "src/riyaz" / file  # at the same place of the wheel as in one of a clone
    commit = commit or (of_sdist.read_bytes() if of_sdist.is_file() else b"")
    if commit:
        add_file(wheel, f"riyaz/{file}", commit)
    return name


def add_file(wheel: Path, name: str, data: bytes) -> None:
    """Adds or replaces one file of a wheel, and its line in the wheel's list, with the time of its other files."""
    with zipfile.ZipFile(wheel) as archive:
        held = {item: archive.read(item) for item in archive.infolist() if item.filename != name}
    record = next(item for item in held if item.filename.endswith(".dist-info/RECORD"))
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    others = [line for line in held[record].splitlines(keepends=True) if not line.startswith(f"{name},".encode())]
    held[record] = b"".join([f"{name},sha256={digest},{len(data)}\n".encode(), *others])
    added = zipfile.ZipInfo(name, record.date_time)
    added.external_attr, added.compress_type = record.external_attr, zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(wheel, "w") as archive:
        for item, content in {added: data, **held}.items():
            archive.writestr(item, content)


def build_in_place(into: Path, folder: Path | None = None, defines: tuple[str, ...] = (), target: str = "all") -> Path:
    """Builds the extension in `folder`, by default one below build/ for this Python and compiler, and puts it into
    `into`; or another target of CMakeLists.txt. Returns the folder. Raises SystemExit if CMake fails."""
    folder = folder or usual_folder()
    ninja = program("ninja")
    generator = "Ninja" if ninja else "Unix Makefiles"
    cache = folder / "CMakeCache.txt"
    other = cache.exists() and f"CMAKE_GENERATOR:INTERNAL={generator}\n" not in cache.read_text(errors="replace")
    if other or (folder / REASON).exists():  # CMake refuses to change the generator, and remembers what was missing
        shutil.rmtree(folder)
    configure = [f"-DRIYAZ_INTO={into}", f"-DPython_EXECUTABLE={sys.executable}", *defines]
    if strict := os.environ.get("RIYAZ_STRICT"):  # else as the folder was built before
        configure.append(f"-DRIYAZ_STRICT={strict}")
    if ninja:  # in pip's build environment it lies in another folder each time
        configure.append(f"-DCMAKE_MAKE_PROGRAM={ninja}")
    cmake = program("cmake")
    if not cmake:
        raise SystemExit("error: cmake was not found; install it (pip install cmake)")
    jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(usable_cores())
    for command in (
        [cmake, "-S", str(ROOT), "-B", str(folder), "-G", generator, *configure],
        [cmake, "--build", str(folder), "--parallel", jobs, "--target", target],
    ):
        if status := subprocess.run(command).returncode:
            raise SystemExit(status)
    return folder


def usual_folder() -> Path:
    """Where the extension is built for this Python and compiler."""
    compiler = os.environ.get("CXX", "")
    made_for = "-".join(filter(None, ["native", sys.implementation.cache_tag, Path(compiler).name]))
    return ROOT / "build" / made_for


def program(name: str) -> str | None:
    """The path of a program that runs: of the one beside this Python, else of the first one on PATH. The former may be
    a script whose package pip's build environment hides."""
    for folder in (str(Path(sys.executable).parent), None):
        found = shutil.which(name, path=folder)
        if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:
            return found
    return None


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    """Builds in place from the command line."""
    parser = argparse.ArgumentParser(description="Builds riyaz._native beside the Python files.")
    parser.add_argument("--into", type=Path, default=ROOT / "src/riyaz", help="folder for the extension")
    parser.add_argument("--folder", type=Path, help="folder to build in")
    parser.add_argument("--target", default="all", help="what to build, of the targets of CMakeLists.txt")
    options, defines = parser.parse_known_args()
    folder = options.folder and options.folder.absolute()
    build_in_place(options.into.absolute(), folder, tuple(defines), options.target)


if __name__ == "__main__":
    main()
