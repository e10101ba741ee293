"""held_out.safetensors, in the folder of a run: log-probabilities of a closed set's labels on validation rows, by
weights that have not learned these rows. A method that joins others is calibrated on it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from riyaz.metrics.calibration import log_softmax
from riyaz.sources import safetensors

HELD_OUT = "held_out.safetensors"
ROWS, LOG_P = "rows", "log_p"


def write_held_out(folder: Path, rows: Sequence[int] | np.ndarray, scores: np.ndarray, temperature: float) -> None:
    """Write the log-probabilities of the validation rows at these places, from their scores (n, L)."""
    log_p = log_softmax(scores / temperature).astype(np.float32)
    safetensors.write(folder / HELD_OUT, {ROWS: np.array(rows, np.int64), LOG_P: log_p})


def read_held_out(folder: Path) -> dict[int, np.ndarray]:
    """The calibrated log-probabilities (L,) of each validation row that was held out, by its place. Raises
    RiyazError."""
    file = safetensors.read(folder / HELD_OUT)
    return dict(zip(file.array(ROWS).tolist(), file.array(LOG_P)))
