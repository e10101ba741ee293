"""Folders that a command works in: one process at a time, no links, and nothing left of killed processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
from refusals import assert_refused
from tiny_comparison import closed_rows, command, write_rows

from riyaz import folders
from riyaz.sources import open_source, pull, store

MAKE = """
import sys
from pathlib import Path
from riyaz import folders
with folders.temporary(Path(sys.argv[1]), sys.argv[2]) as folder:
    (folder / "half").write_text("a")
    print(folder, flush=True)
    sys.stdin.read()  # until it is killed
"""


class Maker:
    """A process that has made a temporary folder and works in it."""

    def __init__(self, parent: Path, prefix: str) -> None:
        arguments = [sys.executable, "-c", MAKE, str(parent), prefix]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.folder = Path(self.process.stdout.readline().strip())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def test_one_process_works_in_a_folder_and_a_failure_leaves_it_as_it_was(tmp_path: Path) -> None:
    def hold(folder: Path, begun: bool = False, ours: bool = True) -> Any:
        return folders.locked(folder, lambda names: ours or not names, lambda: begun)

    folder = tmp_path / "new" / "out"
    with hold(folder) as names:
        assert names == set() and (folder / ".lock").exists()
        with assert_refused("another riyaz is working in this folder"), hold(folder):
            pass
    assert json.dumps(sorted(os.listdir(folder))) == '[".lock"]'
    for begun in (False, True):
        folder = tmp_path / str(begun) / "out"
        with pytest.raises(ValueError, match="stop"), hold(folder, begun):
            (folder / "half").mkdir()
            (folder / "half" / "file").touch()
            raise ValueError("stop")
        assert folder.exists() == begun and folder.parent.exists() == begun
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").touch()
    with assert_refused("this folder holds something else"), hold(tmp_path / "mine", ours=False):
        pass
    assert os.listdir(tmp_path / "mine") == ["letter"]
    with assert_refused("cannot write here (Not a directory)"), hold(tmp_path / "mine" / "letter" / "out"):
        pass


@pytest.mark.parametrize("linked", [".lock", "split", "arms/lora/log.txt"])
def test_a_folder_with_a_link_is_refused_and_what_it_names_stays(tmp_path: Path, linked: str) -> None:
    victim = tmp_path / "victim"
    (victim / "kept").mkdir(parents=True)
    (victim / "kept/letter").write_text("dear")
    out = tmp_path / "out"
    (out / linked).parent.mkdir(parents=True)
    (out / linked).symlink_to(victim if linked == "split" else victim / "kept/letter")
    (out / "settings.json").write_text("{}")
    refused = assert_refused(f"{out}: '{linked}' in it is a link", "remove it")
    with refused, folders.locked(out, lambda names: True, lambda: False):
        (out / linked).unlink()
    assert (victim / "kept/letter").read_text() == "dear" and (out / linked).is_symlink()


def test_a_folder_with_a_device_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "measure.log")
    refused = assert_refused("'measure.log' in it is neither a file nor a folder")
    with refused, folders.locked(tmp_path, lambda names: True, lambda: False):
        pass


@pytest.mark.parametrize("verb", ["compare", "adapt", "pretrain"])
def test_commands_refuse_a_results_folder_with_links(tmp_path: Path, model_folder: Path, verb: str) -> None:
    (tmp_path / "victim").write_text("dear")
    (tmp_path / "text.txt").write_text(tiny_llama.CORPUS)
    write_rows(tmp_path / "rows.jsonl", closed_rows(45, "please"))
    out = tmp_path / ("out.work" if verb == "adapt" else "out")
    out.mkdir()
    (out / ".lock").symlink_to("../victim")
    data = ("nearest", tmp_path / "rows.jsonl") if verb == "adapt" else (tmp_path / "rows.jsonl",)
    asked = (tmp_path / "text.txt",) if verb == "pretrain" else (*data, "--model", model_folder)
    told = command(verb, *asked, "--out", tmp_path / "out")
    assert told.status == 2 and "'.lock' in it is a link" in told.line
    assert (tmp_path / "victim").read_text() == "dear"


@pytest.mark.parametrize("linked", ["riyaz-results", "riyaz-results/rows"])
def test_a_default_results_folder_that_is_a_link_is_refused(
    tmp_path: Path, model_folder: Path, linked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / linked).parent.mkdir(exist_ok=True)
    (tmp_path / linked).symlink_to(tmp_path / "elsewhere")
    write_rows(tmp_path / "rows.jsonl", closed_rows(45, "please"))
    monkeypatch.chdir(tmp_path)
    told = command("compare", "rows.jsonl", "--model", model_folder)
    assert told.status == 2 and told.line == f"error: {linked}: is a link; name the folder itself with --out"
    assert not list((tmp_path / "elsewhere").iterdir())


def test_temporary_folders_of_killed_processes_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    prefix = folders.beside(tmp_path / "model")
    killed, alive, other = (Maker(tmp_path, name) for name in (prefix, prefix, folders.beside(tmp_path / "mod")))
    mine = [tmp_path / ".model.settings", tmp_path / f"{prefix}not made here"]
    for folder in mine:
        folder.mkdir()
    (tmp_path / f"{prefix}abcdefgh").symlink_to(mine[0])
    try:
        killed.kill()
        with folders.temporary(tmp_path, prefix) as folder:
            assert not killed.folder.exists()
            assert all(path.is_dir() for path in (folder, alive.folder, other.folder, *mine))
            assert (alive.folder / "half").read_text() == "a"
        assert not folder.exists()
        assert (tmp_path / f"{prefix}abcdefgh").is_symlink()
    finally:
        alive.kill()
        other.kill()


def test_pull_export_and_index_sweep_what_killed_ones_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path
) -> None:
    home, out, index = tmp_path / "home", tmp_path / "out", tmp_path / "pages.sqlite"
    monkeypatch.setenv("RIYAZ_HOME", str(home))
    home.mkdir()
    (tmp_path / "page.txt").write_text("The card desk is on the third floor.")
    killed = [
        Maker(home, store.TEMPORARY),
        Maker(tmp_path, folders.beside(out)),
        Maker(tmp_path, folders.beside(index)),
    ]
    alive = [Maker(maker.folder.parent, maker.folder.name[:-8]) for maker in killed]
    try:
        for maker in killed:
            maker.kill()
        pull(str(model_folder))
        told = command("export", model_folder, "--format", "hf", "--out", out)
        assert told.status == 0, told.err
        told = command("rag", "add", index, tmp_path / "page.txt", "--lexical", "--rebuild")
        assert told.status == 0, told.err
        assert [maker.folder.exists() for maker in (*killed, *alive)] == [False] * 3 + [True] * 3
    finally:
        for maker in alive:
            maker.kill()


def test_a_result_that_is_there_is_refused_without_what_its_killed_command_left(
    tmp_path: Path, model_folder: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.gguf").touch()
    killed, alive = (Maker(tmp_path, folders.beside(out)) for _ in range(2))
    try:
        killed.kill()
        told = command("quantize", model_folder, "--precision", "int8", "--out", out)
        assert told.status == 2 and "already exists" in told.line
        assert not killed.folder.exists() and alive.folder.exists()
    finally:
        alive.kill()


@pytest.mark.parametrize("name", ["chat_template.jinja", "additional_chat_templates/x.jinja", "config.json"])
def test_a_link_out_of_a_models_folder_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    folder = tiny_llama.write_hf_folder(tmp_path / "model")
    (tmp_path / "secret").write_text((folder / name).read_text() if (folder / name).exists() else "a secret")
    (folder / name).unlink(missing_ok=True)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(tmp_path / "secret")
    for asked in (("pull", folder), ("export", folder, "--format", "hf", "--out", tmp_path / "out")):
        told = command(*asked)
        assert told.status == 2 and f"'{name}' is a link out of the model's folder" in told.line
    assert not (tmp_path / "out").exists() and not list((tmp_path / "home").glob("models/*"))


def test_links_into_the_blobs_of_the_hubs_cache_are_followed(tmp_path: Path) -> None:
    plain, snapshot = tiny_llama.write_hf_folder(tmp_path / "plain"), tmp_path / "hub/models--a--b/snapshots/1234"
    snapshot.mkdir(parents=True)
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted(plain.iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert open_source(snapshot).tokenizer().encode("card")
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")
    with assert_refused("is a link out of the model's folder"):
        open_source(snapshot)
