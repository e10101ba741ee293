"""The smallest precision in which a model that was trained whole answers as well, chosen on validation rows."""

from collections.abc import Callable, Sequence

import numpy as np

from riyaz.config import Precision
from riyaz.data import Example
from riyaz.engine.opening import engine_name
from riyaz.events import Progress
from riyaz.hardware import trim
from riyaz.methods.fitting.base import Context
from riyaz.methods.fitting.questions import fitted_temperatures
from riyaz.metrics.calibration import fit_temperature
from riyaz.precisions import TIMED_ROWS, TIMED_SECONDS, compared, compared_rows, measure
from riyaz.predictor import ModelPredictor
from riyaz.results import PrecisionScore, smallest_precision
from riyaz.scoring import accepted_labels

PRECISIONS: tuple[Precision, ...] = ("bf16", "int8", "int4")  # the reference first
Open = Callable[[Precision], ModelPredictor]


def chooses_precision(context: Context) -> bool:
    """Whether the precision is chosen: the user left it open, and the engine has several."""
    return context.precision == "auto" and engine_name() == "native"


def precision_scores(context: Context, open_in: Open) -> list[PrecisionScore]:
    """The saved model in each of PRECISIONS on validation rows, opened one after the other by `open_in`; none without
    a row that has a right answer."""
    rows, measured = compared_rows(context.task, context.valid), []
    if not rows:
        return []
    for place, precision in enumerate(PRECISIONS):
        context.listen(Progress("choose", place, len(PRECISIONS)))
        predictor = open_in(precision)
        measured.append(measure(precision, predictor, context.task, rows, rows[:TIMED_ROWS], _fit_for(context)))
        del predictor  # so that there are never two whole models in memory
        trim()
    return compared(measured, rows)


def chosen_precision(scores: Sequence[PrecisionScore]) -> Precision:
    """The precision of the smallest of these scores of `precision_scores`."""
    return next(precision for precision in PRECISIONS if precision == smallest_precision(scores).precision)


def precision_seconds(context: Context, load: float, loss: float, alone: float) -> float:
    """The seconds that `precision_scores` takes, from those of opening the model, of the log-loss of a row's answer and
    of an answer alone; 0 where no precision is chosen."""
    if not chooses_precision(context):
        return 0.0
    rows = len(compared_rows(context.task, context.valid))
    timed = min(TIMED_SECONDS + alone, min(TIMED_ROWS, rows) * alone)
    return len(PRECISIONS) * (load + rows * loss + timed)


def _fit_for(context: Context) -> Callable[[Sequence[np.ndarray], Sequence[Example]], Sequence[float]]:
    """How the artifact's temperatures will be fitted."""
    if context.task.questions:
        return lambda scores, rows: fitted_temperatures(context.task, scores, rows)
    return lambda scores, rows: (fit_temperature(scores[0], accepted_labels(context.task, rows)),)
