"""Questions that are searched together: one that fails fails alone, whatever stands beside it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from live_server import Running, assert_error, running
from test_decisions import TASK, hold
from waiting import HANG, until

from riyaz import artifact as artifacts
from riyaz.artifact import Artifact, BaseModel
from riyaz.engine.native import load
from riyaz.engine.opening import open_engine
from riyaz.serve.opening import Opener
from riyaz.sources import open_source

TEXTS = [f"order {place} of my card" for place in range(11)]
PAGES = 7  # of 32 tokens
LONG = "where is my order today " * 30  # whose keys and values find no room in the memory of the test


@pytest.fixture
def served(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """The artifact `labels` of a closed set, on an engine whose memory holds PAGES pages of keys and values."""
    page = open_engine(open_source(model_folder), precision="fp32").runner.bytes_of(32)
    monkeypatch.setattr(load, "cache_limit", lambda weights=0.0: PAGES * page)
    base = BaseModel("tiny", str(model_folder), open_source(model_folder).sha256(), 1)
    artifacts.write(tmp_path / "labels", Artifact("zero_shot", base=base, task=TASK), {})
    opener = Opener("fp32")
    for target in (model_folder, tmp_path / "labels"):
        opener.serve(str(target))
    with running(opener, keep_mb=0) as found:
        yield found


def chat(served: Running, text: str) -> Any:
    return served.post("/v1/chat/completions", {"model": "labels", "messages": [{"role": "user", "content": text}]})


def label(served: Running, text: str) -> str:
    found: str = chat(served, text).json()["choices"][0]["message"]["content"]
    return found


@pytest.mark.parametrize("bad", [{0}, {5}, {11, 3}, {0, 1, 2, 3, 4}])
def test_a_question_that_finds_no_memory_fails_alone(
    served: Running, bad: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [label(served, text) for text in TEXTS]
    texts = [*TEXTS]
    for place in sorted(bad):
        texts.insert(place, LONG)
    assert_error(chat(served, LONG), 400)
    sizes: list[int] = []
    predictor = served.state.shelf.find("labels").predictor
    search = type(predictor).choosing  # type: ignore[attr-defined]

    def counted(self: Any, prepared: Any) -> Any:
        sizes.append(len(prepared))
        return search(self, prepared)

    monkeypatch.setattr(type(predictor), "choosing", counted)
    held, go = threading.Event(), threading.Event()
    served.state.engine._inbox.put(hold(held, go))
    assert held.wait(HANG)
    with ThreadPoolExecutor(len(texts)) as clients:
        answers = [clients.submit(chat, served, text) for text in texts]
        until(lambda: served.state.engine._inbox.qsize() == len(texts), "all have asked")
        go.set()
        made = [answer.result() for answer in answers]
    assert [place for place, answer in enumerate(made) if answer.status_code != 200] == sorted(
        place for place, text in enumerate(texts) if text is LONG
    )
    good = [answer for answer in made if answer.status_code == 200]
    assert [answer.json()["choices"][0]["message"]["content"] for answer in good] == wanted
    assert sizes[0] == len(texts) and sum(sizes) <= len(texts) * (1 + 4 * len(bad)), "halves, not one by one"
    until(served.idle, "nothing is left")
    assert label(served, TEXTS[0]) == wanted[0]
