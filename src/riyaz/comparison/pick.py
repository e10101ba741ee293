"""The pick: the cheapest arm to serve whose shortfall to the best is surely within the margin. Pure.

"Surely" is the 95 % max-T bound of `metrics.paired.shortfall`, which does not take the best arm for known.
Arms with equal scores on every row count as one in it. When no arm is sure, the best by score is picked and
called undecided. The reason is one or two sentences with the runner-up and what would change the pick.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf

import numpy as np

from riyaz.comparison.arm_row import FINISHED
from riyaz.metrics.paired import ROWS_CAP, Shortfall, shortfall
from riyaz.results import ArmResult, Decision

Arm = ArmResult
Scores = Mapping[str, np.ndarray]
Limits = Mapping[str, float | None]

# A wider margin than this is no answer to "what would change the pick".
MARGIN_WORTH_SAYING = 0.1


@dataclass(frozen=True)
class Pick:
    """The picked method (None when no arm can be), the runner-up, and why, for a person."""

    pick: str | None
    runner_up: str | None
    decision: Decision
    reason: str
    rows_needed: int | None  # of the test, when undecided


def choose(
    arms: Sequence[Arm], scores: Scores, margin: float = 0.02, limits: Limits | None = None, seed: int = 0
) -> Pick:
    """Pick among `arms` (compare.json's) by their row scores {method: (n,)} on the same test rows.

    `limits`: max_ms (per answer), max_rss_mb (while serving), max_forgetting (nats/token); None is no limit.
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
        changes = changes or [f"no margin up to {MARGIN_WORTH_SAYING:g} would change the pick"]
        changes.append(f"the score of {table.name(order[0])} is optimistic, being picked on these same rows")
    reason = "; ".join([_verdict(table, margin), *dropped]) + "."
    if changes:
        text = "; ".join(changes)
        reason += f" {text[0].upper()}{text[1:]}."
    decision: Decision = "undecided" if not sure else "clear" if sure == 1 else "tie"
    runner_up = table.name(order[1]) if len(order) > 1 else None
    return Pick(table.name(order[0]), runner_up, decision, reason, rows_needed)


@dataclass(frozen=True)
class _Table:
    """Arms with their row scores, the means of these, and the bounds on the arms' shortfall."""

    arms: list[Arm]
    rows: np.ndarray  # (M, n)
    means: list[float]
    upper: list[float]
    bounds: Shortfall  # of the distinct arms

    def name(self, i: int) -> str:
        return self.arms[i].method

    def ranked(self, margin: float) -> tuple[list[int], int]:
        """The rule: sure arms cheapest first, then the others best first; and how many are sure."""
        cost = [_cost(arm) for arm in self.arms]
        sure = [i for i, bound in enumerate(self.upper) if bound <= margin]
        rest = [i for i, bound in enumerate(self.upper) if bound > margin]
        sure.sort(key=lambda i: (cost[i], -self.means[i]))
        rest.sort(key=lambda i: (-round(self.means[i], 12), cost[i]))
        return sure + rest, len(sure)


def _table(arms: list[Arm], scores: Scores, seed: int) -> _Table:
    rows = np.array([scores[arm.method] for arm in arms], float)
    distinct, group = np.unique(rows, axis=0, return_inverse=True)
    bounds = shortfall(distinct, seed=seed)
    return _Table(arms, rows, rows.mean(axis=1).tolist(), bounds.upper[group.reshape(-1)].tolist(), bounds)


def _cost(arm: Arm) -> tuple[float, float]:
    """What is cheaper to serve sorts first; an unknown cost is the dearest."""
    memory = _memory(arm)
    return inf if arm.ms_per_answer is None else arm.ms_per_answer, inf if memory is None else memory


def _memory(arm: Arm) -> float | None:
    """Peak memory while serving; the arm's whole peak, training included, where only that was measured."""
    return arm.peak_rss_mb if arm.serve_rss_mb is None else arm.serve_rss_mb


def _unscored(rows: np.ndarray | None) -> str:
    """Why an arm's row scores cannot be compared; empty when they can."""
    if rows is None or len(rows) == 0:
        return "no row scores"
    broken = int((~np.isfinite(np.asarray(rows, float))).sum())
    return f"{broken} of {len(rows)} row scores not a number" if broken else ""


def _over(arm: Arm, limits: Limits) -> dict[str, str]:
    """The limits that an arm breaks: {flag with its value: what the arm has}. Not measured is broken."""
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
    """Who is left out and why, one clause for each limit."""
    clauses = [f"{method} is left out ({why})" for method, why in unscored.items() if why]
    for flag in dict.fromkeys(flag for flags in over.values() for flag in flags):
        arms = [f"{method} ({flags[flag]})" for method, flags in over.items() if flag in flags]
        clauses.append(f"{flag} leaves out {_and(arms)}")
    return clauses


def _without_limits(
    measured: list[Arm], over: dict[str, dict[str, str]], scores: Scores, margin: float, seed: int
) -> list[str]:
    """Who would be picked without the limits that keep out the pick of the arms as a whole."""
    if not any(over.values()):
        return []
    table = _table(measured, scores, seed)
    flags = over[table.name(table.ranked(margin)[0][0])]
    table = _table([arm for arm in measured if set(over[arm.method]) <= set(flags)], scores, seed)
    method = table.name(table.ranked(margin)[0][0])
    return [f"without {_and(list(flags))} {method} would be picked"] if over[method] else []


def _nothing(arms: Sequence[Arm], measured: bool, dropped: list[str]) -> str:
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
    """What would change the pick, as clauses: rows, the next margins that do, arms that were cut."""
    changes = []
    if rows_needed:
        far = rows_needed == ROWS_CAP
        text = "even {:,} test rows may not decide" if far else "about {:,} test rows would decide"
        changes.append(text.format(rows_needed))
    order, sure = table.ranked(margin)
    steps = {_up(bound) for bound in table.upper}
    steps |= {floor(bound * 1000 - 1e-9) / 1000 for bound in table.upper if bound > 0}
    wider = sorted(step for step in steps if margin < step <= MARGIN_WORTH_SAYING)
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
    """A bound as a margin of three decimals that admits it."""
    return ceil(bound * 1000) / 1000


def _and(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
