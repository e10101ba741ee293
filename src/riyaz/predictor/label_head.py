"""The head of an artifact that scores the labels of a closed set in one pass: its file, and log p of every label."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from riyaz.errors import RiyazError
from riyaz.metrics.calibration import log_softmax
from riyaz.sources import safetensors

WEIGHT = "weight"  # the file's only tensor, float32
HINT = "make the artifact again or copy it again"


@dataclass(frozen=True, eq=False)
class LabelHead:
    """One row of C numbers for each of the task's labels, or of its questions' choices, in their order."""

    weight: np.ndarray  # (L, C) float32

    @classmethod
    def read(cls, path: Path, labels: int, width: int) -> "LabelHead":
        """The head of so many labels for a model with hidden states of this width. Raises RiyazError naming what is
        wrong with the file."""
        file = safetensors.read(path)
        shapes = {name: (info.dtype, info.shape) for name, info in file.tensors.items()}
        if shapes != {WEIGHT: ("F32", (labels, width))}:
            what = f"holds no float32 tensor {WEIGHT} of the shape {labels} × {width}"
            raise RiyazError(what, str(path), HINT)
        weight = file.array(WEIGHT)
        if not np.isfinite(weight).all():
            raise RiyazError(f"the tensor {WEIGHT} holds a NaN or an infinity", str(path), HINT)
        return cls(weight)

    def write(self, path: Path) -> None:
        """Write the file. Raises RiyazError."""
        safetensors.write(path, {WEIGHT: self.weight}, {"format": "pt"})

    def log_probabilities(self, hidden: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """log p of every label (n, L) in float64, from hidden states (n, C) float32."""
        return log_softmax(self.logits(hidden) / temperature)

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        """The logit of every label (n, L) in float64, from hidden states (n, C) float32. Row by row, since a product of
        many rows may round otherwise than that of one."""
        return np.stack([self.weight @ row for row in hidden]).astype(np.float64)
