"""The format of native/kernels/layout.h in which each tensor is packed, the bytes that it takes, and its name."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from riyaz import native
from riyaz.families import FAMILIES, Family, transposed
from riyaz.sources import gguf_groups

EXACT = ("Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q8_0")  # GGUF types that are packed without loss
BITS = {"fp32": 32.0, "bf16": 16.0, "int8": 8.5, "int4k": 4.625}  # of a weight, its scales included; int4: see Form
PIECE = 2**22  # numbers of a matrix that is read and packed anew at once
BLOCK_ROWS = 16  # rows are padded to a multiple of it
COLUMNS = {"fp32": 16, "bf16": 16, "int8": 32, "int4": 32, "int4k": 256, "ternary": 16}  # and columns to one of these


@dataclass(frozen=True)
class Form:
    """How a matrix is packed: the format, for int4 and ternary the columns with one scale (ternary: 0 are all), and for
    int4 whether they have a minimum."""

    format: str
    group: int = 32
    minimum: bool = True

    def nbytes(self, rows: int, cols: int) -> float:
        """Bytes of a packed matrix."""
        rows, cols = _padded(rows, BLOCK_ROWS), _padded(cols, COLUMNS[self.format])
        if self.format == "int4":
            return rows * (cols / 2 + math.ceil(cols / self.group) * (4 if self.minimum else 2))
        if self.format == "ternary":
            return rows * (cols / 4 + math.ceil(cols / (self.group or cols)) * 4)
        return rows * cols * BITS[self.format] / 8


def form_of(dtype: str, precision: str, group: int) -> Form:
    """How a matrix that the file has in `dtype` is packed for `precision`; `group` is the file's for int4."""
    format_ = format_of(dtype, precision)
    if format_ == "int4" and is_exact(dtype, format_):
        return Form(format_, group, bool(native.extension().has_minimum(dtype)))
    return Form(format_)


def format_of(dtype: str, precision: str) -> str:
    """The format of a matrix that the file has in `dtype`, served in `precision`."""
    own = str(native.extension().format_of(dtype))
    if precision == "auto":
        return "bf16" if own == "fp32" else own
    return own if precision == "int4" and own == "int4k" else precision


def is_exact(dtype: str, format_: str) -> bool:
    """Whether the file's blocks are packed into the format without loss."""
    return dtype in EXACT and format_ == native.extension().format_of(dtype)


def packed_bytes(family: Family, precision: str) -> float:
    """Bytes of the model's weights in memory."""
    total = 0.0
    for shape, _, form in _tensors(family, precision):
        total += 4 * shape[0] if len(shape) == 1 else form.nbytes(*shape)
    return total


def working_bytes(family: Family, precision: str) -> float:
    """Bytes that reading the file takes beside the weights: floats of a piece of a matrix that is packed anew, and the
    largest ternary matrix as floats."""
    sizes = [0.0]
    for shape, dtype, form in _tensors(family, precision):
        if form.format == "ternary":
            sizes.append(4.0 * math.prod(shape))
        elif len(shape) > 1 and dtype != "BF16" and not is_exact(dtype, form.format):
            sizes.append(4.0 * min(math.prod(shape), max(PIECE, BLOCK_ROWS * shape[1])))
    return max(sizes)


def served_as(family: Family, precision: str) -> str:
    """How the model is served, in words: `bf16`, `int4 as stored`. Of several formats the one of most weights."""
    weights: Counter[tuple[str, bool]] = Counter()
    for shape, dtype, form in _tensors(family, precision):
        if len(shape) > 1:
            weights[form.format.removesuffix("k"), is_exact(dtype, form.format)] += math.prod(shape)
    if any(name == "ternary" for name, _ in weights):  # of a small model the embeddings may be most
        return "ternary"
    (name, stored), _ = weights.most_common(1)[0]
    return f"{name} as stored" if stored else name


def _tensors(family: Family, precision: str) -> Iterator[tuple[tuple[int, ...], str, Form]]:
    """(shape, type in the file, form) of every tensor; vectors are always fp32."""
    group, plan = gguf_groups.group_of(family.source.metadata), FAMILIES[family.model_type].layer_plan(family.config)
    for name, stored in family.stored_names.items():
        info = family.source.tensors[stored]
        shape = tuple(info.shape)
        if family.source.format != "gguf" and transposed(family.model_type, name):
            shape = shape[::-1]
        if family.is_ternary(name):
            yield plan[name], info.dtype, Form("ternary", (family.scheme and family.scheme.group) or 0)
            continue
        yield shape, info.dtype, Form("fp32") if len(shape) == 1 else form_of(info.dtype, precision, group)


def _padded(size: int, to: int) -> int:
    return to * math.ceil(size / to)
