"""Numbers and sentences as people read them; the terminal and the Markdown report share every one of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

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
    fill: Callable[[dict], str]
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


def interval(arm: dict) -> str:
    """The 95 % interval `0.812–0.889` of an arm's score."""
    low, high = arm.get("ci_low"), arm.get("ci_high")
    return MISSING if low is None or high is None else f"{low:.3f}–{high:.3f}"


def metric_name(metric: str | None) -> str:
    """The metric's everyday name."""
    return METRICS.get(metric or "", metric or "score")


def metric_of(document: dict) -> str:
    """The everyday name of the metric that the arms of a comparison were scored by."""
    return metric_name(next((arm["metric"] for arm in document.get("arms", []) if arm.get("metric")), None))


def fit_seconds(arm: dict) -> float | None:
    """Seconds spent on making the arm, the search for its settings included; None when nothing was timed."""
    parts = [arm[key] for key in ("search_seconds", "train_seconds") if arm.get(key) is not None]
    return sum(parts) if parts else None


def columns(document: dict) -> list[Column]:
    """The columns of the comparison table, in order."""
    pick = document.get("pick")
    return [
        Column("method", lambda arm: arm["method"] + (" *" if arm["method"] == pick else ""), text=True),
        Column(metric_of(document), lambda arm: number(arm.get("score"), 3)),
        Column("95 % interval", interval),
        Column("train", lambda arm: duration(fit_seconds(arm) or None)),
        Column("ms/answer", lambda arm: tenths(arm.get("ms_per_answer"))),
        Column("peak MB", lambda arm: number(arm.get("peak_rss_mb"))),
        Column("forgetting", lambda arm: signed(arm.get("forgetting_nats"))),
        Column("artifact MB", lambda arm: tenths(arm.get("artifact_mb"))),
        Column("status", lambda arm: arm.get("status", MISSING), text=True),
    ]


def ranked(document: dict) -> list[dict]:
    """Arms by score, best first; arms without a score last, in their own order."""
    return sorted(document.get("arms", []), key=lambda arm: -_score(arm))


def _score(arm: dict) -> float:
    score = arm.get("score")
    return -math.inf if score is None or not math.isfinite(score) else score


def outcome(arm: dict) -> str:
    """How one arm ended, in one line: `accuracy 0.853 (0.812–0.889), trained in 3m 12s`."""
    if arm.get("score") is None:
        return " ".join(str(arm.get("reason") or "no score").split())
    line = f"{metric_name(arm.get('metric'))} {number(arm['score'], 3)} ({interval(arm)})"
    fit = fit_seconds(arm)
    line += f", trained in {duration(fit)}" if fit else ""
    return f"{line}, {tenths(arm.get('ms_per_answer'))} ms per answer"


def slices(arm: dict) -> list[tuple[str, str]]:
    """(name, score with its rows where they were counted) of every slice of an arm."""
    return [(name, _slice(value)) for name, value in (arm.get("slices") or {}).items()]


def _slice(value: object) -> str:
    if isinstance(value, dict):
        rows = value.get("n", value.get("n_test"))
        return number(value.get("score"), 3) + (f" ({number(rows)})" if rows is not None else "")
    return number(value, 3) if isinstance(value, int | float) else MISSING


def extras(arm: dict) -> list[tuple[str, str]]:
    """(name, value) of the second scores: macro F1, token F1, chrF, log-probability of the accepted answer."""
    return [(metric_name(name), number(value, 3)) for name, value in (arm.get("extras") or {}).items()]


def verdict(document: dict) -> str:
    """The pick in one or two sentences, as the pick rule said it."""
    if document.get("reason"):
        return str(document["reason"]).strip()
    pick = document.get("pick")
    return f"Pick {pick}." if pick else "No arm finished, so there is nothing to pick."


def headline(document: dict) -> str:
    """`lora (clear)`: the pick and how sure it is."""
    pick, decision = document.get("pick"), document.get("decision")
    return f"{pick or 'none'} ({decision})" if decision else str(pick or "none")


def troubles(document: dict) -> list[tuple[str, str, str]]:
    """(method, status, reason) of every arm that is not `ok`."""
    arms = (arm for arm in document.get("arms", []) if arm.get("status") != "ok")
    return [(arm["method"], arm.get("status", MISSING), _one_line(arm)) for arm in arms]


def _one_line(arm: dict) -> str:
    return " ".join(str(arm.get("reason") or "no reason was recorded").split())


def caveats(document: dict) -> list[str]:
    """What the figures do not show, as far as the document tells."""
    arms = [arm for arm in document.get("arms", []) if arm.get("score") is not None]
    notes = [
        "The best of several arms was partly lucky on this test: its own score is a little optimistic.",
        "Times, milliseconds and memory belong to the machine named above; ratios carry over better than figures.",
    ]
    if document.get("decision") == "undecided":
        rows = document.get("rows_needed")
        more = f" About {number(rows)} test rows would decide." if rows else ""
        notes.append(f"The test is too small to tell the leading arms apart.{more}")
    counts = [arm["n_test"] for arm in arms if arm.get("n_test")]
    if counts and min(counts) < 200:
        notes.append(f"{number(min(counts))} test rows are few: read the intervals before the scores.")
    cut = [arm["method"] for arm in arms if arm.get("status") == "cut"]
    if cut:
        notes.append(f"Trained less than the recipe asks for want of time: {', '.join(cut)}.")
    if any(arm.get("forgetting_nats") for arm in arms):
        notes.append("Forgetting was measured on one general text; a skill that it does not use may differ.")
    seeded = [arm["method"] for arm in arms if len(arm.get("seeds") or []) > 1]
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
