"""DPO: a LoRA that learns which of two answers is the better one, beside the base without it.

The model itself with its LoRA off is the reference, so that no second model is in memory.
"""

from dataclasses import replace

from riyaz.methods import lora
from riyaz.methods.fitting.base import Context, Fitted
from riyaz.methods.fitting.recipe import Recipe
from riyaz.results import About

RECIPE = Recipe(epochs=2, least_steps=60, batch_size=8, learning_rates=(1e-4,), default_rate=1e-4)


def with_pairs(context: Context) -> Context:
    """The context with rows of two answers, and the objective that compares them."""
    from riyaz.preferences import BETA, dpo

    return replace(context, objective=dpo(context.hand.beta or BETA, context.hand.length_normalised))


def fit(context: Context) -> Fitted:
    """Train the LoRA on pairs; the artifact's weights are a PEFT folder."""
    return lora.fit(with_pairs(context))


ABOUT = About(
    what="A LoRA that is trained on pairs of a better and a worse answer, beside the base without it.",
    suits="taste: rows say which of two answers is better, and not what the right one is",
    colour=12, mark="H", weights="lora",
)  # fmt: skip
METHOD = replace(
    lora.METHOD, name="dpo", about=ABOUT, fit=fit, recipe=RECIPE, label_recipe=None, with_prompt=with_pairs,
    judged_by=("preferred",), answers_questions=False, left_out=4,
    takes=(*lora.METHOD.takes, "beta", "length_normalised"),
)  # fmt: skip
