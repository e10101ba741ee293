"""Distillation: what the student learns from, and that the accepted answers are no part of it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fit_context import PLAN, TASK, examples, fit_context
from refusals import assert_refused
from small_llama import Stop, stopping_at

from riyaz import artifact as artifacts
from riyaz.artifact import LABELS, Artifact, BaseModel
from riyaz.data import Example
from riyaz.data.rows import Wanted
from riyaz.data.task import Task
from riyaz.engine import Request
from riyaz.families import describe
from riyaz.json_files import write_lines
from riyaz.methods import METHODS
from riyaz.methods.fitting.base import Context, Fitted, instruction_only
from riyaz.methods.fitting.taught import UNLABELLED, taught
from riyaz.methods.fitting.weights import rows_for
from riyaz.predictor import open_artifact
from riyaz.predictor.from_files import open_base, open_on
from riyaz.results import LEARNED, Learned
from riyaz.teacher import outputs
from riyaz.teacher.outputs import Output, of_label, prompt_key

pytestmark = pytest.mark.usefixtures("in_float32")
DISTIL = METHODS["distil"]
FREE = Task("free", (), "rouge_l", "Help with the order.", "")
MORE = examples(6, "tomorrow")
KINDS = ("labels", "label texts", "tokens", "texts")
SHARED = 1e-4  # of the logits of transformers with PEFT, float32


def context_of(model_folder: Path, folder: Path, kind: str, **changes: Any) -> Context:
    """A context for labels or free text, and the folder of a teacher that has answered it in this way."""
    task = TASK if kind.startswith("label") else FREE
    arm = replace(PLAN, method="distil", refit=kind == "labels")
    context = fit_context(model_folder, folder, **{
        "task": task, "prompt_text": instruction_only(task), "arm": arm, "teacher": folder.parent / f"{kind} teacher",
        "precision": "fp32", **changes,
    })  # fmt: skip
    if context.teacher is not None and not context.teacher.exists():
        rows = (*context.train, *context.valid, *MORE)
        outputs.write(context.teacher, {prompt_key(row.messages): answer_of(context, row, kind) for row in rows})
        write_lines(context.teacher / UNLABELLED, (row.to_record() | {"answers": []} for row in MORE))
    return context


def answer_of(context: Context, row: Example, kind: str) -> Output:
    """An answer of a teacher that is no accepted one, with what it predicts of it where the student learns that."""
    generator = np.random.default_rng(len(row.prompt) + int(row.prompt.rpartition(" ")[2]))
    if kind.startswith("label"):
        place = (TASK.labels.index(row.answer) + 1) % 3
        soft = of_label(np.log(0.1 + 0.7 * np.eye(3)[place])) if kind == "labels" else None
        return Output(TASK.labels[place], soft)
    text = f"the order {row.prompt.split()[-1]} and the payment arrive"
    if kind == "texts":
        return Output(text)
    (answer,) = context.tokenizer.answer_ids([text])
    tokens = np.array([[token, *range(40, 45)] for token in answer])
    return Output(text, Wanted(tokens, np.log(generator.dirichlet(np.ones(7), len(answer))[:, :6]).astype(np.float32)))


def content(fitted: Fitted) -> dict[str, bytes]:
    """The bytes of an artifact's files."""
    return {name: file.read_bytes() if isinstance(file, Path) else file for name, file in fitted.files.items()}


def rewritten(rows: Sequence[Example]) -> tuple[Example, ...]:
    """The rows with other accepted answers."""
    after = {label: TASK.labels[(place + 2) % 3] for place, label in enumerate(TASK.labels)}
    return tuple(replace(row, answers=(after[row.answer],)) for row in rows)


# what is learned


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_learns_all_that_was_answered_and_nothing_else(kind: str, model_folder: Path, tmp_path: Path) -> None:
    context = context_of(model_folder, tmp_path / "a", kind)
    assert context.teacher is not None
    answers = outputs.read(context.teacher)
    keys = [prompt_key(row.messages) for row in context.train]
    left = {key: answer for key, answer in answers.items() if key not in (keys[2], keys[7])}
    outputs.write(context.teacher, left)
    made = taught(context)
    assert [row.messages for row in made.train] == [
        row.messages for place, row in enumerate((*context.train, *MORE)) if place not in (2, 7)
    ]
    for row in (*made.train, *made.valid):
        assert row.answers == (answers[prompt_key(row.messages)].text,)
    assert len(made.valid) == len(context.valid)
    assert set(made.soft) == (set(left) if kind in ("labels", "tokens") else set())
    outputs.write(context.teacher, {key: answers[key] for key in keys})
    with assert_refused("no training or no validation rows", "raise --budget"):
        taught(context)


def test_soft_targets_stand_at_the_tokens_of_the_answers(model_folder: Path, tmp_path: Path) -> None:
    context = taught(context_of(model_folder, tmp_path / "a", "tokens"))
    rows = rows_for(context, context.train)
    assert len(rows) == len(context.train) and not any(row.earlier for row in rows)
    for row in rows:
        assert row.example is not None and row.wanted is not None
        soft = context.soft[prompt_key(row.example.messages)]
        assert np.array_equal(row.wanted.tokens, soft.tokens) and np.array_equal(row.wanted.log_p, soft.log_p)
        assert tuple(row.wanted.tokens[:, 0]) == row.answer
    short = {key: replace(soft, tokens=soft.tokens[1:], log_p=soft.log_p[1:]) for key, soft in context.soft.items()}
    assert rows_for(replace(context, soft=short), context.train) == []


def test_soft_targets_of_labels_are_numbered_behind_the_vocabulary(model_folder: Path, tmp_path: Path) -> None:
    context = taught(context_of(model_folder, tmp_path / "a", "labels"))
    V = describe(context.source).config.vocab_size
    for row in rows_for(context, context.train):
        assert row.wanted is not None and row.example is not None
        assert row.wanted.tokens.tolist() == [[V, V + 1, V + 2]]
        assert row.answer == (V + row.wanted.log_p[0].argmax(),) == (V + TASK.labels.index(row.example.answer),)


@pytest.mark.parametrize("kind", KINDS)
def test_the_teachers_answer_is_recorded_at_every_validation(kind: str, model_folder: Path, tmp_path: Path) -> None:
    context = context_of(model_folder, tmp_path / "a", kind)
    DISTIL.fit(context)
    lines = Learned.read(context.folder / LEARNED)
    assert [line.step for line in lines] == [0, 4, 8, 10]
    answer = answer_of(context, context.valid[0], kind).text
    for line in lines:
        told = "".join(each.text for each in line.text[line.answer :])
        assert told.startswith(answer) and context.valid[0].answer not in told


@pytest.mark.parametrize("kind", KINDS)
def test_the_accepted_answers_change_no_bit(kind: str, model_folder: Path, tmp_path: Path) -> None:
    context = context_of(model_folder, tmp_path / "a", kind)
    one = DISTIL.fit(context)
    assert one.chosen["taught_rows"] == 30 and one.chosen["soft_targets"] == (kind in ("labels", "tokens"))
    other = replace(context, train=rewritten(context.train), valid=rewritten(context.valid), folder=tmp_path / "b")
    two = DISTIL.fit(other)
    first, second = content(one), content(two)
    assert first == second and (LABELS in first) == kind.startswith("label")
    for name in ("temperature", "valid_loss", "valid_score", "refit_loss", "calibrated", "label_offsets"):
        assert getattr(one, name) == getattr(two, name), name
    assert [entry["loss"] for entry in one.curve] == [entry["loss"] for entry in two.curve]
    assert ("refit_steps" in one.chosen) == (kind == "labels")


def test_no_learning_rate_is_taken_from_an_arm_that_saw_accepted_answers() -> None:
    for method in METHODS.values():
        assert not (method.needs_teacher and method.rate_of), method.name


@pytest.mark.parametrize("kind", ["labels", "tokens"])
def test_other_soft_targets_are_other_weights(kind: str, model_folder: Path, tmp_path: Path) -> None:
    """In the same folder: what the first run has left there belongs to another one."""
    context = context_of(model_folder, tmp_path / "a", kind)
    first = content(DISTIL.fit(context))
    assert context.teacher is not None

    def softer(output: Output) -> Output:
        assert output.soft is not None
        log_p = output.soft.log_p * np.float32(0.5)
        return replace(output, soft=replace(output.soft, log_p=log_p))

    outputs.write(context.teacher, {key: softer(each) for key, each in outputs.read(context.teacher).items()})
    assert content(DISTIL.fit(context)) != first


@pytest.mark.parametrize("kind", ["labels", "tokens"])
def test_a_fit_that_was_stopped_ends_with_the_same_bits(kind: str, model_folder: Path, tmp_path: Path) -> None:
    whole = content(DISTIL.fit(context_of(model_folder, tmp_path / "a", kind)))
    context = context_of(model_folder, tmp_path / "b", kind)
    with pytest.raises(Stop):
        DISTIL.fit(replace(context, listen=stopping_at(8)))
    assert content(DISTIL.fit(context)) == whole


def test_general_text_is_rehearsed_beside_soft_targets(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("riyaz.rehearsal.TEXTS", 12)
    for kind in ("labels", "tokens"):
        plain = content(DISTIL.fit(context_of(model_folder, tmp_path / f"{kind} plain", kind)))
        made = DISTIL.fit(context_of(model_folder, tmp_path / kind, kind, replay=0.3))
        assert content(made) != plain and made.valid_loss is not None and np.isfinite(made.valid_loss)


# the artifact


def artifact_of(context: Context, fitted: Fitted, folder: Path) -> Path:
    source = context.source
    base = BaseModel(source.name, str(source.path), source.sha256(), 1, context.tokenizer.template)
    document = Artifact("distil", fitted.text, fitted.weights, base, context.task, temperature=fitted.temperature,
                        max_new_tokens=8)  # fmt: skip
    artifacts.write(folder, document, fitted.files)
    return folder


def test_peft_loads_the_adapter(model_folder: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    context = context_of(model_folder, tmp_path / "a", "tokens")
    folder = artifact_of(context, DISTIL.fit(context), tmp_path / "artifact")
    tokens = (1, 60, 61, 62, 200, 5, 90)

    def oracle(adapter: Path | None) -> np.ndarray:
        model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
        model = model if adapter is None else PeftModel.from_pretrained(model, adapter)
        with torch.inference_mode():
            logits: np.ndarray = model(torch.tensor([tokens])).logits[0].log_softmax(-1).numpy()
        return logits

    theirs = oracle(folder)
    assert np.abs(theirs - oracle(None)).max() > 0.01, "the adapter does something"
    predictor: Any = open_artifact(folder, precision="fp32")
    request = Request(0, tokens[:1], adapter=predictor.adapter)
    (ours,) = predictor.lm.distributions([request], [tokens[1:]])
    assert np.abs(ours - theirs[:-1]).max() < SHARED


def test_it_is_served_beside_other_adapters(model_folder: Path, tmp_path: Path) -> None:
    folders: Mapping[str, Path] = {
        kind: artifact_of(context, DISTIL.fit(context), tmp_path / f"{kind} artifact")
        for kind in ("labels", "tokens", "texts")
        for context in [context_of(model_folder, tmp_path / kind, kind)]
    }
    base, questions = open_base(model_folder, "fp32"), [row.messages for row in MORE]
    together: dict[str, Any] = {}
    for name, folder in folders.items():
        predictor, adapter = open_on(base, folder, name)
        assert adapter is not None and adapter.pairs
        base.lm.load(name, adapter)
        together[name] = predictor
    for name, folder in folders.items():
        alone = open_artifact(folder, precision="fp32").answers(questions)
        assert [each.text for each in together[name].answers(questions)] == [each.text for each in alone]
    assert {each.text for each in together["labels"].answers(questions)} <= set(TASK.labels)
