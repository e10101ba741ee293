"""Context: facts found in long texts by depth and length, loss by position, and what happens beyond the end."""

import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from riyaz.data.general_text import general_text
from riyaz.engine.request import Request
from riyaz.errors import RiyazError
from riyaz.limits import growing
from riyaz.limits.ask import first_token, plain
from riyaz.limits.figures import share_of
from riyaz.limits.inputs import NO_MODEL, NO_ROWS, Inputs, Work
from riyaz.limits.sampled import shortest
from riyaz.metrics.intervals import bca_bootstrap
from riyaz.predictor import FreePredictor, ModelPredictor
from riyaz.results import Curve, Figure, Part, Suite

LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
SEVERAL = 3  # facts in one text
ANSWER = 12  # tokens
NEAR = 0.8  # share of the context from which a prompt is near the limit
PLACES = (
    *(
        "Oslo",
        "Lima",
        "Cairo",
        "Delhi",
        "Quito",
        "Accra",
        "Hanoi",
        "Perth",
        "Sofia",
        "Turin",
        "Minsk",
        "Dakar",
        "Malmo",
    ),
    *("Leeds", "Basel"),
)
BLIND = (
    "One kind of fact in one kind of text, asked in the words in which it stands there. Finding it is the least that a "
    "long context must allow; using several facts together is harder."
)
BLIND_LOSS = "One text. A falling loss says that earlier words help; not that all of them are used."
TESTED = 16  # blocks of positions


def lengths(context: int) -> list[int]:
    """The lengths of the grid: the powers of two that fit the context, and at most 7/8 of it."""
    return [length for length in LENGTHS if length <= context] or [context // 2]


def work(inputs: Inputs) -> Work:
    """The tokens of every text of the grid, of the long text, and some words of answers."""
    if inputs.model is None:
        return Work()
    context = inputs.model.lm.context
    grid = sum(lengths(context)) * (len(DEPTHS) + 1)
    read = grid + min(context, max(LENGTHS)) + growing.tokens_of(min(context, max(LENGTHS)))
    rows = growing.QUESTIONS * len(growing.EXAMPLES) if inputs.rows else 0
    return Work(read, ANSWER * len(lengths(context)) * (len(DEPTHS) + SEVERAL), rows)


def measure(inputs: Inputs, share: float = 1.0) -> Suite:
    """The grid up to the trained length, loss by position, a prompt beyond the end, and the user's rows."""
    if inputs.model is None:
        return Suite("context", [], [NO_MODEL])
    model = plain(inputs.model)
    parts = [_grid(model, share), _loss(model, share)]
    left_out = []
    answering = inputs.answering if inputs.answering is not None and inputs.answering.has_model else None
    if model.tokenizer.turns_kept is None:
        parts.append(growing.made_up(model, share))
    else:
        left_out.append("examples as they grow: the chat template keeps no earlier turns")
    parts.append(growing.facts(model, model.tokenizer.decode(filler_ids(model)), PLACES, share))
    if answering is not None:
        own = (growing.own_examples(answering, inputs, share), growing.own_passages(answering, inputs, share))
        parts += [part for part in own if part is not None]
    parts.append(_beyond(model))
    if inputs.rows is None or answering is None:
        return Suite("context", parts, [*left_out, f"how near your prompts come to the limit: {NO_ROWS}"])
    return Suite("context", [*parts, _own(answering, inputs)], left_out)


def filler_ids(model: FreePredictor) -> list[int]:
    """The tokens of Python's help topics, as many as the longest text needs."""
    longest = min(model.lm.context, max(LENGTHS))
    return model.tokenizer.encode(general_text(None)[: 8 * longest])[:longest]


def _grid(model: FreePredictor, share: float) -> Part:
    every = lengths(model.lm.context)
    taken = every[: shortest(every, share)]
    figures, points, cells, ids = [], [], [], filler_ids(model)
    recalled: dict[float, list[float]] = {depth: [] for depth in DEPTHS}
    for length in taken:
        hits = [_recalled(model, ids, length, [depth], seed=place)[0] for place, depth in enumerate(DEPTHS)]
        for depth, hit in zip(DEPTHS, hits):
            recalled[depth].append(hit)
        several = _recalled(model, ids, length, [(i + 0.5) / SEVERAL for i in range(SEVERAL)], seed=9)
        figures += [
            share_of("one fact found", hits, f"{length:,} tokens"),
            share_of(f"of {SEVERAL} facts found", several, f"{length:,} tokens"),
        ]
        points.append((float(length), float(np.mean(hits))))
        cells.append(f"{length:,} tokens {''.join('+' if hit else '-' for hit in hits)}")
    figures += [share_of("one fact found", hits, f"depth {depth:.0%}") for depth, hits in recalled.items()]
    what = (
        f'A sentence such as "{growing.FACT.format(place=PLACES[0], number=4711)}" at {len(DEPTHS)} depths in texts '
        f"of up to {taken[-1]:,} tokens, and {SEVERAL} of them at once; the context is {model.lm.context:,}."
    )
    depths = ", ".join(f"{depth:.0%}" for depth in DEPTHS)
    notes = [f"One fact, found (+) or not (-), at depths of {depths}: {'; '.join(cells)}."]
    if len(taken) < len(every):
        missing = ", ".join(f"{length:,}" for length in every if length not in taken)
        notes.append(f"The budget was too short for texts of {missing} tokens.")
    curve = Curve("one fact found", "tokens of the text", "share found", points)
    return Part("facts in a long text", "Python's help topics", what, figures, BLIND, notes, [curve])


def _recalled(model: FreePredictor, ids: Sequence[int], length: int, depths: Sequence[float], seed: int) -> list[float]:
    """Whether the number of each fact is in the answer to its question; one text holds all facts."""
    draw = random.Random(1000 * length + seed)
    places = draw.sample(PLACES, len(depths))
    numbers = [str(draw.randrange(1000, 9999)) for _ in depths]
    most, filler = min(length, model.lm.context) - ANSWER, ids[:length]
    while True:  # text joined from pieces has other tokens than its pieces
        text = _text(model, filler, depths, [growing.FACT.format(place=p, number=n) for p, n in zip(places, numbers)])
        over = max(len(ids) for ids in model.tokenizer.render([_conversation(text, place) for place in places])) - most
        if over <= 0 or not filler:
            break
        filler = filler[: max(0, len(filler) - over)]
    answers = model.answers([_conversation(text, place) for place in places], max_tokens=ANSWER)
    return [float(number in answer.text) for number, answer in zip(numbers, answers)]


def _text(model: FreePredictor, filler: Sequence[int], depths: Sequence[float], facts: Sequence[str]) -> str:
    """The filler with each fact at its depth."""
    cuts = [0, *(round(depth * len(filler)) for depth in depths), len(filler)]
    between = [model.tokenizer.decode(filler[start:end]) for start, end in pairwise(cuts)]
    return "\n".join([piece for pair in zip(between, facts) for piece in pair] + between[-1:])


def _conversation(text: str, place: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{text}\n\n{growing.QUESTION.format(place=place)}"}]


def _loss(model: FreePredictor, share: float) -> Part:
    """Loss by position on one text as long as the budget allows, in TESTED blocks."""
    room = min(model.lm.context - 1, max(LENGTHS), int(share * sum(lengths(model.lm.context))))
    ids = filler_ids(model)[: max(64, room)]
    (nats,) = model.lm.logprobs([Request(0, first_token(model), adapter=model.adapter)], [ids])
    blocks = np.array_split(-nats.astype(float), min(TESTED, len(nats) // 4))
    ends = np.cumsum([len(block) for block in blocks])
    halves = [np.concatenate(blocks[: len(blocks) // 4 or 1]), blocks[-1]]
    figures = [
        Figure(name, float(half.mean()), *bca_bootstrap(half), len(half), "nats", group)
        for half, name, group in zip(halves, ("loss per token",) * 2, ("the first quarter", "the last sixteenth"))
    ]
    what = f"The loss of every token of a text of {len(ids):,} tokens; the context is {model.lm.context:,}."
    points = [(float(end), float(block.mean())) for end, block in zip(ends, blocks)]
    curve = Curve("loss by position", "position in the text", "nats per token", points, "nats")
    return Part("loss by position", "Python's help topics", what, figures, BLIND_LOSS, [], [curve])


def _beyond(model: FreePredictor) -> Part:
    """Ask with a prompt longer than the context: it must be refused, never cut silently."""
    word = model.tokenizer.decode(model.tokenizer.encode("one two three four five six seven eight nine ten "))
    count = len(model.tokenizer.encode(word * 4)) // 4 or 1
    refused, said = 0.0, ""
    try:
        model.prepare([[{"role": "user", "content": word * (model.lm.context // count + 2)}]])
    except RiyazError as error:
        refused, said = 1.0, str(error)
    what = f"A prompt longer than the context of {model.lm.context:,} tokens."
    figures = [Figure("refused", refused, n=1)]
    return Part(
        "beyond the trained length",
        "a long prompt",
        what,
        figures,
        "Other programs may cut it silently.",
        [f"It says: {said}"],
    )


def _own(answering: ModelPredictor, inputs: Inputs) -> Part:
    """How many of the user's prompts come near the limit, with everything that the artifact puts before them."""
    assert inputs.rows is not None
    rows, context = inputs.rows.test, answering.lm.context
    whole = answering.tokenizer.render(answering.conversations([row.messages for row in rows]))
    taken = np.array([len(ids) for ids in whole]) + answering.lm.adapter_tokens(answering.adapter)
    near = (taken >= NEAR * context).astype(float)
    figures = [
        Figure("longest prompt", float(taken.max()), n=len(rows), unit="tokens"),
        Figure("median prompt", float(np.median(taken)), n=len(rows), unit="tokens"),
        share_of(f"prompts of {NEAR:.0%} of the context or more", near),
        share_of(
            "prompts beyond it, which lose passages or examples, or are refused",
            (taken > growing.longest_prompt(answering, rows)).astype(float),
        ),
    ]
    what = f"{len(rows):,} of your rows as the model reads them, in a context of {context:,} tokens."
    return Part("your prompts", inputs.rows.source, what, figures, "Rows that are longer than these are not seen.")
