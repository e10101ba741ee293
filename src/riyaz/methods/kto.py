"""KTO: a LoRA that learns from answers that are good or bad, each by itself, beside the base without it.

The model itself with its LoRA off is the reference, so that no second model is in memory. A pair of a better and a
worse answer is one answer of each kind.
"""

from dataclasses import replace

from riyaz.methods import lora
from riyaz.methods.fitting.base import Context, Fitted
from riyaz.methods.fitting.recipe import Recipe
from riyaz.results import About

RECIPE = Recipe(epochs=2, least_steps=60, batch_size=8, learning_rates=(1e-4,), default_rate=1e-4)


def with_answers(context: Context) -> Context:
    """The context with rows of good and bad answers, and the objective that learns from both."""
    from riyaz.preferences import BETA, balanced, kto

    bad = sum(row.desirable is False or bool(row.rejected) for row in context.train)
    good = sum(row.desirable is not False for row in context.train)
    return replace(context, objective=kto(context.hand.beta or BETA, *balanced(max(1, good), max(1, bad))))


def fit(context: Context) -> Fitted:
    """Train the LoRA on the answers; the artifact's weights are a PEFT folder."""
    return lora.fit(with_answers(context))


ABOUT = About(
    what="A LoRA that is trained to find good answers likelier and bad ones less likely than the base does.",
    suits="thumbs up and down: each says of one answer whether it is good, and nothing of another",
    colour=14, mark=">", weights="lora",
)  # fmt: skip
METHOD = replace(
    lora.METHOD, name="kto", about=ABOUT, fit=fit, recipe=RECIPE, label_recipe=None, with_prompt=with_answers,
    judged_by=("preferred", "thumbs"), answers_questions=False, left_out=3, takes=(*lora.METHOD.takes, "beta"),
)  # fmt: skip
