"""Answers that are JSON: the F1 of their fields, whether they parse, whether the whole object is right.

An answer is read as a program would read it: the whole text, or the whole of one fenced block of code, is JSON.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from riyaz.json_files import json_or

FENCE = re.compile(r"\s*+```[^\n`]*+\n")
NOTHING = object()  # of a text that is no JSON


def unfenced(text: str) -> str:
    """The content of a text that is one fenced block of code, closed or not; another text as it is."""
    begin = FENCE.match(text)
    if not begin:
        return text
    inside = text[begin.end() :].rstrip()
    before, _, last = inside.rpartition("\n")
    return before if last.lstrip(" \t") == "```" else inside


def parsed(text: str) -> Any:
    """The value of an answer that is JSON, NOTHING for another one."""
    return json_or(unfenced(text), NOTHING)


def json_f1(prediction: str, answers: Sequence[str]) -> float:
    """F1 of the fields, pairs of a path and a value, of the predicted and the accepted JSON; best over the accepted
    ones. 0 for a prediction that does not parse.

    A field of null, and an empty list or object, is no field: to leave it out is the same, and a value in its place is
    a wrong one. The places of a list do not count. Two values without any field are equal.
    """
    value = parsed(prediction)
    if value is NOTHING:
        return 0.0
    predicted = fields(value)
    return max(_f1(predicted, fields(wanted)) for wanted in map(parsed, answers) if wanted is not NOTHING)


def fields_f1(made: Any, wanted: Any) -> float:
    """`json_f1` of two JSON values."""
    return _f1(fields(made), fields(wanted))


def parses(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction is JSON."""
    return float(parsed(prediction) is not NOTHING)


def exact_object(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction is the JSON of an accepted answer: nulls and the order of lists count, that of keys does
    not. Values are equal as in `json_f1`."""
    value = parsed(prediction)
    if value is NOTHING:
        return 0.0
    whole = _whole(value)
    return float(any(whole == _whole(wanted) for wanted in map(parsed, answers) if wanted is not NOTHING))


def fields(value: Any) -> Counter[tuple[str, str]]:
    """How often each pair of a path, such as `items[].price`, and a value is in a JSON value."""
    counted: Counter[tuple[str, str]] = Counter()
    left = [("", value)]
    while left:
        path, each = left.pop()
        if isinstance(each, dict):
            left += [(f"{path}.{json.dumps(name)}", inner) for name, inner in each.items()]
        elif isinstance(each, list):
            left += [(f"{path}[]", inner) for inner in each]
        elif each is not None:
            counted[path, _leaf(each)] += 1
    return counted


def _leaf(value: Any) -> str:
    """A value as text, equal for equal values: 1 and 1.0 are, 1 and "1" are not; white space in a text is one space."""
    if isinstance(value, str):
        return json.dumps(" ".join(unicodedata.normalize("NFC", value).split()))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value)


def _f1(predicted: Counter[tuple[str, str]], wanted: Counter[tuple[str, str]]) -> float:
    every = predicted.total() + wanted.total()
    return 2 * (predicted & wanted).total() / every if every else 1.0


def _whole(value: Any) -> dict[str, str]:
    """Everything in a JSON value by its path: nulls, empty lists and objects, and the places of lists too."""
    leaves: dict[str, str] = {}
    left = [("", value)]
    while left:
        path, each = left.pop()
        if each and isinstance(each, dict):
            left += [(f"{path}.{json.dumps(name)}", inner) for name, inner in each.items()]
        elif each and isinstance(each, list):
            left += [(f"{path}[{place}]", inner) for place, inner in enumerate(each)]
        else:
            leaves[path] = _leaf(each)
    return leaves
