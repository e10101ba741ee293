"""Where the model looks in the passages of a prompt, when it is about to answer: the attention of the prompt's last
token on the text of each passage, by layer and by head, and whether the passage that holds the right answer gets most.

The rule: a passage holds the right answer if it is of a document that the row names (of any document where it names
none) and an accepted answer stands in it, word for word but for case and white space. Where no passage of the named
documents has such words, all passages of these documents count. Attention is where a token looks, not why.
Legend: P passages, T tokens, L layers, H query heads.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from riyaz.data import Example, normalise
from riyaz.engine.runner import TRACED, TokenRun
from riyaz.errors import RiyazError
from riyaz.inside.attention import last_weights
from riyaz.inside.reading import windows
from riyaz.predictor import ModelPredictor, Prepared
from riyaz.prompting import data_block
from riyaz.retrieval.search import Hit, ranked_names

Tell = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True, eq=False)
class PassageLook:
    """One row: which of its P passages hold the right answer, their tokens, and the attention on each."""

    where: str
    right: tuple[int, ...]
    sizes: tuple[int, ...]  # tokens (P,)
    attention: np.ndarray  # (L, H, P): shares of all attention of the last token
    score: float  # of the answer, by the task's metric
    group: str | None = None

    @property
    def first(self) -> bool:
        """Whether the first passage, the best of the search, holds the right answer."""
        return 0 in self.right

    @property
    def longest(self) -> bool:
        """Whether the passage with the most tokens holds it."""
        return int(np.argmax(self.sizes)) in self.right

    @property
    def chance(self) -> float:
        """The share of the passages that hold it."""
        return len(self.right) / len(self.sizes)

    @property
    def most(self) -> bool:
        """Whether one of those gets the most attention, on average over all layers and heads."""
        return int(self.attention.mean((0, 1)).argmax()) in self.right

    @property
    def most_in(self) -> np.ndarray:
        """The same of each head (L, H)."""
        return np.asarray(np.isin(self.attention.argmax(2), self.right))

    @property
    def most_by_layer(self) -> np.ndarray:
        """The same of each layer (L,), by the mean of its heads."""
        return np.asarray(np.isin(self.attention.mean(1).argmax(1), self.right))

    @property
    def on_right(self) -> np.ndarray:
        """The attention of each head on the passages that hold it (L, H)."""
        return np.asarray(self.attention[:, :, list(self.right)].sum(2))


@dataclass(frozen=True, eq=False)
class PassageLooks:
    """The rows that were looked at, some of whose passages hold the right answer and some do not; and how many rows
    were not: no passage holds it, all do, the prompt is too long for one pass, a passage is not in it as it is."""

    each: tuple[PassageLook, ...]
    without: int = 0
    alike: int = 0
    too_long: int = 0
    rewritten: int = 0


def passage_looks(model: ModelPredictor, rows: Sequence[Example], scores: np.ndarray, tell: Tell) -> PassageLooks:
    """Where the last token of every row's prompt looks; `scores` (n,) are those of the answers. `tell` is called with
    (done, total). Raises RiyazError where every prompt is too long for one pass."""
    looked: list[PassageLook] = []
    without = alike = too_long = rewritten = 0
    for done, row in enumerate(rows, 1):
        (prepared,) = model.prepare([row.messages], [row.where])
        right = holding(prepared.passages, row)
        if not right:
            without += 1
        elif len(right) == len(prepared.passages):
            alike += 1
        elif model.lm.adapter_tokens(model.adapter) + prepared.request.length > TRACED:
            too_long += 1
        elif (spans := passage_tokens(model, prepared, str(row.messages[-1]["content"]))) is None:
            rewritten += 1
        else:
            sizes = tuple(end - begin for begin, end in spans)
            seen = attention_on(model, prepared, spans)
            looked.append(PassageLook(row.where, right, sizes, seen, float(scores[done - 1]), row.group))
        tell(done, len(rows))
    if too_long and not looked:
        what = f"all {too_long} prompts with passages have more than {TRACED:,} tokens, which is more than one pass"
        raise RiyazError(what, rows[0].where, "give shorter rows, or an artifact with fewer passages")
    return PassageLooks(tuple(looked), without, alike, too_long, rewritten)


def holding(passages: Sequence[Hit], row: Example) -> tuple[int, ...]:
    """The places of the passages that hold the right answer of a row, by the rule above."""
    names = ranked_names(passages, row.doc_ids)
    of_named = [place for place, name in enumerate(names) if not row.doc_ids or name in row.doc_ids]
    words = [rf"(?<!\w){re.escape(normalise(answer))}(?!\w)" for answer in row.answers if normalise(answer)]
    said = [p for p in of_named if any(re.search(each, normalise(passages[p].text)) for each in words)]
    return tuple(said or (of_named if row.doc_ids else ()))


def passage_tokens(model: ModelPredictor, prepared: Prepared, question: str) -> list[tuple[int, int]] | None:
    """The first token of each passage's text in the prompt and the one behind its last; None where the prompt does not
    hold the passages letter by letter, because of its template or its tokenizer."""
    prompt = [*prepared.request.prefix, *prepared.request.tokens]
    pieces = [model.tokenizer.bytes_of(token) for token in prompt]
    begins = np.cumsum([0, *map(len, pieces)])  # the first byte of each token, (T + 1,)
    whole, block = b"".join(pieces), data_block(prepared.passages, question).encode()
    at = whole.rfind(block)
    if at < 0:
        return None
    spans = []
    for passage in prepared.passages:
        text = passage.text.encode()
        at = whole.index(text, at)
        spans.append((int(np.searchsorted(begins, at)), int(np.searchsorted(begins, at + len(text)))))
        at += len(text)
    return spans


def attention_on(model: ModelPredictor, prepared: Prepared, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """The attention (L, H, P) of the prompt's last token on each span of tokens."""
    runner = model.lm.runner
    assert runner.family is not None, "a model from files"
    vectors = runner.adapter_tokens(model.adapter)
    sequence = runner.open(model.adapter)
    try:
        _, trace = runner.traced(TokenRun(sequence, [*prepared.request.prefix, *prepared.request.tokens]))
    finally:
        runner.close(sequence)
    layers = []
    for layer, window in enumerate(windows(runner.family)):
        looked = last_weights(trace, layer, window)  # (H, T)
        layers.append(np.stack([looked[:, vectors + a : vectors + b].sum(1) for a, b in spans], 1))
    return np.stack(layers)
