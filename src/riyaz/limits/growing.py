"""Context as it grows: examples before a question, and passages of which one holds the answer.

Of each count, up to the trained length, the loss of the right answer and how often it is given are measured. A prompt
that is longer than the context is not asked, and that is said.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from riyaz.artifact import TextPart
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.limits import passages
from riyaz.limits.inputs import Inputs
from riyaz.limits.sampled import sampled, shortest
from riyaz.limits.templates import read_data
from riyaz.metrics.intervals import bca_bootstrap, interval
from riyaz.predictor import FreePredictor, ModelPredictor, predictor_for
from riyaz.prompting import messages_for
from riyaz.results import Curve, Figure, Part
from riyaz.retrieval.search import Hit
from riyaz.scoring import answer_log_probabilities, by_text, predict, score

EXAMPLES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
PASSAGES = (1, 2, 4, 8, 16, 32, 64, 128)
QUESTIONS, FACTS = 16, 6  # questions after examples, and after passages
SHORT, WRITTEN = 300, 12  # characters of a passage of riyaz's own, tokens of an answer
FACT = "The secret number of {place} is {number}."
QUESTION = "What is the secret number of {place}? Answer with the number alone."
NUMBER_TASK = Task("short", (), "exact_match", "", "")
BLIND = (
    "One order of the examples, each count with those of the smaller ones. A falling loss says that examples help with "
    "this task; not that it was understood."
)
BLIND_PASSAGES = (
    "The right passage is always among them, at places from the first to the last; a search that does not find it is "
    "not seen here."
)
Measured = tuple[np.ndarray, np.ndarray]  # loss of the right answer in nats (n,), and whether it is given, 0 to 1 (n,)


@dataclass(frozen=True)
class Counts:
    """Counts that fit the context with the tokens of their longest prompt, ascending; and the first that does not."""

    fit: dict[int, int]
    over: tuple[int, int] | None


def counted(counts: Sequence[int], tokens: Callable[[int], int], room: int) -> Counts:
    """The counts whose longest prompt has at most `room` tokens."""
    fit: dict[int, int] = {}
    for count in counts:
        size = tokens(count)
        if size > room:
            return Counts(fit, (count, size))
        fit[count] = size
    return Counts(fit, None)


def longest_prompt(model: ModelPredictor, rows: Sequence[Example]) -> int:
    """Tokens of the longest prompt that leaves room for an answer and for those of the rows."""
    answers = model.tokenizer.answer_ids([row.said for row in rows])
    return model.context - max(model.max_new_tokens, *map(len, answers))


def tokens_of(context: int) -> float:
    """About how many tokens both parts of riyaz's own read."""
    return 2.0 * context + 2.0 * FACTS * context


def with_examples(predictor: ModelPredictor, examples: Sequence[Example]) -> ModelPredictor:
    """The predictor with these examples before every question, in the place of its own."""
    text = replace(predictor.text, examples="fixed", k=len(examples))
    return replace(predictor, text=text, examples=tuple(examples))


def examples_grow(predictor: ModelPredictor, pool: Sequence[Example], questions: Sequence[Example], source: str,
                  share: float, name: str = "examples as they grow") -> Part:  # fmt: skip
    """Loss and score of the questions after more and more examples of the pool; the predictor has the task."""
    task = predictor.task
    assert task is not None

    def tokens(count: int) -> int:
        rows = [messages_for(predictor.text, task, row.messages, pool[:count]) for row in questions]
        return max(map(len, predictor.tokenizer.render(rows)))

    def measured(count: int) -> Measured:
        model = with_examples(predictor, pool[:count])
        loss = np.array([-float(part.sum(dtype=np.float64)) for part in answer_log_probabilities(model, questions)])
        return loss, score(by_text(task), predict(model, questions), questions).rows

    counts = counted([count for count in EXAMPLES if count <= len(pool)], tokens,
                     longest_prompt(predictor, questions))  # fmt: skip
    even = 1 / len(task.labels) if task.kind == "closed" else None
    what = f"{len(questions)} questions after up to {{most:,}} examples; score: {task.metric}."
    return _part(name, source, what, BLIND, counts, measured, share, "example", even)


def own_examples(predictor: ModelPredictor, inputs: Inputs, share: float) -> Part | None:
    """The user's rows after examples that are rows too; None without rows, or where the template drops turns."""
    rows = inputs.rows
    if rows is None or predictor.task is None or len(rows.calibrate) < 2 or predictor.tokenizer.turns_kept is not None:
        return None
    questions = sampled(rows.test, QUESTIONS / len(rows.test), QUESTIONS)[:QUESTIONS]
    pool = list(rows.calibrate)
    random.Random(0).shuffle(pool)
    return examples_grow(predictor, pool, questions, rows.source, share, "your rows after examples as they grow")


def made_up(model: FreePredictor, share: float) -> Part:
    """Things of two kinds that have made-up names, which only examples tell; the nouns of the questions are in none."""
    known = read_data("kinds.json")
    task = Task("closed", tuple(sorted(known["names"])), "accuracy", known["instruction"], "")
    prompted = predictor_for(replace(model, text=TextPart(task.instruction), task=task))
    draw = random.Random(0)
    rows: list[list[Example]] = []
    for held, adjectives in ((slice(None, -8), known["adjectives"]), (slice(-8, None), known["adjectives"][:1])):
        made = [
            Example(({"role": "user", "content": f"a {adjective} {noun}"},), (name,))
            for name, nouns in zip(known["names"], known["kinds"]) for noun in nouns[held] for adjective in adjectives
        ]  # fmt: skip
        draw.shuffle(made)
        rows.append(made)
    return examples_grow(prompted, rows[0], rows[1], "made-up names of two kinds of things, written for riyaz", share)


def passages_grow(model: FreePredictor, rows: Sequence[Example], right: Sequence[Hit], others: Sequence[Hit],
                  source: str, share: float, name: str = "passages as they grow") -> Part:  # fmt: skip
    """Loss and answers of the rows with the right passage of each among more and more others."""

    def among(count: int) -> list[list[Hit]]:
        hits = []
        for place, hit in enumerate(right):
            rest = [each for each in others if each.doc_id != hit.doc_id][: count - 1]
            at = round(place * len(rest) / max(1, len(right) - 1))
            hits.append([*rest[:at], hit, *rest[at:]])
        return hits

    def tokens(count: int) -> int:
        prompts = [
            messages_for(model.text, model.task, row.messages, (), hits) for row, hits in zip(rows, among(count))
        ]
        return max(map(len, model.tokenizer.render(prompts)))

    def measured(count: int) -> Measured:
        loss = [-float(part.sum(dtype=np.float64)) for part in passages.accepted_nats(model, rows, among(count))]
        said = passages.answers(model, rows, among(count))
        holds = [any(answer.lower() in text.lower() for answer in row.answers) for row, text in zip(rows, said)]
        return np.array(loss), np.array(holds, float)

    counts = counted([count for count in PASSAGES if count <= 1 + len(others)], tokens,
                     longest_prompt(model, rows))  # fmt: skip
    what = (
        f"{len(rows)} questions with the passage that holds the answer among up to {{most:,}}; the "
        "score is how often the right answer stands in the model's."
    )
    return _part(name, source, what, BLIND_PASSAGES, counts, measured, share, "passage", None)


def own_passages(predictor: ModelPredictor, inputs: Inputs, share: float) -> Part | None:
    """The user's rows among their documents; None without documents, or where labels are chosen."""
    if inputs.rows is None or not inputs.documents or predictor.has_labels or predictor.has_questions:
        return None
    every = passages.cases(inputs.rows.test, inputs.documents)
    used = sampled(every, FACTS / max(1, len(every)), FACTS)[:FACTS]
    others = list({case.passage.doc_id: case.passage for case in passages.cases(
        (*inputs.rows.test, *inputs.rows.calibrate), inputs.documents)}.values())  # fmt: skip
    if len(used) < 2 or len(others) < 2:
        return None
    model = passages.reading(predictor)
    model = replace(model, text=replace(model.text, examples="none"))
    rows, right = [case.row for case in used], [case.passage for case in used]
    name = "your rows among passages as they grow"
    return passages_grow(model, rows, right, others, inputs.rows.source, share, name)


def facts(model: FreePredictor, filler: str, places: Sequence[str], share: float) -> Part:
    """Short passages of a long text, into one of which a sentence with a made-up number is put."""
    draw = random.Random(0)
    parts = [filler[at : at + SHORT].strip() for at in range(0, len(filler) - SHORT, SHORT)][: PASSAGES[-1] + FACTS]
    hits = [Hit(str(place), "", "", 0, len(text), text, 1.0) for place, text in enumerate(parts)]
    rows, right = [], []
    for place, hit in zip(places[:FACTS], hits):
        number = str(draw.randrange(1000, 9999))
        question = {"role": "user", "content": QUESTION.format(place=place)}
        rows.append(Example((question,), (number,)))
        right.append(replace(hit, text=f"{hit.text} {FACT.format(place=place, number=number)}"))
    predictor = replace(model, text=TextPart(passages=1), task=NUMBER_TASK, max_new_tokens=WRITTEN)
    return passages_grow(predictor, rows, right, hits[FACTS:], "Python's help topics", share)


def _part(
    name: str, source: str, what: str, blind: str, counts: Counts, measured: Callable[[int], Measured], share: float,
    thing: str, even: float | None,
) -> Part:  # fmt: skip
    """The figures and the curves of every count that the budget allows."""
    every = list(counts.fit)
    taken = every[: shortest(list(counts.fit.values()), share)]
    figures, losses, scores = [], [], []
    for count in taken:
        loss, right = measured(count)
        group = f"{count:,} {thing}{'' if count == 1 else 's'}"
        figures += [
            Figure("loss of the right answer", float(loss.mean()), *bca_bootstrap(loss), len(loss), "nats", group),
            Figure("score", float(right.mean()), *interval(right), len(right), "share", group, even),
        ]
        losses.append((float(count), float(loss.mean())))
        scores.append((float(count), float(right.mean())))
    notes = []
    if len(taken) < len(every):
        notes.append(
            f"The budget was too short for {', '.join(f'{count:,}' for count in every[len(taken) :])} {thing}s."
        )
    if counts.over is not None:
        count, tokens = counts.over
        notes.append(f"{count:,} {thing}s make a prompt of {tokens:,} tokens, longer than the context: not asked.")
    curves = [
        Curve(f"loss by {thing}s", f"{thing}s in the prompt", "nats per answer", losses, "nats"),
        Curve(f"score by {thing}s", f"{thing}s in the prompt", "score", scores),
    ]
    return Part(name, source, what.format(most=taken[-1] if taken else 0), figures, blind, notes, curves)
