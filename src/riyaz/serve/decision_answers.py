"""Answers typed questions: a place in the queue, whoever can answer, a limit of time, and the count of tokens.

A classifier answers in the thread that prepares prompts. The own question of an artifact with a language model is
prepared there too, and the engine's thread reads such questions of one artifact together, whoever asked them. All else
is work in parts between the steps of running answers.
"""

import asyncio
import time
from collections.abc import Sequence

from riyaz.data import Message
from riyaz.data.questions import Question
from riyaz.engine.parts import finished
from riyaz.predictor import Decided, ModelPredictor, Prediction, answered_by, deciding_on, own_questions
from riyaz.predictor.deciding import deciding_counted
from riyaz.predictor.own_questions import TRAINING, calibrated, own_answers
from riyaz.serve.generation import Usage
from riyaz.serve.owners import owner
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
    answers: Answers = [None] * len(questions)
    if TRAINING in answered_by(predictor, questions):
        prediction = await _prediction(state, predictor, conversation, usage)
        answers = own_answers(own_questions(predictor), prediction, questions)
    others = [question for question, answer in zip(questions, answers) if answer is None]
    if not others or predictor.bare is not None:
        return answers
    base = predictor.base()
    asking = owner()
    (rest,) = await state.engine.work(lambda: deciding_counted(base, [conversation], others, owner=asking))
    usage.prompt += rest.input_tokens
    usage.cached += rest.cached_tokens
    left = iter(rest.answers)
    return [next(left) if answer is None else answer for answer in answers]


async def _prediction(
    state: State, predictor: ModelPredictor, conversation: Sequence[Message], usage: Usage
) -> Prediction:
    """An artifact's own answer, which the engine finds together with those of other requests."""
    answering = calibrated(predictor)
    assert answering.has_model
    (made,) = await state.prepare(lambda: answering.prepare([conversation], room=1))
    chooser = answering.chooser(made)
    assert chooser is not None, "own questions are answered by a search"
    usage.prompt += made.request.length
    return await state.engine.choose(chooser, made)


def who(answer: Decided) -> dict[str, str]:
    """Riyaz's own member of an answer."""
    return {"answered_by": "artifact" if answer.trained else "base"}
