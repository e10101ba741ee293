"""Scores from columns of numbers are those from all rows in memory, to the last bit."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from riyaz.data.questions import Choice, Question
from riyaz.data.task import Task
from riyaz.json_files import json_line, parse_json
from riyaz.metrics import calibration as calibrations
from riyaz.metrics import decisions
from riyaz.metrics import scores as metrics
from riyaz.metrics.compact import BLOCK, Compact
from riyaz.metrics.groups import group_numbers, numbers_of, within
from riyaz.metrics.intervals import interval
from riyaz.predictor import Reward
from riyaz.results import Answer, DecidedAnswer, FileFacts, TargetScores
from riyaz.scored_columns import ScoredColumns, ScoredRow
from riyaz.scoring import calibration_of, question_scores, slice_scores, thumbs
from riyaz.target_scores import Measured, TargetFacts, target_scores

MEASURED = Measured(1.5, 7.0, 99.0, "int8")
FACTS = TargetFacts("m", FileFacts("f", "0", "text,label"), Task("free", (), "rouge_l", "", ""), "say", 3)
QUESTIONS = (
    Question("urgent", "predicate", "Urgent?", column="urgent"),
    Question("team", "choice", "Who?", (Choice("a"), Choice("b"), Choice(True)), "team"),
    Question("mood", "score", "How?", (Choice("low"), Choice("mid"), Choice("high")), "mood"),
)
TASKS = {
    "accuracy": Task("closed", ("x", "y"), "accuracy", "", ""),
    "written": Task("free", (), "rouge_l", "", ""),
    "nats": Task("free", (), "nats", "", ""),
    "thumbs": Task("free", (), "thumbs", "", ""),
    "questions": Task("questions", (), "decisions", "", "", QUESTIONS),
}


def slow_scores(facts: TargetFacts, scored: Sequence[ScoredRow], measured: Measured) -> TargetScores:
    """The scores of rows that are all in memory."""
    task, answers = facts.task, [row.answer for row in scored]
    groups = group_numbers([answer.group for answer in answers])
    if task.kind == "questions":
        decided = [row.answer.decided or [] for row in scored]
        rows = decisions.row_scores(np.array([[each.points for each in row] for row in decided], float))
    elif task.metric == "thumbs":
        rows = thumbs([row.reward for row in scored if row.reward], scored)
    else:
        rows = np.array([row.answer.score for row in scored], float)
    low, high = interval(rows, groups)
    nats = [answer.answer_log_probability for answer in answers if answer.answer_log_probability is not None]
    extras = {"answer_log_probability": float(np.mean(nats))} if nats else {}
    if task.kind != "questions":
        texts, accepted = [answer.prediction for answer in answers], [answer.answers for answer in answers]
        own = [answer.extras or {} for answer in answers]
        slow = {"macro_f1": slow_macro_f1(texts, accepted)} if task.metric == "accuracy" else None
        extras = (slow or metrics.extras(task.metric, texts, accepted, own)) | extras
    return TargetScores(
        target=facts.target, test=facts.test, task=task.kind, metric=task.metric, instruction=facts.instruction,
        score=float(rows.mean()), ci_low=low, ci_high=high, n_test=len(rows),
        extras={**extras}, slices=slice_scores(rows, [answer.slice for answer in answers], groups),
        ms_per_answer=measured.ms_per_answer, prompt_tokens=measured.prompt_tokens, peak_rss_mb=measured.peak_rss_mb,
        trained_rows=facts.trained_rows, served=measured.served, calibration=calibration_of(answers),
        n_groups=None if groups is None else int(groups.max()) + 1, questions=question_scores(task, answers),
    )  # fmt: skip


def slow_macro_f1(predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> float:
    predicted = [text.strip() for text in predictions]
    accepted = [[answer.strip() for answer in row] for row in answers]
    true = [p if p in row else row[0] for p, row in zip(predicted, accepted, strict=True)]
    hits = Counter(t for p, t in zip(predicted, true) if p == t)
    called, support = Counter(predicted), Counter(true)
    return float(np.mean([2 * hits[t] / (called[t] + support[t]) for t in support]))


def made(case: str, count: int, seed: int) -> list[ScoredRow]:
    """Rows of a task; some have a group, a slice, a confidence."""
    draw, rows = np.random.default_rng(seed), []
    grouped, sliced, sure = (bool(draw.integers(2)) for _ in range(3))
    for n in range(count):
        score = float(draw.integers(2)) if case == "accuracy" else float(draw.integers(7)) / 6
        answer = Answer(
            f"f:{n}", "p", [["x", "y", " z"][draw.integers(3)], "y"], ["x ", "y", "z", "w"][draw.integers(4)], score
        )
        if grouped and draw.random() < 0.8:
            answer = replace(answer, group=f"g{draw.integers(count // 3 + 1)}")
        if sliced and draw.random() < 0.7:
            answer = replace(answer, slice="bca"[draw.integers(3)])
        if case == "accuracy":
            p = float(np.float32(draw.random()))
            answer = replace(answer, confidence=p if sure else None, right_probability=p, brier=float(draw.random()))
        if case == "nats":
            answer = replace(answer, score=-float(draw.random()), answer_log_probability=-9 * float(draw.random()))
        if case in ("written", "nats"):
            extras = {"chrf": float(draw.random()), **({"slots": 0.5} if draw.random() < 0.3 else {})}
            answer = replace(answer, extras=extras)
        if case == "questions":
            answer = replace(answer, decided=[decided(len(each.choices), draw) for each in QUESTIONS])
        gains = Reward(*draw.integers(-2, 3, 2).astype(float).tolist()) if case == "thumbs" else None
        rows.append(ScoredRow(answer, gains, bool(draw.integers(2)) if gains else None))
    return rows


def decided(choices: int, draw: np.random.Generator) -> DecidedAnswer:
    p = draw.random(choices)
    right = int(draw.integers(choices)) if draw.random() < 0.8 else None
    points = None if right is None else float(draw.integers(2))
    return DecidedAnswer(right, points, [round(each, 6) for each in (p / p.sum()).tolist()])


@pytest.mark.parametrize("case", TASKS)
def test_scores_are_those_of_rows_in_memory(case: str) -> None:
    facts = replace(FACTS, task=TASKS[case])
    for seed, count in enumerate([1, 2, 7, 40, 300, BLOCK + 5]):
        rows = made(case, count, seed)
        columns = ScoredColumns(facts.task)
        for row in rows:
            columns.add(row)
        fast, slow = (
            json_line(f(facts, given, MEASURED)) for f, given in ((target_scores, columns), (slow_scores, rows))
        )  # type: ignore[operator]
        assert fast == slow, count


def test_numbers_are_held_exactly() -> None:
    draw = np.random.default_rng(0)
    for values in (
        draw.random(3), draw.random(BLOCK).astype(np.float32), draw.integers(0, 2, 3 * BLOCK + 1) / 1.0,
        np.round(draw.random(5000), 6), np.array([1e300, -np.inf, np.nan, 5e-324]), np.array([-0.0, 0.1, 2**31 / 1e6]),
        np.round(draw.random((BLOCK + 2, 3)), 6), np.zeros(0),
    ):  # fmt: skip
        column = Compact()
        for row in values.tolist():
            column.append(row)
        for each in column, Compact(values.astype(float)):
            assert np.array_equal(each.values(), values, equal_nan=True) and len(each) == len(values)
    sizes = [
        sum(block.nbytes for block in Compact(values)._blocks) / 9 for values in (np.arange(9), np.arange(9) / 1e3)
    ]
    assert sizes == [4, 4], "bytes of a row"


def test_groups_by_keys_are_numbered_as_by_names() -> None:
    draw = np.random.default_rng(1)
    for count, most in ((1, 1), (9, 3), (200, 400), (200, 5)):
        keys = draw.integers(-1, most, count)
        names = [None if key < 0 else str(key) for key in keys]
        numbers, expected = numbers_of(keys), group_numbers(names)
        assert (numbers is None and expected is None) or np.array_equal(numbers, expected)  # type: ignore[arg-type]
        if expected is not None:
            half = np.arange(0, count, 2)
            some, named = within(expected, half), group_numbers([str(number) for number in expected[half]])
            assert (some is None and named is None) or np.array_equal(some, named)  # type: ignore[arg-type]


def test_simulated_errors_do_not_depend_on_how_many_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(2)
    for confidence in (draw.random(3000), np.round(draw.random(777), 1)):
        bands = []
        for outcomes in (1, 10_000, 10**9):
            monkeypatch.setattr(calibrations, "_OUTCOMES", outcomes)
            bands.append(calibrations.error_by_chance(confidence))
        assert len({*bands}) == 1


def test_a_row_that_went_through_json_is_the_same() -> None:
    (row,) = made("questions", 1, 5)
    assert json.loads(json_line(row)) == parse_json(json_line(row), "")
