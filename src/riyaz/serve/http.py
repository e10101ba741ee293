"""Reading a request's body, and answering: JSON, an error, or a stream of events.

Whoever waits for an answer is watched: when the client has gone, the task that makes the answer is cancelled, and with
it what the engine does for it.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from riyaz.errors import brief
from riyaz.serve.bodies import fields_of
from riyaz.serve.fields import Table, ignored_header
from riyaz.serve.problems import Problem, in_messages, problem_of
from riyaz.serve.state import State, state_of
from riyaz.serve.unread import ABORT, Unread

MB = 2**20
READING = 30.0  # seconds within which a request's body must come, and in which a longer one may be silent
SLOWEST = 8192  # bytes per second of a longer body, after READING
WRITING = 30.0  # seconds in which a client must read what was answered
PING = 15.0  # seconds between comments that keep an idle stream open
EVENTS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}
DONE = "[DONE]"


async def read_body(request: Request, table: Table) -> tuple[dict[str, Any], dict[str, str]]:
    """The supported fields of a request's JSON body, and the header that names those left out. Raises Problem."""
    body, ignored = await read_fields(request, table)
    return body, ignored_header(ignored)


async def read_fields(request: Request, table: Table) -> tuple[dict[str, Any], list[str]]:
    """The supported fields of a request's JSON body, and the names of those left out. Raises Problem."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, f"the content type is {brief(kind)}; send application/json")
    try:
        async with asyncio.timeout(READING):
            sent = await _bytes(request)
    except TimeoutError:
        raise Problem(408, f"the request's body did not come within {READING:g} s") from None
    return await fields_of(sent, table, state_of(request))


async def _bytes(request: Request) -> bytearray:
    """The whole body, once. Raises Problem 413 as soon as it is too large."""
    most = int(state_of(request).config.max_body_mb * MB)
    length = request.headers.get("content-length", "0")
    data = bytearray()
    if length.isdecimal() and int(length[:20]) > most:
        raise Problem(413, f"the request has {length[:20]} bytes, and at most {most:,} are read")
    async for chunk in request.stream():
        data += chunk
        if len(data) > most:
            raise Problem(413, f"the request has more than {most:,} bytes")
    return data


def error_response(problem: Problem, path: str) -> JSONResponse:
    """The response of a Problem, in the form that the clients of a path read."""
    return JSONResponse(problem.body(path), problem.status, problem.headers)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, Response]) -> Response:
    """The response that `work` makes; it is cancelled when the client has gone."""
    making, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({making, gone}, return_when=asyncio.FIRST_COMPLETED)
        if making.done():
            return making.result()
        raise ClientGone
    finally:
        gone.cancel()
        making.cancel()
        await asyncio.wait({making, gone})


class ClientGone(Exception):
    """The client closed its connection; there is nobody to answer."""


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def incoming(request: Request) -> AsyncIterator[bytes]:
    """The parts of a long body as they come. Raises Problem 408 where nothing comes for READING seconds, and where it
    is slower in all than SLOWEST after these seconds."""
    parts, began, size = request.stream(), time.monotonic(), 0
    while True:
        left = READING + size / SLOWEST - (time.monotonic() - began)
        try:
            part = await asyncio.wait_for(anext(parts, None), max(0.0, min(READING, left)))
        except TimeoutError:
            slow = f"the body comes too slowly: {size:,} bytes in {time.monotonic() - began:.0f} s"
            raise Problem(408, f"{slow}; send it again") from None
        if part is None:
            return
        size += len(part)
        yield part


class EventStream(Response):
    """Server-sent events. They are taken as they are made, and a client that leaves too much unread is given up
    (`Unread`). The status is sent with the first event, or after PING seconds, so that what goes wrong
    before it is an error like any other; what goes wrong later is an event, and the stream ends without DONE, as every
    stream of Anthropic's messages does."""

    def __init__(self, events: AsyncGenerator[str, None], headers: dict[str, str], state: State) -> None:
        self.events, self.own, self.state = events, headers, state
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the client has gone."""
        unread = Unread(self.events)
        filling, gone = asyncio.ensure_future(unread.fill()), asyncio.ensure_future(_gone(receive))
        sending = asyncio.ensure_future(self._send(unread, scope, receive, send))
        until = time.monotonic() + self.state.config.request_timeout + WRITING
        try:
            while not (sending.done() or gone.done()):
                left = min(until - time.monotonic(), unread.patience)
                if left <= 0:
                    await _abort(scope, gone)
                    break
                await asyncio.wait({sending, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                self.state.metrics.cancelled += 1
            elif not isinstance(sending.exception(), OSError):
                sending.result()
        finally:
            for task in (gone, sending, filling):
                task.cancel()
            await asyncio.wait({sending, gone, filling})
            await self.events.aclose()

    async def _send(self, unread: Unread, scope: Scope, receive: Receive, send: Send) -> None:
        writer, named = _Writer(send, self.own), in_messages(scope["path"])
        pinging = asyncio.ensure_future(writer.ping())
        try:
            async for event in unread.sent():
                await writer.write(f"{event}\n\n" if event.startswith("event: ") else f"data: {event}\n\n")
            await writer.write("" if named else f"data: {DONE}\n\n", more=False)
        except OSError:
            raise
        except Exception as error:
            problem = problem_of(error)
            self.state.metrics.failed[problem.status] += 1
            if not writer.started:
                return await error_response(problem, scope["path"])(scope, receive, send)
            event = "event: error\n" if named else ""
            await writer.write(f"{event}data: {dumped(problem.body(scope['path']))}\n\n", more=False)
        finally:
            pinging.cancel()


async def _abort(scope: Scope, gone: asyncio.Future[None]) -> None:
    """Close a connection whose client does not read, with what is unread, where the server is the one of
    `connection.py`; and wait until that is noticed."""
    if (extension := scope.get("extensions", {}).get(ABORT)) is not None:
        extension["call"]()
        await asyncio.wait({gone}, timeout=1)


class _Writer:
    """The status before the first event, and comments where there is no event for PING seconds."""

    def __init__(self, send: Send, headers: dict[str, str]) -> None:
        self.started = self._busy = False
        self._send, self._headers, self._lock = send, headers, asyncio.Lock()

    async def write(self, text: str, more: bool = True) -> None:
        """Send one event. A turn of the loop follows, in which a client that has gone is noticed: else many events that
        are ready at once would be written to a closed connection, and other requests would wait for them all."""
        self._busy = True
        async with self._lock:
            if not self.started:
                self.started = True
                headers = [(name.encode(), value.encode()) for name, value in {**EVENTS, **self._headers}.items()]
                await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._send({"type": "http.response.body", "body": text.encode(), "more_body": more})
        await asyncio.sleep(0)

    async def ping(self) -> None:
        """Send comments, until cancelled."""
        while True:
            self._busy = False
            await asyncio.sleep(PING)
            if not self._busy:
                await self.write(": ping\n\n")


def dumped(document: Any) -> str:
    """A document as compact JSON."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False)
