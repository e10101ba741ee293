"""Decides a close pick on answers given one at a time, as a served model gives them: in a batch, numbers are rounded
otherwise and some answers differ.

alone.json lists the methods that were asked again, so that a comparison that is continued asks the same ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from riyaz.comparison import processes
from riyaz.comparison.arm_row import FINISHED, arm_row, row_scores
from riyaz.comparison.folder import DAMAGED, ComparisonFolder
from riyaz.comparison.pick import contenders
from riyaz.comparison.plan import ComparisonPlan
from riyaz.config import CompareConfig
from riyaz.errors import RiyazError
from riyaz.events import ArmDone, Listen, Note, Phase, about
from riyaz.files import to_document
from riyaz.methods import METHODS
from riyaz.results import RESULT, ArmResult, Evaluation

ASKED = "alone.json"


def decide_alone(
    folder: ComparisonFolder,
    plan: ComparisonPlan,
    arms: Sequence[ArmResult],
    names: Sequence[str],
    config: CompareConfig,
    left: Callable[[], float],
    listen: Listen,
) -> list[ArmResult]:
    """The arms; if the pick between them is not clear and the `left()` seconds are enough, those it is between that
    use a model with scores of answers given one at a time. `names` are the parts of every arm."""
    methods = _methods(folder, plan, arms, names, config, left, listen)
    return [_alone(folder, plan, arm, names, listen) if arm.method in methods else arm for arm in arms]


def limits(config: CompareConfig) -> dict[str, float | None]:
    """The limits on an arm that may be picked, as `pick.choose` takes them."""
    return {
        "max_ms": config.max_ms,
        "max_rss_mb": config.max_rss_mb,
        "max_forgetting": config.max_forgetting,
    }


def _methods(
    folder: ComparisonFolder,
    plan: ComparisonPlan,
    arms: Sequence[ArmResult],
    names: Sequence[str],
    config: CompareConfig,
    left: Callable[[], float],
    listen: Listen,
) -> list[str]:
    """The methods to ask again: those in alone.json, or those that are written there now; [] if there is no time."""
    asked = folder.read(ASKED)
    if asked is not None:
        if not isinstance(asked, list) or not all(method in list(METHODS) for method in asked):
            raise RiyazError("is not a list of methods", str(folder.path / ASKED), DAMAGED)
        return asked
    scores = row_scores(folder, arms, names)
    close = contenders(arms, scores, config.margin, limits(config), config.seed)
    methods = [arm.method for arm in arms if arm.method in close and METHODS[arm.method].candidates]
    if not methods:
        return []
    seconds = sum(_seconds(plan, arm) for arm in arms if arm.method in methods)
    if seconds > left():
        what = f"no time left to decide between {' and '.join(close)} on answers given one at a time"
        listen(Note(f"{what}, which takes {seconds:.0f} s"))
        return []
    folder.write(ASKED, methods)
    return methods


def _seconds(plan: ComparisonPlan, arm: ArmResult) -> float:
    """Seconds to start the processes of an arm and to answer all its test rows alone."""
    return plan.arm(arm.method).seconds.get("start", 0.0) + arm.n_test * (arm.ms_per_answer or 0.0) / 1000


def _alone(
    folder: ComparisonFolder, plan: ComparisonPlan, arm: ArmResult, names: Sequence[str], listen: Listen
) -> ArmResult:
    """The arm's row with answers given one at a time; the same row if its process fails."""
    if arm.status not in FINISHED or arm.alone:
        return arm
    for part in names:
        run = folder.run(arm.method, part)
        if Evaluation.read(run / RESULT).alone or not folder.rows(part, "test"):
            continue
        listen(Phase("evaluate", "one row at a time", arm.method))
        arguments = ["alone", str(folder.path), arm.method, part]
        reason = processes.run(arguments, run / "log.txt", about(arm.method, listen))
        if reason:
            listen(Note(f"{arm.method} could not be asked one row at a time: {reason}"))
            return arm
    row = replace(arm_row(folder, plan.arm(arm.method), names, ""), seeds=arm.seeds)
    listen(ArmDone(to_document(row)))
    return row
