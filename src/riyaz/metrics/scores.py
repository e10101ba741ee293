"""Scores of a predicted text against its row, in 0..1; the best accepted answer counts.

The score `nats` is none of a text: `scoring.score` takes it from the log-probability of the accepted answer.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from riyaz.data import Example
from riyaz.data.text_keys import text_keys
from riyaz.errors import RiyazError
from riyaz.metrics import commands, covered, executed, structured, tool_calls

if TYPE_CHECKING:
    from sacrebleu.metrics import CHRF

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = {"a", "an", "the"}


RowScore = Callable[[str, Example], float]


def score_rows(
    metric: str, predictions: Sequence[str], rows: Sequence[Example], max_words: int | None = None
) -> np.ndarray:
    """The score of every row, (n,), by `metric`, a key of METRICS, of which texts count up to the `max_words`-th word.
    Raises RiyazError for another metric."""
    if metric not in METRICS:
        raise RiyazError(f"unknown metric '{metric}'", hint=f"use one of {', '.join(METRICS)}")
    score, most = METRICS[metric], max_words if metric in WRITTEN else None
    return np.array([score(covered.first_words(p, most), row) for p, row in zip(predictions, rows, strict=True)], float)


def row_extras(
    metric: str, predictions: Sequence[str], rows: Sequence[Example], max_words: int | None = None
) -> list[dict[str, float]]:
    """The second metrics of every row, shown beside `metric`: none for accuracy, and slots only where a row has some.
    Lengths are those of the whole texts."""
    seconds = SECONDS.get(metric, {})
    both = [(covered.first_words(text, max_words), text) for text in predictions]
    return [
        {
            name: score(cut if name in WRITTEN else whole, row)
            for name, score in seconds.items() if name != "slots" or wanted_slots(row)
        }
        for (cut, whole), row in zip(both, rows, strict=True)
    ]  # fmt: skip


def extras(
    metric: str, predictions: Sequence[str], answers: Sequence[Sequence[str]], each: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """The second metrics shown beside `metric`: macro-F1 for accuracy, else the means over the rows that have them of
    those of `each` row."""
    if metric == "accuracy":
        return {"macro_f1": macro_f1(predictions, answers)}
    names = dict.fromkeys(name for row in each for name in row)
    return {name: float(np.mean([row[name] for row in each if name in row])) for name in names}


def wanted_slots(row: Example) -> tuple[str, ...]:
    """The texts that must occur in the answer to a row."""
    return row.check.slots if row.check else ()


def accuracy(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction is one of the accepted labels, apart from outer white space."""
    return float(prediction.strip() in {answer.strip() for answer in answers})


def macro_f1(predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> float:
    """Mean F1 over the labels in the answers (n rows of accepted labels).

    A row's label is the predicted one if accepted, else its first. A label that is predicted but in no answer lowers
    the recall of others and is not a class.
    """
    pairs = [label_pair(text, row) for text, row in zip(predictions, answers, strict=True)]
    return macro_f1_of_keys(*(text_keys(labels) for labels in zip(*pairs))) if pairs else 0.0


def label_pair(prediction: str, answers: Sequence[str]) -> tuple[str, str]:
    """The predicted label and the row's."""
    predicted, accepted = prediction.strip(), [answer.strip() for answer in answers]
    return predicted, predicted if predicted in accepted else accepted[0]


def macro_f1_of_keys(predicted: np.ndarray, true: np.ndarray) -> float:
    """`macro_f1` of the keys (n,) of predicted and true labels; 0 without rows."""
    labels, first, places, support = np.unique(true, return_index=True, return_inverse=True, return_counts=True)
    if not len(labels):
        return 0.0
    hits = np.bincount(places[predicted == true], minlength=len(labels))
    at = np.minimum(np.searchsorted(labels, predicted), len(labels) - 1)
    called = np.bincount(at[labels[at] == predicted], minlength=len(labels))
    return float(np.mean((2 * hits / (called + support))[np.argsort(first)]))


def normalise_squad(text: str) -> str:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no articles, single spaces.

    Unlike SQuAD, a step that would remove the whole text is skipped, so that "A" differs from an empty answer.
    """
    text = text.lower()
    words = text.translate(_PUNCTUATION).split() or text.split()
    return " ".join([word for word in words if word not in _ARTICLES] or words)


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction equals an accepted answer after SQuAD normalisation."""
    return float(normalise_squad(prediction) in {normalise_squad(answer) for answer in answers})


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """SQuAD's F1 of the bags of words (Rajpurkar et al. 2016), best over the accepted answers."""
    words = normalise_squad(prediction).split()
    return max(_bag_f1(words, normalise_squad(answer).split()) for answer in answers)


def _bag_f1(words: list[str], reference: list[str]) -> float:
    if not words or not reference:
        return float(words == reference)
    common = sum((Counter(words) & Counter(reference)).values())
    return 2 * common / (len(words) + len(reference))


def rouge_l(prediction: str, answers: Sequence[str]) -> float:
    """ROUGE-L F1 (Lin 2004) without stemming, best over the accepted answers.

    ASCII text is split into words as the package rouge-score does; other text keeps its letters, and each kana or
    Chinese character is a word.
    """
    words = _rouge_words(prediction)
    return max(_rouge_f1(words, _rouge_words(answer)) for answer in answers)


def _rouge_f1(words: list[str], reference: list[str]) -> float:
    common = longest_common_subsequence(words, reference)
    return 2 * common / (len(words) + len(reference)) if common else 0.0


def _rouge_words(text: str) -> list[str]:
    text = text.lower()
    return re.findall("[a-z0-9]+", text) if text.isascii() else "".join(map(_spaced, text)).split()


@cache
def _spaced(character: str) -> str:
    if "぀" <= character <= "鿿":  # kana and Chinese characters
        return f" {character} "
    # Combining vowel signs and accents (category M) are part of the word.
    return character if character.isalnum() or unicodedata.category(character)[0] == "M" else " "


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, with a row of the table as the bits of an integer (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full  # bit i is 0 where the length grows from a[:i] to a[:i + 1]
    for word in b:
        match = row & places.get(word, 0)
        row = ((row + match) | (row - match)) & full
    return len(a) - row.bit_count()


def chrf(prediction: str, answers: Sequence[str]) -> float:
    """Sentence chrF2 as sacrebleu computes it, over 100; best over the accepted answers."""
    return _chrf().sentence_score(prediction, list(answers)).score / 100


@cache
def _chrf() -> "CHRF":
    from sacrebleu.metrics import CHRF  # takes 0.1 s, and only free text needs it

    return CHRF()


def _by_answers(score: Callable[[str, Sequence[str]], float]) -> RowScore:
    return lambda prediction, row: score(prediction, row.answers)


def _slots(prediction: str, row: Example) -> float:
    return covered.slots(prediction, wanted_slots(row))


METRICS: dict[str, RowScore] = {
    "accuracy": _by_answers(accuracy),
    "exact_match": _by_answers(exact_match),
    "token_f1": _by_answers(token_f1),
    "rouge_l": _by_answers(rouge_l),
    "chrf": _by_answers(chrf),
    "json_f1": _by_answers(structured.json_f1),
    "tools": _by_answers(tool_calls.tools),
    "sql": executed.sql,
    "pass@1": executed.passes,
    "command": _by_answers(commands.command),
    "slots": _slots,
}
WRITTEN = frozenset(("exact_match", "token_f1", "rouge_l", "chrf", "slots", "slots_all"))  # scores of written text
_SLOTS: dict[str, RowScore] = {"slots": _slots}
_LENGTH: dict[str, RowScore] = {"length_ratio": _by_answers(covered.length_ratio)}
SECONDS: dict[str, dict[str, RowScore]] = {  # the second metrics of each
    "exact_match": {"token_f1": METRICS["token_f1"]},
    "token_f1": {"exact_match": METRICS["exact_match"]},
    "rouge_l": {"chrf": METRICS["chrf"], **_SLOTS, **_LENGTH},
    "chrf": {"rouge_l": METRICS["rouge_l"], **_SLOTS, **_LENGTH},
    "json_f1": {
        "parses": _by_answers(structured.parses), "exact_object": _by_answers(structured.exact_object),
    },
    "tools": {
        "name": _by_answers(tool_calls.name), "arguments": _by_answers(tool_calls.arguments),
        "parses": _by_answers(tool_calls.parses),
    },
    "sql": {"runs": executed.query_runs, "exact_match": METRICS["exact_match"]},
    "pass@1": {"runs": executed.code_runs},
    "command": {"chrf": METRICS["chrf"]},
    "slots": {
        "slots_all": lambda prediction, row: float(_slots(prediction, row) == 1), "chrf": METRICS["chrf"], **_LENGTH,
    },
    "nats": {"chrf": METRICS["chrf"], **_SLOTS, **_LENGTH},
    "preferred": {"chrf": METRICS["chrf"], **_LENGTH},
    "thumbs": {},
}  # fmt: skip
