"""Decides a close pick on answers given one at a time, as a served model gives them: in a batch, numbers
round differently and some answers differ.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from riyaz.comparison import processes
from riyaz.comparison.arm_row import FINISHED, arm_row, row_groups, row_scores
from riyaz.comparison.folder import DAMAGED, ComparisonFolder
from riyaz.comparison.pick import contenders
from riyaz.comparison.plan import ComparisonPlan
from riyaz.config import CompareConfig
from riyaz.errors import joined
from riyaz.events import ArmDone, Listen, Note, Phase, about
from riyaz.json_files import from_json, read_json, to_document, write_json
from riyaz.methods import METHODS
from riyaz.results import RESULT, ArmResult, Evaluation

ALONE = "alone.json"


@dataclass(frozen=True)
class Alone:
    """alone.json: the finished arms with their training steps, and those of them that are asked again. A comparison
    that is continued asks the same ones, unless an arm was trained further."""

    steps: dict[str, int]
    methods: tuple[str, ...]


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
    finished = [arm for arm in arms if arm.status in FINISHED]
    steps = {arm.name: plan.arm(arm.name).steps for arm in finished}
    methods = _methods_before(folder, steps)
    if methods is None:
        close = contenders(arms, row_scores(folder, arms, names), config.margin, limits(config), config.seed,
                           row_groups(folder, arms, names))  # fmt: skip
        methods = _in_time(plan, [arm for arm in finished if arm.name in close], left(), listen)
        if methods:
            write_json(folder.path / ALONE, Alone(steps, methods))
    return [_alone(folder, plan, arm, names, listen) if arm.name in methods else arm for arm in arms]


def limits(config: CompareConfig) -> dict[str, float | None]:
    """The limits on an arm that may be picked, as `pick.choose` takes them."""
    return {
        "max_ms": config.max_ms,
        "max_rss_mb": config.max_rss_mb,
        "max_forgetting": config.max_forgetting,
    }


def _methods_before(folder: ComparisonFolder, steps: dict[str, int]) -> tuple[str, ...] | None:
    """The methods in alone.json; None if there is none, or one about arms with other training steps."""
    path = folder.path / ALONE
    if not path.exists():
        return None
    stored = from_json(Alone, read_json(path, DAMAGED), str(path), DAMAGED)
    return stored.methods if stored.steps == steps else None


def _in_time(plan: ComparisonPlan, close: Sequence[ArmResult], left: float, listen: Listen) -> tuple[str, ...]:
    """Those of the `close` arms that use a model; none, and a note, if asking them again takes more than `left`
    seconds."""
    again = [arm for arm in close if METHODS[arm.method].about.language_model]
    seconds = sum(_seconds(plan, arm) for arm in again if not arm.alone)
    if not again or seconds <= left:
        return tuple(arm.name for arm in again)
    between = joined([arm.name for arm in close])
    what = f"no time left to decide between {between} on answers given one at a time"
    listen(Note(f"{what}, which takes {seconds:.0f} s"))
    return ()


def _seconds(plan: ComparisonPlan, arm: ArmResult) -> float:
    """Seconds to start the processes of an arm and to answer all its test rows alone."""
    return plan.arm(arm.name).seconds.get("start", 0.0) + arm.n_test * (arm.ms_per_answer or 0.0) / 1000


def _alone(
    folder: ComparisonFolder, plan: ComparisonPlan, arm: ArmResult, names: Sequence[str], listen: Listen
) -> ArmResult:
    """The arm's row with answers given one at a time; the same row if its process fails."""
    if arm.status not in FINISHED:
        return arm
    for part in names:
        run = folder.part(arm.name, part)
        if Evaluation.read(run / RESULT).alone or not folder.rows(part, "test"):
            continue
        listen(Phase("evaluate", "one row at a time", arm.name))
        arguments = ["alone", str(folder.path), arm.name, part]
        reason = processes.run_worker(arguments, run / "log.txt", about(arm.name, listen))
        if reason:
            listen(Note(f"{arm.name} could not be asked one row at a time: {reason}"))
            return arm
    row = replace(arm_row(folder, plan.arm(arm.name), names, ""), seeds=arm.seeds)
    listen(ArmDone(to_document(row)))
    return row
