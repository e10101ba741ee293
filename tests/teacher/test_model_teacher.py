"""A model as a teacher: what it predicts of its own answers, labels by their texts, and whom it can teach."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama
import torch
from fit_context import TASK, examples
from refusals import assert_refused
from small_llama import save_peft

from riyaz.artifact import TextPart
from riyaz.data import Example
from riyaz.data.packing import pack
from riyaz.data.rows import encode_rows
from riyaz.data.task import Task
from riyaz.layers.swaps import lora
from riyaz.models import load
from riyaz.predictor import ClosedPredictor, ModelPredictor, Prediction, open_model, predictor_for
from riyaz.prompting import messages_for
from riyaz.sources import open_source
from riyaz.teacher import model as teaching
from riyaz.teacher.model import answered, identity, open_teacher, same_tokens, spelled, with_tokens
from riyaz.train import answering_states

pytestmark = pytest.mark.usefixtures("in_float32")
CLOSE = 1e-4  # nats, from the torch model to the engine, both in float32
FREE = Task("free", (), "judge", "Help with the order.", "")
ROWS, TEXTS = examples(5, "now"), ["the order", "", "a refund of the payment, please", "my card", "the the"]


def torch_log_p(folder: Path, predictor: ModelPredictor, rows: Sequence[Example], texts: Sequence[str]) -> np.ndarray:
    """The log-probabilities (N, V) at all tokens of the texts behind the predictor's prompts, as in training."""
    source = open_source(folder)
    said = [replace(row, answers=(text,)) for row, text in zip(rows, texts)]
    prompts = [messages_for(predictor.text, predictor.task, row.messages, predictor.examples) for row in said]
    encoded, _ = encode_rows(source.tokenizer(), list(zip(prompts, said)), 1000)
    assert len(encoded) == len(rows)
    model = load(source, torch.float32)
    with torch.no_grad():
        return (answering_states(model, pack(encoded)) @ model.lm_head.weight.T).log_softmax(-1).numpy()


@pytest.mark.parametrize("shown", [0, 2])
def test_soft_targets_are_what_it_predicts_behind_its_own_prompts(shown: int, model_folder: Path) -> None:
    predictor = open_teacher(str(model_folder), FREE)
    assert predictor.has_model
    if shown:
        text = replace(predictor.text, examples="fixed", k=shown)
        predictor = replace(predictor, text=text, examples=examples(shown, "before"))
    rows, texts = [ROWS[0], *ROWS[2:]], [TEXTS[0], *TEXTS[2:]]
    outputs = with_tokens(predictor, rows, texts)
    assert [output.text for output in outputs] == texts
    expected = torch_log_p(model_folder, predictor, rows, texts)
    softs = [output.soft for output in outputs if output.soft is not None]
    assert len(softs) == len(rows)
    tokens, log_p = (np.concatenate([getattr(soft, name) for soft in softs]) for name in ("tokens", "log_p"))
    assert tokens.shape == log_p.shape == (len(expected), teaching.LIKELIEST)
    assert np.allclose(log_p, np.take_along_axis(expected, tokens, 1), atol=CLOSE)
    likeliest = np.sort(expected, axis=1)[:, ::-1][:, : teaching.LIKELIEST]
    assert np.allclose(np.sort(log_p, axis=1)[:, ::-1], likeliest, atol=CLOSE)


def test_distributions_of_few_tokens_are_in_memory(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = open_teacher(str(model_folder), FREE)
    assert predictor.has_model
    texts, counts = [text or "money" for text in TEXTS], list[int]()
    whole = with_tokens(predictor, ROWS, texts)
    vocabulary, distributions = predictor.lm.runner.vocab_size, type(predictor.lm).distributions

    def counted(lm: Any, requests: Any, answers: Sequence[Sequence[int]]) -> Any:
        counts.append(sum(map(len, answers)))
        return distributions(lm, requests, answers)

    monkeypatch.setattr(type(predictor.lm), "distributions", counted)
    tokens = [len(each.soft.tokens) for each in whole if each.soft is not None]
    monkeypatch.setattr(teaching, "AT_ONCE", (tokens[0] + tokens[1]) * vocabulary)
    parts = with_tokens(predictor, ROWS, texts)
    assert len(counts) > 2 and sum(counts) == sum(tokens) and max(counts) <= max(tokens[0] + tokens[1], *tokens)
    for one, other in zip(whole, parts):
        assert one.soft is not None and other.soft is not None
        assert np.array_equal(one.soft.tokens, other.soft.tokens) and np.array_equal(one.soft.log_p, other.soft.log_p)


def test_a_base_answers_with_the_tasks_instruction(model_folder: Path) -> None:
    predictor = open_teacher(str(model_folder), replace(FREE, max_new_tokens=5))
    assert (predictor.text.instruction, predictor.text.list_labels) == (FREE.instruction, False)
    assert getattr(predictor, "max_new_tokens", None) == 5 and all(
        output.text for output in answered(predictor, FREE, ROWS)
    )
    closed = open_teacher(str(model_folder), TASK)
    assert closed.has_labels and closed.text.list_labels
    outputs = answered(closed, TASK, ROWS)
    assert {output.text for output in outputs} <= set(TASK.labels)
    assert all(output.soft is None for output in outputs), "labels of a search have no probabilities without a fit"


# labels


def labelling(model_folder: Path, labels: tuple[str, ...]) -> ClosedPredictor:
    """A teacher of these labels that says how likely each is."""
    task = replace(TASK, labels=labels)
    model = replace(open_model(model_folder), text=TextPart(task.instruction), task=task)
    predictor = predictor_for(model, temperature=1.3)
    assert isinstance(predictor, ClosedPredictor)
    return predictor


@pytest.mark.parametrize("labels", [
    TASK.labels, TASK.labels[::-1], ("refund", "other", "billing", "delivery", "none"), ("refund", "billing"),
])  # fmt: skip
def test_probabilities_go_to_the_labels_of_the_same_text(labels: tuple[str, ...], model_folder: Path) -> None:
    predictor = labelling(model_folder, labels)
    predictions = predictor.answers([row.messages for row in ROWS])
    outputs = answered(predictor, TASK, ROWS)
    for output, prediction in zip(outputs, predictions):
        assert output.text == (prediction.text if prediction.text in TASK.labels else "")
        assert prediction.probabilities is not None and output.soft is not None
        known = dict(zip(labels, prediction.probabilities.tolist()))
        p = np.array([known.get(label, 0.0) for label in TASK.labels])
        assert output.soft.tokens.tolist() == [[0, 1, 2]]
        assert np.exp(output.soft.log_p[0]) == pytest.approx(p / p.sum(), abs=1e-4)
        assert np.exp(output.soft.log_p[0]).sum() == pytest.approx(1, abs=1e-5)
        if prediction.text in TASK.labels:
            assert TASK.labels[output.soft.log_p[0].argmax()] == output.text


def test_answers_of_another_set_are_not_usable(monkeypatch: pytest.MonkeyPatch, model_folder: Path) -> None:
    predictor = labelling(model_folder, ("refund", "other"))
    p = np.array([0.1, 0.9], np.float32)
    made = [Prediction("other", probabilities=p), Prediction("refund", probabilities=p[::-1])]
    monkeypatch.setattr(teaching, "predict", lambda *_: made)
    other, refund = answered(predictor, TASK, ROWS[:2])
    assert (other.text, refund.text) == ("", "refund")
    assert refund.soft is not None and np.exp(refund.soft.log_p[0]) == pytest.approx([0, 0, 1], abs=1e-5)


@pytest.mark.parametrize(("text", "label"), [
    ("refund", "refund"), (" Refund.\n", "refund"), ('"REFUND"', "refund"), ("**refund**", "refund"),
    ("“refund”", "refund"), ("`refund`", "refund"), ("a refund", None), ("refunds", None), ("", None), ("  ", None),
    ("refund, or delivery", None),
])  # fmt: skip
def test_a_label_that_was_written_is_known_but_for_case_and_marks(text: str, label: str | None) -> None:
    assert spelled(TASK, text) == label
    assert spelled(FREE, text) == (text if text.strip() else None)


def test_of_labels_that_differ_in_case_the_exact_one_is_meant() -> None:
    task = replace(TASK, labels=("Us", "US", "it."))
    assert [spelled(task, text) for text in ("US", "Us", "it.")] == ["US", "Us", "it."]


# who teaches whom


def test_what_cannot_teach_is_one_line(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no-such-model", str(tmp_path / "none"), "none/lora"):
        for ask in (identity, lambda name: open_teacher(name, FREE)):
            with assert_refused(name):
                ask(name)
    monkeypatch.setattr(teaching, "open_target", lambda *_, **__: labelling(model_folder, ("one", "two\x1b[31m")))
    with assert_refused("T", "labels such as 'one'", "no row has any", "same labels"):
        open_teacher("T", TASK)
    assert open_teacher("T", FREE).has_labels


def test_the_same_tokens_are_the_same_vocabulary_and_end_of_turn(model_folder: Path, tmp_path: Path) -> None:
    one = open_source(model_folder).tokenizer()
    twin = open_source(tiny_llama.write_hf_folder(tmp_path / "twin", seed=9)).tokenizer()
    other = open_source(tiny_llama.write_hf_folder(tmp_path / "other", seed=9, vocab=400)).tokenizer()
    assert same_tokens(one, twin) and not same_tokens(one, other)
    changed = open_source(model_folder).tokenizer()
    monkeyed = type("T", (), {"files": changed.files, "end_of_turn": changed.end_of_turn + 1})()
    assert not same_tokens(one, monkeyed)  # type: ignore[arg-type]


def test_a_model_and_its_adapter_are_told_apart(model_folder: Path, tmp_path: Path) -> None:
    assert identity(str(model_folder)) == open_source(model_folder).sha256()
    model = load(open_source(model_folder), torch.float32)
    lora.apply(model, r=2, alpha=4, seed=0)
    (tmp_path / "adapter").mkdir()
    save_peft(model, tmp_path / "adapter", base=str(model_folder))
    first = identity(str(tmp_path / "adapter"))
    (weights,) = (tmp_path / "adapter").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes() + b" ")
    assert len({first, identity(str(tmp_path / "adapter")), identity(str(model_folder))}) == 3
