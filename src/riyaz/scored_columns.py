"""What the scores of all rows are made of, as columns of numbers: no text of a row is held but the name of its slice.

A row takes 4 to 8 bytes for its score, 16 for accuracy's label and prediction, 16 for a confidence with its Brier score
and log-loss, 8 for a group, 8 for each second metric, and 8 and 4 for each choice of a question.
"""

from array import array
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from riyaz.data.questions import Question
from riyaz.data.task import Task
from riyaz.data.text_keys import text_key
from riyaz.metrics import decisions
from riyaz.metrics import scores as metrics
from riyaz.metrics.compact import Compact
from riyaz.metrics.groups import numbers_of
from riyaz.predictor import Reward
from riyaz.results import Answer, Calibration, DecidedAnswer, QuestionScore, SliceScore
from riyaz.scoring import calibration, numbered_slice_scores, question_score, thumb_points

_key = lru_cache(maxsize=4096)(text_key)
ALONE = -1  # the key of no group, the place of no slice


@dataclass(frozen=True)
class ScoredRow:
    """A row's answer with its score; by the metric `thumbs`, whose points depend on all rows, the answer's reward and
    whether it is a good one."""

    answer: Answer
    reward: Reward | None = None
    desirable: bool | None = None


class ScoredColumns:
    """The columns of the rows that are added, of one task."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.count = 0
        self.nats = Compact()  # of accepted answers, where they have one
        self._scores, self._extras = Compact(), dict[str, Compact]()
        self._confidence, self._brier, self._right_p = Compact(), Compact(), Compact()
        self._rewards, self._desirable = Compact(), Compact()
        self._predicted, self._true, self._groups, self._slices = array("q"), array("q"), array("q"), array("i")
        self._slice_names: dict[str, int] = {}
        self._questions = [_QuestionColumns(question) for question in task.questions]

    def add(self, row: ScoredRow) -> None:
        """Add the next row."""
        answer = row.answer
        self._add_common(answer)
        if self.task.metric == "thumbs":
            assert row.reward is not None, "each has one by this metric"
            self._rewards.append((row.reward.own, row.reward.other))
            self._desirable.append(bool(row.desirable))
        if self.task.kind == "questions":
            for column, decided in zip(self._questions, answer.decided or []):
                column.add(self.count, decided)
        elif self.task.metric == "accuracy":
            predicted, true = metrics.label_pair(answer.prediction, answer.answers)
            self._predicted.append(_key(predicted))
            self._true.append(_key(true))
        else:
            for name, value in (answer.extras or {}).items():
                self._extras.setdefault(name, Compact()).append(value)
        self.count += 1

    def _add_common(self, answer: Answer) -> None:
        self._scores.append(np.nan if answer.score is None else answer.score)
        values = (answer.confidence, answer.brier, answer.right_probability, answer.answer_log_probability)
        for column, value in zip((self._confidence, self._brier, self._right_p, self.nats), values):
            if value is not None:
                column.append(value)
        if answer.group is not None and not self._groups:
            self._groups = array("q", [ALONE]) * self.count
        if self._groups or answer.group is not None:
            self._groups.append(ALONE if answer.group is None else _key(answer.group))
        if answer.slice is not None and not self._slices:
            self._slices = array("i", [ALONE]) * self.count
        if self._slices or answer.slice is not None:
            names = self._slice_names
            self._slices.append(ALONE if answer.slice is None else names.setdefault(answer.slice, len(names)))

    def row_scores(self) -> np.ndarray:
        """The score (n,) of every row, of which the mean is taken."""
        if self.task.kind == "questions":
            return decisions.row_scores(np.stack([column.points.values() for column in self._questions], axis=1))
        if self.task.metric == "thumbs":
            return thumb_points(self._rewards.values(), self._desirable.values() > 0)
        return self._scores.values()

    def groups(self) -> np.ndarray | None:
        """The number (n,) of each row's group; None where no two rows share one."""
        return numbers_of(_numbers(self._groups)) if self._groups else None

    def extras(self) -> dict[str, float]:
        """The second metrics, once: macro-F1 for accuracy, else the means over the rows that have them."""
        if self.task.kind == "questions":
            return {}
        if self.task.metric == "accuracy":
            extras = {"macro_f1": metrics.macro_f1_of_keys(_numbers(self._predicted), _numbers(self._true))}
            self._predicted, self._true = array("q"), array("q")  # the rest needs their memory
            return extras
        return {name: float(np.mean(column.values())) for name, column in self._extras.items()}

    def slices(self, rows: np.ndarray, groups: np.ndarray | None) -> dict[str, SliceScore]:
        """The mean of the scores `rows` (n,) of each slice."""
        if not self._slices:
            return {}
        return numbered_slice_scores(rows, np.frombuffer(self._slices, np.int32), [*self._slice_names], groups)

    def calibration(self, groups: np.ndarray | None) -> Calibration | None:
        """How true the confidences of the answers are; None where one has none."""
        confidence = self._confidence.values()
        if len(confidence) < self.count or np.isnan(confidence).any():
            return None
        return calibration(confidence, self._scores.values() == 1, groups, self._brier, self._right_p)

    def questions(self) -> list[QuestionScore] | None:
        """How the answers to each question score; None for another task."""
        if self.task.kind != "questions":
            return None
        return [column.score(_numbers(self._groups)) for column in self._questions]


class _QuestionColumns:
    """The answers to one question: the points (n,) of every row, NaN where the right answer is not known, and of the
    rows where it is their number, the place of the right choice and the probability of each choice."""

    def __init__(self, question: Question) -> None:
        self.question, self.points = question, Compact()
        self._rows, self._right, self._p = array("i"), array("i"), Compact()

    def add(self, row: int, decided: DecidedAnswer) -> None:
        """Add the answer of a row."""
        self.points.append(np.nan if decided.points is None else decided.points)
        if decided.right is not None:
            self._rows.append(row)
            self._right.append(decided.right)
            self._p.append(decided.probabilities)

    def score(self, group_keys: np.ndarray) -> QuestionScore:
        """The scores, where the rows have these keys of groups, (n,) or (0,)."""
        rows, right = _numbers(self._rows), _numbers(self._right)
        groups = numbers_of(group_keys[rows]) if len(group_keys) and len(rows) else None
        return question_score(self.question, self.points.values()[rows], self._p, right, groups)


def _numbers(column: "array[int]") -> np.ndarray:
    """A column of whole numbers as an array on the same memory."""
    return np.frombuffer(column, column.typecode) if column else np.zeros(0, column.typecode)
