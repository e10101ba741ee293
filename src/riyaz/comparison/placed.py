"""A comparison whose arms are fitted at several places: what the places measure, its plan, and its pieces.

The plan is made once, for the time until the last place is done, and then frozen: no openings decide who waits, and no
arm is planned anew or trained longer in the time that is left. The openings at the learning rates of an arm are pieces
of their own where that is quicker.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from riyaz import hardware
from riyaz.comparison import plan as planning
from riyaz.comparison import processes
from riyaz.comparison.arm_row import FINISHED, arm_row
from riyaz.comparison.arm_seconds import PlanInputs
from riyaz.comparison.arms import OWN_SHARE, Arms, is_worth, planned_seconds
from riyaz.comparison.at_place import Embedder, embedder_hash
from riyaz.comparison.bases import instruction_of, merged, method_of, parts_of, rate_of
from riyaz.comparison.dispatch import UNFINISHED, ArmPiece, Dispatch, Key, Rules, makespan, take_back
from riyaz.comparison.extra_runs import fitting_seconds, seed_run
from riyaz.comparison.folder import DAMAGED, FINAL, PLACES, ComparisonFolder
from riyaz.comparison.job import Job
from riyaz.comparison.places import (
    HERE,
    HINT,
    Command,
    Piece,
    Place,
    PlaceLost,
    check_places,
    open_places,
    stopping,
)
from riyaz.comparison.plan import ComparisonPlan
from riyaz.comparison.ray_nodes import RayNode, open_nodes
from riyaz.comparison.speeds import MEASURED, Speeds
from riyaz.config import CompareConfig
from riyaz.engine.opening import EMBEDDER
from riyaz.errors import RiyazError
from riyaz.events import ArmDone, Listen, Note, quiet
from riyaz.files import remove
from riyaz.json_files import read_json, to_document, write_json
from riyaz.methods import METHODS
from riyaz.methods.fitting.base import ArmPlan
from riyaz.methods.fitting.learning_rate import SEARCH
from riyaz.methods.fitting.recipe import trains_opening
from riyaz.results import FIT, ArmResult, Fit, Turn

QUARTERS = 4  # steps in which the budget of the plan grows from that of one place to that of all
BOUND = 100.0  # most times that a place is taken to be slower or faster
SEED = "seed-"  # what the parts of further seeds begin with


@contextlib.contextmanager
def opened(config: CompareConfig, folder: ComparisonFolder, job: Job, listen: Listen) -> Iterator[list[Place]]:
    """The places of --places or --ray, checked; [] where this machine alone works. Raises RiyazError for one that
    cannot be used."""
    if config.places in ((), (HERE,)) and config.ray is None:
        yield []
        return
    models = {str(Path(source.path).absolute()): source.sha256() for source in job.bases.values()}
    embeds = next((name for name in job.methods if METHODS[name].embeds), None)
    embedder = Embedder(EMBEDDER, embedder_hash(EMBEDDER), embeds) if embeds else None
    if config.ray is None:
        places = open_places(config.places, folder, models, embedder)
    else:
        places = open_nodes(config.ray, folder, models, embedder, job.arms, job.settings, listen)
    with stopping(places):
        check_places(places, listen)
        yield places


@contextlib.contextmanager
def measuring(
    places: Sequence[Place], bases: Sequence[str | None], seconds: float, threads: int | None
) -> Iterator[None]:
    """Within the block every place but this machine measures itself, for about so many seconds with each base; at its
    end they have. Raises RiyazError naming the first place that could not."""
    failed: dict[str, str] = {}
    used = hardware.threads() if threads is None else threads

    def measure(place: Command) -> None:
        for base in bases:
            if _is_measured(_measured(place, base), used):
                continue
            words = ("measure", f"{seconds:.3f}", base or "", str(place.folder))
            try:
                reason = place.run(Piece(words, place.folder / "measure.log", threads=used), quiet)
            except PlaceLost as lost:
                reason = f"was lost while it measured itself ({lost}); {HINT}"
            except RiyazError as error:
                reason = str(error)
            if reason:
                failed[place.name] = reason
                return

    commands = [place for place in places if isinstance(place, Command)]
    threads_ = [threading.Thread(target=measure, args=(place,), daemon=True) for place in commands]
    for thread in threads_:
        thread.start()
    yield
    for thread in threads_:
        thread.join()
    for place in commands:
        if place.name in failed:
            raise RiyazError(failed[place.name], place.name)


def _measured(place: Command, base: str | None) -> Path:
    return ComparisonFolder(place.folder, measured=place.folder).base(base) / MEASURED


def _is_measured(path: Path, threads: int) -> bool:
    measured = read_json(path, DAMAGED) if path.exists() else None
    return isinstance(measured, dict) and measured.get("threads") == threads


def rules_of(places: Sequence[Place], bases: Sequence[str | None], here: Speeds) -> Rules:
    """What each place may take, and how slow it is, by what it has measured. Raises RiyazError for a damaged file."""
    slowness, unable, at_home = {}, {}, set[str]()
    for place in places:
        if isinstance(place, Command):
            there = merged({base or "": Speeds.read(_measured(place, base), (), ()) for base in bases})
            slowness[place.name] = {name: _slowness(name, there, here) for name in {*here.predict, *here.arms}}
            unable[place.name] = {name: why for name, why in there.unable.items() if name not in here.unable}
        if isinstance(place, RayNode):
            at_home |= place.at_home
    return Rules([place.name for place in places], unable, slowness, at_home=at_home)


def _slowness(arm: str, there: Speeds, here: Speeds) -> float:
    """The time that an arm takes there / the time here: of its training, else of its answers."""
    pairs = []
    if arm in there.arms and arm in here.arms:
        pairs.append((there.arms[arm].step_seconds, here.arms[arm].step_seconds))
    if arm in there.predict and arm in here.predict:
        pairs.append((there.predict[arm].row_seconds, here.predict[arm].row_seconds))
    ratio = next((theirs / ours for theirs, ours in pairs if ours > 0), 1.0)
    return min(BOUND, max(1 / BOUND, ratio))


def plan_for(inputs: PlanInputs, rules: Rules, *, budget: float, spent: float, leave_out: bool) -> ComparisonPlan:
    """The plan with the most training whose last piece ends within `budget` seconds, by what the places have measured.

    `spent` is the time since the command began. Raises TooShort as `make_plan` does.
    """
    left, count = budget * planning.RESERVE - spent, len(rules.fitting)
    for quarters in range(QUARTERS * count, QUARTERS - 1, -1):
        whole = (spent + left * quarters / QUARTERS) / planning.RESERVE
        try:
            plan = planning.make_plan(inputs, budget=whole, spent=spent, leave_out=leave_out)
        except planning.TooShort:
            if quarters == QUARTERS:  # by the budget that the user has given
                raise
            continue
        needed = makespan(pieces_within(rules, plan, inputs), rules)
        if needed <= left or quarters == QUARTERS:
            break
    spare = max(1.0, left / max(1e-9, needed))
    arms = tuple(
        planning.with_limit(arm, spare, inputs.sizes.parts) if arm.steps and not arm.skipped else arm
        for arm in plan.arms
    )
    return replace(plan, arms=arms, estimate=plan.estimate | {"seconds": spent + needed})


def pieces_of(
    plan: ComparisonPlan, inputs: PlanInputs, parts: Sequence[str] = (), apart: bool = False
) -> list[ArmPiece]:
    """The pieces of all arms that run, with what has to be over before each; `parts` are those of the split. `apart`:
    the openings at several learning rates are pieces of their own."""
    parts = parts or [str(number) for number in range(inputs.sizes.parts - 1)] + [FINAL]
    return [
        piece for arm in plan.arms if not arm.skipped
        for part in [*parts, *(f"{SEED}{number}" for number in range(1, inputs.runs(arm.name)))]
        for piece in _pieces(arm, part, parts, apart)
    ]  # fmt: skip


def pieces_within(rules: Rules, plan: ComparisonPlan, inputs: PlanInputs, parts: Sequence[str] = ()) -> list[ArmPiece]:
    """`pieces_of`, with the openings apart where the last piece then ends earlier at these places: each is a process
    more, which has to start."""
    whole, apart = (pieces_of(plan, inputs, parts, openings) for openings in (False, True))
    return apart if makespan(apart, rules) < makespan(whole, rules) else whole


def opened_rates(arm: ArmPlan) -> tuple[float, ...]:
    """The learning rates whose openings are trained before an arm's run, and may be trained apart."""
    if len(arm.learning_rates) < 2 or not arm.opening or method_of(arm.name).build is None:
        return ()
    return arm.learning_rates if trains_opening(arm.learning_rates, arm.steps, arm.recipe_steps) else ()


def _pieces(arm: ArmPlan, part: str, parts: Sequence[str], apart: bool) -> list[ArmPiece]:
    """The fit and the evaluation of one part of an arm, and before them its openings, where they are apart."""
    name, seconds, count = arm.name, arm.seconds, len(parts)
    fit = seconds.get("start", 0.0) / 2 + seconds.get("fit", 0.0) + seconds.get("train", 0.0)
    evaluation = seconds.get("start", 0.0) / 2 + seconds.get("evaluate", 0.0)
    rates = opened_rates(arm) if apart and not part.startswith(SEED) else ()
    needs: set[Key] = {("evaluate", other, each) for other in parts_of(name) for each in parts}
    if part.startswith(SEED):  # which takes the rate that the arm has found, where that is not an earlier, longer run's
        needs.add(("evaluate" if arm.had else "fit", name, FINAL))
    else:
        fit += seconds.get("search", 0.0)
        needs |= {("fit", other, part) for other in (rate_of(name), instruction_of(name)) if other}
    first = arm.opening * arm.step_seconds * count  # of the chosen rate, which the run goes on with
    opening = (seconds.get("search", 0.0) + first) / max(1, len(rates))
    fit = max(0.0, fit - len(rates) * opening)
    start = seconds.get("start", 0.0) / 2
    searches = [
        ArmPiece("search", name, part, (start + opening) / count, frozenset(needs), rate, fit / count)
        for rate in rates
    ]  # fmt: skip
    needs |= {piece.key for piece in searches}
    return [
        *searches,
        ArmPiece("fit", name, part, fit / count, frozenset(needs)),
        ArmPiece("evaluate", name, part, evaluation / count, frozenset({("fit", name, part)})),
    ]


def run_arms(arms: Arms, places: Sequence[Place], bases: Sequence[str | None]) -> list[Turn]:
    """Run all arms, with several places there; returns who did what when, [] where this machine alone works."""
    if not places:
        take_back(arms.folder)
        arms.run()
        return []
    rules = rules_of(places, bases, arms.inputs.speeds)
    for name, arms_there in rules.unable.items():
        for arm, why in arms_there.items():
            if not arms.plan.arm(arm).skipped:
                arms.listen(Note(f"{name} fits no {arm}: {why}"))
    dispatch = Dispatch(arms.folder, places, rules, arms.since, arms.listen)
    with stopping(dispatch.places):
        PlacedArms(arms, dispatch).run()
    return dispatch.turns


@dataclass
class PlacedArms:
    """The arms of a comparison while places run them."""

    arms: Arms
    dispatch: Dispatch
    left: dict[str, int] = field(default_factory=dict)  # pieces of every arm, without those of further seeds
    began: dict[str, bool] = field(default_factory=dict)  # whether this command runs the arm from its beginning

    def run(self) -> None:
        """Run what has not run yet of every arm, and of its further seeds."""
        for arm in self.arms.plan.arms:
            if arm.had and arm.state != "begun" and not arm.skipped:
                self._go_on(arm)
        pieces = []
        for piece in pieces_within(self.dispatch.rules, self.arms.plan, self.arms.inputs, self.arms.parts):
            products = (piece.product, SEARCH, FIT) if piece.work == "search" else (piece.product,)
            begun = piece.work == "search" and self.dispatch.has_begun(piece.arm, piece.part)
            if begun or any((self.arms.folder.part(piece.arm, piece.part) / product).exists() for product in products):
                self.dispatch.over.add(piece.key)
            else:
                pieces.append(piece)
        for arm in self.arms.plan.arms:
            mine = [piece for piece in pieces if piece.arm == arm.name and _counts(piece)]
            self.left[arm.name], self.began[arm.name] = len(mine), len(mine) == 2 * len(self.arms.parts)
            if not mine:
                self._say(arm.name)
        self.dispatch.run(pieces, self._begin, self._end, lambda piece: self._limit(piece))
        remove(self.arms.folder.path / PLACES / UNFINISHED)  # whoever was given up may still write there

    def _go_on(self, arm: ArmPlan) -> None:
        """Begin an arm that had fewer steps before, if that is worth it."""
        if is_worth(arm):
            self.arms.set_aside(arm.name)
            self.arms.save_arm(replace(arm, state="begun"))
        else:
            self.arms.save_arm(replace(arm, state="begun", steps=arm.had, had=0))

    def _begin(self, piece: ArmPiece) -> bool:
        if piece.part.startswith(SEED):
            return self._begin_seed(piece)
        if piece.arm in self.arms.failed:
            return False
        arm = self.arms.plan.arm(piece.arm)
        if arm.state != "begun" and not arm.skipped:
            arm = self._begun(arm)
            self.arms.save_arm(arm)
        return not arm.skipped

    def _begun(self, arm: ArmPlan) -> ArmPlan:
        """The arm as begun; skipped where what it joins is missing, or its turn has come too late."""
        arms = self.arms
        if missing := arms.missing(arm.name):
            return replace(arm, skipped=missing)
        if arm.waits and not arm.recipe_steps and planned_seconds(arm) > arms.budget * planning.RESERVE - arms.since():
            return replace(arm, skipped=f"it takes longer than the time that was left{planning.MORE}")
        if method_of(arm.name).own_training:
            arm = replace(arm, train_limit=OWN_SHARE * arms.limit_of(arm, 0.0) / len(arms.parts))
        return replace(arm, state="begun")

    def _begin_seed(self, piece: ArmPiece) -> bool:
        """Describe the run of a further seed, if its arm has been fitted and there is time for it."""
        arms, number = self.arms, int(piece.part.removeprefix(SEED))
        if piece.work == "evaluate":
            return (arms.folder.part(piece.arm, piece.part) / FIT).exists()
        arm, final = arms.plan.arm(piece.arm), arms.folder.part(piece.arm, FINAL)
        if arm.skipped or arm.name in arms.failed or not (final / FIT).exists():
            return False
        fit = Fit.read(final / FIT)
        needed = fitting_seconds(fit) + arm.seconds.get("evaluate", 0.0)
        if needed > arms.budget - arms.since():
            arms.listen(Note(f"no time left for {piece.arm} {piece.part}, which takes {needed:.0f} s"))
            return False
        extra = seed_run(arms.folder, arms.plan, arm.name, fit.chosen, number)
        write_json(arms.folder.part(piece.arm, piece.part) / "part.json", extra)
        return True

    def _limit(self, piece: ArmPiece) -> float:
        return self.arms.limit_of(self.arms.plan.arm(piece.arm), 0.0)

    def _end(self, piece: ArmPiece, reason: str | None) -> None:
        if not _counts(piece):  # an opening that has failed is trained by the fit
            if reason:
                what = piece.part if piece.rate is None else f"at rate {piece.rate:g}"
                self.arms.listen(Note(f"{piece.arm} {what} failed: {reason}"))
            return
        if reason == processes.STOPPED:
            arm, after = self.arms.plan.arm(piece.arm), "it was stopped when the budget was spent"
            self.arms.save_arm(replace(arm, skipped=f"{after}{planning.MORE}"))
        elif reason:
            self.arms.failed[piece.arm] = reason
        elif reason == "" and piece.work == "fit" and self.arms.parts == [FINAL]:  # before its further seeds begin
            self.arms.save_arm(self.arms.as_trained(self.arms.plan.arm(piece.arm)))
        self.left[piece.arm] -= 1
        if not self.left[piece.arm]:
            self._close(piece.arm)

    def _close(self, name: str) -> None:
        """All pieces of an arm are over: keep the steps that it had in the end, and tell its row."""
        arms, arm = self.arms, self.arms.plan.arm(name)
        if name not in arms.failed and not arm.skipped:
            arm = arms.as_trained(arm)
            took = sum((turn.ended or turn.began) - turn.began for turn in self.dispatch.turns if _is_of(turn, arm))
            arms.save_arm(replace(arm, took=took) if self.began[name] else arm)
        if arm.had:
            arms.keep_the_longer(arm)
        self._say(name)

    def _say(self, name: str) -> None:
        arms = self.arms
        row = arm_row(arms.folder, arms.plan.arm(name), arms.parts, arms.failed.get(name, ""))
        arms.listen(ArmDone(to_document(row)))


def _counts(piece: ArmPiece) -> bool:
    """Whether an arm is done only when this piece is."""
    return piece.work != "search" and not piece.part.startswith(SEED)


def _is_of(turn: Turn, arm: ArmPlan) -> bool:
    return turn.arm == arm.name and turn.outcome == "done" and not turn.part.startswith(SEED)


def with_places(rows: Sequence[ArmResult], turns: Sequence[Turn]) -> list[ArmResult]:
    """The rows of compare.json with the place that made each arm's artifact."""
    made = {turn.arm: turn.place for turn in turns
            if turn.work == "fit" and turn.part == FINAL and turn.outcome == "done"}  # fmt: skip
    return [replace(row, place=made.get(row.name)) if row.status in FINISHED else row for row in rows]
