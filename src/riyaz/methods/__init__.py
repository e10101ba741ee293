"""Ways of adapting a model: one file and one verb, `fit`, each. The order is that of the comparison's table.

A method module has `RECIPE` (None when it trains nothing), `TEXTS`, the number of texts it weighs on validation (0
without a model), and `fit(context) -> Fitted`. For `compare.measure` it may have `probe(plain, context)`, a predictor
as slow as its own, `COST` beside the bare model, and `ANSWERED`, how often it answers a validation row; a trained one
also has `build(context) -> model with trainable parameters`, which `compare.measure` times.

A combination is a line of the table, not code: the first part's `around(context)` gives the text around every row,
and the second learns weights under it.
"""

import importlib
from dataclasses import dataclass, replace
from functools import cached_property
from types import ModuleType

from riyaz.methods.base import Context, Fitted
from riyaz.methods.recipe import Recipe
from riyaz.predictor import Predictor

METHODS: dict[str, tuple[str, ...]] = {
    "nearest": ("nearest",),
    "zero_shot": ("zero_shot",),
    "few_shot": ("few_shot",),
    "rag": ("rag",),
    "prompt_tuning": ("prompt_tuning",),
    "lora": ("lora",),
    "full": ("full",),
    "rag_lora": ("rag", "lora"),
}
CURVE = "lora"  # the method that says whether more examples would help
DOCUMENTS = "rag"  # the part that reads the user's documents


@dataclass(frozen=True)
class Method:
    """One line of the table: a module, or a text part around another module's weights."""

    name: str

    @cached_property
    def _parts(self) -> tuple[ModuleType, ...]:
        return tuple(importlib.import_module(f"riyaz.methods.{part}") for part in METHODS[self.name])

    @property
    def own(self) -> ModuleType:
        """The module whose `fit` runs."""
        return self._parts[-1]

    @property
    def needs_documents(self) -> bool:
        """Whether it cannot do without --documents."""
        return DOCUMENTS in METHODS[self.name]

    @property
    def texts(self) -> int:
        """Texts it weighs on validation; 0 without a model."""
        return self.own.TEXTS

    @property
    def answered(self) -> float:
        """How often the fit answers a validation row of a short-answer task."""
        return getattr(self.own, "ANSWERED", 0.0)

    @property
    def tokens(self) -> int:
        """Places of the context that its weights take before every prompt."""
        return getattr(self.own, "TOKENS", 0)

    @property
    def cost(self) -> float:
        """Seconds of an answer beside the bare model's."""
        return getattr(self.own, "COST", 1.0)

    @property
    def recipe(self) -> Recipe | None:
        """The full training; None when it trains nothing. A combination has a share of the budget for each part."""
        recipe = self.own.RECIPE
        return recipe and replace(recipe, share=len(self._parts))

    def around(self, context: Context) -> Context:
        """The context with the text under which weights are trained."""
        for part in self._parts[:-1]:
            context = part.around(context)
        return context

    def fit(self, context: Context) -> Fitted:
        """Adapt; the parts of the artifact."""
        return self.own.fit(self.around(context))

    def probe(self, plain: Predictor, context: Context) -> Predictor:
        """A predictor with the model of `plain` that is as slow as this method's."""
        if hasattr(self.own, "probe"):
            return self.own.probe(plain, context)
        found = self.around(context).around
        return replace(plain, text=found.text, examples=found.examples, retriever=found.retriever)


def recipe(method: str) -> Recipe | None:
    """The full training of a method; None when it trains nothing."""
    return Method(method).recipe
