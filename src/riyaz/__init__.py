"""Riyaz trains, adapts, compares and runs language models on the CPU people already have.

    from riyaz import compare, open

The functions are imported when they are first asked for; docs/library.md shows them.
"""

import os
from typing import TYPE_CHECKING

from riyaz.errors import RiyazError

if TYPE_CHECKING:
    from riyaz.library import (
        Adapted,
        Comparison,
        Decision,
        Decisions,
        MeasuredLimits,
        Model,
        Plan,
        Pretraining,
        Stopped,
        Token,
        adapt,
        compare,
        open,
        plan,
        pretrain,
        pull,
    )

# OpenMP's threads spin while they wait for each other; `layers.fast.threads` lets GNU's sleep beside other work.
# Read when torch loads its OpenMP.
os.environ.setdefault("GOMP_SPINCOUNT", "100000")  # GNU's; torch's own wheels on Linux
os.environ.setdefault("KMP_BLOCKTIME", "1")  # LLVM's, in milliseconds; macOS
__version__ = "0.2.0"
__all__ = [
    "Adapted", "Comparison", "Decision", "Decisions", "MeasuredLimits", "Model", "Plan", "Pretraining", "RiyazError",
    "Stopped", "Token", "adapt", "compare", "open", "plan", "pretrain", "pull",
]  # fmt: skip

if not TYPE_CHECKING:  # for a type checker there is no name beside those above

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'riyaz' has no attribute {name!r}")
        from riyaz import library

        globals()[name] = value = getattr(library, name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
