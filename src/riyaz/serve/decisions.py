"""POST /v1/decisions: typed questions about an input, and the probability of every choice, in OpenAI's form."""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riyaz.data import Message
from riyaz.data.questions import Question, question_of
from riyaz.errors import RiyazError, brief
from riyaz.predictor import Decided
from riyaz.serve.asking import Body
from riyaz.serve.decision_answers import decided, who
from riyaz.serve.decision_fields import DECISIONS
from riyaz.serve.decision_input import conversation_of, text_of
from riyaz.serve.generation import Usage
from riyaz.serve.http import read_body, unless_gone
from riyaz.serve.problems import Problem
from riyaz.serve.shelf import Served
from riyaz.serve.state import State, state_of

MEMBERS = {"choices": ("value", "description"), "levels": ("label", "description")}


async def decisions(request: Request) -> Response:
    """The probability of every choice of every question."""
    body, headers = await read_body(request, DECISIONS)
    state = state_of(request)
    served = state.shelf.find(body["model"])
    questions = questions_of(body["questions"])
    conversation = conversation_of(body["input"])
    names = [entry.get("name") for entry in body["questions"]]
    return await unless_gone(request.receive, _whole(state, served, conversation, questions, names, headers))


async def _whole(
    state: State, served: Served, conversation: Sequence[Message], questions: Sequence[Question],
    names: Sequence[str | None], headers: dict[str, str],
) -> Response:  # fmt: skip
    decisions, usage = await decided(state, served, conversation, questions, "input")
    answers = [{**_answer(each), "name": name} for each, name in zip(decisions, names)]
    return JSONResponse({"answers": answers, "model": served.name, "usage": usage_of(usage)}, headers=headers)


def questions_of(entries: Sequence[Body]) -> list[Question]:
    """The questions of a request. Raises Problem 400 naming the member that is wrong."""
    questions, names = [], set()
    for place, entry in enumerate(entries):
        where = f"questions.{place}"
        instructions = text_of(entry["instructions"], f"{where}.instructions")
        plain = {"type": entry["type"], "name": entry.get("name"), "instructions": instructions}
        for member, known in MEMBERS.items():
            if entry.get(member) is not None:
                plain[member] = [{name: each.get(name) for name in known} for each in entry[member]]
        questions.append(question(plain, where))
        name = entry.get("name")
        if name is not None and name in names:
            raise Problem(400, f"{where}.name: another question is named {brief(name)}", f"{where}.name")
        names.add(name)
    return questions


def question(entry: Body, where: str) -> Question:
    """The question of an entry. Raises Problem 400 with the place of what is wrong."""
    try:
        return question_of(entry, where)
    except RiyazError as error:
        raise Problem(400, str(error), error.where or where) from None


def _answer(answer: Decided | None) -> dict[str, Any]:
    """An answer without its name."""
    if answer is None:
        return {"type": "refusal"}
    kind, choices, probabilities = answer.question.type, answer.question.choices, answer.probabilities.tolist()
    if kind == "predicate":
        return {"type": "predicate", "probability": answer.probability, **who(answer)}
    listed: list[dict[str, Any]]
    if kind == "choice":
        listed = [{"value": choice.value, "probability": p} for choice, p in zip(choices, probabilities)]
        own: dict[str, Any] = {"choice": answer.answer}
    else:
        listed = [
            {"label": choice.text, "value": level, "probability": p}
            for level, (choice, p) in enumerate(zip(choices, probabilities))
        ]
        own = {"score": answer.score}
    return {
        "type": kind, **own, "confidence": answer.confidence, "probabilities": listed, **who(answer),
    }  # fmt: skip


def usage_of(usage: Usage) -> dict[str, Any]:
    """The tokens of a request; no text is generated."""
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": usage.cached},
        "output_tokens": 0, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": usage.prompt,
    }  # fmt: skip
