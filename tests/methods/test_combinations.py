"""Combinations as lines of the table, and general text among the rows that weights are trained on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_comparison
from conftest import Finished
from pages_task import page_context
from tiny_comparison import command

from riyaz.artifact import COLLECTION, EXAMPLES, Artifact, read_examples
from riyaz.methods import METHODS, lora, rag
from riyaz.methods.fitting import weights
from riyaz.methods.fitting.base import Context, combined
from riyaz.predictor import open_artifact
from riyaz.results import LEARNED, Learned

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


def test_what_rag_lora_records_has_the_passages_in_its_prompt(retrieved: Finished) -> None:
    folder = retrieved.artifact("rag_lora")
    lines = Learned.read(folder.parent / LEARNED)
    validated = [entry["step"] for entry in retrieved.arm("rag_lora")["curve"] if "valid_loss" in entry]
    assert [line.step for line in lines] == [0, *validated] and len(validated) > 1
    assert all("</documents" in line.sentence for line in lines)


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


@pytest.mark.slow
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
