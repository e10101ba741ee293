"""LoRA with rank 16 and α 32, unless the user gives others, on every linear but the head; the artifact holds the
adapter only."""

from typing import TYPE_CHECKING, Any

from riyaz.artifact import WeightsPart
from riyaz.methods.fitting.base import Context, Fitted, Method
from riyaz.methods.fitting.recipe import Recipe
from riyaz.methods.fitting.start import shape_of
from riyaz.methods.fitting.weights import WRITTEN, fit_weights
from riyaz.results import About

if TYPE_CHECKING:
    from riyaz.models.llama import Model

RANK, SCALE = 16, 2  # α / rank
RECIPE = Recipe(epochs=2, least_steps=80, batch_size=8, learning_rates=(5e-4, 1e-3), default_rate=1e-3)
# A label is one token, so that a row teaches less and costs less. At 2e-3 runs forget most, and on banking77 the
# opening scored best and the whole run worst: docs/log.md.
LABEL_RECIPE = Recipe(
    epochs=6, least_steps=120, batch_size=8, learning_rates=(5e-4, 1e-3), default_rate=1e-3, refit=True
)


def shape(context: Context) -> tuple[int, float, bool]:
    """(rank, α): of the LoRA that training goes on from, else the user's, or RANK and SCALE times the rank; and whether
    all layers have these."""
    if context.start is not None:
        return shape_of(context.start.adapter(context.source))
    rank = context.hand.rank or RANK
    return rank, context.hand.alpha or SCALE * rank, True


def build(context: Context) -> "Model":
    """The frozen base with an untrained LoRA, or with that of the artifact from which training goes on."""
    import torch

    from riyaz.layers.swaps import lora
    from riyaz.models import load_frozen

    model = load_frozen(context.source, getattr(torch, context.compute))
    if context.start is not None:
        lora.attach(model, context.start.adapter(context.source), trains=True)
        return model
    rank, alpha, _ = shape(context)
    lora.apply(model, r=rank, alpha=alpha, seed=context.seed)
    return model


def fit(context: Context) -> Fitted:
    """Train the LoRA; the artifact's weights are a PEFT folder."""
    rank, alpha, alike = shape(context)

    def save(model: "Model") -> tuple[WeightsPart, dict[str, Any]]:
        from riyaz.adapters import peft
        from riyaz.families import describe
        from riyaz.layers.swaps import lora

        out = context.folder / WRITTEN
        out.mkdir(exist_ok=True)
        adapter, family = lora.adapter_of(model), describe(context.source)
        peft.write(adapter, out, family, base=context.source.name, alpha=alpha if alike else None)
        return WeightsPart("lora"), {path.name: path for path in out.iterdir()}

    fitted = fit_weights(context, build, save)
    fitted.chosen |= {"rank": rank, "alpha": alpha}
    return fitted


ABOUT = About(
    what="Small matrices are trained beside the frozen weights and can be merged into them.",
    suits="a fixed way of answering, with an adapter that is small enough to keep one for each task",
    colour=5, mark="P", weights="lora",
)  # fmt: skip
METHOD = Method(
    name="lora", about=ABOUT, fit=fit, candidates=1, recipe=RECIPE, label_recipe=LABEL_RECIPE, build=build,
    rehearses=True, takes=("rank", "alpha"), goes_on=True,
    cost=1.2,  # a LoRA beside the weights takes a fifth more time than the base model
    left_out=5,
)  # fmt: skip
