"""Which linears of a checkpoint are ternary, and how the checkpoint stores them; torch-free.

Hugging Face folders say so in `quantization_config` with the method `bitnet`, of which there are three layouts: float
weights that are rounded at every forward (`online`), and codes packed in bytes with a tensor `weight_scale` that
multiplies (`autobitlinear`) or divides (`bitlinear`) them. The wrong one of the last two gives garbage and no error. In
GGUF the type of a tensor says it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from riyaz.errors import RiyazError, shown
from riyaz.sources import Source, TensorInfo
from riyaz.sources.tensor_files import float32
from riyaz.sources.ternary import PER_BYTE, Ternary, unpack

KEY = "quantization_config"
METHOD = "bitnet"
CLASSES = ("autobitlinear", "bitlinear")
MODES = ("online", "offline")
GROUP = "group_size"  # riyaz's own key: columns with one scale; transformers knows one scale for a matrix only
SCALE = "_scale"  # suffix of the scales' tensor after the weight's name
GGUF_TYPES = ("TQ1_0", "TQ2_0", "I2_S")
FULL_PRECISION = ("lm_head",)  # modules that are never ternary here
SCALE_TYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Scheme:
    """How a Hugging Face folder stores ternary linears."""

    packed: bool = False  # codes and scales, or float weights that are rounded in each forward
    divides: bool = False  # packed only: the weight is code / scale instead of code · scale
    group: int | None = None  # columns with one scale; None: one for the matrix

    def to_hf(self) -> dict[str, Any]:
        """The `quantization_config` that `from_hf` reads, and transformers too unless there are groups."""
        return {
            "quant_method": METHOD,
            "linear_class": CLASSES[self.divides],
            "quantization_mode": MODES[self.packed],
            "use_rms_norm": False,
            "modules_to_not_convert": list(FULL_PRECISION),
            **({GROUP: self.group} if self.group else {}),
        }


def from_hf(metadata: Mapping[str, Any]) -> Scheme | None:
    """The scheme of a config.json; None where it has no quantisation, or one of another method, which the family
    refuses. Raises RiyazError for what riyaz lacks, by name."""
    config = metadata.get(KEY)
    if not isinstance(config, dict) or config.get("quant_method") != METHOD:
        return None
    kind, mode = config.get("linear_class") or CLASSES[1], config.get("quantization_mode") or MODES[1]
    problems = []
    if kind not in CLASSES:
        problems.append(f"linear_class is {kind!r:.60}, riyaz supports only {' and '.join(CLASSES)}")
    if mode not in MODES:
        problems.append(f"quantization_mode is {mode!r:.60}, riyaz supports only {' and '.join(MODES)}")
    if mode == MODES[0] and kind == CLASSES[1]:
        problems.append(f"linear_class {kind} has no quantization_mode {mode}")
    if config.get("use_rms_norm"):
        problems.append("use_rms_norm is true, riyaz has no norm before every linear")
    others = config.get("modules_to_not_convert") or FULL_PRECISION
    if not isinstance(others, list | tuple) or not set(others) <= set(FULL_PRECISION):
        problems.append(f"modules_to_not_convert is {others!r:.60}, riyaz supports only {FULL_PRECISION[0]}")
    group = config.get(GROUP)
    if group is not None and (type(group) is not int or group < 16 or group % 16):
        problems.append(f"{GROUP} is {group!r:.60}, not a multiple of 16")
    if rotation := next((key for key in config if "rotat" in key or "hadamard" in key), None):
        problems.append(f"{rotation}: riyaz has no rotation of activations")
    if problems:
        raise RiyazError(f"{KEY}: {'; '.join(problems)}", hint="riyaz cannot run this model")
    return Scheme(mode == MODES[1], kind == CLASSES[1], group)


def is_linear(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of the model is the weight of a linear of its layers: all but embeddings and head."""
    return len(shape) == 2 and (".layers." in name or ".h." in name)


def packed_mismatches(
    tensors: Mapping[str, TensorInfo], stored: str, shape: tuple[int, ...], scheme: Scheme
) -> list[str]:
    """One message for each thing that is wrong with the two tensors of a packed linear of this shape (out, in)."""
    rows, cols = shape
    scales = (rows, math.ceil(cols / scheme.group)) if scheme.group else (1,)
    if rows % PER_BYTE:
        return [f"{stored} has {rows} rows, which are no multiple of {PER_BYTE} as packed rows are"]
    problems = []
    wanted = {stored: (("U8",), (rows // PER_BYTE, cols)), stored + SCALE: (SCALE_TYPES, scales)}
    for name, (types, size) in wanted.items():
        info = tensors.get(name)
        if info is None:
            problems.append(f"{name} is missing")
        elif info.shape != size and not (size == (1,) and info.shape == ()):
            problems.append(f"{name} has the shape {list(info.shape)} instead of {list(size)}")
        elif info.dtype not in types:
            problems.append(f"{name} has the type {info.dtype} instead of {', '.join(types)}")
    return problems


def read_packed(source: Source, stored: str, scheme: Scheme) -> Ternary:
    """A packed linear (out, in). Raises RiyazError for codes and scales that are none."""
    where, scale = str(source.path), stored + SCALE
    try:
        codes = unpack(source.array(stored), shown(stored))
    except RiyazError as error:
        raise RiyazError(error.what, where, "the file is damaged; download it again") from error
    scales = float32(source.tensors[scale].dtype, source.array(scale)).astype(np.float32)
    if not (np.isfinite(scales) & (scales > 0)).all():
        raise RiyazError(f"tensor {shown(scale)} holds a scale that is no positive number", where,
                         "the file is damaged; download it again")  # fmt: skip
    if scheme.divides:
        scales = np.float32(1) / scales
    return Ternary(codes, scales if scheme.group else scales.reshape(1, 1), scheme.group)
