"""True and false answers to one question, and which a model finds likelier: TruthfulQA and HaluEval from a path."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from riyaz.data.tables import Problems, Table
from riyaz.errors import RiyazError, brief
from riyaz.limits.ask import answer_nats, fitting, plain
from riyaz.limits.figures import source_of
from riyaz.limits.sampled import expect_some, sampled, short_of, too_long
from riyaz.metrics.intervals import interval
from riyaz.predictor import ModelPredictor
from riyaz.results import Figure, Part

LEAST = 20
HALUEVAL = {  # answers -> the fields before the question
    ("right_answer", "hallucinated_answer"): ("knowledge", "question"),
    ("right_response", "hallucinated_response"): ("knowledge", "dialogue_history"),
    ("right_summary", "hallucinated_summary"): ("document",),
}
BLIND = {
    "TruthfulQA": "Questions that people get wrong, mostly of the United States; a small model may be at the level of "
    "guessing for want of knowledge, not for want of truth. Given answers are compared; the model writes none.",
    "HaluEval": "The false answers were written by another language model, and their style may give them away.",
}


@dataclass(frozen=True)
class Claims:
    """A question with its answers; the first is the best true one, `true` says which are true."""

    question: str
    answers: tuple[str, ...]
    true: tuple[bool, ...]
    single: int  # so many of the first answers are those of MC1, where only one is true


@dataclass(frozen=True)
class ClaimSet:
    """The questions of one file."""

    name: str
    source: str
    items: tuple[Claims, ...]


def read(table: Table) -> ClaimSet:
    """The questions of a table. Raises RiyazError for rows without a true or a false answer, or an unknown format."""
    columns = set(table.columns)
    halu = next((pair for pair in HALUEVAL if set(pair) <= columns), None)
    if halu is None and not {"mc1", "mc2"} <= columns and not {"mc1_targets", "mc2_targets"} <= columns:
        what = "has no fields of TruthfulQA or HaluEval"
        raise RiyazError(what, str(table.path), "give a file in one of these formats")
    problems, items = Problems(table.path), []
    for line, row in table.rows:
        try:
            items.append(_halueval(row, halu) if halu else _truthful(row))
        except (KeyError, TypeError, ValueError, SyntaxError) as error:
            problems.add(line, f"no true answer beside a false one: {error}")
    problems.check("correct the file, or leave the row out")
    return ClaimSet("HaluEval" if halu else "TruthfulQA", source_of(table.path), tuple(items))


def _halueval(row: Mapping[str, object], pair: tuple[str, str]) -> Claims:
    texts = [str(row[name] or "").strip() for name in pair]
    before = [str(row[name]).strip() for name in HALUEVAL[pair] if row.get(name)]
    return _valid(Claims("\n\n".join(before), (texts[0], texts[1]), (True, False), 2))


def _truthful(row: Mapping[str, object]) -> Claims:
    """Lin et al. 2022 (arXiv 2109.07958): as {"choices", "answer"} and {text: 1 or 0}, as its authors' mc_task.json, or
    as Hugging Face has it."""
    if "mc1_targets" in row:
        first, second = (_targets(row[name]) for name in ("mc1_targets", "mc2_targets"))
    else:
        one, two = _mapping(row["mc1"]), _mapping(row["mc2"])
        first = {str(text): place == one["answer"] for place, text in enumerate(one["choices"])}
        second = {str(text): bool(value) for text, value in two.items()}
    best = sorted(first, key=lambda text: not first[text])
    rest = [text for text in second if text not in first]
    true = [*(first[text] for text in best), *(second[text] for text in rest)]
    return _valid(Claims(str(row["question"]), (*best, *rest), tuple(true), len(best)))


def _targets(value: object) -> dict[str, bool]:
    targets = _mapping(ast.literal_eval(value) if isinstance(value, str) else value)
    if "choices" not in targets:  # {text: 1 or 0}, as its authors' mc_task.json has it
        return {str(text): bool(label) for text, label in targets.items()}
    return {str(text): bool(label) for text, label in zip(targets["choices"], targets["labels"], strict=True)}


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{brief(value)} is no object")
    return value


def _valid(claims: Claims) -> Claims:
    if not claims.question or not all(claims.answers):
        raise ValueError("a question or an answer is empty")
    if len(set(claims.true)) < 2 or not claims.true[0]:
        raise ValueError("all are true, or all are false")
    return claims


def measure(predictor: ModelPredictor, claims: ClaimSet, share: float) -> Part:
    """MC1: how often the best true answer is the likeliest of MC1's; MC2: the true answers' share of the probability of
    all. HaluEval: how often the true answer is likelier per token than the false one."""
    drawn, model = sampled(claims.items, share, LEAST), plain(predictor)
    conversations = [[{"role": "user", "content": item.question}] for item in drawn]
    places = fitting(model, conversations, [item.answers for item in drawn])
    items = [drawn[place] for place in places]
    expect_some(items, claims.source, model.lm.context)
    scores = answer_nats(model, [conversations[place] for place in places], [item.answers for item in items])
    if claims.name == "HaluEval":
        lengths = [[len(ids) for ids in model.tokenizer.answer_ids(list(item.answers))] for item in items]
        means = [nats / np.array(count) for nats, count in zip(scores, lengths)]
        figures = [_share("the true answer is likelier", [float(each[0] > each[1]) for each in means], 0.5)]
        how = "log-probability per token, as the false answers are longer"
    else:
        figures = multiple_choice(items, scores)
        how = "total log-probability in the model's chat template, without examples before it"
    what = f"{len(items):,} of {len(claims.items):,} questions; compared is the {how}."
    notes = short_of(len(drawn), len(claims.items), "questions")
    notes += too_long(len(drawn) - len(items), model.lm.context, "questions")
    return Part(claims.name, claims.source, what, figures, BLIND[claims.name], notes)


def multiple_choice(items: Sequence[Claims], scores: Sequence[np.ndarray]) -> list[Figure]:
    """MC1 and MC2 of TruthfulQA from the log-probabilities of every answer, and what guessing gives."""
    first = [float(np.argmax(nats[: item.single]) == 0) for item, nats in zip(items, scores)]
    second, chance = [], []
    for item, nats in zip(items, scores):
        true = np.array(item.true)
        p = np.exp(nats - nats.max())
        second.append(float(p[true].sum() / p.sum()))
        chance.append(float(true.mean()))
    guess = float(np.mean([1 / item.single for item in items]))
    return [_share("MC1: the best true answer is the likeliest", first, guess),
            _share("MC2: share of probability on true answers", second, float(np.mean(chance)))]  # fmt: skip


def _share(name: str, rows: Sequence[float], even: float) -> Figure:
    values = np.array(rows)
    low, high = interval(values)
    return Figure(name, float(values.mean()), low, high, len(values), even=even)


def texts(sets: Sequence[ClaimSet]) -> list[str]:
    """What `measure` reads, from which its time is estimated."""
    return [item.question + " ".join(item.answers) for each in sets for item in each.items]
