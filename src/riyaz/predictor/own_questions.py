"""Questions that an artifact was trained on are answered by it, all others by its base without training."""

from collections.abc import Sequence
from dataclasses import replace

from riyaz.data import Message
from riyaz.data.questions import Choice, Question
from riyaz.engine.parts import Steps
from riyaz.predictor.decided import Decided
from riyaz.predictor.deciding import deciding_counted
from riyaz.predictor.kinds import Predictor
from riyaz.predictor.prediction import Prediction


def own_questions(predictor: Predictor) -> tuple[Question, ...]:
    """The questions that a predictor was trained on: those of its task; the labels of a closed set are one choice
    without a name; none for a plain model and for a task with other answers."""
    if predictor.has_questions:
        return predictor.task.questions
    task = predictor.task
    copied = not predictor.has_model and not predictor.has_labels and predictor.temperature is not None
    if task is None or not (predictor.has_labels or (copied and task.kind == "closed")):
        return ()
    return (Question("", "choice", task.instruction, tuple(map(Choice, task.labels))),)


def answered_by(predictor: Predictor, questions: Sequence[Question]) -> list[str]:
    """What answers each question: "training" that the predictor had on it, its "base" without training, or "" for
    nothing, as no base is open."""
    own, base = own_questions(predictor), "base" if predictor.has_model and predictor.bare is None else ""
    return ["training" if any(mine.agrees(question) for mine in own) else base for question in questions]


def deciding_on(
    predictor: Predictor, conversation: Sequence[Message], questions: Sequence[Question]
) -> Steps[list[Decided | None]]:
    """The answers to the questions about a conversation, in parts; None for a question that neither the predictor was
    trained on nor its base can answer, as no base is open. Raises RiyazError."""
    (decided,) = yield from deciding_rows(predictor, [conversation], questions)
    return decided


def deciding_rows(
    predictor: Predictor, conversations: Sequence[Sequence[Message]], questions: Sequence[Question],
    where: Sequence[str] = (),
) -> Steps[list[list[Decided | None]]]:  # fmt: skip
    """`deciding_on` of several conversations, which training answers together. Raises RiyazError, with the
    conversation's entry of `where` if one does not fit the context."""
    own = own_questions(predictor)
    trained = [next((mine for mine in own if mine.agrees(question)), None) for question in questions]
    rows: list[list[Decided | None]] = [[None] * len(questions) for _ in conversations]
    if any(trained):
        for decided, prediction in zip(rows, (yield from _predictions(predictor, conversations, where)), strict=True):
            for place, (mine, question) in enumerate(zip(trained, questions)):
                if mine is not None:
                    decided[place] = _as_asked(prediction, mine, question)
    others = [place for place, mine in enumerate(trained) if mine is None]
    if others and predictor.has_model and predictor.bare is None:
        rest = [questions[place] for place in others]
        for decided, answers in zip(rows, (yield from deciding_counted(predictor.base(), conversations, rest, where))):
            for place, answer in zip(others, answers.answers):
                decided[place] = answer
    return rows


def _predictions(
    predictor: Predictor, conversations: Sequence[Sequence[Message]], where: Sequence[str]
) -> Steps[list[Prediction]]:
    """The predictor's own answers, each with the probabilities of all labels."""
    if not predictor.has_model:
        return predictor.answers(conversations)
    assert predictor.has_labels or predictor.has_questions
    if predictor.has_labels and predictor.temperature is None and predictor.head is None:  # they are not calibrated
        predictor = replace(predictor, temperature=1.0)
    predictions = yield from predictor.choosing(predictor.prepare(conversations, where))
    return predictions


def _as_asked(prediction: Prediction, mine: Question, question: Question) -> Decided:
    """A predictor's answer to its own question, with the choices in the order of the one that is asked."""
    known = {(type(choice.value), choice.value): place for place, choice in enumerate(mine.choices)}
    order = [known[type(choice.value), choice.value] for choice in question.choices]
    p = next((each.probabilities for each in prediction.decided if each.question is mine), prediction.probabilities)
    assert p is not None
    return Decided(question, p[order], trained=True)
