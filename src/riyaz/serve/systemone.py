"""POST /v1/systemone: typed questions about a state, as TypeSafe defined them and llama.cpp and Ollama serve them.

    {"model": "workshop", "state": "My card was charged twice.", "questions": {
        "billing": {"type": "noul", "instructions": "Is it about money?"},
        "team": {"type": "choice", "instructions": "Who answers?", "criteria": {"money": "invoices", "shop": null}},
        "mood": {"type": "score", "instructions": "How angry?", "criteria": ["calm", "cross", "furious"]}}}

A noul is a predicate, criteria are the descriptions of choices or the levels. A state or instructions that are no text
are read as JSON. `confidence` is the calibrated probability of the likeliest choice, as on every other route.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riyaz.data import Message
from riyaz.data.questions import LONGEST, Choice, Question, question_of
from riyaz.errors import RiyazError, brief
from riyaz.predictor import Decided
from riyaz.serve.asking import Body
from riyaz.serve.decision_answers import decided, who
from riyaz.serve.decision_fields import SYSTEMONE, SYSTEMONE_QUESTION
from riyaz.serve.decision_input import conversation_of, json_text
from riyaz.serve.fields import ignored_header
from riyaz.serve.http import read_fields, unless_gone
from riyaz.serve.problems import Problem
from riyaz.serve.shelf import Served
from riyaz.serve.state import State, state_of

MEDIA = ("image_url", "input_image", "image", "input_audio", "video_url")  # types of parts that are no text
CRITERIA = {"choice": "choices", "score": "levels"}  # the word of `data.questions`
SHOWN = 60  # characters of a question's name in an error


async def systemone(request: Request) -> Response:
    """The probability of every choice of every question, by the question's name."""
    body, ignored = await read_fields(request, SYSTEMONE)
    state = state_of(request)
    served = state.shelf.find(body.get("model"))
    entries = body["questions"]
    if not entries:
        raise Problem(400, "questions: none is asked", "questions")
    places = {name: _where(name, place) for place, name in enumerate(entries)}
    questions = [_question(name, entry, places[name]) for name, entry in entries.items()]
    _expect_text(body["state"])
    conversation = conversation_of(_text(body["state"], "state"), "state")
    known = SYSTEMONE_QUESTION["properties"]
    strange = [f"questions.{member}" for entry in entries.values() for member in entry if member not in known]
    headers = ignored_header([*ignored, *strange])
    return await unless_gone(request.receive, _whole(state, served, conversation, entries, questions, headers))


async def _whole(
    state: State, served: Served, conversation: Sequence[Message], entries: Mapping[str, Body],
    questions: Sequence[Question], headers: dict[str, str],
) -> Response:  # fmt: skip
    decisions, usage = await decided(state, served, conversation, questions, "state")
    answers: dict[str, Any] = {}
    for place, (answer, (name, entry)) in enumerate(zip(decisions, entries.items())):
        if answer is None:  # this protocol cannot refuse one question of several
            where = _where(name, place)
            what = f"{where}: {served.name} was not trained on it and has no base that answers; ask another model"
            raise Problem(400, what, where, "unsupported_parameter")
        answers[name] = _answer(answer, entry)
    counted = {"input_tokens": usage.prompt, "output_tokens": 0}
    return JSONResponse({"model": served.name, "answers": answers, "usage": counted}, headers=headers)


def _question(name: str, entry: Body, where: str) -> Question:
    """The question of an entry. Raises Problem 400 naming the member that is wrong."""
    kind, criteria = entry["type"], entry.get("criteria")
    instructions = _text(entry["instructions"], f"{where}.instructions")
    plain: Body = {"name": name, "type": kind, "instructions": instructions}
    at = f"{where}.criteria"
    if kind == "noul":
        described = _described(criteria or {}, dict, at)
        question = _checked({**plain, "type": "predicate"}, where)
        sides = [str(_description(described.get(name), f"{at}.{name}") or "") for name in ("true", "false")]
        return replace(question, choices=(Choice(True, sides[0]), Choice(False, sides[1])))
    if kind == "choice":
        listed: list[Body] = [
            {"value": key, "description": _description(text, at)}
            for key, text in _described(criteria, dict, at).items()
        ]
    else:
        levels = _described(criteria, list, at)
        listed = [{"label": _description(text, f"{at}.{place}")} for place, text in enumerate(levels)]
    return _checked({**plain, CRITERIA[kind]: listed}, where)


def _checked(entry: Body, where: str) -> Question:
    """The question of an entry in the words of `data.questions`. Raises Problem 400 in System One's."""
    try:
        return question_of(entry, where)
    except RiyazError as error:
        at = error.where
        for word in CRITERIA.values():
            at = at.replace(f"{where}.{word}", f"{where}.criteria")
        raise Problem(400, str(RiyazError(error.what, at, error.hint)), at) from None


def _described(criteria: Any, kind: type, where: str) -> Any:
    """Criteria of the right kind. Raises Problem 400."""
    if not isinstance(criteria, kind):
        wanted = (
            "an object of OPTION: description" if kind is dict else "a list of descriptions, the lowest level first"
        )
        raise Problem(400, f"{where}: is {brief(criteria)}, not {wanted}", where)
    return criteria


def _description(value: Any, where: str) -> str | None:
    """A description as text; None where there is none. Raises Problem 400."""
    if value is None:
        return None
    if not isinstance(value, str | dict | list):
        raise Problem(400, f"{where}: {brief(value)} is neither text nor JSON", where)
    written = _text(value, where)
    if len(written) > LONGEST:
        raise Problem(400, f"{where}: has {len(written):,} characters; at most {LONGEST:,} are read", where)
    return written


def _text(value: Any, where: str) -> str:
    return value if isinstance(value, str) else json_text(value, where)


def _expect_text(state: Any) -> None:
    """Raises Problem 400 for the parts of a conversation that are images, audio or video."""
    turns = state.get("messages") if isinstance(state, dict) else state
    for place, turn in enumerate(turns if isinstance(turns, list) else ()):
        parts = turn.get("content") if isinstance(turn, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and part.get("type") in MEDIA:
                what = f"state: {part['type']} in message {place}: no image or sound is read, only text and JSON"
                raise Problem(400, what, "state", "unsupported_parameter")


def _where(name: str, place: int) -> str:
    """The place of a question in an error; a name that no line can hold is counted."""
    return f"questions.{name if name and name.isprintable() and len(name) <= SHOWN else place}"


def _answer(answer: Decided, entry: Body) -> dict[str, Any]:
    question, probabilities = answer.question, answer.probabilities.tolist()
    if question.type == "predicate":
        return {"type": "noul", "noul": answer.probability, **who(answer)}
    if question.type == "choice":
        own: dict[str, Any] = {"choice": answer.answer}
        keys: Sequence[str] = question.labels
    else:
        keys = [str(level) for level in range(len(probabilities))]
        own = {"score": answer.score, "legend": dict(zip(keys, entry["criteria"]))}
    return {
        "type": question.type, **own, "probabilities": dict(zip(keys, probabilities)), "confidence": answer.confidence,
        **who(answer),
    }  # fmt: skip
