"""Combinations as lines of the table, and general text among the rows that weights are trained on."""

import json
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_comparison
from conftest import Finished
from pages_task import page_context
from refusals import assert_refused
from tiny_comparison import command

from riyaz.artifact import COLLECTION, EXAMPLES, Artifact, read_examples
from riyaz.data.general_text import general_text, replay_text
from riyaz.data.rows import Row
from riyaz.methods import METHODS, lora, rag
from riyaz.methods.fitting import weights
from riyaz.methods.fitting.base import ArmPlan, Context, combined
from riyaz.predictor import open_artifact

pytestmark = pytest.mark.usefixtures("in_float32")


@pytest.fixture
def context(model_folder: Path, tmp_path: Path, collection: Path) -> Context:
    return page_context(model_folder, tmp_path, collection, "rag_lora")


# rag_lora


def test_rows_of_rag_lora_hold_passages_before_the_question(context: Context) -> None:
    adapted = METHODS["rag_lora"].with_prompt(context)
    assert adapted.train == context.train and adapted.files == {COLLECTION: context.collection}
    rows = weights.rows_for(adapted, adapted.train)
    plain = weights.rows_for(context, context.train)
    assert len(rows) == len(plain) == len(context.train)
    facts = {ask: said for page in tiny_comparison.PAGES.values() for said, ask, _ in page}
    for row, bare_row, example in zip(rows, plain, context.train):
        text = context.tokenizer.decode(row.prompt)
        before, _, rest = text.partition("<documents ")
        assert before.endswith("\nuser\n") and example.prompt not in before, "in the user's turn"
        assert rest.endswith(f"\n\n{example.prompt}\nassistant\n"), "before the question"
        assert row.answer == bare_row.answer and len(row.prompt) > len(bare_row.prompt) + 40
        said = facts.get(example.prompt.removesuffix("?").rpartition(" ")[0])
        assert said is None or said in text, "the right page is among them"
    passages = adapted.prompt_text.passages([context.train[0].messages])[0]
    assert rag.TRAINING_PASSAGES == 2 == len(passages), "with a distractor"


def test_a_combination_has_a_double_share_and_the_text_of_its_first_part(context: Context) -> None:
    both, alone = METHODS["rag_lora"].recipe, METHODS["lora"].recipe
    assert both is not None and alone is not None
    assert both == replace(alone, share=2) and METHODS["rag_lora"].candidates == METHODS["lora"].candidates
    assert [name for name, method in METHODS.items() if method.needs_documents] == ["rag", "rag_lora"]


def test_the_artifact_of_rag_lora_answers_as_it_was_judged(retrieved: Finished) -> None:
    folder = retrieved.artifact("rag_lora")
    artifact, predictor = Artifact.read(folder), open_artifact(folder)
    assert (artifact.weights.kind, artifact.text.passages) == ("lora", rag.TRAINING_PASSAGES)
    assert {COLLECTION, "adapter_model.safetensors"} <= set(artifact.checksums)
    assert {"step0_loss", "weights_moved", "reopened", "merged"} <= set(retrieved.arm("rag_lora")["checks"])
    lines = (folder.parent / "predictions.jsonl").read_text().splitlines()[:4]
    for row in map(json.loads, lines):
        answer = predictor.answers([[{"role": "user", "content": row["prompt"]}]])[0]
        assert list(answer.citations) == row["citations"] and len(row["citations"]) == 2


# a line that somebody adds


@pytest.fixture
def few_shot_lora(monkeypatch: pytest.MonkeyPatch) -> str:
    both = combined("few_shot_lora", lora.ABOUT, METHODS["few_shot"], METHODS["lora"])
    monkeypatch.setitem(METHODS, "few_shot_lora", both)
    return "few_shot_lora"


def test_shown_examples_are_not_trained_on(context: Context, few_shot_lora: str) -> None:
    adapted = METHODS[few_shot_lora].with_prompt(context)
    shown = adapted.prompt_text.examples
    assert len(shown) == 4 and set(shown) < set(context.train) and not set(shown) & set(adapted.train)
    assert len(adapted.train) + len(shown) == len(context.train) and adapted.valid == context.valid
    for row in weights.rows_for(adapted, adapted.train):
        text = context.tokenizer.decode(row.prompt)
        assert all(example.prompt in text for example in shown)
    assert set(adapted.files) == {EXAMPLES}


def test_one_line_of_the_table_is_a_method_end_to_end(
    few_shot_lora: str, asked: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = tiny_comparison.workers_inside(monkeypatch)
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(9, "today"))
    told = command("compare", tmp_path / "data", *asked, "--methods", few_shot_lora, "--out", tmp_path / "out")
    assert told.status == 0, told.err
    (arm,) = told.document["arms"]
    assert (arm["method"], arm["status"], arm["reason"]) == (few_shot_lora, "ok", "") and arm["trainable_params"] > 0
    assert done == [("measure",), ("fit", few_shot_lora, "kept"), ("evaluate", few_shot_lora, "kept")]
    folder = tmp_path / "out/arms" / few_shot_lora / "kept/artifact"
    artifact, examples = Artifact.read(folder), read_examples(folder / EXAMPLES)
    assert (artifact.weights.kind, artifact.text.examples, artifact.text.k) == ("lora", "fixed", 4)
    assert len(examples) == 4 and {example.answer for example in examples} == set(tiny_comparison.CLOSED)
    assert arm["prompt_tokens"] > 40 and all(check["ok"] for check in arm["checks"].values())


# general text among the rows


def test_the_rehearsed_text_is_prose_of_another_source_than_the_measured_one() -> None:
    replayed, measured = replay_text(), general_text(None)
    assert 300_000 < len(replayed) < 600_000 and ">>>" not in replayed
    parts = {replayed[i : i + 50] for i in range(len(replayed) - 50)}
    assert not any(measured[i : i + 50] in parts for i in range(len(measured) - 50))
    code = "import sys; from riyaz.data.general_text import replay_text as r; r(); print('turtle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_python_without_sources_cannot_rehearse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    replay_text.cache_clear()
    with assert_refused(str(tmp_path), "sources of Python's standard library", "leave out --replay"):
        replay_text()
    replay_text.cache_clear()


def replayed(
    share: float, length: int = 20_000, count: int = 30, beginning: tuple[int, ...] = (), **more: Any
) -> list[Row]:
    """Replay of `count` rows of 20 + 10 tokens on average, over a general text whose tokens are their places."""
    tokenizer = types.SimpleNamespace(encode=lambda text: list(range(length)), beginning=beginning)
    context = types.SimpleNamespace(replay=share, tokenizer=tokenizer, **more)
    rows = [Row(tuple(range(15 + i % 11)), tuple(range(5 + i % 11))) for i in range(count)]
    return weights.replay_rows(context, rows)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_replay_has_the_asked_share_of_rows_and_of_labels(share: float) -> None:
    rows = replayed(share, count=330)
    assert len(rows) / (len(rows) + 330) == pytest.approx(share, abs=0.002)
    assert {(len(row.prompt), len(row.answer)) for row in rows} == {(20, 10)}


def test_replay_is_text_in_its_order_from_everywhere_in_the_text() -> None:
    rows = replayed(0.5, count=600)
    for row in rows:
        text = [*row.prompt, *row.answer]
        assert text == list(range(text[0], text[0] + 30))
    assert rows[0].prompt[0] == 0 and rows[-1].answer[-1] == 19_999
    assert len({row.prompt for row in rows}) > 500, "hardly a row stands twice"
    assert rows == replayed(0.5, count=600)
    begun = replayed(0.5, count=600, beginning=(7,))  # a model that never read a text without its BOS
    assert [row.prompt for row in begun] == [(7, *row.prompt) for row in rows]


def test_without_replay_there_are_no_such_rows() -> None:
    assert replayed(0.0) == []


def test_replay_reaches_the_training(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from riyaz import train as training

    seen: list[list[Row]] = []
    whole = training.train

    def watched(model: Any, rows: Any, *rest: Any, **more: Any) -> Any:
        seen.append(list(rows))
        return whole(model, rows, *rest, **more)

    monkeypatch.setattr(training, "train", watched)
    arm = ArmPlan("lora", steps=4, recipe_steps=4, batch_size=4, learning_rates=(1e-3,), validate_every=2,
                  checkpoint_every=9)  # fmt: skip
    fitted = METHODS["lora"].fit(replace(context, arm=arm, replay=0.25))
    (rows,) = seen
    assert sum(row.example is None for row in rows) == round(len(context.train) / 3)
    assert all(check["ok"] for check in fitted.checks.values())
