"""Answering the questions of a task: the probability of every choice of each one.

A model with a head of labels reads the input once, and the head scores the choices of all questions; without a head
every question is a fork behind the input. A classifier has one part for each question. Each question has a temperature.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np

from riyaz.artifact import TextPart
from riyaz.classifiers import Classifier
from riyaz.data import Message
from riyaz.data.task import Task
from riyaz.engine import counted
from riyaz.engine.parts import Steps, finished
from riyaz.engine.request import GREEDY, Sampling
from riyaz.metrics.calibration import log_softmax, probabilities
from riyaz.predictor.decided import Decided
from riyaz.predictor.deciding import deciding_counted
from riyaz.predictor.prediction import Prediction, Stream, decided_prediction
from riyaz.predictor.prompt import Prepared, PromptedModel

if TYPE_CHECKING:
    from riyaz.retrieval.search import Hit

LEAST = 1e-12  # a probability whose logarithm is finite
BATCH = 256  # texts classified together
TOGETHER = 16  # conversations about which a model without a head is asked together


@dataclass(frozen=True, eq=False, kw_only=True)
class DecisionModel(PromptedModel):
    """Answers the questions of the task with a language model; `temperatures` (Q,) divide the scores of each question's
    choices, without them by 1. `max_tokens` and `sampling` are accepted, as by the other kinds, and ignored."""

    answers_are: ClassVar[str] = "decisions: the probability of every choice of each question"
    has_labels: ClassVar[Literal[False]] = False
    has_questions: ClassVar[Literal[True]] = True
    from_set: ClassVar[bool] = True
    max_new_tokens: ClassVar[int] = 0

    task: Task = field()
    temperatures: tuple[float, ...] = ()

    def prepare(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = (), *, room: int | None = None,
        passages: "Sequence[Sequence[Hit]] | None" = None, sampling: Sampling = GREEDY, tools: Sequence[dict] = (),
    ) -> list[Prepared]:  # fmt: skip
        """Prompts with the task's instruction, each with the conversation that it was made from."""
        prepared = super().prepare(
            conversations, where, room=room or 1, passages=passages, sampling=sampling, tools=tools
        )
        return [replace(each, messages=tuple(messages)) for each, messages in zip(prepared, conversations)]

    def answer(self, messages: Sequence[Message], max_tokens: int | None = None, sampling: Sampling = GREEDY) -> str:
        """The answers to the questions about one conversation, as JSON."""
        return self.answers([messages])[0].text

    def answers(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = (), *,
        max_tokens: int | None = None, sampling: Sampling = GREEDY,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Prediction]:  # fmt: skip
        """The answers to the questions about each conversation, in order; `progress` is called with (done, total)."""
        prepared = self.prepare(conversations, where)
        return finished(self._choosing(prepared, counted(progress, len(prepared))))

    def stream(
        self, messages: Sequence[Message], *, max_tokens: int | None = None, sampling: Sampling = GREEDY,
        passages: "Sequence[Hit] | None" = None,
    ) -> Stream:  # fmt: skip
        """The answers as a stream of one piece."""
        prepared = self.prepare([messages], passages=None if passages is None else [passages])
        return Stream(iter([finished(self._choosing(prepared))[0].text]), prepared[0].passages)

    def chooser(self, prepared: Prepared) -> Self:
        """This predictor: it decides every answer."""
        return self

    def choosing(self, prepared: Sequence[Prepared]) -> Steps[list[Prediction]]:
        """The answers to each prepared conversation, in parts."""
        return self._choosing(prepared)

    def question_scores(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = ()
    ) -> list[np.ndarray]:
        """For each question the scores (n, L) whose softmax at its temperature are the probabilities of its choices."""
        return finished(self._scoring(self.prepare(conversations, where)))

    def _choosing(
        self, prepared: Sequence[Prepared], tell: Callable[[int], None] | None = None
    ) -> Steps[list[Prediction]]:
        scores = yield from self._scoring(prepared, tell)
        return _predictions(self.task, scores, self.temperatures, [each.citations for each in prepared])

    def _scoring(
        self, prepared: Sequence[Prepared], tell: Callable[[int], None] | None = None
    ) -> Steps[list[np.ndarray]]:
        questions = self.task.questions
        if not prepared:
            return [np.zeros((0, len(question.choices))) for question in questions]
        if self.head is not None:
            hidden = yield from self.lm.hidden_states([each.request for each in prepared], tell)
            logits = self.head.logits(hidden)  # (n, ΣL)
            ends = np.cumsum([len(question.choices) for question in questions])
            return [log_softmax(part) for part in np.split(logits, ends[:-1], axis=1)]
        rows = []
        for first in range(0, len(prepared), TOGETHER):
            batch = [each.messages for each in prepared[first : first + TOGETHER]]
            for each in (yield from deciding_counted(self.base(), batch, questions)):
                p = [np.maximum(answer.probabilities.astype(np.float64), LEAST) for answer in each.answers]
                rows.append([np.log(part) for part in p])
            if tell is not None:
                tell(len(batch))
        return [np.stack(column) for column in zip(*rows)]


@dataclass(frozen=True, eq=False, kw_only=True)
class DecisionClassifier:
    """Answers the questions of the task by one classifier each, without a language model. `max_tokens` and `sampling`
    are accepted, as by the other kinds, and ignored."""

    answers_are: ClassVar[str] = DecisionModel.answers_are
    has_model: ClassVar[Literal[False]] = False
    has_labels: ClassVar[Literal[False]] = False
    has_questions: ClassVar[Literal[True]] = True
    from_set: ClassVar[bool] = True
    served: ClassVar[None] = None
    context: ClassVar[None] = None

    classifiers: tuple[Classifier, ...]
    task: Task
    text: TextPart = field(default_factory=TextPart)  # the artifact's; unused, as a classifier reads no prompt

    def answer(self, messages: Sequence[Message], max_tokens: int | None = None, sampling: Sampling = GREEDY) -> str:
        """The answers to the questions about one conversation, as JSON."""
        return self.answers([messages])[0].text

    def answers(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = (), *,
        max_tokens: int | None = None, sampling: Sampling = GREEDY,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Prediction]:  # fmt: skip
        """The answers to the questions about each conversation, in order; `progress` is called with (done, total)."""
        tell, predictions = counted(progress, len(conversations)), []
        texts = [messages[-1]["content"] for messages in conversations]
        for first in range(0, len(texts), BATCH):
            batch = texts[first : first + BATCH]
            each = [classifier.probabilities(batch) for classifier in self.classifiers]  # Q times (n, L)
            predictions += [_prediction(self.task, row) for row in zip(*each)]
            tell(len(batch))
        return predictions

    def stream(
        self, messages: Sequence[Message], *, max_tokens: int | None = None, sampling: Sampling = GREEDY
    ) -> Stream:
        """The answers as a stream of one piece."""
        return Stream(iter([self.answer(messages)]))


def _predictions(
    task: Task, scores: Sequence[np.ndarray], temperatures: Sequence[float], citations: Sequence[tuple[dict, ...]]
) -> list[Prediction]:
    """The predictions of n rows from the scores (n, L) of each question's choices."""
    each = [probabilities(part, t) for part, t in zip(scores, temperatures or [1.0] * len(scores))]
    rows: Iterator[tuple[np.ndarray, ...]] = zip(*each)
    return [replace(_prediction(task, row), citations=cited) for row, cited in zip(rows, citations)]


def _prediction(task: Task, row: Sequence[np.ndarray]) -> Prediction:
    """The prediction of one row from the probabilities (L,) of each question's choices."""
    return decided_prediction([Decided(question, p, trained=True) for question, p in zip(task.questions, row)])
