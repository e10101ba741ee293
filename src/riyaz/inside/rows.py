"""A model or an artifact looked into on many rows: their score, the wrong answers layer by layer, the layers of its
adaptation switched off one at a time, and where it looks in the passages of its prompts."""

from collections.abc import Callable
from dataclasses import dataclass

from riyaz import artifact as artifacts
from riyaz.errors import RiyazError
from riyaz.events import Listen, Progress
from riyaz.inside.layers_off import LayersOff, answer_rows, switched_off, variants
from riyaz.inside.passages import PassageLooks, passage_looks
from riyaz.inside.wrong_answers import WrongAnswers, wrong_answers
from riyaz.metrics.intervals import interval
from riyaz.results import FileFacts
from riyaz.target_scores import OpenTarget


@dataclass(frozen=True, eq=False)
class RowsInside:
    """What was measured on the rows; None of a part that the model does not have or that was not asked for."""

    target: str
    test: FileFacts
    rows: int
    metric: str
    score: float
    low: float  # 95 % interval of the score
    high: float
    wrong: WrongAnswers | None
    passages: PassageLooks | None
    layers_off: LayersOff | None


def inside_rows(opened: OpenTarget, layers_off: bool, listen: Listen) -> RowsInside:
    """Answer the rows and look into the model on them; `layers_off` switches its layers off one at a time too. Raises
    RiyazError where there is nothing to look at."""
    model, task, rows = opened.predictor, opened.facts.task, [*opened.rows]
    where = opened.facts.target
    if not model.has_model:
        raise RiyazError(f"answers are {model.answers_are}, by no language model", where, "give an artifact with one")
    has_passages = model.retriever is not None and bool(model.text.passages)
    if not (model.has_labels or has_passages or layers_off):
        what = "its answers are no labels and its prompts have no passages, so there is nothing to show about rows"
        raise RiyazError(what, where, "give rows whose answers are a few labels, or --layers-off")
    off = variants(model, artifacts.resolve(where), where) if layers_off else None
    answered = answer_rows(model, task, rows, _telling("answers", listen))
    wrong = looks = None
    scored = answered.scores[0]
    if model.has_labels:
        wrong = wrong_answers(model, rows, answered.predictions, _telling("wrong answers", listen))
    if has_passages:
        looks = passage_looks(model, rows, scored.each, _telling("passages", listen))
    switched = None if off is None else switched_off(model, task, rows, answered, off, listen)
    low, high = interval(scored.rows, scored.groups)
    return RowsInside(
        where, opened.facts.test, len(rows), task.metric, scored.mean, low, high, wrong, looks, switched,
    )  # fmt: skip


def _telling(phase: str, listen: Listen) -> Callable[[int, int], None]:
    return lambda done, total: listen(Progress(phase, done, total, unit="rows"))
