"""An endpoint as a teacher: servers that answer, stall, break off, redirect or lie, and riyaz's own server."""

import queue
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import Handler, fake_endpoint
from live_server import KEY as SERVER_KEY
from live_server import running
from waiting import HANG, until

from riyaz.data import Message
from riyaz.errors import RiyazError
from riyaz.predictor import open_model
from riyaz.serve.opening import Opener
from riyaz.teacher import endpoint
from riyaz.teacher.endpoint import KEY, Endpoint, ask, is_address, open_endpoint
from riyaz.teacher.openai_form import text_of
from riyaz.text.sentences import whole_sentences

SECRET = "sk-secret-0123456789"
HELLO: list[Message] = [{"role": "user", "content": "Hello"}]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, short waits for the next try, and no answer that comes too late."""
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setattr(endpoint, "TIMEOUT", HANG)
    monkeypatch.setattr(endpoint, "RETRIES", 1)
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.01)


def answers_of(address: str, conversations: Sequence[Sequence[Message]] = (HELLO,)) -> dict[int, str]:
    """The answers that are kept."""
    kept: dict[int, str] = {}
    ask(Endpoint(address, "m"), conversations, 7, kept.__setitem__)
    return kept


def refusal_of(reply: Callable[[Handler], None] | str, conversations: Sequence[Sequence[Message]] = (HELLO,)) -> str:
    """The one line in which a server that answers so, or an address, is refused."""

    def line(address: str) -> str:
        with pytest.raises(RiyazError) as caught:
            answers_of(address, conversations)
        text = str(caught.value)
        assert text.isprintable() and len(text) < 400 and caught.value.__cause__ is None, text
        return text

    if isinstance(reply, str):
        return line(reply)
    with fake_endpoint(reply) as fake:
        text = line(fake.address)
        assert text.startswith(f"{fake.address}: "), text
        return text.removeprefix(f"{fake.address}: ")


def echo(handler: Handler) -> None:
    """Answers with the last turn."""
    handler.answer(f"You said {handler.body['messages'][-1]['content']}")


def cut_short(handler: Handler) -> None:
    """Announces 100 bytes and sends 12."""
    handler.send(b'{"choices": ', Content_Length="100")


def answer_and_calls(handler_reply: Callable[[Handler], None]) -> tuple[str, int]:
    """(the answer, how many requests it took)."""
    with fake_endpoint(handler_reply) as fake:
        return answers_of(fake.address)[0], len(fake.calls)


def first_then(first: Callable[[Handler], None]) -> Callable[[Handler], None]:
    """A server that fails once, and answers the next request."""
    again = threading.Event()

    def reply(handler: Handler) -> None:
        if again.is_set():
            return handler.answer("at last")
        again.set()
        first(handler)

    return reply


def test_an_address_is_told_from_a_name() -> None:
    assert is_address("http://localhost:8000/v1") and is_address("HTTPS://example.org")
    assert not any(map(is_address, ("smollm2-135m", "./http://x", "hf:a/b", "ftp://a", "http:/a", "")))


@pytest.mark.parametrize(("address", "says"), [
    ("ftp://a/v1", "'ftp://a/v1' is no address"), ("http:///v1", "is no address"), ("http://a..b", "is no address"),
    ("http://a b/v1", "is no address"), ("http://a:99999", "is no address"), ("http://a:0", "is no address"),
    ("http://a\x1b[31m", "is no address"), ("http://ä.de", "is no address"), ("http://[::1", "is no address"),
    ("http://a/v1\r\nX: y", "is no address"), ("http://a:b@c:d/v1", "is no address"), ("http://a\\b", "is no address"),
    ("http://me:hunter2@a/v1", "holds more than"), ("http://hunter2@a/v1", f"a key goes into {KEY}"),
    ("https://a/v1?key=hunter2", "holds more than"), ("https://a/v1#hunter2", "holds more than"),
    ("https://a:hunter2/x@b/v1", "is no address"),
])  # fmt: skip
def test_an_address_is_scheme_host_port_and_path(address: str, says: str) -> None:
    for model in ("m", None):
        with pytest.raises(RiyazError) as caught:
            open_endpoint(address, model)
        assert says in str(caught.value) and "hunter2" not in str(caught.value), str(caught.value)
    assert says in refusal_of(address)


def test_an_address_with_its_model_is_taken_without_a_request() -> None:
    for address, kept in (
        ("HTTP://Localhost:8000/v1/", "http://Localhost:8000/v1"),
        ("https://a.example/openai/v1", "https://a.example/openai/v1"),
        ("http://[::1]:80", "http://[::1]:80"),
    ):
        assert open_endpoint(address, "m") == Endpoint(kept, "m")
    for address, port in (("http://[::1]/v1", 80), ("https://[::1]", 443), ("https://[::1]:8000", 8000)):
        client = endpoint._Client(address)
        assert (client._host, client._port) == ("::1", port)


def test_the_only_model_is_taken() -> None:
    with fake_endpoint(lambda handler: handler.document({"data": [{"id": "one"}, {"id": "one"}]})) as fake:
        assert open_endpoint(f"{fake.address}/", None) == Endpoint(fake.address, "one")
        assert (fake.calls[0].command, fake.calls[0].path, len(fake.calls)) == ("GET", "/v1/models", 1)
        for data, says in (
            ([{"id": "one"}, {"id": "two\x1b"}], r"lists 2 models: 'one', 'two\x1b'; name the one"),
            ([], "lists no model"), ("x", "lists no model"), ([3, {"id": 3}], "lists no model"),
        ):  # fmt: skip
            fake.reply = lambda handler, data=data: handler.document({"data": data})  # type: ignore[misc]
            with pytest.raises(RiyazError) as caught:
                open_endpoint(fake.address, None)
            assert says in str(caught.value)


def test_answers_are_kept_in_the_calling_thread_as_they_arrive() -> None:
    kept: list[tuple[int, str, int]] = []
    arrived = threading.Event()

    def reply(handler: Handler) -> None:
        if handler.body["messages"][0]["content"] == "text 0":
            assert arrived.wait(HANG), "the first answer waits for the second to be kept"
        echo(handler)

    def keep(place: int, text: str) -> None:
        kept.append((place, text, threading.get_ident()))
        arrived.set()

    with fake_endpoint(reply) as fake:
        conversations = [[{"role": "user", "content": f"text {place}"}] for place in range(9)]
        ask(Endpoint(fake.address, "m"), conversations, 7, keep)
    assert sorted(kept) == [(place, f"You said text {place}", threading.get_ident()) for place in range(9)]
    assert kept[0][0] != 0
    body = next(call.body for call in fake.calls if call.body["messages"][0]["content"] == "text 3")
    wanted = {"model": "m", "messages": [{"role": "user", "content": "text 3"}], "temperature": 0, "max_tokens": 7}
    assert body == wanted and {(call.command, call.path) for call in fake.calls} == {("POST", "/v1/chat/completions")}
    assert answers_of(fake.address, []) == {}


def test_four_requests_are_under_way() -> None:
    """No fewer, else the first four would wait for another without end; and from no more than four threads."""
    four, others, threads = threading.Barrier(4, timeout=HANG), set(threading.enumerate()), list[int]()

    def reply(handler: Handler) -> None:
        four.wait()
        echo(handler)

    def keep(place: int, text: str) -> None:
        threads.append(sum("(work)" in thread.name for thread in {*threading.enumerate()} - others))

    with fake_endpoint(reply) as fake:
        ask(Endpoint(fake.address, "m"), [HELLO] * 12, 7, keep)
    assert len(threads) == 12 and threads[0] == 4


def test_the_key_is_a_header_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with fake_endpoint(echo) as fake:
        answers_of(fake.address)
        assert "Authorization" not in fake.calls[-1].headers
        monkeypatch.setenv(KEY, f" {SECRET}\n")
        answers_of(fake.address)
        call = fake.calls[-1]
        assert [name for name, value in call.headers.items() if SECRET in value] == ["Authorization"]
        assert call.headers["Authorization"] == f"Bearer {SECRET}" and SECRET not in call.path + str(call.body)
        assert SECRET not in repr(open_endpoint(fake.address, "m"))
    said = f"no such key: {SECRET}"
    replies: list[Callable[[Handler], None]] = [
        lambda handler: handler.document({"error": {"message": said}}, 401),
        lambda handler: handler.document({"error": {"message": said}}, 503),
        lambda handler: handler.document({"error": {"message": said}}),
        lambda handler: handler.send(b"", 302, Location=f"http://127.0.0.1/{SECRET}"),
        lambda handler: handler.send(b"", kind=SECRET),
    ]
    for reply in replies:
        text = refusal_of(reply)
        assert SECRET not in text and "[key]" in text
    captured = capsys.readouterr()
    assert SECRET not in captured.out + captured.err + caplog.text


def test_a_key_does_not_travel_in_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)
    for address in ("http://a.example/v1", "http://localhost.a.example", "http://127.0.0.1.a.example", "http://[::2]"):
        for text in (refusal_of(address), refused_at_opening(address)):
            assert "in plain text" in text and "https://" in text and SECRET not in text
    for address in ("https://a.example/v1", "http://localhost/v1", "http://LOCALHOST", "http://[::1]/v1"):
        assert open_endpoint(address, "m").model == "m"
    for wrong in ("two\nlines", "a b", "ä"):
        monkeypatch.setenv(KEY, wrong)
        text = refusal_of("http://localhost:1/v1")
        assert text.startswith(f"{KEY}: it holds a character") and wrong not in text


def refused_at_opening(address: str) -> str:
    """The line in which an address is refused before anything is sent."""
    with pytest.raises(RiyazError) as caught:
        open_endpoint(address, "m")
    return str(caught.value)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_status_that_may_pass_is_tried_again(status: int) -> None:
    assert answer_and_calls(first_then(lambda handler: handler.send(b"<p>", status, "text/html"))) == ("at last", 2)
    text = refusal_of(lambda handler: handler.document({"error": {"message": "busy"}}, status))
    assert text.startswith(f"answers {status} ") and ": 'busy', 2 times; " in text


def test_waits_double_and_the_servers_word_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(endpoint, "RETRIES", 4)
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 1.0)
    monkeypatch.setattr(endpoint.threading.Event, "wait", lambda self, seconds=None: waits.append(seconds))
    for after, expected in (("", [1, 2, 4, 8]), ("3", [3, 3, 4, 8]), ("86400", [60] * 4), ("-5", [1, 2, 4, 8])):
        waits.clear()
        refused_for_good(after)
        assert [wait for wait in waits if wait] == expected, after


def refused_for_good(after: str) -> None:
    """A client's request to a server that is busy, without threads, whose own waits are patched."""
    client = endpoint._Client("http://127.0.0.1:1")
    headers = endpoint.Headers()
    headers["Retry-After"] = after
    client._reply = lambda path, body: endpoint._Reply(429, headers, b"")  # type: ignore[method-assign]
    with pytest.raises(RiyazError, match="429"):
        client.answer("m", HELLO, 1)


def test_retry_after_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    wait, waits = threading.Event.wait, list[float | None]()

    def told(event: threading.Event, seconds: float | None = None) -> bool:
        waits.append(seconds)
        return wait(event, seconds)

    monkeypatch.setattr(threading.Event, "wait", told)
    reply = first_then(lambda handler: handler.document({}, 429, Retry_After="0.125"))
    assert answer_and_calls(reply) == ("at last", 2) and waits.count(0.125) == 1


@pytest.mark.parametrize("broken", [Handler.reset, cut_short, lambda handler: None])
def test_a_broken_connection_is_tried_again(broken: Callable[[Handler], None]) -> None:
    assert answer_and_calls(first_then(broken)) == ("at last", 2)
    assert refusal_of(broken).startswith("broke off the connection, 2 times; ")


@pytest.mark.parametrize("beginning", ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r\n{"])
@pytest.mark.parametrize("drips", [False, True])
def test_a_server_that_stalls_is_cut_off(monkeypatch: pytest.MonkeyPatch, beginning: str, drips: bool) -> None:
    """By the client: the server would go on for minutes, a byte after the other or without one."""
    begun, cut = list[Handler](), list[bool]()

    def stall(handler: Handler) -> None:
        begun.append(handler)
        try:
            handler.wfile.write(beginning.encode())
            if drips:
                until(lambda: handler.wfile.write(b" ") == 0, "the end of the connection")
            cut.append(handler.connection.recv(1) == b"")
        except (ConnectionError, AssertionError) as error:
            cut.append(isinstance(error, ConnectionError))

    monkeypatch.setattr(endpoint, "TIMEOUT", 0.1)
    assert refusal_of(stall).startswith("did not answer within 0.1 s, 2 times; ")
    until(lambda: len(cut) == len(begun), "the end of every request")
    assert all(cut)
    monkeypatch.setattr(endpoint, "TIMEOUT", HANG)
    assert answer_and_calls(first_then(Handler.reset)) == ("at last", 2)


def test_an_answer_that_is_no_json_object_says_what_came() -> None:
    hint = "such an address often ends in /v1"
    html = b"<!DOCTYPE html><p>Welcome"
    assert refusal_of(lambda handler: handler.send(html, kind="text/html; charset=utf-8")) == (
        f"answers with 'text/html' and no JSON object; {hint}"
    )
    for content in (b"", b"{", b"[]", b"null", b"[" * 100_000, b"9" * 5000, b"\xff"):
        assert "'application/json' and no JSON object" in refusal_of(lambda handler, c=content: handler.send(c))  # type: ignore[misc]
    assert r"'\x1b[31m'" in refusal_of(lambda handler: handler.send(b"", kind="\x1b[31m"))
    assert hint in refusal_of(lambda handler: handler.send(html, 404, "text/html"))


@pytest.mark.parametrize("document", [
    {}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": {"content": 3}}]}, {"choices": "abc"},
    {"choices": [{"message": {"content": None}}]}, {"choices": [{"message": {}, "finish_reason": "stop"}]},
    {"choices": [{"message": {"content": "", "tool_calls": [{"name": "f"}]}}]}, {"choices": {"0": {}}},
])  # fmt: skip
def test_an_answer_without_a_text_is_refused(document: dict[str, Any]) -> None:
    assert refusal_of(lambda handler: handler.document(document)).startswith("its answer holds no text; ")
    said = {**document, "error": {"message": "the model\x1b[2J is\nloading " + "x" * 900}}
    text = refusal_of(lambda handler: handler.document(said))
    assert text.startswith(r"answers with the error 'the model\x1b[2J is\nloading xxx") and "Hello" in text


@pytest.mark.parametrize("status", [400, 404, 413, 418, 422])
def test_a_refused_request_is_not_sent_again(status: int) -> None:
    for document in ({"error": {"message": "too long"}}, {"error": "too long"}, {"detail": "too long"}):
        with fake_endpoint(lambda handler, d=document: handler.document(d, status)) as fake:  # type: ignore[misc]
            text = refusal_of(fake.address)
            assert f"answers {status} " in text and ": 'too long'; " in text and len(fake.calls) == 1
            assert ("check the model's name" if status == 404 else "ends with 'Hello'") in text


def test_a_missing_or_wrong_key_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for status in (401, 403):
        assert f"set {KEY} to the key" in refusal_of(lambda handler, s=status: handler.document({}, s))  # type: ignore[misc]
    monkeypatch.setenv(KEY, SECRET)
    assert f"set {KEY} to another key" in refusal_of(lambda handler: handler.document({}, 401))


def test_an_answer_without_end_is_read_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: queue.SimpleQueue[int] = queue.SimpleQueue()

    def flood(handler: Handler, **headers: str) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(10**8)) if headers else None
        handler.end_headers()
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        count = 0
        try:
            for _ in range(1000):
                handler.wfile.write(b" " * 10**5)
                count += 10**5
        finally:
            sent.put(count)

    for headers in ({}, {"Content-Length": ""}):
        text = refusal_of(lambda handler, h=headers: flood(handler, **h))  # type: ignore[misc]
        assert text.startswith("answers with more than 1,048,576 bytes") and sent.get(timeout=HANG) < 2 * 10**7
    monkeypatch.setattr(endpoint, "LONGEST", len(b'{"choices": []}'))
    assert "no text" in refusal_of(lambda handler: handler.send(b'{"choices": []}'))
    assert "more than" in refusal_of(lambda handler: handler.send(b'{"choices": []} '))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv(KEY, SECRET)
    with fake_endpoint(echo) as other:
        text = refusal_of(lambda handler: handler.send(b"", status, Location=other.address))
        assert text.startswith(f"redirects to '{other.address}', which is not followed; ") and not other.calls
    assert r"'\x1b]0;'" in refusal_of(lambda handler: handler.send(b"", status, Location="\x1b]0;"))


def test_a_server_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert "nothing listens there; start the server" in refusal_of(f"http://127.0.0.1:{free.getsockname()[1]}/v1")

    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "no machine of this name is known" in refusal_of("http://a.example/v1")


def test_another_protocol_is_one_line() -> None:
    assert "does not speak HTTP" in refusal_of(lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n") and None)
    with fake_endpoint(echo) as fake:
        assert "TLS failed (" in refusal_of(fake.address.replace("http:", "https:"))


def test_a_certificate_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)
    with fake_endpoint(echo, tmp_path / "certificate.pem") as fake:
        assert "its certificate is not valid (" in refusal_of(fake.address) and not fake.calls
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        assert answers_of(fake.address) == {0: "You said Hello"}
        assert fake.calls[0].headers["Authorization"] == f"Bearer {SECRET}"
        assert "is not valid (" in refusal_of(fake.address.replace("localhost", "127.0.0.1"))
        over = threading.Event()
        fake.reply = lambda handler: over.wait(HANG) and None
        monkeypatch.setattr(endpoint, "TIMEOUT", 0.1)
        assert "did not answer within 0.1 s" in refusal_of(fake.address)
        over.set()


def test_riyaz_serves_and_riyaz_asks(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text(SERVER_KEY)
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    texts = ("please", "card", "change", "help", "order", "payment")
    conversations: list[list[Message]] = [[{"role": "user", "content": text}] for text in texts]
    with running(opener, api_key_file=tmp_path / "keys") as served:
        with pytest.raises(RiyazError, match="401 Unauthorized: 'no valid API key"):
            open_endpoint(f"{served.url}/v1", None)
        monkeypatch.setenv(KEY, SERVER_KEY)
        made = open_endpoint(f"{served.url}/v1/", None)
        assert made == Endpoint(f"{served.url}/v1", "tiny")
        kept: dict[int, str] = {}
        ask(made, conversations, 6, kept.__setitem__)
        text = refusal_of(f"{served.url}")
        assert "404" in text and "often ends in /v1" in text
        with pytest.raises(RiyazError, match="404"):
            ask(Endpoint(made.address, "other"), conversations, 6, kept.__setitem__)
    predictor = open_model(model_folder, "fp32")
    requests = [each.request for each in predictor.prepare(conversations, room=6)]
    answers = predictor.lm.generate(requests)
    texts_of = [(predictor.tokenizer.decode(ids), len(ids) >= 6) for ids in answers]
    whole = [whole_sentences(text + " ") if cut else text for text, cut in texts_of]
    assert kept == dict(enumerate(whole)) and any(cut for _, cut in texts_of)


def test_of_an_answer_that_its_limit_cuts_off_whole_sentences_are_left() -> None:
    def answer(text: str, reason: str) -> str | None:
        return text_of({"choices": [{"message": {"content": text}, "finish_reason": reason}]})

    assert answer("It is open. Come at no", "length") == "It is open."
    assert answer("Come at no", "length") == ""
    assert answer("It is open. Come at no", "stop") == "It is open. Come at no"
