"""Commands that only answer never import torch, nor do the workers of their comparisons, and none uses the network.

They run one after the other in a process with a hook that writes down uses of the network, workers inside it.
"""

import json
from pathlib import Path

import pytest
import tiny_bert
import tiny_llama
from conftest import Finished
from tiny_comparison import closed_rows, write_rows
from watched_command import watched_script

from riyaz.retrieval.collection import Collection

# Runs the commands of a JSON list of [name, arguments]; prints for each its status, its errors and whether torch is
# imported by then. That of the name "with torch" answers with it.
IN_TURN = """
import io, json, os, sys
import pytest, tiny_comparison
tiny_comparison.workers_inside(pytest.MonkeyPatch())
found = {}
for name, line in json.loads(sys.argv[1]):
    sys.stdin = io.StringIO("where is my order\\n")
    if name == "with torch":
        os.environ["RIYAZ_ENGINE"] = "torch"
    told = tiny_comparison.command(*line)
    found[name] = told.status, told.err, "torch" in sys.modules
print(json.dumps(found))
"""
Found = dict[str, tuple[int, str, bool]]


def in_turn(folder: Path, *commands: tuple[str, tuple[object, ...]]) -> Found:
    """What each command did, none of which uses the network."""
    lines = json.dumps([(name, [*map(str, line)]) for name, line in commands])
    done, out = watched_script(folder, IN_TURN, lines, RIYAZ_HOME=str(folder / "home"))
    assert done.status == 0 and not done.network, done
    found: Found = json.loads(out.splitlines()[-1])
    return found


def data(folder: Path) -> Path:
    """Training and test rows. Without test rows a comparison deals folds, each arm six times."""
    write_rows(folder / "data/test.jsonl", closed_rows(18, "today"))
    return write_rows(folder / "data/train.jsonl", closed_rows(45, "please")).parent


def verbs(model: Path, artifact: Path, folder: Path) -> dict[str, tuple[object, ...]]:
    """The commands that answer, with the model itself and with an artifact; `adapt` deals folds."""
    (folder / "rows.txt").write_text(tiny_llama.CORPUS)
    rows, asked = write_rows(folder / "rows.jsonl", closed_rows(45, "please")), folder / "asked"
    compare = ("compare", data(folder), "--model", model, "--methods", "nearest,zero_shot,few_shot", "--budget", "1h")
    return {
        "generate": ("generate", model, "the card", "--max-tokens", 4),
        "generate an adapter": ("generate", artifact, "the card", "--max-tokens", 4),
        "chat": ("chat", model, "--max-tokens", 4),
        "predict": ("predict", "the card", "--model", model),
        "predict beside an adapter": ("predict", "the card", "--adapter", artifact, "--model", model),
        "run": ("run", artifact, rows, "--out", folder / "answers.jsonl"),
        "evaluate": ("evaluate", artifact, "--test", rows),
        "compare": (*compare, "--out", folder / "out"),
        "adapt": ("adapt", "nearest", rows, "--model", model, "--budget", "1h", "--out", folder / "adapted"),
        "rag": ("rag", "add", asked, folder / "rows.txt", "--lexical"),
        "rag ask": ("rag", "ask", asked, "the card", "--model", model, "--max-tokens", 4),
        "with torch": ("generate", model, "the card", "--max-tokens", 4),
    }


VERBS = (
    *("generate", "generate an adapter", "chat", "predict", "predict beside an adapter", "run", "evaluate", "compare"),
    *("adapt", "rag", "rag ask"),
)


@pytest.fixture(scope="module")
def ran(quick: Finished, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What all of `verbs` did."""
    folder = tmp_path_factory.mktemp("verbs")
    return in_turn(folder, *verbs(model_folder, quick.artifact("lora"), folder).items())


@pytest.mark.parametrize("verb", VERBS)
def test_a_command_that_answers_never_imports_torch(verb: str, ran: Found) -> None:
    status, errors, imported = ran[verb]
    assert status == 0, errors
    assert not imported


def test_who_imports_torch_is_seen(ran: Found) -> None:
    status, errors, imported = ran["with torch"]
    assert status == 0, errors
    assert imported


@pytest.mark.slow
def test_retrieval_by_meaning_never_imports_torch(model_folder: Path, tmp_path: Path) -> None:
    tiny_bert.keep(tmp_path / "home")
    documents, rows = tmp_path / "notes.txt", write_rows(tmp_path / "rows.jsonl", closed_rows(45, "please"))
    documents.write_text(tiny_llama.CORPUS)
    held, out = tmp_path / "held", tmp_path / "out"
    compare = ("compare", data(tmp_path), "--model", model_folder, "--documents", documents, "--methods", "rag")
    found = in_turn(
        tmp_path,
        ("rag add", ("rag", "add", held, documents)),
        ("rag ask", ("rag", "ask", held, "the card", "--model", model_folder, "--max-tokens", 4)),
        ("compare", (*compare, "--budget", "1h", "--out", out)),
        ("run", ("run", out / "arms/rag/kept/artifact", rows, "--out", tmp_path / "answers.jsonl")),
    )
    done = {name: (status, imported) for name, (status, _, imported) in found.items()}
    assert done == dict.fromkeys(found, (0, False)), found
    collection = Collection.open(held)
    assert collection.embedder is not None and collection.embedder[0] == "minilm"
    assert json.loads((out / "settings.json").read_text())["documents"]["embedder"] == collection.embedder[1]
