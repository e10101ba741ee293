"""`riyaz compare --limits`: what each arm that may be picked cannot do, in the time that is left of the budget.

Every arm is measured in a process of its own and keeps its limits.json in its artifact's folder. The pick comes first,
then the runner-up, then the others by score; where the time is too short for all, the first ones are measured and the
rest is said.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from riyaz.comparison import processes
from riyaz.comparison.arm_row import FINISHED
from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.events import Listen, Note, Phase, about
from riyaz.results import LIMITS, ArmResult, Comparison

SHARE = 0.2  # of the budget
LEAST = 20.0  # seconds for an arm; with less a suite measures next to nothing


def for_arms(budget: float, limits: bool, listen: Listen) -> float:
    """What the arms have of a budget, where their limits are measured too; that is said."""
    if not limits:
        return budget
    listen(Note("a fifth of the budget is kept to measure what the arms cannot do"))
    return (1 - SHARE) * budget


def measure(folder: ComparisonFolder, comparison: Comparison, left: Callable[[], float], listen: Listen) -> None:
    """Measure the arms that have no limits.json yet; an arm that fails is a note."""
    waiting = [arm.name for arm in in_order(comparison) if not _path(folder, arm.name).exists()]
    for place, name in enumerate(waiting):
        share = left() / (len(waiting) - place)
        if share < LEAST and place:
            listen(Note(f"no time left for the limits of {', '.join(waiting[place:])}"))
            return
        seconds = max(LEAST, share)
        listen(Phase("limits", f"about {seconds:.0f} s", name))
        arguments = ["limits", str(folder.path), name, f"{seconds:.0f}"]
        reason = processes.run_worker(arguments, folder.part(name, FINAL) / "log.txt", about(name, listen))
        if reason:
            listen(Note(f"the limits of {name} were not measured: {reason}"))


def in_order(comparison: Comparison) -> Sequence[ArmResult]:
    """The arms that may be picked: those with a score, the pick and the runner-up first, then by score."""
    first = [name for name in (comparison.pick, comparison.runner_up) if name is not None]
    scored = [arm for arm in comparison.ranked if arm.status in FINISHED and arm.score is not None]
    return sorted(scored, key=lambda arm: first.index(arm.name) if arm.name in first else len(first))


def _path(folder: ComparisonFolder, name: str) -> Path:
    return folder.part(name, FINAL) / "artifact" / LIMITS
