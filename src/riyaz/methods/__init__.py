"""Ways of adapting a model: one file and one verb, `fit`, each. The order is that of the comparison's table.

A method module has `RECIPE` (None when it trains nothing), `TEXTS`, the number of texts it weighs on validation (0
without a model), and `fit(context) -> Fitted`. For `compare.measure` it may have `probe(plain, context)`, a predictor
as slow as its own, and `COST` beside the bare model; a trained one also has
`build(context) -> model with trainable parameters`, which `compare.measure` times.
"""

import importlib
from types import ModuleType

from riyaz.methods.recipe import Recipe

METHODS = ("nearest", "zero_shot", "few_shot", "prompt_tuning", "lora", "full")


def module(method: str) -> ModuleType:
    """The module of a method of the table."""
    assert method in METHODS, method
    return importlib.import_module(f"riyaz.methods.{method}")


def recipe(method: str) -> Recipe | None:
    """The full training of a method; None when it trains nothing."""
    return module(method).RECIPE
