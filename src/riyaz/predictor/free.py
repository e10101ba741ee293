"""Answering freely: the model generates tokens until an end token or the length limit."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from riyaz.data import Message
from riyaz.engine import counted
from riyaz.engine.request import GREEDY, Sampling
from riyaz.predictor.prediction import Prediction, Stream, Timing
from riyaz.predictor.prompt import Chooser, Prepared, PromptedModel
from riyaz.text.sentences import whole_sentences

if TYPE_CHECKING:
    from riyaz.retrieval.search import Hit

CHAT_TOKENS = 256


@dataclass(frozen=True, eq=False, kw_only=True)
class FreePredictor(PromptedModel):
    """Generates answers of at most `max_new_tokens` tokens, unless a call gives `max_tokens`.

    By default each token is the likeliest one. `sampling` draws tokens instead, with random numbers from its seed and
    the conversation's index in the call.
    """

    answers_are: ClassVar[str] = "generated"
    has_labels: ClassVar[Literal[False]] = False
    has_questions: ClassVar[Literal[False]] = False
    from_set: ClassVar[bool] = False

    max_new_tokens: int = CHAT_TOKENS

    def prepare(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = (), *, room: int | None = None,
        passages: "Sequence[Sequence[Hit]] | None" = None, sampling: Sampling = GREEDY, tools: Sequence[dict] = (),
    ) -> list[Prepared]:  # fmt: skip
        """Prompts that leave `room` tokens for the answer, by default `max_new_tokens`."""
        room = room or self.max_new_tokens
        return super().prepare(conversations, where, room=room, passages=passages, sampling=sampling, tools=tools)

    def answer(self, messages: Sequence[Message], max_tokens: int | None = None, sampling: Sampling = GREEDY) -> str:
        """The answer to one conversation."""
        return self.answers([messages], max_tokens=max_tokens, sampling=sampling)[0].text

    def answers(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = (), *,
        max_tokens: int | None = None, sampling: Sampling = GREEDY,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Prediction]:  # fmt: skip
        """The answer to each conversation, in order; `progress` is called with (done, total)."""
        prepared = self.prepare(conversations, where, room=max_tokens, sampling=sampling)
        return self._generated(prepared, counted(progress, len(prepared)))

    def stream(
        self, messages: Sequence[Message], *, max_tokens: int | None = None, sampling: Sampling = GREEDY,
        passages: "Sequence[Hit] | None" = None,
    ) -> Stream:  # fmt: skip
        """The answer to one conversation while it is generated, with a task without a schema in whole sentences. Raises
        RiyazError at once for a prompt that does not fit."""
        of_each = None if passages is None else [passages]
        prepared = self.prepare([messages], room=max_tokens, passages=of_each, sampling=sampling)[0]
        return self._streamed(prepared)

    def chooser(self, prepared: Prepared) -> Chooser | None:
        """None: the answer is generated, no search chooses it."""
        return None

    def _generated(self, prepared: Sequence[Prepared], tell: Callable[[int], None] | None = None) -> list[Prediction]:
        answers = self.lm.generate([each.request for each in prepared], tell)
        return [
            Prediction(self.text_of(ids, each.request.limit, each.tools), citations=each.citations)
            for ids, each in zip(answers, prepared)
        ]

    def _streamed(self, prepared: Prepared) -> Stream:
        tokens: list[int] = []
        timing = Timing(prepared.request.length)
        pieces = self._pieces(prepared, tokens, timing.times)
        return Stream(pieces, prepared.passages, tokens, prepared.request.limit, timing)

    def _pieces(self, prepared: Prepared, ids: list[int], times: list[float]) -> Iterator[str]:
        """Pieces of the answer, whose tokens are added to `ids`, and their moments to `times`. White space is held back
        until text follows, as an answer does not end with it."""
        yielded = 0  # characters so far
        times.append(time.perf_counter())
        for token in self.lm.stream(prepared.request):
            times.append(time.perf_counter())
            ids.append(token)
            text = self.tokenizer.decode(ids).lstrip()
            if text.endswith("\ufffd"):  # a character's bytes may be split over several tokens
                continue
            # An answer to a task is cut to whole sentences at the end, so an unfinished sentence is held back.
            text = whole_sentences(text) if self.in_sentences else text.rstrip()
            if len(text) > yielded:
                yield text[yielded:]
                yielded = len(text)
        text = self.text_of(ids, prepared.request.limit, prepared.tools)
        if len(text) > yielded:
            yield text[yielded:]
