"""How well a passage fits a question, and the least that a collection calibrates with questions of its own.

Scores fused by rank say which passage fits best, not whether any fits.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from riyaz.retrieval.chunks import Chunk, sentences
from riyaz.retrieval.embedder import Embedder
from riyaz.retrieval.lexical import BM25, words

QUESTIONS, LEAST_QUESTIONS = 256, 30  # made from a collection; fewer calibrate nothing
# The threshold of a collection too small to calibrate one, from training rows of examples/helpdesk asked of a few of
# its pages (docs/log.md); by words alone relevance is lower.
LEAST, LEAST_BY_WORDS = 0.18, 0.08
SENTENCE = (5, 30)  # words of a sentence that a question is made of
WORDS = 4  # of a sentence, its rarest, are a question
LOST = 0.02  # share of these questions that are less relevant than the threshold
SHARED = 0.4  # of the words that they share with the text, those that a person's question shares with it


def relevance(scores: np.ndarray, highest: float, near: np.ndarray | None) -> np.ndarray:
    """How well each text fits a question, (texts,) from about 0 to 1: its BM25 score as a share of the highest, and
    with the cosines `near` the mean of both, which tells questions that documents answer from others better than
    either does (docs/log.md)."""
    shares = scores / (highest or 1.0)
    return shares if near is None else (shares + near) / 2


def threshold(chunks: Sequence[Chunk], vectors: np.ndarray | None, lexical: BM25, embedder: Embedder | None) -> float:
    """The relevance below which nothing in a collection fits a question.

    All but LOST of the collection's own questions reach it. Without vectors they count only in part, since each of
    their words is in the text. With few questions it is LEAST or LEAST_BY_WORDS, unless they reach only less.
    """
    queries = questions(chunks)
    usual = LEAST_BY_WORDS if vectors is None else LEAST
    if not queries:
        return usual
    near: Iterable[np.ndarray | None] = [None] * len(queries)
    if embedder is not None and vectors is not None:
        near = (vectors @ each for each in embedder.embed(queries))
    best = [relevance(lexical.scores(each), lexical.highest(each), row).max() for each, row in zip(queries, near)]
    reached = float(np.quantile(best, LOST)) * (1.0 if vectors is not None else SHARED)
    return reached if len(queries) >= LEAST_QUESTIONS else min(reached, usual)


def questions(chunks: Sequence[Chunk]) -> list[str]:
    """Questions that the chunks answer, as a person types them into a search: the rarest words of a sentence in their
    order. At most QUESTIONS, from chunks at equal distances, equally many for each."""
    count = Counter(word for chunk in chunks for word in set(words(chunk.text)))
    chosen = sorted({int(place) for place in np.linspace(0, len(chunks) - 1, min(QUESTIONS, len(chunks)))})
    share = -(-QUESTIONS // max(1, len(chosen)))
    made = []
    for number, place in enumerate(chosen):
        fitting = [
            each for each in map(words, sentences(chunks[place].text)) if SENTENCE[0] <= len(each) <= SENTENCE[1]
        ]
        for sentence in (fitting[number % len(fitting) :] + fitting)[: min(share, len(fitting))] if fitting else ():
            rare = sorted(dict.fromkeys(sentence), key=lambda word: count[word])[:WORDS]
            made.append(" ".join(sorted(rare, key=sentence.index)))
    return made[:QUESTIONS]
