"""Every route of the page. Those under /page/ need its token, which `guard` checks before."""

from starlette.routing import Route

from riyaz.serve.page import (
    data,
    documents,
    files,
    following,
    info,
    inside,
    learned,
    models,
    questions,
    records,
    samples,
    starting,
    static,
    training,
    votes,
    word,
)
from riyaz.serve.page.place import ASSETS, INDEX, REPORT

WITH_MODEL = (
    "/page/next",
    "/page/inside",
    "/page/adapters",
    "/page/questions",
    "/page/votes/train",
)  # the others answer while models are loaded

ROUTES = [
    Route(INDEX, static.index), Route(ASSETS + "{name}", static.asset),
    Route("/page/info", info.info), Route("/page/next", word.next_word, methods=["POST"]),
    Route("/page/inside", inside.inside, methods=["POST"]),
    Route("/page/files", files.listed), Route("/page/files", files.upload, methods=["POST"]),
    Route("/page/runs", records.listed), Route("/page/run", records.one), Route("/page/rows", records.rows),
    Route("/page/difference", records.difference), Route(REPORT, records.report),
    Route("/page/learned", learned.learned),
    Route("/page/events", following.events), Route("/page/plan", starting.plan, methods=["POST"]),
    Route("/page/start", starting.start, methods=["POST"]), Route("/page/stop", starting.stop, methods=["POST"]),
    Route("/page/adapters", models.add, methods=["POST"]),
    Route("/page/data", data.preview), Route("/page/limits", data.limits),
    Route("/page/collections", documents.listed), Route("/page/collections", documents.add, methods=["POST"]),
    Route("/page/search", documents.search, methods=["POST"]), Route("/page/document", documents.document),
    Route("/page/questions", questions.own), Route("/page/questions", questions.checked, methods=["POST"]),
    Route("/page/label-next", questions.label_next, methods=["POST"]),
    Route("/page/samples", samples.listed), Route("/page/samples/text", samples.text),
    Route("/page/votes", votes.board), Route("/page/votes", votes.vote, methods=["POST"]),
    Route("/page/votes/train", training.train, methods=["POST"]),
]  # fmt: skip
