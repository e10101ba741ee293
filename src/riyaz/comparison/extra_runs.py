"""Extra trainings in the time that is left after the arms: more seeds if two arms are close, and fewer rows.

An extra run lies beside the arm's own part (`arms/ARM/seed-1/`, `arms/ARM/rows-25/`), is described by its
`part.json`, and uses the learning rate that the arm's search found.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from riyaz.comparison import processes
from riyaz.comparison.arm_row import FINISHED, row_points
from riyaz.comparison.folder import DAMAGED, FINAL, ComparisonFolder
from riyaz.comparison.plan import ComparisonPlan
from riyaz.errors import RiyazError
from riyaz.events import ArmDone, Listen, Note, Phase, about
from riyaz.json_files import from_json, read_json, to_document, write_json
from riyaz.methods import CURVE, METHODS
from riyaz.methods.fitting.base import ArmPlan
from riyaz.metrics.groups import group_numbers
from riyaz.metrics.intervals import interval
from riyaz.results import FIT, PREDICTIONS, RESULT, Answer, ArmResult, CurveScore, Evaluation, Fit, SeedScore

SEEDS = 2  # extra seeds of each of two close arms
STRIDES = (4, 2)  # the data curve trains on every 4th and on every 2nd row
SHARE = 2.0  # share of the trained arms' time that the plan keeps for the data curve; an arm's own is 1


@dataclass(frozen=True)
class ExtraRun:
    """part.json: a training on every `stride`-th training row, with its own seed and the arm's learning rate.

    It takes as many steps as the arm on fewer rows too: the curve shall show too few rows, not too short a training.
    """

    name: str
    stride: int
    seed: int
    learning_rate: float

    def plan(self, arm: ArmPlan) -> ArmPlan:
        """The arm's plan without its learning-rate search, and with all its steps whatever they take; on fewer training
        rows without the validation rows, which would be more than these."""
        refit = arm.refit and self.stride == 1
        return replace(arm, learning_rates=(self.learning_rate,), train_limit=0.0, refit=refit)


def read_extra_run(folder: ComparisonFolder, name: str, part: str) -> ExtraRun | None:
    """The extra run of that name; None for a part of the split. Raises RiyazError for a damaged part.json."""
    path = folder.part(name, part) / "part.json"
    return from_json(ExtraRun, read_json(path, DAMAGED), str(path), DAMAGED) if path.exists() else None


def seeds(
    folder: ComparisonFolder,
    plan: ComparisonPlan,
    arms: Sequence[ArmResult],
    margin: float,
    left: Callable[[], float],
    listen: Listen,
) -> list[ArmResult]:
    """The arms; if none was cut short and the two best trained ones are within `margin`, these two with their scores
    under more seeds."""
    if any(arm.status == "cut" for arm in arms):  # its steps would tell more than another seed
        return list(arms)
    scored = [
        (arm.score, arm)
        for arm in arms
        if arm.status in FINISHED and METHODS[arm.method].recipe is not None and arm.score is not None
    ]
    best = sorted(scored, key=lambda pair: -pair[0])[:2]
    if len(best) < 2 or best[0][0] - best[1][0] > margin:
        return list(arms)
    close = [arm for _, arm in best]
    for n in range(1, SEEDS + 1):
        for arm in close:
            run_extra(folder, plan, arm, seed_run(folder, plan, arm.name, arm.chosen, n), left, listen)
    return _with_seeds(folder, plan, arms, close)


def every_seed(
    folder: ComparisonFolder,
    plan: ComparisonPlan,
    arms: Sequence[ArmResult],
    count: int,
    left: Callable[[], float],
    listen: Listen,
    run: bool = True,
) -> list[ArmResult]:
    """The arms, every trained one with its scores under `count` seeds; without `run` those that are there already."""
    trained = [
        arm for arm in arms
        if arm.status in FINISHED and METHODS[arm.method].recipe is not None and arm.score is not None
    ]  # fmt: skip
    for n in range(1, count) if run else ():
        for arm in trained:
            run_extra(folder, plan, arm, seed_run(folder, plan, arm.name, arm.chosen, n), left, listen)
    return _with_seeds(folder, plan, arms, trained)


def seed_run(
    folder: ComparisonFolder, plan: ComparisonPlan, name: str, chosen: Mapping[str, Any], number: int
) -> ExtraRun:
    """The run of an arm with the `number`-th seed after its own; `chosen` is that of its fit."""
    return ExtraRun(f"seed-{number}", 1, plan.seed + number, _rate(folder, name, chosen))


def _with_seeds(
    folder: ComparisonFolder, plan: ComparisonPlan, arms: Sequence[ArmResult], trained: Sequence[ArmResult]
) -> list[ArmResult]:
    """The arms, those of `trained` that have finished extra seeds with the scores of all."""
    seeded = {}
    for arm in trained:
        runs = _finished(folder, arm.name, "seed-")
        if runs and arm.score is not None:
            extra = [SeedScore(run.seed, float(points.mean())) for run, points in runs]
            seeded[arm.name] = replace(arm, seeds=[SeedScore(plan.seed, arm.score), *extra])
    return [seeded.get(arm.name, arm) for arm in arms]


def curve_arm(arms: Sequence[ArmResult]) -> ArmResult | None:
    """The arm of the data curve: LoRA, of several bases on the one where it scores best; None if it did not finish."""
    trained = [arm for arm in arms if arm.method == CURVE and arm.status in FINISHED]
    return max(trained, key=lambda arm: -1.0 if arm.score is None else arm.score, default=None)


def data_curve(
    folder: ComparisonFolder, plan: ComparisonPlan, arms: Sequence[ArmResult], left: Callable[[], float], listen: Listen
) -> list[CurveScore]:
    """Scores of `curve_arm` trained on a quarter, on half and on all of the training rows; [] if it did not finish."""
    arm = curve_arm(arms)
    if arm is None:
        return []
    rate = _rate(folder, arm.name, arm.chosen)
    for stride in STRIDES:
        run_extra(folder, plan, arm, ExtraRun(f"rows-{100 // stride}", stride, plan.seed, rate), left, listen)
    rows = len(folder.rows(FINAL, "train"))
    curve = [(-(-rows // extra.stride), points) for extra, points in _finished(folder, arm.name, "rows-")]
    curve.append((rows, row_points(Answer.read(folder.part(arm.name, FINAL) / PREDICTIONS))))
    groups = group_numbers([row.group for row in folder.rows(FINAL, "test")])
    return [
        CurveScore(count, float(points.mean()), *interval(points, groups))
        for count, points in sorted(curve, key=lambda point: point[0])
    ]


def run_extra(
    folder: ComparisonFolder,
    plan: ComparisonPlan,
    arm: ArmResult,
    extra: ExtraRun,
    left: Callable[[], float],
    listen: Listen,
) -> None:
    """Fit and evaluate one extra run, unless it is done already or takes longer than the `left()` seconds."""
    name = arm.name
    place = folder.part(name, extra.name)
    if (place / RESULT).exists():
        return
    final = folder.part(name, FINAL)
    fit, result = Fit.read(final / FIT), Evaluation.read(final / RESULT)
    needed = fitting_seconds(fit) + result.eval_seconds
    if needed > left():
        listen(Note(f"no time left for {name} {extra.name}, which takes {needed:.0f} s"))
        return
    write_json(place / "part.json", extra)
    for work, product in (("fit", FIT), ("evaluate", RESULT)):
        if (place / product).exists():
            continue
        listen(Phase(work, extra.name, name))
        arguments = [work, str(folder.path), name, extra.name]
        reason = processes.run_worker(arguments, place / "log.txt", about(name, listen))
        if reason:
            listen(Note(f"{name} {extra.name} failed: {reason}"))
            break
    listen(ArmDone(to_document(arm)))  # the arm's row has not changed


def fitting_seconds(fit: Fit) -> float:
    """Seconds of an arm's fit without its search: an opening may have been trained before, in another process."""
    return max(fit.seconds - fit.search_seconds, fit.train_seconds)


def _rate(folder: ComparisonFolder, name: str, chosen: Mapping[str, Any]) -> float:
    """The learning rate that an arm's search found. Raises RiyazError if its fit.json names none."""
    rate = chosen.get("learning_rate")
    if not isinstance(rate, float):
        raise RiyazError("names no learning rate", str(folder.part(name, FINAL) / FIT), DAMAGED)
    return rate


def _finished(folder: ComparisonFolder, name: str, prefix: str) -> list[tuple[ExtraRun, np.ndarray]]:
    """The extra runs of an arm that are evaluated and passed their checks, with the scores (n,) of the test rows."""
    runs = []
    for place in sorted((folder.path / "arms" / name).glob(f"{prefix}*")):
        extra = read_extra_run(folder, name, place.name)
        if extra is None or not (place / RESULT).exists():
            continue
        checks = [*Fit.read(place / FIT).checks.values(), *Evaluation.read(place / RESULT).checks.values()]
        if all(check["ok"] for check in checks):
            runs.append((extra, row_points(Answer.read(place / PREDICTIONS))))
    return runs
