"""Answers typed questions: a place in the queue, whoever can answer, a limit of time, and the count of tokens.

A classifier answers in the thread that prepares prompts. The own question of an artifact with a language model is
prepared there too, and the engine's thread reads such questions of one artifact together, whoever asked them. All else
is work in parts between the steps of running answers.
"""

import asyncio
import time
from collections.abc import Sequence

import numpy as np

from riyaz.data import Message
from riyaz.data.questions import Question
from riyaz.engine.parts import finished
from riyaz.predictor import Decided, ModelPredictor, deciding_on, own_questions
from riyaz.predictor.deciding import deciding_counted
from riyaz.serve.generation import Usage
from riyaz.serve.problems import Problem, problem_of
from riyaz.serve.shelf import Served
from riyaz.serve.state import State

Answers = list[Decided | None]


async def decided(
    state: State, served: Served, conversation: Sequence[Message], questions: Sequence[Question], param: str
) -> tuple[Answers, Usage]:
    """The answers in the questions' order, None for a question that nobody can answer, and the tokens that were read.
    `param` is the field of the conversation. Raises Problem."""
    usage = Usage()
    with state.place(1, served):
        try:
            async with asyncio.timeout(state.config.request_timeout):
                answers = await _answers(state, served, conversation, questions, usage)
        except TimeoutError:
            raise Problem(503, f"no answer was found within {state.config.request_timeout:g} s") from None
        except Exception as error:
            raise problem_of(error, param) from error
    state.metrics.prompt_tokens += usage.prompt
    state.metrics.cached_tokens += usage.cached
    state.metrics.success["stop"] += 1
    state.metrics.whole.add(time.perf_counter() - usage.arrived)
    return answers, usage


async def _answers(
    state: State, served: Served, conversation: Sequence[Message], questions: Sequence[Question], usage: Usage
) -> Answers:
    predictor = served.predictor
    if not predictor.has_model:
        return await state.prepare(lambda: finished(deciding_on(predictor, conversation, questions)))
    own = own_questions(predictor)
    trained = await _trained(state, predictor, conversation, usage) if _any(own, questions) else None
    answers = [_own_answer(own, trained, question) for question in questions]
    if trained is None and _any(own, questions):
        return await state.engine.work(lambda: deciding_on(predictor, conversation, questions))
    others = [question for question, answer in zip(questions, answers) if answer is None]
    if not others or predictor.bare is not None:
        return answers
    base = predictor.base()
    (rest,) = await state.engine.work(lambda: deciding_counted(base, [conversation], others))
    usage.prompt += rest.input_tokens
    usage.cached += rest.cached_tokens
    left = iter(rest.answers)
    return [next(left) if answer is None else answer for answer in answers]


def _any(own: Sequence[Question], questions: Sequence[Question]) -> bool:
    return any(mine.agrees(question) for mine in own for question in questions)


async def _trained(
    state: State, predictor: ModelPredictor, conversation: Sequence[Message], usage: Usage
) -> list[np.ndarray] | None:
    """The probabilities (L,) of the choices of each of an artifact's own questions; None where it has no calibration,
    and they are not known."""
    (made,) = await state.prepare(lambda: predictor.prepare([conversation], room=1))
    chooser = predictor.chooser(made)
    assert chooser is not None, "own questions are answered by a search"
    prediction = await state.engine.choose(chooser, made)
    usage.prompt += made.request.length
    if prediction.decided:
        return [each.probabilities for each in prediction.decided]
    return None if prediction.probabilities is None else [prediction.probabilities]


def _own_answer(own: Sequence[Question], trained: Sequence[np.ndarray] | None, question: Question) -> Decided | None:
    """The artifact's answer to a question that has its own choices, perhaps in another order; None for another."""
    for mine, probabilities in zip(own, trained or ()):
        if mine.agrees(question):
            places = {choice.value: place for place, choice in enumerate(mine.choices)}
            return Decided(question, probabilities[[places[choice.value] for choice in question.choices]], trained=True)
    return None


def who(answer: Decided) -> dict[str, str]:
    """Riyaz's own member of an answer."""
    return {"answered_by": "artifact" if answer.trained else "base"}
