"""Numbers and sentences as people read them; the terminal and the Markdown report share every one of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from riyaz.results import ArmResult, Comparison, CurveScore, Pair, TargetScores

MISSING = "–"
METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "exact_match": "exact match",
    "token_f1": "token F1",
    "rouge_l": "ROUGE-L",
    "chrf": "chrF",
    "answer_log_probability": "answer log p",
}


@dataclass(frozen=True)
class Column:
    """One column of the comparison: its title and how an arm fills it."""

    title: str
    fill: Callable[[ArmResult], str]
    text: bool = False  # text stands left, numbers right


def number(value: float | None, digits: int = 0) -> str:
    """`1,234.5`; a dash for what was not measured."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:,.{digits}f}"


def signed(value: float | None) -> str:
    """`+0.012` nats; a plain `0` where nothing can change (text-only arms)."""
    if value == 0:
        return "0"
    return MISSING if value is None or not math.isfinite(value) else f"{value:+.3f}"


def duration(seconds: float | None) -> str:
    """`0.4 s`, `43 s`, `3m 12s`, `1h 05m`."""
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
    """`8.3`; what is too small to matter is `<0.1`."""
    return "<0.1" if value is not None and 0 < value < 0.05 else number(value, 1)


def interval(scored: ArmResult | CurveScore | TargetScores) -> str:
    """The 95 % interval `0.812–0.889` of a score."""
    low, high = scored.ci_low, scored.ci_high
    return MISSING if low is None or high is None else f"{low:.3f}–{high:.3f}"


def metric_name(metric: str | None) -> str:
    """The metric's everyday name."""
    return METRICS.get(metric or "", metric or "score")


def fit_seconds(arm: ArmResult) -> float:
    """Seconds spent on making the arm, the search for its settings included."""
    return arm.search_seconds + arm.train_seconds


def columns(metric: str | None, pick: str | None) -> list[Column]:
    """The columns of the comparison table, in order."""
    return [
        Column("method", lambda arm: arm.method + (" *" if arm.method == pick else ""), text=True),
        Column(metric_name(metric), lambda arm: number(arm.score, 3)),
        Column("95 % interval", interval),
        Column("train", lambda arm: duration(fit_seconds(arm) or None)),
        Column("ms/answer", lambda arm: tenths(arm.ms_per_answer)),
        Column("peak MB", lambda arm: number(arm.peak_rss_mb)),
        Column("forgetting", lambda arm: signed(arm.forgetting_nats)),
        Column("artifact MB", lambda arm: tenths(arm.artifact_mb)),
        Column("status", lambda arm: arm.status, text=True),
    ]


def outcome(arm: ArmResult) -> str:
    """How one arm ended, in one line: `accuracy 0.853 (0.812–0.889), trained in 3m 12s`."""
    if arm.score is None:
        return " ".join((arm.reason or "no score").split())
    line = f"{metric_name(arm.metric)} {number(arm.score, 3)} ({interval(arm)})"
    fit = fit_seconds(arm)
    line += f", trained in {duration(fit)}" if fit else ""
    return f"{line}, {tenths(arm.ms_per_answer)} ms per answer"


def slices(scored: ArmResult | TargetScores) -> list[tuple[str, str]]:
    """(name, score with its rows) of every slice."""
    return [
        (name, number(part.score, 3) + (f" ({number(part.n)})" if part.n is not None else ""))
        for name, part in scored.slices.items()
    ]


def extras(scored: ArmResult | TargetScores) -> list[tuple[str, str]]:
    """(name, value) of the second scores: macro F1, token F1, chrF, log-probability of the accepted answer."""
    return [(metric_name(name), number(value, 3)) for name, value in scored.extras.items()]


def totals(arm: ArmResult) -> dict[str, str]:
    """The figures of an arm that the comparison table leaves out, by their names."""
    return {
        "test rows": number(arm.n_test),
        **dict(extras(arm)),
        "search": duration(arm.search_seconds or None),
        "training": duration(arm.train_seconds or None),
        "evaluation": duration(arm.eval_seconds),
        "trainable parameters": number(arm.trainable_params),
        "prompt tokens": number(arm.prompt_tokens, 1),
        "KL to the base": number(arm.kl_task, 3),
        "MB while answering": number(arm.serve_rss_mb),
    }


PAIRS = ["arms", "difference", "95 % interval", "p", "test"]


def pair_rows(pairs: Sequence[Pair]) -> list[list[str]]:
    """The differences between arms on the same rows, as rows of a table with the titles PAIRS."""
    return [
        [" − ".join(pair.arms), signed(pair.difference), f"{signed(pair.low)} to {signed(pair.high)}",
         f"{pair.p_value:.2g}", pair.test]
        for pair in pairs
    ]  # fmt: skip


def verdict(comparison: Comparison) -> str:
    """The pick in one or two sentences, as the pick rule said it."""
    return comparison.reason.strip()


def headline(comparison: Comparison) -> str:
    """`lora (clear)`: the pick and how sure it is."""
    return f"{comparison.pick or 'none'} ({comparison.decision})"


def troubles(arms: Sequence[ArmResult]) -> list[tuple[str, str, str]]:
    """(method, status, reason) of every arm that is not `ok`."""
    return [
        (arm.method, arm.status, " ".join((arm.reason or "no reason was recorded").split()))
        for arm in arms
        if arm.status != "ok"
    ]


def caveats(comparison: Comparison) -> list[str]:
    """What the figures do not show, as far as the comparison tells."""
    arms = [arm for arm in comparison.arms if arm.score is not None]
    notes = [
        "The best of several arms was partly lucky on this test: its own score is a little optimistic.",
        "Times, milliseconds and memory belong to the machine named above; ratios carry over better than figures.",
    ]
    if comparison.decision == "undecided":
        rows = comparison.rows_needed
        more = f" About {number(rows)} test rows would decide." if rows else ""
        notes.append(f"The test is too small to tell the leading arms apart.{more}")
    counts = [arm.n_test for arm in arms if arm.n_test]
    if counts and min(counts) < 200:
        notes.append(f"{number(min(counts))} test rows are few: read the intervals before the scores.")
    cut = [arm.method for arm in arms if arm.status == "cut"]
    if cut:
        notes.append(f"Trained less than the recipe asks for want of time: {', '.join(cut)}.")
    if any(arm.forgetting_nats for arm in arms):
        notes.append("Forgetting was measured on one general text; a skill that it does not use may differ.")
    seeded = [arm.method for arm in arms if len(arm.seeds or []) > 1]
    others = f" but for {', '.join(seeded)}" if seeded else ""
    notes.append(f"One seed{others}: training again with another one moves the score of a trained arm.")
    return notes


def value(found: object, say: Callable[[str], str] = str) -> str:
    """Any JSON value as one line; `say` writes the texts in it."""
    if isinstance(found, bool):
        return "yes" if found else "no"
    if isinstance(found, float):
        return f"{found:.6g}"
    if isinstance(found, int):
        return f"{found:,}"
    if isinstance(found, dict):
        return ", ".join(f"{say(str(name))} {value(item, say)}" for name, item in found.items()) or MISSING
    if isinstance(found, list | tuple):
        shown = ", ".join(value(item, say) for item in found[:12])
        return shown + (f", and {len(found) - 12} more" if len(found) > 12 else "")
    return MISSING if found is None else say(str(found))
