"""Commands that only answer never import torch, nor do the processes that they start, and `fit` only where it trains.
None of them uses the network.

Each command runs in a process of its own with a hook that writes down who has imported torch by the end.
"""

import json
from pathlib import Path

import pytest
import tiny_bert
import tiny_llama
from conftest import Finished
from tiny_comparison import closed_rows, write_rows
from watched_command import watched

from riyaz.retrieval.collection import Collection


def importers(folder: Path, *arguments: object, stdin: str = "") -> list[str]:
    """The arguments of the processes that had imported torch, after running a command to its end, which uses no
    network."""
    done = watched(folder, *arguments, stdin=stdin, RIYAZ_HOME=str(folder / "home"))
    assert done.status == 0, done.err
    assert not done.network, arguments
    return done.torch


def data(folder: Path) -> Path:
    """Training and test rows. Without test rows a comparison deals folds, each arm six times."""
    write_rows(folder / "data/test.jsonl", closed_rows(18, "today"))
    return write_rows(folder / "data/train.jsonl", closed_rows(45, "please")).parent


def general(folder: Path) -> tuple[object, ...]:
    """Options that measure forgetting on a short text; of Python's help topics it takes half of a comparison's time."""
    (folder / "general.txt").write_text(tiny_llama.CORPUS)
    return ("--general", folder / "general.txt")


def verbs(model: Path, artifact: Path, folder: Path) -> dict[str, tuple[object, ...]]:
    """The commands that answer, with the model itself and with an artifact; `adapt` deals folds."""
    rows = write_rows(folder / "rows.jsonl", closed_rows(45, "please"))
    compare = ("compare", data(folder), "--model", model, "--methods", "nearest,zero_shot,few_shot", "--budget", "1h")
    short = general(folder)
    return {
        "generate": ("generate", model, "the card", "--max-tokens", 4),
        "generate an adapter": ("generate", artifact, "the card", "--max-tokens", 4),
        "chat": ("chat", model, "--max-tokens", 4),
        "predict": ("predict", "the card", "--model", model),
        "predict beside an adapter": ("predict", "the card", "--adapter", artifact, "--model", model),
        "run": ("run", artifact, rows, "--out", folder / "answers.jsonl"),
        "evaluate": ("evaluate", artifact, "--test", rows),
        "compare": (*compare, *short, "--out", folder / "out"),
        "adapt": ("adapt", "nearest", rows, "--model", model, "--budget", "1h", *short, "--out", folder / "adapted"),
        "rag": ("rag", "add", folder / "collection", folder / "rows.txt", "--lexical"),
        "rag ask": ("rag", "ask", folder / "asked", "the card", "--model", model, "--max-tokens", 4),
    }


VERBS = (
    *("generate", "generate an adapter", "chat", "predict", "predict beside an adapter", "run", "evaluate", "compare"),
    *("adapt", "rag", "rag ask"),
)


@pytest.mark.parametrize("verb", VERBS)
def test_a_command_that_answers_never_imports_torch(
    verb: str, quick: Finished, model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "rows.txt").write_text(tiny_llama.CORPUS)
    if verb == "rag ask":
        assert not importers(tmp_path, "rag", "add", tmp_path / "asked", tmp_path / "rows.txt", "--lexical")
    asked = verbs(model_folder, quick.artifact("lora"), tmp_path)[verb]
    assert importers(tmp_path, *asked, stdin="where is my order\n") == []


@pytest.mark.slow
def test_retrieval_by_meaning_never_imports_torch(model_folder: Path, tmp_path: Path) -> None:
    tiny_bert.keep(tmp_path / "home")
    documents, rows = tmp_path / "notes.txt", write_rows(tmp_path / "rows.jsonl", closed_rows(45, "please"))
    documents.write_text(tiny_llama.CORPUS)
    assert importers(tmp_path, "rag", "add", tmp_path / "held", documents) == []
    collection = Collection.open(tmp_path / "held")
    assert collection.embedder is not None and collection.embedder[0] == "minilm"
    asked = ("rag", "ask", tmp_path / "held", "the card", "--model", model_folder, "--max-tokens", 4)
    assert importers(tmp_path, *asked) == []
    out = tmp_path / "out"
    settings = ("--documents", documents, "--methods", "rag", "--budget", "1h", *general(tmp_path), "--out", out)
    assert importers(tmp_path, "compare", data(tmp_path), "--model", model_folder, *settings) == []
    assert json.loads((out / "settings.json").read_text())["documents"]["embedder"] == collection.embedder[1]
    artifact = next(out.glob("arms/rag*/**/artifact"))
    assert importers(tmp_path, "run", artifact, rows, "--out", tmp_path / "answers.jsonl") == []


@pytest.mark.slow
def test_the_hook_sees_who_imports_torch(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIYAZ_ENGINE", "torch")
    line = ("generate", model_folder, "the card", "--max-tokens", 4)
    assert importers(tmp_path, *line) == [" ".join(map(str, line))]


@pytest.mark.slow
def test_of_a_comparison_only_measuring_and_training_import_torch(model_folder: Path, tmp_path: Path) -> None:
    seen = importers(
        tmp_path, "compare", data(tmp_path), "--model", model_folder, "--methods", "zero_shot,lora", "--steps", 4,
        "--budget", "1h", *general(tmp_path), "--out", tmp_path / "out",
    )  # fmt: skip
    assert {tuple(line.split()[:1] + line.split()[2:3]) for line in seen} <= {
        ("measure", line.split()[2]) for line in seen if line.startswith("measure")
    } | {("fit", "lora"), ("open", "lora")}
    assert ("fit", "lora") in {tuple(line.split()[:1] + line.split()[2:3]) for line in seen}
    arms = json.loads((tmp_path / "out/compare.json").read_text())["arms"]
    assert {arm["method"]: arm["status"] for arm in arms} == {"zero_shot": "ok", "lora": "ok"}
