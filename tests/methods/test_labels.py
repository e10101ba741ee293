"""A head of labels beside the model's own: what it begins as, what it learns, what is judged, and the artifact."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fit_context import PLAN, TASK, examples, fit_context
from scipy.special import log_softmax

from riyaz import artifact as artifacts
from riyaz import train as training
from riyaz.artifact import LABELS, Artifact, BaseModel
from riyaz.data.packing import pack
from riyaz.data.rows import Row
from riyaz.engine.opening import open_engine
from riyaz.events import Event, Progress
from riyaz.layers.swaps import frozen, label_head
from riyaz.methods import full, lora, prompt_tuning
from riyaz.methods.fitting import weights
from riyaz.methods.fitting.base import Context, Fitted, instruction_only
from riyaz.methods.fitting.choices import choose
from riyaz.methods.fitting.label_rows import answers_as_labels, put_label_head, with_label_head
from riyaz.methods.fitting.learning_rate import chosen
from riyaz.models import load
from riyaz.predictor import LabelHead, open_target, predictor_for
from riyaz.scoring import REOPEN_ROWS
from riyaz.train import TrainPlan, TrainState, answer_nats, as_good, label_log_p, label_places, train, validate

pytestmark = pytest.mark.usefixtures("in_float32")
SAME = 1e-4  # nats from the training code to the engine, both in float32
TRAINED = {"prompt_tuning": prompt_tuning, "lora": lora, "full": full}


@pytest.fixture
def context(model_folder: Path, tmp_path: Path) -> Context:
    return fit_context(model_folder, tmp_path)


def headed(context: Context):
    """The base with a head of the labels, all of it trainable, and rows whose answers are labels."""
    model = with_label_head(context, full.build)(context)
    return model, weights.rows_for(context, context.train)


def written(context: Context, fitted: Fitted, folder: Path) -> Path:
    source = context.source
    base = BaseModel(source.name, str(source.path), source.sha256(), 1, context.tokenizer.template)
    document = Artifact("lora", fitted.text, fitted.weights, base, context.task, fitted.calibrated)
    artifacts.write(folder, document, fitted.files)
    return folder


# training


def test_a_head_begins_as_the_means_of_the_rows_of_its_labels_texts(context: Context, monkeypatch) -> None:
    model = load(context.source, torch.float32)
    rows = model.lm_head.weight
    assert rows is model.model.embed_tokens.weight, "a tied head"
    texts = context.tokenizer.answer_ids(list(TASK.labels))
    wanted = torch.stack([rows[tokens[:-1]].mean(0) for tokens in texts])
    labelled = put_label_head(context, model)
    assert torch.allclose(labelled.label_head.weight, wanted, atol=1e-6) and labelled.label_head.weight.requires_grad
    assert (
        np.allclose(labelled.rows(), wanted, atol=1e-6) and labelled.base is model and labelled.lm_head.weight is rows
    )
    monkeypatch.setenv("RIYAZ_FROZEN", "int8")
    coded = load(context.source, torch.float32)
    frozen.encode(coded)
    if frozen.is_coded(coded):
        assert torch.allclose(put_label_head(context, coded).label_head.weight, wanted, atol=0.02)


def test_labels_are_scored_by_their_head_and_text_beside_them_by_the_models(context: Context) -> None:
    model, rows = headed(context)
    V, named = model.config.vocab_size, dict(enumerate(TASK.labels))
    assert [named[row.answer[0] - V] for row in rows] == [row.example.answer for row in rows if row.example]
    text = [Row(row.prompt, (5, 9, 2)) for row in rows[:3]]
    log_p, places = label_log_p(model, rows, 64), label_places(model, rows)
    assert np.allclose(np.exp(log_p).sum(1), 1, atol=1e-5)
    nats = -log_p[np.arange(len(rows)), places]
    assert answer_nats(model, pack(rows)).item() == pytest.approx(nats.sum(), abs=1e-3)
    both = answer_nats(model, pack([*rows, *text]))
    assert both.item() == pytest.approx(nats.sum() + answer_nats(model, pack(text)).item(), abs=1e-3)
    both.backward()
    assert model.label_head.weight.grad.abs().sum() > 0 and model.lm_head.weight.grad.abs().sum() > 0
    judged = validate(model, rows, 64)
    assert 0 < judged.pop("calibrated_loss") <= judged["valid_loss"] + 1e-2
    assert judged == pytest.approx({"valid_loss": nats.mean(), "valid_accuracy": (log_p.argmax(1) == places).mean()})


def test_a_head_learns_at_its_own_pace(context: Context) -> None:
    texts = [tokens[:-1] for tokens in context.tokenizer.answer_ids(list(TASK.labels))]
    for pace in (1.0, 0.25):
        model = label_head.attach(load(context.source, torch.float32), texts, pace)
        rows = weights.rows_for(context, context.train)
        before, nats = model.rows(), answer_nats(model, pack(rows)).item()
        if pace == 1:
            wanted, first = before, nats
        assert np.allclose(before, wanted, atol=1e-6) and nats == pytest.approx(first, abs=1e-3)
        plan = TrainPlan(steps=1, learning_rate=1e-3, batch_size=24, compute="float32")
        train(model, rows, rows[:2], plan, context.folder / str(pace), lambda _: None)
        assert np.abs(model.rows() - before).max() == pytest.approx(pace * 1e-3, rel=0.01)


def test_a_head_that_is_too_sure_has_a_low_calibrated_loss(context: Context) -> None:
    model, rows = headed(context)
    first = validate(model, rows, 1024)
    with torch.no_grad():
        model.label_head.weight *= 50.0
    sure = validate(model, rows, 1024)
    assert sure["valid_loss"] > 2 * first["valid_loss"] and sure["valid_accuracy"] == first["valid_accuracy"]
    assert sure["calibrated_loss"] == pytest.approx(first["calibrated_loss"], abs=1e-2)
    assert sure["calibrated_loss"] <= first["valid_loss"] + 1e-2


def test_the_latest_validation_within_an_error_of_the_highest_accuracy_is_kept(context: Context, monkeypatch) -> None:
    results = [(0.5, 1.0), (0.7, 2.0), (0.65, 2.5), (0.5, 0.1), (0.3, 0.1)]
    model, rows = headed(context)
    assert 0.05 < (0.7 * 0.3 / len(rows)) ** 0.5 < 0.2
    seen = iter(results)

    def judged(*_: object) -> dict[str, float]:
        accuracy, loss = next(seen)
        return {"valid_loss": 5.0, "valid_accuracy": accuracy, "calibrated_loss": loss}

    monkeypatch.setattr(training, "validate", judged)
    plan = TrainPlan(steps=5, learning_rate=1e-3, batch_size=2, validate_every=1, compute="float32")
    kept: list[torch.Tensor] = []
    state = train(model, rows, rows, plan, context.folder / "run", lambda _: None,
                  after_validation=lambda step: kept.append(model.label_head.weight.detach().clone()))  # fmt: skip
    assert (state.best_step, state.best_accuracy, state.best_loss, state.worse) == (3, 0.65, 2.5, 2)
    assert torch.equal(model.label_head.weight, kept[2]) and not torch.equal(kept[2], kept[4])
    assert [entry["valid_accuracy"] for entry in state.history] == [accuracy for accuracy, _ in results]


@pytest.mark.parametrize(
    ("highest", "accuracy", "loss", "kept"),
    [(0.7, 0.7, 9.0, True), (0.7, 0.61, 9.0, True), (0.7, 0.6, 0.1, False), (0.7, 0.0, 0.1, False),
     (0.0, 0.0, 1.0, True), (0.0, 0.0, 3.0, False), (1.0, 1.0, 9.0, True), (1.0, 0.99, 0.1, False)],
)  # fmt: skip
def test_which_validation_is_as_good(highest: float, accuracy: float, loss: float, kept: bool) -> None:
    before = [{"loss": 1.0}, {"loss": 1.0, "valid_accuracy": highest}, {"loss": 1.0, "valid_accuracy": highest / 2}]
    assert as_good(loss, accuracy, TrainState(best_loss=2.0, best_accuracy=highest, history=before), 25) == kept


def test_of_rates_those_within_an_error_of_the_highest_accuracy_are_compared_by_loss() -> None:
    places = np.arange(100)
    much, little, least = places < 20, places < 2, places == 50  # rows that are answered wrong
    nats = {1e-4: np.full(100, 0.2), 2e-4: np.full(100, 0.5), 4e-4: np.linspace(0.29, 0.31, 100)}
    tokens = np.ones(100, int)
    rate, record = chosen(nats, tokens, {1e-4: much, 2e-4: least, 4e-4: little})
    assert rate == 4e-4, "the first is less accurate, the second's loss is higher"
    assert [entry["accuracy"] for entry in record] == [0.8, 0.99, 0.98]
    assert chosen(nats, tokens, {1e-4: little, 2e-4: least, 4e-4: little})[0] == 1e-4
    assert chosen(nats, tokens)[0] == 1e-4


# the artifact


@pytest.mark.parametrize("method", TRAINED)
def test_an_artifact_scores_labels_as_its_training_did(
    method: str, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIYAZ_FROZEN", "exact")  # what is served has no codes
    context = replace(context, arm=replace(PLAN, method=method), precision="fp32")
    fitted = TRAINED[method].fit(context)
    assert fitted.weights.label_head and fitted.valid_loss is not None
    assert all("valid_accuracy" in entry for entry in fitted.curve if "valid_loss" in entry)
    folder = written(context, fitted, tmp_path / "artifact")
    predictor = open_target(folder, precision="fp32")
    rows = context.valid
    log_p = predictor.label_scores([row.messages for row in rows])
    own = [TASK.labels.index(row.answer) for row in rows]
    (trained,) = [entry for entry in fitted.curve if entry["step"] == fitted.chosen["best_step"]]
    assert -log_p[np.arange(len(rows)), own].mean() == pytest.approx(trained["valid_loss"], abs=SAME)
    assert fitted.temperature is not None
    calibrated = log_softmax(log_p / fitted.temperature, axis=1)[np.arange(len(rows)), own][:REOPEN_ROWS]
    assert -calibrated.mean() == pytest.approx(fitted.valid_loss, abs=SAME)
    answers = predictor.answers([row.messages for row in rows])
    for answer, scores, row in zip(answers, log_p, rows, strict=True):
        best, second = np.argsort(-scores)[:2]
        assert (answer.text, answer.runner_up) == (TASK.labels[best], TASK.labels[second])
        assert answer.confidence == pytest.approx(np.exp(scores[best]), abs=1e-4) and len(answer.probabilities) == 3
        (alone,) = predictor.answers([row.messages])
        assert alone == answer and np.array_equal(alone.probabilities, answer.probabilities)
        assert predictor.stream(row.messages).pieces.__next__() == answer.text
    assert not hasattr(predictor.lm.runner, "model") or predictor.base().head is None


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_refit_learns_the_validation_rows_too_and_keeps_their_temperature(
    method: str, context: Context, tmp_path: Path
) -> None:
    arm, fit, context = replace(PLAN, method=method), TRAINED[method].fit, replace(context, precision="fp32")
    once = fit(replace(context, arm=arm, folder=tmp_path / "once"))
    runs: list[tuple[int, int, int]] = []

    def seen(model: Any, rows: Sequence[Row], valid: Sequence[Row], plan: TrainPlan, *rest: Any, **options: Any) -> Any:
        runs.append((len(rows), len(valid), plan.steps))
        return train(model, rows, valid, plan, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train", seen)
        twice = fit(replace(context, arm=replace(arm, refit=True), folder=tmp_path / "twice"))
    steps = -(-once.chosen["best_step"] * 33 // 24)
    assert runs[-1] == (33, 0, steps) and runs[-2][:2] == (24, 9) and twice.chosen["refit_steps"] == steps
    assert (twice.temperature, twice.valid_score, twice.curve) == (once.temperature, once.valid_score, once.curve)
    heads = [LabelHead.read(fitted.files[LABELS], 3, 64).weight for fitted in (once, twice)]
    assert np.abs(heads[0] - heads[1]).max() > 1e-4
    assert (twice.valid_loss, once.refit_loss) == (once.valid_loss, None) and twice.refit_loss != twice.valid_loss
    predictor = open_target(written(context, twice, tmp_path / "artifact"), precision="fp32")
    log_p = log_softmax(predictor.label_scores([row.messages for row in context.valid]) / twice.temperature, axis=1)
    own = [TASK.labels.index(row.answer) for row in context.valid]
    assert -log_p[np.arange(9), own][:REOPEN_ROWS].mean() == pytest.approx(twice.refit_loss, abs=SAME)
    assert {path.name for path in (tmp_path / "twice").iterdir()} == {
        path.name for path in (tmp_path / "once").iterdir()
    }


@pytest.mark.parametrize("limit", [0.0, 1e-6])
def test_a_refit_without_time_or_that_diverges_leaves_the_first_run(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    arm = replace(PLAN, learning_rates=(1e-3,))
    once = lora.fit(replace(context, arm=arm, folder=tmp_path / "once"))
    if not limit:
        monkeypatch.setattr(training, "train", lambda model, rows, valid, *rest, **options: (
            train(model, rows, valid, *rest, **options) if valid else diverging()))  # fmt: skip
    monkeypatch.setattr(weights, "paced", lambda context, plan: (plan, None))
    arm = replace(arm, refit=True, train_limit=limit)
    twice = lora.fit(replace(context, arm=arm, folder=tmp_path / "twice"))
    assert "refit_steps" not in twice.chosen and twice.refit_loss is None
    for name in (LABELS, "adapter_model.safetensors"):
        assert twice.files[name].read_bytes() == once.files[name].read_bytes()


def diverging() -> None:
    raise training.Diverged("the loss is nan")


def test_a_refit_that_is_stopped_goes_on_to_the_same_weights(context: Context, tmp_path: Path) -> None:
    arm = replace(PLAN, refit=True, learning_rates=(1e-3,), checkpoint_every=3)
    whole = lora.fit(replace(context, arm=arm, folder=tmp_path / "whole"))
    done = iter(range(whole.chosen["steps"] + 4))

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "train" and next(done, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lora.fit(replace(context, arm=arm, folder=tmp_path / "stopped", listen=listen))
    assert (tmp_path / "stopped/refit").is_dir()
    again = lora.fit(replace(context, arm=arm, folder=tmp_path / "stopped"))
    for name in (LABELS, "adapter_model.safetensors"):
        assert again.files[name].read_bytes() == whole.files[name].read_bytes()


def test_general_text_is_rehearsed_by_the_models_own_head(context: Context) -> None:
    fitted = lora.fit(replace(context, replay=0.3, arm=replace(PLAN, learning_rates=(1e-3,))))
    assert fitted.weights.label_head and fitted.checks["step0_loss"]["ok"]


def test_labels_whose_texts_have_the_same_tokens_are_told_apart(context: Context) -> None:
    task = replace(TASK, labels=("Billing", "billing", "delivery", "refund"))
    texts = context.tokenizer.answer_ids(["billing"] * 2 + ["delivery", "refund"])
    alike = replace(context, task=task, prompt_text=instruction_only(task))
    alike.tokenizer.answer_ids = lambda labels: texts if len(labels) == 4 else type(alike.tokenizer).answer_ids(
        alike.tokenizer, labels
    )  # fmt: skip
    model = with_label_head(alike, full.build)(alike)
    assert torch.equal(model.label_head.weight[0], model.label_head.weight[1])
    prompted = alike.prompt_text.read_by(alike.tokenizer, open_engine(alike.source, "fp32"))
    predictor = predictor_for(replace(prompted, head=LabelHead(model.rows())))
    (answer,) = predictor.answers([examples(1, "please")[0].messages])
    assert answer.text in task.labels


def test_a_head_of_one_label_is_sure_of_it(context: Context) -> None:
    prompted = context.prompt_text.read_by(context.tokenizer, open_engine(context.source, "fp32"))
    one = replace(prompted, task=replace(TASK, labels=("refund",)), head=LabelHead(np.ones((1, 64), np.float32)))
    (answer,) = predictor_for(one).answers([examples(1, "please")[0].messages])
    assert (answer.text, answer.confidence, answer.runner_up) == ("refund", 1.0, None)


def test_a_head_is_judged_on_all_validation_rows(context: Context) -> None:
    context = replace(context, valid_rows=4, arm=replace(PLAN, learning_rates=(1e-3,)))
    seen: list[int] = []
    real = weights.choose

    def counting(given: Context, candidates):
        seen.append(given.valid_rows)
        return real(given, candidates)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "choose", counting)
        fitted = lora.fit(context)
    assert seen == [9] and fitted.valid_score in [n / 9 for n in range(10)]
    assert json.loads(json.dumps(fitted.chosen["search"])) == []
    assert choose is real and LABELS in fitted.files
    assert answers_as_labels(replace(context, task=replace(TASK, kind="free")), []) == []
