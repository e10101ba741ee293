"""Opens an Engine, or an embedder, on a model's files; the only place that chooses between those in C++, the default,
and torch's.

`RIYAZ_ENGINE=torch` takes torch's, the oracle of the other. So does a machine for which the C++ engine is not built.
"""

import math
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from riyaz import hardware, native
from riyaz.adapters import Adapter
from riyaz.config import Kv, Lookup, Precision
from riyaz.engine.engine import Engine
from riyaz.engine.native import formats
from riyaz.errors import RiyazError, brief
from riyaz.families import describe
from riyaz.sources import PRECISION, Source, store

if TYPE_CHECKING:
    from riyaz.engine.embedder import ModelEmbedder

ENGINE = "RIYAZ_ENGINE"  # environment variable: one of ENGINES
ENGINES = ("native", "torch")
LOOKUP = "RIYAZ_LOOKUP"  # environment variable: a Lookup, which engines begin with
TORCH_TYPES = {"bf16": "bfloat16", "fp32": "float32"}
SIZES = {"bf16": 2, "fp32": 4}  # bytes of a number
EMBEDDER = "minilm"
EMBEDDER_MB = 100  # of minilm in float32
CACHED = 1024  # tokens of one conversation whose keys and values are counted
SMALLER = "close other programs, raise the limit of the container, or take a smaller model"


def open_engine(
    source: Source, precision: Precision = "auto", merged: Adapter | None = None, kv: Kv = "auto",
    lookup: Lookup | None = None,
) -> Engine:  # fmt: skip
    """The engine of a source's model, on all cores that this process may use. The adapter `merged` is added to the
    weights and cannot be turned off. `kv` is how keys and values are held: "bf16", "int8" with scales, or "auto", which
    is fp32 where `precision` is and else bf16. `lookup` None: as the environment says. Raises RiyazError."""
    if precision not in get_args(Precision):
        raise RiyazError(
            f"unknown precision {brief(precision)}", hint=f"choose one of {', '.join(get_args(Precision))}"
        )
    if kv not in get_args(Kv):
        hint = f"choose one of {', '.join(get_args(Kv))}"
        raise RiyazError(f"unknown type of keys and values {brief(kv)}", "kv", hint)
    engine = engine_name()
    if engine == "torch" and kv != "auto":
        what = f"torch does not hold keys and values in {kv}"
        raise RiyazError(what, ENGINE, "take auto, or the C++ engine")
    mode = lookup or lookup_mode()
    expect_memory(source, precision, engine=engine)
    if engine == "torch":
        number = torch_precision(precision)
        from riyaz.engine.torch.load import load_runner as load_torch_runner

        return Engine(load_torch_runner(source, TORCH_TYPES[number], merged), number, mode)
    from riyaz.engine.native.load import load_runner

    precision = own_precision(source, precision)
    return Engine(load_runner(source, precision, merged, kv), formats.served_as(describe(source), precision), mode)


def lookup_mode() -> Lookup:
    """Whether engines look answers up in their prompts, where nobody says: as RIYAZ_LOOKUP does. Raises RiyazError for
    one that names no way."""
    name = os.environ.get(LOOKUP) or "auto"
    mode = next((each for each in get_args(Lookup) if each == name), None)
    if mode is None:
        raise RiyazError(f"unknown lookup {brief(name)}", LOOKUP, f"choose one of {', '.join(get_args(Lookup))}")
    return mode


def engine_name() -> str:
    """The engine that answers: "native" or "torch". Raises RiyazError for a RIYAZ_ENGINE that names neither, and where
    there is none."""
    name = os.environ.get(ENGINE, "")
    if name not in ("", *ENGINES):
        raise RiyazError(f"unknown engine {brief(name)}", ENGINE, f"choose one of {', '.join(ENGINES)}")
    if name == "torch":
        return "torch"
    if native.available():
        return "native"
    if name == "native" or find_spec("torch") is None:
        raise RiyazError(native.why_not())
    return "torch"


def engine_note() -> str:
    """One line that says why torch answers instead of the C++ engine, or that the engine is slow here; "" where torch
    was the user's choice, or there was none. Raises RiyazError as `engine_name`."""
    if engine_name() == "native":
        return f"the C++ engine answers with {native.PLAIN}" if native.isa() == "scalar" else ""
    return "" if os.environ.get(ENGINE, "") == "torch" else f"torch answers: {native.why_not()}"


def own_precision(source: Source, precision: Precision) -> Precision:
    """How the C++ engine holds a source's weights: where `auto` is asked for, as its config.json names it."""
    named = source.metadata.get(PRECISION)
    return next((each for each in get_args(Precision) if precision == "auto" and each == named), precision)


def torch_precision(precision: Precision) -> str:
    """The number type in which torch serves: bf16 or fp32; auto is bf16 on a CPU that is quick at it. Raises RiyazError
    for a precision that it has not."""
    if precision == "auto":
        return "bf16" if hardware.bf16_is_fast() else "fp32"
    if precision not in TORCH_TYPES:
        raise RiyazError(f"torch does not serve weights in {precision}", ENGINE, "take auto, bf16 or fp32")
    return precision


def pulled_embedder() -> "ModelEmbedder | None":
    """The default embedder; None where it is not pulled."""
    return None if store.find(EMBEDDER) is None else open_embedder(EMBEDDER)


def open_same_embedder(name: str, sha256: str, folder: Path) -> "ModelEmbedder":
    """The embedder of this name, with whose vectors the artifact in `folder` was made. Raises RiyazError for one that
    is missing, and for one whose weights have another hash."""
    embedder = open_embedder(name)
    if embedder.sha256 != sha256:
        what = f"was made with the vectors of {name} ({sha256[:12]}), not ({embedder.sha256[:12]})"
        raise RiyazError(what, str(folder), f"pull the {name} it was made with, or make it again")
    return embedder


def open_embedder(name: str = EMBEDDER) -> "ModelEmbedder":
    """The embedder of this name or path, in the number type that is fastest here. Raises RiyazError, with the command
    that gets a missing one."""
    engine = engine_name()
    hardware.expect_memory(f"the embedder {name}", EMBEDDER_MB, SMALLER, torch=engine == "torch")
    if engine == "torch":
        from riyaz.engine.torch.embedder import open_embedder as open_torch_embedder

        return open_torch_embedder(name)
    from riyaz.engine.native.embedder import open_embedder as open_native_embedder

    return open_native_embedder(name)


def expect_memory(source: Source, precision: Precision = "auto", copies: int = 1, engine: str = "") -> None:
    """Raises RiyazError, with both figures, when `copies` of the model in `precision`, and one answer, do not fit what
    this process may use. `engine` is the one that loads them; by default the one that answers."""
    engine = engine or engine_name()
    family = describe(source)
    config = family.config
    tokens = min(config.context, CACHED)
    if engine == "torch":
        shown = torch_precision(precision)
        size = SIZES[shown]
        head = config.vocab_size * config.hidden_size if config.tie_word_embeddings and size == 2 else 0
        weights, width, working = float(size * (family.parameters + head)), config.head_dim, 0.0
    else:
        precision = own_precision(source, precision)
        size, shown = 4 if precision == "fp32" else 2, formats.served_as(family, precision)
        weights, working = formats.packed_bytes(family, precision), formats.working_bytes(family, precision)
        width = 32 * math.ceil(config.head_dim / 32)
    cache = 2 * config.n_layers * config.n_kv_heads * width * tokens
    need = copies * weights + size * cache + working
    what = f"{source.name} ({family.parameters / 1e6:,.1f} million parameters in {shown})"
    hardware.expect_memory(what, need / hardware.MB, SMALLER, torch=engine == "torch")
