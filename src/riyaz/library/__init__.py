"""Riyaz as a library: the commands as functions, and results that show themselves in a notebook.

    from riyaz import compare, open

    comparison = compare(rows, budget="10m")
    model = comparison.open()
    model.answer("The quick brown fox")

`riyaz` hands these names out on first use. docs/library.md shows them all.
"""

from riyaz.library.commands import adapt, compare, plan, pretrain, pull
from riyaz.library.comparison import Adapted, Comparison
from riyaz.library.decision import Decision, Decisions
from riyaz.library.measured_limits import MeasuredLimits
from riyaz.library.model import Model, Token, open
from riyaz.library.planned import Plan
from riyaz.library.pretraining import Pretraining
from riyaz.library.progress import Stopped

__all__ = [
    "Adapted", "Comparison", "Decision", "Decisions", "MeasuredLimits", "Model", "Plan", "Pretraining", "Stopped",
    "Token", "adapt", "compare", "open", "plan", "pretrain", "pull",
]  # fmt: skip
