"""`pull hf:OWNER/MODEL` from a fake hub and from a cache on disk: chosen by an allow-list, checked by hash, locked."""

import hashlib
import json
import multiprocessing
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants, errors
from refusals import assert_refused
from tiny_llama import shard, write_hf_folder
from waiting import HANG

from riyaz.sources import hub, models, open_source, pull
from riyaz.sources.lock import locked

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "hf:Some-Owner/Tiny.Model"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty store, an empty cache of the hub, and a hub that is switched off."""
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def cached(tmp_path: Path, folder: Path, owner: str = "Some-Owner", model: str = "Tiny.Model") -> Path:
    """The folder in the layout of the hub's cache; weights are named after SHA-256, other files after git's hash."""
    root = tmp_path / "cache" / f"models--{owner}--{model}"
    snapshot = root / "snapshots" / COMMIT
    for file in (path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes()
        large = file.suffix in (".safetensors", ".bin")
        blob = root / "blobs" / (hashlib.sha256(content).hexdigest() if large else git_hash(content))
        link = snapshot / file.relative_to(folder)
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(blob)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / "main").write_text(COMMIT)
    return snapshot


@pytest.fixture
def online(tmp_path, monkeypatch):
    """A hub with the files of `repository`; `fetched` remembers what was asked for."""
    repository = write_hf_folder(tmp_path / "repository")
    fetched: list[tuple[str, str]] = []

    def model_info(self, repo_id, *, revision=None, files_metadata=False):
        assert files_metadata and repo_id == "Some-Owner/Tiny.Model"
        siblings = []
        for file in (path for path in repository.rglob("*") if path.is_file()):
            content = file.read_bytes()
            lfs = SimpleNamespace(sha256=hashlib.sha256(content).hexdigest()) if file.suffix == ".safetensors" else None
            name = file.relative_to(repository).as_posix()
            siblings.append(SimpleNamespace(rfilename=name, size=len(content), blob_id=git_hash(content), lfs=lfs))
        return SimpleNamespace(sha=COMMIT, siblings=siblings, card_data=None, tags=["x", "license:apache-2.0"])

    def download(repo_id, filename, *, revision, local_files_only, tqdm_class):
        assert revision == COMMIT and not local_files_only
        fetched.append((filename, revision))
        target = tmp_path / "cache" / filename
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / filename, target)
            with tqdm_class(total=target.stat().st_size, disable=True) as bar:
                bar.update(target.stat().st_size)
        return str(target)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return SimpleNamespace(repository=repository, fetched=fetched, cache=tmp_path / "cache")


def left_behind(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if ".tmp" in str(path)]


def test_a_model_of_the_hub_is_stored_with_its_commit_and_is_offline_afterwards(online, home, monkeypatch):
    (online.repository / "modeling_tiny.py").write_text("raise SystemExit")
    (online.repository / "pytorch_model.bin").write_bytes(b"\x80")
    (online.repository / "onnx").mkdir()
    (online.repository / "onnx" / "model.safetensors").write_bytes(b"x")
    seen = []
    entry = pull(NAME, lambda what, done, total: seen.append((what, done, total)))
    assert (entry.name, entry.licence) == ("some-owner--tiny.model", "apache-2.0")
    assert entry.origin == f"hf:Some-Owner/Tiny.Model@{COMMIT}" and entry.format == "hf"
    asked = {name for name, _ in online.fetched}
    assert "model.safetensors" in asked and "tokenizer.json" in asked
    assert not any(name.endswith((".py", ".bin")) or "onnx" in name for name in asked)
    assert open_source(NAME).sha256() == open_source(online.repository).sha256() == entry.sha256
    assert seen[-1] == ("download", seen[-1][2], seen[-1][2]) and all(0 <= done <= total for _, done, total in seen)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", None)
    assert pull(NAME) == entry and models() == [entry] and left_behind(home) == []


def test_shards_are_those_of_the_index(online):
    shard(online.repository)
    (online.repository / "consolidated.safetensors").write_bytes(b"not asked for")
    entry = pull(f"{NAME}@v1.0")
    assert entry.name == "some-owner--tiny.model--v1.0"
    assert open_source(f"{NAME}@v1.0").sha256() == open_source(online.repository).sha256()
    assert "consolidated.safetensors" not in {name for name, _ in online.fetched}
    (online.repository / "model-2-of-2.safetensors").unlink()
    with assert_refused("the index names 'model-2-of-2.safetensors', which is missing (1 of 2 shards"):
        pull(NAME)
    shard(write_hf_folder(online.repository), extra="../x.safetensors")
    (online.cache / "model.safetensors.index.json").unlink()
    with assert_refused("weight_map maps 'extra' to '../x.safetensors', which is not a plain file name"):
        pull(NAME)


def test_a_stopped_pull_goes_on_with_what_it_has(online, monkeypatch, home):
    real = huggingface_hub.hf_hub_download

    def stop(repo_id, filename, **options):
        if filename == "model.safetensors":
            raise KeyboardInterrupt
        return real(repo_id, filename, **options)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", stop)
    with pytest.raises(KeyboardInterrupt):
        pull(NAME)
    assert models() == [] and left_behind(home) == [] and (online.cache / "tokenizer.json").exists()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", real)
    assert pull(NAME).nbytes > 0


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_another_hash_is_refused_and_nothing_is_kept(online, home, file):
    online.cache.mkdir()
    damaged = bytearray((online.repository / file).read_bytes())
    damaged[-1] ^= 1
    (online.cache / file).write_bytes(damaged)
    with assert_refused(
        NAME, f"'{file}' has {len(damaged)} bytes and the hash", "a proxy may have sent another file; delete"
    ):
        pull(NAME)
    assert models() == [] and left_behind(home) == []


def test_the_cache_is_enough_where_the_hub_is_switched_off(tmp_path, home):
    folder = write_hf_folder(tmp_path / "hf")
    snapshot = cached(tmp_path, folder)
    entry = pull(NAME)
    assert entry.sha256 == open_source(folder).sha256() and entry.origin.endswith(COMMIT)
    with assert_refused("hf:a/b", "not in the local cache", "HF_HUB_OFFLINE"):
        pull("hf:a/b")
    shutil.rmtree(home)
    with open((snapshot / "model.safetensors").resolve(), "r+b") as file:
        file.write(b"\0")
    with assert_refused("'model.safetensors' has"):
        pull(NAME)


@pytest.mark.parametrize(
    ("file", "hint"),
    [("pytorch_model.bin", "save_pretrained"), ("model.pt", "save_pretrained"), ("m.Q4_0.gguf", "riyaz pull FILE")],
)
def test_weights_that_are_not_safetensors_are_one_line(online, file, hint):
    (online.repository / "model.safetensors").rename(online.repository / file)
    with assert_refused(NAME, f"the repository holds '{file}' and no model.safetensors", hint):
        pull(NAME)
    assert online.fetched == []
    (online.repository / file).unlink()
    with assert_refused("the repository holds no model.safetensors"):
        pull(NAME)


@pytest.mark.parametrize(
    "name", ["hf:", "hf:a", "hf:a/b/c", "hf:../b", "hf:a/..", "hf:a/b@", "hf:a/b@../c", "hf:a/b c"]
)
def test_names_that_are_none(name):
    with assert_refused("is not the name of a hub model", "hf:OWNER/MODEL@REVISION"):
        pull(name)
    with assert_refused("is not the name of a hub model"):
        open_source(name)


def test_a_model_that_is_not_here_names_the_command():
    with assert_refused(f"the model {NAME} has not been pulled yet", f"run `riyaz pull {NAME}`"):
        open_source(NAME)
    assert len(hub.parse("hf:" + "o" * 60 + "/" + "m" * 60).name) == 64


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (errors.GatedRepoError, "only after accepting its licence"),
        (errors.RepositoryNotFoundError, "no such model, or a private one"),
        (errors.RevisionNotFoundError, "there is no revision 'v9'"),
        (errors.OfflineModeIsEnabled, "the hub is offline or unreachable"),
        (errors.HfHubHTTPError, "huggingface_hub failed: said\tno"),
        (ConnectionError, "the hub cannot be reached"),
        (json.JSONDecodeError, "a proxy may have sent a page of its own"),
    ],
)
def test_what_the_hub_says_is_one_line(online, monkeypatch, kind, what):
    def fail(*arguments, **options):
        error = kind.__new__(kind)
        error.args = ("said\tno",)
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    with assert_refused("hf:Some-Owner/Tiny.Model@v9", what.replace("\t", " ")):
        pull(f"{NAME}@v9")


def test_without_the_library_one_line_names_the_extra(monkeypatch):
    def absent(module):
        raise ImportError(module)

    monkeypatch.setattr(hub.importlib, "import_module", absent)
    with assert_refused("needs huggingface_hub", "in riyaz's folder: pip install -e '.[hub]'"):
        pull(NAME)


def hold(name: str, ready, go) -> None:
    """Another process that pulls the same model until it is told to stop."""
    with locked(name, lambda what, done, total: None):
        ready.set()
        go.wait(HANG)


def test_two_processes_pull_one_after_the_other(online):
    context = multiprocessing.get_context("fork")
    ready, go = context.Event(), context.Event()
    other = context.Process(target=hold, args=(NAME, ready, go))
    other.start()
    assert ready.wait(HANG)
    said = []

    def progress(what, done, total):
        said.append(what)
        if what.startswith("wait"):
            assert online.fetched == []
            go.set()

    pull(NAME, progress)
    other.join(HANG)
    assert said[0] == "wait for another pull" and other.exitcode == 0 and len(models()) == 1
