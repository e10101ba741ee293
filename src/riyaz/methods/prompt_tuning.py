"""Prompt tuning: 20 trained vectors before every prompt of a frozen base; the artifact holds the vectors only."""

from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from riyaz.artifact import WeightsPart
from riyaz.methods.fitting.base import Context, Fitted, Method
from riyaz.methods.fitting.recipe import Recipe
from riyaz.methods.fitting.weights import WRITTEN, fit_weights
from riyaz.results import About

if TYPE_CHECKING:
    from riyaz.layers.swaps.soft_prompt import SoftPrompt

TOKENS = 20  # vectors; more improve little (Lester et al. 2021, figure 3)
# AdamW changes a number by about the learning rate in a step, and embeddings are about 0.1 apart, so learning rates of
# LoRA's size hardly move the vectors (score 0.057 against 0.343 in PEFT's comparison). Batches of 8: after 240 rows of
# banking77 at 5e-2 the validation loss is 2.33, with batches of 16 it is 2.46, at the same tokens per second.
RECIPE = Recipe(epochs=10, least_steps=150, batch_size=8, learning_rates=(2e-2, 5e-2), default_rate=2e-2)


def build(context: Context) -> "SoftPrompt":
    """The frozen base with a soft prompt that starts as the embeddings of `first_tokens`."""
    import torch

    from riyaz.layers.swaps import soft_prompt
    from riyaz.models import load_frozen

    model = load_frozen(context.source, getattr(torch, context.compute))
    return soft_prompt.apply(model, first_tokens(context))


def fit(context: Context) -> Fitted:
    """Train the soft prompt; the artifact's weights are a PEFT folder."""

    def save(model: "SoftPrompt") -> tuple[WeightsPart, dict[str, Any]]:
        from riyaz.adapters import peft_prompt
        from riyaz.families import describe

        out = context.folder / WRITTEN
        out.mkdir(exist_ok=True)
        vectors = model.prompt.detach().float().numpy()
        peft_prompt.write(vectors, out, describe(context.source), base=context.source.name)
        return WeightsPart("soft_prompt"), {path.name: path for path in out.iterdir()}

    return fit_weights(context, build, save, begins_as=first_tokens(context))


def first_tokens(context: Context) -> tuple[int, ...]:
    """The TOKENS tokens whose embeddings the soft prompt starts as: the instruction's first, then random ones with
    text."""
    tokenizer, rng = context.tokenizer, np.random.default_rng(context.seed)
    others = rng.permutation(tokenizer.vocab_size).tolist()
    text = (token for token in others if tokenizer.decode([token]))  # control tokens have no text
    return tuple(islice(chain(tokenizer.encode(context.task.instruction), text), TOKENS))


ABOUT = About(
    what="A few trained vectors are put before the prompt; the model's weights are unchanged.",
    suits="many tasks on one shared model, with a few vectors for each",
    colour=4, mark="v", weights="soft_prompt",
)  # fmt: skip
METHOD = Method(
    name="prompt_tuning", about=ABOUT, fit=fit, candidates=1, recipe=RECIPE, build=build, prefix_tokens=TOKENS,
    cost=1.1,  # every row attends to the vectors; their keys and values are cached
    left_out=1, optional=True,
)  # fmt: skip
