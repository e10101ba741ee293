"""The JSON document of `riyaz inside --rows`: what was measured on the rows, with the counts of every layer."""

from dataclasses import asdict
from typing import Any

import numpy as np

from riyaz.inside.document import rounded
from riyaz.inside.layers_off import LayerOff, LayersOff
from riyaz.inside.passages import PassageLooks
from riyaz.inside.rows import RowsInside
from riyaz.inside.wrong_answers import WrongAnswers
from riyaz.metrics.groups import group_numbers
from riyaz.metrics.intervals import interval
from riyaz.metrics.paired import Paired

VERSION = 1
HEADS = 12  # listed, those that look most often at the passage with the right answer


def rows_document(made: RowsInside) -> dict[str, Any]:
    """All that is shown; layers count from 1, and 0 is before the first one."""
    document: dict[str, Any] = {
        "version": VERSION, "target": made.target, "test": asdict(made.test), "rows": made.rows, "metric": made.metric,
        "score": rounded(made.score), "ci_low": rounded(made.low), "ci_high": rounded(made.high),
    }  # fmt: skip
    if made.wrong is not None:
        document["wrong"] = wrong(made.wrong)
    if made.passages is not None:
        document["passages"] = passages(made.passages)
    if made.layers_off is not None:
        document["layers_off"] = layers_off(made.layers_off)
    return document


def wrong(answers: WrongAnswers) -> dict[str, Any]:
    """The wrong answers: counts by layer, and each with its margins in nats."""
    return {
        "answers": len(answers.each), "never": answers.never, "undecided": answers.undecided,
        "too_long": answers.too_long, "unknown": answers.unknown,
        "layers": [
            {"layer": layer, "ahead": ahead, "lost": lost}
            for layer, (ahead, lost) in enumerate(zip(answers.ahead, answers.lost))
        ],
        "each": [
            {"where": each.where, "right": each.right, "chosen": each.chosen, "ahead": each.ahead, "lost": each.lost,
             "margins": rounded(each.margins)}
            for each in answers.each
        ],
    }  # fmt: skip


def layers_off(measured: LayersOff) -> dict[str, Any]:
    """The scores with each layer off."""
    return {
        "layers": [{"layer": each.layer, **off(each)} for each in measured.layers],
        "every": None if measured.every is None else off(measured.every),
    }


def off(one: LayerOff) -> dict[str, Any]:
    """A score, and its paired differences from the score with no layer off."""
    return {
        "score": rounded(one.score), **differs(one.paired), "nats": None if one.nats is None else differs(one.nats),
    }  # fmt: skip


def differs(paired: Paired) -> dict[str, Any]:
    """A paired difference with its interval."""
    numbers = {name: rounded(getattr(paired, name)) for name in ("difference", "low", "high", "p_value")}
    return {**numbers, "test": paired.test}


def passages(looks: PassageLooks) -> dict[str, Any]:
    """How often the passage that holds the right answer gets the most attention, beside what would be so without any
    reading: by chance, if the first passage got it always, or the longest."""
    left_out = {name: getattr(looks, name) for name in ("without", "alike", "too_long", "rewritten")}
    if not looks.each:
        return {"rows": 0, **left_out}
    most = np.array([look.most for look in looks.each], float)
    low, high = interval(most, group_numbers([look.group for look in looks.each]))
    points = np.array([look.score for look in looks.each])
    by_layer = np.stack([look.most_by_layer for look in looks.each])  # (n, L)
    by_head = np.stack([look.most_in for look in looks.each])  # (n, L, H)
    right = np.stack([look.on_right for look in looks.each]).mean(0)  # (L, H)
    every = np.stack([look.attention.sum(2) for look in looks.each]).mean(0)  # (L, H): on all passages
    heads = np.argsort(-by_head.sum(0).reshape(-1) - right.reshape(-1), kind="stable")[:HEADS]
    places = [divmod(int(place), right.shape[1]) for place in heads]
    return {
        "rows": len(looks.each), **left_out,
        "most": int(most.sum()), "share": rounded(most.mean()), "ci_low": rounded(low), "ci_high": rounded(high),
        "chance": rounded(np.mean([look.chance for look in looks.each])),
        "score_where_most": rounded(points[most == 1].mean()) if most.any() else None,
        "score_elsewhere": rounded(points[most == 0].mean()) if not most.all() else None,
        "first": sum(look.first for look in looks.each), "longest": sum(look.longest for look in looks.each),
        "layers": [
            {"layer": layer + 1, "on_passages": rounded(every[layer].mean()), "on_right": rounded(right[layer].mean()),
             "most": int(by_layer[:, layer].sum())}
            for layer in range(len(right))
        ],
        "heads": [
            {"layer": layer + 1, "head": head + 1, "most": int(by_head[:, layer, head].sum()),
             "on_passages": rounded(every[layer, head]), "on_right": rounded(right[layer, head])}
            for layer, head in places
        ],
        "each": [
            {"where": look.where, "right": [place + 1 for place in look.right], "most": look.most,
             "attention": rounded(look.attention.mean((0, 1)))}
            for look in looks.each
        ],
    }  # fmt: skip
