"""The comparison from data to `compare.json`: split, measure, plan, run each arm in its own processes, pick.

Every stage writes files. The same command given again continues where the last one stopped and repeats no finished
arm.
"""

import platform
import shlex
import shutil
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from riyaz import hardware
from riyaz.comparison import documents, extra_runs, limit_runs, processes
from riyaz.comparison import plan as planning
from riyaz.comparison.arm_row import FINISHED, row_groups, row_scores
from riyaz.comparison.arm_seconds import PlanInputs, Sizes
from riyaz.comparison.arms import Arms
from riyaz.comparison.by_hand import by_hand_notes
from riyaz.comparison.chosen_methods import chosen_methods, fitting_task, last_turn_note, require_torch
from riyaz.comparison.context_limit import without_too_long
from riyaz.comparison.floor import majority_floor
from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.comparison.pick import choose
from riyaz.comparison.plan import ComparisonPlan
from riyaz.comparison.plan_inputs import full_recipes, plan_inputs
from riyaz.comparison.rough import rough_estimate
from riyaz.comparison.settings import settings_of
from riyaz.comparison.shorter_test import Divide, plan_within, reduction_note, sizes_of
from riyaz.comparison.speeds import LARGEST, Speeds
from riyaz.comparison.tie_break import decide_alone, limits
from riyaz.comparison.worst_slice import worst_slice
from riyaz.comparison.worth import worth
from riyaz.config import CompareConfig, DataConfig, Seconds
from riyaz.data.formats import DataFolder, open_data
from riyaz.data.general_text import general_text, replay_text
from riyaz.data.rows import rendered
from riyaz.data.split import DataReport, Split, split
from riyaz.data.tables import Table
from riyaz.data.task import Task, detect
from riyaz.engine.opening import engine_note, expect_memory
from riyaz.errors import RiyazError
from riyaz.events import EVENTS, Done, Estimate, Event, Listen, Note, Phase, Planned, quiet, recorded
from riyaz.families import describe
from riyaz.files import remove
from riyaz.json_files import to_document, write_json
from riyaz.methods import CURVE, METHODS
from riyaz.methods.fitting.base import instruction_only
from riyaz.metrics.paired import paired_test
from riyaz.quality.examine import examine
from riyaz.results import (
    ADAPTED,
    COMPARE,
    ArmResult,
    Comparison,
    CurveScore,
    Data,
    Documents,
    FileFacts,
    Floor,
    Leakage,
    Model,
    Pair,
)
from riyaz.results.problems import PROBLEMS
from riyaz.sources import Source, open_source

RENDERED = 5  # rows shown in the report
MEASURING_SHARE = 0.1  # of the budget, which measuring speeds may take
SAVE_SECONDS = 10.0  # between two writes of seconds.json
PACKAGES = ("riyaz", "torch", "numpy", "scipy", "tokenizers", "safetensors", "bm25s", "sacrebleu")


def compare(
    data: Path | Table,
    data_config: DataConfig,
    config: CompareConfig,
    *,
    test: Table | None = None,
    command: str = "",
    began: float | None = None,
    needed: str = "",
    listen: Listen = quiet,
) -> Comparison:
    """Run every method on the user's rows; returns the comparison, which is also `compare.json` in `config.out`.

    `test` holds test rows in memory; a file of them is `config.test`. `command` is the command line that the comparison
    records. The budget counts from `began` (`time.monotonic()`), by default from now. If it is too short for the method
    `needed`, nothing is run. Raises RiyazError.
    """
    began = time.monotonic() if began is None else began
    job = replace(_job(data, data_config, config, test, listen), needed=needed)
    assert config.out is not None
    folder = ComparisonFolder(config.out)
    with folder.locked():
        folder.claim(job.settings, more=config.more is not None)
        if (folder.path / COMPARE).exists() and config.more is None:
            done = Comparison.read(folder.path / COMPARE)
            if all(arm.status != "failed" for arm in done.arms):
                if config.limits:  # asked for later: in a fifth of the budget, whatever was spent
                    end = began + limit_runs.SHARE * float(config.budget)
                    limit_runs.measure(folder, done, lambda: end - time.monotonic(), listen)
                return done
        with recorded(folder.path / EVENTS, command, listen) as listener:
            comparison = _run(folder, job, config, began, command, listener)
    listen(Done(to_document(comparison)))
    return comparison


def _run(
    folder: ComparisonFolder, job: "_Job", config: CompareConfig, began: float, command: str, listen: Listen
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
        _prepare(folder, job, config, budget, listen)
        inputs, plan, parts, report = _plan(folder, job, config, budget, since(), listen)
        arms = Arms(folder, inputs, plan, folder.save_split(parts), budget, since, listen)
        if config.more is not None:
            arms.revive(stopped=True)
        arms.run()
        rows, curve = _extra(arms, config)
    finally:
        if (folder.path / "plan.json").exists():  # a refused budget counts as unspent
            folder.write("seconds.json", since())
    floor = majority_floor(parts.train, parts.tested, job.task)
    comparison = Comparison(
        arms=rows, **_picked(folder, rows, arms.parts, config, floor), estimate_seconds=plan.estimate["seconds"],
        data_curve=curve or None, curve_method=CURVE if curve else None, seconds=since(),
        data=_describe_data(job, report, parts), model=_describe_model(job.source),
        hardware=hardware.describe(folder.path), command=command, date=time.strftime("%Y-%m-%d"),
        versions=_versions(),
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
    job = _job(data, data_config, config, test, listen)
    assert config.out is not None
    folder = ComparisonFolder(config.out)
    with folder.locked():
        folder.claim(job.settings)
        had_plan = (folder.path / "plan.json").exists()
        budget = limit_runs.for_arms(float(config.budget), config.limits, listen)
        _prepare(folder, job, config, budget, listen)
        _, plan, _, report = _plan(folder, job, config, budget, time.monotonic() - began, listen)
        if not had_plan:  # it is made anew by the comparison, whose budget may be another
            remove(folder.path / "plan.json")
    return DryRun(plan.estimate, plan, report, job.task.kind)


@dataclass(frozen=True)
class _Job:
    """The inputs of a comparison, read and checked; nothing is measured yet."""

    methods: tuple[str, ...]
    source: Source
    files: DataFolder
    task: Task
    divide: Divide
    parts: Split  # the rows, if the budget is enough to test all of them
    settings: dict[str, Any]  # settings.json
    needed: str = ""  # the method without which nothing is run


def _job(
    data: Path | Table, data_config: DataConfig, config: CompareConfig, test: Table | None, listen: Listen
) -> _Job:
    """Open the model and the data, divide the rows and check that all can be used. Raises RiyazError."""
    methods = chosen_methods(config)
    require_torch(methods, named=bool(config.methods))
    source = open_source(config.model)
    if note := engine_note():
        listen(Note(note))
    expect_memory(source, config.precision)
    if any(METHODS[name].recipe for name in methods):
        expect_memory(source, engine="torch")  # which trains
    _check_general(config)
    data_files = open_data(data, test=test or config.test, **data_config.reading())
    toml = str(data / "riyaz.toml") if isinstance(data, Path) else ""
    notes = by_hand_notes(config, methods, data_files.settings, toml)
    used = config.documents if any(METHODS[name].needs_documents for name in methods) else None
    if used is not None:
        train = documents.with_own_documents(data_files.train, used, data_config)
        data_files = replace(data_files, train=train)
    task = detect(data_files.train, data_config.instruction, data_config.metric, data_config.task)
    methods = fitting_task(methods, task, config, listen)
    divide = _divider(data_files, task, source, config, methods, used)
    parts, report = divide(True, config.limit_test)
    for note in [*report.notes, *notes, *last_turn_note(methods, data_files.train.examples)]:
        listen(Note(note))
    settings = settings_of(data_files, task, source, data_config, config, methods)
    if used is not None:
        settings["documents"] = documents.identity(used, listen)
    return _Job(methods, source, data_files, task, divide, parts, settings)


def adapt(
    method: str,
    data: Path | Table,
    data_config: DataConfig,
    config: CompareConfig,
    *,
    test: Table | None = None,
    command: str = "",
    began: float | None = None,
    listen: Listen = quiet,
) -> ArmResult:
    """Run one method and move its artifact to `config.out`; returns the arm's row of `compare.json`.

    The comparison's folder is `OUT.work`; it is removed at the end, and until then the command can be continued.
    """
    assert config.out is not None
    chosen_methods(replace(config, methods=(method,)), "METHOD")
    out, work = config.out, config.out.with_name(config.out.name + ".work")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RiyazError("already exists", str(out), "choose another --out or remove it")
    config = replace(config, methods=(*METHODS[method].of, method), out=work)
    comparison = compare(
        data, data_config, config, test=test, command=command, began=began, needed=method, listen=listen
    )
    arm = comparison.arms[-1]  # before it those that it joins
    if arm.status not in FINISHED:
        raise RiyazError(f"{method} {arm.status}: {arm.reason}", str(work))
    if out.exists():
        out.rmdir()
    made = ComparisonFolder(work).part(method, FINAL) / "artifact"
    write_json(made / ADAPTED, comparison)  # what was measured, for the card
    shutil.move(made, out)
    remove(work)
    return arm


def _check_general(config: CompareConfig) -> None:
    """Raises RiyazError for general text too short to measure forgetting on, and if there is none to rehearse."""
    general_text(str(config.general) if config.general else None)
    if config.replay:
        replay_text()


def _divider(
    data_files: DataFolder,
    task: Task,
    source: Source,
    config: CompareConfig,
    methods: tuple[str, ...],
    used: Path | None,
) -> Divide:
    """A function that divides the rows into parts, without those too long for the model. `used` are the documents that
    a method retrieves from."""
    tokenizer, family = source.tokenizer(), describe(source)
    context = family.config.context - max(METHODS[name].prefix_tokens for name in methods)
    tested = data_files.test or data_files.train
    in_documents = any(example.own_doc_ids for example in data_files.train.examples)
    test_in_documents = used is not None and tested.folder is not None and documents.same_file(used, tested.path)
    test_in_documents = test_in_documents and not in_documents

    def divide(deal_folds: bool, limit_test: int | None) -> tuple[Split, DataReport]:
        parts, report = split(
            data_files.train, data_files.test, task, limit_train=config.limit_train, limit_test=limit_test,
            seed=config.seed, allow_leakage=config.allow_leakage, deal_folds=deal_folds,
        )  # fmt: skip
        parts, too_long = without_too_long(parts, task, tokenizer, context)
        report.notes += [*family.notes, *tokenizer.notes]
        if too_long:
            report.notes.append(f"{len(too_long)} rows left out that do not fit the context, such as {too_long[0]}")
        if test_in_documents:
            note = "holds the documents and the test rows: retrieval can find the answers themselves"
            report.notes.append(f"{tested.path.name} {note}")
        if in_documents:
            note = "the documents hold rows of the data: a row's own document is left out of its prompt"
            report.notes.append(note)
        return parts, report

    return divide


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


def _prepare(folder: ComparisonFolder, job: _Job, config: CompareConfig, budget: float, listen: Listen) -> None:
    """Write settings, rows and index for the child processes, and measure speeds, unless these files exist."""
    if folder.read("settings.json") is None:
        folder.write("settings.json", job.settings)
    if folder.read("plan.json") is None:  # a plan may test fewer rows than these
        folder.save_split(job.parts)
    if "documents" in job.settings and folder.collection() is None:
        listen(Phase("index", "documents", method="index"))
        processes.run_or_raise(["index", str(folder.path)], folder.path / "index.log", listen, config.threads)
    if folder.read(PROBLEMS) is None:
        listen(Phase("rows", "rows that may be wrong", method="rows"))
        folder.write(PROBLEMS, examine(job.files.train, job.files.test, job.task))
    if folder.read("measured.json") is None or _other_threads(folder, config):
        listen(Note(rough_estimate(job.source, job.task, job.parts, job.methods, config, budget)))
        listen(Phase("measure", "speeds of this machine", method="measure"))
        arguments = ["measure", str(folder.path), f"{MEASURING_SHARE * budget:.3f}"]
        processes.run_or_raise(arguments, folder.path / "measure.log", listen, config.threads)


def _other_threads(folder: ComparisonFolder, config: CompareConfig) -> bool:
    """Whether --threads is not what was measured with, and nothing is planned yet."""
    if config.threads is None or (folder.path / "plan.json").exists():
        return False
    measured = folder.read("measured.json")
    return not isinstance(measured, dict) or measured.get("threads") != config.threads


def _plan(
    folder: ComparisonFolder, job: _Job, config: CompareConfig, budget: float, spent: float, listen: Listen
) -> tuple[PlanInputs, ComparisonPlan, Split, DataReport]:
    """The plan in the folder, or a new one that is written there if it fits this machine; with its inputs and the rows
    it tests."""
    path = folder.path / "plan.json"
    recipes = full_recipes(job.methods, config, job.task.kind)
    trained = [name for name, recipe in recipes.items() if recipe is not None]
    speeds = Speeds.read(folder.path / "measured.json", recipes, trained)
    inputs_of = partial(plan_inputs, job.methods, config, job.task.kind, speeds)

    def plan_of(sizes: Sizes, leave_out: bool) -> ComparisonPlan:
        return planning.make_plan(inputs_of(sizes), budget=budget, spent=spent, leave_out=leave_out)

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
    return inputs_of(sizes_of(parts)), plan, parts, report


def _check_estimate(plan: ComparisonPlan, path: Path, listen: Listen) -> None:
    """Report the estimate. Raises RiyazError if it needs more memory or disk than is free."""
    arms = tuple(Planned(arm.method, sum(arm.seconds.values())) for arm in plan.arms)
    listen(Estimate(**plan.estimate, arms=arms))
    free = hardware.disk_free(path) / hardware.MB
    if plan.estimate["disk_mb"] > free:
        what = f"the comparison needs about {plan.estimate['disk_mb']:.0f} MB of disk and {free:.0f} MB are free"
        raise RiyazError(what, str(path), "free disk space or choose another --out")
    memory, hint = hardware.memory().available / hardware.MB, "leave full out with --methods, or take a smaller model"
    hardware.refuse_memory("training", plan.estimate["peak_rss_mb"], memory, hint)


def _extra(arms: Arms, config: CompareConfig) -> tuple[list[ArmResult], list[CurveScore]]:
    """The arms' rows and what is found in the time that is left: a close pick decided on answers given one at a time,
    two close arms with more seeds, and the data curve."""
    folder, plan, listen = arms.folder, arms.plan, arms.listen

    def left() -> float:
        return arms.budget - arms.since()

    rows = decide_alone(folder, plan, arms.rows(), arms.parts, config, left, listen)
    if arms.parts != [FINAL]:  # with folds every arm is trained several times already
        return rows, []
    curve = extra_runs.data_curve(folder, plan, rows, left, listen) if config.data_curve else []
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
    whole = [method for method, rows in scores.items() if np.isfinite(rows).all()]
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


def _describe_data(job: _Job, report: DataReport, parts: Split) -> Data:
    task, files = job.task, {"train": job.files.train, "test": job.files.test}
    counts: dict[str, Any] = report.to_dict() | {"leakage": Leakage(**report.leakage)}
    documents = job.settings.get("documents")
    return Data(
        files={name: FileFacts(str(d.path), d.sha256, d.format) for name, d in files.items() if d},
        task=task.kind, metric=task.metric, why=task.why, instruction=task.instruction, **counts,
        rendered=_rendered(parts, task, job.source), documents=Documents(**documents) if documents else None,
    )  # fmt: skip


def _rendered(parts: Split, task: Task, source: Source) -> list[list[tuple[str, bool]]]:
    """The first training rows as the model is trained on them: pieces (text, whether its tokens have a loss)."""
    first = parts.train[:RENDERED]
    pairs = list(zip(instruction_only(task).conversations([example.messages for example in first]), first))
    return [[(prompt, False), (answer, True)] for prompt, answer in rendered(source.tokenizer(), pairs)]


def _describe_model(source: Source) -> Model:
    family = describe(source)
    return Model(source.name, source.format, family.model_type, family.parameters, source.sha256(),
                 source.nbytes / 2**20)  # fmt: skip


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | hardware.versions(PACKAGES)
