"""The answers to each question, where a comparison's rows answer several: tables and lines of all reports."""

from riyaz.report.comparison.confidence import error
from riyaz.report.words import MISSING, number
from riyaz.results import ArmResult, Calibration, QuestionScore

TITLE = "Question by question"
NOTE = (
    "A choice and a predicate score 1 where the answer is right (a predicate's from a probability of one half on), a "
    "score 1 − |error| ÷ (levels − 1), where the error is that of the expected level. A method's score is the mean "
    "over the questions. AUROC: the chance that a right choice has a higher probability than a wrong one; 0.5 is "
    "guessing. ECE: by how much confidence and the share of right answers differ. Intervals: 95 %."
)


def named_questions(arms: list[ArmResult]) -> list[tuple[str, str]]:
    """Name and type of each question, in their order; none where the rows have one answer."""
    first = next((arm.questions for arm in arms if arm.questions), None) or []
    return [(question.name, question.type) for question in first]


def table(arms: list[ArmResult]) -> tuple[list[str], list[list[str]]]:
    """(titles, rows): each question with its type, its rows, and the score of every method."""
    shown = [arm for arm in arms if arm.questions]
    titles = ["question", "type", "rows", *(arm.name for arm in shown)]
    each = list(zip(*(arm.questions or () for arm in shown)))
    heads = [[row[0].name, row[0].type, number(row[0].n)] for row in each]
    return titles, [[*head, *(number(one.score, 3) for one in row)] for head, row in zip(heads, each)]


def figures(arms: list[ArmResult]) -> tuple[list[str], list[list[str]]]:
    """(titles, rows): interval, AUROC and how true the probabilities are, of every method and question."""
    titles = ["method", "question", "score", "95 % interval", "AUROC", "ECE", "by chance", "log-loss"]
    return titles, [[arm.name, *_figures(one)] for arm in arms for one in arm.questions or ()]


def calibrated(arm: ArmResult) -> list[tuple[str, Calibration]]:
    """The questions of an arm whose answers have a confidence."""
    return [(one.name, one.calibration) for one in arm.questions or () if one.calibration is not None]


def lines(arms: list[ArmResult], pick: str | None) -> list[tuple[str, str]]:
    """(question, method and `line`) of the picked arm, or of the best one."""
    best = next((arm for arm in arms if arm.name == pick and arm.questions), None)
    best = best or next((arm for arm in arms if arm.questions), None)
    if best is None:
        return []
    return [(one.name, f"{best.name} {line(one)}") for one in best.questions or ()]


def line(one: QuestionScore) -> str:
    """`0.905 (choice), AUROC 0.980, ECE 0.031 (0.010 to 0.060 by chance)`."""
    auroc = f", AUROC {number(one.auroc, 3)}" if one.auroc is not None else ""
    sure = f", ECE {error(one.calibration)}" if one.calibration else ""
    return f"{number(one.score, 3)} ({one.type}){auroc}{sure}"


def _figures(one: QuestionScore) -> list[str]:
    sure = one.calibration
    interval = MISSING if one.ci_low is None or one.ci_high is None else f"{one.ci_low:.3f}–{one.ci_high:.3f}"
    band = MISSING if sure is None else f"{sure.chance_low:.3f}–{sure.chance_high:.3f}"
    return [
        one.name, number(one.score, 3), interval, number(one.auroc, 3),
        number(sure.ece if sure else None, 3), band, number(sure.log_loss if sure else None, 3),
    ]  # fmt: skip
