"""One connection, read by uvicorn's HTTP/1.1, with bounds on what a client may make the server do before it has a key:
the size and the time of a request's head, what is read of its body, and what is read after the answer. And bounds for a
client that does not read its answer."""

import asyncio
import contextlib
import re
import socket
from typing import Any

import h11
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from riyaz.serve.sharing import Shared
from riyaz.serve.unread import ABORT, UNREAD, UNREAD_SECONDS

HEAD = 15.0  # seconds within which the head of a request must come, from the connection or its first byte on
HEAD_BYTES, HEAD_LINES = 16_384, 100  # of the head of a request: more are refused before they are read
END = re.compile(rb"\n\r?\n")  # of a head
PIECE = 4096  # bytes that are read at once before a request is accepted, and of a body in chunks
PASSING = 2**17  # the same of a body whose length is known, and of what goes by unseen
AFTER, AFTER_SECONDS = 16 * 2**20, 2.0  # bytes and time in which the rest of a body goes by, so that its answer is seen
UNSENT = 2**17  # bytes that the system keeps for a client beside those on their way
TOO_LARGE = "431 Request Header Fields Too Large", f"a head has at most {HEAD_BYTES:,} bytes and {HEAD_LINES} lines"
TOO_MANY = "503 Service Unavailable", "too many connections are open"
ENDING = "503 Service Unavailable", "the server is about to end"


class Connection(H11Protocol):
    """Uvicorn's protocol. A head is read in a turn of its own when it is whole, and the body only when the application
    asks for it, which it does after the check of the key. An answer that comes before the end of the request's body
    says `Connection: close`; the rest is read unseen for a short time, since a connection that is closed with unread
    bytes loses its answer (RFC 9112, section 9.6)."""

    def __init__(self, shared: Shared, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn.__class__ = _Parser
        self._shared = shared
        self._held = bytearray()  # what came and was not read: a part of a head, or what follows a head
        self._asked = False  # the application reads the body
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
        if not self._shared.enter(self):
            self._refuse(*TOO_MANY)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for."""
        self._shared.leave(self)
        self._stop_timer()
        self._stop_reading()
        self._ended = 0
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self.transport.release()  # type: ignore[attr-defined]

    def shutdown(self) -> None:
        """The server closes. A request that has come and is not read yet is refused: it would be lost."""
        if self._held and self._ended is None and (self.cycle is None or self.cycle.response_complete):
            self._refuse(*ENDING)
        else:
            super().shutdown()

    def drop(self) -> None:
        """Close the connection at once, with what was not sent."""
        self._own.abort()

    def data_received(self, data: bytes) -> None:
        """Keep a piece until it can be read, or let it by."""
        if self._ended is not None:
            self._ended -= len(data)
            if self._ended < 0:
                self.transport.abort()
        elif self._asked and self.conn.their_state is h11.SEND_BODY:
            super().data_received(data)
        else:
            self._held += data
            self._look()

    def _look(self) -> None:
        """Read the head that is held in one of the next turns, if it is whole or no head."""
        self._unset_keepalive_if_required()
        if self.conn.their_state is not h11.IDLE:  # it follows a request that is not answered yet
            self.flow.pause_reading()
            return
        if self._timer is None:  # a further request has begun
            self._timer = self.loop.call_later(HEAD, self.transport.abort)
        end = END.search(self._held)
        if end or self._held[0] <= 32 or len(self._held) > HEAD_BYTES:
            self.flow.pause_reading()
            self._shared.take(self, bytes(self._held[: end.end() if end else 0]))

    def read_head(self) -> None:
        """Read the head that is held, or refuse it."""
        if self._ended is not None or self.conn.their_state is not h11.IDLE:
            return
        end = END.search(self._held)
        size = end.end() if end else len(self._held)
        if size > HEAD_BYTES or self._held.count(b"\n", 0, size) > HEAD_LINES + 2:
            return self._refuse(*TOO_LARGE)
        head = bytes(self._held[:size])
        del self._held[:size]
        super().data_received(head)

    def handle_events(self) -> None:
        """Read the events of a piece; the answer to a request that begins may end the connection."""
        before = self.cycle
        super().handle_events()
        cycle = self.cycle
        if cycle is before:
            return
        self._stop_timer()
        self._shared.serve(self)
        self._asked = False
        names = {name for name, _ in self.headers}
        cycle.keep_alive = not {b"transfer-encoding", b"content-length"} <= names  # RFC 9112, section 6.3
        cycle.__class__ = _Cycle
        cycle.scope["extensions"] = {ABORT: {"call": self.transport.abort}}
        if self.conn.their_state is not h11.SEND_BODY and not self._held:  # so that a client that goes is noticed
            self.flow.resume_reading()

    def read_body(self) -> None:
        """The application reads the body: what has come of it, and the rest as it comes."""
        if self._asked:
            return
        self._asked = True
        if any(name == b"content-length" for name, _ in self.headers):
            self._own.max_size = PASSING
        if self._held and self.conn.their_state is h11.SEND_BODY:
            held, self._held = bytes(self._held), bytearray()
            super().data_received(held)

    def on_response_complete(self) -> None:
        """Wait for a further request, or read the one that has come."""
        super().on_response_complete()
        if self._ended is not None or self.cycle is None or not self.cycle.response_complete:
            return  # the connection ends, or a further request was read with the body of the last one
        self._shared.wait(self)
        self._own.max_size = PIECE
        if self._held:
            self._look()

    def _refuse(self, status: str, why: str) -> None:
        """Answer what is no request for the application, and end the connection."""
        fields = f"content-type: text/plain\r\ncontent-length: {len(why)}\r\nconnection: close"
        self.transport.write(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n{why}".encode())
        self._let_by()

    def end(self) -> bool:
        """Whether the rest of a request is still to come: the client reads the answer while that goes by, and then the
        connection is closed."""
        if self._ended is None and (self._held or self.conn.their_state in (h11.SEND_BODY, h11.ERROR)):
            self._let_by()
        return self._ended is not None

    def _let_by(self) -> None:
        self._ended = AFTER - len(self._held)
        self._held.clear()
        self._shared.wait(self)
        self._stop_timer()
        self.flow.resume_reading()
        with contextlib.suppress(OSError):  # of a client that is gone
            self.transport.write_eof()
        self._own.max_size = PASSING
        self._timer = self.loop.call_later(AFTER_SECONDS, self.transport.abort)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._shared.wait(self)
        self._stop_reading()
        self._expect_reading()

    def resume_writing(self) -> None:
        """All is sent."""
        self._shared.serve(self)
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


class _Parser(h11.Connection):
    """Reads HTTP/1.1, and leaves nothing behind of what is none."""

    def next_event(self) -> Any:
        """The next event; RemoteProtocolError for what is no HTTP."""
        try:
            return super().next_event()
        except h11.RemoteProtocolError as error:
            raise error.with_traceback(None) from None  # h11's traceback refers to the error, and so to itself


class _Cycle(RequestResponseCycle):
    """A request and its answer, of which the body is read when it is asked for."""

    async def receive(self) -> Any:
        """The next event of the request."""
        self.transport.read_body()  # type: ignore[attr-defined]
        return await super().receive()

    async def send(self, message: Any) -> None:
        """Answer; a client that has not sent all its body is told that the connection ends."""
        if message["type"] == "http.response.start" and (self.more_body or not self.keep_alive):
            message = {**message, "headers": [*message.get("headers", ()), CLOSE_HEADER]}
        await super().send(message)


class _Closing:
    """A connection's transport, which is closed only when no rest of a request is to come."""

    _connection: Connection | None

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport, self._connection = transport, connection

    def release(self) -> None:
        """Forget the connection, which is lost: what refers to itself is freed late, in a pause of the whole server."""
        self._connection = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def read_body(self) -> None:
        if self._connection is not None:
            self._connection.read_body()

    def close(self) -> None:
        if self._connection is None or not self._connection.end():
            self._transport.close()
