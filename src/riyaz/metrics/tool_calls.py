"""Answers that call tools: whether the right ones are called, and the F1 of their arguments.

Calls are read in the one form in which rows have them (`riyaz.text.calls`), and their order does not count.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from riyaz.metrics.structured import fields_f1
from riyaz.text.calls import TAGGED, calls_in, turn_of

Pairs = list[tuple[float, float]]  # of a made and a wanted call: whether the name is right, and the F1 of the arguments


def tools(prediction: str, answers: Sequence[str]) -> float:
    """The mean over the wanted and the surplus calls of the F1 of the arguments, 0 for a wrong name; best over the
    accepted answers. Where none is wanted, 1 for words that begin no call, be it one that cannot be read."""
    return max(_mean(prediction, answer, 1) for answer in answers)


def name(prediction: str, answers: Sequence[str]) -> float:
    """The same if right names alone counted."""
    return max(_mean(prediction, answer, 0) for answer in answers)


def arguments(prediction: str, answers: Sequence[str]) -> float:
    """The mean F1 of the arguments of the calls with a right name, 0 where there is none; where none is wanted, the
    same as `tools`."""
    return max(_of_named(prediction, answer) for answer in answers)


def parses(prediction: str, answers: Sequence[str]) -> float:
    """1 if every call that the text begins can be read, and there is one where one is wanted."""
    text, calls = calls_in(prediction)
    wanted = all(calls_in(answer)[1] for answer in answers)
    return float(TAGGED.open not in text and (bool(calls) or not wanted))


def _mean(prediction: str, answer: str, measure: int) -> float:
    made, wanted = _functions(prediction), _functions(answer)
    if not wanted:
        return float(_in_words(prediction))
    return sum(pair[measure] for pair in _pairs(prediction, answer)) / max(len(made), len(wanted))


def _of_named(prediction: str, answer: str) -> float:
    if not _functions(answer):
        return float(_in_words(prediction))
    named = [f1 for right, f1 in _pairs(prediction, answer) if right]
    return sum(named) / len(named) if named else 0.0


def _in_words(text: str) -> bool:
    """Whether a text says something and begins no call."""
    return bool(text.strip()) and TAGGED.open not in text


@lru_cache(maxsize=4)  # the score and the second metrics of one row
def _pairs(prediction: str, answer: str) -> Pairs:
    """The calls in the pairs of the highest F1, each made and each wanted one in one pair at most."""
    from scipy.optimize import linear_sum_assignment

    made, wanted = _functions(prediction), _functions(answer)
    if not made or not wanted:
        return []
    right = np.array([[call["name"] == other["name"] for other in wanted] for call in made], float)
    f1 = np.array([[fields_f1(call["arguments"], other["arguments"]) for other in wanted] for call in made])
    both = right * f1
    rows, columns = linear_sum_assignment(both + 1e-6 * right, maximize=True)
    return [(float(right[pair]), float(both[pair])) for pair in zip(rows, columns)]


def _functions(text: str) -> list[dict[str, Any]]:
    """The name and the arguments of every call in a text."""
    return [call["function"] for call in turn_of(text).get("tool_calls", ())]
