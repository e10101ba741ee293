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

TRAINING = "training"  # what answers a question that an artifact was trained on


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


def calibrated(predictor: Predictor) -> Predictor:
    """The predictor, whose labels have probabilities: by a search at a temperature of 1 where none was fitted."""
    if predictor.has_model and predictor.has_labels and predictor.head is None and predictor.temperature is None:
        return replace(predictor, temperature=1.0)
    return predictor


def answered_by(predictor: Predictor, questions: Sequence[Question]) -> list[str]:
    """What answers each question: "training" that the predictor had on it, its "base" without training, or "" for
    nothing, as no base is open."""
    own, base = own_questions(predictor), "base" if predictor.has_model and predictor.bare is None else ""
    return [TRAINING if any(mine.agrees(question) for mine in own) else base for question in questions]


def own_answers(own: Sequence[Question], prediction: Prediction, questions: Sequence[Question]) -> list[Decided | None]:
    """A predictor's answers, from its prediction, to the questions that agree with one of its `own`; None to others."""
    agreeing = (next((mine for mine in own if mine.agrees(question)), None) for question in questions)
    return [
        None if mine is None else _as_asked(prediction, mine, question)
        for mine, question in zip(agreeing, questions)
    ]  # fmt: skip


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
    rows: list[list[Decided | None]] = [[None] * len(questions) for _ in conversations]
    by = answered_by(predictor, questions)
    if TRAINING in by:
        own, predictions = own_questions(predictor), (yield from _predictions(predictor, conversations, where))
        rows = [own_answers(own, prediction, questions) for prediction in predictions]
    others = [place for place, who in enumerate(by) if who != TRAINING]
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
    predictor = calibrated(predictor)
    assert predictor.has_model and (predictor.has_labels or predictor.has_questions)
    predictions = yield from predictor.choosing(predictor.prepare(conversations, where))
    return predictions


def _as_asked(prediction: Prediction, mine: Question, question: Question) -> Decided:
    """A predictor's answer to its own question, with the choices in the order of the one that is asked."""
    known = {(type(choice.value), choice.value): place for place, choice in enumerate(mine.choices)}
    order = [known[type(choice.value), choice.value] for choice in question.choices]
    p = next((each.probabilities for each in prediction.decided if each.question is mine), prediction.probabilities)
    assert p is not None
    return Decided(question, p[order], trained=True)
