"""Streaming and preparing: for every kind what is streamed is the answer, and a conversation is searched for once."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pages_task import SHORT
from refusals import assert_refused

from riyaz.artifact import TextPart
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.engine.request import GREEDY, Request, Sampling
from riyaz.predictor import (
    ClosedPredictor,
    CopyPredictor,
    FreePredictor,
    ModelPredictor,
    SpanPredictor,
    open_model,
    predictor_for,
)
from riyaz.retrieval.open_retriever import open_retriever
from riyaz.retrieval.search import Hit, Retriever
from riyaz.scoring import predict

pytestmark = pytest.mark.usefixtures("in_float32")
CLOSED = Task("closed", ("billing", "refund"), "accuracy", "Classify.", "")
QUESTIONS = [
    [{"role": "user", "content": text}]
    for text in ("what does a lost card cost", "who sends an order", "zzz qqq", "\n\nhow long is a refund")
]


class Counting:
    """A retriever that keeps what it was asked."""

    def __init__(self, whole: Retriever) -> None:
        self.whole = whole
        self.searches: list[list[str]] = []

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        self.searches.append(list(queries))
        return self.whole.search(queries, k)


@pytest.fixture
def retriever(collection: Path) -> Any:
    return Counting(open_retriever(collection))


@pytest.fixture
def kinds(model_folder: Path, retriever: Any) -> dict[str, ModelPredictor]:
    """The tiny model answering in every way, all but "plain" behind two passages."""
    plain = replace(open_model(model_folder), retriever=retriever, max_new_tokens=12)
    free = replace(plain, text=TextPart("Answer.", passages=2))
    task = replace(free, task=SHORT)
    text = replace(free.text, span_words=3, common=("not in the pages",))
    kinds: dict[str, ModelPredictor] = {
        "plain": plain, "free": free, "task": task, "closed": predictor_for(replace(free, task=CLOSED)),
        "span": predictor_for(replace(task, text=text), max_new_tokens=12),
        "span alone": predictor_for(replace(task, text=replace(text, common=())), max_new_tokens=12),
    }  # fmt: skip
    assert isinstance(kinds["span"], SpanPredictor) and not isinstance(kinds["task"], SpanPredictor)
    return kinds


KINDS = ("plain", "free", "task", "closed", "span", "span alone")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_streamed_is_the_answer_and_its_passages_come_first(
    kinds: dict[str, ModelPredictor], retriever: Any, kind: str
) -> None:
    predictor = kinds[kind]
    answers = predictor.answers(QUESTIONS)
    for messages, wanted in zip(QUESTIONS, answers, strict=True):
        retriever.searches.clear()
        stream = predictor.stream(messages)
        assert stream.citations == wanted.citations, "known before the first piece"
        pieces = list(stream)
        asked = [] if kind == "plain" else [[messages[-1]["content"]]]
        assert retriever.searches == asked, "one search"
        assert "".join(pieces) == wanted.text == predictor.answer(messages) and all(pieces)
    assert any(answer.citations for answer in answers) == (kind != "plain")


def test_a_copied_answer_is_streamed_too() -> None:
    copying = CopyPredictor(examples=(Example(({"role": "user", "content": "where is it"},), (" there ",)),))
    stream = copying.stream(QUESTIONS[0])
    assert stream.citations == () and "".join(stream) == copying.answer(QUESTIONS[0]) == " there "


@pytest.mark.parametrize("kind", KINDS[1:])
def test_answers_with_citations_take_one_search_for_all_conversations(
    kinds: dict[str, ModelPredictor], retriever: Any, kind: str
) -> None:
    rows = [Example(tuple(messages), ("refund",)) for messages in QUESTIONS]
    assert [bool(answer.citations) for answer in predict(kinds[kind], rows)] == [True, True, False, True]
    assert retriever.searches == [[messages[-1]["content"] for messages in QUESTIONS]]


@pytest.mark.parametrize("kind", KINDS[1:])
def test_passages_that_were_found_before_are_not_searched_for_again(
    kinds: dict[str, ModelPredictor], retriever: Any, kind: str
) -> None:
    predictor = kinds[kind]
    answer, hits = predictor.answer(QUESTIONS[0]), predictor.passages(QUESTIONS[:1])[0]
    retriever.searches.clear()
    stream = predictor.stream(QUESTIONS[0], passages=hits)
    assert stream.passages == tuple(hits) and "".join(stream) == answer and not retriever.searches


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_refuses_before_it_begins(kinds: dict[str, ModelPredictor], kind: str) -> None:
    with assert_refused("does not fit the context"):
        kinds[kind].stream([{"role": "user", "content": "card " * 2000}])


class Spelling:
    """A model that says the same tokens to everything, as far as it is let."""

    context = 4096

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = ids

    def adapter_tokens(self, adapter: str | None) -> int:
        return 0

    def generate(self, requests: Sequence[Any], progress: Any = None) -> list[list[int]]:
        return [list(self.ids[: request.limit]) for request in requests]

    def stream(self, request: Any) -> Iterator[int]:
        return iter(self.ids[: request.limit])


def test_sampling_and_limit_reach_the_engine_and_the_place_in_the_call_is_the_id(model_folder: Path) -> None:
    plain = open_model(model_folder)
    asked: list[Request] = []

    class Watching(Spelling):
        def generate(self, requests: Sequence[Any], progress: Any = None) -> list[list[int]]:
            asked.extend(requests)
            return super().generate(requests)

        def stream(self, request: Any) -> Iterator[int]:
            asked.append(request)
            return super().stream(request)

    lm: Any = Watching(())
    predictor, warm = replace(plain, lm=lm), Sampling(temperature=0.7, top_p=0.9, seed=3)
    predictor.answers(QUESTIONS, max_tokens=5, sampling=warm)
    list(predictor.stream(QUESTIONS[1], sampling=warm))
    list(predictor.stream(QUESTIONS[1]))
    assert [request.id for request in asked] == [0, 1, 2, 3, 0, 0]
    assert [request.limit for request in asked] == [5] * 4 + [plain.max_new_tokens] * 2
    assert [request.sampling for request in asked] == [warm] * 5 + [GREEDY]
    assert all(request.stop == plain.tokenizer.eos_ids for request in asked)


@pytest.mark.parametrize("kind", KINDS)
def test_no_conversations_have_no_answers(kinds: dict[str, ModelPredictor], kind: str) -> None:
    assert kinds[kind].answers([]) == []


def test_a_stream_that_is_left_ends_its_request(kinds: dict[str, ModelPredictor]) -> None:
    predictor = kinds["plain"]
    whole = predictor.answer(QUESTIONS[1])
    pieces = iter(predictor.stream(QUESTIONS[1]))
    assert whole.startswith(next(pieces))
    del pieces
    assert predictor.answer(QUESTIONS[1]) == whole and not predictor.lm.step(), "nothing runs on"


def test_the_task_and_the_text_part_decide_which_kind_answers(model_folder: Path) -> None:
    plain = open_model(model_folder)
    spans = TextPart(span_words=3, passages=1)
    for task, text, kind in (
        (None, TextPart(), FreePredictor),
        (SHORT, TextPart(span_words=3), FreePredictor),
        (SHORT, spans, SpanPredictor),
        (CLOSED, TextPart(), ClosedPredictor),
        (CLOSED, spans, ClosedPredictor),
    ):
        assert type(predictor_for(replace(plain, task=task, text=text))) is kind, (task, text)
    closed = predictor_for(replace(plain, task=CLOSED), calibrated=True)
    assert isinstance(closed, ClosedPredictor) and closed.calibrated and closed.lm is plain.lm
    free = predictor_for(replace(closed, task=replace(CLOSED, kind="free")), max_new_tokens=7)
    assert isinstance(free, FreePredictor) and free.max_new_tokens == 7, "the kind is chosen anew"


@pytest.mark.parametrize("task", [None, SHORT])
@pytest.mark.parametrize("text", [" It costs 3.50 in all. More", "One. \n\n Two.  ", "  ", "", "é नमस्ते 🙂. \n", "a\n"])
def test_pieces_join_to_the_answer_at_every_limit(model_folder: Path, text: str, task: Task | None) -> None:
    plain = open_model(model_folder)
    ids = plain.tokenizer.encode(text)
    lm: Any = Spelling(ids)
    predictor = FreePredictor(tokenizer=plain.tokenizer, lm=lm, task=task)
    for limit in range(1, len(ids) + 2):
        pieces = list(predictor.stream(QUESTIONS[0], max_tokens=limit))
        assert "".join(pieces) == predictor.answer(QUESTIONS[0], limit), limit
        assert all(pieces) and not any("\ufffd" in piece for piece in pieces[:-1])
