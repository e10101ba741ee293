"""The application: every route, and every error in the form of its clients."""

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from riyaz import __version__
from riyaz.commit import commit
from riyaz.engine.lookup import Counts
from riyaz.errors import RiyazError
from riyaz.serve import adapters
from riyaz.serve.chat import chat_completions
from riyaz.serve.completions import completions
from riyaz.serve.decisions import decisions
from riyaz.serve.embeddings import embeddings
from riyaz.serve.fields import TABLES
from riyaz.serve.guard import Guard
from riyaz.serve.http import ClientGone, error_response
from riyaz.serve.messages import count_tokens, messages
from riyaz.serve.metrics import TYPE
from riyaz.serve.openapi import openapi
from riyaz.serve.page.place import ASSETS, INDEX, PREFIX
from riyaz.serve.page.routes import ROUTES as PAGE_ROUTES
from riyaz.serve.page.routes import WITH_MODEL
from riyaz.serve.problems import KINDS, Problem, problem_of
from riyaz.serve.rerank import rerank
from riyaz.serve.responses import responses
from riyaz.serve.state import RETRY, State, ending, running, state_of
from riyaz.serve.systemone import systemone
from riyaz.serve.tokens import detokenize, input_tokens, tokenize, tokenizer_info

WITHOUT_MODEL = ("/health", "/ready", "/version", "/metrics", "/openapi.json")


async def health(request: Request) -> Response:
    """The process lives and is not about to end."""
    if state_of(request).draining:
        raise ending()
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> Response:
    """Whether a request would be taken now."""
    state = state_of(request)
    if not state.loaded:
        raise loading()
    if state.draining:
        raise ending()
    if not state.room:
        raise Problem(503, "the queue is full")
    return JSONResponse({"status": "ok"})


async def version(request: Request) -> Response:
    """Riyaz' version."""
    return JSONResponse({"version": __version__, "commit": commit() or None})


async def metrics(request: Request) -> Response:
    """Counters and histograms for Prometheus."""
    state = state_of(request)
    engines = {served.base.lm for served in state.shelf if served.base is not None}
    limit = sum(lm.runner.cache_limit for lm in engines)
    used = await state.engine.call(lambda: sum(lm.cached_bytes for lm in engines))
    running_now = state.engine.running
    now = {
        "requests_running": running_now, "requests_waiting": max(0, state.open - running_now),
        "kv_cache_usage_ratio": used / limit if limit else 0.0,
    }  # fmt: skip
    lookup = sum((lm.drafts.counts for lm in engines), Counts())
    text = state.metrics.lines(now, [served.name for served in state.shelf], lookup)
    return PlainTextResponse(text, media_type=TYPE)


async def models(request: Request) -> Response:
    """Every model that can be asked for."""
    return JSONResponse({"object": "list", "data": [served.entry() for served in state_of(request).shelf]})


async def model(request: Request) -> Response:
    """One model, and what becomes of every field of a request to it."""
    served = state_of(request).shelf.find(request.path_params["name"])
    capabilities = {path: {name: each.use for name, each in table.items()} for path, table in TABLES.items()}
    return JSONResponse({**served.entry(), "capabilities": capabilities})


ROUTES = [
    Route("/health", health), Route("/ready", ready), Route("/version", version), Route("/metrics", metrics),
    Route("/openapi.json", openapi),
    Route("/v1/models", models), Route("/v1/models/{name:path}", model),
    Route("/v1/embeddings", embeddings, methods=["POST"]), Route("/v1/responses", responses, methods=["POST"]),
    Route("/v1/adapters", adapters.listed), Route("/v1/adapters", adapters.add, methods=["POST"]),
    Route("/v1/adapters/{name:path}", adapters.remove, methods=["DELETE"]),
    Route("/v1/load_lora_adapter", adapters.load_lora, methods=["POST"]),
    Route("/v1/unload_lora_adapter", adapters.unload_lora, methods=["POST"]),
    Route("/v1/chat/completions", chat_completions, methods=["POST"]),
    Route("/v1/chat/completions/input_tokens", input_tokens, methods=["POST"]),
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/messages", messages, methods=["POST"]),
    Route("/v1/messages/count_tokens", count_tokens, methods=["POST"]),
    Route("/v1/rerank", rerank, methods=["POST"]), Route("/rerank", rerank, methods=["POST"]),
    Route("/v1/decisions", decisions, methods=["POST"]), Route("/v1/systemone", systemone, methods=["POST"]),
    Route("/tokenize", tokenize, methods=["POST"]), Route("/detokenize", detokenize, methods=["POST"]),
    Route("/tokenizer_info", tokenizer_info),
]  # fmt: skip


class UntilLoaded:
    """Answers 503 for the routes that need a model, until the models are open."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request that can be answered."""
        if scope["type"] == "http" and not self._state.loaded and needs_model(scope["path"]):
            return await error_response(loading(), scope["path"])(scope, receive, send)
        await self._app(scope, receive, send)


def needs_model(path: str) -> bool:
    """Whether a route waits for the models."""
    if path.startswith((PREFIX, ASSETS)) or path == INDEX:
        return path in WITH_MODEL
    return path not in WITHOUT_MODEL


def loading() -> Problem:
    """The error while models are opened."""
    return Problem(503, "the model is loading", headers={"Retry-After": str(RETRY)})


def application(state: State) -> Guard:
    """The ASGI application of a server."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with running(state):
            yield

    handlers = dict.fromkeys((Exception, RiyazError, HTTPException, Problem, ClientGone, ClientDisconnect), failed)
    routes = [*ROUTES, *(PAGE_ROUTES if state.page else ())]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)  # type: ignore[arg-type]
    app.state.riyaz = state
    return Guard(UntilLoaded(app, state), state.config, state.page)


def allowed(request: Request) -> list[str]:
    """The methods of a path, which may have several routes; Starlette names those of the first."""
    same = [route for route in request.app.routes if route.matches(request.scope)[0] != Match.NONE]
    return sorted({method for route in same for method in route.methods})


async def failed(request: Request, error: Exception) -> Response:
    """The response of what a handler raised."""
    state = state_of(request)
    if isinstance(error, ClientGone | ClientDisconnect):
        state.metrics.cancelled += 1
        return Response(status_code=499)
    if isinstance(error, HTTPException):
        status = error.status_code if error.status_code in KINDS else 400
        headers = dict(error.headers or {})
        if status == 405:
            headers["Allow"] = ", ".join(allowed(request))
        error = Problem(status, f"{request.method} {request.url.path[:100]}: {error.detail}", headers=headers)
    problem = problem_of(error)
    state.metrics.failed[problem.status] += 1
    return error_response(problem, request.url.path)
