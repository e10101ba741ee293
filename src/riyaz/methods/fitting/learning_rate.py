"""The search for a learning rate: every rate trains the run's opening, and the best one's run is continued."""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from riyaz.data.rows import Row
from riyaz.errors import RiyazError
from riyaz.events import Event, Phase, Progress
from riyaz.json_files import from_json, read_json, write_json
from riyaz.methods.fitting.base import Build, Context
from riyaz.methods.fitting.recipe import trains_opening

if TYPE_CHECKING:
    from riyaz.train import TrainPlan

SEARCH = "search.json"
OPENINGS = "openings"  # folder of the openings' checkpoints; that of the chosen rate stays until the arm is whole
DAMAGED = "remove it, and the search is made again"


@dataclass(frozen=True)
class Search:
    """search.json: the chosen learning rate, and the losses of all rates at the end of their openings."""

    rate: float
    # {"rate", "loss" in nats per answer token, "error" of its difference to the lowest}; empty for a single rate
    record: list[dict[str, Any]]
    seconds: float = 0.0  # of the openings that are not continued
    scores: list[float] | None = None  # of the chosen rate's opening on validation rows; None: not measured

    @classmethod
    def read(cls, path: Path) -> "Search":
        """What a search.json holds. Raises RiyazError naming the place that is wrong."""
        search = from_json(cls, read_json(path, DAMAGED), str(path), DAMAGED)
        if not 0 < search.rate < 1:
            raise RiyazError(f"rate is {search.rate:g}", str(path), DAMAGED)
        return search


def searches(context: Context) -> bool:
    """Whether `search` trains openings, or has."""
    arm = context.arm
    opened = arm.opening and trains_opening(arm.learning_rates, arm.steps, arm.recipe_steps)
    return (context.folder / SEARCH).exists() or bool(opened)


def search(
    context: Context, build: Build, rows: Sequence[Row], valid: Sequence[Row],
    rated: Callable[[Any], list[float]] | None = None,
) -> Search:  # fmt: skip
    """Train the opening at the rates of the arm's plan and choose one: of those whose validation loss is within one
    standard error of the lowest the smallest rate, since a higher one forgets more.

    `rated` scores a trained model on validation rows. The result is kept in search.json, so that a resumed run does not
    search again. Raises RiyazError if no rate's loss is finite.
    """
    result, arm = context.folder / SEARCH, context.arm
    if result.exists():
        return Search.read(result)
    rates = arm.learning_rates if searches(context) or (rated and arm.opening) else ()
    trials = {rate: _trial(context, rate, build, rows, valid, rated) for rate in rates}
    rate: float = arm.learning_rates[0]
    record: list[dict[str, Any]] = []
    if trials:
        tokens = np.array([len(row.answer) for row in valid])
        rate, record = chosen({rate: trial.nats for rate, trial in trials.items()}, tokens)
    for other in trials.keys() - {rate}:
        shutil.rmtree(opening_folder(context, other), ignore_errors=True)
    spent = sum(trial.seconds for other, trial in trials.items() if other != rate)
    scores = trials[rate].scores if trials else None
    searched = Search(rate, record if len(trials) > 1 else [], spent, scores)
    write_json(result, searched, indent=None)
    return searched


@dataclass(frozen=True)
class _Trial:
    """What the opening at one learning rate has shown."""

    nats: np.ndarray  # (n,) −log p of the validation answers; infinity if training diverged
    scores: list[float] | None
    seconds: float


def _trial(
    context: Context, rate: float, build: Build, rows: Sequence[Row], valid: Sequence[Row],
    rated: Callable[[Any], list[float]] | None,
) -> _Trial:  # fmt: skip
    """Train the opening at one learning rate."""
    from riyaz.train import Diverged, row_nats, train

    phase = "search" if len(context.arm.learning_rates) > 1 else "train"

    def as_phase(event: Event) -> None:
        context.listen(replace(event, phase=phase) if isinstance(event, Progress) else event)

    context.listen(Phase(phase, f"rate {rate:g}"))
    began, model = time.perf_counter(), build(context)
    plan, folder = train_plan(context, rate).opening(), opening_folder(context, rate)
    try:
        train(model, rows, valid, plan, folder, as_phase)
    except Diverged:
        return _Trial(np.full(len(valid), math.inf), None, time.perf_counter() - began)
    nats = np.array(row_nats(model, valid))
    return _Trial(nats, rated(model) if rated else None, time.perf_counter() - began)


def chosen(losses: dict[float, np.ndarray], tokens: np.ndarray) -> tuple[float, list[dict[str, Any]]]:
    """The chosen rate and the record, from −log p (n,) of the validation answers by rate and their lengths (n,).

    The standard error is that of the difference to the lowest loss on the same rows. Raises RiyazError if no loss is
    finite.
    """
    total = tokens.sum()
    means = {rate: float(nats.sum() / total) if np.isfinite(nats).all() else math.inf for rate, nats in losses.items()}
    best = min(means, key=lambda rate: means[rate])
    if not math.isfinite(means[best]):
        tried = ", ".join(f"{rate:g}" for rate in sorted(losses))
        raise RiyazError(f"the loss was not finite at learning rate {tried}", hint="give a lower --learning-rate")
    record, within = [], []
    for rate in sorted(losses):
        if not math.isfinite(means[rate]):
            record.append({"rate": rate, "loss": None})
            continue
        more = losses[rate] - losses[best]  # (n,)
        spread = more - more.sum() / total * tokens
        error = math.sqrt(len(tokens) / max(1, len(tokens) - 1) * float((spread**2).sum())) / total
        record.append({"rate": rate, "loss": means[rate], "error": float(error)})
        if means[rate] - means[best] <= error:
            within.append(rate)
    return within[0], record


def train_plan(context: Context, rate: float) -> "TrainPlan":
    """The training run of the arm's plan at a learning rate."""
    from riyaz.train import TrainPlan

    arm = context.arm
    return TrainPlan(
        steps=arm.steps, learning_rate=rate, steady=arm.opening, batch_size=arm.batch_size, compute=context.compute,
        validate_every=arm.validate_every, checkpoint_every=arm.checkpoint_every, seed=context.seed,
    )  # fmt: skip


def opening_folder(context: Context, rate: float) -> Path:
    """The folder of an opening's checkpoint."""
    return context.folder / OPENINGS / f"{rate:g}"
