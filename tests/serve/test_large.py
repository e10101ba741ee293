"""Answers of megabytes: the same bytes as any, and others do not wait while they are made."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from live_server import Running, running
from loop_turns import turns
from waiting import HANG

from riyaz.serve import large
from riyaz.serve.http import dumped
from riyaz.serve.large import PART, dumped_in_parts
from riyaz.serve.opening import Opener

CALLS = 5000  # of functions, in a turn of the event loop: 1,900 are; to write the smallest answer here takes 1,800,000
LIKELY = [None, *({f"é{token}": -0.1 * token for token in range(20)} for _ in range(1000))]
LETTERS = [{"token": "ü", "logprob": -0.5, "bytes": [195, 188], "top_logprobs": [{"token": "a", "bytes": [97]}] * 20}]
DOCUMENTS: list[Any] = [
    {}, [], None, "ü", 1.5, [1, 2], {"a": {}}, {"a": []}, [{}], [[]], {"a": [{"b": []}]},
    {"id": 1, "choices": [{"index": n, "logprobs": {"top_logprobs": LIKELY, "tokens": ["a"] * 999}} for n in range(3)]},
    {"choices": [{"message": {"content": "é", "calls": [{"f": {"x": '"'}}]}, "logprobs": {"content": LETTERS * 300}}]},
    {"data": [{"embedding": [0.25] * 384, "index": n} for n in range(300)], "usage": {"total": 1}},
    {"few": list(range(PART)), "more": list(range(PART + 1)), "twice": list(range(2 * PART)), "object": {"y": None}},
]  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_large_document_is_written_as_any(document: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    longest, dump = [0], json.dumps

    def measured(value: Any, **options: Any) -> str:
        text = dump(value, **options)
        longest[0] = max(longest[0], len(text))
        return text

    wanted = dumped(document)
    monkeypatch.setattr(large.json, "dumps", measured)
    assert dumped_in_parts(document) == wanted
    assert longest[0] < 200_000, "one call keeps all threads waiting"
    if isinstance(document, dict):
        lazy = {name: iter(member) if isinstance(member, list) else member for name, member in document.items()}
        assert dumped_in_parts(lazy) == wanted
    plain = large.json_response(document, {"x": "y"})
    assert json.loads(plain.body) == json.loads(wanted) and plain.headers["x"] == "y"
    assert plain.headers["content-type"] == "application/json"


@pytest.fixture(scope="module")
def served(model_folder: Path) -> Iterator[Running]:
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    with running(opener) as server:
        yield server


def written(server: Running, path: str, body: dict[str, Any], patch: pytest.MonkeyPatch) -> bytes:
    """The answer to a request. While the thread that writes it stands still, /health is answered, and no turn of the
    event loop is long."""
    begun, answered, dump = threading.Event(), threading.Event(), large._dumped

    def held(value: Any, ascii: bool) -> str:
        if not answered.is_set():
            begun.set()
            assert threading.current_thread().name.startswith("riyaz-write") and answered.wait(HANG)
        return dump(value, ascii)

    patch.setattr(large, "_dumped", held)
    with ThreadPoolExecutor(1) as clients, turns(server) as counted:
        asked = clients.submit(server.post, path, body)
        assert begun.wait(HANG)
        assert server.http.get("/health").status_code == 200
        answered.set()
        answer = asked.result()
    assert answer.status_code == 200
    assert counted.most < CALLS
    return answer.content


@pytest.mark.parametrize("stream", [False, True])
def test_others_are_answered_while_log_probabilities_of_prompts_are_written(
    served: Running, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop stood for 2.5 s. benchmarks/attacks.py measures it in milliseconds."""
    prompts = [[10 + (n + token) % 400 for token in range(128)] for n in range(24)]
    body = {"model": "tiny", "prompt": prompts, "echo": True, "logprobs": 20, "max_tokens": 0, "stream": stream}
    content = written(served, "/v1/completions", body, monkeypatch)
    assert len(content) > 1_000_000
    if not stream:
        choices = json.loads(content)["choices"]
        assert [len(each["logprobs"]["top_logprobs"]) for each in choices] == [128] * 24
        assert [each["logprobs"]["top_logprobs"][0] for each in choices] == [None] * 24


def test_others_are_answered_while_those_of_answers_are_written(
    served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {
        "model": "tiny", "messages": [{"role": "user", "content": "hello"}], "n": 8, "logprobs": True,
        "top_logprobs": 20, "max_tokens": 100, "ignore_eos": True, "temperature": 1.0,
    }  # fmt: skip
    assert len(written(served, "/v1/chat/completions", body, monkeypatch)) > 1_000_000


def test_others_are_answered_while_the_texts_of_tokens_are_written(
    served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were made in the event loop, half a second for a prompt of a million characters."""
    body = {"model": "tiny", "prompt": "the order is late " * 50_000, "return_token_strs": True}
    document = json.loads(written(served, "/tokenize", body, monkeypatch))
    assert len(document["token_strs"]) == document["count"] == len(document["tokens"]) > 50_000
    few = served.post("/tokenize", {**body, "prompt": body["prompt"][:1800]}).json()
    size = few["count"] - 20
    assert (
        document["token_strs"][:size] == few["token_strs"][:size] and document["tokens"][:size] == few["tokens"][:size]
    )
