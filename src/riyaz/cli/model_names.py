"""The names of models that a shell offers at the Tab key: those in the cache, and those that `riyaz pull` knows."""

from typing import TYPE_CHECKING

from cyclopts import Parameter

if TYPE_CHECKING:
    from cyclopts.completion import CompletionContext

EMBEDDER = "minilm"  # writes no text; riyaz.engine.opening has the same name, and loads numpy


def every_name(context: "CompletionContext") -> dict[str, str]:
    """Name -> whether it is in the cache. Where the word names several, separated by commas, the last is completed."""
    from riyaz.errors import RiyazError
    from riyaz.sources import store
    from riyaz.sources.catalogue import CATALOGUE

    try:
        pulled = store.names()
    except (RiyazError, OSError):  # such as no home folder
        pulled = []
    names = dict.fromkeys(pulled, "in the cache") | {
        name: f"not in the cache; riyaz pull {name}" for name in CATALOGUE if name not in pulled
    }
    before, comma, _ = context.incomplete.rpartition(",")
    return {f"{before}{comma}{name}": about for name, about in names.items()}


def names_of_language_models(context: "CompletionContext") -> dict[str, str]:
    """The same without the model that only compares texts."""
    return {name: about for name, about in every_name(context).items() if name.rpartition(",")[2] != EMBEDDER}


LANGUAGE_MODEL = Parameter(completer=names_of_language_models)
ANY_MODEL = Parameter(completer=every_name)
