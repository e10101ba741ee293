"""How fragile: how often an answer stays when the question is put otherwise, labels are renamed, or "not" is added."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from riyaz.data import Example
from riyaz.limits.ask import answer_nats, plain, text_nats
from riyaz.limits.figures import difference_of, share_of
from riyaz.limits.inputs import NO_MODEL, NO_ROWS, Inputs, Rows, Work
from riyaz.limits.reworded import CHANGES
from riyaz.limits.sampled import sampled, short_of
from riyaz.limits.swaps import with_prompt
from riyaz.limits.templates import read_data
from riyaz.metrics.groups import group_numbers, within
from riyaz.metrics.paired import mcnemar_exact
from riyaz.predictor import ClosedPredictor, ModelPredictor, Predictor
from riyaz.results import Figure, Part, Suite
from riyaz.scoring import predict, score

LEAST = 20
BLIND = (
    "Changes by rule, not by people. An answer that stays does not show that the question was understood; one that "
    "changes shows that the wording decided."
)
BLIND_NOT = "Short sentences in English. A model can do this by the words alone, without a picture of the world."


def work(inputs: Inputs) -> Work:
    """Easy questions in several wordings, and two answers to each row for every change."""
    rows = Work(rows=(len(CHANGES) + 2) * len(inputs.rows.test)) if inputs.rows else Work()
    return rows if inputs.model is None else rows + Work(read=24 * (len(CHANGES) + 3) * 60 + 24 * 4 * 8)


def measure(inputs: Inputs, share: float = 1.0) -> Suite:
    """Easy questions, negation, and the user's rows put otherwise."""
    parts, left_out = [], []
    if inputs.model is None:
        left_out.append(f"easy questions and negation: {NO_MODEL}")
    else:
        parts += [_easy(inputs.model), _negation(inputs.model)]
    if inputs.rows is None or inputs.answering is None:
        return Suite("fragile", parts, [*left_out, f"your rows put otherwise: {NO_ROWS}"])
    rows = sampled(inputs.rows.test, share, LEAST)
    parts.append(_own(inputs.answering, inputs.rows, rows))
    answering = inputs.answering
    if answering.has_model and answering.has_labels and answering.head is None:  # else nothing reads their names
        parts.append(_labels(answering, inputs.rows, rows))
    return Suite("fragile", parts, left_out)


def _easy(predictor: ModelPredictor) -> Part:
    """The likeliest of four given answers to easy questions, as they are and put otherwise."""
    model, items = plain(predictor), read_data("questions.json")["questions"]
    answers = [item["answers"] for item in items]

    def chosen(prompts: Sequence[str]) -> np.ndarray:
        conversations = [[{"role": "user", "content": text}] for text in prompts]
        return np.array([int(np.argmax(nats)) for nats in answer_nats(model, conversations, answers)])

    before = chosen([item["question"] for item in items])
    right = (before == 0).astype(float)
    figures = [share_of("right", right, "as written", 1 / len(answers[0]))]
    variants = {"asked in other words": [item["again"] for item in items]}
    variants |= {name: [change(item["question"]) for item in items] for name, change in CHANGES.items()}
    for name, prompts in variants.items():
        places = [i for i, text in enumerate(prompts) if text != items[i]["question"]]
        if len(places) >= LEAST:
            after = chosen(prompts)[places]
            figures += _stays(before[places], after, (after == 0).astype(float), right[places], name)
    listed = [f"{item['question']}\nChoose one of: {', '.join(item['answers'])}." for item in items]
    turned = [f"{item['question']}\nChoose one of: {', '.join(item['answers'][::-1])}." for item in items]
    one, two = chosen(listed), chosen(turned)
    figures += _stays(one, two, (two == 0).astype(float), (one == 0).astype(float), "answers listed in reverse order")
    what = f"{len(items)} easy questions with four given answers, of which the likeliest counts."
    return Part("easy questions put otherwise", "written for riyaz", what, figures, BLIND)


def _stays(
    before: np.ndarray,
    after: np.ndarray,
    right_after: np.ndarray,
    right: np.ndarray,
    group: str,
    clusters: np.ndarray | None = None,
) -> list[Figure]:
    """How often the answer stays, and the paired difference of the scores with its test."""
    return [
        share_of("the answer stays", (before == after).astype(float), group, clusters=clusters),
        difference_of("score, less as written", right_after, right, group, clusters),
    ]


def _negation(predictor: ModelPredictor) -> Part:
    """Whether the word that makes a sentence true is the likelier, with and without "not"."""
    model, items = plain(predictor), read_data("negations.json")["statements"]
    texts = [f"{item[start]} {item[end]}." for item in items for start in ("is", "not") for end in ("true", "false")]
    nats = text_nats(model, texts).reshape(len(items), 2, 2)
    plainly, negated = (nats[:, 0, 0] > nats[:, 0, 1]).astype(float), (nats[:, 1, 1] > nats[:, 1, 0]).astype(float)
    figures = [
        share_of("the true sentence is likelier", plainly, "without not", 0.5),
        share_of("the true sentence is likelier", negated, "with not", 0.5, mcnemar_exact(plainly, negated)),
    ]
    what = (
        f'{len(items)} statements: the true one of two is likelier as in "{texts[0]}" against "{texts[1]}", and '
        f'with not as in "{texts[3]}" against "{texts[2]}"; p: with not against without it.'
    )
    return Part("negation", "written for riyaz", what, figures, BLIND_NOT)


def _own(answering: Predictor, data: Rows, rows: Sequence[Example]) -> Part:
    texts, points = _answers(answering, data, rows)
    clusters, figures = group_numbers([row.group for row in rows]), []
    for name, change in CHANGES.items():
        changed = [with_prompt(row, change(row.prompt)) for row in rows]
        places = [i for i, (row, new) in enumerate(zip(rows, changed)) if new.prompt != row.prompt]
        if places:
            after, scored = _answers(answering, data, [changed[i] for i in places])
            figures += _stays(texts[places], after, scored, points[places], name, within(clusters, np.array(places)))
    what = (
        f"{len(rows):,} of {len(data.test):,} of your rows, reworded by rules; each rule leaves out the "
        "rows that it does not change."
    )
    return Part(
        "your rows put otherwise", data.source, what, figures, BLIND, short_of(len(rows), len(data.test), "rows")
    )


def _labels(answering: ClosedPredictor, data: Rows, rows: Sequence[Example]) -> Part:
    """Labels renamed, and, where the prompt lists them, in reverse order; answers are mapped back."""
    texts, points = _answers(answering, data, rows)
    new = [renamed(label) for label in answering.task.labels]
    back = dict(zip(new, answering.task.labels))
    clusters = group_numbers([row.group for row in rows])
    figures, notes = [], []
    if len(back) == len(new):
        task = replace(answering.task, labels=tuple(new))
        after = [back[each.text] for each in predict(replace(answering, task=task), rows)]
        right = np.array([float(text in row.answers) for text, row in zip(after, rows)])
        figures += _stays(texts, np.array(after), right, points, "labels renamed", clusters)
        notes.append(f"Renamed: {new[0]!r} for {answering.task.labels[0]!r}, and so on.")
    if answering.text.list_labels:
        task = replace(answering.task, labels=tuple(reversed(answering.task.labels)))
        turned, scored = _answers(replace(answering, task=task), data, rows)
        figures += _stays(texts, turned, scored, points, "labels listed in reverse order", clusters)
    else:
        notes.append("The prompt lists no labels, so their order changes nothing.")
    what = f"{len(rows):,} of your rows with the same labels under other names or in another order."
    return Part("labels renamed or turned", data.source, what, figures, BLIND, notes)


def renamed(label: str) -> str:
    """A label under another name that means the same: spaces for underscores, else another case of its first letter."""
    spaced = label.replace("_", " ").replace("-", " ")
    return spaced if spaced != label else label[:1].swapcase() + label[1:]


def _answers(answering: Predictor, data: Rows, rows: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    predictions = predict(answering, rows)
    return np.array([each.text for each in predictions]), score(data.task, predictions, rows).rows
