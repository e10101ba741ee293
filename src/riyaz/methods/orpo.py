"""ORPO: a LoRA that learns the better one of two answers, and to prefer it to the worse one, in one loss."""

from dataclasses import replace

from riyaz.methods import lora
from riyaz.methods.fitting.base import Context, Fitted
from riyaz.methods.fitting.recipe import Recipe
from riyaz.results import About

RECIPE = Recipe(epochs=2, least_steps=60, batch_size=8, learning_rates=(5e-4,), default_rate=5e-4)


def with_pairs(context: Context) -> Context:
    """The context with rows of two answers, and the objective that compares them."""
    from riyaz.preferences import orpo

    return replace(context, objective=orpo())


def fit(context: Context) -> Fitted:
    """Train the LoRA on pairs; the artifact's weights are a PEFT folder."""
    return lora.fit(with_pairs(context))


ABOUT = About(
    what="A LoRA that is trained to write the better one of two answers and to find the worse one less likely.",
    suits="pairs of answers of which the better one is worth imitating",
    colour=13, mark="8", weights="lora",
)  # fmt: skip
METHOD = replace(
    lora.METHOD, name="orpo", about=ABOUT, fit=fit, recipe=RECIPE, label_recipe=None, with_prompt=with_pairs,
    judged_by=("preferred",), answers_questions=False, left_out=3,
)  # fmt: skip
