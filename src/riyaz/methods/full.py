"""Full fine-tuning: all weights are trained in float32; the artifact holds a whole model in the compute type."""

from typing import TYPE_CHECKING, Any

from riyaz.artifact import WeightsPart
from riyaz.errors import RiyazError
from riyaz.methods.fitting.base import Context, Fitted, Method
from riyaz.methods.fitting.recipe import Recipe
from riyaz.methods.fitting.weights import WRITTEN, fit_weights
from riyaz.results import About

if TYPE_CHECKING:
    from riyaz.models.llama import Model

RECIPE = Recipe(epochs=2, least_steps=60, batch_size=8, learning_rates=(5e-5, 1e-4), default_rate=5e-5)
LABEL_RECIPE = Recipe(
    epochs=4, least_steps=100, batch_size=8, learning_rates=(5e-5, 1e-4), default_rate=5e-5, refit=True
)


def build(context: Context) -> "Model":
    """The base in float32 with all weights trainable."""
    import torch

    from riyaz.families import describe
    from riyaz.models import load

    family = describe(context.source)
    if not family.has_masters:
        what = "has packed ternary weights, which cannot be trained"
        raise RiyazError(f"{context.source.name} {what}", hint="give the model it was packed from, or train an adapter")
    return load(context.source, torch.float32).requires_grad_(True)


def fit(context: Context) -> Fitted:
    """Train all weights; the artifact's weights are a Hugging Face folder."""

    def save(model: "Model") -> tuple[WeightsPart, dict[str, Any]]:
        from riyaz.models import save_hf

        out = context.folder / WRITTEN
        save_hf(model, context.tokenizer, out)
        return WeightsPart("full"), {path.name: path for path in out.iterdir()}

    return fit_weights(context, build, save)


ABOUT = About(
    what="Every weight of the model is trained.",
    suits="one task with many rows that is worth a whole model",
    colour=6, mark="X", weights="full",
)  # fmt: skip
METHOD = Method(
    name="full",
    about=ABOUT,
    fit=fit,
    candidates=1,
    recipe=RECIPE,
    label_recipe=LABEL_RECIPE,
    build=build,
    rehearses=True,
    left_out=2,
)
