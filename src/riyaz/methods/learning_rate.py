"""The search for a learning rate: every rate trains the run's opening, and the best one's run is continued."""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from riyaz.data.rows import Row
from riyaz.errors import RiyazError
from riyaz.events import Event, Phase, Progress
from riyaz.files import finite, from_json, read_json, write_json
from riyaz.methods.base import Build, Context
from riyaz.methods.recipe import FINALISTS

if TYPE_CHECKING:
    from riyaz.train import TrainPlan

SEARCH = "search.json"
OPENINGS = "openings"  # folder of the openings' checkpoints; that of the chosen rate stays until the arm is whole
DAMAGED = "remove it, and the search is made again"


@dataclass(frozen=True)
class Search:
    """search.json: the chosen learning rate, and the losses of all rates at the end of their openings."""

    rate: float
    # {"rate", "loss" in nats per answer token, "error" of its difference to the lowest}; "steps" instead of "error" for
    # a rate that stopped halfway; empty for a single rate
    record: list[dict[str, Any]]
    seconds: float = 0.0  # of the openings that are not continued
    score: float | None = None  # of the chosen rate's opening on validation rows; None: not measured

    @classmethod
    def read(cls, path: Path) -> "Search":
        """What a search.json holds. Raises RiyazError naming the place that is wrong."""
        search = from_json(cls, read_json(path, DAMAGED), str(path), DAMAGED)
        if not 0 < search.rate < 1:
            raise RiyazError(f"rate is {search.rate:g}", str(path), DAMAGED)
        return search


def search(
    context: Context, build: Build, rows: Sequence[Row], valid: Sequence[Row],
    rated: Callable[[Any], float] | None = None,
) -> Search:  # fmt: skip
    """Train the opening at the rates of the arm's plan and choose one: of those whose validation loss is within one
    standard error of the lowest the smallest rate, since a higher one forgets more. Of more than two rates only the
    best two after half of the opening train all of it.

    `rated` scores a trained model. The result is kept in search.json, so that a resumed run does not search again.
    Raises RiyazError if no rate's loss is finite.
    """
    result, arm = context.folder / SEARCH, context.arm
    if result.exists():
        return Search.read(result)
    tokens = np.array([len(row.answer) for row in valid])
    trials = {rate: _Trial(rate) for rate in arm.learning_rates} if arm.opening else {}
    entering = list(trials.values())
    if len(entering) > FINALISTS:
        for trial in entering:
            _continue(trial, context, build, rows, valid, arm.opening // 2)
        entering = sorted(entering, key=lambda trial: trial.loss)[:FINALISTS]
    for trial in entering:
        _continue(trial, context, build, rows, valid, arm.opening, rated)
    rate: float = arm.learning_rates[0]
    record: list[dict[str, Any]] = []
    if entering:
        rate, record = chosen({trial.rate: trial.nats for trial in entering}, tokens)
    for trial in trials.values():
        if trial not in entering:
            record.append({"rate": trial.rate, "loss": finite(trial.loss), "steps": trial.steps})
        if trial.rate != rate:
            shutil.rmtree(opening_folder(context, trial.rate), ignore_errors=True)
    spent = sum(trial.seconds for trial in trials.values() if trial.rate != rate)
    score = trials[rate].score if trials else None
    found = Search(rate, sorted(record, key=lambda entry: entry["rate"]) if len(trials) > 1 else [], spent, score)
    write_json(result, found, indent=None)
    return found


@dataclass
class _Trial:
    """One learning rate and what its opening has shown so far."""

    rate: float
    steps: int = 0
    loss: float = 0.0  # on the validation rows after these steps, nats per answer token; infinity if it is no number
    nats: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (n,) −log p of the validation answers at the end
    score: float | None = None
    seconds: float = 0.0


def _continue(
    trial: _Trial, context: Context, build: Build, rows: Sequence[Row], valid: Sequence[Row], until: int,
    rated: Callable[[Any], float] | None = None,
) -> None:  # fmt: skip
    """Train the trial's opening on to the step `until`, unless its loss is infinite."""
    from riyaz.train import Diverged, row_nats, train

    phase = "search" if len(context.arm.learning_rates) > 1 else "train"

    def as_search(event: Event) -> None:
        context.listen(replace(event, phase=phase) if isinstance(event, Progress) else event)

    if trial.loss == math.inf:
        return
    context.listen(Phase(phase, f"rate {trial.rate:g}"))
    began, model = time.perf_counter(), build(context)
    plan, folder = train_plan(context, trial.rate).opening(), opening_folder(context, trial.rate)
    trial.steps, trial.loss, trial.nats = until, math.inf, np.full(len(valid), math.inf)
    try:
        state = train(model, rows, valid, plan, folder, as_search, until=until)
        # that of this step also where a search that was stopped has trained the opening further
        if math.isfinite(loss := state.history[until - 1]["valid_loss"]):
            trial.loss = loss
            if until == plan.steps:
                trial.nats = np.array(row_nats(model, valid))
                trial.score = rated(model) if rated else None
    except Diverged:
        pass
    trial.seconds += time.perf_counter() - began


def chosen(losses: dict[float, np.ndarray], tokens: np.ndarray) -> tuple[float, list[dict[str, Any]]]:
    """The chosen rate and the record, from −log p (n,) of the validation answers by rate and their lengths (n,).

    The standard error is that of the difference to the lowest loss on the same rows. Raises RiyazError if no loss is
    finite.
    """
    total = tokens.sum()
    means = {rate: float(nats.sum() / total) if np.isfinite(nats).all() else math.inf for rate, nats in losses.items()}
    best = min(means, key=lambda rate: means[rate])
    if not math.isfinite(means[best]):
        raise RiyazError("the loss was not finite at any learning rate of the search")
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
