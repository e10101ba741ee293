"""Models of the Hugging Face hub, downloaded by `huggingface_hub` (extra `hub`) and checked by hash.

Only files on an allow-list are downloaded: configuration, tokenizer and safetensors. Finished files stay in
huggingface_hub's cache, so an interrupted pull resumes; with HF_HUB_OFFLINE=1 only that cache is read.
"""

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riyaz.errors import RiyazError, shown
from riyaz.extras import install
from riyaz.files import new_sha256
from riyaz.sources import sharded, store
from riyaz.sources.package import FOLDER_FILES, TEMPLATE
from riyaz.sources.source import CONVERT, INDEX, UNREAD_SUFFIXES, is_intact, open_path
from riyaz.sources.store import ModelEntry, Progress
from riyaz.text import tokenizer_files

REFERENCE = re.compile(
    r"hf:([A-Za-z0-9][\w.-]{0,95})/([A-Za-z0-9][\w.-]{0,95})(?:@([A-Za-z0-9][\w./-]{0,120}))?", re.ASCII
)
SINGLE_FILE = "model.safetensors"
CHUNK = 2**20


@dataclass(frozen=True)
class Reference:
    """A hub repository (OWNER/MODEL) and a revision, None for the main branch."""

    repository: str
    revision: str | None

    @property
    def name(self) -> str:
        """The model's name in the store, such as "owner--model" or "owner--model--revision"; at most 64 characters."""
        text = self.repository.replace("/", "--") + (f"--{self.revision}" if self.revision else "")
        plain = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).rstrip(".")
        return plain if len(plain) <= 64 else f"{plain[:55]}-{new_sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class _Listing:
    """A repository's files at one commit: name -> (bytes, hash); 64 hex digits are a SHA-256, 40 a git blob hash."""

    commit: str
    files: dict[str, tuple[int, str]]
    licence: str
    offline: bool


def parse(name: str) -> Reference:
    """Parses `hf:OWNER/MODEL[@REV]`. Raises RiyazError."""
    match = REFERENCE.fullmatch(name)
    if match is None or ".." in name:
        hint = "write hf:OWNER/MODEL or hf:OWNER/MODEL@REVISION"
        raise RiyazError(f"{shown(name)} is not the name of a hub model", hint=hint)
    return Reference(f"{match[1]}/{match[2]}", match[3])


def pull(name: str, report: Progress) -> ModelEntry:
    """Downloads a hub model into the store, unless it is there intact. Raises RiyazError."""
    wanted = parse(name)
    stored = store.find(wanted.name)
    if stored and is_intact(stored.path, stored.sha256):
        return stored
    hub = _library(name)
    listing = _listing(hub, wanted)

    def fetch(file: str, add: Callable[[int], None]) -> Path:
        path = _fetched(hub, wanted, listing, file, add)
        _verify(path, file, *listing.files[file], where=name)
        return path

    first, rest = _chosen(name, set(listing.files))
    paths = {file: fetch(file, lambda n: None) for file in first}
    if INDEX in first:
        index = sharded.read_index(paths[INDEX])
        rest += sharded.shard_names(index, set(listing.files), name)
    total, done = sum(listing.files[file][0] for file in rest), 0
    for file in rest:

        def add(count: int, before: int = done) -> None:
            nonlocal done
            done = max(before, min(done + count, total))
            report("download", done, total)

        paths[file] = fetch(file, add)
    report("download", total, total)
    with store.workspace() as space:
        folder = space / wanted.name
        for file, path in paths.items():
            store.link_or_copy(path, folder / file)
        opened = open_path(folder)
        if opened.is_embedder:
            tokenizer_files.from_folder(folder)
        else:
            opened.tokenizer()
        origin = f"hf:{wanted.repository}@{listing.commit}"
        nbytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        entry = ModelEntry(wanted.name, folder, "hf", origin, listing.licence, opened.sha256(), nbytes)
        return store.add_model(folder, entry)


def _chosen(name: str, present: set[str]) -> tuple[list[str], list[str]]:
    """(small files, downloaded first; the weight file, if it is a single one) among `present`, by the allow-list.

    Raises RiyazError when the repository has no safetensors weights.
    """
    small = [file for file in FOLDER_FILES if file in present and file != INDEX]
    small += sorted(file for file in present if TEMPLATE.fullmatch(file))
    if SINGLE_FILE in present:
        return small, [SINGLE_FILE]
    if INDEX in present:
        return [*small, INDEX], []
    for suffix in (*UNREAD_SUFFIXES, ".gguf"):
        for file in sorted(file for file in present if file.endswith(suffix)):
            what = f"the repository holds {shown(file)} and no {SINGLE_FILE}"
            gguf = "download that file yourself and run `riyaz pull FILE`"
            other = f"{CONVERT}, or name a revision that has one: hf:OWNER/MODEL@REVISION"
            raise RiyazError(what, name, gguf if suffix == ".gguf" else other)
    raise RiyazError(f"the repository holds no {SINGLE_FILE}", name, "name a model's repository")


def _listing(hub: Any, wanted: Reference) -> _Listing:
    """The repository's files: asked of the hub, or read from its local cache when HF_HUB_OFFLINE is set."""
    if importlib.import_module("huggingface_hub.constants").HF_HUB_OFFLINE:
        return _cached(hub, wanted)
    try:
        info = hub.HfApi().model_info(wanted.repository, revision=wanted.revision, files_metadata=True)
    except Exception as error:
        raise _refusal(error, wanted) from error
    files = {}
    for entry in info.siblings or []:
        digest = entry.lfs.sha256 if entry.lfs else entry.blob_id
        if entry.size is not None and digest:
            files[entry.rfilename] = (entry.size, digest)
    card = getattr(info, "card_data", None)
    tags = [tag.removeprefix("license:") for tag in info.tags or [] if tag.startswith("license:")]
    licence = (card.get("license") if card else None) or (tags[0] if tags else "unknown")
    return _Listing(info.sha, files, str(licence), offline=False)


def _cached(hub: Any, wanted: Reference) -> _Listing:
    """The files of a snapshot in the local cache, where each is a link to a file named after its hash."""
    try:
        folder = Path(hub.snapshot_download(wanted.repository, revision=wanted.revision, local_files_only=True))
    except Exception as error:
        raise _refusal(error, wanted) from error
    files = {}
    for path in folder.rglob("*"):
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = (path.stat().st_size, path.resolve().name)
    return _Listing(folder.name, files, "unknown", offline=True)


def _fetched(hub: Any, wanted: Reference, listing: _Listing, file: str, add: Callable[[int], None]) -> Path:
    """The file's path in the hub's cache, after downloading it if missing. `add` gets the bytes of each step."""
    utils = importlib.import_module("huggingface_hub.utils")

    class Bar(utils.tqdm):  # type: ignore[misc, name-defined]  # huggingface_hub reports progress through tqdm
        def update(self, n: float | None = 1) -> Any:
            """Passes the bytes to `add`; nothing is drawn."""
            add(int(n or 0))
            return super().update(n)

    utils.disable_progress_bars()
    try:
        path = hub.hf_hub_download(
            wanted.repository,
            file,
            revision=listing.commit,
            local_files_only=listing.offline,
            tqdm_class=Bar,
        )
    except Exception as error:
        raise _refusal(error, wanted) from error
    return Path(path)


def _verify(path: Path, file: str, size: int, digest: str, *, where: str) -> None:
    """Raises RiyazError unless the file has the size in bytes and the hash that the hub listed."""
    import hashlib  # as late as in `new_sha256`

    is_sha256 = re.fullmatch(r"[0-9a-f]{64}", digest)
    if not is_sha256 and not re.fullmatch(r"[0-9a-f]{40}", digest):
        raise RiyazError(f"the cache holds no hash of {shown(file)}", where, "pull it with a connection to the hub")
    git_header = f"blob {path.stat().st_size}\0".encode()
    actual, count = hashlib.sha256() if is_sha256 else hashlib.sha1(git_header), 0
    with open(path, "rb") as reader:
        while chunk := reader.read(CHUNK):
            actual.update(chunk)
            count += len(chunk)
    if count != size or actual.hexdigest() != digest:
        hashes = f"the hash {actual.hexdigest()[:12]}…, not {size} and {digest[:12]}…"
        hint = f"a proxy may have sent another file; delete {path.resolve()} and pull again"
        raise RiyazError(f"{shown(file)} has {count} bytes and {hashes}", where, hint)


def _library(name: str) -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise RiyazError("pulling from the hub needs huggingface_hub", name, install("hub")) from None


def _refusal(error: Exception, wanted: Reference) -> RiyazError:
    """An exception of huggingface_hub as a RiyazError. Matched by class name, which is stable across versions."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    revision = f"@{wanted.revision}" if wanted.revision else ""
    where = f"hf:{wanted.repository}{revision}"
    if isinstance(error, RiyazError):
        return error
    if "GatedRepoError" in kinds:
        hint = "accept its licence on its page on the hub and log in with `hf auth login`"
        return RiyazError("this model can be downloaded only after accepting its licence", where, hint)
    if "RevisionNotFoundError" in kinds:
        return RiyazError(f"there is no revision {wanted.revision!r}", where, "name a branch, a tag or a commit")
    if "RepositoryNotFoundError" in kinds:
        return RiyazError("no such model, or a private one", where, "check the name, or log in with `hf auth login`")
    if kinds & {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "IncompleteSnapshotError"}:
        hint = "connect and unset HF_HUB_OFFLINE, or copy the model's folder to this machine and run `riyaz pull PATH`"
        return RiyazError("the hub is offline or unreachable, and the model is not in the local cache", where, hint)
    if "HfHubHTTPError" not in kinds and kinds & {"ConnectError", "TransportError", "ConnectionError", "TimeoutError"}:
        hint = "connect, or copy the model's folder to this machine and run `riyaz pull PATH`"
        return RiyazError("the hub cannot be reached", where, hint)
    if "JSONDecodeError" in kinds:
        hint = "check the proxy in HTTPS_PROXY, or copy the model's folder to this machine and run `riyaz pull PATH`"
        return RiyazError("what came is not what the hub sends; a proxy may have sent a page of its own", where, hint)
    detail = " ".join(str(error).split())[:200] or type(error).__name__
    return RiyazError(f"huggingface_hub failed: {detail}", where, "try again; files already downloaded are kept")
