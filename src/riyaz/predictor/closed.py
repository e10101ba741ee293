"""Answering from a closed set: the label with the highest probability, on request calibrated by a null prompt."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from riyaz.data import Example, Message
from riyaz.data.task import Task
from riyaz.engine import counted
from riyaz.engine.request import GREEDY, Request, Sampling
from riyaz.engine.trie import Trie
from riyaz.errors import RiyazError
from riyaz.predictor.prediction import Prediction, Stream
from riyaz.predictor.prompt import Prepared, PromptedModel
from riyaz.prompting import messages_for

if TYPE_CHECKING:
    from riyaz.retrieval.search import Hit

NULL_TEXTS = ("N/A", "")  # texts without content, the average over both (Zhao et al. 2021, arXiv 2102.09690)
NULL_CONTEXTS = 2  # sets of nearest examples over which the null prompt is averaged


@dataclass(frozen=True, eq=False, kw_only=True)
class ClosedPredictor(PromptedModel):
    """Answers are labels of the task. `calibrated` takes off what the prompt says of each label by itself.

    A label is never cut or sampled: calls take `max_tokens` and `sampling` as the other kinds do, and they change
    nothing.
    """

    task: Task = field()
    calibrated: bool = False

    def prepare(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = (), *, room: int | None = None,
        passages: "Sequence[Sequence[Hit]] | None" = None, sampling: Sampling = GREEDY,
    ) -> list[Prepared]:  # fmt: skip
        """Prompts that leave room for the longest label, whatever `room` says."""
        longest = int(self.constraint.depth.max())
        prepared = super().prepare(conversations, where, room=longest, passages=passages, sampling=sampling)
        return [replace(each, request=self._constrained(each.request)) for each in prepared]

    def answer(self, messages: Sequence[Message], max_tokens: int | None = None, sampling: Sampling = GREEDY) -> str:
        """The answer to one conversation."""
        return self.answers([messages])[0].text

    def answers(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = (), *,
        max_tokens: int | None = None, sampling: Sampling = GREEDY,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Prediction]:  # fmt: skip
        """Answers in the order of the conversations; `progress` is told (done, total)."""
        prepared = self.prepare(conversations, where)
        return self._chosen(prepared, self.offsets[None], counted(progress, len(prepared)))[0]

    def stream(
        self, messages: Sequence[Message], *, max_tokens: int | None = None, sampling: Sampling = GREEDY,
        passages: "Sequence[Hit] | None" = None,
    ) -> Stream:  # fmt: skip
        """The answer to one conversation, in one piece."""
        prepared = self.prepare([messages], passages=None if passages is None else [passages])

        def pieces() -> Iterator[str]:
            yield self._chosen(prepared, self.offsets[None])[0][0].text

        return Stream(pieces(), prepared[0].passages)

    def raw_and_calibrated(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[list[Prediction], list[Prediction]]:  # fmt: skip
        """The answers without and with calibration, from one pass."""
        prepared = self.prepare(conversations, where)
        offsets = np.stack((np.zeros(len(self.task.labels)), self.null_offsets))
        raw, calibrated = self._chosen(prepared, offsets, counted(progress, len(prepared)))
        return raw, calibrated

    def label_log_probabilities(self, conversations: Sequence[Sequence[Message]]) -> np.ndarray:
        """Log-probability of every label after each conversation (R, L) in nats, end token included, not calibrated."""
        return self.lm.choose([each.request for each in self.prepare(conversations)])

    @cached_property
    def constraint(self) -> Trie:
        """The labels as they stand where the assistant's turn begins, each with its end."""
        ids = [tuple(answer) for answer in self.tokenizer.answer_ids(list(self.task.labels))]
        label_of = dict(zip(ids, self.task.labels))
        for answer, label in zip(ids, self.task.labels):
            if label_of[answer] is not label:
                raise RiyazError(f"the labels {label!r} and {label_of[answer]!r} are the same to the tokenizer")
        return Trie(ids)

    @cached_property
    def offsets(self) -> np.ndarray:
        """What is added to each label's log-probability (L,): 0, or if calibrated minus the null prompt's."""
        return self.null_offsets if self.calibrated else np.zeros(len(self.task.labels))

    @cached_property
    def null_offsets(self) -> np.ndarray:
        """−log of each label's mean probability after this prompt with a text without content (L,)."""
        conversations = []
        for null in NULL_TEXTS:
            turn = {"role": "user", "content": null}
            passages = self.passages([[turn]])[0]
            conversations += [
                messages_for(self.text, self.task, [turn], shown, passages) for shown in self._null_contexts()
            ]
        prompts = self.tokenizer.render(conversations)
        requests = self._requests(prompts, ["the null prompt"] * len(prompts), int(self.constraint.depth.max()))
        scores = self.lm.choose([self._constrained(request) for request in requests])
        return np.log(len(scores)) - np.logaddexp.reduce(scores, axis=0)

    def _null_contexts(self) -> list[Sequence[Example]]:
        """Examples to show before a null text. Nothing is near to it, so those of a few real questions."""
        if self.text.examples != "nearest":
            return [self._shown([])]
        step = max(1, len(self.examples) // NULL_CONTEXTS)
        questions = [example.messages for example in self.examples[::step][:NULL_CONTEXTS]]
        return [self._shown(question) for question in questions]

    def _chosen(
        self, prepared: Sequence[Prepared], offsets: np.ndarray, tell: Callable[[int], None] | None = None
    ) -> list[list[Prediction]]:
        """The best label of each conversation under each row of `offsets` (M, L), from one pass."""
        chosen = self.lm.best_each([each.request for each in prepared], offsets, tell)
        return [
            [Prediction(self.task.labels[i], p, each.citations) for (i, p), each in zip(best, prepared)]
            for best in chosen
        ]

    def _constrained(self, request: Request) -> Request:
        return replace(request, constraint=self.constraint)
