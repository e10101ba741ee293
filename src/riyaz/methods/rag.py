"""Retrieval-augmented generation: 1, 3 or 5 passages of the user's documents in the prompt before the question.

If enough training answers are literal parts of their passages, `fit` also tries to choose the answer among the spans of
the passages: a small model tends to answer in whole sentences instead.
"""

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from riyaz.artifact import COLLECTION, EXAMPLES, WeightsPart, examples_bytes
from riyaz.data.task import JUDGED
from riyaz.errors import RiyazError
from riyaz.methods.few_shot import diverse_examples
from riyaz.methods.fitting.base import Context, Fitted, Method
from riyaz.methods.fitting.choices import base_predictor, choose, choose_answer_limit, reworded
from riyaz.methods.fitting.even_labels import corrected
from riyaz.predictor import ModelPredictor, SpanPredictor
from riyaz.results import About
from riyaz.retrieval.open_retriever import open_retriever, without_own
from riyaz.scoring import REOPEN_ROWS, answer_log_loss, predict, score

COUNTS = (1, 3, 5)  # passages
EXAMPLE_COUNT = 4  # examples of answers, without passages, that are tried with the best number of passages
COMMON = 3  # training rows with the same answer that make it a candidate for every question, such as a refusal
LEAST_SPANS = 0.2  # smallest share of training answers that are spans of their passages
LONGEST_SPAN = 10  # words
OFFSETS = (0.0, 3.0, 6.0, -3.0, -6.0, -99.0)  # nats added to the log-probability of a common answer, to choose from
SPAN_ROWS = 32  # validation rows on which free answers and spans are compared
# Passages in the prompts of trained weights: usually the right one and a distractor (RAFT, Zhang et al. 2024).
TRAINING_PASSAGES = 2


def fit(context: Context) -> Fitted:
    """Choose on validation the number of passages, whether to add examples, and free answers or spans."""
    plain, retrieving = base_predictor(context), with_prompt(context)
    began = time.perf_counter()
    prompt = retrieving.prompt_text
    prompted = replace(plain, text=prompt.text, retriever=prompt.retriever)
    without = choose(context, [replace(prompted, text=replace(prompted.text, passages=count)) for count in COUNTS])
    examples = diverse_examples(context.train, EXAMPLE_COUNT)
    text = replace(without.predictor.text, examples="fixed", k=len(examples), examples_file=EXAMPLES)
    choice, record = without, without.record
    try:
        with_examples = choose(context, [replace(prompted, text=text, examples=examples)])
        choice = with_examples if with_examples.score > without.score else without
        record = record + with_examples.record
    except RiyazError:  # the prompts with examples do not fit the context
        pass
    choice = reworded(context, replace(choice, record=record))
    right = corrected(context, choice)
    best: ModelPredictor = right.predictor
    limit, limit_record = choose_answer_limit(context, best)
    spans: dict[str, float] = {}
    if context.task.kind == "short" and not context.task.schema and context.task.metric not in JUDGED:
        best, spans = _free_or_span(context, best, limit)
    files: dict[str, Path | bytes] = {EXAMPLES: examples_bytes(best.examples)} if best.examples else {}
    return Fitted(
        best.text, WeightsPart(), retrieving.files | files, **right.fields, max_new_tokens=limit,
        search_seconds=time.perf_counter() - began,
        chosen={"passages": best.text.passages, "examples": best.text.k, **right.record,
                **limit_record, **spans, "candidates": choice.record},
        valid_loss=answer_log_loss(best, context.valid[:REOPEN_ROWS]), valid_score=right.score,
    )  # fmt: skip


def _free_or_span(context: Context, free: ModelPredictor, limit: int) -> tuple[ModelPredictor, dict[str, float]]:
    """`free` or a SpanPredictor with the same prompts, whichever scores higher on validation, and the entries of the
    record. `limit` is the longest answer in tokens."""
    is_span = [any(_contains(hit.text, example.answer) for hit in hits) for example, hits in
             zip(context.train, free.passages([example.messages for example in context.train]))]  # fmt: skip
    counts = Counter(example.answer for example in context.train)
    common = tuple(answer for answer, count in counts.items() if count >= COMMON)
    lengths = [len(e.answer.split()) for e, span in zip(context.train, is_span) if span and e.answer not in common]
    if len(lengths) < LEAST_SPANS * len(is_span):
        return free, {}
    longest = sorted(lengths)[int(0.95 * (len(lengths) - 1))]
    span_text = replace(free.text, span_words=max(2, min(LONGEST_SPAN, longest)), common=common)
    rows = context.valid[: min(SPAN_ROWS, context.valid_rows)]
    offsets = OFFSETS if common else OFFSETS[:1]
    free_score, tried = score(context.task, predict(free, rows), rows).mean, []
    for passages in sorted({COUNTS[0], free.text.passages}):  # more passages also hold more wrong spans
        candidate = replace(free, text=replace(span_text, passages=passages))
        by_span = SpanPredictor(**candidate.parts(), max_new_tokens=limit)
        answered = by_span.answers_under([row.messages for row in rows], [row.where for row in rows], offsets)
        for offset, predictions in zip(offsets, answered):
            text = replace(candidate.text, common_offset=offset)
            tried.append((score(context.task, predictions, rows).mean, text))
    span_score, text = max(tried, key=lambda pair: pair[0])
    scores = {"free_validation": free_score, "span_validation": span_score}
    if span_score <= free_score:
        return free, scores
    best = SpanPredictor(**replace(free, text=text).parts(), max_new_tokens=limit)
    return best, scores | {"span_words": text.span_words, "common_offset": text.common_offset}


def _contains(text: str, answer: str) -> bool:
    return answer.casefold() in text.casefold()


def with_prompt(context: Context) -> Context:
    """The context with TRAINING_PASSAGES retrieved passages in every prompt; no row finds the document that is the row
    itself, as a new question could not."""
    assert context.collection is not None
    retriever = without_own(open_retriever(context.collection), (*context.train, *context.valid))
    text = replace(context.prompt_text.text, passages=TRAINING_PASSAGES, collection_file=COLLECTION)
    prompt = replace(context.prompt_text, text=text, retriever=retriever)
    return replace(context, prompt_text=prompt, files=context.files | {COLLECTION: context.collection})


def probe(plain: ModelPredictor, context: Context) -> ModelPredictor:
    """A candidate with prompts of middle length, whose speed is taken for all candidates."""
    prompt = with_prompt(context).prompt_text
    return replace(plain, text=replace(prompt.text, passages=COUNTS[1]), retriever=prompt.retriever)


ABOUT = About(
    what="The base model with passages in the prompt, retrieved from documents for each question.",
    suits="facts in documents that change: a new document is used at once, and answers can cite it",
    colour=3, mark="^", weights="none",
)  # fmt: skip
METHOD = Method(
    name="rag", about=ABOUT, fit=fit, candidates=len(COUNTS) + 1, with_prompt=with_prompt, probe=probe,
    answers_per_row=3.0,  # free answers once, spans with two numbers of passages
    instruction_of="instruct", needs_documents=True, embeds=True, answers_questions=False, left_out=6,
)  # fmt: skip
