"""An HTTP endpoint in OpenAI's form as a teacher: only the address that the user names is connected to.

Nothing of it is trusted. Redirects are not followed and no proxy is used, since the key would go along; the size and
the time of an answer are bounded. The key comes from the environment and stands in no file and no message.
"""

import contextlib
import http.client
import os
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message as Headers
from itertools import islice
from typing import Any
from urllib.parse import SplitResult, urlsplit

from riyaz.data import Message
from riyaz.errors import RiyazError, brief, listed, shown
from riyaz.json_files import json_or, to_json
from riyaz.teacher.openai_form import error_of, request_of, text_of

KEY = "RIYAZ_TEACHER_KEY"  # environment variable with the endpoint's key; never in a file
AT_ONCE = 4  # requests under way
TIMEOUT = 300.0  # seconds for a connection, and for a whole answer behind it, which is not streamed
LONGEST = 2**20  # bytes of an answer
RETRIES = 5  # further tries after a failure that may pass
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds before the first of them, twice as many before each next one; the most
PASSING = (408, 429, 500, 502, 503, 504)  # statuses of failures that may pass
LOCAL = ("localhost", "127.0.0.1", "::1")
LABEL = r"[A-Za-z0-9_-]{1,63}"
HOST = re.compile(rf"({LABEL}(\.{LABEL})*\.?|\[[0-9A-Fa-f:.]+\])(:[0-9]{{1,5}})?")
ENDING = "such an address often ends in /v1"


@dataclass(frozen=True)
class Endpoint:
    """A model behind an address such as "http://localhost:8000/v1", without a slash at the end."""

    address: str
    model: str


def is_address(target: str) -> bool:
    """Whether a teacher is named by an address, not by a model of ours."""
    return re.match("https?://", target, re.IGNORECASE) is not None


def open_endpoint(address: str, model: str | None) -> Endpoint:
    """An endpoint by its address and its model, by default the only one that GET {address}/models lists; with a model
    nothing is sent yet. Raises RiyazError."""
    parts = _parts(address)
    client = _Client(f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}")
    return Endpoint(client.address, model or client.only_model())


def ask(
    endpoint: Endpoint,
    conversations: Sequence[Sequence[Message]],
    max_tokens: int,
    keep: Callable[[int, str], None],
) -> None:
    """The likeliest answer to each conversation, of at most `max_tokens` tokens: `keep` gets its place and its text as
    it arrives, in the calling thread. Raises RiyazError for the first request that fails for good, after the answers
    that had arrived were kept; then, and when stopped, requests under way are cut off."""
    client = _Client(endpoint.address)
    jobs: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[int, str | Exception]] = queue.SimpleQueue()

    def work() -> None:
        while (place := jobs.get()) is not None:
            try:
                answers.put((place, client.answer(endpoint.model, conversations[place], max_tokens)))
            except Exception as error:
                answers.put((place, error))

    waiting = iter(range(len(conversations)))
    try:
        for place in islice(waiting, AT_ONCE):
            jobs.put(place)
            threading.Thread(target=work, daemon=True).start()  # a daemon: a program that ends does not wait for it
        for _ in conversations:
            place, answer = answers.get()
            if isinstance(answer, Exception):
                _keep_arrived(answers, keep)
                raise answer
            jobs.put(next(waiting, None))
            keep(place, answer)
    finally:
        client.stop()
        for _ in range(AT_ONCE):
            jobs.put(None)


def _keep_arrived(answers: "queue.SimpleQueue[tuple[int, str | Exception]]", keep: Callable[[int, str], None]) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            place, answer = answers.get_nowait()
            if isinstance(answer, str):
                keep(place, answer)


def _parts(address: str) -> SplitResult:
    """Scheme, host, port and path of an address. Raises RiyazError, which quotes nothing that may be a secret."""
    where, value = "the teacher's address", shown(address) if "@" not in address else "it"
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if "@" in parts.netloc or "?" in address or "#" in address:
        what = "it holds more than scheme, host, port and path, and would be stored"
        raise RiyazError(what, where, f"leave out what follows ? or # and stands before @; a key goes into {KEY}")
    if not is_address(address) or not HOST.fullmatch(parts.netloc) or not re.fullmatch("[!-~]+", address) or port == 0:
        raise RiyazError(f"{value} is no address", where, "write one such as http://localhost:8000/v1")
    return parts


def _key(parts: SplitResult) -> str:
    """The key in the environment, "" for none. Raises RiyazError where others could read it on its way."""
    key = os.environ.get(KEY, "").strip()
    if not key:
        return ""
    if not re.fullmatch("[!-~]+", key):
        raise RiyazError("it holds a character that is in no key", KEY, "set it to the key alone")
    if parts.scheme != "https" and parts.hostname not in LOCAL:
        what = f"the key would go to {parts.hostname} in plain text"
        raise RiyazError(what, KEY, "write https:// in the address, or unset the variable")
    return key


class _Passing(Exception):
    """A failure that may pass, and after how many seconds the server says so."""

    def __init__(self, what: str, seconds: float = 0.0) -> None:
        super().__init__(what)
        self.seconds = seconds


@dataclass(frozen=True)
class _Reply:
    """A status, the headers and at most LONGEST + 1 bytes."""

    status: int
    headers: Headers
    content: bytes

    @property
    def kind(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0].strip() or "nothing"

    @property
    def seconds(self) -> float:
        """How long the server asks to wait."""
        value = self.headers.get("Retry-After", "").strip()
        return float(value) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value) else 0.0


class _Client:
    """Requests to one address, from several threads. `stop` cuts off those under way, and no other begins."""

    def __init__(self, address: str) -> None:
        parts = _parts(address)
        self.address, self._path, self._key = address, parts.path.rstrip("/"), _key(parts)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname or "", parts.port or (443 if self._tls else 80)
        self._stopped = threading.Event()
        self._sockets: set[socket.socket] = set()

    def stop(self) -> None:
        """Cut off what is under way in other threads."""
        self._stopped.set()
        for each in tuple(self._sockets):
            _cut(each)

    def only_model(self) -> str:
        """The name of the one model that the endpoint lists. Raises RiyazError where it lists none or several."""
        document = self._document("/models")
        entries = document.get("data")
        names = [entry.get("id") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        known = list(dict.fromkeys(name for name in names if isinstance(name, str) and name))
        if len(known) != 1:
            what = f"lists {len(known):,} models: {listed(map(self._quoted, known))}" if known else "lists no model"
            raise RiyazError(what, self.address, "name the one that shall teach")
        return known[0]

    def answer(self, model: str, conversation: Sequence[Message], max_tokens: int) -> str:
        """The likeliest answer to one conversation. Raises RiyazError."""
        body = {"model": model, **request_of(conversation), "temperature": 0, "max_tokens": max_tokens}
        last = f"the conversation ends with {brief(conversation[-1]['content'])}"
        document = self._document("/chat/completions", to_json(body, ascii=True).encode(), last)
        text = text_of(document)
        if text is None:
            message = error_of(document)
            what = f"answers with the error {self._quoted(message)}" if message else "its answer holds no text"
            raise RiyazError(what, self.address, last if message else "name an endpoint of OpenAI's chat completions")
        return text

    def _document(self, path: str, body: bytes | None = None, last: str = "") -> dict[str, Any]:
        """The JSON object that GET, or POST with a body, answers; `last` says what the request is about. Failures that
        may pass are tried again. Raises RiyazError."""
        tries = 0
        while True:
            try:
                return self._object(self._reply(path, body), last)
            except _Passing as failure:
                tries += 1
                if tries > RETRIES:
                    what = f"{failure}, {tries} times" if RETRIES else str(failure)
                    raise RiyazError(what, self.address, "see what the server does, and try again later") from None
                wait = max(FIRST_WAIT * 2 ** (tries - 1), failure.seconds)
            if self._stopped.wait(min(wait, LONGEST_WAIT)):
                raise RiyazError("the request was stopped", self.address)

    def _reply(self, path: str, body: bytes | None) -> _Reply:
        """What the server answers. Raises RiyazError, _Passing for what may pass."""
        headers = {"Accept": "application/json", "User-Agent": "riyaz", "Connection": "close"}
        headers |= {"Content-Type": "application/json"} if body is not None else {}
        headers |= {"Authorization": f"Bearer {self._key}"} if self._key else {}
        begin = time.monotonic()
        try:
            with self._connected() as connection:
                connection.request("GET" if body is None else "POST", self._path + path, body, headers)
                with connection.getresponse() as response:
                    reply = _Reply(response.status, response.headers, _content(response))
            if time.monotonic() - begin < TIMEOUT:  # else it was cut off, and may be no whole answer
                return reply
            error: Exception = TimeoutError()
        except (OSError, http.client.HTTPException) as failure:
            error = failure if time.monotonic() - begin < TIMEOUT else TimeoutError()
        raise _failure(error, self.address) from None

    @contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        """A connection that is cut off after TIMEOUT seconds, however slowly bytes come, and by `stop`."""
        made = (
            http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT, context=self._tls)
            if self._tls
            else http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        )
        with contextlib.closing(made):
            made.connect()
            opened = made.sock  # `made` forgets it when the answer begins
            clock = threading.Timer(TIMEOUT, _cut, [opened])
            clock.daemon = True
            clock.start()
            self._sockets.add(opened)
            try:
                if self._stopped.is_set():
                    raise RiyazError("the request was stopped", self.address)
                yield made
            finally:
                clock.cancel()
                self._sockets.discard(opened)

    def _object(self, reply: _Reply, last: str) -> dict[str, Any]:
        """The JSON object of a reply. Raises RiyazError, _Passing for a status that may pass."""
        if 300 <= reply.status < 400:
            location = reply.headers.get("Location", "")
            what = f"redirects to {self._quoted(location)}, which is not followed"
            raise RiyazError(what, self.address, "name that address, if you trust it")
        document = json_or(reply.content.decode(errors="replace"))
        if not 200 <= reply.status < 300:
            raise self._refusal(reply, error_of(document), last)
        if len(reply.content) > LONGEST:
            raise RiyazError(f"answers with more than {LONGEST:,} bytes", self.address, "check the address")
        if not isinstance(document, dict):
            raise RiyazError(f"answers with {self._quoted(reply.kind)} and no JSON object", self.address, ENDING)
        return document

    def _refusal(self, reply: _Reply, message: str, last: str) -> Exception:
        """An answer with the status of an error."""
        phrase = http.client.responses.get(reply.status, "")
        what = f"answers {reply.status} {phrase}".rstrip() + (f": {self._quoted(message)}" if message else "")
        if reply.status in PASSING:
            return _Passing(what, reply.seconds)
        if reply.status in (401, 403):
            hint = f"set {KEY} to {'another' if self._key else 'the'} key of this endpoint"
        elif reply.status == 404:
            hint = f"check the model's name and the address; {ENDING}"
        else:
            hint = last or "check the address"
        return RiyazError(what, self.address, hint)

    def _quoted(self, text: str) -> str:
        """Text of the server, safe and short for a message; a key that it repeats is left out."""
        return shown(text.replace(self._key, "[key]") if self._key else text)


def _content(response: http.client.HTTPResponse) -> bytes:
    """At most LONGEST + 1 bytes. Raises IncompleteRead where fewer came than the server announced."""
    content = response.read(LONGEST + 1)
    if len(content) <= LONGEST and response.length:
        raise http.client.IncompleteRead(b"")
    return content


def _cut(connected: socket.socket) -> None:
    """End a connection that another thread reads from or writes to."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connected, socket.SHUT_RDWR)  # not TLS's own, which would wait for the other side


def _failure(error: Exception, address: str) -> Exception:
    """What went wrong between here and the server: _Passing, or a RiyazError."""
    if isinstance(error, TimeoutError):
        return _Passing(f"did not answer within {TIMEOUT:g} s")
    if isinstance(error, ConnectionRefusedError):
        return RiyazError("nothing listens there", address, "start the server, or correct the address")
    if isinstance(error, ConnectionError | ssl.SSLEOFError | http.client.IncompleteRead):
        return _Passing("broke off the connection")
    if isinstance(error, socket.gaierror):
        return RiyazError("no machine of this name is known", address, "correct the address, or connect to its network")
    if isinstance(error, ssl.SSLCertVerificationError):
        what = f"its certificate is not valid ({error.verify_message})"
        return RiyazError(what, address, "ask whoever runs the server, or correct the address")
    if isinstance(error, ssl.SSLError):
        what = f"TLS failed ({error.reason or 'for an unknown reason'})"
        return RiyazError(what, address, "write http:// for a server of this machine without TLS")
    if isinstance(error, http.client.HTTPException):
        return RiyazError("does not speak HTTP", address, "correct the address; https:// is needed for TLS")
    reason = getattr(error, "strerror", None) or type(error).__name__
    return RiyazError(f"cannot be reached ({reason})", address, "correct the address, or connect to its network")
