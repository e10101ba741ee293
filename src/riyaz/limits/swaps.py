"""The user's own rows with a person swapped: how often does the answer change, and for whom does it get worse?

Where prompts hold pronouns, names or words of origin these are swapped. Beside that a sentence with a name is put
before every prompt: with a second name of the same group, which shows how much any other name changes, and with one of
another group.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from riyaz.data import Example
from riyaz.limits.inputs import NO_ROWS, Inputs, Rows
from riyaz.limits.sampled import sampled, short_of
from riyaz.limits.templates import read_data
from riyaz.metrics.intervals import wilson
from riyaz.metrics.paired import mcnemar_exact, paired_test
from riyaz.predictor import Predictor
from riyaz.results import Figure, Part
from riyaz.scoring import predict, score

LEAST = 20  # rows
VARIANTS = 4  # answers to each row: as it is, and three introductions, or two introductions and a swap
POSSESSIVE = re.compile(r"her(?=\s+\w)", re.IGNORECASE)  # before a word `her` is `his`, else `him`
BLIND = (
    "Only the listed words are swapped, in English; the names are examples of their groups. That an answer changes "
    "does not say which of the two is right; where rows have answers, the scores do."
)


def rows_of(inputs: Inputs) -> float:
    """How many answers `measure` asks for."""
    return VARIANTS * len(inputs.rows.test) if inputs.rows else 0.0


def measure(inputs: Inputs, share: float) -> tuple[list[Part], list[str]]:
    """The parts on the user's rows, and what was left out and why."""
    if inputs.rows is None or inputs.answering is None:
        return [], [f"people swapped in your rows: {NO_ROWS}"]
    rows = sampled(inputs.rows.test, share, LEAST)
    parts, left_out = [_introduced(inputs.answering, inputs.rows, rows)], []
    for kind, pairs in read_data("swaps.json")["words"].items():
        holding = [(row, changed) for row in rows if (changed := swapped(row.prompt, pairs)) != row.prompt]
        if holding:
            parts.append(_swapped(inputs.answering, inputs.rows, kind, pairs, holding, len(rows)))
        else:
            left_out.append(f"swapping words of {kind}: none of {len(rows):,} prompts holds one that is listed")
    return parts, left_out


def swapped(text: str, pairs: Sequence[Sequence[str]]) -> str:
    """The text with every listed word replaced by its counterpart, in the same case."""
    other: dict[str, str] = {}
    for first, second in pairs:
        other.setdefault(first.lower(), second)
        other.setdefault(second.lower(), first)
    words = "|".join(sorted(map(re.escape, other), key=len, reverse=True))

    def exchange(match: re.Match[str]) -> str:
        word = match[0]
        new = other[word.lower()]
        if word.lower() == "her":
            new = "his" if POSSESSIVE.match(text, match.start()) else "him"
        return (
            new.upper() if word.isupper() and len(word) > 1 else new[0].upper() + new[1:] if word[0].isupper() else new
        )

    return re.sub(rf"\b(?:{words})\b", exchange, text, flags=re.IGNORECASE)


def first_of(text: str, pairs: Sequence[Sequence[str]]) -> bool:
    """Whether the first listed word in a text is the first of its pair."""
    firsts, words = {first.lower() for first, _ in pairs}, {word.lower() for pair in pairs for word in pair}
    listed = (word for word in re.findall(r"\w+", text.lower()) if word in words)
    return next(listed, "") in firsts


def with_prompt(row: Example, prompt: str) -> Example:
    """The row with another text in its last turn."""
    return replace(row, messages=(*row.messages[:-1], {**row.messages[-1], "content": prompt}))


def _introduced(answering: Predictor, data: Rows, rows: Sequence[Example]) -> Part:
    """A name before every prompt: of one group, another of the same group, one of another group."""
    figures, notes = [], []
    introduced = read_data("swaps.json")["introduced"]
    own = next(iter(introduced.values()))["first"]  # the same two names in both comparisons
    answers = {name: _answers(answering, data, [_named(row, name) for row in rows]) for name in own}
    same = (answers[own[0]][0] != answers[own[1]][0]).astype(float)
    low, high = wilson(float(same.sum()), len(same))
    control = Figure(
        "the answer changes", float(same.mean()), low, high, len(rows), "share", "another name of the same group"
    )
    figures.append(control)
    for kind, names in introduced.items():
        texts, points = _answers(answering, data, [_named(row, names["second"][0]) for row in rows])
        changed = (texts != answers[own[0]][0]).astype(float)
        low, high = wilson(float(changed.sum()), len(rows))
        figures.append(Figure(
            "the answer changes", float(changed.mean()), low, high, len(rows), "share", kind,
            p_value=mcnemar_exact(changed, same),
        ))  # fmt: skip
        figures.append(_gain("score with that name, less without", points, answers[own[0]][1], kind))
        notes.append(f"{kind}: {names['says']}; p: against another name of the same group, exact McNemar test.")
    what = (
        f'{len(rows):,} of {len(data.test):,} of your rows with "My name is {own[0]}." before them, and with another '
        "name: how often the answer changes, and what it scores."
    )
    notes += short_of(len(rows), len(data.test), "rows")
    return Part("your rows, introduced by name", data.source, what, figures, BLIND, notes)


def _swapped(
    answering: Predictor, data: Rows, kind: str, pairs: Sequence[Sequence[str]],
    holding: Sequence[tuple[Example, str]], total: int,
) -> Part:  # fmt: skip
    before = _answers(answering, data, [row for row, _ in holding])
    after = _answers(answering, data, [with_prompt(row, changed) for row, changed in holding])
    first = np.array([first_of(row.prompt, pairs) for row, _ in holding])
    changed = (before[0] != after[0]).astype(float)
    figures = []
    for group, members in (
        ("all", np.ones(len(first), bool)),
        ("as written: the first", first),
        ("as written: the second", ~first),
    ):
        if members.any():
            low, high = wilson(float(changed[members].sum()), int(members.sum()))
            figures.append(
                Figure(
                    "the answer changes", float(changed[members].mean()), low, high, int(members.sum()), "share", group
                )
            )
    # every row has both versions: one with the first words, one with the second
    firsts, seconds = np.where(first, before[1], after[1]), np.where(first, after[1], before[1])
    figures.append(_gain("score with the second word, less with the first", seconds, firsts, "all"))
    hold = f"{len(holding):,} of {total:,} of your prompts hold a listed word of {kind}"
    words = ", ".join("/".join(pair) for pair in pairs)
    return Part(
        f"your rows, {kind} swapped",
        data.source,
        f"{hold}; it is swapped and they are asked again.",
        figures,
        BLIND,
        [f"First and second words: {words}."],
    )


def _named(row: Example, name: str) -> Example:
    return with_prompt(row, f"My name is {name}. {row.prompt}")


def _answers(answering: Predictor, data: Rows, rows: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    """Texts and scores (n,) of the answers."""
    predictions = predict(answering, rows)
    return np.array([each.text for each in predictions]), score(data.task, predictions, rows).rows


def _gain(name: str, after: np.ndarray, before: np.ndarray, group: str) -> Figure:
    """The paired difference of two scores (n,)."""
    test = paired_test(after, before)
    return Figure(
        name, test.difference, test.low, test.high, len(after), "score", group, even=0.0, p_value=test.p_value
    )
