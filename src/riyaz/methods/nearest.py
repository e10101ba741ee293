"""The baseline without training: copy the answer of the nearest example, by words, by sentence vectors, or by both.

How prompts are compared, and of how many examples a label's score is the mean, is what scores highest on rows that are
answered by the other rows (leave one out; no row by one of its group or with its prompt).
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from riyaz.artifact import EXAMPLES, TextPart, WeightsPart, examples_bytes
from riyaz.data import Example
from riyaz.data.groups import unit
from riyaz.data.sampling import ordered
from riyaz.data.task import Task
from riyaz.engine.embedder import ModelEmbedder
from riyaz.engine.opening import EMBEDDER, pulled_embedder
from riyaz.events import Note
from riyaz.methods.fitting.base import Context, Fitted, Method, Timing
from riyaz.methods.fitting.questions import fitted_temperatures
from riyaz.methods.fitting.weights import WRITTEN
from riyaz.metrics.calibration import fit_temperature, probabilities
from riyaz.metrics.decisions import row_scores
from riyaz.predictor import CopyPredictor, DecisionClassifier, Prediction, Predictor
from riyaz.predictor.example_index import ExampleIndex, IndexDocument, IndexKind, index_files, label_means
from riyaz.predictor.nearest_choices import choice_scores, nearest_choices
from riyaz.results import About
from riyaz.scoring import accepted_labels, decided_points, right_places, score

KINDS: tuple[IndexKind, ...] = ("words", "vectors", "both")
PER_LABEL = (1, 3, 5)  # examples of a label whose similarities make its score
LEFT_OUT, LEFT_OUT_OPEN = 1_000, 300  # rows that are answered by the others: of a closed set, of open answers
PAIRS = 20_000_000  # similarities of such rows that are computed for each kind, at most
BATCH = 32  # rows whose similarities to all others are in memory at once
SAMPLE, TIMED = 200, 8  # rows on which the time is measured, and answers that are made alone
WITHOUT = (
    f"nearest compares words alone, since {EMBEDDER} is not pulled; by sentence vectors it may score much higher: "
    f"`riyaz pull {EMBEDDER}`"
)


@dataclass(frozen=True)
class _Tried:
    """A way to answer, its score on the rows that were left out, and the scores (m, L) of a closed set's labels, or of
    each question's choices."""

    kind: IndexKind
    per_label: int
    mean: float
    scores: np.ndarray | None = None
    choices: tuple[np.ndarray, ...] = ()

    @property
    def record(self) -> dict[str, object]:
        return {"index": self.kind, "per_label": self.per_label, "score": round(self.mean, 6)}


def fit(context: Context) -> Fitted:
    """Keep all rows as examples, with the index that answers left-out rows best."""
    began, examples = time.perf_counter(), (*context.train, *context.valid)
    embedder = pulled_embedder()
    vectors = None if embedder is None else embedder.embed([example.prompt for example in examples])
    places = _left_out(context, examples)
    tried = [each for kind in _kinds(embedder) for each in _try(context, examples, places, kind, vectors, embedder)]
    best = max(tried, key=lambda each: each.mean)  # of equal ones the first, which is the simplest
    temperature = None
    if best.scores is not None:
        accepted = accepted_labels(context.task, [examples[place] for place in places])
        temperature = fit_temperature(best.scores, accepted)
    temperatures = fitted_temperatures(context.task, best.choices, [examples[place] for place in places])
    document = IndexDocument(best.kind, best.per_label)
    if best.kind != "words" and embedder is not None:
        document = IndexDocument(best.kind, best.per_label, embedder.name, embedder.sha256)
    (context.folder / WRITTEN).mkdir(parents=True, exist_ok=True)
    files = index_files(document, None if best.kind == "words" else vectors, context.folder / WRITTEN)
    return Fitted(
        TextPart(examples_file=EXAMPLES), WeightsPart("copy"), files | {EXAMPLES: examples_bytes(examples)},
        chosen={"index": best.kind, "per_label": best.per_label, "examples": len(examples),
                "left_out": len(places), "candidates": [each.record for each in tried]},
        valid_score=best.mean, temperature=temperature, temperatures=temperatures,
        search_seconds=time.perf_counter() - began,
    )  # fmt: skip


def measure_time(context: Context) -> Timing:
    """The seconds of `fit`, from a sample of the rows."""
    examples, began = (*context.train, *context.valid), time.perf_counter()
    embedder = pulled_embedder()
    load = time.perf_counter() - began
    if embedder is None:
        context.listen(Note(WITHOUT))
    sample = ordered(examples, context.seed, "time")[:SAMPLE]
    began = time.perf_counter()
    vectors = None if embedder is None else embedder.embed([example.prompt for example in sample])
    reading = (time.perf_counter() - began) / len(sample)
    began, places = time.perf_counter(), list(range(len(sample)))
    for kind in _kinds(embedder):
        _try(context, sample, places, kind, vectors, embedder)
    # of each row that is left out, part of the time grows with the examples and part does not: the larger counts
    search = (time.perf_counter() - began) / len(sample) * max(1.0, len(examples) / len(sample))
    index = ExampleIndex(sample, _kinds(embedder)[-1], vectors, embedder)
    predictor = _predictor(context, tuple(sample), index)
    conversations, began = [example.messages for example in sample], time.perf_counter()
    predictor.answers(conversations)
    row, began = (time.perf_counter() - began) / len(sample), time.perf_counter()
    for messages in conversations[:TIMED]:
        predictor.answers([messages])
    alone = (time.perf_counter() - began) / len(conversations[:TIMED])
    fitting = load + reading * len(examples) + search * len(_left_out(context, examples))
    return Timing(fit=fitting, load=load, row=row, alone=alone)


def _predictor(context: Context, examples: tuple[Example, ...], index: ExampleIndex) -> Predictor:
    """What answers with these examples, to measure its time."""
    task = context.task
    if task.questions:
        return DecisionClassifier(classifiers=nearest_choices(task, examples, index, 1, ()), task=task)
    temperature = 1.0 if task.kind == "closed" else None
    return CopyPredictor(task=task, examples=examples, temperature=temperature, index=index)


def _try(
    context: Context, examples: Sequence[Example], places: Sequence[int], kind: IndexKind,
    vectors: np.ndarray | None, embedder: ModelEmbedder | None,
) -> list[_Tried]:  # fmt: skip
    """Every way to answer the rows at `places` by the other rows with one kind of index."""
    near, rows = _others(examples, places, kind, vectors, embedder), [examples[place] for place in places]
    if context.task.questions:
        return _try_questions(context.task, examples, rows, list(near), kind)
    if context.task.kind != "closed":
        answered = [Prediction(_nearest_answer(each, examples)) for each in near]
        return [_Tried(kind, 1, score(context.task, answered, rows).mean)]
    place_of = {label: number for number, label in enumerate(context.task.labels)}
    labels = np.array([place_of[example.answer] for example in examples])
    scores = np.array([[label_means(each, labels, len(place_of), k) for k in PER_LABEL] for each in near])  # (m, K, L)
    right = accepted_labels(context.task, rows)
    means = [right[np.arange(len(rows)), scores[:, i].argmax(axis=1)].mean() for i in range(len(PER_LABEL))]
    return [_Tried(kind, k, float(means[i]), scores[:, i]) for i, k in enumerate(PER_LABEL)]


def _try_questions(
    task: Task, examples: Sequence[Example], rows: Sequence[Example], near: Sequence[np.ndarray], kind: IndexKind
) -> list[_Tried]:
    """Every way to answer the questions about the rows (m,) by the examples, whose similarities (n,) to each are
    given."""
    places, right = right_places(task, examples), right_places(task, rows)
    tried = []
    for per_label in PER_LABEL:
        scores = tuple(
            np.stack([choice_scores(each, own, len(question.choices), per_label) for each in near])
            for question, own in zip(task.questions, places.T)
        )
        temperatures = fitted_temperatures(task, scores, rows)
        p = [probabilities(part, temperature) for part, temperature in zip(scores, temperatures)]
        mean = float(row_scores(decided_points(task, p, right)).mean())
        tried.append(_Tried(kind, per_label, mean, choices=scores))
    return tried


def _others(
    examples: Sequence[Example], places: Sequence[int], kind: IndexKind,
    vectors: np.ndarray | None, embedder: ModelEmbedder | None,
) -> Iterator[np.ndarray]:  # fmt: skip
    """The similarities (n,) of all examples to each row at `places`; NaN, left out, for the row itself, for those of
    its group and for those with its prompt."""
    index = ExampleIndex(examples, kind, vectors, embedder)
    units, keys = (np.unique(names, return_inverse=True)[1] for names in _names(examples))
    for first in range(0, len(places), BATCH):
        batch = list(places[first : first + BATCH])
        own = None if vectors is None else vectors[batch]
        for place, near in zip(batch, index.similarities([examples[each].prompt for each in batch], own)):
            near[(units == units[place]) | (keys == keys[place])] = np.nan
            yield near


def _nearest_answer(near: np.ndarray, examples: Sequence[Example]) -> str:
    """The answer of the nearest example that is not left out, "" where all are."""
    return "" if np.isnan(near).all() else examples[int(np.nanargmax(near))].answer


def _names(examples: Sequence[Example]) -> tuple[list[str], list[str]]:
    return [unit(example) for example in examples], [example.key for example in examples]


def _left_out(context: Context, examples: Sequence[Example]) -> list[int]:
    """The places of the rows that are answered by the others, chosen by seed."""
    most = LEFT_OUT if context.task.kind == "closed" else LEFT_OUT_OPEN
    count = min(len(examples), most, max(1, PAIRS // len(examples)))
    return sorted(np.random.default_rng(context.seed).permutation(len(examples))[:count].tolist())


def _kinds(embedder: ModelEmbedder | None) -> tuple[IndexKind, ...]:
    return KINDS if embedder is not None else KINDS[:1]


ABOUT = About(
    what="Copies the answer of the most similar training question; no language model runs.",
    suits="questions that repeat almost word for word; the baseline that every model has to beat",
    colour=0, mark="o", weights="copy", language_model=False,
)  # fmt: skip
METHOD = Method(name="nearest", about=ABOUT, fit=fit, candidates=0, time=measure_time, embeds=True, left_out=8)
