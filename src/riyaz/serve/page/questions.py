"""/page/questions and /page/label-next: the questions that a model was trained on, whether questions can be asked, and
which rows a person labels next."""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riyaz.data.questions import MOST_QUESTIONS, OWN_NAME, Question, questions_of
from riyaz.predictor import own_questions
from riyaz.serve.field import Field, listed, text, whole
from riyaz.serve.http import read_body
from riyaz.serve.problems import Problem
from riyaz.serve.state import state_of

MOST_TEXTS, LONGEST, MOST_NEXT = 500, 2000, 100  # texts to choose from, characters of each, rows that are chosen
CHECK = {"questions": Field(listed({}, MOST_QUESTIONS), required=True)}
NEXT = {
    "texts": Field(listed(text(LONGEST), MOST_TEXTS, 1), required=True),
    "unsure": Field(listed({"type": "number", "minimum": 0, "maximum": 1}, MOST_TEXTS, 1), required=True),
    "count": Field(whole(1, MOST_NEXT)),
}  # fmt: skip


async def own(request: Request) -> Response:
    """GET /page/questions?model=M: the questions that a model was trained on, none for one without training."""
    served = state_of(request).shelf.find(request.query_params.get("model", ""))
    return JSONResponse({"model": served.name, "questions": documents(own_questions(served.predictor))})


def documents(questions: tuple[Question, ...]) -> list[dict[str, Any]]:
    """Questions as a file of them writes them, each with a name and instructions."""
    written = []
    for question in questions:
        document = question.document()
        document["name"] = question.name or OWN_NAME
        document["instructions"] = question.instructions.strip() or "Which of these is it?"
        written.append(document)
    return written


async def checked(request: Request) -> Response:
    """POST /page/questions: the same questions if a file of them can hold them. Raises Problem with what is wrong."""
    body, headers = await read_body(request, CHECK)
    questions = questions_of(body["questions"], "questions.json")
    return JSONResponse({"questions": [question.document() for question in questions]}, headers=headers)


async def label_next(request: Request) -> Response:
    """POST /page/label-next: the places of the texts that `riyaz data --unlabelled` would have labelled next, from how
    unsure a model is of each."""
    from riyaz.quality.label_next import spread_texts

    body, headers = await read_body(request, NEXT)
    texts, unsure = body["texts"], body["unsure"]
    if len(texts) != len(unsure):
        raise Problem(400, f"unsure: has {len(unsure)} numbers for {len(texts)} texts", "unsure")
    places = await asyncio.to_thread(spread_texts, texts, unsure, body.get("count") or 20)
    return JSONResponse({"places": places}, headers=headers)
