"""Answering by copying the answer of the example whose prompt is nearest to the question, without a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

from riyaz.artifact import TextPart
from riyaz.data import Example, Message
from riyaz.data.task import Task
from riyaz.engine import counted
from riyaz.engine.request import GREEDY, Sampling
from riyaz.predictor.example_index import ExampleIndex
from riyaz.predictor.prediction import Prediction, Stream


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
            answers.append(Prediction(self.answer(messages)))
            tell(1)
        return answers

    def stream(
        self, messages: Sequence[Message], *, max_tokens: int | None = None, sampling: Sampling = GREEDY
    ) -> Stream:
        """The answer as a stream of one piece."""
        return Stream(iter([self.answer(messages)]))

    @cached_property
    def _index(self) -> ExampleIndex:
        return ExampleIndex(self.examples)
