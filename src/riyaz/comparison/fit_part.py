"""Fits one part of an arm: makes the method's context, calls its `fit`, writes the artifact."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from riyaz import artifact as artifacts
from riyaz import hardware
from riyaz.artifact import Artifact, BaseModel, TextPart
from riyaz.comparison.bases import instruction_of, method_of, parts_of, rate_of
from riyaz.comparison.by_hand import by_hand
from riyaz.comparison.extra_runs import read_extra_run
from riyaz.comparison.folder import FINAL, TEACHER, Chosen, ComparisonFolder, Settings
from riyaz.comparison.from_artifact import reopened
from riyaz.comparison.plan import ComparisonPlan
from riyaz.data import Example
from riyaz.data.judging import accepted_rows
from riyaz.data.task import Task
from riyaz.events import Listen
from riyaz.families import describe
from riyaz.files import remove
from riyaz.json_files import write_json
from riyaz.methods.fitting.base import Context, Fitted, Method, instruction_only
from riyaz.methods.fitting.choices import answer_limit
from riyaz.methods.fitting.learning_rate import SEARCH, Search
from riyaz.methods.fitting.taught import answered_rows, taught
from riyaz.methods.fitting.weights import WRITTEN
from riyaz.ranks import ALONE, Ranks
from riyaz.results import FIT, CurvePoint, Fit, parted
from riyaz.sources import Source

COMMON_ROWS, MOST_COMMON, COMMON_LENGTH = 3, 16, 400  # training rows with one answer; such answers; their characters


def fit(
    folder: ComparisonFolder, settings: Settings, plan: ComparisonPlan, name: str, part: str, listen: Listen,
    ranks: Ranks = ALONE,
) -> None:  # fmt: skip
    """Fit one arm on one part's rows: writes `artifact/`, then `fit.json`. Of several processes this is the first."""
    began, cpu = time.monotonic(), hardware.cpu_time()
    source = settings.source_of(settings.base_of(name))
    fitted = fit_part(folder, settings, plan, name, part, source, settings.task, listen, ranks)
    waited = hardware.share_waited(cpu, hardware.cpu_time())
    write_json(folder.part(name, part) / FIT, replace(fitted, seconds=time.monotonic() - began, cpu_waited=waited))


def fit_part(
    folder: ComparisonFolder, settings: Settings, plan: ComparisonPlan, name: str, part: str,
    source: Source, task: Task, listen: Listen, ranks: Ranks = ALONE,
) -> Fit:  # fmt: skip
    """Fit an arm on a part's training and validation rows and write `artifact/`; `seconds` of the result is 0."""
    run, method = folder.part(name, part), method_of(name)
    for stray in run.glob(".artifact.*"):  # left by a process that was killed
        remove(stray)
    context = replace(context_of(folder, settings, plan, name, part, source, task, listen), ranks=ranks)
    try:
        fitted = method.fit(context)
        assert fitted.weights.kind == method.about.weights
        context = taught(context) if method.needs_teacher else context  # what it has learned from, for the artifact
        earlier = context.start.learned if context.start else ()
        files = fitted.files | {artifacts.TRAINED: artifacts.trained_bytes((*context.train, *context.valid), earlier)}
        artifacts.write(run / "artifact", _artifact(context, fitted, settings, plan, name), files)
    finally:
        remove(run / WRITTEN)  # the weights as the method wrote them; the artifact has its own copy
    of = [Fit.read(other / FIT).peak_rss_mb for other in context.others.values()]  # whose training is this arm's, too
    return Fit(
        chosen=fitted.chosen, checks=fitted.checks, search_seconds=fitted.search_seconds,
        train_seconds=fitted.train_seconds, trainable_params=fitted.trainable_params,
        valid_loss=fitted.valid_loss, valid_score=fitted.valid_score,
        curve=[CurvePoint(**entry) for entry in fitted.curve],
        peak_rss_mb=max([hardware.peak_rss() / hardware.MB, *of]), seconds=0.0,
    )  # fmt: skip


def context_of(
    folder: ComparisonFolder, settings: Settings, plan: ComparisonPlan, name: str, part: str,
    source: Source, task: Task, listen: Listen,
) -> Context:  # fmt: skip
    """The input of a method's `fit` for one part of an arm."""
    extra, arm = read_extra_run(folder, name, part), plan.arm(name)
    rows, other = FINAL if extra else part, rate_of(name)
    hand = by_hand(method_of(name).name, settings.settings, settings.methods)
    if other and hand.learning_rate is None and (searched := folder.part(other, rows) / SEARCH).exists():
        arm = replace(arm, learning_rates=(Search.read(searched).rate,))
    tried = folder.part(leader, rows) / FIT if (leader := instruction_of(name)) else None
    wording = Fit.read(tried).chosen["instruction"] if tried and tried.exists() else None
    return Context(
        source=source, tokenizer=source.tokenizer(), task=task,
        train=learned_rows(folder.rows(rows, "train"), method_of(name))[:: extra.stride if extra else 1],
        valid=folder.rows(rows, "valid"),
        arm=extra.plan(arm) if extra else arm, valid_rows=plan.valid_rows, compute=plan.compute,
        seed=extra.seed if extra else plan.seed, folder=folder.part(name, part), listen=listen,
        prompt_text=instruction_only(task), collection=folder.collection(),
        **rehearsing(settings.settings, method_of(name)), hand=hand, precision=settings.settings.precision,
        instructions=settings.settings.instructions or (), wording=wording,
        teacher=folder.path / TEACHER, others={parted(other)[0]: folder.part(other, rows) for other in parts_of(name)},
        start=reopened(settings.artifact),
    )  # fmt: skip


def learned_rows(rows: Sequence[Example], method: Method) -> tuple[Example, ...]:
    """The training rows that a method learns from: without bad answers, unless it learns from them too, or from those
    of a teacher."""
    return tuple(rows if "thumbs" in method.judged_by or method.needs_teacher else accepted_rows(rows))


def validated_rows(folder: ComparisonFolder, name: str, part: str) -> tuple[Example, ...]:
    """The validation rows of an arm, with a teacher's answers if it learns these."""
    rows = folder.rows(part, "valid")
    return answered_rows(folder.path / TEACHER, rows) if method_of(name).needs_teacher else rows


def rehearsing(chosen: Chosen, method: Method) -> dict[str, Any]:
    """The fields of a method's Context that say what it rehearses."""
    path = Path(chosen.replay_from) if chosen.replay_from else None
    return {"replay": chosen.replay, "replay_from": path} if method.rehearses else {}


def _with_common(fitted: Fitted, context: Context) -> TextPart:
    """The text part of an artifact; where answers are generated, with those that several training rows share, by which
    prompt lookup drafts them. Beside spans they would be candidates, which the method chooses."""
    generated = fitted.weights.kind not in artifacts.MODEL_FREE and context.task.kind != "closed"
    if fitted.text.common or fitted.text.span_words or not generated:
        return fitted.text
    counts = Counter(row.answer for row in context.train if len(row.answer) <= COMMON_LENGTH).most_common(MOST_COMMON)
    return replace(fitted.text, common=tuple(answer for answer, count in counts if count >= COMMON_ROWS))


def _artifact(context: Context, fitted: Fitted, settings: Settings, plan: ComparisonPlan, name: str) -> Artifact:
    source = context.source
    parameters, template = describe(source).parameters, context.tokenizer.template
    path = settings.model_of(settings.base_of(name)).path  # at home, wherever this is
    base = BaseModel(source.name, path, source.sha256(), parameters, template)
    return Artifact(
        method=method_of(name).name,
        text=_with_common(fitted, context),
        weights=fitted.weights,
        base=None if fitted.weights.kind in artifacts.MODEL_FREE else base,
        task=context.task,
        calibrated=fitted.calibrated,
        label_offsets=fitted.label_offsets,
        temperature=fitted.temperature,
        temperatures=fitted.temperatures,
        max_new_tokens=fitted.max_new_tokens or answer_limit(context),
        config={
            "reading": settings.reading,
            "chosen": fitted.chosen,
            **({"from": context.start.chain} if context.start else {}),
        },
        data=settings.data,
        seeds={"seed": context.seed, "threads": plan.threads},
        versions=hardware.versions(("riyaz", "torch", "tokenizers")),
        validation={
            "answer_log_loss": fitted.valid_loss if fitted.refit_loss is None else fitted.refit_loss,
            "score": fitted.valid_score,
            "rows": len(context.valid),
        },
    )
