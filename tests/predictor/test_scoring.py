"""Scoring a predictor on rows, the same for validation and test."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_llama
import torch
from small_llama import label_log_probabilities, next_log_p

from riyaz import scoring
from riyaz.artifact import TextPart
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.engine.engine import Engine
from riyaz.engine.torch.runner import TorchRunner
from riyaz.models import load
from riyaz.predictor import ClosedPredictor, CopyPredictor, Prediction
from riyaz.results import SliceScore
from riyaz.sources import open_source

CLOSED = Task("closed", ("billing", "refund"), "accuracy", "Classify the text.", "")
SHORT = Task("short", (), "exact_match", "", "")
FREE = Task("free", (), "rouge_l", "", "")


def rows(*triples: tuple[str, str, str | None]) -> list[Example]:
    return [
        Example(({"role": "user", "content": text},), (answer, "or else"), slice=slice_, where=f"t.jsonl:{i}")
        for i, (text, answer, slice_) in enumerate(triples, 1)
    ]


EXAMPLES = rows(("my card", "billing", "rare"), ("money back", "refund", None), ("the bill", "billing", "often"))


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> ClosedPredictor:
    source = open_source(tiny_llama.write_hf_folder(tmp_path_factory.mktemp("models") / "tiny", seed=1))
    tokenizer = source.tokenizer()
    lm = Engine(TorchRunner(load(source, torch.float32)))
    return ClosedPredictor(text=TextPart("Classify the text."), task=CLOSED, tokenizer=tokenizer, lm=lm)


def test_scores_per_row_slice_and_second_metric() -> None:
    predictions = [Prediction(text) for text in ("billing", "billing", "billing")]
    scores = scoring.score(CLOSED, predictions, EXAMPLES)
    assert scores.rows.tolist() == [1, 0, 1] and scores.mean == pytest.approx(2 / 3)
    assert scores.extras == {"macro_f1": pytest.approx(0.4)}
    assert scores.slices == {"often": SliceScore(1.0, 1), "rare": SliceScore(1.0, 1)}


@pytest.mark.parametrize(("task", "extras"), [(SHORT, ["token_f1"]), (FREE, ["chrf", "length_ratio"])])
def test_any_accepted_answer_counts(task: Task, extras: list[str]) -> None:
    scores = scoring.score(task, [Prediction("Or else."), Prediction("never"), Prediction("billing")], EXAMPLES)
    assert scores.rows.tolist() == [1, 0, 1] and list(scores.extras) == extras


def test_predictions_carry_log_probabilities(predictor: ClosedPredictor) -> None:
    told: list[tuple[int, int]] = []
    quick = scoring.predict(predictor, EXAMPLES, lambda *at: told.append(at))
    full = label_log_probabilities(predictor, [example.messages for example in EXAMPLES])
    assert told[-1] == (3, 3)
    for a, b in zip(quick, full):
        assert a.text == CLOSED.labels[b.argmax()] and a.log_probability == pytest.approx(b.max(), abs=1e-3)


@pytest.mark.parametrize("metric", ["accuracy", "exact_match"])
def test_raw_and_calibrated_scores_are_those_of_the_answers(predictor: ClosedPredictor, metric: str) -> None:
    predictor = replace(predictor, task=replace(CLOSED, metric=metric))
    accepted = [("billing",), ("refund",), ("The Refund!", "billing "), ("refund", "billing"), ("neither",)]
    rows = [replace(EXAMPLES[i % 3], answers=answers) for i, answers in enumerate(accepted * 3)]
    *found, log_p = scoring.score_raw_and_calibrated(predictor, rows)
    label = [row.answer in CLOSED.labels for row in rows]
    assert np.isnan(log_p).tolist() == [not known for known in label] and not all(label)
    wanted = [float(part.sum()) for part in scoring.answer_log_probabilities(predictor, rows)]
    assert log_p[label] == pytest.approx(np.array(wanted)[label], abs=1e-4)
    for calibrated, points in zip((False, True), found, strict=True):
        answers = scoring.predict(replace(predictor, calibrated=calibrated), rows)
        assert points.tolist() == scoring.score(predictor.task, answers, rows).rows.tolist()
    assert 0 < found[0].mean() < 1


def test_answer_log_loss_is_the_mean_over_tokens_of_the_first_answer(predictor: ClosedPredictor) -> None:
    nats: list[float] = []
    for example in EXAMPLES:
        ids = predictor.tokenizer.render(predictor.conversations([example.messages]))[0]
        answer = predictor.tokenizer.answer_ids([example.answer])[0]
        assert answer[-1] == predictor.tokenizer.end_of_turn
        for i, token in enumerate(answer):
            nats.append(-float(next_log_p(predictor.lm, [*ids, *answer[:i]])[token]))
    assert scoring.answer_log_loss(predictor, EXAMPLES) == pytest.approx(np.mean(nats), abs=1e-4)
    assert not CopyPredictor(examples=tuple(EXAMPLES)).has_model, "a copied answer has no loss"


def test_answer_log_loss_is_the_training_loops_validation_loss(predictor: ClosedPredictor) -> None:
    from riyaz.data.rows import encode_rows
    from riyaz.train import answer_loss

    pairs = list(zip(predictor.conversations([example.messages for example in EXAMPLES]), EXAMPLES))
    encoded, _ = encode_rows(predictor.tokenizer, pairs, 1024)
    wanted = answer_loss(predictor.lm.runner.model, encoded)
    assert scoring.answer_log_loss(predictor, EXAMPLES) == pytest.approx(wanted, abs=1e-4)


def test_latency_is_the_median_after_a_warm_up(predictor: ClosedPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Clock:
        """Each answer takes as many seconds as were asked before it."""

        now = 0.0

        def perf_counter(self) -> float:
            return self.now

    clock = Clock()

    def answers(
        self: ClosedPredictor, conversations: list, where: list, max_tokens: int | None = None
    ) -> list[Prediction]:
        clock.now += 100.0 if not asked else len(asked)
        asked.append(where[0])
        return [Prediction("")]

    monkeypatch.setattr(scoring, "time", clock)
    monkeypatch.setattr(ClosedPredictor, "answers", answers)
    assert scoring.latency(predictor, EXAMPLES, n=5) == 3000.0
    assert asked == ["t.jsonl:1", *("t.jsonl:1", "t.jsonl:2", "t.jsonl:3") * 2][:6]


def test_answers_alone_end_when_their_time_is_over(predictor: ClosedPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        """Every look at it is eight seconds later."""

        now = 0.0

        def perf_counter(self) -> float:
            self.now += 8.0
            return self.now

    monkeypatch.setattr(scoring, "time", Clock())
    for seconds, count in ((33.0, 3), (32.0, 2), (0.0, 1)):  # an answer takes eight, and eight pass before each
        answers, milliseconds = scoring.answers_alone(predictor, EXAMPLES, seconds=seconds)
        assert len(answers) == count and milliseconds == [8000.0] * count


def test_latency_of_a_real_answer_is_positive(predictor: ClosedPredictor) -> None:
    assert scoring.latency(replace(predictor, text=TextPart()), EXAMPLES[:1], n=2) > 0
