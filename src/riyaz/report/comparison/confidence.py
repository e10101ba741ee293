"""How sure the methods' answers are, and how true that is: a table and a line of all reports."""

from riyaz.report.words import MISSING, number
from riyaz.results import ArmResult, Calibration

TITLE = "How sure the answers are"
NOTE = (
    "The confidence of an answer is the calibrated probability that it is right. ECE is the expected calibration error "
    "(15 bins of equal mass): by how much the confidence of the answers and the share that is right differ, the mean "
    "over bins. By chance: the band in which 95 % of the ECEs of a perfectly calibrated method with the same "
    "confidences lie. Brier score (0 to 2) and log-loss (nats) judge the probabilities of all labels. Lower is better; "
    "intervals: 95 %."
)
RISK_NOTE = (
    "Further left, fewer answers are given: the surest ones. Where a line falls to the left, riyaz run --abstain can "
    "withhold the wrong ones."
)
RELIABILITY_NOTE = (
    "One mark for each of 15 bins. On the dashed line confidence is true; below it, answers are less often right than "
    "their confidence says."
)
Calibrated = list[tuple[ArmResult, Calibration]]


def calibrated(arms: list[ArmResult]) -> Calibrated:
    """The arms whose answers have a confidence."""
    return [(arm, arm.calibration) for arm in arms if arm.calibration is not None]


def table(arms: list[ArmResult]) -> tuple[list[str], list[list[str]]]:
    """(titles, rows): ECE, Brier score and log-loss of each arm."""
    titles = ["method", "ECE", "95 % interval", "by chance", "Brier", "95 % interval", "log-loss", "95 % interval"]
    rows = [
        [arm.name, number(each.ece, 3), _range(each.ece_low, each.ece_high),
         _range(each.chance_low, each.chance_high), number(each.brier, 3), _range(each.brier_low, each.brier_high),
         number(each.log_loss, 3), _range(each.log_loss_low, each.log_loss_high)]
        for arm, each in calibrated(arms)
    ]  # fmt: skip
    return titles, rows


def bins(calibration: Calibration) -> tuple[list[str], list[list[str]]]:
    """(titles, rows): the reliability diagram as a table, one line for each bin."""
    titles = ["mean confidence", "share that is right", "rows"]
    return titles, [[number(sure, 3), number(right, 3), number(rows)] for sure, right, rows in calibration.bins]


def line(arms: list[ArmResult]) -> str:
    """`linear 0.031, lora 0.140 (0.040 to 0.080 by chance)`: every ECE, and the band of one that is above it."""
    return ", ".join(
        f"{arm.name} {error(each) if each.ece > each.chance_high else number(each.ece, 3)}"
        for arm, each in calibrated(arms)
    )


def error(calibration: Calibration) -> str:
    """An ECE with the band by chance, `0.140 (0.040 to 0.080 by chance)`."""
    low, high = number(calibration.chance_low, 3), number(calibration.chance_high, 3)
    return f"{number(calibration.ece, 3)} ({low} to {high} by chance)"


def _range(low: float | None, high: float | None) -> str:
    return MISSING if low is None or high is None else f"{low:.3f}–{high:.3f}"
