"""Opens an Engine on a model's files; the only place that chooses a Runner."""

from typing import TYPE_CHECKING, Literal, get_args

from riyaz import hardware
from riyaz.adapters import Adapter
from riyaz.engine.engine import Engine
from riyaz.errors import RiyazError
from riyaz.families import describe
from riyaz.sources import Source

if TYPE_CHECKING:
    from riyaz.engine.torch.embedder import TorchEmbedder

SIZES = {"bfloat16": 2, "float32": 4}  # bytes of a number
EMBEDDER_MB = 100  # of minilm in float32
CACHED = 1024  # tokens of one conversation whose keys and values are counted
SMALLER = "close other programs, raise the limit of the container, or take a smaller model"

Precision = Literal[
    "auto", "bfloat16", "float32"
]  # number type of the weights; auto: bf16 on a CPU with bf16 instructions


def open_engine(source: Source, precision: Precision = "auto", merged: Adapter | None = None) -> Engine:
    """The engine of a source's model, on all cores that this process may use. The adapter `merged` is added to the
    weights and cannot be turned off. Raises RiyazError."""
    if precision not in get_args(Precision):
        raise RiyazError(f"unknown precision {precision!r:.60}", hint=f"choose one of {', '.join(get_args(Precision))}")
    expect_memory(source, precision)
    from riyaz.engine.torch.load import load_runner

    return Engine(load_runner(source, precision, merged))


def open_embedder(name: str = "minilm") -> "TorchEmbedder":
    """As in `engine.torch.embedder`, if there is memory for it."""
    hardware.expect_memory(f"the embedder {name}", EMBEDDER_MB, SMALLER)
    from riyaz.engine.torch import embedder

    return embedder.open_embedder(name)


def expect_memory(source: Source, precision: str = "auto", copies: int = 1) -> None:
    """Raises RiyazError, with both figures, when `copies` of the model in `precision`, and one answer, do not fit what
    this process may use."""
    if precision == "auto":
        precision = "bfloat16" if hardware.bf16_is_fast() else "float32"
    family = describe(source)
    config, size = family.config, SIZES[precision]
    head = config.vocab_size * config.hidden_size if config.tie_word_embeddings and size == 2 else 0
    cache = 2 * config.n_layers * config.n_kv_heads * config.head_dim * min(config.context, CACHED)
    need = copies * size * (family.parameters + head) + size * cache
    what = f"{source.name} ({family.parameters / 1e6:,.1f} million parameters in {precision})"
    hardware.expect_memory(what, need / hardware.MB, SMALLER)
