"""Riyaz as a library: the commands as functions, and results that show themselves in a notebook.

    from riyaz import compare, open

    comparison = compare(rows, budget="10m")
    model = comparison.open()
    model.answer("The quick brown fox")

`riyaz` hands these names out on first use. docs/library.md shows them all.
"""

from riyaz.library.commands import adapt, compare, pretrain, pull
from riyaz.library.comparison import Adapted, Comparison
from riyaz.library.decision import Decision
from riyaz.library.model import Model, Token, open
from riyaz.library.pretraining import Pretraining

__all__ = [
    "Adapted", "Comparison", "Decision", "Model", "Pretraining", "Token", "adapt", "compare", "open", "pretrain",
    "pull",
]  # fmt: skip
