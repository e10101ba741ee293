"""Answering from a closed set: the label with the highest probability, by a head of labels, or by the label's text,
optionally calibrated by a null prompt.

With a temperature, each answer has calibrated probabilities of all labels: a softmax of (log-probability of the label's
text + offset) / temperature. The log-probability is exact of the two best labels and of those up to WITHIN nats below
the best, and else an estimate by the first tokens, so that the search need not read texts that are far from right.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np

from riyaz.data import Example, Message
from riyaz.data.task import Task
from riyaz.engine import counted
from riyaz.engine.parts import Steps, finished
from riyaz.engine.request import GREEDY, Request, Sampling
from riyaz.engine.trie import Trie
from riyaz.errors import RiyazError
from riyaz.metrics.calibration import log_softmax, probabilities
from riyaz.predictor.prediction import Prediction, Stream, label_prediction
from riyaz.predictor.prompt import Prepared, PromptedModel
from riyaz.prompting import messages_for

if TYPE_CHECKING:
    from riyaz.retrieval.search import Hit

NULL_TEXTS = ("N/A", "")  # questions without content; both are averaged (Zhao et al. 2021, arXiv 2102.09690)
WITHIN = 6.0  # nats; on banking77 few_shot reads 57 nodes of 360 and has a log-loss of 2.30, with all 2.19
NULL_CONTEXTS = 2  # sets of nearest examples that the null prompt is averaged over


@dataclass(frozen=True, eq=False, kw_only=True)
class ClosedPredictor(PromptedModel):
    """Answers with a label of the task. With the `head` of a model one pass over the prompt scores all labels, with
    `beside` together with a classifier; without it their texts are searched. `calibrated` subtracts each label's
    log-probability after the null prompt, else `label_offsets` are added, if there are any. `temperature` gives answers
    a confidence, which those of a search lack without one.

    A label is never cut or sampled: `max_tokens` and `sampling` are accepted, as by the other kinds, and ignored.
    """

    answers_are: ClassVar[str] = "chosen from labels"
    has_labels: ClassVar[Literal[True]] = True
    has_questions: ClassVar[Literal[False]] = False
    from_set: ClassVar[bool] = True
    max_new_tokens: ClassVar[int] = 0  # a label is chosen, however long it is

    task: Task = field()
    calibrated: bool = False
    label_offsets: tuple[float, ...] = ()
    temperature: float | None = None

    def prepare(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = (), *, room: int | None = None,
        passages: "Sequence[Sequence[Hit]] | None" = None, sampling: Sampling = GREEDY, tools: Sequence[dict] = (),
    ) -> list[Prepared]:  # fmt: skip
        """Prompts that leave room for the longest label; `room` is ignored."""
        prepared = super().prepare(
            conversations, where, room=self._longest, passages=passages, sampling=sampling, tools=tools
        )
        prepared = [replace(each, request=self._constrained(each.request)) for each in prepared]
        if self.beside is None:
            return prepared
        scores = self.beside.scores([messages[-1]["content"] for messages in conversations])
        return [replace(each, beside=row) for each, row in zip(prepared, scores)]

    def answer(self, messages: Sequence[Message], max_tokens: int | None = None, sampling: Sampling = GREEDY) -> str:
        """The answer to one conversation."""
        return self.answers([messages])[0].text

    def answers(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = (), *,
        max_tokens: int | None = None, sampling: Sampling = GREEDY,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Prediction]:  # fmt: skip
        """The label for each conversation, in order; `progress` is called with (done, total)."""
        prepared = self.prepare(conversations, where)
        return finished(self._choosing(prepared, counted(progress, len(prepared))))

    def stream(
        self, messages: Sequence[Message], *, max_tokens: int | None = None, sampling: Sampling = GREEDY,
        passages: "Sequence[Hit] | None" = None,
    ) -> Stream:  # fmt: skip
        """The answer to one conversation as a stream of one piece."""
        prepared = self.prepare([messages], passages=None if passages is None else [passages])

        def pieces() -> Iterator[str]:
            yield self.chosen(prepared)[0].text

        return Stream(pieces(), prepared[0].passages)

    def chooser(self, prepared: Prepared) -> Self:
        """This predictor: a search chooses every answer."""
        return self

    def chosen(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        """The best label of each prepared conversation."""
        return finished(self.choosing(prepared))

    def choosing(self, prepared: Sequence[Prepared]) -> Steps[list[Prediction]]:
        """`chosen` in parts."""
        return self._choosing(prepared)

    def label_scores(self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = ()) -> np.ndarray:
        """The scores (n, L) whose softmax at a temperature is the probability of each label."""
        return finished(self._scoring(self.prepare(conversations, where)))

    def calibrating(self) -> Steps[None]:
        """Compute `null_offsets` in parts, where they are used and not known yet."""
        if self.calibrated and "null_offsets" not in vars(self):
            vars(self)["null_offsets"] = yield from self._null_offsets()

    def wins_raw_and_calibrated(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str], accepted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whether the answer to each conversation is one of its `accepted` labels (n, L), without and with calibration:
        (2, n), from one search that need not find the other answers. And the log-probabilities (n, L) of the labels
        that it read, as all accepted ones, before calibration; NaN of others."""
        prepared = self.prepare(conversations, where)
        offsets = np.stack((np.zeros(len(self.task.labels)), self.null_offsets))
        return self.lm.wins([each.request for each in prepared], accepted, offsets)

    @cached_property
    def constraint(self) -> Trie:
        """The labels as token sequences of the assistant's turn, each with its end token. Raises RiyazError for two
        labels with the same tokens."""
        ids = [tuple(answer) for answer in self.tokenizer.answer_ids(list(self.task.labels))]
        label_of = dict(zip(ids, self.task.labels))
        for answer, label in zip(ids, self.task.labels):
            if label_of[answer] is not label:
                raise RiyazError(f"the labels {label!r} and {label_of[answer]!r} have the same tokens")
        return Trie(ids)

    @cached_property
    def _longest(self) -> int:
        """Tokens of the longest label's text."""
        return max(map(len, self.tokenizer.answer_ids(list(self.task.labels))))

    @cached_property
    def offsets(self) -> np.ndarray:
        """Added to each label's log-probability (L,): `null_offsets` if calibrated, else `label_offsets` or 0."""
        return self.null_offsets if self.calibrated else np.array(self.label_offsets or np.zeros(len(self.task.labels)))

    @cached_property
    def null_offsets(self) -> np.ndarray:
        """−log of each label's mean probability (L,) after this prompt with NULL_TEXTS as the question."""
        return finished(self._null_offsets())

    def _null_offsets(self) -> Steps[np.ndarray]:
        conversations = []
        for null in NULL_TEXTS:
            turn = {"role": "user", "content": null}
            passages = self.passages([[turn]])[0]
            conversations += [
                messages_for(self.text, self.task, [turn], examples, passages) for examples in self._null_contexts()
            ]
        prompts = self.tokenizer.render(conversations)
        requests = self._requests(prompts, ["the null prompt"] * len(prompts), self._longest)
        scores = yield from self.lm.choosing([self._constrained(request) for request in requests])
        offsets: np.ndarray = np.log(len(scores)) - np.logaddexp.reduce(scores, axis=0)
        return offsets

    def _null_contexts(self) -> list[Sequence[Example]]:
        """The examples before a null text: no example is near to it, so the nearest ones of a few real questions."""
        if self.text.examples != "nearest":
            return [self._shown([])]
        step = max(1, len(self.examples) // NULL_CONTEXTS)
        questions = [example.messages for example in self.examples[::step][:NULL_CONTEXTS]]
        return [self._shown(question) for question in questions]

    def _choosing(
        self, prepared: Sequence[Prepared], tell: Callable[[int], None] | None = None
    ) -> Steps[list[Prediction]]:
        """The best label of each conversation, and with a head or a temperature how sure it is."""
        if self.temperature is None and self.head is None:
            (chosen,) = yield from self.lm.finding([each.request for each in prepared], self.offsets[None], tell)
            return [Prediction(self.task.labels[i], p, each.citations) for (i, p), each in zip(chosen, prepared)]
        scores = yield from self._scoring(prepared, tell)
        predictions = []
        for row, p, each in zip(scores, probabilities(scores, self.temperature or 1.0), prepared):
            own = float((row - self.offsets)[row.argmax()])
            prediction = label_prediction(self.task.labels, row, p)
            predictions.append(replace(prediction, log_probability=own, citations=each.citations))
        return predictions

    def _scoring(self, prepared: Sequence[Prepared], tell: Callable[[int], None] | None = None) -> Steps[np.ndarray]:
        """The labels' scores (R, L): log-probability by the head, or of the text, + offset."""
        requests = [each.request for each in prepared]
        if not requests:
            return np.zeros((0, len(self.task.labels)))
        if self.head is not None:
            log_p = self.head.log_probabilities((yield from self.lm.hidden_states(requests, tell)))
            added = [each.beside for each in prepared if each.beside is not None]
            return log_softmax(log_p + np.stack(added)) if added else log_p
        log_p = yield from self.lm.estimating(requests, self.offsets, WITHIN, tell)
        return log_p + self.offsets

    def _constrained(self, request: Request) -> Request:
        return request if self.head is not None else replace(request, constraint=self.constraint)
