"""The rows of each question of a task, for methods that fit one part for each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from riyaz.data import Example
from riyaz.data.questions import Question
from riyaz.data.task import Task
from riyaz.metrics.calibration import fit_temperature
from riyaz.metrics.decisions import points
from riyaz.scoring import accepted_labels, right_places


@dataclass(frozen=True)
class QuestionRows:
    """A question, its number, and the rows that answer it, with the place (n,) of each one's choice."""

    number: int | None
    question: Question
    rows: tuple[Example, ...]
    places: np.ndarray

    @property
    def answers(self) -> list[str]:
        """The key of each row's choice."""
        return [self.question.keys[place] for place in self.places]

    def score(self, probabilities: np.ndarray, rows: np.ndarray) -> float:
        """The mean points of the probabilities (m, L) of the choices for the rows (m,) of these numbers."""
        return float(points(self.question.type, probabilities, self.places[rows]).mean())


def question_rows(task: Task, rows: Sequence[Example]) -> list[QuestionRows]:
    """The rows of each question of a task."""
    each = []
    for number, (question, places) in enumerate(zip(task.questions, right_places(task, rows).T)):
        answering = tuple(row for row, place in zip(rows, places) if place >= 0)
        each.append(QuestionRows(number, question, answering, places[places >= 0]))
    return each


@dataclass(frozen=True)
class Part:
    """One question of a task, or its closed set: the number, the keys (L,) of its choices, their columns among those of
    all, the places of the rows that answer it, and which choices (n, L) are right for each row."""

    number: int | None
    keys: tuple[str, ...]
    columns: slice
    known: np.ndarray
    accepted: np.ndarray


def parts_of(task: Task, rows: Sequence[Example]) -> list[Part]:
    """The questions of a task, or its closed set as the only part."""
    if not task.questions:
        every = np.arange(len(rows))
        return [Part(None, task.labels, slice(0, len(task.labels)), every, accepted_labels(task, rows))]
    ends = np.cumsum([len(question.choices) for question in task.questions]).tolist()
    return [
        Part(number, question.keys, slice(end - len(question.choices), end), np.flatnonzero(places >= 0),
             places[:, None] == np.arange(len(question.choices)))
        for number, (question, end, places) in enumerate(zip(task.questions, ends, right_places(task, rows).T))
    ]  # fmt: skip


def fitted_temperatures(task: Task, scores: Sequence[np.ndarray], rows: Sequence[Example]) -> tuple[float, ...]:
    """The temperature of each question with which the probabilities of its choices, from scores (n, L), fit the rows
    that answer it."""
    right = right_places(task, rows)
    accepted = [places[:, None] == np.arange(part.shape[1]) for places, part in zip(right.T, scores)]
    return tuple(fit_temperature(part, known) for part, known in zip(scores, accepted))
