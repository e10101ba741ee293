"""Training examples, ranked by the similarity of their prompts to a question."""

from collections.abc import Sequence

import numpy as np

from riyaz.data import Example, Message


class ExampleIndex:
    """BM25 over the prompts of examples."""

    def __init__(self, examples: Sequence[Example]) -> None:
        from riyaz.retrieval.lexical import BM25

        self._examples = examples
        self._prompts = BM25([example.prompt for example in examples])

    def nearest(self, messages: Sequence[Message], k: int) -> list[Example]:
        """The k examples whose prompts are nearest to the last message, nearest first."""
        return [self._examples[i] for i in self._prompts.top(messages[-1]["content"], k)]

    def similarities(self, messages: Sequence[Message]) -> np.ndarray:
        """How near the prompt of each example is to the last message, (n,)."""
        return self._prompts.scores(messages[-1]["content"])
