"""Every route of the page. Those under /page/ need its token, which `guard` checks before."""

from starlette.routing import Route

from riyaz.serve.page import files, info, static, votes, word
from riyaz.serve.page.place import ASSETS, INDEX

WITH_MODEL = ("/page/next", "/page/adapters")  # the others answer while models are loaded

ROUTES = [
    Route(INDEX, static.index), Route(ASSETS + "{name}", static.asset),
    Route("/page/info", info.info), Route("/page/next", word.next_word, methods=["POST"]),
    Route("/page/files", files.listed), Route("/page/files", files.upload, methods=["POST"]),
    Route("/page/votes", votes.board), Route("/page/votes", votes.vote, methods=["POST"]),
]  # fmt: skip
