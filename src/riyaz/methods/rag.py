"""Retrieval: passages of the user's documents stand before the question, 1, 3 or 5 of them.

Where training answers stand in their passages word for word, the answer may also be searched among the passages'
own words, which a small model that talks in sentences would not say.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from riyaz.artifact import COLLECTION, EXAMPLES, WeightsPart, examples_bytes
from riyaz.errors import RiyazError
from riyaz.methods.base import Context, Fitted, Method
from riyaz.methods.choices import base_predictor, choose, with_room
from riyaz.methods.few_shot import spread
from riyaz.predictor import ModelPredictor, SpanPredictor
from riyaz.retrieval.open_retriever import open_retriever
from riyaz.scoring import KNOWN_BY, answer_log_loss, predict, score

COUNTS = (1, 3, 5)
SHOWN = 4  # examples of how to answer, without passages of their own, tried with the best count
COMMON = 3  # rows that share an answer which is always considered, such as a refusal
LEAST_SPANS = 0.2  # of the training answers that must stand in their passages
LONGEST_SPAN = 10  # words
OFFSETS = (0.0, 3.0, 6.0, -3.0, -6.0, -99.0)  # nats that a common answer may be too unlikely or likely by itself
SPAN_ROWS = 32  # validation rows on which answering freely and in the passages' words are compared
TRAINED = 2  # passages that weights are trained with: mostly the right one and a distractor (RAFT, Zhang et al. 2024)


def fit(context: Context) -> Fitted:
    """Choose on validation how many passages to give, and whether to show how to answer."""
    plain, found = base_predictor(context), around(context)
    given = replace(plain, text=found.around.text, retriever=found.around.retriever)
    plainly = choose(context, [replace(given, text=replace(given.text, passages=count)) for count in COUNTS])
    examples = spread(context.train, SHOWN)
    text = replace(plainly.predictor.text, examples="fixed", k=len(examples), examples_file=EXAMPLES)
    choice, record = plainly, plainly.record
    try:
        shown = choose(context, [replace(given, text=text, examples=examples)])
        choice, record = (shown if shown.score > plainly.score else plainly), record + shown.record
    except RiyazError:  # with examples no prompt fits the context
        pass
    best: ModelPredictor = choice.predictor
    max_new_tokens, rooms = with_room(context, best)
    spans: dict[str, float] = {}
    if context.task.kind == "short":
        best, spans = _free_or_span(context, best, max_new_tokens)
    files: dict[str, Path | bytes] = {EXAMPLES: examples_bytes(best.examples)} if best.examples else {}
    return Fitted(
        best.text, WeightsPart(), found.files | files, calibrated=choice.calibrated,
        max_new_tokens=max_new_tokens,
        chosen={"passages": best.text.passages, "examples": best.text.k, "calibrated": choice.calibrated,
                **rooms, **spans, "candidates": record},
        valid_loss=answer_log_loss(best, context.valid[:KNOWN_BY]), valid_score=choice.score,
    )  # fmt: skip


def _free_or_span(
    context: Context, free: ModelPredictor, max_new_tokens: int
) -> tuple[ModelPredictor, dict[str, float]]:
    """The predictor as it is, or answering in the words of its passages, whichever scores higher on validation."""
    known = [any(_stands_in(example.answer, hit.text) for hit in hits) for example, hits in
             zip(context.train, free.passages([example.messages for example in context.train]))]  # fmt: skip
    counts = Counter(example.answer for example in context.train)
    common = tuple(answer for answer, count in counts.items() if count >= COMMON)
    lengths = [len(e.answer.split()) for e, stands in zip(context.train, known) if stands and e.answer not in common]
    if len(lengths) < LEAST_SPANS * len(known):
        return free, {}
    longest = sorted(lengths)[int(0.95 * (len(lengths) - 1))]
    bound = replace(free.text, span_words=max(2, min(LONGEST_SPAN, longest)), common=common)
    rows = context.valid[: min(SPAN_ROWS, context.valid_rows)]
    offsets = OFFSETS if common else OFFSETS[:1]
    alone, tried = score(context.task, predict(free, rows), rows).mean, []
    for passages in sorted({COUNTS[0], free.text.passages}):  # more passages hold more wrong words too
        candidate = replace(free, text=replace(bound, passages=passages))
        by_span = SpanPredictor(**candidate.parts(), max_new_tokens=max_new_tokens)
        answered = by_span.answers_under([row.messages for row in rows], [row.where for row in rows], offsets)
        for offset, predictions in zip(offsets, answered):
            text = replace(candidate.text, common_offset=offset)
            tried.append((score(context.task, predictions, rows).mean, text))
    reached, text = max(tried, key=lambda pair: pair[0])
    shown = {"free_validation": alone, "span_validation": reached}
    if reached <= alone:
        return free, shown
    best = SpanPredictor(**replace(free, text=text).parts(), max_new_tokens=max_new_tokens)
    return best, shown | {"span_words": text.span_words, "common_offset": text.common_offset}


def _stands_in(answer: str, text: str) -> bool:
    return answer.casefold() in text.casefold()


def around(context: Context) -> Context:
    """The context of a method that trains weights with retrieved passages before every question."""
    assert context.collection is not None
    text = replace(context.around.text, passages=TRAINED, collection_file=COLLECTION)
    prompt = replace(context.around, text=text, retriever=open_retriever(context.collection))
    return replace(context, around=prompt, files=context.files | {COLLECTION: context.collection})


def probe(plain: ModelPredictor, context: Context) -> ModelPredictor:
    """A candidate of middling length, whose speed stands for all."""
    found = around(context).around
    return replace(plain, text=replace(found.text, passages=COUNTS[1]), retriever=found.retriever)


METHOD = Method(
    name="rag", fit=fit, texts=len(COUNTS) + 1, around=around, probe=probe, needs_documents=True,
    answered=3.0,  # once freely, and in the passages' words with two numbers of passages
)  # fmt: skip
