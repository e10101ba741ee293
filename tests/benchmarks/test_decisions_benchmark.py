"""benchmarks/decisions.py on a tiny model: what it measures, what counts as met, and that it sees what is wrong."""

import json
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tiny_bert
import tiny_comparison
import tiny_llama
from load_script import load_script
from script_here import run_here
from starlette.testclient import TestClient

from riyaz.data import Message
from riyaz.data.questions import Question
from riyaz.engine.parts import Steps
from riyaz.predictor import Base, Decided, deciding, open_base

ROOT = Path(__file__).parents[2]
ROWS = {"zero_shot_ratio", "lora_ms", "questions_ratio", "linear_ratio", "lora_ratio", "differing", "flips", "ece"}


@pytest.fixture(scope="module")
def decisions() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return load_script("benchmarks/decisions.py")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("model") / "tiny", context=4096)


@pytest.fixture(scope="module")
def base(model: Path) -> Base:
    return open_base(model, "fp32")


@pytest.fixture
def data(decisions: ModuleType, model: Path, tmp_path: Path) -> Any:
    return decisions.use.Data(tmp_path / "none", tmp_path, 80, 7, str(model))


@pytest.fixture
def commands_inside(decisions: ModuleType, one_core: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of riyaz that end run in this process; its servers and the peers have processes of their own."""
    tiny_comparison.workers_inside(monkeypatch)
    started, riyaz = decisions.use.run, decisions.use.RIYAZ

    def run(*command: Any) -> str:
        if [*command[: len(riyaz)]] != riyaz:
            return str(started(*command))
        told = tiny_comparison.command(*command[len(riyaz) :])
        assert told.status == 0, told.err
        return told.out

    monkeypatch.setattr(decisions.use, "run", run)


def run(model: Path, home: Path, *options: Any) -> dict[str, Any]:
    """The document of a quick run on rows that are made up."""
    command = [sys.executable, ROOT / "benchmarks/decisions.py", "--quick", "--model", model, "--data", home, *options]
    found: dict[str, Any] = json.loads(run_here(command).stdout.splitlines()[-1])
    assert found["rows"].keys() == ROWS and found["cpu"] and found["commit"] and found["rounds"] == 1
    assert found["made_up"] == ["banking77", "clinc150", "snips"]
    return found


def test_a_row_is_met_missed_or_not_measured(decisions: ModuleType) -> None:
    found = {"zero_shot_ratio": 1.3, "lora_ms": 20.1, "linear_ratio": 2.0, "lora_ratio": 4.9, "flips": 0}
    rows = decisions.judged({**found, "differing": 1, "ece": float("nan"), "questions_ratio": None})
    assert {name: row["met"] for name, row in rows.items()} == {
        "zero_shot_ratio": True, "lora_ms": False, "questions_ratio": None, "linear_ratio": True, "lora_ratio": False,
        "differing": False, "flips": True, "ece": False,
    }  # fmt: skip
    assert rows["lora_ratio"] == {"value": 4.9, "must": ">= 5", "met": False}


@pytest.mark.slow
def test_what_needs_no_server_is_measured(commands_inside: None, model: Path, tmp_path: Path) -> None:
    found = run(model, tmp_path, "--only", "choice", "--only", "questions", "--only", "order")
    measured = {name for name, row in found["rows"].items() if row["met"] is not None}
    assert measured == {"zero_shot_ratio", "lora_ms", "questions_ratio", "flips"}
    assert found["zero_shot_ratio"] == pytest.approx(found["zero_shot_ms"] / found["prompt_ms"])
    assert found["questions_ratio"] == pytest.approx(found["single_ms"] / found["together_ms"])
    assert found["tokens"] > 20 and found["labels"] == 7 and min(found["lora_ms"], found["first_ms"]) > 0
    assert found["questions"] == 3 and found["question_tokens"] <= 50
    assert (found["flips"], found["ordered"]) == (0, 12) and found["largest_change"] == 0
    for places in (found["by_place"], found["by_sorted_place"]):
        assert sum(places["rows"]) == 12 and 0 <= places["chance"] <= 1
        right = sum(share * rows for share, rows in zip(places["accuracy"], places["rows"]))
        assert right == pytest.approx(12 * found["accuracy"])


def test_as_many_tokens_are_counted_as_the_model_reads(decisions: ModuleType, base: Base) -> None:
    with decisions.counted(base) as read:
        base.lm.generate([decisions.Request(0, (5, 6, 7, 8), limit=3)])
    assert sum(read) == 4 + 2
    base.lm.generate([decisions.Request(0, (5, 6), limit=1)])
    assert sum(read) == 6, "nobody counts any longer"


def test_an_answer_that_depends_on_the_order_is_seen(
    decisions: ModuleType, base: Base, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first(model: Any, conversation: Sequence[Message], questions: Sequence[Question]) -> Steps[list[Decided]]:
        answers = yield from deciding(model, conversation, questions)
        return [replace(each, probabilities=np.eye(len(each.probabilities), dtype=np.float32)[0]) for each in answers]

    monkeypatch.setattr(decisions, "deciding", first)
    found = decisions.reordered(base, data, replace(decisions.QUICK, ordered=60))
    assert found["flips"] > 20 and found["largest_change"] == 1
    assert found["by_place"]["accuracy"][0] > 0 == max(found["by_place"]["accuracy"][1:])
    assert found["by_place"]["chance"] < 0.05


def test_answers_that_differ_in_a_bit_are_counted(
    decisions: ModuleType, base: Base, model: Path, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers_of = decisions.use.answers_of

    def rounding(url: str, bodies: Sequence[Any], clients: int, beside: Sequence[Any] = ()) -> Any:
        answers = answers_of(url, bodies, clients, beside)
        if clients > 1:
            place = next(place for place, each in enumerate(answers) if "probability" in each)
            answers[place]["probability"] = float(
                np.nextafter(np.float32(answers[place]["probability"]), np.float32(1))
            )
        return answers

    monkeypatch.setattr(decisions.use, "answers_of", rounding)
    args = decisions.argparse.Namespace(model=str(model))
    found = decisions.in_float32(args, base, data.labels("banking77"), tmp_path / "work", decisions.QUICK)
    assert found == {"differing": 1, "among": "0 of 12", "mixed": "1 of 12"}


def test_rows_that_a_label_lacks_are_added(decisions: ModuleType, data: Any) -> None:
    data.train = 3
    rows = [json.loads(line) for line in data.train_file("snips").read_text().splitlines()]
    assert len(rows) == 7 and {row["label"] for row in rows} == set(data.labels("snips"))


def test_the_probe_answers_by_the_mean_of_the_tokens(tmp_path: Path) -> None:
    probe = load_script("benchmarks/probe_server.py")
    made = probe.Probe(str(tiny_bert.write_folder(tmp_path / "bert")))
    texts = ["my card was declined", "where is the refund", "the card"]
    vectors = made.vectors(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(made.vectors(texts[2:])[0], vectors[2], atol=1e-6)  # padding is left out of the mean
    made.regression.C = 1e3
    made.fit([{"text": text, "label": label} for text, label in zip(texts, ("card", "refund", "card"))])
    for pool in (False, True):
        with TestClient(probe.application(made, pool)) as client:
            assert client.get("/").json() == {"labels": 2}
            answer = client.post("/", json={"text": texts[1]}).json()
        assert answer["label"] == "refund" == max(answer["probabilities"], key=answer["probabilities"].get)
        assert sum(answer["probabilities"].values()) == pytest.approx(1)


@pytest.mark.slow
def test_every_row_is_measured_beside_the_probe(commands_inside: None, model: Path, tmp_path: Path) -> None:
    bert = tiny_bert.write_folder(tmp_path / "bert")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = run(model, tmp_path / "home", "--peer", "--embedder", bert, "--peer-port", port)
    lacking = "typed-decisions" in found["not_installed"]
    assert {name for name, row in found["rows"].items() if row["met"] is None} == ({"lora_ratio"} if lacking else set())
    assert found["linear_ratio"] == pytest.approx(found["decisions_s"]["linear"] / found["decisions_s"]["probe"])
    assert found["alone_ms"].keys() == found["decisions_s"].keys() >= {"linear", "lora", "zero_shot", "probe"}
    assert (found["differing"], found["among"], found["mixed"]) == (0, "0 of 12", "0 of 12")
    assert found["ece"] == max(each["ece"] for each in found["calibration"].values())
    assert [each["rows"] for each in found["calibration"].values()] == [70, 70, 70]
