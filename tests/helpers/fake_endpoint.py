"""A server of OpenAI's form on 127.0.0.1 whose answers, good or bad, a test writes itself."""

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from waiting import HANG

# Of a server named localhost, signed by itself, until 2126; made for these tests alone.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgCBEUcJKOjuQu/lJH
ZqO19YwspXFsWh0mW8uqz8QRcmmhRANCAARxr8z8ocIyh/1UZWF/DLBcQCwwWqdD
SbpsGMvOF0JJPdtNZFqGJUbCAgJLZGfz+h2MHfkD/m45IjI91Xm0QnoD
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBlTCCATugAwIBAgIUFLaazwq+4ThoBN+DSmvBuqWqx90wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTIwMTAyMzUzNloYDzIxMjYxMTA3
MDIzNTM2WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARxr8z8ocIyh/1UZWF/DLBcQCwwWqdDSbpsGMvOF0JJPdtNZFqGJUbC
AgJLZGfz+h2MHfkD/m45IjI91Xm0QnoDo2kwZzAdBgNVHQ4EFgQUViv44bESHLHU
wodwOUvwIgIp1dMwHwYDVR0jBBgwFoAUViv44bESHLHUwodwOUvwIgIp1dMwDwYD
VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwID
SAAwRQIgArto0FdgpWCOHzLvruShPDiBdbb9Av4uUIVjnbnMr2gCIQDKqEnvnDR7
Hp+Gh6tUrzE8n3NiuF56wDFoKWj6ye9aaA==
-----END CERTIFICATE-----
"""


class Handler(BaseHTTPRequestHandler):
    """One request, which `Fake.reply` answers."""

    timeout = HANG

    def setup(self) -> None:
        """TLS begins in the thread of the connection."""
        if self.server.tls:  # type: ignore[attr-defined]
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)  # type: ignore[attr-defined]
        super().setup()

    def do_GET(self) -> None:
        """Answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.body = json.loads(body) if body else None
        self.server.fake.calls.append(self)  # type: ignore[attr-defined]
        self.server.fake.reply(self)  # type: ignore[attr-defined]

    do_POST = do_GET

    def log_message(self, *arguments: Any) -> None:
        """Nothing is written."""

    def send(self, content: bytes, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        """A whole response; an underscore in a header's name is a hyphen."""
        self.send_response(status)
        for name, value in {"Content_Type": kind, "Content_Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def document(self, value: Any, status: int = 200, **headers: str) -> None:
        """A response of JSON."""
        self.send(json.dumps(value).encode(), status, **headers)

    def answer(self, text: Any, **members: Any) -> None:
        """A chat completion with this content."""
        message = {"role": "assistant", "content": text, **members}
        self.document({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def reset(self) -> None:
        """End the connection with a reset in place of an answer."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.wfile.close()
        self.connection.close()


@dataclass
class Fake:
    """A server that listens, what answers its requests, and those that came."""

    address: str
    reply: Callable[[Handler], None]
    calls: list[Handler] = field(default_factory=list)


class Server(ThreadingHTTPServer):
    """A thread for each connection; a broken one is nothing to report."""

    fake: Fake
    tls: ssl.SSLContext | None = None
    daemon_threads, block_on_close, request_queue_size = True, False, 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing is written."""


@contextmanager
def fake_endpoint(reply: Callable[[Handler], None], certificate: Path | None = None) -> Iterator[Fake]:
    """A server on a free port, until the end of the block; over TLS where a file for its certificate is named."""
    with Server(("127.0.0.1", 0), Handler) as server:
        scheme, host = "http", "127.0.0.1"
        if certificate:
            certificate.write_text(CERTIFICATE)
            server.tls, scheme, host = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "https", "localhost"
            server.tls.load_cert_chain(certificate)
        server.fake = Fake(f"{scheme}://{host}:{server.server_address[1]}/v1", reply)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server.fake
        finally:
            server.shutdown()
            thread.join(HANG)
