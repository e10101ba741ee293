"""When a language model pays: its lead over the best arm without one, what a point costs, and where it leads."""

from riyaz.report.words import count, metric_name, number, tenths
from riyaz.results import Comparison, Worth

TITLE = "When a language model pays"
CHANCE = 0.05  # p-value from which a difference may be chance
SHOWN = 5  # slices in the sentence; compare.json has all
COULD_ADD = (
    "A language model could still add what {plain} cannot do: answers in its own words, labels that come later without "
    "rows of their own, and tasks with very few rows."
)


def worth_lines(comparison: Comparison) -> list[str]:
    """One sentence for a decision, then the slices where the model leads and what it could still add; none where no two
    arms show it."""
    worth = comparison.worth
    if worth is None:
        return []
    lines = [_decision(worth, metric_name(comparison.metric))]
    if worth.slices:
        named = ", ".join(
            f"{lead.name} {_points(lead.lead)} ({_range(lead.low, lead.high)}, {count(lead.n, 'row')})"
            for lead in worth.slices[:SHOWN]
        )
        more = f" and {len(worth.slices) - SHOWN} more" if len(worth.slices) > SHOWN else ""
        lines.append(f"{worth.model} leads {worth.plain} beyond chance on: {named}{more}.")
    elif worth.difference <= 0 or worth.p_value >= CHANCE:
        lines.append(f"On no slice or label {worth.model} leads {worth.plain} beyond chance.")
    arm = comparison.arm(comparison.pick)
    if arm is not None and arm.about is not None and not arm.about.language_model:
        lines.append(COULD_ADD.format(plain=arm.name))
    return lines


def _decision(worth: Worth, metric: str) -> str:
    """`A language model pays: full has 5.0 points more …` or why it does not."""
    lead = f"{_points(worth.difference)} of {metric} against {worth.plain} ({_range(worth.low, worth.high)})"
    best = f"{worth.model}, the best of them, has {lead}{_cost(worth)}"
    if worth.p_value >= CHANCE:
        return f"Whether a language model pays here is open: {best}; the difference may be chance."
    if worth.difference <= 0:
        return f"A language model does not pay here: {best}."
    return f"A language model pays here where its cost does: {best}{_price(worth)}."


def _cost(worth: Worth) -> str:
    if worth.more_ms is None:
        return ""
    more = f", at {tenths(abs(worth.more_ms))} ms {'more' if worth.more_ms >= 0 else 'less'} an answer"
    if worth.more_mb is None:
        return more
    return f"{more} and {number(abs(worth.more_mb))} MB {'more' if worth.more_mb >= 0 else 'less'} of memory"


def _price(worth: Worth) -> str:
    """What one point costs."""
    points = 100 * worth.difference
    if worth.more_ms is None or worth.more_ms <= 0 or points <= 0:
        return ""
    return f": {tenths(worth.more_ms / points)} ms a point"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f} points"


def _range(low: float, high: float) -> str:
    return f"{100 * low:+.1f} to {100 * high:+.1f}"
