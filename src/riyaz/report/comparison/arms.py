"""An arm in words: what its method does and suits, its colour and mark, and which arm beats it."""

from dataclasses import dataclass

from riyaz.errors import joined
from riyaz.report.words import MISSING, duration, fit_seconds, number, tenths
from riyaz.results import About, ArmResult

# What is said of a method that compare.json does not describe; version 0.1 had no method in these two colours.
UNKNOWN = ("This report has no description of this method.", "see its documentation")
OTHERS = (About(*UNKNOWN, 8, "p", ""), About(*UNKNOWN, 9, "<", ""))


def about(arm: ArmResult) -> About:
    """What compare.json says of the arm's method, or one of OTHERS by its name."""
    return arm.about or OTHERS[sum(arm.method.encode("utf-8", "replace")) % len(OTHERS)]


@dataclass(frozen=True)
class Mark:
    """A point of a picture: an arm, its score, and its cost in milliseconds or nats."""

    arm: ArmResult
    score: float
    cost: float


def priced(arms: list[ArmResult]) -> list[Mark]:
    """The arms with a score and a latency; the cost is milliseconds per answer."""
    return [
        Mark(arm, arm.score, arm.ms_per_answer)
        for arm in arms
        if arm.score is not None and arm.ms_per_answer is not None
    ]


def beaten_by(arm: ArmResult, arms: list[ArmResult]) -> ArmResult | None:
    """The best-scoring arm that is at least as good and as fast and better in one of them; None on the Pareto front."""
    score, cost = arm.score, arm.ms_per_answer
    if score is None or cost is None:
        return None
    better = [
        other
        for other in priced(arms)
        if other.score >= score and other.cost <= cost
        if other.score > score or other.cost < cost
    ]
    return max(better, key=lambda other: other.score).arm if better else None


def milliseconds(value: float | None) -> str:
    """`1,310 ms`, `94.6 ms`, `<0.1 ms`."""
    if value is None:
        return MISSING
    return f"{number(value) if value >= 100 else tenths(value)} ms"


def megabytes(value: float | None) -> str:
    """`2,210 MB`, `0.1 MB`."""
    if value is None:
        return MISSING
    return f"{number(value) if value >= 100 else tenths(value)} MB"


def training(arm: ArmResult) -> str:
    """Trained parameters and steps, `4.9 M parameters, 60 steps`, or `none`."""
    seconds = fit_seconds(arm)
    if not arm.trainable_params:
        return f"none; choosing the prompt took {duration(seconds)}" if seconds >= 1 else "none"
    steps = arm.chosen.get("steps")  # the keys of `chosen` differ by method
    return f"{_short(arm.trainable_params)} parameters" + (f", {number(steps)} steps" if isinstance(steps, int) else "")


def best_for(arm: ArmResult, arms: list[ArmResult], pick: str | None, called: str) -> str:
    """What the method suits, then how it compares with the others; the pick is `called` the pick or the leader."""
    suits = f"{about(arm).suits}."
    suits = suits[:1].upper() + suits[1:]
    if arm.score is None:
        return f"{suits} Not measured here."
    first = []
    if arm.score and arm.score >= max(other.score for other in arms if other.score is not None):
        first.append("the best score")
    answering = [other.ms_per_answer for other in arms if other.ms_per_answer is not None]
    if arm.ms_per_answer is not None and arm.ms_per_answer <= min(answering):
        first.append("the fastest answers")
    if arm.name == pick:
        first = [called, *first]
    if first:
        return f"{suits} Here: {', '.join(first)}."
    return suits if beaten_by(arm, arms) else f"{suits} Here no faster method scores as high."


def beaten_lines(arms: list[ArmResult]) -> list[str]:
    """A sentence for each method that beats others, such as `Here nearest scores no less and answers no slower than
    zero_shot and few_shot.`"""
    beaten: dict[str, list[str]] = {}
    for arm in arms:
        better = beaten_by(arm, arms)
        if better:
            beaten.setdefault(better.name, []).append(arm.name)
    return [f"Here {one} scores no less and answers no slower than {joined(than)}." for one, than in beaten.items()]


def _short(count: float) -> str:
    if count >= 1e6:
        return f"{count / 1e6:,.1f} M"
    return f"{count / 1e3:,.1f} k" if count >= 1e4 else number(count)
