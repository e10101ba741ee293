"""From a model's files to an Engine: the one place that chooses a Runner."""

from typing import Literal, get_args

from riyaz.adapters import Adapter
from riyaz.engine.engine import Engine
from riyaz.errors import RiyazError
from riyaz.sources import Source

Precision = Literal["auto", "bfloat16", "float32"]  # how weights are served; auto: bf16 where the CPU is quick at it


def open_engine(source: Source, precision: Precision = "auto", merged: Adapter | None = None) -> Engine:
    """The engine of a source's model, on all cores that this process may use; an adapter in `merged` is added to the
    weights, where it cannot be turned off. Raises RiyazError."""
    if precision not in get_args(Precision):
        raise RiyazError(f"unknown precision {precision!r:.60}", hint=f"choose one of {', '.join(get_args(Precision))}")
    from riyaz.engine.torch.load import load_runner

    return Engine(load_runner(source, precision, merged))
