"""Questions that an artifact was trained on are answered by it, all others by its base without training."""

from collections.abc import Sequence

import numpy as np

from riyaz.data import Message
from riyaz.data.questions import Choice, Question
from riyaz.engine.parts import Steps
from riyaz.predictor.decided import Decided
from riyaz.predictor.deciding import deciding
from riyaz.predictor.kinds import Predictor


def own_questions(predictor: Predictor) -> tuple[Question, ...]:
    """The questions that a predictor was trained on: the labels of its closed set are one choice without a name; none
    for a plain model and for a task with other answers."""
    if not predictor.has_labels or predictor.task is None:
        return ()
    task = predictor.task
    return (Question("", "choice", task.instruction, tuple(map(Choice, task.labels))),)


def deciding_on(
    predictor: Predictor, conversation: Sequence[Message], questions: Sequence[Question]
) -> Steps[list[Decided | None]]:
    """The answers to the questions about a conversation, in parts; None for a question that neither the predictor was
    trained on nor its base can answer, as no base is open. Raises RiyazError."""
    own = own_questions(predictor)
    trained = [next((mine for mine in own if mine.agrees(asked)), None) for asked in questions]
    decided: list[Decided | None] = [None] * len(questions)
    if any(trained):
        probabilities = yield from _probabilities(predictor, conversation)
        for place, (mine, asked) in enumerate(zip(trained, questions)):
            if mine is not None:
                order = [mine.choices.index(Choice(choice.value)) for choice in asked.choices]
                decided[place] = Decided(asked, probabilities[order], trained=True)
    others = [place for place, mine in enumerate(trained) if mine is None]
    if others and predictor.has_model and predictor.bare is None:
        answers = yield from deciding(predictor.base(), conversation, [questions[place] for place in others])
        for place, answer in zip(others, answers):
            decided[place] = answer
    return decided


def _probabilities(predictor: Predictor, conversation: Sequence[Message]) -> Steps[np.ndarray]:
    """The calibrated probabilities (L,) of a predictor's labels."""
    assert predictor.has_labels
    if predictor.has_model:
        (prediction,) = yield from predictor.choosing(predictor.prepare([conversation]))
    else:
        (prediction,) = predictor.answers([conversation])
    assert prediction.probabilities is not None
    return prediction.probabilities
