"""Opens an Engine on a model's files; the only place that chooses a Runner."""

from typing import Literal, get_args

from riyaz.adapters import Adapter
from riyaz.engine.engine import Engine
from riyaz.errors import RiyazError
from riyaz.sources import Source

Precision = Literal[
    "auto", "bfloat16", "float32"
]  # number type of the weights; auto: bf16 on a CPU with bf16 instructions


def open_engine(source: Source, precision: Precision = "auto", merged: Adapter | None = None) -> Engine:
    """The engine of a source's model, on all cores that this process may use. The adapter `merged` is added to the
    weights and cannot be turned off. Raises RiyazError."""
    if precision not in get_args(Precision):
        raise RiyazError(f"unknown precision {precision!r:.60}", hint=f"choose one of {', '.join(get_args(Precision))}")
    from riyaz.engine.torch.load import load_runner

    return Engine(load_runner(source, precision, merged))
