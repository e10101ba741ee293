"""What the handlers of one server share."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from starlette.requests import Request

from riyaz.config import ServeConfig
from riyaz.engine.scheduler import MAX_RUNNING
from riyaz.serve.engine_thread import EngineThread
from riyaz.serve.large import INLINE
from riyaz.serve.metrics import Metrics
from riyaz.serve.opening import Opener
from riyaz.serve.owners import owner
from riyaz.serve.page.place import Page
from riyaz.serve.page.readings import Readings
from riyaz.serve.problems import Problem
from riyaz.serve.shelf import Served, Shelf

if TYPE_CHECKING:
    from riyaz.engine.embedder import ModelEmbedder

T = TypeVar("T")
RETRY = 2  # seconds after which a client may ask again


@dataclass(eq=False)
class State:
    """The models, the engine's thread, those that prepare prompts, open adapters and write large answers, and how many
    requests there are."""

    config: ServeConfig
    shelf: Shelf
    opener: Opener
    engine: EngineThread = field(default_factory=EngineThread)
    metrics: Metrics = field(default_factory=Metrics)
    preparing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "riyaz-prepare"))
    opening: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "riyaz-open"))
    writing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "riyaz-write"))
    reading: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "riyaz-read"))
    page: Page | None = None  # None: the server has none
    readings: Readings = field(default_factory=Readings)
    loaded: bool = True  # False while the models are opened
    draining: bool = False  # the server ends: no new requests
    loading: asyncio.Lock = field(default_factory=asyncio.Lock)  # adapters are loaded one after the other
    open: int = 0  # answers that run or wait
    users: Counter[Served | None] = field(default_factory=Counter)  # the same, by what they use

    _embedder: "ModelEmbedder | None" = None
    _prepared_for: int = 0  # whose prompts were prepared last

    def embedder(self) -> "ModelEmbedder":
        """The embedder, opened when it is first asked for. Raises RiyazError, with the command that gets a missing
        one."""
        from riyaz.engine.opening import open_embedder

        if self._embedder is None:
            self._embedder = open_embedder(self.config.embedder)
        return self._embedder

    @property
    def room(self) -> int:
        """How many answers may still be asked for."""
        return max(0, MAX_RUNNING + self.config.max_queue - self.open)

    @contextlib.contextmanager
    def place(self, count: int, served: Served | None = None) -> Iterator["Places"]:
        """Places for so many answers of a model, each until it is freed or the block ends. Raises Problem: 429 where
        the queue is full, 503 when the server ends, 404 for a model that was removed since it was found."""
        if self.draining:
            raise ending()
        if count > MAX_RUNNING + self.config.max_queue:
            most = MAX_RUNNING + self.config.max_queue
            raise Problem(400, f"n: {count} answers are asked for at once, and this server takes {most}", "n")
        if count > self.room:
            where = {"queue_length": max(0, self.open - MAX_RUNNING), "queue_limit": self.config.max_queue}
            message = f"the queue is full: {self.open} answers run or wait"
            self.metrics.refused += 1
            raise Problem(429, message, headers={"Retry-After": str(RETRY)}, extra=where)
        if served is not None and self.shelf.find(served.name) is not served:
            raise Problem(404, f"{served.name} was removed", "model", "model_not_found")
        places = Places(self, set(range(count)))
        self.open += count
        self.users[served] += count
        try:
            yield places
        finally:
            for index in range(count):
                places.free(index)
            self.users[served] -= count
            if not self.users[served]:
                del self.users[served]  # else what was removed stayed in memory

    async def prepare(self, function: Callable[[], T]) -> T:
        """What a function gives in the thread that prepares prompts, which the event loop does not wait for. Searches
        that are kept there are forgotten when another owner asks."""
        asking = owner()

        def prepared() -> T:
            if asking != self._prepared_for:
                self._forget_searches()
                self._prepared_for = asking
            return function()

        return await asyncio.get_running_loop().run_in_executor(self.preparing, prepared)

    async def open_files(self, function: Callable[[], T]) -> T:
        """What a function gives that opens an adapter or a model, in a thread of its own: it may take long, and prompts
        are prepared meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self.opening, function)

    async def read(self, function: Callable[[], T]) -> T:
        """What a function gives that reads a large body, one after the other in a thread of their own."""
        return await asyncio.get_running_loop().run_in_executor(self.reading, function)

    async def write(self, function: Callable[[], T], numbers: int) -> T:
        """What a function gives that writes an answer of so many numbers: a large one in a thread of its own, which the
        event loop does not wait for."""
        if numbers <= INLINE:
            return function()
        return await asyncio.get_running_loop().run_in_executor(self.writing, function)

    def _forget_searches(self) -> None:
        for served in self.shelf:
            if served.predictor.has_model and served.predictor.retriever is not None:
                served.predictor.retriever.clear_cache()


@dataclass(eq=False)
class Places:
    """The places that a request has left: an answer that is made needs none, also while nobody reads it."""

    _state: State
    _left: set[int]

    def free(self, index: int) -> None:
        """Give back the place of an answer whose generation has ended; no effect on one that has none."""
        if index in self._left:
            self._left.discard(index)
            self._state.open -= 1


def ending() -> Problem:
    """The error while a server finishes its last answers."""
    return Problem(503, "the server is about to end", headers={"Retry-After": str(RETRY)})


def state_of(request: Request) -> State:
    """The state of the server that got the request."""
    state: State = request.app.state.riyaz
    return state


def page_of(request: Request) -> Page:
    """The page of the server that got the request, which has one."""
    page = state_of(request).page
    assert page is not None, "its routes are there"
    return page


@contextlib.asynccontextmanager
async def running(state: State) -> AsyncIterator[None]:
    """The engine's thread runs within the block."""
    state.engine.start()
    state.metrics.started = time.time()
    try:
        yield
    finally:
        await asyncio.get_running_loop().run_in_executor(None, state.engine.stop)
        for threads in state.preparing, state.opening, state.writing, state.reading:
            threads.shutdown(wait=False, cancel_futures=True)
