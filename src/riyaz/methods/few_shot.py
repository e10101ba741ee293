"""Few-shot: 1, 4 or 8 training examples in the prompt, the same for every question or the nearest to each by BM25."""

import time
from dataclasses import replace

from riyaz.artifact import EXAMPLES, WeightsPart, examples_bytes
from riyaz.data import Example
from riyaz.methods.fitting.base import Context, Fitted, Method
from riyaz.methods.fitting.choices import base_predictor, choose, choose_answer_limit, reworded
from riyaz.methods.fitting.even_labels import corrected
from riyaz.predictor import ModelPredictor
from riyaz.results import About
from riyaz.scoring import REOPEN_ROWS

COUNTS = (1, 4, 8)


def fit(context: Context) -> Fitted:
    """Choose on validation the number of examples, fixed or nearest ones, and whether to calibrate."""
    plain = base_predictor(context)
    began = time.perf_counter()
    candidates = []
    for k in (k for k in COUNTS if k <= len(context.train)):
        text = replace(plain.text, k=k, examples_file=EXAMPLES)
        candidates += [
            replace(plain, text=replace(text, examples="fixed"), examples=diverse_examples(context.train, k)),
            replace(plain, text=replace(text, examples="nearest"), examples=context.train),
        ]
    choice = reworded(context, choose(context, candidates))
    right = corrected(context, choice)
    best = right.predictor
    limit, limit_record = choose_answer_limit(context, best)
    return Fitted(
        best.text, WeightsPart(), {EXAMPLES: examples_bytes(best.examples)}, **right.fields,
        max_new_tokens=limit, search_seconds=time.perf_counter() - began,
        chosen={"k": best.text.k, "examples": best.text.examples, **right.record, **limit_record,
                "candidates": choice.record},
        valid_loss=choice.log_loss(context.valid[:REOPEN_ROWS]), valid_score=right.score,
    )  # fmt: skip


def with_prompt(context: Context) -> Context:
    """The context with four fixed examples in every prompt, which are removed from the training rows."""
    examples = diverse_examples(context.train, COUNTS[1])
    text = replace(context.prompt_text.text, examples="fixed", k=len(examples), examples_file=EXAMPLES)
    rest = tuple(example for example in context.train if example not in examples)
    prompt = replace(context.prompt_text, text=text, examples=examples)
    return replace(context, prompt_text=prompt, train=rest, files=context.files | {EXAMPLES: examples_bytes(examples)})


def probe(plain: ModelPredictor, context: Context) -> ModelPredictor:
    """A candidate with prompts of middle length, whose speed is taken for all candidates."""
    k = min(COUNTS[len(COUNTS) // 2], len(context.train))
    return replace(plain, text=replace(plain.text, examples="nearest", k=k), examples=context.train)


def diverse_examples(examples: tuple[Example, ...], k: int) -> tuple[Example, ...]:
    """The first k examples with different answers; if there are fewer answers than k, more of the first ones."""
    first: list[Example] = []
    rest: list[Example] = []
    seen: set[str] = set()
    for example in examples:
        (rest if example.answer in seen else first).append(example)
        seen.add(example.answer)
    return tuple([*first, *rest][:k])


ABOUT = About(
    what="The base model with some training examples written into the prompt.",
    suits="few examples and a task that changes often: new examples work at once",
    colour=2, mark="D", weights="none",
)  # fmt: skip
METHOD = Method(
    name="few_shot",
    about=ABOUT,
    fit=fit,
    candidates=2 * len(COUNTS),
    with_prompt=with_prompt,
    probe=probe,
    answers_questions=False,
    instruction_of="instruct",
    left_out=3,
)
