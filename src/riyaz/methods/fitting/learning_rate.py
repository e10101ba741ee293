"""The search for a learning rate: every rate trains the run's opening, and the best one's run is continued."""

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from riyaz.data.rows import Row, rows_per_step
from riyaz.errors import RiyazError
from riyaz.events import Event, Listen, Phase, Progress
from riyaz.families import describe
from riyaz.files import remove
from riyaz.json_files import from_json, read_json, write_json
from riyaz.methods.fitting.base import Build, Context
from riyaz.methods.fitting.recipe import pass_tokens, trains_opening
from riyaz.methods.fitting.recording import recorded

if TYPE_CHECKING:
    from riyaz.train import Judge, TrainPlan, TrainState

SEARCH = "search.json"
OPENINGS = "openings"  # folder of the openings' checkpoints; that of the chosen rate stays until the arm is whole
TRIAL = "opening-{}.json"  # what an opening has shown that another process has trained, until the search is made
DAMAGED = "remove it, and the search is made again"


@dataclass(frozen=True)
class Search:
    """search.json: the chosen learning rate, and the losses of all rates at the end of their openings."""

    rate: float
    # {"rate", "loss" in nats per answer token, "error" of its difference to the lowest of those that are compared, and
    # of labels "accuracy"}; empty for a single rate
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
    """Train the opening at the rates of the arm's plan and choose one, as `chosen` says.

    Openings that were trained before (`try_rate`) are taken as they are. `rated` scores a trained model on validation
    rows. No further rate is tried where an opening has taken longer than the run after it may. The result is kept in
    search.json, so that a resumed run does not search again. Raises RiyazError if no rate's loss is finite.
    """
    result, arm = context.folder / SEARCH, context.arm
    if result.exists():
        return Search.read(result)
    rates = arm.learning_rates if searches(context) or (rated and arm.opening) else ()
    trials: dict[float, _Trial] = {}
    for each in rates:
        if arm.train_limit and any(trial.seconds > arm.train_limit for trial in trials.values()):
            break
        known = context.folder / trial_name(each)
        trials[each] = _Trial.read(known) if known.exists() else _trial(context, each, build, rows, valid, rated)
    rate: float = arm.learning_rates[0]
    record: list[dict[str, Any]] = []
    if trials:
        tokens = np.array([len(row.answer) for row in valid])
        wrong = {rate: trial.wrong for rate, trial in trials.items() if trial.wrong is not None}
        rate, record = chosen({rate: trial.nats for rate, trial in trials.items()}, tokens, wrong)
    for other in trials.keys() - {rate}:
        shutil.rmtree(opening_folder(context, other), ignore_errors=True)
    spent = sum(trial.seconds for other, trial in trials.items() if other != rate)
    scores = trials[rate].scores if trials else None
    searched = Search(rate, record if len(trials) > 1 else [], spent, scores)
    write_json(result, searched, indent=None)
    for each in arm.learning_rates:
        remove(context.folder / trial_name(each))
    return searched


def trial_name(rate: float) -> str:
    """The name of the file with what the opening at this rate has shown."""
    return TRIAL.format(f"{rate:g}")


def try_rate(context: Context, rate: float, build: Build, rows: Sequence[Row], valid: Sequence[Row]) -> None:
    """Train the opening at one rate of the arm's plan, for a later `search` of the same run."""
    trial = _trial(context, rate, build, rows, valid, None)
    finite = bool(np.isfinite(trial.nats).all())
    document = {"nats": trial.nats.tolist() if finite else None, "rows": len(valid), "seconds": trial.seconds,
                "wrong": None if trial.wrong is None else trial.wrong.tolist()}  # fmt: skip
    write_json(context.folder / trial_name(rate), document, indent=None)


@dataclass(frozen=True)
class _Trial:
    """What the opening at one learning rate has shown."""

    nats: np.ndarray  # (n,) −log p of the validation answers; infinity if training diverged
    wrong: np.ndarray | None  # (n,) for how many answers another label is likelier; None where they are no labels
    scores: list[float] | None
    seconds: float

    @classmethod
    def read(cls, path: Path) -> "_Trial":
        """What `try_rate` has written. Raises RiyazError naming the place that is wrong."""
        kept = from_json(KeptTrial, read_json(path, DAMAGED), str(path), DAMAGED)
        nats = np.full(kept.rows, math.inf) if kept.nats is None else np.array(kept.nats)
        wrong = None if kept.wrong is None else np.array(kept.wrong)
        if any(values is not None and len(values) != kept.rows for values in (nats, wrong)):
            raise RiyazError(f"does not hold the {kept.rows} rows that it names", str(path), DAMAGED)
        return cls(nats, wrong, None, kept.seconds)


@dataclass(frozen=True)
class KeptTrial:
    """A trial as a file: of so many validation rows. Without `nats` its training diverged."""

    nats: list[float] | None
    wrong: list[float] | None
    rows: int
    seconds: float


def _trial(
    context: Context, rate: float, build: Build, rows: Sequence[Row], valid: Sequence[Row],
    rated: Callable[[Any], list[float]] | None,
) -> _Trial:  # fmt: skip
    """Train the opening at one learning rate."""
    from riyaz.train import Diverged, label_log_p, label_places, row_nats, scores_labels

    phase = "search" if len(context.arm.learning_rates) > 1 else "train"

    def as_phase(event: Event) -> None:
        context.listen(replace(event, phase=phase) if isinstance(event, Progress) else event)

    context.listen(Phase(phase, f"rate {rate:g}"))
    began, model = time.perf_counter(), build(context)
    plan, folder = train_plan(context, rate, rows).opening(), opening_folder(context, rate)
    try:
        trained(context, model, rows, valid, plan, folder, as_phase)
    except Diverged:
        return _Trial(np.full(len(valid), math.inf), None, None, time.perf_counter() - began)
    wrong = None
    if scores_labels(model):
        log_p, places = label_log_p(model, valid), label_places(model, valid)
        first = np.cumsum([0, *(len(row.answer) for row in valid[:-1])])  # of each row's answers
        nats = np.add.reduceat(-log_p[np.arange(len(places)), places].astype(np.float64), first)
        wrong = np.add.reduceat((log_p.argmax(1) != places).astype(np.float64), first)
    else:
        nats = np.array(row_nats(model, valid))
    return _Trial(nats, wrong, rated(model) if rated else None, time.perf_counter() - began)


def chosen(
    losses: dict[float, np.ndarray], tokens: np.ndarray, wrong: Mapping[float, np.ndarray] | None = None
) -> tuple[float, list[dict[str, Any]]]:
    """The chosen rate and the record, from −log p (n,) of the validation answers by rate and their lengths (n,), and
    of labels how many of each row are `wrong` (n,).

    Of labels those rates are compared whose accuracy is within one standard error of the highest. Of the rates whose
    loss is then within one standard error of the lowest it is the smallest, since a higher one forgets more. The
    standard error is that of the difference on the same rows. Raises RiyazError if no loss is finite.
    """
    total = tokens.sum()
    means = {rate: float(nats.sum() / total) if np.isfinite(nats).all() else math.inf for rate, nats in losses.items()}
    if not math.isfinite(min(means.values())):
        tried = ", ".join(f"{rate:g}" for rate in sorted(losses))
        raise RiyazError(f"the loss was not finite at learning rate {tried}", hint="give a lower --learning-rate")
    compared = finite = [rate for rate in sorted(losses) if math.isfinite(means[rate])]
    if wrong:
        compared = _within_error({rate: wrong[rate].astype(float) for rate in finite}, tokens)
    best = min(compared, key=lambda rate: means[rate])
    record: list[dict[str, Any]] = []
    for rate in sorted(losses):
        record.append({"rate": rate, "loss": means[rate] if rate in finite else None})
        if rate in finite:
            record[-1]["error"] = _paired_error(losses[rate] - losses[best], tokens)
        if rate in finite and wrong:
            record[-1]["accuracy"] = 1 - float(wrong[rate].sum() / total)
    return _within_error({rate: losses[rate] for rate in compared}, tokens)[0], record


def _within_error(losses: Mapping[float, np.ndarray], tokens: np.ndarray) -> list[float]:
    """The rates, ascending, whose losses (n,) have a mean per token within one standard error of the lowest."""
    means = {rate: float(rows.sum() / tokens.sum()) for rate, rows in losses.items()}
    best = min(means, key=lambda rate: means[rate])
    errors = {rate: _paired_error(rows - losses[best], tokens) for rate, rows in losses.items()}
    return [rate for rate in sorted(losses) if means[rate] - means[best] <= errors[rate]]


def _paired_error(more: np.ndarray, tokens: np.ndarray) -> float:
    """The standard error of the mean per token of differences (n,) on rows with so many tokens (n,)."""
    n, total = len(tokens), float(tokens.sum())
    spread = more - more.sum() / total * tokens
    return math.sqrt(n / max(1, n - 1) * float((spread**2).sum())) / total


def train_plan(context: Context, rate: float, rows: Sequence[Row]) -> "TrainPlan":
    """The training run of the arm's plan at a learning rate, in which a step has as many answers as planned, whether
    `rows` hold one or several."""
    from riyaz.train import TrainPlan

    arm = context.arm
    return TrainPlan(
        steps=arm.steps, learning_rate=rate, steady=arm.opening,
        batch_size=rows_per_step(rows, arm.batch_size),
        compute=context.compute, validate_every=arm.validate_every, checkpoint_every=arm.checkpoint_every,
        micro_tokens=pass_tokens(describe(context.source).config), seed=context.seed,
    )  # fmt: skip


def trained(
    context: Context, model: Any, rows: Sequence[Row], valid: Sequence[Row], plan: "TrainPlan", folder: Path,
    listen: Listen, *, begun: Path | None = None, adjust: Callable[["TrainPlan", int], "TrainPlan"] | None = None,
) -> "TrainState":  # fmt: skip
    """`train.train` by the context's objective, with the checkpoints in `folder` below its own; without rows `valid` it
    is the run on all rows. Of several processes the first one announces it to the others (`fitting.following`). A run
    with validation rows records what it learns (`recording`)."""
    from riyaz.train import train

    if context.ranks.count > 1 and not context.ranks.rank:
        name = str(folder.relative_to(context.folder))
        context.ranks.first({"do": "train", "plan": asdict(plan), "folder": name, "every": not valid})
    with recorded(context, model, valid, plan, folder, begun) as recorder:
        return train(model, rows, valid, plan, folder, listen, begun=begun, adjust=adjust, objective=context.objective,
                     judge=judge_of(context), ranks=context.ranks,
                     after_validation=recorder.validated if recorder and not context.ranks.rank else None,
                     stepping=recorder.stepping if recorder else None)  # fmt: skip


def judge_of(context: Context) -> "Judge | None":
    """What judges a model on validation rows by the context's objective; None where that is −log p of the answers."""
    if context.objective is None:
        return None
    from riyaz.preferences import judge_answers

    return judge_answers(context.objective)


def opening_folder(context: Context, rate: float) -> Path:
    """The folder of an opening's checkpoint."""
    return context.folder / OPENINGS / f"{rate:g}"
