"""The comparison from data to `compare.json`: split, measure, plan, run each arm in its own processes, pick.

Every stage writes files. The same command given again continues where the last one stopped and repeats no finished
arm.
"""

import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from riyaz import hardware
from riyaz.comparison import extra_runs, limit_runs, placed, teach
from riyaz.comparison import plan as planning
from riyaz.comparison.arm_row import FINISHED, row_groups, row_scores
from riyaz.comparison.arm_seconds import PlanInputs, Sizes
from riyaz.comparison.arms import Arms
from riyaz.comparison.bases import expect_one, merged
from riyaz.comparison.chosen_methods import chosen_methods
from riyaz.comparison.described import data_of, models_of, versions
from riyaz.comparison.earlier_task import earlier_task, with_earlier
from riyaz.comparison.floor import highest_floor
from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.comparison.following import GO_ON, expect_shared, follow, started_with
from riyaz.comparison.job import Job, open_job
from riyaz.comparison.pick import choose
from riyaz.comparison.places import Place
from riyaz.comparison.plan import ComparisonPlan
from riyaz.comparison.plan_inputs import full_recipes, plan_inputs
from riyaz.comparison.preparing import prepare
from riyaz.comparison.shorter_test import plan_within, reduction_note, sizes_of
from riyaz.comparison.speeds import LARGEST, MEASURED, Speeds
from riyaz.comparison.tie_break import decide_alone, limits
from riyaz.comparison.worst_slice import worst_slice
from riyaz.comparison.worth import worth
from riyaz.config import AdaptConfig, CompareConfig, DataConfig, Seconds
from riyaz.data.schema import OPTION
from riyaz.data.split import DataReport, Split
from riyaz.data.tables import Table
from riyaz.errors import RiyazError
from riyaz.events import EVENTS, Done, Estimate, Event, Listen, Note, Planned, quiet, recorded
from riyaz.files import remove
from riyaz.folders import remove_left
from riyaz.joining import announce_start, joined
from riyaz.json_files import to_document, write_json
from riyaz.methods import METHODS
from riyaz.methods.fitting.start import Start
from riyaz.metrics.paired import paired_test
from riyaz.ranks import ALONE, Ranks, launched, on_this_machine
from riyaz.results import (
    ADAPTED,
    COMPARE,
    LEARNED,
    ArmResult,
    Comparison,
    CurveScore,
    Floor,
    Pair,
)

SAVE_SECONDS = 10.0  # between two writes of seconds.json


def compare(
    data: Path | Table,
    data_config: DataConfig,
    config: CompareConfig,
    *,
    test: Table | None = None,
    command: str = "",
    began: float | None = None,
    needed: str = "",
    start: Start | None = None,
    listen: Listen = quiet,
    ranks: Ranks = ALONE,
    alike: Mapping[str, object] | None = None,
) -> Comparison:
    """Run every method on the user's rows; returns the comparison, which is also `compare.json` in `config.out`.

    `test` holds test rows in memory; a file of them is `config.test`. `command` is the command line that the comparison
    records. The budget counts from `began` (`time.monotonic()`), by default from now. If it is too short for the method
    `needed`, nothing is run. Training goes on from the artifact `start`, if there is one. The first of several
    processes calls this; the others follow it, if they were started with values `alike`. Raises RiyazError.
    """
    began = time.monotonic() if began is None else began
    job = replace(open_job(data, data_config, config, test, listen, start), needed=needed, ranks=ranks)
    assert config.out is not None
    folder = ComparisonFolder(config.out)
    with folder.locked():
        folder.claim(job.settings, more=config.more is not None)
        remove_left(folder.path)
        if (folder.path / COMPARE).exists() and config.more is None:
            done = Comparison.read(folder.path / COMPARE)
            if all(arm.status != "failed" for arm in done.arms):
                if config.limits:  # asked for later: in a fifth of the budget, whatever was spent
                    end = began + limit_runs.SHARE * float(config.budget)
                    limit_runs.measure(folder, done, lambda: end - time.monotonic(), listen)
                return done
        announce_start(ranks, folder.path, alike or {})
        with recorded(folder.path / EVENTS, command, listen) as listener:
            comparison = _run(folder, job, config, began, command, listener)
    listen(Done(to_document(comparison)))
    return comparison


def _run(
    folder: ComparisonFolder, job: Job, config: CompareConfig, began: float, command: str, listen: Listen
) -> Comparison:
    """Prepare, plan, run the arms, pick, write compare.json. `began` is when the command did."""
    spent = _spent(folder)
    whole = float(config.budget) if config.more is None else spent + float(config.more)
    budget = limit_runs.for_arms(whole, config.limits, listen)
    began -= spent

    def since() -> float:
        return time.monotonic() - began

    listen = _keeping_time(folder, began, listen)
    try:
        with placed.opened(config, folder, job, listen) as places:
            prepare(folder, job, config, budget, places, listen)
            inputs, plan, parts, report = _plan(folder, job, config, budget, since(), places, listen)
            arms = Arms(folder, inputs, plan, folder.save_split(parts), budget, since, listen,
                        ranks=job.ranks)  # fmt: skip
            if config.more is not None:
                arms.revive(stopped=True)
            turns = placed.run_arms(arms, places, job.measured)
        rows, curve = _extra(arms, config, at_home=not places)
        rows = placed.with_places(teach.beside(folder, rows), turns)
    finally:
        if (folder.path / "plan.json").exists():  # a refused budget counts as unspent
            folder.write("seconds.json", since())
    floor = highest_floor(parts.train, parts.tested, job.task)
    models, curve_arm = models_of(job.bases), extra_runs.curve_arm(rows)
    comparison = Comparison(
        arms=rows, **_picked(folder, rows, arms.parts, config, floor), estimate_seconds=plan.estimate["seconds"],
        data_curve=curve or None, curve_method=curve_arm.name if curve_arm and curve else None, seconds=since(),
        data=data_of(job.files, job.task, job.settings.get("documents"), report, parts, job.source),
        model=models[0], models=models if len(models) > 1 else None,
        hardware=hardware.describe(folder.path), command=command, date=time.strftime("%Y-%m-%d"),
        versions=versions(), schedule=turns or None,
    )  # fmt: skip
    folder.write(COMPARE, comparison)
    comparison = Comparison.read(folder.path / COMPARE)  # with null for NaN
    if config.limits:
        limit_runs.measure(folder, comparison, lambda: whole - since(), listen)
    return comparison


@dataclass(frozen=True)
class DryRun:
    """The plan of a comparison that is not run: estimate, steps, and the report on the rows."""

    estimate: dict[str, float]
    plan: ComparisonPlan
    data: DataReport
    task: str


def dry_run(
    data: Path | Table,
    data_config: DataConfig,
    config: CompareConfig,
    *,
    test: Table | None = None,
    began: float | None = None,
    listen: Listen = quiet,
) -> DryRun:
    """Plan a comparison without running it. The measured speeds are kept in `config.out`, where the comparison finds
    them. The budget counts from `began`, as that of `compare`. Raises RiyazError."""
    began = time.monotonic() if began is None else began
    job = open_job(data, data_config, config, test, listen)
    assert config.out is not None
    folder = ComparisonFolder(config.out)
    with folder.locked():
        folder.claim(job.settings)
        if "address" in job.settings.get("teacher", {}) and not teach.is_taught(folder):
            hint = "leave it out, or name a teacher on this machine"
            raise RiyazError("a plan needs the answers of the endpoint, which may cost money", "--dry-run", hint)
        had_plan = (folder.path / "plan.json").exists()
        budget = limit_runs.for_arms(float(config.budget), config.limits, listen)
        with placed.opened(config, folder, job, listen) as places:
            prepare(folder, job, config, budget, places, listen)
            spent = time.monotonic() - began
            _, plan, _, report = _plan(folder, job, config, budget, spent, places, listen)
        if not had_plan:  # it is made anew by the comparison, whose budget may be another
            remove(folder.path / "plan.json")
    return DryRun(plan.estimate, plan, report, job.task.kind)


def adapt(
    method: str,
    data: Path | Table,
    data_config: DataConfig,
    config: CompareConfig,
    continuing: AdaptConfig | None = None,
    *,
    test: Table | None = None,
    command: str = "",
    began: float | None = None,
    listen: Listen = quiet,
) -> ArmResult:
    """Run one method and move its artifact to `config.out`; returns the arm's row of `compare.json`. `continuing` names
    the artifact from which training goes on, and the rows on which what that forgets is measured.

    The comparison's folder is `OUT.work`; it is removed at the end, and until then the command can be continued.
    """
    assert config.out is not None
    chosen_methods(replace(config, methods=(method,)), "METHOD")
    expect_shared(method)
    expect_one(config.model, "riyaz adapt")
    if data_config.schema is not None and METHODS[method].about.weights == "copy":
        raise RiyazError(f"{method} copies its answers, which no schema changes", OPTION, "leave it out")
    work = ComparisonFolder(config.out.with_name(config.out.name + ".work"))
    alike = started_with(method, data, data_config, config) if launched()[1] > 1 else {}
    with joined(GO_ON) as ranks:
        if not ranks.rank:
            compared = partial(compare, test=test, command=command, began=began, ranks=ranks, alike=alike)
            inside = replace(config, out=work.path)
            return _adapt(method, data, data_config, inside, config.out, continuing, compared, listen)
        follow(ranks, work, alike)
        return Comparison.read(config.out / ADAPTED).arms[-1]


def _adapt(
    method: str, data: Path | Table, data_config: DataConfig, config: CompareConfig, out: Path,
    continuing: AdaptConfig | None, compared: Callable[..., Comparison], listen: Listen,
) -> ArmResult:  # fmt: skip
    """The same in one process, or the first of several; the comparison's folder is that of `config`."""
    assert config.out is not None
    work = ComparisonFolder(config.out)
    if (out / ADAPTED).is_file():
        _remove_left(work, method)
    expect_new(out)
    earlier = earlier_task(continuing, data_config, config, listen) if continuing and continuing.from_ else None
    config = replace(config, methods=(*METHODS[method].of, method))
    start = earlier.start if earlier else None
    comparison = compared(data, data_config, config, needed=method, start=start, listen=listen)
    arm = comparison.arms[-1]  # before it those that it joins
    if arm.status not in FINISHED:
        why, option, _ = (arm.reason or "").partition(planning.MORE)  # which `adapt` does not have
        hint = "remove it and run the command again with a longer --budget" if option else ""
        raise RiyazError(f"{method} {arm.status}: {why}", str(work.path), hint)
    if earlier is not None:
        comparison = with_earlier(work, comparison, earlier, config.threads, listen)
        arm = comparison.arms[-1]
    if out.exists():
        out.rmdir()
    run = work.part(method, FINAL)
    made = run / "artifact"
    write_json(made / ADAPTED, comparison)  # what was measured, for the card
    if (run / LEARNED).is_file():
        shutil.move(run / LEARNED, made / LEARNED)
    shutil.move(made, out)
    _remove_left(work, method)
    return arm


def _remove_left(work: ComparisonFolder, method: str) -> None:
    """Remove the folder of a comparison whose artifact was moved away, also where a process was killed while it did so.
    compare.json, by which such a folder is known, goes last: a comparison that has not ended has none."""
    if (work.part(method, FINAL) / "artifact").exists() or not work.path.is_dir():
        return
    names = {path.name for path in work.path.iterdir()}
    if COMPARE in names or names <= {".lock"}:
        for name in names - {COMPARE}:
            remove(work.path / name)
        remove(work.path)


def expect_new(out: Path) -> None:
    """Raises RiyazError where an artifact cannot be moved to, as something is there."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RiyazError("already exists", str(out), "choose another --out or remove it")


def _keeping_time(folder: ComparisonFolder, began: float, listen: Listen) -> Listen:
    """`listen` that also writes seconds.json regularly, so that the time of a killed command counts."""
    written = time.monotonic()

    def keeping(event: Event) -> None:
        nonlocal written
        listen(event)
        if time.monotonic() - written >= SAVE_SECONDS:
            written = time.monotonic()
            folder.write("seconds.json", written - began)

    return keeping


def _spent(folder: ComparisonFolder) -> float:
    """Seconds that earlier, stopped commands took. Raises RiyazError for a damaged seconds.json."""
    seconds = folder.read("seconds.json") or 0.0
    if type(seconds) not in (int, float) or not 0 <= seconds <= LARGEST:
        raise RiyazError("is not a number of seconds", str(folder.path / "seconds.json"), "remove it")
    return seconds


def _plan(
    folder: ComparisonFolder,
    job: Job,
    config: CompareConfig,
    budget: float,
    spent: float,
    places: Sequence[Place],
    listen: Listen,
) -> tuple[PlanInputs, ComparisonPlan, Split, DataReport]:
    """The plan in the folder, or a new one that is written there if it fits this machine; with its inputs and the rows
    it tests."""
    path = folder.path / "plan.json"
    speeds = _speeds(folder, job, config)
    inputs_of = partial(plan_inputs, job.arms, config, job.task.kind, speeds)
    rules = placed.rules_of(places, job.measured, speeds)

    def plan_of(sizes: Sizes, leave_out: bool) -> ComparisonPlan:
        sizes = replace(sizes, unlabelled=len(job.unlabelled))
        make = partial(placed.plan_for, rules=rules) if places else planning.make_plan
        return make(inputs_of(sizes), budget=budget, spent=spent, leave_out=leave_out)

    new = not path.exists()
    if new:
        plan, parts, report = plan_within(job.divide, config.limit_test, plan_of)
        if job.needed and (why := plan.arm(job.needed).skipped):
            raise RiyazError(f"{job.needed} cannot run in {Seconds(round(budget))}: {why}")
    else:
        plan = ComparisonPlan.read(path)
        parts, report = job.divide(plan.folds, plan.limit_test)
    note = reduction_note(plan, config.limit_test, len(parts.tested))
    if note:
        report.notes.append(note)
        listen(Note(note))
    _check_estimate(plan, config.out or folder.path, listen)
    if new:
        folder.write("plan.json", plan)
    return inputs_of(replace(sizes_of(parts), unlabelled=len(job.unlabelled))), plan, parts, report


def _speeds(folder: ComparisonFolder, job: Job, config: CompareConfig) -> Speeds:
    """The measured speeds of all arms. Raises RiyazError for a damaged file."""
    by_base = {}
    for place, base in enumerate(job.measured):
        methods = [name for name in job.methods if place == 0 or METHODS[name].about.language_model]
        recipes = full_recipes(methods, config, job.task.kind)
        trained = [name for name, recipe in recipes.items() if recipe is not None]
        by_base[base or ""] = Speeds.read(folder.base(base) / MEASURED, recipes, trained)
    return merged(by_base)


def _check_estimate(plan: ComparisonPlan, path: Path, listen: Listen) -> None:
    """Report the estimate. Raises RiyazError if it needs more memory or disk than is free."""
    arms = tuple(Planned(arm.name, sum(arm.seconds.values())) for arm in plan.arms)
    listen(Estimate(**plan.estimate, arms=arms))
    free = hardware.disk_free(path) / hardware.MB
    if plan.estimate["disk_mb"] > free:
        what = f"the comparison needs about {plan.estimate['disk_mb']:.0f} MB of disk and {free:.0f} MB are free"
        raise RiyazError(what, str(path), "free disk space or choose another --out")
    memory = hardware.memory().available / hardware.MB / on_this_machine()
    hint = "leave full out with --methods, or take a smaller model"
    hardware.refuse_memory("training", plan.estimate["peak_rss_mb"], memory, hint)


def _extra(arms: Arms, config: CompareConfig, at_home: bool) -> tuple[list[ArmResult], list[CurveScore]]:
    """The arms' rows and what is found in the time that is left: a close pick decided on answers given one at a time,
    more seeds of all trained arms or of two close ones, and the data curve. `at_home`: no other place has run these
    seeds."""
    folder, plan, listen = arms.folder, arms.plan, arms.listen

    def left() -> float:
        return arms.budget - arms.since()

    rows = decide_alone(folder, plan, arms.rows(), arms.parts, config, left, listen)
    if arms.parts != [FINAL]:  # with folds every arm is trained several times already
        if config.seeds is not None and config.seeds > 1:
            listen(Note("the rows are tested in folds, which train every arm several times: --seeds adds nothing"))
        return rows, []
    curve = extra_runs.data_curve(folder, plan, rows, left, listen) if config.data_curve else []
    if config.seeds is not None:
        return extra_runs.every_seed(folder, plan, rows, config.seeds, left, listen, run=at_home), curve
    return extra_runs.seeds(folder, plan, rows, config.margin, left, listen), curve


def _picked(
    folder: ComparisonFolder,
    arms: list[ArmResult],
    parts: list[str],
    config: CompareConfig,
    floor: tuple[Floor, np.ndarray] | None,
) -> dict[str, Any]:
    """The fields of a Comparison that name the pick and the floor, and compare every pair of arms."""
    scores = row_scores(folder, arms, parts)
    more = f"riyaz compare … --out {shlex.quote(str(config.out))} --more 30m"
    groups = row_groups(folder, arms, parts)
    pick = choose(arms, scores, config.margin, limits(config), config.seed, floor, more, groups)
    whole = [name for name, rows in scores.items() if np.isfinite(rows).all()]
    pairs = [
        Pair((a, b), **asdict(paired_test(scores[a], scores[b], groups, seed=config.seed)))
        for a, b in combinations(whole, 2)
    ]
    worst = worst_slice(folder, pick.pick, scores, parts, config.seed, groups)
    by_label = folder.settings().task.kind == "closed"
    return {
        **asdict(pick), "pairs": pairs, "floor": floor and floor[0], "worst_slice": worst,
        "worth": worth(folder, arms, scores, parts, by_label, config.seed),
    }  # fmt: skip
