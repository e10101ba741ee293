"""What is trained again when the arms are done and time is left: other seeds of a close call, and fewer rows.

An extra part lies beside the arm's own (`arms/METHOD/seed-1/`, `arms/METHOD/rows-25/`), described by its
`part.json`, and takes the learning rate that the arm's search found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from riyaz.comparison import processes
from riyaz.comparison.arm_row import FINISHED, points
from riyaz.comparison.folder import DAMAGED, KEPT, ComparisonFolder
from riyaz.comparison.plan import ComparisonPlan
from riyaz.errors import RiyazError
from riyaz.events import ArmDone, Listen, Note, Phase, about
from riyaz.files import from_json, read_json, to_document, write_json
from riyaz.methods import CURVE
from riyaz.methods.base import ArmPlan
from riyaz.metrics.intervals import interval
from riyaz.results import FIT, PREDICTIONS, RESULT, Answer, ArmResult, CurveScore, Evaluation, Fit, SeedScore

SEEDS = 2  # more of them for each arm of a close call
FRACTIONS = (4, 2)  # of the rows, one in so many
SHARE = 2.0  # of the time over the trained arms that the curve is planned with


@dataclass(frozen=True)
class Part:
    """An extra part: every `stride`-th training row, another seed, as many steps as the arm at the rate it found.

    On fewer rows as well: else the curve would show too short a training and not too few rows.
    """

    name: str
    stride: int
    seed: int
    learning_rate: float

    def plan(self, arm: ArmPlan) -> ArmPlan:
        """The arm's plan without its search."""
        return replace(arm, learning_rates=(self.learning_rate,), rungs=())


def read_part(folder: ComparisonFolder, method: str, name: str) -> Part | None:
    """The extra part of that name; None for a part of the split."""
    path = folder.run(method, name) / "part.json"
    return from_json(Part, read_json(path, DAMAGED), str(path), DAMAGED) if path.exists() else None


def seeds(
    folder: ComparisonFolder,
    plan: ComparisonPlan,
    arms: Sequence[ArmResult],
    margin: float,
    left: Callable[[], float],
    listen: Listen,
) -> list[ArmResult]:
    """The arms again, the two best trained ones with the scores of two more seeds when they are within the margin."""
    scored = [
        (arm.score, arm) for arm in arms if arm.status in FINISHED and arm.trainable_params and arm.score is not None
    ]
    best = sorted(scored, key=lambda pair: -pair[0])[:2]
    if len(best) < 2 or best[0][0] - best[1][0] > margin:
        return list(arms)
    for n in range(1, SEEDS + 1):
        for _, arm in best:
            run(folder, plan, arm, Part(f"seed-{n}", 1, plan.seed + n, _rate(folder, arm)), left, listen)
    seeded = {}
    for score, arm in best:
        scores = _scores(folder, arm.method, "seed-")
        if scores:
            more = [SeedScore(part.seed, float(rows.mean())) for part, rows in scores]
            seeded[arm.method] = replace(arm, seeds=[SeedScore(plan.seed, score), *more])
    return [seeded.get(arm.method, arm) for arm in arms]


def data_curve(
    folder: ComparisonFolder, plan: ComparisonPlan, arms: Sequence[ArmResult], left: Callable[[], float], listen: Listen
) -> list[CurveScore]:
    """Scores of LoRA on a quarter and on half of the training rows beside those on all; [] when it was not trained."""
    arm = next((arm for arm in arms if arm.method == CURVE and arm.status in FINISHED), None)
    if arm is None:
        return []
    rate = _rate(folder, arm)
    for stride in FRACTIONS:
        run(folder, plan, arm, Part(f"rows-{100 // stride}", stride, plan.seed, rate), left, listen)
    rows = len(folder.rows(KEPT, "train"))
    curve = [(-(-rows // part.stride), scores) for part, scores in _scores(folder, CURVE, "rows-")]
    curve.append((rows, points(Answer.read(folder.run(CURVE, KEPT) / PREDICTIONS))))
    return [
        CurveScore(count, float(scores.mean()), *interval(scores))
        for count, scores in sorted(curve, key=lambda point: point[0])
    ]


def run(
    folder: ComparisonFolder,
    plan: ComparisonPlan,
    arm: ArmResult,
    part: Part,
    left: Callable[[], float],
    listen: Listen,
) -> None:
    """Fit and evaluate one extra part, if it is not there yet and what it will take is left of the budget."""
    method = arm.method
    place = folder.run(method, part.name)
    if (place / RESULT).exists():
        return
    kept = folder.run(method, KEPT)
    fit, result = Fit.read(kept / FIT), Evaluation.read(kept / RESULT)
    needed = fit.seconds - fit.search_seconds + result.eval_seconds
    if needed > left():
        listen(Note(f"no time left for {method} {part.name}, which takes {needed:.0f} s"))
        return
    write_json(place / "part.json", part)
    for work, product in (("fit", FIT), ("evaluate", RESULT)):
        if (place / product).exists():
            continue
        listen(Phase(work, part.name, method))
        arguments = [work, str(folder.path), method, part.name]
        reason = processes.run(arguments, place / "log.txt", about(method, listen))
        if reason:
            listen(Note(f"{method} {part.name} failed: {reason}"))
            break
    listen(ArmDone(to_document(arm)))  # it is what it was before


def _rate(folder: ComparisonFolder, arm: ArmResult) -> float:
    """The learning rate that the arm's search found."""
    rate = arm.chosen.get("learning_rate")
    if not isinstance(rate, float):
        raise RiyazError("names no learning rate", str(folder.run(arm.method, KEPT) / FIT), DAMAGED)
    return rate


def _scores(folder: ComparisonFolder, method: str, prefix: str) -> list[tuple[Part, np.ndarray]]:
    """The extra parts of an arm that are done and held their checks, and the scores of their test rows."""
    found = []
    for place in sorted((folder.path / "arms" / method).glob(f"{prefix}*")):
        part = read_part(folder, method, place.name)
        if part is None or not (place / RESULT).exists():
            continue
        checks = [*Fit.read(place / FIT).checks.values(), *Evaluation.read(place / RESULT).checks.values()]
        if all(check["ok"] for check in checks):
            found.append((part, points(Answer.read(place / PREDICTIONS))))
    return found
