"""Answering by a span: the likeliest run of words in the retrieved passages, or one of a few common answers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from riyaz.data import Message
from riyaz.engine import counted
from riyaz.engine.parts import Steps, finished
from riyaz.engine.request import GREEDY, Sampling
from riyaz.engine.trie import Trie
from riyaz.predictor.free import FreePredictor
from riyaz.predictor.prediction import Prediction, Stream
from riyaz.predictor.prompt import Prepared
from riyaz.retrieval.spans import spans

if TYPE_CHECKING:
    from riyaz.retrieval.search import Hit


@dataclass(frozen=True, eq=False, kw_only=True)
class SpanPredictor(FreePredictor):
    """Answers with a run of at most `text.span_words` words of the passages, or with one of `text.common`, to whose
    log-probability `text.common_offset` (nats) is added. Without passages and common answers it answers freely."""

    answers_are: ClassVar[str] = "chosen from passages"
    from_set: ClassVar[bool] = True

    def answers(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = (), *,
        max_tokens: int | None = None, sampling: Sampling = GREEDY,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Prediction]:  # fmt: skip
        """The answer to each conversation, in order; `progress` is called with (done, total)."""
        prepared = self.prepare(conversations, where, room=max_tokens, sampling=sampling)
        tell = counted(progress, len(prepared))
        if not self.text.passages:
            return self._generated(prepared, tell)
        return [self._under(each, [self.text.common_offset], tell)[0] for each in prepared]

    def stream(
        self, messages: Sequence[Message], *, max_tokens: int | None = None, sampling: Sampling = GREEDY,
        passages: "Sequence[Hit] | None" = None,
    ) -> Stream:  # fmt: skip
        """The answer to one conversation: a span in one piece, a free answer while it is generated."""
        of_each = None if passages is None else [passages]
        prepared = self.prepare([messages], room=max_tokens, passages=of_each, sampling=sampling)[0]
        texts = self._texts(prepared)
        if not texts:
            return self._streamed(prepared)

        def pieces() -> Iterator[str]:
            yield self._searched(prepared, texts, [self.text.common_offset])[0].text

        return Stream(pieces(), prepared.passages)

    def chooser(self, prepared: Prepared) -> Self | None:
        """This predictor where there are passages or common answers to choose from, else None."""
        return self if self._texts(prepared) else None

    def choosing(self, prepared: Sequence[Prepared]) -> Steps[list[Prediction]]:
        """The best span of each prepared conversation that has a `chooser`, in parts."""
        predictions: list[Prediction] = []
        for each in prepared:
            best = yield from self._searching(each, self._texts(each), [self.text.common_offset])
            predictions += best
        return predictions

    def answers_under(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str], offsets: Sequence[float]
    ) -> list[list[Prediction]]:
        """The answers with each of `offsets` in place of `text.common_offset`, one list per offset, from one search."""
        each = [self._under(prepared, offsets) for prepared in self.prepare(conversations, where)]
        return [[answers[m] for answers in each] for m in range(len(offsets))]

    def _under(
        self, prepared: Prepared, offsets: Sequence[float], tell: Callable[[int], None] | None = None
    ) -> list[Prediction]:
        texts = self._texts(prepared)
        if texts:
            return self._searched(prepared, texts, offsets, tell)
        return self._generated([prepared], tell) * len(offsets)

    def _texts(self, prepared: Prepared) -> list[str]:
        """The candidate answers: the common answers, then the spans of the passages in the prompt."""
        if not self.text.passages:
            return []
        in_passages = dict.fromkeys(span for hit in prepared.passages for span in spans(hit.text, self.text.span_words))
        return [*self.text.common, *in_passages]

    def _searched(
        self, prepared: Prepared, texts: Sequence[str], offsets: Sequence[float],
        tell: Callable[[int], None] | None = None,
    ) -> list[Prediction]:  # fmt: skip
        return finished(self._searching(prepared, texts, offsets, tell))

    def _searching(
        self, prepared: Prepared, texts: Sequence[str], offsets: Sequence[float],
        tell: Callable[[int], None] | None = None,
    ) -> Steps[list[Prediction]]:  # fmt: skip
        """The likeliest of `texts` with each of `offsets` added to the common answers, by exact search."""
        ids = [tuple(answer) for answer in self.tokenizer.answer_ids(list(texts))]
        trie = Trie(list(dict.fromkeys(ids)))
        common = np.isin(np.arange(len(trie.leaf)), np.arange(len(set(ids[: len(self.text.common)]))))
        request = replace(prepared.request, constraint=trie)
        chosen = yield from self.lm.finding([request], np.outer(offsets, common), tell)
        return [
            Prediction(self.tokenizer.decode(trie.sequences[best][:-1]).strip(), p, prepared.citations)
            for ((best, p),) in chosen
        ]
