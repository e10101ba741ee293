"""What needs no model: always the most frequent answer, the prompt itself or its first sentence, an empty object.

The one that scores highest on the training rows is the floor beside the arms.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from riyaz.config import LIKELIHOODS
from riyaz.data import Example
from riyaz.data.questions import answers_text
from riyaz.data.task import Task
from riyaz.metrics.decisions import row_scores
from riyaz.metrics.groups import group_numbers
from riyaz.metrics.intervals import interval
from riyaz.metrics.scores import score_rows
from riyaz.results import Floor, FloorKind
from riyaz.scoring import decided_points, right_places
from riyaz.text.sentences import first_sentence

CHOSEN_ON = 200  # training rows on which the floors are compared, at most
COPIES: dict[FloorKind, Callable[[str], str]] = {"copy": lambda prompt: prompt, "first_sentence": first_sentence}
FITTING: dict[str, dict[FloorKind, Callable[[str], str]]] = {  # what answers a prompt, by metric
    **dict.fromkeys(("rouge_l", "chrf", "token_f1", "slots"), COPIES),
    "json_f1": {"empty_object": lambda _: "{}"},
}


def highest_floor(train: Sequence[Example], tested: Sequence[Example], task: Task) -> tuple[Floor, np.ndarray] | None:
    """Of the floors that fit the metric that with the highest score on training rows, and its scores (n,) on the tested
    ones as `majority_floor` orders them. None without test rows, by LIKELIHOODS, and where no floor fits."""
    if task.metric in LIKELIHOODS or not tested:
        return None
    majority = majority_floor(train, tested, task)
    if task.metric not in FITTING:
        return majority
    sample = train[:CHOSEN_ON]
    means = {kind: float(_scores(answer, sample, task).mean()) for kind, answer in FITTING[task.metric].items()}
    best = max(means, key=means.__getitem__)
    if majority is not None:
        answer = majority[0].answer
        if not _scores(lambda _: answer, sample, task).mean() < means[best]:
            return majority
    rows = sorted(tested, key=lambda example: example.where)
    scores = _scores(FITTING[task.metric][best], rows, task)
    groups = group_numbers([row.group for row in rows])
    return Floor("", float(scores.mean()), *interval(scores, groups), kind=best), scores


def _scores(answer: Callable[[str], str], rows: Sequence[Example], task: Task) -> np.ndarray:
    return score_rows(task.metric, [answer(row.prompt) for row in rows], rows, task.max_words)


def majority_floor(train: Sequence[Example], tested: Sequence[Example], task: Task) -> tuple[Floor, np.ndarray] | None:
    """The most frequent answer of the training rows with its score, and its scores (n,) on the tested rows by `where`,
    as `arm_row.row_scores` orders those of the arms. None without test rows or where no training answer occurs twice.
    """
    if task.questions:
        return _of_questions(train, tested, task)
    counts = Counter(example.answer.strip() for example in train)
    answer, count = min(counts.items(), key=lambda pair: (-pair[1], pair[0]), default=("", 0))
    if count < 2 or not tested:
        return None
    rows = sorted(tested, key=lambda example: example.where)
    scores = score_rows(task.metric, [answer] * len(rows), rows, task.max_words)
    return Floor(answer, float(scores.mean()), *interval(scores, group_numbers([row.group for row in rows]))), scores


def _of_questions(train: Sequence[Example], tested: Sequence[Example], task: Task) -> tuple[Floor, np.ndarray] | None:
    """The same with the most frequent answer to each question; of a score that of the middle row."""
    if not tested:
        return None
    rows, learned = sorted(tested, key=lambda example: example.where), right_places(task, train)
    majority = []
    for question, places in zip(task.questions, learned.T):
        known = np.sort(places[places >= 0])
        counts = np.bincount(known, minlength=len(question.choices))
        middle = question.type == "score" and len(known)
        majority.append(int(known[len(known) // 2] if middle else counts.argmax()))
    certain = [np.tile(np.eye(len(q.choices))[place], (len(rows), 1)) for q, place in zip(task.questions, majority)]
    scores = row_scores(decided_points(task, certain, right_places(task, rows)))
    low, high = interval(scores, group_numbers([row.group for row in rows]))
    return Floor(answers_text(task.questions, majority), float(scores.mean()), low, high), scores
