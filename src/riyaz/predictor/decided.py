"""The answer to a typed question: the calibrated probability of each of its choices."""

from dataclasses import dataclass, field

import numpy as np

from riyaz.data.questions import Question


@dataclass(frozen=True)
class Decided:
    """A question and the probability of each of its choices, (L,) float32, which sum to 1. `trained` says whether the
    artifact that was trained on this question answered, and not its base without training."""

    question: Question
    probabilities: np.ndarray = field(compare=False)
    trained: bool = False

    @property
    def place(self) -> int:
        """The place of the likeliest choice, of equal ones the first by text, so that their order plays no part."""
        best = np.flatnonzero(self.probabilities == self.probabilities.max()).tolist()
        return int(min(best, key=lambda place: (self.question.labels[place], place)))

    @property
    def answer_place(self) -> int:
        """The place of the answer: the likeliest choice; of a predicate true from a probability of one half on."""
        return int(self.probability < 0.5) if self.question.type == "predicate" else self.place

    @property
    def answer(self) -> str | bool:
        """The value of the answer."""
        return self.question.choices[self.answer_place].value

    @property
    def probability(self) -> float:
        """The probability of the first choice: that a predicate is true."""
        return float(self.probabilities[0])

    @property
    def confidence(self) -> float:
        """The calibrated probability that the answer is right: that of the likeliest choice."""
        return float(self.probabilities.max())

    @property
    def score(self) -> float:
        """The expectation of the level's number, from 0, the lowest, to L − 1."""
        return float(self.probabilities.astype(np.float64) @ np.arange(len(self.probabilities)))
