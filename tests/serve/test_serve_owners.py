"""What one key may see of another: nothing that the server keeps of a prompt is used for another key's."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from live_server import Running, running

from riyaz.config import ServeConfig
from riyaz.engine.runner import TokenRun
from riyaz.serve.opening import Opener
from riyaz.serve.owners import asking_as, owner_of
from riyaz.serve.page.place import Page
from riyaz.serve.page.routes import ROUTES as PAGE_ROUTES
from riyaz.serve.state import State

ONE, OTHER = "the-key-of-one-0123", "the-key-of-another-0123"
SECRET = "the card payment of the other customer was declined and the transfer is pending " * 3
QUESTION = {"type": "predicate", "instructions": "Is it about the other customer?", "name": "about"}
PATHS = ("chat/completions", "completions", "messages", "responses", "decisions", "systemone")


def body(path: str, text: str) -> dict[str, Any]:
    """A request of each route that reads a text."""
    messages = [{"role": "user", "content": text}]
    asked: dict[str, dict[str, Any]] = {
        "chat/completions": {"messages": messages, "max_tokens": 2},
        "completions": {"prompt": text, "max_tokens": 2},
        "messages": {"messages": messages, "max_tokens": 2},
        "responses": {"input": text, "max_output_tokens": 2},
        "decisions": {"input": text, "questions": [QUESTION]},
        "systemone": {"state": text, "questions": {"about": {"type": "noul", "instructions": "Is it so?"}}},
    }
    return {"model": "tiny", **asked[path]}


def cached(usage: dict[str, Any]) -> int | None:
    """What an answer says of kept tokens; None where it says nothing."""
    for details in ("prompt_tokens_details", "input_tokens_details"):
        if details in usage:
            return int(usage[details]["cached_tokens"])
    return usage.get("cache_read_input_tokens")


@pytest.fixture
def tokens_read() -> list[int]:
    return []


@pytest.fixture
def keyed(model_folder: Path, tmp_path: Path, tokens_read: list[int]) -> Iterator[Running]:
    """A server with two keys and a page; `tokens_read` gets the number of tokens of every pass."""
    keys, folder = tmp_path / "keys", tmp_path / "page"
    keys.write_text(f"{ONE}\n{OTHER}\n")
    folder.mkdir()
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    counting(opener, tokens_read)
    with running(opener, api_key_file=keys, page=Page(folder)) as server:
        yield server


def counting(opener: Opener, tokens_read: list[int]) -> None:
    runner = opener.bases[0].lm.runner
    forward = runner.forward

    def counted(runs: list[TokenRun]) -> Any:
        tokens_read.append(sum(len(run.tokens) for run in runs))
        return forward(runs)

    runner.forward = counted  # type: ignore[method-assign]


def asked(
    server: Running, key: str | None, path: str = "completions", text: str = SECRET, **more: Any
) -> dict[str, Any]:
    headers = {} if key is None else {"x-api-key": key}
    answer: httpx.Response = server.post(f"/v1/{path}", {**body(path, text), **more}, headers=headers)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


@pytest.mark.parametrize("path", PATHS)
def test_what_one_key_has_asked_is_cold_for_another(keyed: Running, tokens_read: list[int], path: str) -> None:
    assert keyed.state.page is not None
    asked(keyed, keyed.state.page.token, path, "the order")  # what every prompt begins with is read
    read, told = [], []
    for key in (ONE, OTHER, ONE, OTHER):
        tokens_read.clear()
        told.append(cached(asked(keyed, key, path)["usage"]))
        read.append(sum(tokens_read))
    # a cold prompt takes as long as the tokens that are read for it, and these are the same for both keys
    assert read[0] == read[1] > read[2] == read[3], read
    if told[0] is not None:
        common = told[0]  # the beginning of every prompt, which the template writes
        assert told[1] == common < 32 <= told[2] == told[3], told


def test_guesses_at_the_text_of_another_key_tell_nothing(keyed: Running) -> None:
    """The attack: of four guesses the right one had kept tokens."""
    asked(keyed, ONE)
    guesses = ["the order was late " * 12, "the card was lost " * 12, SECRET, "a refund is due " * 12]
    assert [cached(asked(keyed, OTHER, text=each)["usage"]) for each in guesses] == [0] * 4
    assert cached(asked(keyed, ONE)["usage"]) >= 32


def test_the_pages_token_is_a_key_of_its_own(keyed: Running) -> None:
    assert keyed.state.page is not None
    told = [cached(asked(keyed, key)["usage"]) for key in (ONE, keyed.state.page.token) * 2]
    assert told[:2] == [0, 0] and min(told[2:]) >= 32


def test_without_keys_the_page_and_other_clients_are_one_user(model_folder: Path, tmp_path: Path) -> None:
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    with running(opener, page=Page(tmp_path)) as server:
        assert server.state.page is not None
        told = [cached(asked(server, key)["usage"]) for key in (None, server.state.page.token, ONE)]
    assert told[0] == 0 and min(told[1:]) >= 32


def test_answers_of_keys_in_one_batch_are_those_alone(keyed: Running) -> None:
    drawn = {"max_tokens": 12, "temperature": 0.9, "seed": 3, "n": 2}
    wanted = [each["text"] for each in asked(keyed, ONE, **drawn)["choices"]]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda key: asked(keyed, key, **drawn), (ONE, OTHER) * 4))
    assert all([each["text"] for each in one["choices"]] == wanted for one in made)


def test_kept_searches_are_forgotten_when_another_key_asks(model_folder: Path) -> None:
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    (served,), forgotten = opener.shelf, list[str]()
    retriever = SimpleNamespace(clear_cache=lambda: forgotten.append(threading.current_thread().name))
    opener.shelf.take(served.name)
    opener.shelf.put(replace(served, predictor=replace(served.predictor, retriever=retriever)))
    state, counts = State(ServeConfig(), opener.shelf, opener), []

    async def ask(owner: int) -> None:
        asking_as(owner)
        await state.prepare(lambda: None)
        counts.append(len(forgotten))

    async def ask_all() -> None:
        for owner in (1, 1, 2, 1, 1):
            await asyncio.create_task(ask(owner))

    asyncio.run(ask_all())
    state.preparing.shutdown()
    assert counts == [1, 1, 2, 3, 3] and all(name.startswith("riyaz-prepare") for name in forgotten)


def test_the_number_of_a_key_stays_and_does_not_hold_it() -> None:
    assert owner_of(ONE) == owner_of(ONE) != owner_of(OTHER) and owner_of("") > 0
    assert 0 < owner_of(ONE) < 2**64


def test_nothing_that_is_everyones_tells_what_another_key_sent(keyed: Running) -> None:
    """Metrics, models, the document of the routes and errors: no text and no key of the other one."""
    for path in PATHS:
        sent = keyed.http.post(f"/v1/{path}", json=body(path, SECRET), headers={"x-api-key": ONE})
        assert sent.status_code == 200, (path, sent.text)
    wrong = {**body("chat/completions", SECRET), "user": "the-name-of-one", "max_tokens": -1}
    assert keyed.http.post("/v1/chat/completions", json=wrong, headers={"x-api-key": ONE}).status_code == 400
    seen = ""
    for path in ("/metrics", "/v1/models", "/v1/models/tiny", "/v1/adapters", "/openapi.json", "/version", "/ready"):
        answer = keyed.http.get(path, headers={"x-api-key": OTHER})
        seen += f"{answer.status_code} {answer.text} {answer.headers}"
    for path in PATHS:
        refused = keyed.http.post(f"/v1/{path}", json={"model": "none"}, headers={"x-api-key": OTHER})
        seen += f"{refused.text} {refused.headers}"
    for told in (SECRET[:20], "declined", ONE, "the-name-of-one", str(owner_of(ONE))):
        assert told not in seen, told


@pytest.mark.parametrize("header", ["x-api-key", "authorization", "x-riyaz-token"])
def test_a_key_opens_nothing_of_the_page(keyed: Running, header: str) -> None:
    """Runs, files, votes and documents are those of whoever has the link."""
    headers = {header: f"Bearer {ONE}" if header == "authorization" else ONE}
    paths = sorted({route.path for route in PAGE_ROUTES if route.path.startswith("/page/")})
    assert {"/page/runs", "/page/run", "/page/files", "/page/votes", "/page/events", "/page/inside"} <= set(paths)
    for path in paths:
        for method in ("GET", "POST"):
            answer = keyed.http.request(method, path, headers=headers, params={"path": "x", "ticket": ONE})
            assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_token", path
