"""One connection, read by uvicorn's HTTP/1.1, with bounds on what a client may make the server do before it has a key:
the time of a request's head, what is read at once, and what is read after the answer."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

HEAD = 15.0  # seconds within which the head of a request must come, from the connection or its first byte on
PIECE = 4096  # bytes that are read before other connections have their turn: 700 chunks of one byte, 15 ms
AFTER, AFTER_SECONDS = 16 * 2**20, 2.0  # bytes and time in which the rest of a body goes by, so that its answer is seen


class Connection(H11Protocol):
    """Uvicorn's protocol. An answer that comes before the end of the request's body says `Connection: close`; the rest
    is read unseen for a short time, since a connection that is closed with unread bytes loses its answer (RFC 9112,
    section 9.6)."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._unread = bytearray()
        self._ended: int | None = None  # bytes that are still to be read unseen; None before the connection ends
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request's head."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is read or waited for."""
        self._unread.clear()
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read a piece; the rest when the other connections had their turn."""
        if self._ended is not None:
            self._ended -= len(data)
            if self._ended < 0:
                self.transport.abort()
            return
        waits = bool(self._unread)
        self._unread += data
        if not waits:
            self._read()

    def _read(self) -> None:
        if self.transport.is_closing() or self._ended is not None:
            self._unread.clear()
            return
        piece = bytes(self._unread[:PIECE])
        del self._unread[:PIECE]
        super().data_received(piece)
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self._timer is None:  # a further request has begun
            self._timer = self.loop.call_later(HEAD, self.transport.abort)
        if self._unread:
            self.transport.pause_reading()
            self.loop.call_soon(self._read)
        elif not self.flow.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def handle_events(self) -> None:
        """Read the events of a piece; the answer to a request that begins goes through this connection."""
        before = self.cycle
        super().handle_events()
        cycle = self.cycle
        if cycle is not before:
            cycle.send = lambda message: self._send(cycle, message)  # type: ignore[method-assign]
            cycle.transport = _Answering(self, cycle)  # type: ignore[assignment]

    async def _send(self, cycle: RequestResponseCycle, message: Any) -> None:
        if message["type"] == "http.response.start" and cycle.more_body:
            message = {**message, "headers": [*message.get("headers", ()), CLOSE_HEADER]}
        await RequestResponseCycle.send(cycle, message)

    def end(self) -> None:
        """Let the client read the answer while the rest of its body goes by, then close."""
        if self._ended is None and not self.transport.is_closing():
            self._ended = AFTER
            self._unread.clear()
            self._stop_timer()
            self.transport.resume_reading()
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self._timer = self.loop.call_later(AFTER_SECONDS, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Answering:
    """A connection's transport as one answer sees it: closed at the answer's end, it first lets the body's rest by."""

    def __init__(self, connection: Connection, cycle: RequestResponseCycle) -> None:
        self._connection, self._cycle = connection, cycle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection.transport, name)

    def close(self) -> None:
        if self._cycle.more_body:
            self._connection.end()
        else:
            self._connection.transport.close()
