"""Answering with a classifier: the label with the highest probability, without a language model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from riyaz.artifact import TextPart
from riyaz.classifiers import Classifier
from riyaz.data import Message
from riyaz.data.task import Task
from riyaz.engine import counted
from riyaz.engine.request import GREEDY, Sampling
from riyaz.predictor.prediction import Prediction, Stream, label_prediction

BATCH = 256  # texts classified together


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassifierPredictor:
    """Answers the last message with the likeliest label of the task. `max_tokens` and `sampling` are accepted, as by
    the other kinds, and ignored."""

    answers_are: ClassVar[str] = "chosen from labels"
    has_model: ClassVar[Literal[False]] = False
    has_labels: ClassVar[Literal[True]] = True
    has_questions: ClassVar[Literal[False]] = False
    from_set: ClassVar[bool] = True
    served: ClassVar[None] = None
    context: ClassVar[None] = None

    classifier: Classifier
    task: Task
    text: TextPart = field(default_factory=TextPart)  # the artifact's; unused, as a classifier reads no prompt

    def answer(self, messages: Sequence[Message], max_tokens: int | None = None, sampling: Sampling = GREEDY) -> str:
        """The likeliest label of one conversation."""
        return self.answers([messages])[0].text

    def answers(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = (), *,
        max_tokens: int | None = None, sampling: Sampling = GREEDY,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Prediction]:  # fmt: skip
        """The likeliest label of each conversation, in order; `progress` is called with (done, total)."""
        tell, predictions = counted(progress, len(conversations)), []
        texts = [messages[-1]["content"] for messages in conversations]
        for first in range(0, len(texts), BATCH):
            probabilities = self.classifier.probabilities(texts[first : first + BATCH])
            predictions += [label_prediction(self.task.labels, row, row) for row in probabilities]
            tell(len(probabilities))
        return predictions

    def stream(
        self, messages: Sequence[Message], *, max_tokens: int | None = None, sampling: Sampling = GREEDY
    ) -> Stream:
        """The answer as a stream of one piece."""
        return Stream(iter([self.answer(messages)]))
