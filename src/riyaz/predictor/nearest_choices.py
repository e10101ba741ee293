"""The probabilities of a question's choices from the nearest examples, without a model that was trained."""

from collections.abc import Sequence

import numpy as np

from riyaz.data import Example
from riyaz.data.questions import answer_places
from riyaz.data.task import Task
from riyaz.metrics.calibration import probabilities
from riyaz.predictor.example_index import ExampleIndex, label_means


class NearestChoices:
    """The softmax of the choices' scores / temperature: a choice's score is the mean similarity of the nearest
    `per_label` examples that have it as their answer, whose `places` (n,) are −1 where the answer is not known."""

    def __init__(
        self, index: ExampleIndex, places: np.ndarray, choices: int, per_label: int, temperature: float
    ) -> None:
        self._index, self._places, self._choices = index, places, choices
        self._per_label, self._temperature = per_label, temperature

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """(n, L) float32, calibrated; each row sums to 1."""
        near = self._index.similarities(texts)
        scores = [choice_scores(row, self._places, self._choices, self._per_label) for row in near]
        return probabilities(np.stack(scores), self._temperature)


def nearest_choices(
    task: Task, examples: Sequence[Example], index: ExampleIndex, per_label: int, temperatures: Sequence[float]
) -> tuple[NearestChoices, ...]:
    """The classifier of each question of a task, from examples that answer them."""
    rows = [answer_places(task.questions, example.answer) for example in examples]
    columns = [np.array([-1 if place is None else place for place in column]) for column in zip(*rows)]
    return tuple(
        NearestChoices(index, places, len(question.choices), per_label, temperature)
        for question, places, temperature in zip(task.questions, columns, temperatures or [1.0] * len(columns))
    )


def choice_scores(near: np.ndarray, places: np.ndarray, choices: int, per_label: int) -> np.ndarray:
    """The score (L,) of each choice of a question from the similarities (n,) of the examples to a text."""
    known = places >= 0
    return label_means(near[known], places[known], choices, per_label)
