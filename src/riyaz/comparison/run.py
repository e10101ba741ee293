"""The comparison from data to `compare.json`: split, measure, plan, run each arm in its own processes, pick.

Every stage leaves files, so the same command given again goes on where the last one stopped and never does a
finished arm twice.
"""

import importlib.metadata
import platform
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from riyaz import hardware
from riyaz.comparison import documents, extra_runs, processes
from riyaz.comparison import plan as planning
from riyaz.comparison.arm_row import FINISHED, arm_row, row_scores
from riyaz.comparison.context_limit import without_too_long
from riyaz.comparison.folder import KEPT, ComparisonFolder
from riyaz.comparison.pick import choose
from riyaz.comparison.plan import ComparisonPlan, Sizes
from riyaz.comparison.shorter_test import Cut, narrowed, plan_within
from riyaz.config import CompareConfig, DataConfig
from riyaz.data.formats import DataFolder, open_data
from riyaz.data.general_text import BLOCK, general_gaps, general_text
from riyaz.data.rows import rendered
from riyaz.data.split import DataReport, Split, split
from riyaz.data.tables import Table
from riyaz.data.task import Task, detect
from riyaz.errors import RiyazError
from riyaz.events import ArmDone, Done, Estimate, Event, Listen, Note, Phase, Planned, about, quiet
from riyaz.families import describe
from riyaz.files import remove, to_document
from riyaz.methods import METHODS
from riyaz.methods.base import instruction_only
from riyaz.metrics.paired import paired_test
from riyaz.results import (
    COMPARE,
    FIT,
    RESULT,
    ArmResult,
    Comparison,
    CurveScore,
    Data,
    Documents,
    FileFacts,
    Leakage,
    Model,
    Pair,
)
from riyaz.sources import Source, open_source

RENDERED = 5  # rows shown in the report
KEEP_SECONDS = 10.0  # between two notes of how long it has taken so far
PACKAGES = ("riyaz", "torch", "numpy", "scipy", "tokenizers", "safetensors", "bm25s", "sacrebleu")


def compare(
    data: Path | Table,
    data_config: DataConfig,
    config: CompareConfig,
    *,
    test: Table | None = None,
    command: str = "",
    listen: Listen = quiet,
) -> Comparison:
    """Run every method on the user's rows and return the comparison, written to `compare.json` in `config.out`.

    `test` are test rows in memory; those of a file are `config.test`. `command` is the command line that the
    comparison names. Raises RiyazError.
    """
    began = time.monotonic()
    asked = _asked(data, data_config, config, test, listen)
    assert config.out is not None
    folder = ComparisonFolder(config.out)
    with folder.locked():
        folder.settle(asked.identity)
        if (folder.path / COMPARE).exists():
            done = Comparison.read(folder.path / COMPARE)
            if all(arm.status != "failed" for arm in done.arms):
                return done
        began -= _spent(folder)
        listen = _keeping_time(folder, began, listen)
        try:
            _prepare(folder, asked, listen)
            plan, parts, report = _plan(folder, asked, config, time.monotonic() - began, listen)
            names = folder.save_split(parts)
            arms = [_run_arm(folder, plan, method, names, listen) for method in asked.methods]
            arms, curve = _again(folder, plan, arms, names, config, -began, listen)
        finally:
            if (folder.path / "plan.json").exists():  # a budget that was refused has spent nothing
                folder.write("seconds.json", time.monotonic() - began)
        comparison = Comparison(
            arms=arms, **_picked(folder, arms, names, config), estimate_seconds=plan.estimate["seconds"],
            data_curve=curve or None, seconds=time.monotonic() - began,
            data=_describe_data(asked, report, parts), model=_describe_model(asked.source),
            hardware=hardware.describe(folder.path), command=command, versions=_versions(),
        )  # fmt: skip
        folder.write(COMPARE, comparison)
        comparison = Comparison.read(folder.path / COMPARE)  # a number that is none is null
    listen(Done(to_document(comparison)))
    return comparison


@dataclass(frozen=True)
class DryRun:
    """What a comparison would do: its plan with the estimate, and what is to know about the rows."""

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
    listen: Listen = quiet,
) -> DryRun:
    """The plan of a comparison, from speeds that are measured in a temporary folder. Raises RiyazError."""
    began = time.monotonic()
    asked = _asked(data, data_config, config, test, listen)
    with tempfile.TemporaryDirectory() as scratch:
        folder = ComparisonFolder(Path(scratch))
        _prepare(folder, asked, listen)
        plan, _, report = _plan(folder, asked, config, time.monotonic() - began, listen)
    return DryRun(plan.estimate, plan, report, asked.task.kind)


@dataclass(frozen=True)
class _Asked:
    """What a comparison is about, before anything is measured."""

    methods: tuple[str, ...]
    source: Source
    found: DataFolder
    task: Task
    cut: Cut
    parts: Split
    identity: dict[str, Any]


def _asked(
    data: Path | Table, data_config: DataConfig, config: CompareConfig, test: Table | None, listen: Listen
) -> _Asked:
    methods = _methods(config)
    source = open_source(config.model)
    describe(source)
    _check_general(config, source)
    found = open_data(
        data,
        test=test or config.test,
        prompt_column=data_config.prompt_column,
        answer_column=data_config.answer_column,
        encoding=data_config.encoding,
    )
    task = detect(found.train, data_config.instruction, data_config.metric)
    cut = _cutting(found, task, source, config, methods)
    parts, report = cut(True, config.limit_test)
    for note in report.notes:
        listen(Note(note))
    identity = _identity(found, task, source, data_config, config, methods)
    if config.documents is not None and any(METHODS[name].needs_documents for name in methods):
        identity["documents"] = documents.identity(config.documents, listen)
    return _Asked(methods, source, found, task, cut, parts, identity)


def adapt(
    method: str,
    data: Path | Table,
    data_config: DataConfig,
    config: CompareConfig,
    *,
    test: Table | None = None,
    command: str = "",
    listen: Listen = quiet,
) -> ArmResult:
    """Run one method and leave its artifact in `config.out`; returns the arm's row of `compare.json`.

    The work is done in `OUT.work` and kept there until the artifact stands, so that it can be continued.
    """
    assert config.out is not None
    _methods(replace(config, methods=(method,)), "METHOD")
    out, work = config.out, config.out.with_name(config.out.name + ".work")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RiyazError("already exists", str(out), "choose another --out or remove it")
    config = replace(config, methods=(method,), out=work)
    comparison = compare(data, data_config, config, test=test, command=command, listen=listen)
    (arm,) = comparison.arms
    if arm.status not in FINISHED:
        raise RiyazError(f"{method} {arm.status}: {arm.reason}", str(work))
    if out.exists():
        out.rmdir()
    shutil.move(ComparisonFolder(work).run(method, KEPT) / "artifact", out)
    remove(work)
    return arm


def _check_general(config: CompareConfig, source: Source) -> None:
    """Refuse general text that is too short to measure forgetting on, or to rehearse on beside that."""
    path = str(config.general) if config.general else None
    text = general_text(path)
    if config.replay and not any(len(gap) >= BLOCK for gap in general_gaps(source.tokenizer().encode(text))):
        raise RiyazError("the general text is too short to rehearse on", path or "", "give more of it, or no --replay")


def _methods(config: CompareConfig, where: str = "--methods") -> tuple[str, ...]:
    """The methods to run, in the order of the table; without documents all that need none."""
    unknown = [name for name in config.methods if name not in METHODS]
    if unknown:
        raise RiyazError(f"unknown method {unknown[0]!r}", where, f"choose from {', '.join(METHODS)}")
    lacking = [name for name in METHODS if METHODS[name].needs_documents] if config.documents is None else []
    refused = [name for name in config.methods if name in lacking]
    if refused:
        raise RiyazError(f"{refused[0]} needs documents to retrieve from", where, "name them with --documents PATH")
    return tuple(name for name in METHODS if name not in lacking and name in (config.methods or METHODS))


def _cutting(found: DataFolder, task: Task, source: Source, config: CompareConfig, methods: tuple[str, ...]) -> Cut:
    """How rows are divided for this model, and what is to know about them."""
    tokenizer, family = source.tokenizer(), describe(source)
    places = family.config.context - max(METHODS[name].prefix_tokens for name in methods)
    tested = found.test or found.train
    read = config.documents if any(METHODS[name].needs_documents for name in methods) else None
    known = read is not None and tested.folder is not None and documents.same_file(read, tested.path)

    def cut(deal_folds: bool, limit_test: int | None) -> tuple[Split, DataReport]:
        parts, report = split(
            found.train, found.test, task, limit_train=config.limit_train, limit_test=limit_test,
            seed=config.seed, allow_leakage=config.allow_leakage, deal_folds=deal_folds,
        )  # fmt: skip
        parts, too_long = without_too_long(parts, task, tokenizer, places)
        report.notes += [*family.notes, *tokenizer.notes]
        if too_long:
            report.notes.append(f"{len(too_long)} rows left out that do not fit the context, such as {too_long[0]}")
        if known:
            note = "is the documents and the test too: retrieval can find the very answers"
            report.notes.append(f"{tested.path.name} {note}")
        return parts, report

    return cut


def _identity(
    found: DataFolder,
    task: Task,
    source: Source,
    data_config: DataConfig,
    config: CompareConfig,
    methods: tuple,
) -> dict[str, Any]:
    """What makes a comparison the same one: its data, model, task and settings, not where it is written."""
    settings = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in asdict(config).items()
        if key not in ("out", "test", "methods", "model", "documents")
    }
    return {
        "model": {"name": source.name, "path": str(Path(source.path).absolute()), "sha256": source.sha256()},
        "data": {"train": found.train.sha256, "test": found.test.sha256 if found.test else None},
        "task": asdict(task) | {"labels": list(task.labels)},
        "reading": asdict(data_config),
        "settings": settings,
        "methods": list(methods),
    }


def _keeping_time(folder: ComparisonFolder, began: float, listen: Listen) -> Listen:
    """`listen`, and the seconds so far in the folder: a command that is killed has spent them all the same."""
    written = time.monotonic()

    def keeping(event: Event) -> None:
        nonlocal written
        listen(event)
        if time.monotonic() - written >= KEEP_SECONDS:
            written = time.monotonic()
            folder.write("seconds.json", written - began)

    return keeping


def _spent(folder: ComparisonFolder) -> float:
    """Seconds of earlier commands that were stopped."""
    seconds = folder.read("seconds.json") or 0.0
    if type(seconds) not in (int, float) or not 0 <= seconds < planning.IMPOSSIBLE:
        raise RiyazError("is no number of seconds", str(folder.path / "seconds.json"), "remove it")
    return seconds


def _prepare(folder: ComparisonFolder, asked: _Asked, listen: Listen) -> None:
    """Write what the child processes read, and measure speeds once."""
    if folder.read("settings.json") is None:
        folder.write("settings.json", asked.identity)
    if folder.read("plan.json") is None:  # which may hold that fewer rows are tested
        folder.save_split(asked.parts)
    if "documents" in asked.identity and folder.collection() is None:
        listen(Phase("index", "documents", method="index"))
        processes.run_or_raise(["index", str(folder.path)], folder.path / "index.log", listen)
    if folder.read("measured.json") is None:
        listen(Phase("measure", "speeds of this machine", method="measure"))
        processes.run_or_raise(["measure", str(folder.path)], folder.path / "measure.log", listen)


def _plan(
    folder: ComparisonFolder, asked: _Asked, config: CompareConfig, spent: float, listen: Listen
) -> tuple[ComparisonPlan, Split, DataReport]:
    """The plan in the folder, or a new one that is frozen there once it is known to fit this machine; and its rows."""
    path, cut = folder.path / "plan.json", asked.cut
    known = ComparisonPlan.read(path) if path.exists() else None

    def make(sizes: Sizes) -> ComparisonPlan:
        recipes = {name: METHODS[name].recipe for name in asked.methods}
        measured = planning.Measured.read(folder.path / "measured.json", recipes)
        return planning.make(
            recipes, vars(measured), sizes,
            budget=float(config.budget), spent=spent, seed=config.seed,
            aside=extra_runs.SHARE if config.data_curve else 0.0,
        )  # fmt: skip

    if known is None:
        plan, parts, report = plan_within(cut, config.limit_test, make)
    else:
        plan = known
        parts, report = cut(plan.folds, plan.limit_test)
    note = narrowed(plan, config.limit_test, len(parts.tested))
    if note:
        report.notes.append(note)
        listen(Note(note))
    _say_estimate(plan, config.out or folder.path, listen)
    if known is None:
        folder.write("plan.json", plan)
    return plan, parts, report


def _say_estimate(plan: ComparisonPlan, path: Path, listen: Listen) -> None:
    """Tell the estimate; refuse before anything long begins when memory or disk cannot hold it."""
    arms = tuple(Planned(arm.method, sum(arm.seconds.values())) for arm in plan.arms)
    listen(Estimate(**plan.estimate, arms=arms))
    free = hardware.disk_free(path) / hardware.MB
    if plan.estimate["disk_mb"] > free:
        what = f"the comparison needs about {plan.estimate['disk_mb']:.0f} MB of disk and {free:.0f} MB are free"
        raise RiyazError(what, str(path), "free disk space or choose another --out")
    memory = hardware.memory().available / hardware.MB
    if plan.estimate["peak_rss_mb"] > memory:
        what = f"training needs about {plan.estimate['peak_rss_mb']:.0f} MB and {memory:.0f} MB are free"
        raise RiyazError(what, hint="leave full out with --methods, or take a smaller model")


def _run_arm(
    folder: ComparisonFolder, plan: ComparisonPlan, method: str, parts: list[str], listen: Listen
) -> ArmResult:
    """One arm: fit and evaluate every part, each in a fresh process; a failure becomes the arm's reason."""
    arm_plan = plan.arm(method)
    reason = ""
    for part in parts if not arm_plan.skipped else []:
        run = folder.run(method, part)
        for work, product in (("fit", FIT), ("evaluate", RESULT)):
            if reason or (run / product).exists():
                continue
            listen(Phase(work, part if part != KEPT else "", method))
            reason = processes.run([work, str(folder.path), method, part], run / "log.txt", about(method, listen))
    row = arm_row(folder, arm_plan, parts, reason)
    listen(ArmDone(to_document(row)))
    return row


def _again(
    folder: ComparisonFolder,
    plan: ComparisonPlan,
    arms: list[ArmResult],
    parts: list[str],
    config: CompareConfig,
    since: float,
    listen: Listen,
) -> tuple[list[ArmResult], list[CurveScore]]:
    """What the time that is left can still say: arms with more seeds of a close call, and the curve over rows."""
    if parts != [KEPT]:  # folds are trainings enough
        return arms, []

    def left() -> float:
        return float(config.budget) - since - time.monotonic()

    curve = extra_runs.data_curve(folder, plan, arms, left, listen) if config.data_curve else []
    return extra_runs.seeds(folder, plan, arms, config.margin, left, listen), curve


def _picked(folder: ComparisonFolder, arms: list[ArmResult], parts: list[str], config: CompareConfig) -> dict[str, Any]:
    """The pick and why, and every pair of arms on the same rows."""
    limits = {
        "max_ms": config.max_ms,
        "max_rss_mb": config.max_rss_mb,
        "max_forgetting": config.max_forgetting,
    }
    scores = row_scores(folder, arms, parts)
    pick = choose(arms, scores, config.margin, limits, config.seed)
    whole = [method for method, rows in scores.items() if np.isfinite(rows).all()]
    pairs = [
        Pair((a, b), **asdict(paired_test(scores[a], scores[b], seed=config.seed))) for a, b in combinations(whole, 2)
    ]
    return {**asdict(pick), "pairs": pairs}


def _describe_data(asked: _Asked, report: DataReport, parts: Split) -> Data:
    task, files = asked.task, {"train": asked.found.train, "test": asked.found.test}
    counts: dict[str, Any] = report.to_dict() | {"leakage": Leakage(**report.leakage)}
    documents = asked.identity.get("documents")
    return Data(
        files={name: FileFacts(str(d.path), d.sha256, d.format) for name, d in files.items() if d},
        task=task.kind, metric=task.metric, why=task.why, instruction=task.instruction, **counts,
        rendered=_rendered(parts, task, asked.source), documents=Documents(**documents) if documents else None,
    )  # fmt: skip


def _rendered(parts: Split, task: Task, source: Source) -> list[list[tuple[str, bool]]]:
    """The first training rows as a model learns them: (text, whether the loss is on it) in pieces."""
    first = parts.train[:RENDERED]
    pairs = list(zip(instruction_only(task).conversations([example.messages for example in first]), first))
    return [[(prompt, False), (answer, True)] for prompt, answer in rendered(source.tokenizer(), pairs)]


def _describe_model(source: Source) -> Model:
    family = describe(source)
    return Model(source.name, source.format, family.model_type, family.parameters, source.sha256(),
                 source.nbytes / 2**20)  # fmt: skip


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}
