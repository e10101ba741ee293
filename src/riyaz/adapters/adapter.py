"""`Adapter`, the numpy tensors of an adapter: LoRA pairs, replaced parameters, or a soft prompt."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from riyaz.sources import tensor_files

FLOATS = ("F32", "F16", "BF16")  # the types of an adapter's tensors that riyaz reads


@dataclass(frozen=True, eq=False)
class Pair:
    """The LoRA of one linear: it adds `scale · x Aᵀ Bᵀ` to the linear's output."""

    a: np.ndarray  # (r, in) float32
    b: np.ndarray  # (out, r) float32
    scale: float

    @property
    def rank(self) -> int:
        """r, the rows of A."""
        return len(self.a)


@dataclass(frozen=True, eq=False)
class Adapter:
    """All changes that an adapter makes to its base model."""

    pairs: Mapping[str, Pair] = field(default_factory=dict)  # module path -> its LoRA
    # parameter path -> float32 tensor that replaces it, as a PEFT "module to save"; linears are always (out, in)
    whole: Mapping[str, np.ndarray] = field(default_factory=dict)
    soft_prompt: np.ndarray | None = None  # (P, C) float32: embeddings before every row

    @property
    def whole_modules(self) -> list[str]:
        """The paths of the modules of which at least one parameter is replaced."""
        return list(dict.fromkeys(path.rpartition(".")[0] for path in self.whole))


def float32(dtype: str, array: np.ndarray) -> np.ndarray:
    """A float32 copy of an array whose type is one of FLOATS; a BF16 array holds its bits as uint16."""
    return np.array(tensor_files.float32(dtype, array))
