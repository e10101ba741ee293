"""Picks the cheapest arm to serve whose score is within the margin of the best, with 95 % confidence.

One such arm is certified, several are a tie; of these, arms that forgot much come last. If there is none, or if another
arm may be better that did not run or was cut too early to be judged, the decision is "undecided" and the best by score
leads. If every arm scores 0 on every row, nothing is picked. `reason` says why, and what would change the pick.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from riyaz.comparison import reason
from riyaz.comparison.arm_row import FINISHED
from riyaz.comparison.ranking import Scores, table_of
from riyaz.config import CompareConfig
from riyaz.errors import joined
from riyaz.metrics.paired import rows_needed_range
from riyaz.results import ArmResult, Decision, Floor

Limits = Mapping[str, float | None]

FEWEST_ROWS = 100  # of a test from which `rows_needed` is estimated; with fewer its range is too wide to help


@dataclass(frozen=True)
class Pick:
    """The picked arm (None if no arm can be picked), the runner-up and the reason in one to five sentences."""

    pick: str | None
    runner_up: str | None
    decision: Decision
    reason: str
    rows_needed: tuple[int, int] | None  # range of the test rows that would decide; None if unknown or decided


def choose(
    arms: Sequence[ArmResult],
    scores: Scores,
    margin: float = CompareConfig.margin,
    limits: Limits | None = None,
    seed: int = 0,
    floor: tuple[Floor, np.ndarray] | None = None,
    more: str = "--more 30m",
    groups: np.ndarray | None = None,
) -> Pick:
    """Pick one of the arms by their scores {arm: (n,)} on the same test rows, which may be in `groups` (n,).

    `limits` may hold max_ms (per answer), max_rss_mb (while serving) and max_forgetting (nats per token). `floor` is
    the most frequent answer with its scores on the same rows, `more` the command that continues arms which were cut.
    """
    finished = [arm for arm in arms if arm.status in FINISHED]
    unscored = {arm.name: _unscored(scores.get(arm.name)) for arm in finished}
    measured = [arm for arm in finished if not unscored[arm.name]]
    over = {arm.name: _over(arm, limits or {}) for arm in measured}
    within = [arm for arm in measured if not over[arm.name]]
    dropped = reason.dropped(unscored, over)
    if not within:
        return Pick(None, None, "undecided", reason.none_left(arms, bool(measured), dropped), None)
    missing = tuple(arm.name for arm in arms if arm.status == "skipped" and arm.may_beat(1.0))
    table = replace(table_of(within, scores, seed, groups), missing=missing)
    if not table.rows.any():
        return Pick(None, None, "nothing", reason.nothing_works(table, dropped, more), None)
    order, sure = table.ranked(margin)
    rows = None
    if not table.sure(margin) and table.rows.shape[1] >= FEWEST_ROWS and not table.few_groups:
        rows = rows_needed_range(table.distinct, table.bounds, margin, seed=seed)
    sentences = ["; ".join([reason.verdict(table, margin), *dropped])]
    sentences += reason.untuned(table, margin, [arm for arm in measured if over[arm.name]])
    sentences += reason.warnings(table, margin, floor, more, seed)
    changes = _without_limits(measured, over, scores, margin, seed, groups, missing)
    changes += reason.changes(table, margin, rows, seed)
    sentences += ["; ".join(changes)] if changes else []
    decision: Decision = "undecided" if not sure else "certified" if sure == 1 else "tie"
    runner_up = table.name(order[1]) if len(order) > 1 else None
    return Pick(table.name(order[0]), runner_up, decision, reason.text(sentences), rows)


def contenders(
    arms: Sequence[ArmResult],
    scores: Scores,
    margin: float,
    limits: Limits | None,
    seed: int,
    groups: np.ndarray | None = None,
) -> list[str]:
    """The arms between which `choose` is not clear: the sure arms of a tie, or of an undecided pick the leader and
    those whose score is within the margin of its; [] if there are no two, or if nothing works."""
    finished = [arm for arm in arms if arm.status in FINISHED and not _unscored(scores.get(arm.name))]
    within = [arm for arm in finished if not _over(arm, limits or {})]
    if not within:
        return []
    table = table_of(within, scores, seed, groups)
    if not table.rows.any():
        return []
    order, sure = table.ranked(margin)
    best = table.means[order[0]]
    close = order[:sure] if sure else [i for i in order if best - table.means[i] <= margin]
    return [table.name(i) for i in close] if len(close) > 1 else []


def _unscored(rows: np.ndarray | None) -> str:
    """Why an arm's row scores cannot be compared; "" if they can."""
    if rows is None or len(rows) == 0:
        return "no row scores"
    broken = int((~np.isfinite(np.asarray(rows, float))).sum())
    return f"{broken} of {len(rows)} row scores not a number" if broken else ""


def _over(arm: ArmResult, limits: Limits) -> dict[str, str]:
    """The limits that an arm exceeds, {flag and limit: the arm's value}; a value that was not measured exceeds it."""
    assert set(limits) <= {"max_ms", "max_rss_mb", "max_forgetting"}, limits
    forgetting = arm.forgetting_nats
    if forgetting is None and not arm.trainable_params:
        forgetting = 0.0  # an arm that changes no weights forgets nothing
    values = {
        "max_ms": (arm.ms_per_answer, "ms per answer"),
        "max_rss_mb": (arm.serving_mb, "MB"),
        "max_forgetting": (forgetting, "nats/token"),
    }
    over = {}
    for key, (value, unit) in values.items():
        limit = limits.get(key)
        if limit is not None and (value is None or value > limit):
            has = "not measured" if value is None else f"{value:.4g} {unit}"
            over[f"--{key.replace('_', '-')} {limit:g}"] = has
    return over


def _without_limits(
    measured: list[ArmResult],
    over: dict[str, dict[str, str]],
    scores: Scores,
    margin: float,
    seed: int,
    groups: np.ndarray | None,
    missing: tuple[str, ...],
) -> list[str]:
    """A clause that names the arm which would be picked without the limits it exceeds; [] if limits change nothing."""
    if not any(over.values()):
        return []
    table = replace(table_of(measured, scores, seed, groups), missing=missing)
    flags = over[table.name(table.ranked(margin)[0][0])]
    allowed = [arm for arm in measured if set(over[arm.name]) <= set(flags)]
    table = replace(table_of(allowed, scores, seed, groups), missing=missing)
    order, sure = table.ranked(margin)
    name = table.name(order[0])
    would = "would be picked" if sure else "would lead"
    return [f"without {joined(list(flags))} {name} {would}"] if over[name] else []
