"""Labels that are equally likely over the prompts: the offsets, when they are taken, and the artifact that has them."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fit_context import TASK, examples, fit_context
from refusals import assert_refused

from riyaz import artifact as artifacts
from riyaz.artifact import Artifact, BaseModel
from riyaz.data import Example
from riyaz.export.prompt import not_held
from riyaz.methods.fitting import choices, even_labels
from riyaz.methods.fitting.base import Context, Fitted
from riyaz.methods.fitting.choices import Choice, base_predictor
from riyaz.methods.fitting.even_labels import LEAST_SHARE, corrected, lower
from riyaz.metrics.calibration import fit_temperature, log_losses, log_softmax, probabilities, right_probability
from riyaz.predictor import ClosedPredictor, open_artifact
from riyaz.scoring import accepted_labels

pytestmark = pytest.mark.usefixtures("in_float32")
L = len(TASK.labels)


@pytest.fixture
def context(model_folder: Path, tmp_path: Path) -> Context:
    return fit_context(model_folder, tmp_path, valid=examples(36, "today"), valid_rows=36)


def drawn(seed: int, count: int, bias: Sequence[float], accepted: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """(log-probabilities (n, L) that favour the right label and, by so much, some labels; which are right (n, L))."""
    generator = np.random.default_rng(seed)
    if accepted is None:
        accepted = np.eye(len(bias), dtype=bool)[np.arange(count) % len(bias)]
    return log_softmax(2 * accepted + generator.normal(0, 1, (count, len(bias))) + np.array(bias)), accepted


# the offsets


@pytest.mark.parametrize("count", [2, 7, 60])
def test_offsets_make_the_labels_equally_likely_over_the_prompts(count: int) -> None:
    scores, accepted = drawn(count, count, (0, 3, -2, 0.5))
    temperature = fit_temperature(scores, accepted)
    shares = probabilities(scores, temperature).mean(0)
    assert shares.max() > 2 * shares.min()
    made = even_labels.even_labels(scores, accepted)
    assert shares * np.exp(made.offsets / temperature) == pytest.approx(np.ones(4), rel=1e-4)
    assert made.offsets.argmax() == shares.argmin() and made.nats == pytest.approx(made.losses.mean())


@pytest.mark.parametrize("count", [2, 7, 60])
def test_a_rows_own_prompt_does_not_count_in_its_loss(count: int) -> None:
    scores, accepted = drawn(50 + count, count, (0, 2, -1))
    temperature = fit_temperature(scores, accepted)
    p = np.exp(log_softmax(scores / temperature))
    alone = [scores[i] - temperature * np.log(np.delete(p, i, axis=0).mean(0)) for i in range(count)]
    last = fit_temperature(np.array(alone), accepted)
    expected = -log_softmax(np.array(alone) / last)[accepted]
    assert even_labels.even_labels(scores, accepted).losses == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_one_row_and_a_label_that_is_never_likely_have_finite_offsets() -> None:
    for scores in (np.log([[0.2, 0.8]]), np.array([[-1e4, 0.0], [-1e4, 0.0], [-2e4, 0.0]])):
        accepted = np.tile([False, True], (len(scores), 1))
        made = even_labels.even_labels(scores, accepted)
        assert np.isfinite(made.offsets).all() and np.isfinite(made.losses).all()
        temperature = fit_temperature(scores, accepted)
        assert made.offsets.max() <= -temperature * math.log(LEAST_SHARE) * 1.001


def test_the_difference_of_losses_has_a_standard_error() -> None:
    losses, than = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 2.0, 5.0, 5.0])
    gain, error = lower(losses, than)
    assert (gain, error) == (1.0, pytest.approx(np.std([1, 0, 2, 1], ddof=1) / 2))
    assert lower(losses[:1], than[:1]) == (1.0, math.inf)


# when they are taken


def choice_of(predictor: Any, score: float = 0.5) -> Choice:
    return Choice(predictor, getattr(predictor, "calibrated", False), score, [], 0.0, np.zeros(0))


def told(context: Context, monkeypatch: pytest.MonkeyPatch, bias: Sequence[float], **fields: Any) -> tuple[Any, ...]:
    """(what is made of a predictor whose labels have such scores, the predictor, the scores, which are right)."""
    accepted = accepted_labels(context.task, context.valid)
    scores, _ = drawn(8, len(context.valid), bias, accepted)
    for module in (even_labels, choices):
        monkeypatch.setattr(module, "label_scores", lambda predictor, rows: scores[: len(rows)])
    predictor = base_predictor(context)
    assert isinstance(predictor, ClosedPredictor)
    predictor = replace(predictor, **fields)
    return corrected(context, choice_of(predictor)), predictor, scores, accepted


@pytest.mark.parametrize("calibrated", [False, True])
def test_labels_that_are_favoured_are_corrected(
    context: Context, monkeypatch: pytest.MonkeyPatch, calibrated: bool
) -> None:
    made, predictor, scores, accepted = told(context, monkeypatch, (4, 0, 0), calibrated=calibrated)
    even = even_labels.even_labels(scores, accepted)
    assert made.predictor.label_offsets == pytest.approx(tuple(predictor.offsets + even.offsets))
    assert made.fields["label_offsets"] == made.predictor.label_offsets and not made.predictor.calibrated
    assert predictor.offsets.any() == calibrated, "those of null prompts stay beneath"
    assert made.predictor.offsets == pytest.approx(predictor.offsets + even.offsets)
    assert made.fields["temperature"] == pytest.approx(fit_temperature(scores + even.offsets, accepted))
    right = accepted[np.arange(len(scores)), (scores + even.offsets).argmax(1)].mean()
    assert made.score == pytest.approx(right) and made.score > accepted[np.arange(36), scores.argmax(1)].mean()
    assert (made.fields["calibrated"], made.record["even_labels"], made.record["calibrated"]) == (False, True, False)
    without = log_losses(right_probability(probabilities(scores, fit_temperature(scores, accepted)), accepted)).mean()
    assert made.record["label_nats"] == pytest.approx(without, abs=1e-5) and without > made.record["even_label_nats"]


@pytest.mark.parametrize(("gain", "error", "even"), [
    (0.11, 0.1, True), (0.09, 0.1, False), (0.1, 0.1, False), (-1, 0.1, False), (1, math.inf, False),
])  # fmt: skip
def test_they_are_taken_where_the_loss_is_lower_by_more_than_an_error(
    context: Context, monkeypatch: pytest.MonkeyPatch, gain: float, error: float, even: bool
) -> None:
    monkeypatch.setattr(even_labels, "lower", lambda *_: (gain, error))
    made, predictor, scores, accepted = told(context, monkeypatch, (0, 0, 0), calibrated=True)
    assert made.record["even_labels"] is even and bool(made.predictor.label_offsets) is even
    if not even:
        assert made.predictor is predictor and made.score == 0.5
        temperature = fit_temperature(scores, accepted)
        assert made.fields == {"calibrated": True, "label_offsets": (), "temperature": temperature}
        assert made.record["calibrated"] is True and {"label_nats", "even_label_nats"} <= made.record.keys()


def test_answers_without_labels_are_left_as_they_are(context: Context) -> None:
    task = replace(TASK, kind="free", labels=(), metric="judge")
    predictor = base_predictor(replace(context, task=task))
    made = corrected(replace(context, task=task), choice_of(predictor, 0.3))
    assert (made.predictor, made.score) == (predictor, 0.3)
    assert made.fields == made.record == {"calibrated": False}


# the artifact


OFFSETS = (-2.5, 1.25, 0.5)


def written(context: Context, folder: Path, offsets: tuple[float, ...], **fields: Any) -> Artifact:
    source = context.source
    base = BaseModel(source.name, str(source.path), source.sha256(), 1, context.tokenizer.template)
    document = Artifact(
        "instruct", context.prompt_text.text, base=base, task=context.task, label_offsets=offsets, **fields
    )
    return artifacts.write(folder, document, {})


def exact(predictor: ClosedPredictor, rows: Sequence[Example]) -> np.ndarray:
    """The log-probabilities (n, L) of all labels, read whole."""
    return predictor.lm.choose([each.request for each in predictor.prepare([row.messages for row in rows])])


@pytest.mark.parametrize("temperature", [None, 1.5])
def test_an_artifact_answers_with_the_best_label_behind_its_offsets(
    context: Context, tmp_path: Path, temperature: float | None
) -> None:
    plain = exact(base_predictor(context), context.valid)  # type: ignore[arg-type]
    offsets = tuple((-plain.mean(0) + np.array([0.0, 0.3, 0.1])).tolist())  # so that every label wins somewhere
    document = written(context, tmp_path / "artifact", offsets, temperature=temperature)
    assert Artifact.read(tmp_path / "artifact") == document and document.label_offsets == offsets
    predictor = open_artifact(tmp_path / "artifact", precision="fp32")
    assert isinstance(predictor, ClosedPredictor)
    scores = exact(predictor, context.valid) + np.array(offsets)
    answers = predictor.answers([row.messages for row in context.valid])
    assert [answer.text for answer in answers] == [TASK.labels[i] for i in scores.argmax(1)]
    assert len({answer.text for answer in answers}) > 1 and (plain.argmax(1) != scores.argmax(1)).any()
    chosen = plain[np.arange(len(plain)), scores.argmax(1)]
    assert [answer.log_probability for answer in answers] == pytest.approx(chosen, abs=1e-4)
    if temperature:
        assert [answer.confidence for answer in answers] == pytest.approx(
            probabilities(scores, temperature).max(1), abs=1e-3)  # fmt: skip
    alone = predictor.answers([context.valid[3].messages])[0]
    assert (alone.text, predictor.answer(context.valid[3].messages)) == (answers[3].text, answers[3].text)


@pytest.mark.parametrize("offsets", [
    OFFSETS[:2], (*OFFSETS, 0.0), "NaN", "Infinity", "null", '"a"',
])  # fmt: skip
def test_offsets_that_fit_no_label_are_refused(
    context: Context, tmp_path: Path, offsets: tuple[float, ...] | str
) -> None:
    written(context, tmp_path, OFFSETS)
    path = tmp_path / artifacts.NAME
    document = json.loads(path.read_text())
    if isinstance(offsets, str):
        path.write_text(json.dumps(document | {"label_offsets": [0.0, "@", 0.0]}).replace('"@"', offsets))
    else:
        path.write_text(json.dumps(document | {"label_offsets": offsets}))
    with assert_refused(artifacts.NAME, "label_offsets"):
        Artifact.read(tmp_path)


def test_offsets_without_labels_are_refused(context: Context, tmp_path: Path) -> None:
    written(context, tmp_path, OFFSETS)
    path = tmp_path / artifacts.NAME
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"task": None}))
    with assert_refused(artifacts.NAME, "label_offsets"):
        Artifact.read(tmp_path)


def test_an_export_says_that_the_offsets_are_lost(context: Context, tmp_path: Path) -> None:
    with_offsets, without = (written(context, tmp_path / str(len(each)), each) for each in (OFFSETS, ()))
    assert "made equally likely" in not_held(with_offsets)[0] and "equally likely" not in not_held(without)[0]


@pytest.mark.parametrize("name", ["few_shot"])
def test_a_fit_whose_labels_are_made_even_answers_as_it_was_scored(
    context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    from riyaz.methods import METHODS

    monkeypatch.setattr(even_labels, "lower", lambda *_: (1.0, 0.1))
    context = replace(context, valid=context.valid[:18], valid_rows=18, precision="fp32")
    fitted: Fitted = METHODS[name].fit(context)
    assert fitted.label_offsets and fitted.chosen["even_labels"] and not fitted.calibrated
    source = context.source
    base = BaseModel(source.name, str(source.path), source.sha256(), 1, context.tokenizer.template)
    document = Artifact(name, fitted.text, fitted.weights, base, context.task, temperature=fitted.temperature,
                        label_offsets=fitted.label_offsets)  # fmt: skip
    artifacts.write(tmp_path / "artifact", document, fitted.files)
    predictor = open_artifact(tmp_path / "artifact", precision="fp32")
    answers = predictor.answers([row.messages for row in context.valid])
    right = [answer.text in row.answers for answer, row in zip(answers, context.valid)]
    assert np.mean(right) == pytest.approx(fitted.valid_score)
