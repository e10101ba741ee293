"""The methods of adapting a model: one file with one `METHOD` each, found here by themselves.

They are in the order of the comparison's table: those without a language model first, then those that change no
weights, each by their colours.
"""

from importlib import import_module
from pkgutil import iter_modules

from riyaz.methods.fitting.base import Method
from riyaz.results import About

_FILES = [import_module(f"{__name__}.{file.name}") for file in iter_modules(__path__) if not file.ispkg]


def _place(method: Method) -> tuple[bool, bool, int, str]:
    return method.about.language_model, method.about.weights != "none", method.about.colour, method.name


METHODS: dict[str, Method] = {method.name: method for method in sorted((file.METHOD for file in _FILES), key=_place)}
CURVE = "lora"  # the method of the learning curve, which shows whether more examples would help
UNTRAINED = "zero_shot"  # the base as it is


def abouts() -> dict[str, About]:
    """Every method in words and colours, for the page."""
    return {name: method.about for name, method in METHODS.items()}


def from_votes() -> dict[str, tuple[str, ...]]:
    """Every method that learns from a better and a worse answer, and what a comparison of it runs: the base too."""
    return {name: (UNTRAINED, name) for name, method in METHODS.items() if "preferred" in method.judged_by}
