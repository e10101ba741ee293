"""How true the confidences of answers are, in compare.json, result.json and the output of `riyaz evaluate`."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Calibration:
    """How true the confidences are of the answers to `rows` rows of a closed set; low and high: 95 % interval."""

    rows: int
    ece: float  # expected calibration error, 15 bins of equal mass
    ece_low: float
    ece_high: float
    chance_low: float  # band of what a calibrated classifier with the same confidences has by chance
    chance_high: float
    brier: float | None = None  # over all labels, 0 to 2; this and log_loss need the probabilities of all labels
    brier_low: float | None = None
    brier_high: float | None = None
    log_loss: float | None = None  # nats
    log_loss_low: float | None = None
    log_loss_high: float | None = None
    risk: list[tuple[float, float]] = field(default_factory=list)  # (share answered, the surest first; wrong of them)
    bins: list[tuple[float, float, int]] = field(default_factory=list)  # (mean confidence, share right, rows)
