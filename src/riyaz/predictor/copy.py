"""Answering by copying the answer of the example whose prompt is nearest to the question, without a model.

In a closed set a label's score is the similarity of its nearest example, so that the answer is the label with the
highest; with a temperature their softmax is the probability that each is right.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from riyaz.artifact import TextPart
from riyaz.data import Example, Message
from riyaz.data.task import Task
from riyaz.engine import counted
from riyaz.engine.request import GREEDY, Sampling
from riyaz.metrics.calibration import probabilities
from riyaz.predictor.example_index import ExampleIndex
from riyaz.predictor.prediction import Prediction, Stream, label_prediction


@dataclass(frozen=True, eq=False, kw_only=True)
class CopyPredictor:
    """Copies answers from `examples`, which must not be empty. `max_tokens` and `sampling` are accepted, as by the
    other kinds, and ignored."""

    answers_are: ClassVar[str] = "copied"
    has_model: ClassVar[Literal[False]] = False
    has_labels: ClassVar[Literal[False]] = False
    from_set: ClassVar[bool] = True
    served: ClassVar[None] = None
    context: ClassVar[None] = None

    examples: tuple[Example, ...]
    task: Task | None = None
    text: TextPart = field(default_factory=TextPart)  # the artifact's; unused, as a copied answer has no prompt
    temperature: float | None = None  # of the labels' scores; None: answers have no confidence

    def answer(self, messages: Sequence[Message], max_tokens: int | None = None, sampling: Sampling = GREEDY) -> str:
        """The answer of the nearest example."""
        return self._index.nearest(messages, 1)[0].answer

    def answers(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = (), *,
        max_tokens: int | None = None, sampling: Sampling = GREEDY,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Prediction]:  # fmt: skip
        """The nearest example's answer to each conversation, in order; `progress` is called with (done, total)."""
        tell, answers = counted(progress, len(conversations)), []
        for messages in conversations:
            answers.append(self._copied(messages))
            tell(1)
        return answers

    def stream(
        self, messages: Sequence[Message], *, max_tokens: int | None = None, sampling: Sampling = GREEDY
    ) -> Stream:
        """The answer as a stream of one piece."""
        return Stream(iter([self.answer(messages)]))

    def label_scores(self, conversations: Sequence[Sequence[Message]]) -> np.ndarray:
        """The scores (n, L) whose softmax at a temperature is the probability of each label; 0 for one without an
        example."""
        assert self.task is not None
        place = {label: i for i, label in enumerate(self.task.labels)}
        labels = np.array([place[example.answer] for example in self.examples])
        scores = np.zeros((len(conversations), len(place)))
        for row, messages in zip(scores, conversations):
            np.maximum.at(row, labels, self._index.similarities(messages))
        return scores

    def _copied(self, messages: Sequence[Message]) -> Prediction:
        answer = self.answer(messages)
        if self.temperature is None or self.task is None:
            return Prediction(answer)
        scores = self.label_scores([messages])
        prediction = label_prediction(self.task.labels, scores[0], probabilities(scores, self.temperature)[0])
        if prediction.text != answer:  # both are equally near, and equally likely
            prediction = replace(prediction, text=answer, runner_up=prediction.text)
        return prediction

    @cached_property
    def _index(self) -> ExampleIndex:
        return ExampleIndex(self.examples)
