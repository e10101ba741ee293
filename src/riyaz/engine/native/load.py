"""From a model's files to a NativeRunner: every tensor is packed in the form in which it is served."""

from typing import Any

import numpy as np

from riyaz import hardware, native
from riyaz.adapters import Adapter
from riyaz.engine.native import formats, plan
from riyaz.engine.native.formats import Form
from riyaz.engine.native.runner import NativeRunner
from riyaz.engine.runner import cache_limit
from riyaz.errors import RiyazError
from riyaz.families import FAMILIES, Family, describe
from riyaz.sources import Source, gguf_groups
from riyaz.sources.gguf_blocks import BLOCK
from riyaz.sources.tensor_files import float32


def load_runner(
    source: Source, precision: str = "auto", merged: Adapter | None = None, kv: str = "auto", ternary: str = ""
) -> NativeRunner:
    """The source's model with its weights in `precision` (auto: as the file stores them, float32 as bf16), on all cores
    this process may use, with the adapter `merged` added to the weights. `kv` is the type of keys and values: bf16,
    int8, or auto, which is fp32 where `precision` is and else bf16. Ternary linears stay ternary in each precision, at
    2.0 bits a weight ("ternary") or 1.6 ("trits"): the quicker of both on this machine, unless `ternary` is one."""
    family = describe(source)
    fp32 = precision == "fp32"
    type_ = ("fp32" if fp32 else "bf16") if kv == "auto" else kv
    limit = cache_limit(formats.packed_bytes(family, precision))
    model = native.extension().Model(plan.settings(family.config, fp32, type_), hardware.threads(), limit)
    nbytes, places = 0, plan.places(family.config)
    for name in family.stored_names:
        tensor = _tensor(family, name, precision, merged)
        model.set(*places[name], tensor)
        nbytes += tensor.nbytes
        del tensor  # its memory is given back where it is packed anew
        source.release()  # else pages of the file that were read count beside what was made of them
    if any(family.is_ternary(name) for name in family.stored_names):
        ternary = ternary or model.quicker_ternary()
        nbytes -= model.repack_ternary(ternary)
    return NativeRunner(model, family, "fp32" if fp32 else "bf16", nbytes, ternary)


def pack(format_: str, values: np.ndarray) -> tuple[Any, bool]:
    """A matrix of floats (rows, cols) packed in a format, and whether all its numbers are finite."""
    matrix = native.extension().Matrix(format_, *values.shape)
    return matrix, matrix.fill(0, np.ascontiguousarray(values, np.float32))


def _tensor(family: Family, name: str, precision: str, merged: Adapter | None) -> Any:
    """A tensor as the C++ model takes it: a packed matrix, or a float32 vector. Raises RiyazError for NaN."""
    stored = family.stored_names[name]
    info = family.source.tensors[stored]
    pair = merged.pairs.get(name.removesuffix(".weight")) if merged else None
    whole = merged.whole.get(name) if merged else None
    if pair is not None and family.is_ternary(name):
        what = "an adapter cannot be merged into a ternary model: weights of -1, 0 and 1 cannot hold the sum"
        raise RiyazError(what, family.source.name, "keep it as an adapter beside the model")
    if len(info.shape) == 1 or whole is not None or pair is not None:
        values = float32(*family.array(name)) if whole is None else whole.astype(np.float32)
        if pair is not None:
            values = values + np.float32(pair.scale) * (pair.b @ pair.a)
        if values.ndim == 1:
            if not np.isfinite(values).all():
                raise family.not_finite(name)
            return plan.to_native_layout(family.config, name, values)
        matrix, finite = pack("bf16" if precision == "auto" else precision, values)
    elif family.is_ternary(name):
        matrix, finite = _ternary(family, name)
    else:
        matrix, finite = _matrix(family, name, info.dtype, precision)
    if not finite:
        raise family.not_finite(name)
    return matrix


def _matrix(family: Family, name: str, dtype: str, precision: str) -> tuple[Any, bool]:
    """A matrix as the file has it, packed in the precision; and whether all its numbers are finite."""
    extension = native.extension()
    form = formats.form_of(dtype, precision, gguf_groups.group_of(family.source.metadata))
    if formats.is_exact(dtype, form.format):
        return _blocks(family, name, dtype, form)
    rows, cols = FAMILIES[family.model_type].layer_plan(family.config)[name]
    matrix, finite = extension.Matrix(form.format, rows, cols), True
    for first, kind, values in family.pieces(name, formats.PIECE):
        if kind == "BF16":
            finite = matrix.fill_bf16(first, np.ascontiguousarray(values)) and finite
        else:
            finite = matrix.fill(first, np.ascontiguousarray(values, np.float32)) and finite
        family.source.release()
    return matrix, finite


def _ternary(family: Family, name: str) -> tuple[Any, bool]:
    """A ternary matrix at 2 bits a weight, by its codes and scales."""
    weights = family.ternary(name)
    rows, cols = weights.codes.shape
    matrix = native.extension().Matrix("ternary", rows, cols, weights.group or 0)
    scales = np.broadcast_to(weights.scales, (rows, weights.scales.shape[1]))
    return matrix, matrix.fill_ternary(0, np.ascontiguousarray(weights.codes), np.ascontiguousarray(scales))


def _blocks(family: Family, name: str, dtype: str, form: Form) -> tuple[Any, bool]:
    """A quantised GGUF matrix packed from its blocks, without loss: groups that are none are not believed."""
    rows, cols = family.source.tensors[family.stored_names[name]].shape
    blocks = family.blocks(name)
    shared = form.group > BLOCK and gguf_groups.are_shared(dtype, blocks, form.group)
    matrix = native.extension().Matrix(form.format, rows, cols, form.group if shared else BLOCK, form.minimum)
    finite, step = True, max(1, formats.PIECE // cols // formats.BLOCK_ROWS) * formats.BLOCK_ROWS
    for first in range(0, rows, step):
        finite = matrix.fill_gguf(first, dtype, blocks[first : first + step], cols) and finite
        family.source.release()  # of a large matrix only a piece is in memory beside what is made of it
    return matrix, finite
