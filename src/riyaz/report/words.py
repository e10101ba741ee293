"""Numbers as text, and the sentences that the terminal, report.md and report.html share."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from riyaz.errors import joined
from riyaz.report.names import NAMES
from riyaz.results import (
    FLOORS,
    ArmResult,
    Comparison,
    CurveScore,
    Flips,
    Floor,
    Pair,
    TargetScores,
    in_words,
    metric_name,
)

MISSING = "–"
ANSWER_WIDTH = 40  # characters of the floor's answer that are shown
BUSY = 0.1  # share of the CPU time asked for; arms that waited longer are named
# second metrics that have a column of the table
BESIDE = ("parses", "exact_object", "fits_schema", "runs", "slots", "slots_all", "length_ratio", "reward")


@dataclass(frozen=True)
class Column:
    """One column of the comparison: its title, and the cell's text for an arm."""

    title: str
    fill: Callable[[ArmResult], str]
    text: bool = False  # text is aligned left, numbers right


def number(value: float | None, digits: int = 0) -> str:
    """`1,234.5`; a dash for None, NaN or infinity."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:,.{digits}f}"


def signed(value: float | None) -> str:
    """`+0.012`; `0` without a sign for exactly zero; a dash for None, NaN or infinity."""
    if value == 0:
        return "0"
    return MISSING if value is None or not math.isfinite(value) else f"{value:+.3f}"


def forgetting(arm: ArmResult) -> str:
    """The rise of the loss on general text with its standard error, `+0.103 ± 0.012`."""
    return _with_error(arm.forgetting_nats, arm.forgetting_se)


def prose_forgetting(arm: ArmResult) -> str:
    """The same of English prose."""
    return _with_error(arm.prose_nats, arm.prose_se)


def _with_error(nats: float | None, error: float | None) -> str:
    return signed(nats) if error is None else f"{signed(nats)} ± {error:.3f}"


def duration(seconds: float | None) -> str:
    """Seconds as `0.4 s`, `43 s`, `3m 12s` or `1h 05m`."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def tenths(value: float | None) -> str:
    """One decimal, `8.3`; `<0.1` below 0.05."""
    return "<0.1" if value is not None and 0 < value < 0.05 else number(value, 1)


def interval(scored: ArmResult | CurveScore | Floor | TargetScores) -> str:
    """The 95 % confidence interval of a score, `0.812–0.889`."""
    low, high = scored.ci_low, scored.ci_high
    if low is None or high is None:
        return MISSING
    return f"{low:.3f} to {high:.3f}" if low < 0 else f"{low:.3f}–{high:.3f}"


def fit_seconds(arm: ArmResult) -> float:
    """Seconds of an arm's search, for texts or a learning rate, and training."""
    return arm.search_seconds + arm.train_seconds


def columns(arms: Sequence[ArmResult], pick: str | None) -> list[Column]:
    """The columns of the table of these arms, in order: with one of the bases where there are several."""
    bases = [Column("base", lambda arm: arm.base or MISSING, text=True)] if has_bases(arms) else []
    return [
        Column("method", lambda arm: arm.method + (" *" if arm.name == pick else ""), text=True),
        *bases,
        Column(metric_name(next((arm.metric for arm in arms if arm.metric), None)), lambda arm: number(arm.score, 3)),
        Column("95 % interval", interval),
        *(_second(name) for name in BESIDE if any(name in arm.extras for arm in arms)),
        Column("fit", lambda arm: duration(fit_seconds(arm) or None)),
        Column("ms/answer", lambda arm: tenths(arm.ms_per_answer)),
        Column("peak MB", lambda arm: number(arm.peak_rss_mb)),
        Column("forgetting", forgetting),
        *([Column("of prose", prose_forgetting)] if any(arm.prose_nats for arm in arms) else []),
        Column("artifact MB", lambda arm: tenths(arm.artifact_mb)),
        Column("status", lambda arm: arm.status, text=True),
    ]


def _second(name: str) -> Column:
    return Column(metric_name(name), lambda arm: number(arm.extras.get(name), 3))


def has_bases(arms: Sequence[ArmResult]) -> bool:
    """Whether the arms are on several bases."""
    return any(arm.base for arm in arms)


def outcome(arm: ArmResult) -> str:
    """How one arm ended, in one line: `accuracy 0.853 (0.812–0.889), trained in 3m 12s`."""
    if arm.score is None:
        return " ".join((arm.reason or "no score").split())
    line = f"{metric_name(arm.metric)} {number(arm.score, 3)} ({interval(arm)})"
    fit = fit_seconds(arm)
    line += f", {'trained' if arm.trainable_params else 'chosen'} in {duration(fit)}" if fit else ""
    return f"{line}, {tenths(arm.ms_per_answer)} ms per answer"


def made(arm: ArmResult, folder: str) -> str:
    """Where `riyaz adapt` left an arm's artifact, and its score."""
    score = f"{metric_name(arm.metric)} {number(arm.score, 3)} ({interval(arm)})"
    return f"the artifact of {arm.name} is in {folder}: {score} on {tested_rows(arm)}"


def tested_rows(arm: ArmResult) -> str:
    """`300 test rows`, or `300 test rows in 60 groups`."""
    return count(arm.n_test, "test row") + in_groups(arm)


def in_groups(scored: ArmResult | TargetScores) -> str:
    """` in 60 groups` behind a number of rows; "" where no two rows share a group."""
    return "" if scored.n_groups is None else f" in {count(scored.n_groups, 'group')}"


def slices(scored: ArmResult | TargetScores) -> list[tuple[str, str]]:
    """(name, score and number of rows as text) of every slice."""
    return [
        (name, number(part.score, 3) + (f" ({number(part.n)})" if part.n is not None else ""))
        for name, part in scored.slices.items()
    ]


def extras(scored: ArmResult | TargetScores) -> list[tuple[str, str]]:
    """(name, value as text) of the further scores: macro F1, token F1, chrF, log-probability of the answer."""
    return [(metric_name(name), number(value, 3)) for name, value in scored.extras.items()]


def totals(arm: ArmResult) -> dict[str, str]:
    """The figures of an arm that the comparison table leaves out: name to text."""
    return {
        "test rows": number(arm.n_test) + in_groups(arm),
        **dict(extras(arm)),
        "search": duration(arm.search_seconds or None),
        "training": duration(arm.train_seconds or None),
        "evaluation": duration(arm.eval_seconds),
        "trainable parameters": number(arm.trainable_params),
        "prompt tokens": number(arm.prompt_tokens, 1),
        "KL to the base": number(arm.kl_task, 3),
        "MB while answering": number(arm.serve_rss_mb),
        "weights in": in_words(arm.served) if arm.served else MISSING,
        "ms/answer merged": tenths(arm.merged_ms),
        "differ alone": _flips(arm.batch_flips),
    }


def _flips(flips: Flips | None) -> str:
    """How many answers given alone differ from those in a batch: `1 of 8, 0 scores`."""
    if flips is None:
        return MISSING
    return f"{number(flips.answers)} of {number(flips.rows)}, {count(flips.scores, 'score')}"


def count(value: float | None, noun: str) -> str:
    """A number and its noun, in the plural except for one."""
    return f"{number(value)} {noun}" + ("" if value == 1 else "s")


def measured_again(arm: ArmResult) -> str:
    """The two latencies of an arm whose first one was far above the planned one; empty for the others."""
    times = arm.remeasured
    if times is None:
        return ""
    text = f"ms/answer was {tenths(times.first)} at first and {tenths(times.again)} when measured again"
    return text + (f"; {tenths(times.planned)} were planned" if times.far else "")


def slowed(arms: Sequence[ArmResult]) -> list[ArmResult]:
    """The arms that did not get a good part of the CPU time they asked for."""
    return [arm for arm in arms if (arm.cpu_waited or 0.0) > BUSY]


def busy(arms: Sequence[ArmResult]) -> str:
    """The sentence that says how much CPU time the slowed arms got; empty if there are none."""
    had = [f"{arm.name} got {100 * (1 - (arm.cpu_waited or 0.0)):.0f} %" for arm in slowed(arms)]
    if not had:
        return ""
    they = "they" if len(had) > 1 else "it"
    return f"the machine was busy: {', '.join(had)} of the CPU time {they} asked for"


def decided_alone(arms: Sequence[ArmResult]) -> str:
    """The sentence that names the arms that were asked again one row at a time; empty if none was."""
    methods = [arm.name for arm in arms if arm.alone]
    return f"ties were decided on answers given one at a time: {joined(methods)}" if methods else ""


PAIRS = ["methods", "difference", "95 % interval", "p", "test"]


def pair_rows(pairs: Sequence[Pair]) -> list[list[str]]:
    """Table rows under the titles PAIRS: score differences between two arms on the same test rows."""
    return [
        [" − ".join(pair.arms), signed(pair.difference), f"{signed(pair.low)} to {signed(pair.high)}",
         f"{pair.p_value:.2g}", pair.test]
        for pair in pairs
    ]  # fmt: skip


def verdict(comparison: Comparison) -> str:
    """The sentences that the pick rule wrote."""
    return comparison.reason.strip()


def headline(comparison: Comparison) -> str:
    """The pick and the decision: `The pick: lora (certified)`, `No clear winner yet: lora leads`."""
    before, after = around_pick(comparison)
    certified = " (certified)" if comparison.decision == "certified" and comparison.pick else ""
    return f"{before}{comparison.pick or ''}{after}{certified}"


def around_pick(comparison: Comparison) -> tuple[str, str]:
    """The words of the headline before and after the name of the pick."""
    if comparison.pick is None:
        return "No method is picked", ""
    words = {
        "tie": ("A tie: ", " is picked"),
        "undecided": ("No clear winner yet: ", " leads"),
    }
    return words.get(comparison.decision, ("The pick: ", ""))


def role(comparison: Comparison) -> str:
    """What the picked arm is called beside its name."""
    return "the leader" if comparison.decision == "undecided" else "the pick"


def floor_line(comparison: Comparison) -> str:
    """`floor: always 'billing' scores 0.147 (0.118–0.181)`; why there is none, or "" where none has a meaning."""
    floor = comparison.floor
    if floor is None:
        judged = comparison.metric in (None, "nats", "preferred", "thumbs")
        return "" if judged else "no floor: no training answer occurs twice"
    if floor.kind is not None:
        return f"floor: {FLOORS[floor.kind]} scores {number(floor.score, 3)} ({interval(floor)})"
    answer = " ".join(floor.answer.split())
    answer = answer if len(answer) <= ANSWER_WIDTH else answer[: ANSWER_WIDTH - 1] + "…"
    return f"floor: always '{answer}' scores {number(floor.score, 3)} ({interval(floor)})"


def troubles(arms: Sequence[ArmResult]) -> list[tuple[str, str, str]]:
    """(name, status, reason) of every arm that is not `ok`."""
    return [
        (arm.name, arm.status, " ".join((arm.reason or "no reason was recorded").split()))
        for arm in arms
        if arm.status != "ok"
    ]


def caveats(comparison: Comparison) -> list[str]:
    """Limits of the figures that follow from the comparison, one sentence each."""
    arms = [arm for arm in comparison.arms if arm.score is not None]
    notes = ["Times and memory were measured on the machine named above; elsewhere only their ratios are similar."]
    if comparison.pick:
        notes.insert(0, "The best method is chosen on these test rows, so its own score is a little optimistic.")
    telling = comparison.data.answer_in_prompt
    if telling and telling.telling:
        where = f"In {telling.telling_share:.0%} of the prompts a sign tells the label ({telling.sign})"
        notes.insert(0, f"{where}: the scores do not show what is right without it.")
    best = max((arm.score or 0.0 for arm in arms), default=0.0)
    unknown = [arm.name for arm in comparison.arms if arm.status == "skipped" and arm.may_beat(best)]
    few = comparison.rows_needed or not (unknown or any(arm.may_beat(best) for arm in arms))
    if comparison.decision == "undecided" and comparison.pick and few:
        notes.append("The test is too small to separate the leaders.")
    if unknown and comparison.pick:
        notes.append(f"Did not run, and may be better: {', '.join(unknown)}.")
    counts = [arm.n_test for arm in arms if arm.n_test]
    if counts and min(counts) < 200:
        notes.append(f"{number(min(counts))} test rows are few: the intervals say more than the scores.")
    groups = min((arm.n_groups for arm in arms if arm.n_groups is not None), default=None)
    if groups is not None:
        notes.append(
            f"Test rows of one group are not independent: intervals and tests are over {count(groups, 'group')}."
        )
    load, alone = busy(comparison.ranked), decided_alone(comparison.ranked)
    if load:
        notes.append(f"{_sentence(load)} Times measured then are longer than on a free machine.")
    if alone:
        notes.append(_sentence(alone))
    cut = [arm.name for arm in arms if arm.status == "cut"]
    if cut:
        notes.append(f"Trained for fewer steps than the recipe, because the budget was too short: {', '.join(cut)}.")
    if any(arm.forgetting_nats for arm in arms):
        notes.append("Forgetting was measured on one general text; other skills may have suffered more or less.")
    seeded = [arm.name for arm in arms if len(arm.seeds or []) > 1]
    others = f" (except {', '.join(seeded)})" if seeded else ""
    notes.append(f"Every trained method has one seed{others}: another seed would change its score.")
    return notes


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def value(item: object, escape: Callable[[str], str] = str) -> str:
    """Any JSON value as one line; `escape` is applied to every text in it."""
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, float):
        return f"{item:.6g}"
    if isinstance(item, int):
        return f"{item:,}"
    if isinstance(item, dict):
        return (
            ", ".join(
                f"{escape(NAMES.get(str(name), str(name)))} {value(inner, escape)}" for name, inner in item.items()
            )
            or MISSING
        )
    if isinstance(item, list | tuple):
        first = ", ".join(value(inner, escape) for inner in item[:12])
        return first + (f", and {len(item) - 12} more" if len(item) > 12 else "")
    return MISSING if item is None else escape(str(item))
