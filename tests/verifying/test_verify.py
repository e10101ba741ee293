"""`riyaz verify`: what is intact passes, and each damage is named with its file; nothing is written."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_comparison import Told, command

from riyaz import checkpoint
from riyaz.sources import safetensors
from riyaz.verifying import Verified, runs, verify
from riyaz.verifying.checks import Checks

OLD = Path(__file__).parents[1] / "formats" / "v0_1"
KINDS = {
    "limits": "limits", "nearest": "artifact", "tiny": "model", "full": "artifact", "rag": "artifact",
    "lora": "artifact", "few_shot": "artifact", "comparison": "comparison", "pretraining": "run",
    "rag/collection.sqlite": "collection", "pretraining/work/train": "checkpoints", "limits/limits.json": "limits",
    "pretraining/work/train/step-000004": "checkpoint", "full/model.safetensors": "safetensors",
}  # fmt: skip
Damage = Callable[[Path], object]


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folders of riyaz 0.1, with best weights for their run, and a store without models."""
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    folder = Path(shutil.copytree(OLD, tmp_path / "old"))
    train = folder / "pretraining/work/train"
    masters = safetensors.read(train / "step-000004/masters.safetensors")
    weights = {name: torch.from_numpy(masters.array(name).copy()) for name in masters.tensors}
    checkpoint.Checkpoints(train, "run").save_best(weights, 4, 5.4, 0.0)
    return folder


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file and folder."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in (folder, *folder.rglob("*"))}


def verify_all(*arguments: object) -> Told:
    return command("verify", *arguments)


@pytest.mark.parametrize("name", list(KINDS))
def test_what_is_intact_passes_and_nothing_is_written(old: Path, name: str) -> None:
    before = state(old.parent)
    told = verify_all(old / name, "--json")
    assert told.status == 0, told.out + told.err
    assert told.document["ok"] and told.document["kind"] == KINDS[name] and told.document["counts"]["files"] > 0
    assert verify_all(old / name).out.splitlines()[-1].startswith(f"ok: {KINDS[name]}, ")
    assert state(old.parent) == before


def test_a_folder_that_nobody_may_write_is_verified(old: Path) -> None:
    for path in (*old.rglob("*"), old):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert [verify(old / name).problems for name in KINDS] == [[]] * len(KINDS)
    finally:
        for path in (old, *old.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


def flip(at: int) -> Damage:
    """One bit of one byte is another one."""

    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)

    return change


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def newer(key: str) -> Damage:
    return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), key: 9}))


def rewritten(change: Callable[[dict[str, np.ndarray]], object]) -> Damage:
    """The tensors of a safetensors file after a change, under a right header."""

    def write(path: Path) -> None:
        file = safetensors.read(path)
        arrays = {name: file.array(name).copy() for name in file.tensors}
        dtypes = {name: info.dtype for name, info in file.tensors.items()}
        change(arrays)
        safetensors.write(path, {name: (dtypes[name], array) for name, array in arrays.items()}, file.metadata)

    return write


def with_nan(arrays: dict[str, np.ndarray]) -> None:
    largest = max(arrays.values(), key=lambda array: array.size)
    largest.reshape(-1)[-1] = 0x7FC0 if largest.dtype == np.uint16 else np.nan


def swapped(arrays: dict[str, np.ndarray]) -> None:
    name = next(name for name, array in arrays.items() if array.ndim == 2 and array.shape[0] != array.shape[1])
    arrays[name] = np.ascontiguousarray(arrays[name].T)


def in_sql(text: str) -> Damage:
    def change(path: Path) -> None:
        with sqlite3.connect(path) as database:
            database.execute(text)

    return change


def out_of_it(path: Path) -> None:
    elsewhere = path.parents[1].parent / "elsewhere"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


STEP = "pretraining/work/train/step-000004"
DAMAGES: list[tuple[str, str, Damage, str]] = [
    ("nearest", "examples.jsonl", flip(40), "does not have its hash: expected "),
    ("nearest", "examples.jsonl", Path.unlink, "is missing"),
    ("nearest", "riyaz.json", newer("format"), "made by a newer riyaz (format 9, this one reads 1); update riyaz"),
    ("nearest", "riyaz.json", cut, "is damaged"),
    ("nearest", "examples.jsonl", out_of_it, "is a link out of the folder"),
    ("nearest", "examples.jsonl", pipe, "is neither a file nor a folder"),
    ("full", "model.safetensors", flip(-3), "does not have its hash"),
    ("full", "model.safetensors", rewritten(with_nan), "holds nan at"),
    ("lora", "adapter_model.safetensors", cut, "the file has"),
    ("lora", "adapter_model.safetensors", rewritten(with_nan), "holds nan at"),
    ("rag", "collection.sqlite", in_sql("UPDATE documents SET text = text || 'x'"), "is not as it was written"),
    ("rag/collection.sqlite", "", in_sql("DELETE FROM chunks WHERE id = 1"), "chunks where"),
    ("rag/collection.sqlite", "", in_sql("UPDATE meta SET value = '9' WHERE key = 'version'"), "made by a newer riyaz"),
    ("tiny", "model.safetensors", cut, "the file has"),
    ("tiny", "model.safetensors", flip(20), ""),
    ("tiny", "model.safetensors", Path.unlink, "holds no model.safetensors"),
    ("tiny", "model.safetensors", rewritten(with_nan), "holds nan at"),
    ("tiny", "model.safetensors", rewritten(swapped), "has the shape"),
    ("tiny", "config.json", cut, "not JSON"),
    ("tiny", "tokenizer.json", Path.unlink, "tokenizer"),
    ("limits", "limits.json", newer("schema"), "made by a newer riyaz"),
    ("comparison", "compare.json", newer("schema"), "made by a newer riyaz"),
    ("comparison", "arms/nearest/kept/artifact/examples.jsonl", flip(40), "does not have its hash"),
    ("comparison", "arms/nearest/kept/result.json", newer("schema"), "made by a newer riyaz"),
    ("comparison", "arms/nearest/kept", shutil.rmtree, "is missing"),
    ("comparison", "split/kept/train.jsonl", lambda path: path.write_text("".join(path.open().readlines()[1:])),
     "its rows are not those of compare.json: expected "),
    ("comparison", "arms/nearest/kept/predictions.jsonl",
     lambda path: path.write_text("".join(path.open().readlines()[1:])), "its lines are not the test rows: expected "),
    ("pretraining", "run.json", newer("schema"), "made by a newer riyaz"),
    ("pretraining", "metrics.jsonl", cut, "is damaged"),
    (STEP, "masters.safetensors", flip(-3), "does not have its hash"),
    (STEP, "MANIFEST.json", newer("format"), "made by a newer riyaz"),
    (STEP, "optimizer.safetensors", Path.unlink, "is missing"),
    ("pretraining", "work/train/best.safetensors", flip(-3), "does not have its hash"),
    ("pretraining", "work/train/best.safetensors", rewritten(with_nan), "holds nan at"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "damage", "expected"), DAMAGES)
def test_a_damage_is_named_with_its_file(old: Path, name: str, file: str, damage: Damage, expected: str) -> None:
    damage(old / name / file if file else old / name)
    before = state(old)
    told = verify_all(old / name)
    assert told.status == 1 and told.out.startswith("wrong: ") and told.err == "", told
    lines = [line for line in told.out.splitlines() if expected in line]
    assert lines and "ok:" not in told.out, told.out
    where = Path(file).name if file else "collection.sqlite"
    at_folder = ("shape", "holds no model", "tokenizer")  # what only the whole folder shows
    assert any(where in line for line in lines) or expected.startswith(at_folder) or "has the shape" in lines[0]
    document = verify_all(old / name, "--json").document
    assert not document["ok"] and len(document["problems"]) == told.out.count("wrong: ")
    assert state(old) == before


def test_every_problem_is_named_at_once(old: Path) -> None:
    for name in ("examples.jsonl", "training_rows.txt"):
        flip(3)(old / "nearest" / name)
    problems = [problem for problem in verify(old / "nearest").problems if "hash" in problem.what]
    assert [problem.file for problem in problems] == ["examples.jsonl", "training_rows.txt"]


def test_a_gguf_file_is_verified(old: Path) -> None:
    path = old / "model.gguf"
    command("export", old / "tiny", "--format", "gguf", "--out", path)
    path = path if path.is_file() else next(path.glob("*.gguf"))
    assert verify(path).problems == [] and verify(path).counts["tensors finite"] > 0
    cut(path)
    assert verify(path).problems and verify_all(path).status == 1


@pytest.mark.parametrize("name", ["absent", "documents", "text.txt", "train.jsonl"])
def test_what_cannot_be_verified_is_one_line(old: Path, name: str) -> None:
    told = verify_all(old / name)
    assert told.status == 2 and told.out == "" and "name a model, an artifact" in told.line and "\n" not in told.line


def test_the_line_says_what_was_checked() -> None:
    verified = Verified("p", "model", {"files": 12, "hashes": 3, "rows": 0, "tensors finite": 1210}, [], [])
    assert verified.line == "ok: model, 12 files, 3 hashes, 1,210 tensors finite"


def test_checkpoints_of_today_are_known(tmp_path: Path) -> None:
    """The checks need no torch, so they name the files and the hash of `checkpoint.py` themselves."""
    assert (runs.MANIFEST, runs.CHECKPOINT_FORMAT) == (checkpoint.MANIFEST, checkpoint.FORMAT)
    made = checkpoint.Checkpoints(tmp_path, "run")
    made.save_best({"b": torch.ones(2, 3), "a": torch.arange(4.0)}, 7, 0.5, 0.25)
    assert made.best == tmp_path / runs.BEST
    checks = Checks(tmp_path)
    runs.check_checkpoints(checks, tmp_path)
    assert checks.problems == [] and checks.counts["hashes"] == 1
