"""How the C++ engine is built: symbols of its kernels, wheels, editable installations, machines without a compiler."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from riyaz import native

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "native"
SAY = "from riyaz import native; print(native.available(), native.why_not() or native.isa())"
BACKEND = "import sys; sys.path.insert(0, 'native'); import build_backend; print(build_backend.{}({}))"
WEAK = set("WVuwv")  # what the linker may share between object files


def python(code: str, path: Path = ROOT / "src", **environment: str) -> str:
    """The last line that a fresh Python prints, with riyaz from `path`."""
    known = os.environ | {"PYTHONPATH": str(path)} | environment
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    return done.stdout.splitlines()[-1]


def weak_symbols(file: Path) -> list[str]:
    """Names in an object file of which the linker keeps one for all files."""
    listing = subprocess.run(["nm", "-C", str(file)], capture_output=True, text=True, check=True).stdout
    entries = [line[17:].split(maxsplit=1) for line in listing.splitlines()]
    return [name for kind, name in entries if kind in WEAK]


@pytest.mark.slow
def test_kernels_share_no_symbol_with_files_of_other_instruction_sets() -> None:
    kernels = "build_backend.ROOT / 'src/riyaz', target='check_kernels'"  # all kernels, without the bindings
    folder = Path(python(BACKEND.format("build_in_place", kernels)))
    folders = sorted(folder.glob("CMakeFiles/kernels_*.dir"))
    assert {each.name for each in folders} >= {f"kernels_{isa}.dir" for isa in native.isas()}
    found = {str(file): weak_symbols(file) for each in folders for file in each.rglob("*.o")}
    assert len(found) >= 10 * len(folders)
    assert {name: symbols for name, symbols in found.items() if symbols} == {}


def test_every_type_of_the_engine_has_a_name_of_its_own() -> None:
    """One word, one meaning; and two types of one name in two files are one to the linker."""
    opened = re.compile(r"^(?:struct|class|enum class) (?:alignas\(\d+\) )?(\w+)(?: : [^;{]*)? \{", re.MULTILINE)
    files = [file for folder in ("engine", "training", "kernels", "bindings") for file in (NATIVE / folder).rglob("*")]
    found = [name for file in files if file.is_file() for name in opened.findall(file.read_text("utf-8"))]
    assert {"Piece", "RowPiece", "Inputs", "Format"} <= {*found}
    assert sorted(found) == sorted({*found})


def test_a_shared_symbol_is_seen(tmp_path: Path) -> None:
    source = tmp_path / "shares.cpp"
    source.write_text("inline int twice(int x) { return 2 * x; }\nint (*pointer)(int) = twice;\n")
    subprocess.run(["c++", "-O0", "-c", str(source), "-o", str(tmp_path / "shares.o")], check=True)
    assert weak_symbols(tmp_path / "shares.o") == ["twice(int)"]


def programs(folder: Path) -> Path:
    """A folder with cmake and ninja and nothing else, to be the only one on PATH."""
    folder.mkdir()
    for name in ("cmake", "ninja"):
        found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
        assert found, f"{name} is missing"
        (folder / name).symlink_to(found)
    return folder


def test_a_program_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    broken, right = tmp_path / "broken", tmp_path / "right"
    for folder, status in ((broken, 1), (right, 0)):
        folder.mkdir()
        (folder / "cmake").write_text(f"#!/bin/sh\nexit {status}\n")
        (folder / "cmake").chmod(0o755)
    found = "import sys; sys.executable = {!r}; sys.path.insert(0, 'native'); import build_backend; "
    found = found.format(str(broken / "python")) + "print(build_backend.program('cmake'))"
    assert python(found, PATH=f"{right}:{os.environ['PATH']}") == str(right / "cmake")
    assert python(found, PATH=str(broken)) == "None"


def old_compiler(folder: Path) -> Path:
    """A compiler that does not know C++20."""
    script = folder / "old-c++"
    refuse = 'case "$*" in *c++20*|*c++2a*) echo "unknown standard" >&2; exit 1;; esac'
    script.write_text(f'#!/bin/sh\n{refuse}\nexec {shutil.which("c++")} "$@"\n')
    script.chmod(0o755)
    return script


@pytest.mark.slow
@pytest.mark.parametrize("which", ["none", "old"])
def test_a_machine_that_cannot_build_the_engine_installs_without_it(tmp_path: Path, which: str) -> None:
    says = {"none": "no C++ compiler was found at installation", "old": "cannot compile C++20"}[which]
    compiler = tmp_path / "nothing/c++" if which == "none" else old_compiler(tmp_path)
    path = str(programs(tmp_path / "bin")) if which == "none" else os.environ["PATH"]
    wheel = python(BACKEND.format("build_wheel", repr(str(tmp_path))), CXX=str(compiler), PATH=path)
    with zipfile.ZipFile(tmp_path / wheel) as archive:
        archive.extractall(tmp_path / "site")
    assert not list((tmp_path / "site").rglob("_native.*so"))
    said = python(SAY, tmp_path / "site")
    assert said.startswith("False the C++ engine is not built: ") and says in said and "install g++" in said


@pytest.mark.slow
def test_what_was_missing_is_looked_for_again(tmp_path: Path) -> None:
    into = tmp_path / "riyaz"
    folder = tmp_path / "build"
    paths = ", ".join(f"build_backend.Path({str(path)!r})" for path in (into, folder))
    call = BACKEND.format("build_in_place", f"{paths}, target='{{}}'")
    python(call.format("all"), CXX="/nothing/c++", PATH=str(programs(tmp_path / "bin")))
    assert [path.name for path in into.iterdir()] == ["_native.txt"]
    python(call.format("clean"))  # with the compiler, but to compile takes a minute
    assert not list(into.iterdir()) and "_native" in (folder / "build.ninja").read_text()


@pytest.mark.slow
def test_an_editable_installation_is_a_path_and_starts_nothing(tmp_path: Path) -> None:
    wheel = python(BACKEND.format("build_editable", repr(str(tmp_path))))
    with zipfile.ZipFile(tmp_path / wheel) as archive:
        files = {name: archive.read(name).decode() for name in archive.namelist()}
    code = {name: text for name, text in files.items() if ".dist-info/" not in name}
    assert code == {"_riyaz_source.pth": f"{ROOT / 'src'}\n"}
    recorded = next(text for name, text in files.items() if name.endswith("RECORD")).splitlines()
    assert {line.split(",")[0] for line in recorded} == files.keys()
