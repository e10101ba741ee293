"""What is trained again when the arms are done and time is left: other seeds of a close call, and fewer rows.

An extra part lies beside the arm's own (`arms/METHOD/seed-1/`, `arms/METHOD/rows-25/`), described by its
`part.json`, and takes the learning rate that the arm's search found.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from riyaz.comparison import processes
from riyaz.comparison.arm_row import read_predictions
from riyaz.comparison.folder import KEPT, ComparisonFolder
from riyaz.comparison.plan import ComparisonPlan
from riyaz.events import ArmDone, Listen, Note, Phase, about
from riyaz.files import write_json
from riyaz.methods import CURVE
from riyaz.methods.base import ArmPlan
from riyaz.metrics.intervals import interval

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
    known = folder.read(f"arms/{method}/{name}/part.json")
    return Part(**known) if known else None


def seeds(
    folder: ComparisonFolder,
    plan: ComparisonPlan,
    arms: Sequence[dict],
    margin: float,
    left: Callable[[], float],
    listen: Listen,
) -> None:
    """Two more seeds of the two best trained arms when they are within the margin: `seeds` in their rows."""
    trained = sorted(
        (arm for arm in arms if arm["status"] in ("ok", "cut") and arm["trainable_params"]),
        key=lambda arm: -arm["score"],
    )[:2]
    if len(trained) < 2 or trained[0]["score"] - trained[1]["score"] > margin:
        return
    for n in range(1, SEEDS + 1):
        for arm in trained:
            rate = arm["chosen"]["learning_rate"]
            run(folder, plan, arm, Part(f"seed-{n}", 1, plan.seed + n, rate), left, listen)
    for arm in trained:
        scores = _scores(folder, arm["method"], "seed-")
        if scores:
            kept = [{"seed": plan.seed, "score": arm["score"]}]
            arm["seeds"] = kept + [{"seed": part.seed, "score": float(rows.mean())} for part, rows in scores]


def data_curve(
    folder: ComparisonFolder, plan: ComparisonPlan, arms: Sequence[dict], left: Callable[[], float], listen: Listen
) -> list[dict[str, Any]]:
    """Scores of LoRA on a quarter and on half of the training rows beside those on all; [] when it was not trained."""
    arm = next((arm for arm in arms if arm["method"] == CURVE and arm["status"] in ("ok", "cut")), None)
    if arm is None:
        return []
    rate = arm["chosen"]["learning_rate"]
    for stride in FRACTIONS:
        run(folder, plan, arm, Part(f"rows-{100 // stride}", stride, plan.seed, rate), left, listen)
    rows = len(folder.rows(KEPT, "train"))
    points = [(-(-rows // part.stride), scores) for part, scores in _scores(folder, CURVE, "rows-")]
    points.append((rows, np.array([row["score"] for row in read_predictions(folder.run(CURVE, KEPT))])))
    found = []
    for count, scores in sorted(points, key=lambda point: point[0]):
        low, high = interval(scores)
        found.append({"rows": count, "score": float(scores.mean()), "ci_low": low, "ci_high": high})
    return found


def run(
    folder: ComparisonFolder, plan: ComparisonPlan, arm: dict, part: Part, left: Callable[[], float], listen: Listen
) -> None:
    """Fit and evaluate one extra part, if it is not there yet and what it will take is left of the budget."""
    method = arm["method"]
    place = folder.run(method, part.name)
    if (place / "result.json").exists():
        return
    fit, result = (folder.read(f"arms/{method}/{KEPT}/{name}") for name in ("fit.json", "result.json"))
    needed = fit["seconds"] - fit["search_seconds"] + result["eval_seconds"]
    if needed > left():
        listen(Note(f"no time left for {method} {part.name}, which takes {needed:.0f} s"))
        return
    write_json(place / "part.json", asdict(part))
    for work, product in (("fit", "fit.json"), ("evaluate", "result.json")):
        if (place / product).exists():
            continue
        listen(Phase(work, part.name, method))
        arguments = [work, str(folder.path), method, part.name]
        reason = processes.run(arguments, place / "log.txt", about(method, listen))
        if reason:
            listen(Note(f"{method} {part.name} failed: {reason}"))
            break
    listen(ArmDone(arm))  # it is what it was before


def _scores(folder: ComparisonFolder, method: str, prefix: str) -> list[tuple[Part, np.ndarray]]:
    """The extra parts of an arm that are done and held their checks, and the scores of their test rows."""
    found = []
    for place in sorted((folder.path / "arms" / method).glob(f"{prefix}*")):
        part = read_part(folder, method, place.name)
        if part is None or not (place / "result.json").exists():
            continue
        facts = [folder.read(f"arms/{method}/{place.name}/{name}") for name in ("fit.json", "result.json")]
        if all(check["ok"] for found_by in facts for check in found_by["checks"].values()):
            found.append((part, np.array([row["score"] for row in read_predictions(place)])))
    return found
