"""With documents: does the answer follow the passage, also where that was changed, and does it say more than stands
there?"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from riyaz.data import Example
from riyaz.limits.figures import share_of
from riyaz.limits.inputs import Rows
from riyaz.limits.sampled import sampled, short_of
from riyaz.metrics.intervals import bca_bootstrap, interval
from riyaz.metrics.scores import score_rows
from riyaz.predictor import FreePredictor
from riyaz.results import Figure, Part
from riyaz.retrieval.documents import Document
from riyaz.retrieval.search import Hit

LEAST, MOST = 12, 100  # rows
LONGEST = 1_200  # characters of a passage
RIGHT = 0.5
STOP = {
    "the", "a", "an", "of", "in", "on", "at", "to", "and", "or", "is", "are", "was", "were", "be", "been", "it",
    "its", "that", "this", "with", "for", "from", "by", "as", "not", "no", "yes", "he", "she", "they", "his",
    "her", "their", "which", "who", "what", "when", "where", "how", "why", "do", "does", "did", "has", "have",
    "had", "can", "could", "will", "would", "there", "about", "into", "than", "then", "them", "also", "more",
    "most", "some", "such", "only", "over", "after", "before", "between", "during",
}  # fmt: skip
BLIND = (
    "The changed passage is made by putting another row's answer in the place of the right one, so it can read oddly. "
    "A word that stands in no passage can still be right, and words that stand there can be put together wrongly."
)


@dataclass(frozen=True)
class Grounded:
    """A row with the passage that holds its answer, and with another answer in its place."""

    row: Example
    passage: Hit
    changed: Hit | None
    other: str


def cases(rows: Sequence[Example], documents: Mapping[str, Document]) -> list[Grounded]:
    """The rows that name a document, each with its passage; the changed one where the answer stands in it."""
    named = [(row, next((documents[name] for name in row.doc_ids if name in documents), None)) for row in rows]
    pairs = [(row, document) for row, document in named if document is not None]
    made = []
    for place, (row, document) in enumerate(pairs):
        answer = next((text for text in row.answers if text and text in document.text), "")
        passage = _passage(document, document.text.find(answer) if answer else 0)
        others = (pairs[(place + step) % len(pairs)][0].answer for step in range(1, len(pairs)))
        other = next((text for text in others if _kind(text) == _kind(row.answer) and text not in row.answers), "")
        changed = None
        if answer and other and answer in passage.text:
            changed = replace(passage, text=passage.text.replace(answer, other))
        made.append(Grounded(row, passage, changed, other))
    return made


def _passage(document: Document, at: int) -> Hit:
    start = 0 if len(document.text) <= LONGEST else max(0, at - LONGEST // 2)
    text = document.text[start : start + LONGEST]
    return Hit(document.doc_id, document.title, "", start, start + len(text), text, 1.0)


def _kind(text: str) -> str:
    """Number, name or other words: a changed answer is of the same kind."""
    return "number" if any(c.isdigit() for c in text) else "name" if text[:1].isupper() else "words"


def measure(answering: FreePredictor, data: Rows, documents: Mapping[str, Document], share: float) -> Part:
    """Scores with the right passage, without one and with a changed one; the gain in log-probability; words from
    nowhere."""
    every = cases(data.test, documents)[:MOST]
    used = sampled(every, share, LEAST)
    model, questions = reading(answering), [each.row for each in used]
    with_passage = answers(model, questions, [[each.passage] for each in used])
    without = answers(model, questions, [[] for _ in used])
    figures = [
        _score("with the right passage", data, with_passage, used),
        _score("without a passage", data, without, used),
        *_changed(model, data, [each for each in used if each.changed is not None]),
        _gain(model, used),
        _from_nowhere(with_passage, used),
    ]
    what = (
        f"{len(used):,} rows that name a document: answered with its passage in the prompt, with none, and with a "
        f"passage in which another answer stands. Score: {data.task.metric}."
    )
    return Part("your documents", data.source, what, figures, BLIND, short_of(len(used), len(every), "rows"))


def reading(answering: FreePredictor) -> FreePredictor:
    """The model with room for one passage; a text part that retrieves is given the passage too."""
    text = replace(answering.text, passages=1, span_words=0)
    model = replace(answering, text=text, retriever=None)
    return FreePredictor(**model.parts(), max_new_tokens=model.max_new_tokens)


def answers(model: FreePredictor, rows: Sequence[Example], hits: Sequence[Sequence[Hit]]) -> list[str]:
    """The model's answers, with the given passages before each question."""
    prepared = model.prepare([row.messages for row in rows], [row.where for row in rows], passages=hits)
    ids = model.lm.generate([each.request for each in prepared])
    return [model.text_of(tokens, each.request.limit, each.tools) for tokens, each in zip(ids, prepared)]


def accepted_nats(
    model: FreePredictor, rows: Sequence[Example], hits: Sequence[Sequence[Hit]]
) -> list[np.ndarray]:  # fmt: skip
    """Log-probability of every token of each accepted answer in nats, with the given passages before each question."""
    ids = model.tokenizer.answer_ids([row.said for row in rows])
    prepared = model.prepare([row.messages for row in rows], room=max(map(len, ids)), passages=hits)
    return model.lm.logprobs([each.request for each in prepared], ids)


def _score(name: str, data: Rows, texts: Sequence[str], used: Sequence[Grounded]) -> Figure:
    rows = score_rows(data.task.metric, texts, [each.row for each in used], data.task.max_words)
    return Figure(f"score {name}", float(rows.mean()), *interval(rows), len(rows), "score")


def _changed(model: FreePredictor, data: Rows, used: Sequence[Grounded]) -> list[Figure]:
    """How often the answer is that of the changed passage, and how often the one that is right in the world."""
    if not used:
        return []
    changed = [[each.changed] for each in used if each.changed is not None]
    texts = answers(model, [each.row for each in used], changed)
    other = [replace(each.row, answers=(each.other,)) for each in used]
    follows = score_rows(data.task.metric, texts, other) >= RIGHT
    keeps = score_rows(data.task.metric, texts, [each.row for each in used]) >= RIGHT
    return [
        share_of("says what the changed passage says", follows),
        share_of("keeps the right answer against it", keeps),
    ]


def _gain(model: FreePredictor, used: Sequence[Grounded]) -> Figure:
    """Mean nats per token by which the passage raises the log-probability of the accepted answer."""
    variants: list[list[list[Hit]]] = [[[each.passage] for each in used], [[] for _ in used]]
    means = []
    for hits in variants:
        parts = accepted_nats(model, [each.row for each in used], hits)
        means.append(np.array([float(part.mean(dtype=np.float64)) for part in parts]))
    gain = means[0] - means[1]
    return Figure(
        "groundedness: gain of log p per token", float(gain.mean()), *bca_bootstrap(gain), len(gain), "nats", even=0.0
    )


def _from_nowhere(texts: Sequence[str], used: Sequence[Grounded]) -> Figure:
    """Answers with a content word that stands neither in the passage nor in the question."""
    rows = np.array(
        [
            bool(words(text) - words(f"{each.passage.text} {each.passage.title} {each.row.prompt}"))
            for text, each in zip(texts, used)
        ],
        float,
    )
    return share_of("answers with words that stand nowhere", rows)


def words(text: str) -> set[str]:
    """The content words of a text: longer than three letters or numbers, without the commonest, without a plural s."""
    every = re.findall(r"\w+", text.lower())
    return {word.rstrip("s") for word in every if (len(word) > 3 or word.isdigit()) and word not in STOP}


def tokens(rows: Rows, documents: Mapping[str, Document]) -> float:
    """About how many tokens `measure` reads, at four characters each."""
    return sum(3.5 * len(each.passage.text) / 4 for each in cases(rows.test, documents)[:MOST])
