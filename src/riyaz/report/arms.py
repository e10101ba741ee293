"""What the report says of an arm beyond its figures: what the method is, what it suits, its colour, who beats it."""

from dataclasses import dataclass

from riyaz.report.words import MISSING, duration, fit_seconds, number, tenths
from riyaz.results import ArmResult


@dataclass(frozen=True)
class About:
    """A method in words, with the number of its colour in the page and its mark in the pictures."""

    what: str
    suits: str
    colour: int
    mark: str


METHODS = {
    "nearest": About(
        "Copies the answer of the most similar training question; no language model runs.",
        "questions that come back almost word for word; it is the floor that every model has to beat",
        0, "o",
    ),
    "zero_shot": About(
        "The base model with an instruction and nothing else.",
        "a first look, before there are examples",
        1, "s",
    ),
    "few_shot": About(
        "The base model with some training examples written into the prompt.",
        "few examples and a task that changes often: new examples work at once",
        2, "D",
    ),
    "rag": About(
        "The base model with passages in the prompt that are looked up in documents for each question.",
        "facts that stand in documents and change: a new document is known at once, and answers can name it",
        3, "^",
    ),
    "prompt_tuning": About(
        "A few learned vectors stand before the prompt; the model's weights stay as they are.",
        "many tasks on one shared model, each no more than a few vectors",
        4, "v",
    ),
    "lora": About(
        "Small matrices are learned beside the frozen weights and can be merged into them.",
        "one way of answering that stays, with an adapter that is small enough to keep one for each task",
        5, "P",
    ),
    "full": About(
        "Every weight of the model is trained further.",
        "one task that deserves a model of its own and has the rows for it",
        6, "X",
    ),
    "rag_lora": About(
        "Passages from documents in the prompt, and a LoRA that was trained to read them.",
        "facts from documents in a fixed form, with right answers even when some passages mislead",
        7, "h",
    ),
}  # fmt: skip
OTHERS = ((8, "p"), (9, "<"))


def about(method: str) -> About:
    """What is known of a method; of an unknown one only that it took part."""
    if method in METHODS:
        return METHODS[method]
    colour, mark = OTHERS[sum(method.encode("utf-8", "replace")) % len(OTHERS)]
    return About("A method that this report has no description of.", "what its own documentation says", colour, mark)


@dataclass(frozen=True)
class Mark:
    """An arm with its score and what the score is drawn against, in milliseconds or nats."""

    arm: ArmResult
    score: float
    cost: float


def priced(arms: list[ArmResult]) -> list[Mark]:
    """The arms that have a score, against milliseconds for an answer."""
    return [
        Mark(arm, arm.score, arm.ms_per_answer)
        for arm in arms
        if arm.score is not None and arm.ms_per_answer is not None
    ]


def beaten_by(arm: ArmResult, arms: list[ArmResult]) -> ArmResult | None:
    """The best arm that scores at least as high and answers at least as fast, better in one; None on the front."""
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
    """What was trained, and for how long: `4.9 M parameters, 60 steps`, `none`."""
    took = fit_seconds(arm)
    if not arm.trainable_params:
        return f"none; choosing its text took {duration(took)}" if took >= 1 else "none"
    steps = arm.chosen.get("steps")  # `chosen` is whatever a method says of itself
    return f"{_short(arm.trainable_params)} parameters" + (f", {number(steps)} steps" if isinstance(steps, int) else "")


def best_for(arm: ArmResult, arms: list[ArmResult], pick: str | None) -> str:
    """What the method suits, then how it stands among these arms."""
    said = f"{about(arm.method).suits}."
    said = said[:1].upper() + said[1:]
    if arm.score is None:
        return f"{said} Not measured here."
    first = []
    if arm.score >= max(other.score for other in arms if other.score is not None):
        first.append("the best score")
    answering = [other.ms_per_answer for other in arms if other.ms_per_answer is not None]
    if arm.ms_per_answer is not None and arm.ms_per_answer <= min(answering):
        first.append("the fastest answers")
    if arm.method == pick:
        first = ["the pick", *first]
    if first:
        return f"{said} Here: {', '.join(first)}."
    better = beaten_by(arm, arms)
    if better:
        return f"{said} Here {better.method} scores no less and answers no slower."
    return f"{said} Here nothing faster scores as high."


def _short(count: float) -> str:
    if count >= 1e6:
        return f"{count / 1e6:,.1f} M"
    return f"{count / 1e3:,.1f} k" if count >= 1e4 else number(count)
