"""LoRA with rank 16 and α 32 on every linear but the head; the artifact holds the adapter only."""

from typing import TYPE_CHECKING, Any

from riyaz.artifact import WeightsPart
from riyaz.methods.base import Context, Fitted, Method
from riyaz.methods.recipe import Recipe
from riyaz.methods.weights import fit_weights

if TYPE_CHECKING:
    from riyaz.models.llama import Model

RANK, ALPHA = 16, 32
RECIPE = Recipe(epochs=2, least_steps=80, batch_size=8, learning_rates=(5e-4, 1e-3), default_rate=1e-3)


def build(context: Context) -> "Model":
    """The frozen base with an untrained LoRA."""
    import torch

    from riyaz.layers import lora
    from riyaz.models import load

    model = load(context.source, getattr(torch, context.compute))
    lora.apply(model, r=RANK, alpha=ALPHA, seed=context.seed)
    return model


def fit(context: Context) -> Fitted:
    """Train the LoRA; the artifact's weights are a PEFT folder."""

    def save(model: "Model") -> tuple[WeightsPart, dict[str, Any]]:
        from riyaz.adapters import peft
        from riyaz.families import describe
        from riyaz.layers import lora

        out = context.folder / "out"
        out.mkdir(exist_ok=True)
        adapter, family = lora.adapter_of(model), describe(context.source)
        peft.write(adapter, out, family, base=context.source.name, alpha=ALPHA)
        return WeightsPart("lora"), {path.name: path for path in out.iterdir()}

    return fit_weights(context, build, save)


METHOD = Method(
    name="lora", fit=fit, candidates=1, recipe=RECIPE, build=build,
    cost=1.2,  # a LoRA beside the weights takes a fifth more time than the base model
)  # fmt: skip
