"""A clock, and processes that only pretend to work, for the arms of a comparison."""

from pathlib import Path

import pytest

from riyaz.comparison import arms as running
from riyaz.comparison import plan as planning
from riyaz.comparison import processes
from riyaz.comparison.arm_seconds import PlanInputs, Sizes
from riyaz.comparison.arms import Arms
from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.comparison.plan import ComparisonPlan
from riyaz.comparison.speeds import AnswerSpeed, Speeds, TrainSpeed
from riyaz.data import Example
from riyaz.events import Event, Note
from riyaz.json_files import write_json
from riyaz.methods.fitting.base import ArmPlan
from riyaz.methods.fitting.learning_rate import OPENINGS
from riyaz.methods.fitting.pacing import Paced
from riyaz.methods.fitting.recipe import Recipe
from riyaz.results import ArmResult, Fit

RECIPE = Recipe(epochs=4, least_steps=1, batch_size=8, learning_rates=(1e-3, 2e-3), default_rate=1e-3)  # 120 steps
SIZES = Sizes(train=240, valid=48, test=40)
ANSWER = AnswerSpeed(0.1, 0.1, loss_seconds=0.01, choose_seconds=2.0, load_seconds=0.5, look_seconds=0.0)
TRAIN = TrainSpeed(1.0, validate_seconds=0.5, build_seconds=0.5, rss_mb=500, disk_mb=10, trainable=10)
NAMES = ("nearest", "zero_shot", "lora", "full", "rag_lora")


class Machine:
    """A clock, and processes that let it go on by what their arm was given, times `slow`."""

    def __init__(self, folder: ComparisonFolder, scores: dict[str, float]) -> None:
        self.folder, self.scores = folder, scores
        self.now, self.slow, self.gains = 0.0, 1.0, 0.0
        self.group_size = 1  # of the validation rows
        self.improving: set[str] = set()  # methods whose last validation is the best
        self.done: list[tuple[str, str]] = []
        self.notes: list[str] = []

    def listen(self, event: Event) -> None:
        if isinstance(event, Note):
            self.notes.append(event.text)

    def valid(self, part: str, which: str) -> list[Example]:
        """The validation rows, each `group_size` of which have the same group."""
        groups = (str(row // self.group_size) for row in range(SIZES.valid))
        return [Example((), ("",), where=f"valid:{row}", group=group) for row, group in enumerate(groups)]

    def rows(self, method: str) -> list[float]:
        """The scores of 20 rows: the mean is the method's score."""
        return [float(row < round(20 * self.scores[method])) for row in range(20)]

    def run(
        self, arguments: list[str], log: Path, listen: object, threads: int | None = None, limit: float | None = None
    ) -> str:
        work, _, method, part = arguments
        self.done.append((work, method))
        arm, run = ComparisonPlan.read(self.folder.path / "plan.json").arm(method), self.folder.part(method, part)
        run.mkdir(parents=True, exist_ok=True)
        seconds = {key: value / arm.pace * self.slow for key, value in arm.seconds.items()}
        train, evaluate = seconds.pop("train", 0.0), seconds.pop("evaluate")
        steps = self.paced(arm, train) if arm.steps else 0
        took = {"open": arm.opening * self.slow, "evaluate": evaluate}.get(work, sum(seconds.values()))
        took += train * steps / arm.steps if work == "fit" and arm.steps else 0.0
        if limit is not None and took > limit:
            self.now += limit
            return processes.STOPPED
        self.now += took
        if work == "open":
            (run / OPENINGS).mkdir()
            write_json(run / "search.json", {"rate": 1e-3, "record": [], "scores": self.rows(method)})
        elif work == "fit":
            self.write_fit(run, arm, steps, took)
            if steps < arm.steps:
                write_json(run / "pace.json", Paced(((steps - 1, steps),), took))
        else:
            write_json(run / "result.json", {})
        return ""

    def write_fit(self, run: Path, arm: ArmPlan, steps: int, took: float) -> None:
        """fit.json of a run that is as good as the method's score, and with `gains` better where it is longer than
        the recipe."""
        best = steps if arm.method in self.improving else max(0, steps - 1)
        score = self.scores.get(arm.method, 0.0) + (self.gains if steps > arm.recipe_steps else 0.0)
        chosen = {"learning_rate": 1e-3, "steps": steps, "best_step": best}
        fit = Fit(chosen, {}, search_seconds=0.0, train_seconds=took, trainable_params=0, valid_loss=1.0,
                  valid_score=score, curve=[], peak_rss_mb=1.0, seconds=took)  # fmt: skip
        write_json(run / "fit.json", fit)

    def paced(self, arm: ArmPlan, train: float) -> int:
        """The steps of a run whose every step takes `train` seconds / the planned steps, as `Pace` shortens it; with a
        refit, which `train` holds too, of its own steps."""
        each = self.slow * arm.step_seconds / arm.pace if arm.refit else train / arm.steps
        allowed = arm.train_limit - arm.after_seconds * max(0.0, each / arm.step_seconds - 1)
        return min(arm.steps, max(arm.opening + 1, int(allowed / each)))


def pretending(folder: Path, patch: pytest.MonkeyPatch) -> Machine:
    """A machine in this folder, whose processes the arms run."""
    made = Machine(ComparisonFolder(folder), {"lora": 0.5, "full": 0.3, "rag_lora": 0.4})
    patch.setattr(ComparisonFolder, "rows", made.valid)
    patch.setattr(processes, "run_worker", made.run)
    patch.setattr(running.time, "monotonic", lambda: made.now)
    patch.setattr(running, "arm_row", lambda folder, arm, parts, reason: ArmResult(arm.method, "ok"))
    return made


def begun(
    machine: Machine, budget: float, names: tuple[str, ...] = NAMES, answers: dict[str, AnswerSpeed] | None = None,
    trains: dict[str, TrainSpeed] | None = None, recipes: dict[str, Recipe] | None = None,
) -> Arms:  # fmt: skip
    of = {name: (recipes or {}).get(name, RECIPE) if name in machine.scores else None for name in names}
    speeds = Speeds(2, "float32", rss_mb=400, start_seconds=1.0, base_seconds=1.0,
                    predict=dict.fromkeys(names, ANSWER) | (answers or {}),
                    arms=dict.fromkeys(machine.scores, TRAIN) | (trains or {}))  # fmt: skip
    given = PlanInputs(of, speeds, SIZES, seed=0, rate_of={"rag_lora": "lora"}, may_wait=names)
    plan = planning.make_plan(given, budget=budget, spent=0.0)
    machine.folder.write("plan.json", plan)
    return Arms(machine.folder, given, plan, [FINAL], budget, lambda: machine.now, machine.listen)


def steps(arms: Arms) -> dict[str, int]:
    return {arm.method: arm.steps for arm in arms.plan.arms if arm.recipe_steps}
