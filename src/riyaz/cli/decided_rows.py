"""The answers of `riyaz decide` as they are written, and how they are spread over a file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from riyaz.data.questions import Question

if TYPE_CHECKING:
    from riyaz.predictor import Decided

DIGITS = 6  # decimals of a probability
SHOWN = 3  # answers that the table names


def record_of(
    where: str, decided: "Sequence[Decided | None]", questions: Sequence[Question], least: float, probabilities: bool
) -> dict[str, Any]:
    """The answers to one row by the names of the questions: null for one that cannot be answered, and the answer alone
    null where its confidence is below `least`. Without `probabilities` those are left out."""
    answers = {
        question.name: None if each is None else _answer(each, least, probabilities)
        for question, each in zip(questions, decided)
    }
    return {"where": where, "answers": answers}


def _answer(decided: "Decided", least: float, probabilities: bool) -> dict[str, Any]:
    question, confidence = decided.question, round(decided.confidence, DIGITS)
    answer: dict[str, Any] = {"type": question.type, "answer": decided.answer if confidence >= least else None}
    answer["confidence"] = confidence
    if question.type == "score":
        answer["score"] = round(decided.score, DIGITS)
    if probabilities:
        key = "label" if question.type == "score" else "value"
        pairs = zip(question.choices, decided.probabilities.tolist())
        answer["probabilities"] = [{key: choice.value, "probability": round(p, DIGITS)} for choice, p in pairs]
    answer["trained"] = decided.trained
    return answer


def columns_of(questions: Sequence[Question], prefix: str) -> list[str]:
    """The columns that a table gets: NAME, NAME_confidence, and NAME_score of a score."""
    return [prefix + question.name + ending for question in questions for ending in _endings(question)]


def cells(record: Mapping[str, Any], questions: Sequence[Question], prefix: str) -> dict[str, object]:
    """The columns of one row; None where there is no answer."""
    filled: dict[str, object] = {}
    for question in questions:
        answer = record["answers"].get(question.name) or {}
        for ending, member in _endings(question).items():
            filled[prefix + question.name + ending] = answer.get(member)
    return filled


def _endings(question: Question) -> dict[str, str]:
    """The members of an answer that a table shows, by the endings of their columns."""
    return {"": "answer", "_confidence": "confidence"} | ({"_score": "score"} if question.type == "score" else {})


@dataclass
class Spread:
    """How one question was answered over a file."""

    question: Question
    by: str  # what answers it: "training", its "base", or "" for nothing
    answers: Counter[str | bool] = field(default_factory=Counter)
    withheld: int = 0
    missing: int = 0  # rows without an answer, as nothing answers the question or the row is too long
    confidence: float = 0.0  # sum over the rows with an answer or a withheld one
    score: float = 0.0  # likewise

    def add(self, answer: Mapping[str, Any] | None) -> None:
        """Count the answer of one row."""
        if answer is None:
            self.missing += 1
            return
        self.confidence += answer["confidence"]
        self.score += answer.get("score", 0.0)
        if answer["answer"] is None:
            self.withheld += 1
        else:
            self.answers[answer["answer"]] += 1

    @property
    def decided(self) -> int:
        """Rows with an answer or a withheld one."""
        return self.answers.total() + self.withheld

    def row(self) -> list[str]:
        """The cells of TITLES."""
        answered_rows = self.answers.total()
        common = [f"{_text(value)} {count / answered_rows:.0%}" for value, count in self.answers.most_common(SHOWN)]
        if len(self.answers) > SHOWN:
            common.append(f"{len(self.answers) - SHOWN} more")
        if self.question.type == "score" and self.decided:
            common.insert(0, f"mean {self.score / self.decided:.2f}")
        sure = f"{self.confidence / self.decided:.3f}" if self.decided else ""
        numbers = [f"{number:,}" for number in (answered_rows, self.withheld, self.missing)]
        return [self.question.name, self.by or "nothing", *numbers, sure, ", ".join(common)]

    def document(self) -> dict[str, Any]:
        """The same as JSON."""
        confidence, score = (round(total / max(1, self.decided), DIGITS) for total in (self.confidence, self.score))
        return {
            "name": self.question.name, "type": self.question.type, "by": self.by or None,
            "answered": self.answers.total(), "abstained": self.withheld, "not_answered": self.missing,
            "confidence": confidence if self.decided else None,
            "score": score if self.decided and self.question.type == "score" else None,
            "answers": [{"value": value, "rows": count} for value, count in self.answers.most_common()],
        }  # fmt: skip


TITLES = ("question", "by", "answered", "abstained", "none", "confidence", "most frequent")
NUMBERS = TITLES[2:6]


def _text(value: str | bool) -> str:
    return value if isinstance(value, str) else str(value).lower()
