"""The row of an arm in `compare.json`, made from the files of its finished parts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from riyaz.comparison.folder import FINAL, ComparisonFolder, megabytes
from riyaz.data import Example
from riyaz.errors import RiyazError, shown
from riyaz.methods import METHODS
from riyaz.methods.fitting.base import ArmPlan
from riyaz.metrics.decisions import row_scores as scores_of_questions
from riyaz.metrics.groups import group_numbers
from riyaz.metrics.intervals import interval
from riyaz.metrics.scores import WRITTEN, extras, row_extras
from riyaz.results import (
    ELSEWHERE,
    FIT,
    PREDICTIONS,
    RESULT,
    Answer,
    ArmResult,
    Evaluation,
    Fit,
    Flips,
    Retrieval,
    Status,
)
from riyaz.scoring import calibration_of, question_scores, slice_scores

FINISHED = ("ok", "cut")  # statuses of the arms that have a score


def arm_row(folder: ComparisonFolder, plan: ArmPlan, parts: Sequence[str], reason: str) -> ArmResult:
    """The row of an arm from its parts' files; `reason` is why the arm failed, "" if it did not.

    Raises RiyazError for a damaged file.
    """
    if plan.skipped or reason:
        status: Status = "skipped" if plan.skipped else "failed"
        about, ruled_out = METHODS[plan.method].about, plan.ruled_out or None
        return ArmResult(
            plan.method, status, plan.base, reason=plan.skipped or reason, about=about, ruled_out=ruled_out
        )
    runs = [folder.part(plan.name, part) for part in parts]
    fits, results = [Fit.read(run / FIT) for run in runs], [Evaluation.read(run / RESULT) for run in runs]
    final_fit, final = fits[parts.index(FINAL)], results[parts.index(FINAL)]
    plan = with_own_steps(plan, final_fit.chosen)
    checks = [(f"{part}: {name}" if len(parts) > 1 else name, check)
              for part, fit, result in zip(parts, fits, results)
              for name, check in (fit.checks | result.checks).items()]  # fmt: skip
    failed = [_with_warning(name, check) for name, check in checks if not check["ok"]]
    noted = [_with_warning(name, check) for name, check in checks if check["ok"] and "warning" in check]
    rows = _answers_of(runs)
    return ArmResult(
        method=plan.method,
        base=plan.base,
        status="failed" if failed else "cut" if plan.cut else "ok",
        ruled_out=plan.ruled_out or None,
        metric=final.metric,
        **_scored(final.metric, rows),
        train_seconds=sum(fit.train_seconds for fit in fits),
        search_seconds=sum(fit.search_seconds for fit in fits),
        eval_seconds=sum(result.eval_seconds for result in results),
        peak_rss_mb=max([*(fit.peak_rss_mb for fit in fits), *(result.peak_rss_mb for result in results)]) or None,
        serve_rss_mb=final.serve_rss_mb,
        served=final.served,
        trainable_params=final_fit.trainable_params,
        artifact_mb=megabytes(folder.part(plan.name, FINAL) / "artifact"),
        ms_per_answer=final.ms_per_answer,
        merged_ms=final.merged_ms,
        merged=final.merged,
        prompt_tokens=final.prompt_tokens,
        forgetting_nats=final.forgetting_nats,
        forgetting_se=final.forgetting_se,
        prose_nats=final.prose_nats,
        prose_se=final.prose_se,
        kl_task=final.kl_task,
        chosen=final_fit.chosen,
        checks=final_fit.checks | final.checks,
        curve=final_fit.curve,
        retrieval=_retrieval([result.retrieval for result in results if result.retrieval], final_fit.chosen),
        reason=_reason(plan, failed, noted),
        steps=plan.steps or None,
        recipe_steps=plan.recipe_steps or None,
        waited=plan.behind or None,
        batch_flips=_batch_flips(results),
        alone=all(result.alone for result in results),
        remeasured=final.remeasured,
        cpu_waited=_cpu_waited(fits, results),
        about=METHODS[plan.method].about,
        calibration=calibration_of(rows),
        questions=question_scores(folder.settings().task, rows),
    )


def with_own_steps(plan: ArmPlan, chosen: Mapping[str, Any]) -> ArmPlan:
    """The plan of a method without a recipe that has shortened its training, with its steps; others as they are."""
    recipe_steps = chosen.get("recipe_steps")
    return replace(plan, steps=chosen["steps"], recipe_steps=recipe_steps) if recipe_steps else plan


def _reason(plan: ArmPlan, failed: list[str], noted: list[str]) -> str:
    """What a reader must know of an arm beside its figures; "" if nothing."""
    if failed:
        return f"failed check{'s' if len(failed) > 1 else ''}: {', '.join(failed)}"
    low = "scored low after the openings and " if plan.behind else ""
    waited = f"; it {low}waited for the others" if plan.waits else ""
    cut = [f"trained {plan.steps} of {plan.recipe_steps} steps{waited}"] if plan.cut else []
    if plan.steps > plan.recipe_steps:
        cut = [f"trained {plan.steps} steps instead of {plan.recipe_steps}, since validation still improved"]
    return "; ".join([*cut, *(f"warning: {check}" for check in noted)])


def _with_warning(name: str, check: dict[str, Any]) -> str:
    """The name of a check, with the words that it holds."""
    return f"{name} ({check['warning']})" if "warning" in check else name


def _cpu_waited(fits: Sequence[Fit], results: Sequence[Evaluation]) -> float | None:
    """The share of the CPU time asked for that was not had, the mean over the processes weighted by their time."""
    parts = [(fit.cpu_waited, fit.seconds) for fit in fits]
    parts += [(result.cpu_waited, result.eval_seconds) for result in results]
    known = [(share, seconds) for share, seconds in parts if share is not None]
    total = sum(seconds for _, seconds in known)
    return sum(share * seconds for share, seconds in known) / total if total else None


def _batch_flips(results: Sequence[Evaluation]) -> Flips | None:
    """The counts of all parts together."""
    counts = [result.batch_flips for result in results if result.batch_flips]
    if not counts:
        return None
    return Flips(*(sum(getattr(each, name) for each in counts) for name in ("rows", "answers", "scores")))


def _retrieval(parts: Sequence[Retrieval], chosen: dict[str, Any]) -> Retrieval | None:
    """`retrieval` of an arm: that of its only part, or the mean over its parts, weighted by their rows."""
    if len(parts) < 2:
        return parts[0] if parts else None

    def mean(name: str, by: str) -> float | None:
        pairs = [(getattr(part, name), getattr(part, by) or 0) for part in parts if getattr(part, name) is not None]
        rows = sum(rows for _, rows in pairs)
        return sum(value * rows for value, rows in pairs) / rows if rows else None

    retrieval = Retrieval(
        k=chosen["passages"] if isinstance(chosen.get("passages"), int) else parts[0].k,
        rows=sum(part.rows or 0 for part in parts),
        grounded_rows=sum(part.grounded_rows or 0 for part in parts),
        closed_book=mean("closed_book", "rows"),
        retrieved=mean("retrieved", "rows"),
        grounded_nats=mean("grounded_nats", "grounded_rows"),
    )
    named = [(part.recall, part.named_rows) for part in parts if part.recall is not None and part.named_rows]
    if not named:
        return retrieval
    rows = sum(count for _, count in named)
    recall = {k: sum(each.get(k, 0.0) * count for each, count in named) / rows for k in named[0][0]}
    return replace(
        retrieval, recall=recall, mrr=mean("mrr", "named_rows"), named_rows=rows, oracle=mean("oracle", "rows")
    )


def _answers_of(runs: Sequence[Path]) -> list[Answer]:
    """The answers of all parts. Raises RiyazError if there is none, or one has no score."""
    rows: list[Answer] = []
    for path in (run / PREDICTIONS for run in runs):
        answers = Answer.read(path)
        missing = next((row.where for row in answers if row.score is None and not row.decided), None)
        if missing is not None:  # JSON has no infinity, so a damaged score is null too
            raise RiyazError(f"the answer to {shown(missing)} has no score", str(path), ELSEWHERE)
        rows += answers
    if not rows:
        raise RiyazError("holds no answer", str(runs[0] / PREDICTIONS), ELSEWHERE)
    return rows


def _scored(metric: str, rows: Sequence[Answer]) -> dict[str, Any]:
    """Mean, 95 % interval and extras over the test rows of all parts, and the mean of every slice."""
    scores, groups = row_points(rows), group_numbers([row.group for row in rows])
    low, high = interval(scores, groups)
    nats = [row.answer_log_probability for row in rows if row.answer_log_probability is not None]
    second = {"answer_log_probability": float(np.mean(nats))} if nats else {}
    return {
        "score": float(scores.mean()),
        "ci_low": low,
        "ci_high": high,
        "slices": slice_scores(scores, [row.slice for row in rows], groups),
        "n_test": len(rows),
        "n_groups": None if groups is None else int(groups.max()) + 1,
        "extras": _extras(metric, rows) | second,
    }


def _extras(metric: str, rows: Sequence[Answer]) -> dict[str, float]:
    """The second metrics, from those of the rows; an earlier version wrote none, and only for metrics of text."""
    if rows[0].decided:
        return {}
    texts, answers = [row.prediction for row in rows], [row.answers for row in rows]
    each = [row.extras or {} for row in rows]
    if not any(each) and metric in WRITTEN:
        each = row_extras(metric, texts, [Example((), tuple(accepted)) for accepted in answers])
    return extras(metric, texts, answers, each)


def row_groups(folder: ComparisonFolder, arms: Sequence[ArmResult], parts: Sequence[str]) -> np.ndarray | None:
    """The number (n,) of the group of each row, in the order of `row_scores`; None where no two rows share one."""
    name = next((arm.name for arm in arms if arm.status in FINISHED), None)
    if name is None:
        return None
    rows = [row for part in parts for row in Answer.read(folder.part(name, part) / PREDICTIONS)]
    return group_numbers([row.group for row in sorted(rows, key=lambda row: (row.where, row.score or 0.0))])


def row_points(rows: Sequence[Answer]) -> np.ndarray:
    """The scores of the rows (n,); NaN where the score is null. Of rows that answer several questions what each adds to
    the mean over the questions."""
    if rows and rows[0].decided:
        each = [[np.nan if one.points is None else one.points for one in row.decided or ()] for row in rows]
        return scores_of_questions(np.array(each, float))
    return np.array([np.nan if row.score is None else row.score for row in rows], float)


def row_scores(folder: ComparisonFolder, arms: Sequence[ArmResult], parts: Sequence[str]) -> dict[str, np.ndarray]:
    """{arm: scores (n,) of the test rows} of the finished arms, in the same order for all arms.

    Raises RiyazError if two arms have answered different rows.
    """
    scores: dict[str, np.ndarray] = {}
    places: list[str] = []  # of the first arm's rows
    for arm in arms:
        if arm.status in FINISHED:
            files = [folder.part(arm.name, part) / PREDICTIONS for part in parts]
            rows = [row for file in files for row in Answer.read(file)]
            rows.sort(key=lambda row: (row.where, row.score or 0.0))
            places = places or [row.where for row in rows]
            if places != [row.where for row in rows]:
                raise RiyazError("its rows are not those of the other arms", str(files[-1]), ELSEWHERE)
            scores[arm.name] = row_points(rows)
    return scores
