"""One connection, read by uvicorn's HTTP/1.1, with bounds on what a client may make the server do before it has a key:
the time of a request's head, what is read at once, and what is read after the answer. And bounds for a client that does
not read its answer."""

import asyncio
import contextlib
import socket
from typing import Any

import h11
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from riyaz.serve.unread import ABORT, UNREAD, UNREAD_SECONDS

HEAD = 15.0  # seconds within which the head of a request must come, from the connection or its first byte on
PIECE = 4096  # bytes of a connection that are read before others have their turn: 700 chunks of one byte, 15 ms
AFTER, AFTER_SECONDS = 16 * 2**20, 2.0  # bytes and time in which the rest of a body goes by, so that its answer is seen
PASSING = 2**17  # the same of what goes by unseen, which costs no more in large pieces
UNSENT = 2**17  # bytes that the system keeps for a client beside those on their way


class Connection(H11Protocol):
    """Uvicorn's protocol. An answer that comes before the end of the request's body says `Connection: close`; the rest
    is read unseen for a short time, since a connection that is closed with unread bytes loses its answer (RFC 9112,
    section 9.6)."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._ended: int | None = None  # bytes that are still to be read unseen; None before the connection ends
        self._timer: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None  # while something is unread
        self._own: Any = None  # the transport itself

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request's head."""
        super().connection_made(_Closing(transport, self))  # type: ignore[arg-type]
        self._own = transport
        self._own.max_size = PIECE  # of one read of asyncio's sockets, else 256 KiB
        transport.set_write_buffer_limits(0)  # so that `pause_writing` is called while anything is unsent
        _bound_unsent(transport)
        self._timer = self.loop.call_later(HEAD, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for."""
        self._stop_timer()
        self._stop_reading()
        self._ended = 0
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read a piece, or let it by."""
        if self._ended is not None:
            self._ended -= len(data)
            if self._ended < 0:
                self.transport.abort()
            return
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self._timer is None and self._ended is None:  # a further request has begun
            self._timer = self.loop.call_later(HEAD, self.transport.abort)

    def handle_events(self) -> None:
        """Read the events of a piece; the answer to a request that begins may end the connection."""
        before = self.cycle
        super().handle_events()
        cycle = self.cycle
        if cycle is not before:
            cycle.send = lambda message: self._send(cycle, message)  # type: ignore[method-assign]
            cycle.scope["extensions"] = {ABORT: {"call": self.transport.abort}}

    async def _send(self, cycle: RequestResponseCycle, message: Any) -> None:
        if message["type"] == "http.response.start" and cycle.more_body:
            message = {**message, "headers": [*message.get("headers", ()), CLOSE_HEADER]}
        await RequestResponseCycle.send(cycle, message)

    def end(self) -> bool:
        """Whether the rest of a request is still to come: the client reads the answer while that goes by, and then the
        connection is closed."""
        if self._ended is None and self.conn.their_state in (h11.SEND_BODY, h11.ERROR):
            self._ended = AFTER
            self._stop_timer()
            self.flow.resume_reading()
            self.transport.write_eof()
            self._own.max_size = PASSING
            self._timer = self.loop.call_later(AFTER_SECONDS, self.transport.abort)
        return self._ended is not None

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._stop_reading()
        self._expect_reading()

    def resume_writing(self) -> None:
        """All is sent."""
        self._stop_reading()
        super().resume_writing()

    def _expect_reading(self, before: int | None = None) -> None:
        """Close the connection where of an answer, `before` bytes that were unsent, too little is read in time."""
        size = self.transport.get_write_buffer_size()
        if before is not None and size > before - UNREAD:
            self.transport.abort()
        else:
            self._reading = self.loop.call_later(UNREAD_SECONDS, self._expect_reading, size)

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _bound_unsent(transport: asyncio.Transport) -> None:
    """Bound what the system keeps for a client that does not read, in bytes and in time, where it can (Linux). Without
    it that is megabytes for each connection, and after the connection is closed too."""
    unsent, patience = getattr(socket, "TCP_NOTSENT_LOWAT", None), getattr(socket, "TCP_USER_TIMEOUT", None)
    made = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        if unsent is not None:
            made.setsockopt(socket.IPPROTO_TCP, unsent, UNSENT)
        if patience is not None:
            made.setsockopt(socket.IPPROTO_TCP, patience, int(1000 * UNREAD_SECONDS))


class _Closing:
    """A connection's transport, which is closed only when no rest of a request is to come."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport, self._connection = transport, connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        if not self._connection.end():
            self._transport.close()
