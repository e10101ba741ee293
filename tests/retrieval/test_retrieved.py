"""What evaluation says of retrieval: recall, closed book, oracle and grounding, by hand on a tiny model."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny_comparison
from conftest import Finished
from refusals import assert_refused
from small_llama import next_log_p

from riyaz import evaluate
from riyaz.artifact import COLLECTION, TextPart
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.json_files import to_document
from riyaz.predictor import FreePredictor, ModelPredictor, Prediction, PromptedModel, open_model
from riyaz.retrieval.collection import add
from riyaz.retrieval.documents import read_documents
from riyaz.retrieval.open_retriever import RestrictedRetriever, open_retriever
from riyaz.scoring import predict, score

pytestmark = pytest.mark.usefixtures("in_float32")
TASK = Task("short", (), "exact_match", "Answer the question in a few words.", "")


@pytest.fixture(scope="module")
def found(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FreePredictor:
    """The tiny model with one passage before every question, each fact in a document of its own."""
    folder = tmp_path_factory.mktemp("documents")
    lines = [
        json.dumps({"doc_id": f"{name}-{i}", "text": fact[0]})
        for name, facts in tiny_comparison.PAGES.items()
        for i, fact in enumerate(facts)
    ]
    (folder / "documents.jsonl").write_text("\n".join(lines))
    add(folder / COLLECTION, read_documents(folder / "documents.jsonl")[0], None)
    text = TextPart(TASK.instruction, passages=1, collection_file=COLLECTION)
    return replace(open_model(model_folder), text=text, task=TASK, retriever=open_retriever(folder / COLLECTION),
                   max_new_tokens=6)  # fmt: skip


def row(question: str, answer: str, *doc_ids: str, **more: str) -> Example:
    return Example(({"role": "user", "content": question},), (answer,), doc_ids=doc_ids, **more)


ROWS = (
    row("what does a lost card cost", "nine euros", "cards.md-2"),
    row("who sends an order", "Ahmed", "cards.md-0", "orders.html-2"),
    row("who changes the card limit", "Miriam", "returns.txt-0"),  # another document than the one that says it
    row("may I bring a dog", "no"),
)


def looked(predictor: ModelPredictor, rows: Sequence[Example]) -> dict[str, Any]:
    return to_document(evaluate._retrieval(predictor, TASK, rows, evaluate.predict(predictor, rows), 30))


def nats(predictor: PromptedModel, example: Example) -> list[float]:
    """Log-probability of every token of the answer, one plain pass each."""
    ids = predictor.tokenizer.render(predictor.conversations([example.messages]))[0]
    answer = predictor.tokenizer.answer_ids([example.answer])[0]
    return [float(next_log_p(predictor.lm, [*ids, *answer[:i]])[token]) for i, token in enumerate(answer)]


def test_recall_scores_and_grounding_are_those_of_a_plain_computation(found: FreePredictor) -> None:
    said = looked(found, ROWS)
    closed = replace(found, text=replace(found.text, passages=0))
    assert found.retriever is not None
    ranks = []
    for example in ROWS[:3]:
        names = [hit.doc_id for hit in found.retriever.search([example.prompt], 10)[0]]
        ranks.append(min([names.index(name) + 1 for name in example.doc_ids if name in names], default=0))
    assert ranks[0] == ranks[1] == 1 != ranks[2]
    assert said["recall"] == {str(k): sum(0 < rank <= k for rank in ranks) / 3 for k in (1, 3, 5, 10)}
    assert said["mrr"] == pytest.approx(sum(1 / rank for rank in ranks if rank) / 3) and said["named_rows"] == 3
    named = ROWS[:3]  # the fourth names no document: all three scores are of the same rows
    assert (said["k"], said["rows"], said["grounded_rows"]) == (1, 3, 3)
    assert said["closed_book"] == score(TASK, predict(closed, named), named).mean
    assert said["retrieved"] == score(TASK, predict(found, named), named).mean
    before, after = ([x for example in named for x in nats(p, example)] for p in (closed, found))
    assert said["grounded_nats"] == pytest.approx((sum(after) - sum(before)) / len(after), abs=1e-3)
    assert abs(said["grounded_nats"]) > 0.01


def test_the_oracle_reads_the_right_documents_alone(found: FreePredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    read: dict[str, list[str]] = {}
    whole = evaluate.predict

    def watched(predictor: ModelPredictor, rows: list[Example], task: Task | None = None) -> list:
        if isinstance(predictor.retriever, RestrictedRetriever):
            for example in rows:
                hits = predictor.passages([example.messages])[0]
                read[example.prompt] = [hit.doc_id for hit in hits]
        return whole(predictor, rows, task=task)

    monkeypatch.setattr(evaluate, "predict", watched)
    said = looked(replace(found, text=replace(found.text, passages=3)), ROWS)
    assert {question: sorted(names) for question, names in read.items()} == {
        example.prompt: sorted(example.doc_ids) for example in ROWS[:3]
    }
    assert said["oracle"] == 0.0


def test_scores_differ_where_passages_help(found: FreePredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    def copies(predictor: ModelPredictor, rows: tuple[Example, ...], task: Task | None = None) -> list:
        """A reader that finds the answer whenever it stands in its passages."""
        texts = [" ".join(hit.text for hit in predictor.passages([r.messages])[0]) for r in rows]
        return [Prediction(r.answer if r.answer in text else "?") for r, text in zip(rows, texts)]

    monkeypatch.setattr(evaluate, "predict", copies)
    said = looked(found, ROWS)
    assert (said["closed_book"], said["retrieved"], said["oracle"]) == (0.0, 3 / 3, 2 / 3)


def test_rows_that_name_no_documents_have_neither_recall_nor_oracle(found: FreePredictor) -> None:
    said = looked(found, ROWS[3:])
    assert set(said) == {"k", "rows", "grounded_rows", "closed_book", "retrieved", "grounded_nats"}


def test_many_rows_are_looked_at_evenly() -> None:
    some = evaluate._spread(1000, 100)
    assert len(set(some)) == 100 and (some[0], some[-1]) == (0, 999)
    steps = {b - a for a, b in pairwise(some)}
    assert steps <= {10, 11} and evaluate._spread(100, 100) == list(range(100))


def test_only_arms_that_retrieve_say_so_in_the_document(retrieved: Finished) -> None:
    for arm in retrieved.document["arms"]:
        assert ("retrieval" in arm) == arm["method"].startswith("rag"), arm["method"]
    for method in ("rag", "rag_lora"):
        said = retrieved.arm(method)["retrieval"]
        assert said["rows"] == said["named_rows"] == 12 and said["k"] in (1, 2, 3, 5)
        assert said["recall"]["1"] <= said["recall"]["3"] == said["recall"]["10"] == 1.0 >= said["mrr"] > 0.8


def test_few_rows_can_be_looked_at(found: FreePredictor) -> None:
    for looked in (1, 2, 3):
        result = to_document(evaluate._retrieval(found, TASK, ROWS, evaluate.predict(found, ROWS), looked))
        assert result["rows"] == looked and result["grounded_rows"] >= 1 and result["grounded_nats"] is not None


def test_retrieval_that_has_no_room_for_a_passage_is_no_retrieval(found: FreePredictor) -> None:
    given = evaluate.predict(found, ROWS)
    evaluate._check_inputs(found, ROWS, given)
    with assert_refused("no passage fits the context", ROWS[0].where):
        evaluate._check_inputs(found, ROWS, [replace(prediction, citations=()) for prediction in given])
