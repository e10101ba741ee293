"""Picks the cheapest arm to serve whose score is within the margin of the best, with 95 % confidence.

An arm is called sure if the max-T upper bound of its shortfall (`metrics.paired.shortfall`) is within the margin. The
bound does not assume that the best arm is known; arms with equal scores on every row count once. If no arm is sure,
the best by score is picked and the decision is "undecided". The reason names the runner-up and what would change the
pick.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf

import numpy as np

from riyaz.comparison.arm_row import FINISHED
from riyaz.metrics.paired import ROWS_CAP, Shortfall, shortfall
from riyaz.results import ArmResult, Decision

Scores = Mapping[str, np.ndarray]
Limits = Mapping[str, float | None]

WIDEST_MARGIN = 0.1  # of those that the reason names as changing the pick


@dataclass(frozen=True)
class Pick:
    """The picked method (None if no arm can be picked), the runner-up and the reason in one to three sentences."""

    pick: str | None
    runner_up: str | None
    decision: Decision
    reason: str
    rows_needed: int | None  # test rows that would decide; None if it is decided


def choose(
    arms: Sequence[ArmResult], scores: Scores, margin: float = 0.02, limits: Limits | None = None, seed: int = 0
) -> Pick:
    """Pick one of the arms by their scores {method: (n,)} on the same test rows.

    `limits` may hold max_ms (per answer), max_rss_mb (while serving) and max_forgetting (nats per token).
    """
    finished = [arm for arm in arms if arm.status in FINISHED]
    unscored = {arm.method: _unscored(scores.get(arm.method)) for arm in finished}
    measured = [arm for arm in finished if not unscored[arm.method]]
    over = {arm.method: _over(arm, limits or {}) for arm in measured}
    within = [arm for arm in measured if not over[arm.method]]
    dropped = _dropped(unscored, over)
    if not within:
        return Pick(None, None, "undecided", _nothing(arms, bool(measured), dropped), None)
    table = _table(within, scores, seed)
    order, sure = table.ranked(margin)
    rows_needed = None if sure else table.bounds.rows_needed(margin)
    changes = _without_limits(measured, over, scores, margin, seed) + _changes(table, margin, rows_needed)
    if len(order) > 1:
        changes = changes or [f"no margin up to {WIDEST_MARGIN:g} would change the pick"]
        changes.append(f"the score of {table.name(order[0])} is optimistic, being picked on these same rows")
    reason = "; ".join([_verdict(table, margin), *dropped]) + "."
    if changes:
        text = "; ".join(changes)
        reason += f" {text[0].upper()}{text[1:]}."
    decision: Decision = "undecided" if not sure else "clear" if sure == 1 else "tie"
    runner_up = table.name(order[1]) if len(order) > 1 else None
    return Pick(table.name(order[0]), runner_up, decision, reason, rows_needed)


def contenders(
    arms: Sequence[ArmResult], scores: Scores, margin: float = 0.02, limits: Limits | None = None, seed: int = 0
) -> list[str]:
    """The methods between which `choose` is not clear: the sure arms of a tie, or of an undecided pick the leader and
    those whose score is within the margin of its; [] if there are no two."""
    finished = [arm for arm in arms if arm.status in FINISHED and not _unscored(scores.get(arm.method))]
    within = [arm for arm in finished if not _over(arm, limits or {})]
    if not within:
        return []
    table = _table(within, scores, seed)
    order, sure = table.ranked(margin)
    best = table.means[order[0]]
    close = order[:sure] if sure else [i for i in order if best - table.means[i] <= margin]
    return [table.name(i) for i in close] if len(close) > 1 else []


@dataclass(frozen=True)
class _Table:
    """Arms with their row scores, mean scores and upper bounds on the shortfall to the best arm."""

    arms: list[ArmResult]
    rows: np.ndarray  # (M, n)
    means: list[float]
    upper: list[float]  # bound of each arm
    bounds: Shortfall  # of the arms with distinct row scores

    def name(self, i: int) -> str:
        return self.arms[i].method

    def ranked(self, margin: float) -> tuple[list[int], int]:
        """Indices of the arms, sure ones first from the cheapest, then the others from the best; and the count of sure
        ones."""
        cost = [_cost(arm) for arm in self.arms]
        sure = [i for i, bound in enumerate(self.upper) if bound <= margin]
        rest = [i for i, bound in enumerate(self.upper) if bound > margin]
        sure.sort(key=lambda i: (cost[i], -self.means[i]))
        rest.sort(key=lambda i: (-round(self.means[i], 12), cost[i]))
        return sure + rest, len(sure)


def _table(arms: list[ArmResult], scores: Scores, seed: int) -> _Table:
    rows = np.array([scores[arm.method] for arm in arms], float)
    distinct, group = np.unique(rows, axis=0, return_inverse=True)
    bounds = shortfall(distinct, seed=seed)
    return _Table(arms, rows, rows.mean(axis=1).tolist(), bounds.upper[group.reshape(-1)].tolist(), bounds)


def _cost(arm: ArmResult) -> tuple[float, float]:
    """(ms per answer, MB) as a sorting key; infinite where not measured."""
    memory = _memory(arm)
    return inf if arm.ms_per_answer is None else arm.ms_per_answer, inf if memory is None else memory


def _memory(arm: ArmResult) -> float | None:
    """Peak MB while serving; if that was not measured, the arm's peak with training."""
    return arm.peak_rss_mb if arm.serve_rss_mb is None else arm.serve_rss_mb


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
        "max_rss_mb": (_memory(arm), "MB"),
        "max_forgetting": (forgetting, "nats/token"),
    }
    over = {}
    for key, (value, unit) in values.items():
        limit = limits.get(key)
        if limit is not None and (value is None or value > limit):
            has = "not measured" if value is None else f"{value:.4g} {unit}"
            over[f"--{key.replace('_', '-')} {limit:g}"] = has
    return over


def _dropped(unscored: dict[str, str], over: dict[str, dict[str, str]]) -> list[str]:
    """One clause for each unscored arm and for each limit that leaves out arms."""
    clauses = [f"{method} is left out ({why})" for method, why in unscored.items() if why]
    for flag in dict.fromkeys(flag for flags in over.values() for flag in flags):
        arms = [f"{method} ({flags[flag]})" for method, flags in over.items() if flag in flags]
        clauses.append(f"{flag} leaves out {_and(arms)}")
    return clauses


def _without_limits(
    measured: list[ArmResult], over: dict[str, dict[str, str]], scores: Scores, margin: float, seed: int
) -> list[str]:
    """A clause that names the arm which would be picked without the limits it exceeds; [] if limits change nothing."""
    if not any(over.values()):
        return []
    table = _table(measured, scores, seed)
    flags = over[table.name(table.ranked(margin)[0][0])]
    table = _table([arm for arm in measured if set(over[arm.method]) <= set(flags)], scores, seed)
    method = table.name(table.ranked(margin)[0][0])
    return [f"without {_and(list(flags))} {method} would be picked"] if over[method] else []


def _nothing(arms: Sequence[ArmResult], measured: bool, dropped: list[str]) -> str:
    """The reason when no arm can be picked."""
    if measured:
        return f"No arm is within the limits: {'; '.join(dropped)}. Raise a limit, or compare cheaper methods."
    states = [f"{arm.method} {arm.status}" for arm in arms if arm.status not in FINISHED]
    return f"No arm can be picked: {'; '.join(states + dropped) or 'none was run'}."


def _verdict(table: _Table, margin: float) -> str:
    """The first sentence, without its full stop."""
    order, sure = table.ranked(margin)
    metric = (table.arms[order[0]].metric or "score").replace("_", " ")
    rows = table.rows.shape[1]
    head = f"{table.name(order[0])} ({metric} {table.means[order[0]]:.3f} on {rows} test rows)"
    if len(order) == 1:
        return f"{head} is picked, as the only arm that can be"
    tail = f"runner-up {table.name(order[1])} ({table.means[order[1]]:.3f})"
    near = f"with 95 % confidence within {margin:g} of the best"
    if not sure:
        return f"Undecided: {head} is the best by score, but no arm is {near}; {tail}"
    if sure > 1:
        equal = (table.rows[order[:sure]] == table.rows[order[0]]).all()
        what = "with equal scores on every row" if equal else near
        others = _and([tail, *(table.name(i) for i in order[2:sure])])
        return f"A tie: {head} is the cheapest to serve of {sure} arms {what}, ahead of {others}"
    bound = table.upper[order[0]]
    if bound == 0:
        return f"{head} is picked, with 95 % confidence the best of {len(order)} arms; {tail}"
    return f"{head} is picked, as the only arm {near} (at most {_up(bound):g} short of it); {tail}"


def _changes(table: _Table, margin: float, rows_needed: int | None) -> list[str]:
    """Clauses about what would change the pick: more rows, another margin, more time for arms that were cut."""
    changes = []
    if rows_needed:
        far = rows_needed == ROWS_CAP
        text = "even {:,} test rows may not decide" if far else "about {:,} test rows would decide"
        changes.append(text.format(rows_needed))
    order, sure = table.ranked(margin)
    steps = {_up(bound) for bound in table.upper}
    steps |= {floor(bound * 1000 - 1e-9) / 1000 for bound in table.upper if bound > 0}
    wider = sorted(step for step in steps if margin < step <= WIDEST_MARGIN)
    narrower = sorted((step for step in steps if step < margin), reverse=True)
    for nearer in (wider, narrower):
        for step in nearer:
            other, sure_then = table.ranked(step)
            if other[0] != order[0] or (sure_then and not sure):
                surely = " for certain" if other[0] == order[0] else ""
                changes.append(f"a margin of {step:g} would pick {table.name(other[0])}{surely}")
                break
    cut = [table.name(i) for i in order[1:] if table.arms[i].status == "cut"]
    if cut:
        changes.append(f"with more time {_and(cut)} might win, having been cut short")
    return changes


def _up(bound: float) -> float:
    """The bound rounded up to three decimals."""
    return ceil(bound * 1000) / 1000


def _and(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
