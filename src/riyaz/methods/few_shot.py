"""Examples in the prompt: 1, 4 or 8 of them, the same for every question or the nearest to each by BM25."""

from dataclasses import replace

from riyaz.artifact import EXAMPLES, WeightsPart, examples_bytes
from riyaz.data import Example
from riyaz.methods.base import Context, Fitted, Method
from riyaz.methods.choices import base_predictor, choose, with_room
from riyaz.predictor import ModelPredictor
from riyaz.scoring import KNOWN_BY, answer_log_loss

COUNTS = (1, 4, 8)


def fit(context: Context) -> Fitted:
    """Choose on validation how many examples to show, which, and whether to calibrate."""
    plain = base_predictor(context)
    candidates = []
    for k in (k for k in COUNTS if k <= len(context.train)):
        text = replace(plain.text, k=k, examples_file=EXAMPLES)
        candidates += [
            replace(plain, text=replace(text, examples="fixed"), examples=spread(context.train, k)),
            replace(plain, text=replace(text, examples="nearest"), examples=context.train),
        ]
    choice = choose(context, candidates)
    best = choice.predictor
    max_new_tokens, rooms = with_room(context, best)
    return Fitted(
        best.text, WeightsPart(), {EXAMPLES: examples_bytes(best.examples)}, calibrated=choice.calibrated,
        max_new_tokens=max_new_tokens,
        chosen={"k": best.text.k, "examples": best.text.examples, "calibrated": choice.calibrated, **rooms,
                "candidates": choice.record},
        valid_loss=answer_log_loss(best, context.valid[:KNOWN_BY]), valid_score=choice.score,
    )  # fmt: skip


def around(context: Context) -> Context:
    """The context of a method that trains weights with examples before every question; they are no rows any more."""
    shown = spread(context.train, COUNTS[1])
    text = replace(context.around.text, examples="fixed", k=len(shown), examples_file=EXAMPLES)
    rest = tuple(example for example in context.train if example not in shown)
    prompt = replace(context.around, text=text, examples=shown)
    return replace(context, around=prompt, train=rest, files=context.files | {EXAMPLES: examples_bytes(shown)})


def probe(plain: ModelPredictor, context: Context) -> ModelPredictor:
    """A candidate of middling length, whose speed stands for all."""
    k = min(COUNTS[len(COUNTS) // 2], len(context.train))
    return replace(plain, text=replace(plain.text, examples="nearest", k=k), examples=context.train)


def spread(examples: tuple[Example, ...], k: int) -> tuple[Example, ...]:
    """k examples in training order, with as many different answers as there are."""
    first: list[Example] = []
    rest: list[Example] = []
    seen: set[str] = set()
    for example in examples:
        (rest if example.answer in seen else first).append(example)
        seen.add(example.answer)
    return tuple([*first, *rest][:k])


METHOD = Method(name="few_shot", fit=fit, texts=2 * len(COUNTS), around=around, probe=probe)
