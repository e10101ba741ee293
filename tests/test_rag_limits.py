"""Retrieval at its limits: prompts that do not fit, time that a search takes, and what a merged folder needs."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import comparing
import pytest
import torch
from conftest import Finished
from expect import assert_refused

from riyaz import export
from riyaz.artifact import COLLECTION, TextPart
from riyaz.cli import stream
from riyaz.cli.output import Screen
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.engine import torch_load
from riyaz.errors import RiyazError
from riyaz.methods import choices, rag
from riyaz.methods.base import ArmPlan, Context, bare
from riyaz.methods.choices import base_predictor
from riyaz.predictor import Predictor, open_artifact
from riyaz.retrieval.collection import add
from riyaz.retrieval.documents import read_documents
from riyaz.retrieval.opening import open_retriever
from riyaz.scoring import latency
from riyaz.sources import open_source

SHORT = Task("short", (), "exact_match", "Answer in a few words.", "")


@pytest.fixture(scope="module", autouse=True)
def machine(home: Path) -> Iterator[None]:
    """One thread, in float32."""
    with comparing.small_machine(home) as patch:
        patch.setattr(torch_load.hardware, "bf16_is_fast", lambda: False)
        torch.set_num_threads(1)
        yield


def rows(ending: str) -> tuple[Example, ...]:
    return tuple(
        Example(({"role": "user", "content": row["question"]},), (row["answer"],), where=f"{ending}.jsonl:{i}")
        for i, row in enumerate(comparing.page_rows(ending), 1)
    )


@pytest.fixture
def context(model_folder: Path, tmp_path: Path) -> Context:
    add(tmp_path / COLLECTION, read_documents(comparing.write_pages(tmp_path / "pages"))[0], None)
    source = open_source(model_folder)
    return Context(
        source=source, tokenizer=source.tokenizer(), task=SHORT, train=(*rows("please"), *rows("now")),
        valid=rows("then")[:4], arm=ArmPlan("rag"), valid_rows=4, compute="float32", seed=5, folder=tmp_path,
        listen=lambda event: None, around=bare(SHORT), collection=tmp_path / COLLECTION,
    )  # fmt: skip


@pytest.fixture
def found(context: Context) -> Predictor:
    """The tiny model with three passages before every question."""
    assert context.collection is not None
    text = TextPart(SHORT.instruction, passages=3, collection_file=COLLECTION)
    return replace(base_predictor(context), text=text, retriever=open_retriever(context.collection))


def lengths(predictor: Predictor, question: list[dict[str, str]]) -> list[int]:
    """Tokens of the prompt with 0, 1, 2, … passages."""
    return [
        replace(predictor, text=replace(predictor.text, passages=count)).prepare(question).length for count in range(4)
    ]


def test_passages_that_do_not_fit_are_left_out_and_not_cited(found: Predictor) -> None:
    question = list(rows("then")[0].messages)
    whole, long = found.prepare(question), lengths(found, question)
    assert len(whole.citations) == 3 and long == sorted(set(long))
    assert found.lm is not None
    for count in (2, 1, 0):
        found.lm.context = long[count] + found.max_new_tokens
        request = found.prepare(question)
        assert request.length == long[count] and request.citations == whole.citations[:count]
        assert stream.cite(Screen(), found, question) == list(request.citations), "what was read is what is named"
    found.lm.context -= 1
    with assert_refused("does not fit"):
        found.prepare(question)


def test_examples_that_never_fit_leave_the_choice_without_them(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rag.choose

    def without_room(context: Context, candidates: list[Predictor]) -> choices.Choice:
        if candidates[0].text.examples != "none":
            raise RiyazError("the prompt has 298 tokens; it does not fit the context of 184")
        return whole(context, candidates)

    monkeypatch.setattr(rag, "choose", without_room)
    fitted = rag.fit(context)
    assert fitted.text.examples == "none" and all(not entry["k"] for entry in fitted.chosen["candidates"])


def test_the_search_is_a_part_of_an_answers_time(found: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found.retriever is not None
    asked: list[str] = []
    whole = found.retriever._rank
    monkeypatch.setattr(found.retriever, "_rank", lambda query, *rest: asked.append(query) or whole(query, *rest))
    one = replace(found, max_new_tokens=1)
    one.answers([row.messages for row in rows("then")[:3]])
    asked.clear()
    latency(one, rows("then")[:3], 3)
    assert len(asked) == 3, "none of them remembered"


def test_a_merged_combination_keeps_its_documents(retrieved: Finished, tmp_path: Path) -> None:
    artifact = retrieved.artifact("rag_lora")
    export.merge(artifact, tmp_path / "whole")
    beside, merged = open_artifact(artifact), open_artifact(tmp_path / "whole")
    question = [{"role": "user", "content": "how long does a refund take?"}]
    assert merged.prepare(question).citations == beside.prepare(question).citations != ()


def test_a_file_name_that_is_no_utf8_is_read(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "caf\udce9.txt").write_text("The cafe opens at nine.")
    documents, _ = read_documents(tmp_path / "docs")
    add(tmp_path / COLLECTION, documents, None)
    assert documents[0].where.isprintable() and documents[0].text.strip() == "The cafe opens at nine."
