"""What `Model.decide` returns: the answer to one typed question, with the probability of each choice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from riyaz.data.questions import OWN_NAME, Question, questions_of, read_questions
from riyaz.errors import RiyazError, brief
from riyaz.library.options import Place
from riyaz.library.showing import bar_html, table_html
from riyaz.predictor import Decided, Predictor, answered_by, own_questions
from riyaz.report.media.markup import Markup, element, join

Asked = Place | Mapping[str, Any] | Sequence[Question | Mapping[str, Any]]


@dataclass(frozen=True)
class Decision:
    """The answer to a question, and the probabilities of its choices, which sum to 1.

    A predicate's answers are True and False, those of a score are its levels. `confidence` is the calibrated
    probability that the answer is right. `score` is the expected number of the level, from 0, the lowest; None for
    other questions. `trained`: whether an artifact answered that was trained on this question, and not a model without
    training.
    """

    question: Question = field(repr=False)
    answer: str | bool
    confidence: float
    probabilities: Mapping[str | bool, float]
    score: float | None = None
    trained: bool = False

    def _repr_html_(self) -> str:
        return decisions_html([self])


class Decisions(dict[str, Decision | None]):
    """The answers to several questions about one text, by the names of the questions; None where nothing can answer."""

    def _repr_html_(self) -> str:
        unanswered = [element("div", f"{name}: nothing can answer it") for name, each in self.items() if each is None]
        return join(decisions_html([each for each in self.values() if each is not None]), *unanswered)


def decisions_html(decisions: Sequence[Decision]) -> Markup:
    """A table with a row for every choice: its question, its probability, a bar; the answers are bold."""
    rows: list[list[object]] = []
    answers = set()
    for decision in decisions:
        for place, (choice, probability) in enumerate(decision.probabilities.items()):
            if choice == decision.answer:
                answers.add(len(rows))
            name = decision.question.name if place == 0 else ""
            rows.append([name, choice, f"{probability:.1%}", bar_html(probability)])
    return table_html(["question", "choice", "probability", ""], rows, ("question", "choice", ""), answers)


def decision_of(decided: Decided) -> Decision:
    """The same in Python's types."""
    values = [choice.value for choice in decided.question.choices]
    score = decided.score if decided.question.type == "score" else None
    probabilities = dict(zip(values, decided.probabilities.tolist(), strict=True))
    return Decision(decided.question, decided.answer, decided.confidence, probabilities, score, decided.trained)


def questions_for(predictor: Predictor, questions: Sequence[Question], name: str) -> tuple[Question, ...]:
    """The questions to ask, by default the predictor's own; `name` is the predictor's. Raises RiyazError where it can
    answer none of them."""
    questions = questions or [replace(own, name=own.name or OWN_NAME) for own in own_questions(predictor)]
    if not questions:
        raise RiyazError("was not trained on questions, so it has none of its own", name, "give some with --questions")
    if not any(answered_by(predictor, questions)):
        what = "was trained on none of these questions, and no language model is open to answer others"
        raise RiyazError(what, name, "leave out --questions to ask its own, or open a model")
    return tuple(questions)


def given_questions(questions: Asked | None) -> tuple[Question, ...]:
    """The questions of a list, of the document of a file, or of a file; none for None. Raises RiyazError."""
    if questions is None:
        return ()
    return read_questions(Path(questions)) if isinstance(questions, (str, PathLike)) else _questions(questions)


def _questions(questions: Any) -> tuple[Question, ...]:
    """The questions of a list, or of a dictionary with one under "questions"."""
    hint = "give a list of questions, or the path of a file of them"
    listed = questions.get("questions") if isinstance(questions, Mapping) else questions
    if not isinstance(listed, Sequence) or isinstance(listed, (str, bytes)):
        raise RiyazError(f"is {brief(questions)}, not a list", "questions", hint)
    entries = [each.document() if isinstance(each, Question) else each for each in listed]
    return questions_of(entries, "questions")
