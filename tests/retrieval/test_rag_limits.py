"""Retrieval at its limits: prompts that do not fit, time that a search takes, and what a merged folder needs."""

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Finished
from pages_task import SHORT, page_context, page_examples
from refusals import assert_refused

from riyaz import export
from riyaz.artifact import COLLECTION, TextPart
from riyaz.errors import RiyazError
from riyaz.methods import rag
from riyaz.methods.fitting import choices
from riyaz.methods.fitting.base import Context
from riyaz.methods.fitting.choices import base_predictor
from riyaz.predictor import FreePredictor, ModelPredictor, open_artifact
from riyaz.retrieval.collection import add
from riyaz.retrieval.documents import read_documents
from riyaz.retrieval.open_retriever import open_retriever
from riyaz.scoring import latency

pytestmark = pytest.mark.usefixtures("in_float32")


@pytest.fixture
def context(model_folder: Path, tmp_path: Path, collection: Path) -> Context:
    return page_context(model_folder, tmp_path, collection, "rag", valid=page_examples("then")[:4], valid_rows=4)


@pytest.fixture
def found(context: Context) -> FreePredictor:
    """The tiny model with three passages before every question."""
    assert context.collection is not None
    text = TextPart(SHORT.instruction, passages=3, collection_file=COLLECTION)
    plain = base_predictor(context)
    assert isinstance(plain, FreePredictor)
    return replace(plain, text=text, retriever=open_retriever(context.collection))


def lengths(predictor: FreePredictor, question: list[dict[str, str]]) -> list[int]:
    """Tokens of the prompt with 0, 1, 2, … passages."""
    variants = [replace(predictor, text=replace(predictor.text, passages=count)) for count in range(4)]
    return [variant.prepare([question])[0].request.length for variant in variants]


def test_passages_that_do_not_fit_are_left_out_and_not_cited(found: FreePredictor) -> None:
    question = list(page_examples("then")[0].messages)
    whole, long = found.prepare([question])[0], lengths(found, question)
    assert len(whole.citations) == 3 and long == sorted(set(long))
    for count in (2, 1, 0):
        found.lm.context = long[count] + found.max_new_tokens
        prepared = found.prepare([question])[0]
        assert prepared.request.length == long[count] and prepared.citations == whole.citations[:count]
        assert found.stream(question).citations == prepared.citations, "what was read is what is named"
    found.lm.context -= 1
    with assert_refused("does not fit"):
        found.prepare([question])


def test_examples_that_never_fit_leave_the_choice_without_them(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rag.choose

    def without_room(context: Context, candidates: list[ModelPredictor]) -> choices.Choice:
        if candidates[0].text.examples != "none":
            raise RiyazError("the prompt has 298 tokens; it does not fit the context of 184")
        return whole(context, candidates)

    monkeypatch.setattr(rag, "choose", without_room)
    fitted = rag.fit(context)
    assert fitted.text.examples == "none" and all(not entry["k"] for entry in fitted.chosen["candidates"])


def test_the_search_is_a_part_of_an_answers_time(found: FreePredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found.retriever is not None
    asked: list[str] = []
    whole = found.retriever._rank
    monkeypatch.setattr(found.retriever, "_rank", lambda query, *rest: asked.append(query) or whole(query, *rest))
    one = replace(found, max_new_tokens=1)
    one.answers([row.messages for row in page_examples("then")[:3]])
    asked.clear()
    latency(one, page_examples("then")[:3], 3)
    assert len(asked) == 3, "none of them remembered"


def test_a_merged_combination_keeps_its_documents(retrieved: Finished, tmp_path: Path) -> None:
    artifact = retrieved.artifact("rag_lora")
    export.merge(artifact, tmp_path / "whole")
    beside, merged = open_artifact(artifact), open_artifact(tmp_path / "whole")
    question = [{"role": "user", "content": "how long does a refund take?"}]
    assert beside.has_model and merged.has_model
    assert merged.prepare([question])[0].citations == beside.prepare([question])[0].citations != ()


def test_a_file_name_that_is_no_utf8_is_read(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "caf\udce9.txt").write_text("The cafe opens at nine.")
    documents, _ = read_documents(tmp_path / "docs")
    add(tmp_path / COLLECTION, documents, None)
    assert documents[0].where.isprintable() and documents[0].text.strip() == "The cafe opens at nine."
