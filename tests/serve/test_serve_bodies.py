"""Bodies of the largest size that cost the most to read: other clients do not wait, and half letters are replaced."""

import contextlib
import json
import random
import re
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from linear_time import linear
from live_server import Running, assert_error, running
from loop_turns import turns
from waiting import HANG

from riyaz.data.bounds import ROW
from riyaz.serve import bodies
from riyaz.serve.bodies import MOST_NUMBERS, MOST_VALUES, parse
from riyaz.serve.opening import Opener
from riyaz.serve.problems import Problem

JSON = {"content-type": "application/json"}
CALLS = 5000  # of functions, in a turn of the event loop
SIZE = 2 * 2**20 - 40  # bytes: nearly as many as a body may have
HOSTILE = {
    "empty lists": "[" + "[]," * (SIZE // 3) + "1]",
    "empty objects": "[" + "{}," * (SIZE // 3) + "1]",
    "lists in lists": "[" + ("[" * 900 + "]" * 900 + ",") * (SIZE // 1801) + "1]",
    "objects and half a letter": '["\\ud800",' + '{"":0},' * (SIZE // 7) + "1]",
    "small numbers": "[" + "1," * (SIZE // 2) + "1]",
    "large numbers": "[" + ("9" * 4300 + ",") * (SIZE // 4301) + "1]",
    "numbers and half a letter": '["\\ud800",' + "1e9," * (SIZE // 4) + "1]",
    "half letters": '"' + "\\ud800" * (SIZE // 6) + '"',
    "names": "{" + ",".join(f'"{number:x}":1' for number in range(SIZE // 10)) + "}",
}
READ = {"objects and half a letter", "large numbers", "numbers and half a letter", "half letters"}  # in part


@pytest.fixture(scope="module")
def served(model_folder: Path) -> Iterator[Running]:
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    with running(opener) as server:
        yield server


# The other route has another check of its numbers.
SENT = [("/v1/completions", "prompt", kind) for kind in HOSTILE] + [("/detokenize", "tokens", "small numbers")]


@pytest.mark.parametrize(("path", "field", "kind"), SENT)
def test_others_are_answered_while_large_bodies_are_read(
    served: Running, path: str, field: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop stood for 4.9 s where eight clients sent lists in lists. Bodies are read one after the other, so three
    of a kind show what one keeps others waiting for. benchmarks/attacks.py measures it in milliseconds."""
    body = f'{{"model":"tiny","{field}":{HOSTILE[kind]}}}'.encode()
    assert len(body) > 2_000_000
    begun, answered, reading, whole = threading.Event(), threading.Event(), list[str](), bodies.parse

    def alone(sent: bytes | bytearray) -> dict[str, Any]:
        reading.append(threading.current_thread().name)
        begun.set()
        try:
            assert len(reading) == 1 and reading[0].startswith("riyaz-read") and answered.wait(HANG), reading
            return whole(sent)
        finally:
            reading.pop()

    monkeypatch.setattr(bodies, "parse", alone)
    with ThreadPoolExecutor(3) as clients, turns(served) as counted:
        sent = [clients.submit(served.http.post, path, content=body, headers=JSON) for _ in range(3)]
        assert begun.wait(HANG)
        assert served.http.get("/health").status_code == 200
        answered.set()
        assert {each.result().status_code for each in sent} <= {200, 400}
    assert counted.most < CALLS


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_call_reads_more_values_than_are_allowed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call of json.loads keeps all threads waiting. The other kinds have too many values."""
    read: list[int] = []
    loads = bodies.json.loads

    def counted(text: str, **options: Any) -> Any:
        read.append(sum(map(text.count, "[{:,")))
        return loads(text, **options)

    monkeypatch.setattr(bodies, "json", SimpleNamespace(loads=counted))
    with contextlib.suppress(Problem):
        parse(f'{{"model":"tiny","prompt":{HOSTILE[kind]}}}'.encode())
    assert max(read, default=0) <= 100_000 + 524_288
    assert bool(read) is (kind in READ)


def test_the_thread_that_reads_rests_for_as_long_as_it_read(monkeypatch: pytest.MonkeyPatch) -> None:
    now, rested = [5.0], list[float]()

    def reading(sent: bytes) -> dict[str, Any]:
        now[0] += 3
        raise Problem(400, "no body")

    monkeypatch.setattr(bodies, "parse", reading)
    monkeypatch.setattr(bodies, "time", SimpleNamespace(perf_counter=lambda: now[0], sleep=rested.append))
    with pytest.raises(Problem):
        bodies._resting(b"{}", {})
    assert rested == [3]


@pytest.mark.parametrize("kind", ["lists", "members"])
def test_a_body_of_too_many_lists_objects_and_members_is_one_line(served: Running, kind: str) -> None:
    members = ",".join(f'"{number:x}":1' for number in range(MOST_VALUES)).encode()
    many = b"[" + b"[]," * MOST_VALUES + b"1]" if kind == "lists" else b"{" + members + b"}"
    body = b'{"model": "tiny", "prompt": ' + many + b"}"
    answer = served.http.post("/v1/completions", content=body, headers=JSON)
    assert "more than 100,000 lists, objects, names and texts" in assert_error(answer, 400)["message"]


def test_brackets_colons_and_commas_in_texts_are_none() -> None:
    text = '[{":' * 200_000 + "," * MOST_NUMBERS + "\\"
    assert len(text) > ROW
    with pytest.raises(Problem, match="a text of the body has more than 1,048,576 characters"):
        parse(json.dumps({"prompt": text}).encode())
    text = text[-ROW:]
    assert parse(json.dumps({"prompt": text, "stop": ["\\", '"[']}).encode()) == {"prompt": text, "stop": ["\\", '"[']}


@pytest.mark.parametrize("end", ["", '"', "\\"])
def test_a_text_without_an_end_is_read_once(end: str) -> None:
    """A quarter of a megabyte took more than a minute: the text was sought again from each of its quotes."""
    body = b'{"prompt": "' + b'\\"[[[' * 400_000 + end.encode()
    with linear(), pytest.raises(Problem, match=r"Unterminated string|a text of the body has more than|Expecting"):
        parse(body)


def test_a_body_of_too_many_numbers_is_one_line(served: Running) -> None:
    body = b'{"model": "tiny", "tokens": [' + b"1," * (MOST_NUMBERS + 9) + b"1]}"
    answer = served.http.post("/detokenize", content=body, headers=JSON)
    assert "the body has more than 524,288 numbers; send less at once" in assert_error(answer, 400)["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat/completions/input_tokens", "/tokenize"])
def test_a_conversation_of_megabytes_is_one_line(served: Running, path: str) -> None:
    """Each message was bounded, and 16 of them took 1.6 GB."""
    turns = [{"role": "user", "content": "word " * 120_000}, {"role": "assistant", "content": "word " * 100_000}]
    body = {"model": "tiny", "messages": [*turns, {"role": "user", "content": "card"}]}
    problem = assert_error(served.http.post(path, json=body), 400)
    assert "messages: have 1,100,004 characters, and at most 1,048,576 are read" in problem["message"]


HALF = re.compile("[\ud800-\udfff]")
LETTERS = 'a"\\/\n\0 é中🙂\ud83d\ude00[{,:'


def drawn(draw: random.Random, depth: int) -> object:
    """A JSON value whose texts and names are of LETTERS."""
    kind, count = draw.randrange(6 if depth else 4), draw.randrange(4)
    if kind < 2:
        return "".join(draw.choices(LETTERS, k=draw.randrange(12)))
    if kind < 4:
        return draw.choice([True, None, 0, -17, 1.5e-7, 10**20])
    inner = [drawn(draw, depth - 1) for _ in range(count)]
    return inner if kind == 4 else {str(drawn(draw, 0)): each for each in inner}


def test_large_bodies_say_what_small_ones_say(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(47)
    monkeypatch.setattr(bodies, "INLINE", 0)
    for _ in range(3000):
        body = {"a": drawn(draw, 3), "é\n": drawn(draw, 2)}
        written = json.dumps(body, ensure_ascii=draw.random() < 0.5).encode("utf-8", "replace")
        known = json.loads(HALF.sub("\ufffd", json.dumps(json.loads(written), ensure_ascii=False)))
        monkeypatch.setattr(bodies, "LONG", draw.choice([0, 2**20]))
        pattern = bodies.PIECE.pattern.replace(b"{1,16384}", b"{1,%d}" % draw.randint(1, 5))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bodies, "PIECE", re.compile(pattern, re.DOTALL))
            sent = bytearray(written)
            assert repr(parse(sent)) == repr(known) and not sent, written


KINDS = {  # of a body of SIZE bytes, and the most memory that reading it may take in all, in bytes for each of its own
    "one text": (b'"' + b"x" * SIZE + b'"', 3.5),
    "one text with an emoji": (b'"' + "🙂".encode() + b"x" * SIZE + b'"', 3.5),
    "one text of escapes": (b'"' + b"\\n" * (SIZE // 2) + b'"', 3.5),
    "escaped quotes without an end": (b'"' + b'\\"[' * (SIZE // 3), 3.5),
    "texts of two letters": (b"[" + b'"ab",' * (SIZE // 5) + b"1]", 3.5),
    "lists in lists": (b"[" + (b"[" * 900 + b"]" * 900 + b",") * (SIZE // 1801) + b"1]", 3.5),
    "names": (b"{" + ",".join(f'"{number:x}":1' for number in range(SIZE // 10)).encode() + b"}", 3.5),
    "messages": (b"[" + b'{"role":"user","content":"ab"},' * (SIZE // 31) + b"1]", 3.5),
    "tokens": (b"[" + b"1000," * (SIZE // 5) + b"1]", 10),
    "fractions": (b"[" + b"1.5," * (SIZE // 4) + b"1]", 10),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_reading_a_body_takes_little_more_memory_than_the_body(kind: str) -> None:
    """Two megabytes of escaped quotes took 86, of texts of two letters 38."""
    value, most = KINDS[kind]
    tracemalloc.start()
    try:
        sent = bytearray(b'{"model":"tiny","prompt":' + value + b"}")
        size = len(sent)
        with contextlib.suppress(Problem):
            parse(sent)
        taken = tracemalloc.get_traced_memory()[1] / size
    finally:
        tracemalloc.stop()
    print(f"{kind}: {taken:.1f} bytes for each")
    assert taken < most


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"\ud83d\ude00", "\U0001f600"), (r"\uD83D", "\ufffd"), (r"\ude00", "\ufffd"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (r"\\ud83d", r"\ud83d"), (r"\\\ud83d", "\\\ufffd"), (r"\\\\ud83d", r"\\ud83d"),
        (r"\ude00\ud83d", "\ufffd\ufffd"),
        (r"\n\ud83dx", "\n\ufffdx"), (r"\ud83d\ude00\ude00", "\U0001f600\ufffd"), (r"\\ud83d\ude00", "\\ud83d\ufffd"),
        (r"\ud83d\n", "\ufffd\n"), (r"\ud83d\\ude00", "\ufffd\\ude00"), (r"\\\ud83d\ude00", "\\\U0001f600"),
    ],
)  # fmt: skip
def test_half_a_letter_is_replaced_and_a_whole_one_stays(written: str, read: str) -> None:
    assert parse(f'{{"a": "{written}", "{written}": 1}}'.encode()) == {"a": read, read: 1}


def test_small_bodies_are_read_at_once(monkeypatch: pytest.MonkeyPatch, served: Running) -> None:
    """A thread would cost every request of a few words more than reading does."""
    threads: list[str] = []
    whole = bodies.parse

    def named(sent: bytes) -> object:
        threads.append(threading.current_thread().name)
        return whole(sent)

    monkeypatch.setattr(bodies, "parse", named)
    ask = {"model": "tiny", "prompt": "the card", "max_tokens": 1}
    assert served.post("/v1/completions", ask).status_code == 200
    assert served.post("/v1/completions", {**ask, "user": "x" * bodies.INLINE}).status_code == 200
    assert "riyaz-read" not in threads[0] and "riyaz-read" in threads[1]
