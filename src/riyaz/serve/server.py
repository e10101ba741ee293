"""Runs the application: one socket, and an end that lets answers finish."""

import asyncio
import contextlib
import errno
import gc
import logging
import socket
import time
from collections.abc import Callable
from functools import partial

import uvicorn

from riyaz.config import ServeConfig
from riyaz.errors import RiyazError
from riyaz.serve.app import application
from riyaz.serve.connection import Connection
from riyaz.serve.guard import check_origins, expect_guarded
from riyaz.serve.problems import Problem
from riyaz.serve.sharing import MOST, Shared
from riyaz.serve.state import State
from riyaz.system import limit, set_limit

WATCH = 0.1  # seconds between two looks whether the server is to end
FILES = 256  # open files beside the connections
QUEUE, ACCEPTED = 2048, 16  # connections that wait to be accepted, and that are accepted in a turn of the event loop
GRACE = 2  # seconds for the last bytes of answers that were cut
TURNS = 5  # of the event loop, in which a connection that waits is accepted and its request's head is read


def bound(config: ServeConfig) -> socket.socket:
    """The socket that the server will listen on. Raises RiyazError for a port that is in use, an address that is not
    this machine's, and one that others reach where there is no key."""
    expect_guarded(config)
    check_origins(config.allow_origin)
    where = f"--host {config.host} --port {config.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise RiyazError(f"{config.host} is no address ({error.strerror})", "--host") from None
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(address)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise RiyazError(f"port {config.port} is in use", where, "choose another, or 0 for a free one") from None
        raise RiyazError(f"cannot listen there ({error.strerror})", where, "choose another one") from None
    return made


def url_of(listening: socket.socket) -> str:
    """The address of the server, such as http://127.0.0.1:8000."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Uvicorn's server, which goes on listening while its last answers run: whoever asks then, a balancer's check of
    /health too, gets a 503 instead of a connection that is refused or breaks."""

    def __init__(self, config: uvicorn.Config, state: State, shared: Shared) -> None:
        super().__init__(config)
        self._state, self._shared = state, shared
        self._seen = -1  # requests and connections that had come when it was looked last
        self._until = 0.0  # when answers are cut, on the clock of time.monotonic; 0 before the end has begun

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, with a queue that is longer than what is accepted in one turn."""
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(QUEUE)

    async def on_tick(self, counter: int) -> bool:
        """Whether to close now: it is to end, and no answer runs and nobody has asked since the last look, or the time
        for both is over. A balancer sends requests until its next check of /health; each must be refused, not lost."""
        if not await super().on_tick(counter):
            return False
        self._until = self._until or time.monotonic() + self._state.config.drain
        left = self._until - time.monotonic()
        self.config.timeout_graceful_shutdown = int(max(left, 0)) + 2 * GRACE
        if self._seen == self._shared.came:  # also where the process stood still, and much has come meanwhile?
            for _ in range(TURNS):
                await asyncio.sleep(0)
        quiet, self._seen = self._seen == self._shared.came, self._shared.came
        return self.force_exit or (quiet and not self._state.open) or left <= 0


def made(state: State) -> Server:
    """The server of an application, not running yet; `should_exit` ends it."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # a warning is a line for each bad head of a stranger
    _allow_many_connections()
    app = application(state)
    shared = Shared(app.brings_key, int(max(1, min(MOST, limit("NOFILE")[0] - FILES))))
    config = uvicorn.Config(
        app, lifespan="on", log_config=None, access_log=False, server_header=False, ws="none",
        http=partial(Connection, shared), timeout_graceful_shutdown=2 * GRACE, backlog=ACCEPTED,  # type: ignore[arg-type]
    )  # fmt: skip
    return Server(config, state, shared)


def run(
    server: uvicorn.Server, state: State, listening: socket.socket, started: Callable[[], None],
    load: Callable[[], None] | None = None,
) -> None:  # fmt: skip
    """Serve until SIGTERM or SIGINT; then no answer is begun, and those that run have `drain` seconds. A second
    SIGINT ends at once. `load` opens the models, while /health and /ready answer already; what it raises ends the
    server and is raised."""
    failed: list[Exception] = []

    async def serve() -> None:
        watching = asyncio.ensure_future(_watch(server, state, started, load, failed))
        try:
            await server.serve([listening])
        finally:
            watching.cancel()

    try:
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again when all is done
            asyncio.run(serve())
    finally:
        gc.unfreeze()
    if failed:
        raise failed[0]


async def _watch(
    server: uvicorn.Server, state: State, started: Callable[[], None], load: Callable[[], None] | None,
    failed: list[Exception],
) -> None:  # fmt: skip
    """Open the models and say that the server has started; when it is to end, refuse requests, then cut answers that
    take too long."""
    while not server.started:
        await asyncio.sleep(WATCH / 10)
    if load is not None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, load)
        except Exception as error:
            failed.append(error)
            server.should_exit = True
            return
        state.loaded = True
    gc.collect()
    gc.freeze()  # the models are not looked through again at every collection, while which all requests wait
    if not server.should_exit:
        started()
    while not server.should_exit:
        await asyncio.sleep(WATCH)
    state.draining = True
    await asyncio.sleep(state.config.drain)
    state.engine.cut_off(Problem(503, "the server ends and cut this answer"))


def _allow_many_connections() -> None:
    """Each connection is an open file, of which a process may often have 1,024 unless it asks for more."""
    soft, hard = limit("NOFILE")
    most = min(MOST + FILES, hard)
    if soft < most:
        set_limit("NOFILE", most, hard)
