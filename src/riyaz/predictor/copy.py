"""Answering by copying the answer of the example whose prompt is nearest to the question, without a model.

In a closed set a label's score is the mean similarity of its nearest examples, one or a few, and the answer is the
label with the highest; with a temperature their softmax is the probability that each is right.
"""

from collections.abc import Callable, Iterator, Sequence
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
from riyaz.predictor.example_index import ExampleIndex, label_means
from riyaz.predictor.prediction import Prediction, Stream, label_prediction

BATCH = 32  # questions whose similarities to all examples are in memory at once


@dataclass(frozen=True, eq=False, kw_only=True)
class CopyPredictor:
    """Copies answers from `examples`, which must not be empty. `max_tokens` and `sampling` are accepted, as by the
    other kinds, and ignored."""

    answers_are: ClassVar[str] = "copied"
    has_model: ClassVar[Literal[False]] = False
    has_labels: ClassVar[Literal[False]] = False
    has_questions: ClassVar[Literal[False]] = False
    from_set: ClassVar[bool] = True
    served: ClassVar[None] = None
    context: ClassVar[None] = None

    examples: tuple[Example, ...]
    task: Task | None = None
    text: TextPart = field(default_factory=TextPart)  # the artifact's; unused, as a copied answer has no prompt
    temperature: float | None = None  # of the labels' scores; None: answers have no confidence
    index: ExampleIndex | None = None  # of the examples; None: by words
    per_label: int = 1  # examples of a label whose similarities make its score

    def answer(self, messages: Sequence[Message], max_tokens: int | None = None, sampling: Sampling = GREEDY) -> str:
        """The answer of the nearest example."""
        return self.answers([messages])[0].text

    def answers(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = (), *,
        max_tokens: int | None = None, sampling: Sampling = GREEDY,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Prediction]:  # fmt: skip
        """The nearest example's answer to each conversation, in order; `progress` is called with (done, total)."""
        tell, answers = counted(progress, len(conversations)), []
        for near in self._similarities(conversations):
            answers.append(self._copied(near))
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
        return np.array([self._label_scores(near) for near in self._similarities(conversations)])

    def _similarities(self, conversations: Sequence[Sequence[Message]]) -> Iterator[np.ndarray]:
        """The similarities (n,) of the examples to the last message of each conversation."""
        texts = [messages[-1]["content"] for messages in conversations]
        for first in range(0, len(texts), BATCH):
            yield from self._index.similarities(texts[first : first + BATCH])

    def _label_scores(self, near: np.ndarray) -> np.ndarray:
        assert self.task is not None
        return label_means(near, self._labels, len(self.task.labels), self.per_label)

    def _copied(self, near: np.ndarray) -> Prediction:
        nearest = self.examples[int(near.argmax())].answer
        if self.temperature is None or self.task is None:
            return Prediction(nearest)
        scores = self._label_scores(near)
        prediction = label_prediction(self.task.labels, scores, probabilities(scores[None], self.temperature)[0])
        if self.per_label == 1 and prediction.text != nearest:  # both are equally near, and equally likely
            prediction = replace(prediction, text=nearest, runner_up=prediction.text)
        return prediction

    @cached_property
    def _labels(self) -> np.ndarray:
        """The number (n,) of each example's label."""
        assert self.task is not None
        place = {label: i for i, label in enumerate(self.task.labels)}
        return np.array([place[example.answer] for example in self.examples])

    @cached_property
    def _index(self) -> ExampleIndex:
        return self.index or ExampleIndex(self.examples)
