"""The sentences that say why an arm is picked, and what would change the pick."""

import math
from collections.abc import Sequence

import numpy as np

from riyaz.comparison.arm_row import FINISHED
from riyaz.comparison.ranking import FEWEST_GROUPS, FORGETS, Table, cost, forgets
from riyaz.errors import joined
from riyaz.metrics.paired import ROWS_CAP, paired_test
from riyaz.results import FLOORS, ArmResult, Floor, metric_name

WIDEST_MARGIN = 0.1  # of those that the reason names as changing the pick
CHANCE = 0.05  # p-value from which a difference between two arms may be chance
ANSWER_WIDTH = 40  # characters of an answer that are shown


def text(sentences: Sequence[str]) -> str:
    """Sentences as one text: all but the first, which begins with a method's name, get a capital letter."""
    return " ".join(f"{s if i == 0 else s[0].upper() + s[1:]}." for i, s in enumerate(sentences))


def dropped(unscored: dict[str, str], over: dict[str, dict[str, str]]) -> list[str]:
    """One clause for each unscored arm and for each limit that leaves out arms."""
    clauses = [f"{method} is left out ({why})" for method, why in unscored.items() if why]
    for flag in dict.fromkeys(flag for flags in over.values() for flag in flags):
        arms = [f"{method} ({flags[flag]})" for method, flags in over.items() if flag in flags]
        clauses.append(f"{flag} leaves out {joined(arms)}")
    return clauses


def none_left(arms: Sequence[ArmResult], measured: bool, dropped: list[str]) -> str:
    """The reason when no arm can be picked."""
    if measured:
        return f"No method is within the limits: {'; '.join(dropped)}. Raise a limit, or compare cheaper methods."
    states = [f"{arm.name} {arm.status}" for arm in arms if arm.status not in FINISHED]
    return f"No method can be picked: {'; '.join(states + dropped) or 'none was run'}."


def nothing_works(table: Table, dropped: list[str], more: str) -> str:
    """The reason when every arm scores 0 on every row."""
    count = len(table.rows)
    arms = f"all {count} {table.kind}s score" if count > 1 else f"the only {table.kind}, {table.name(0)}, scores"
    first = "; ".join([f"Nothing works here: {arms} 0 on {table.count}", *dropped])
    then = "check the instruction and the wording of the answers, give more rows, or take a larger model"
    half = [i for i, arm in enumerate(table.arms) if arm.half_trained]
    return text([first, *_unfinished(table, half, more), then])


def verdict(table: Table, margin: float) -> str:
    """The first sentence, without its full stop."""
    order, sure = table.ranked(margin)
    first = order[0]
    metric = metric_name(table.arms[first].metric)
    head = f"{table.name(first)} ({metric} {table.means[first]:.3f} on {table.count})"
    if len(order) == 1:
        kind = table.kind
        only = f"leads, as the only {kind} that ran" if table.missing else f"is picked, as the only {kind} that can be"
        return f"{head} {only}"
    tail = f"runner-up {table.name(order[1])} ({table.means[order[1]]:.3f})"
    near = f"with 95 % confidence within {margin:g} of the best"
    if not sure:
        certain = table.sure(margin)
        but = f"the test is too small to separate the leaders: no {table.kind} is {near}"
        if table.few_groups:
            but = f"rows of fewer than {FEWEST_GROUPS} groups certify no {table.kind}"
        elif certain and table.missing:
            but = f"{joined(table.missing)} did not run and may be better"
        elif certain:
            but = f"another {table.kind} has had too little training to be judged"
        return f"{head} leads, but {but}; {tail}"
    if sure > 1:
        equal = (table.rows[order[:sure]] == table.rows[first]).all()
        what = "with equal scores on every row" if equal else near
        spared = not forgets(table.arms[first]) and any(forgets(table.arms[i]) for i in order[:sure])
        clause = f" that forgot at most {FORGETS:g} nats per token" if spared else ""
        others = joined([tail, *(table.name(i) for i in order[2:sure])])
        return f"Of {sure} {table.kind}s {what}, {head} is the cheapest to serve{clause}, ahead of {others}"
    bound = table.upper[first]
    if bound == 0:
        return f"{head} is certified with 95 % confidence to be the best of {len(order)} {table.kind}s; {tail}"
    return f"{head} is certified as the only {table.kind} {near} (at most {_up(bound):g} short of it); {tail}"


def untuned(table: Table, margin: float, limited: Sequence[ArmResult]) -> list[str]:
    """A sentence where the sure pick of several bases is one that is not trained: whether training on it was worse, or
    was not to be had. `limited` are the arms that a limit leaves out."""
    order, sure = table.ranked(margin)
    first, tuned = table.arms[order[0]], [i for i, arm in enumerate(table.arms) if arm.base and arm.trainable_params]
    if not sure or not tuned or first.base is None or first.trainable_params:
        return []
    best = max(tuned, key=lambda i: table.means[i])
    known = f"training is not worth it here: the best trained arm, {table.name(best)}, scores {table.means[best]:.3f}"
    if not any(table.arms[i].base == first.base for i in tuned):
        left_out = any(arm.base == first.base and arm.trainable_params for arm in limited)
        known = f"no training on it {'is within the limits' if left_out else 'finished'}"
    return [f"take {first.base} as it is, by {first.method}; {known}"]


def warnings(table: Table, margin: float, floor: tuple[Floor, np.ndarray] | None, more: str, seed: int) -> list[str]:
    """Sentences about a first arm that is no better than the floor or forgot much, and about arms that did not run or
    were cut."""
    first = table.ranked(margin)[0][0]
    sentences = []
    if floor and len(floor[1]) == table.rows.shape[1]:
        test = paired_test(table.rows[first], floor[1], table.groups, seed=seed)
        if test.difference <= 0 or test.p_value >= CHANCE:
            kind = floor[0].kind
            answering = FLOORS[kind] if kind else f"always answering {_clipped(floor[0].answer)!r}"
            beside = f"{answering} scores {floor[0].score:.3f}"
            score = f"the score of {table.name(first)}"
            sentences.append(f"{score} is not above the floor beyond chance: {beside} (p {test.p_value:.2g})")
    if forgets(table.arms[first]):
        lost = f"{table.name(first)} forgot {table.arms[first].forgetting_nats:.1f} nats per token of general text"
        sentences.append(f"warning: {lost}")
    return sentences + _unfinished(table, table.unready(margin), more)


def _unfinished(table: Table, which: list[int], more: str) -> list[str]:
    """A sentence about the arms that were cut too early, and those that did not run, with the command that goes on;
    [] if there are none."""
    if not which and not table.missing:
        return []
    steps = {i: f"{table.name(i)} ({table.arms[i].steps} of {table.arms[i].recipe_steps})" for i in which}
    half = [name for i, name in steps.items() if table.arms[i].half_trained]
    improving = [name for i, name in steps.items() if not table.arms[i].half_trained]
    clauses = [f"trained for less than half of the recipe's steps: {joined(half)}"] if half else []
    clauses += [f"cut while validation still improved: {joined(improving)}"] if improving else []
    clauses += [f"without a result: {joined(table.missing)}"] if table.missing else []
    goes_on = "runs" if not which else "continues"
    return [f"{'; '.join(clauses)}; {more} {goes_on} {'them' if len(which) + len(table.missing) > 1 else 'it'}"]


def changes(table: Table, margin: float, rows_needed: tuple[int, int] | None, seed: int) -> list[str]:
    """Clauses about what would change the pick: a cheaper arm, more rows, another margin, more time for cut arms."""
    order, sure = table.ranked(margin)
    if len(order) == 1:
        return []
    clauses = [] if sure else _cheaper(table, order[0], seed)
    clauses += [rows_text(rows_needed)] if rows_needed else []
    clauses += _margins(table, margin)
    unready = table.unready(margin)
    cut = [table.name(i) for i in order[1:] if table.arms[i].status == "cut" and i not in unready]
    if cut:
        clauses.append(f"with more time {joined(cut)} might win, having been cut short")
    if not clauses and sure:
        clauses.append(f"no margin up to {WIDEST_MARGIN:g} would change the pick")
    return [*clauses, f"the score of {table.name(order[0])} is optimistic, being picked on these same rows"]


def _cheaper(table: Table, leader: int, seed: int) -> list[str]:
    """A clause that names the cheapest arm, if it is not the leader, whose lower score may be chance."""
    best = table.arms[leader]
    if best.ms_per_answer is None:
        return []
    for i in sorted(range(len(table.arms)), key=lambda i: cost(table.arms[i])):
        ms = table.arms[i].ms_per_answer
        if ms is None or ms >= best.ms_per_answer:
            break
        if forgets(table.arms[i]) and not forgets(best):
            continue
        p_value = paired_test(table.rows[i], table.rows[leader], table.groups, seed=seed).p_value
        if p_value >= CHANCE:
            times = f"{_ms(ms)} instead of {_ms(best.ms_per_answer)} ms per answer"
            return [f"the cheaper {table.name(i)} ({table.means[i]:.3f}, {times}) is not worse beyond chance "
                    f"(p {p_value:.2g})"]  # fmt: skip
    return []


def rows_text(rows_needed: tuple[int, int]) -> str:
    """`about 400–8,000 test rows would decide`."""
    low, high = rows_needed
    if low == ROWS_CAP:
        return f"even {low:,} test rows may not decide"
    if high == ROWS_CAP:
        return f"about {low:,} to more than {high:,} test rows would decide"
    return f"about {low:,}{f'–{high:,}' if high > low else ''} test rows would decide"


def _margins(table: Table, margin: float) -> list[str]:
    """Clauses that name the next wider and the next narrower margin which change the pick."""
    order, sure = table.ranked(margin)
    steps = {_up(bound) for bound in table.upper}
    steps |= {math.floor(bound * 1000 - 1e-9) / 1000 for bound in table.upper if bound > 0}
    wider = sorted(step for step in steps if margin < step <= WIDEST_MARGIN)
    narrower = sorted((step for step in steps if step < margin), reverse=True)
    clauses = []
    for nearer in (wider, narrower):
        for step in nearer:
            other, sure_then = table.ranked(step)
            if other[0] != order[0] or (sure_then and not sure):
                surely = " for certain" if other[0] == order[0] else ""
                clauses.append(f"a margin of {step:g} would pick {table.name(other[0])}{surely}")
                break
    return clauses


def _up(bound: float) -> float:
    """The bound rounded up to three decimals."""
    return math.ceil(bound * 1000) / 1000


def _ms(value: float) -> str:
    """Milliseconds as text: `0.02`, `8.3`, `1,188`."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _clipped(answer: str) -> str:
    return answer if len(answer) <= ANSWER_WIDTH else answer[: ANSWER_WIDTH - 1] + "…"
