"""Prompt tuning: 20 vectors before every prompt learn, the model stays as it is and the artifact is tiny."""

from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from riyaz.artifact import WeightsPart
from riyaz.methods.base import Context, Fitted, Method
from riyaz.methods.recipe import Recipe
from riyaz.methods.weights import fit_weights

if TYPE_CHECKING:
    from riyaz.layers.soft_prompt import SoftPrompt

TOKENS = 20  # more give little (Lester et al. 2021, figure 3)
# Nothing but these few vectors can move, and AdamW moves an element by about the rate in a step: embeddings are some
# 0.1 apart, so that rates of LoRA's size leave them where they began (0.057 against 0.343 in PEFT's comparison).
# Batches of 8: after 240 rows of banking77 at 5e-2 the loss on validation is 2.33, with batches of 16 it is 2.46, and
# both read as many tokens a second.
RECIPE = Recipe(epochs=10, least_steps=150, batch_size=8, learning_rates=(1e-2, 2e-2, 5e-2, 1e-1), default_rate=2e-2)


def build(context: Context) -> "SoftPrompt":
    """The frozen base behind a prompt that begins as a text."""
    import torch

    from riyaz.layers import soft_prompt
    from riyaz.models import load

    return soft_prompt.apply(load(context.source, getattr(torch, context.compute)), first_tokens(context))


def fit(context: Context) -> Fitted:
    """Train the prompt; the weights part is a PEFT folder."""

    def save(model: "SoftPrompt") -> tuple[WeightsPart, dict[str, Any]]:
        from riyaz.adapters import peft_prompt
        from riyaz.families import describe

        out = context.folder / "out"
        out.mkdir(exist_ok=True)
        vectors = model.prompt.detach().float().numpy()
        peft_prompt.write(vectors, out, describe(context.source), base=context.source.name)
        return WeightsPart("soft_prompt"), {path.name: path for path in out.iterdir()}

    return fit_weights(context, build, save, begins_as=first_tokens(context))


def first_tokens(context: Context) -> tuple[int, ...]:
    """The text a prompt begins as: the instruction's first tokens, then random ones that stand for text."""
    tokenizer, rng = context.tokenizer, np.random.default_rng(context.seed)
    others = rng.permutation(tokenizer.vocab_size).tolist()
    text = (token for token in others if tokenizer.decode([token]))  # a control token has none
    return tuple(islice(chain(tokenizer.encode(context.task.instruction), text), TOKENS))


METHOD = Method(
    name="prompt_tuning", fit=fit, texts=1, recipe=RECIPE, build=build, tokens=TOKENS,
    cost=1.1,  # the vectors' keys and values are kept, and every row attends to them
)  # fmt: skip
