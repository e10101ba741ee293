"""Below a relevance that the collection calibrates with its own questions, nothing fits, and it is said."""

import json
import random
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from refusals import assert_refused
from tiny_embedder import BagEmbedder

from riyaz.cli import main as cli
from riyaz.retrieval.chunks import chunk, passage
from riyaz.retrieval.collection import THRESHOLD, Collection, add, verify
from riyaz.retrieval.documents import Document
from riyaz.retrieval.lexical import BM25
from riyaz.retrieval.relevance import LEAST, LEAST_BY_WORDS, LEAST_QUESTIONS, questions, relevance, threshold
from riyaz.retrieval.search import Retriever, citation

DRAW = random.Random(7)
TOPICS = [
    [f"{topic}{letter}" for letter in "abcdefghijkl"] for topic in ("bike", "rent", "lock", "fees", "desk", "path")
]


def document(number: int) -> Document:
    """A page of six sentences on one of TOPICS."""
    words = TOPICS[number % len(TOPICS)]
    lines = [" ".join(["the", *DRAW.sample(words, 5), "is", "here"]) + "." for _ in range(6)]
    return Document(f"d{number}", "", "\n".join(lines), "d")


DOCUMENTS = [document(number) for number in range(12)]
ASKED = [" ".join(words[:8]) for words in TOPICS[:4]]
OTHER = ["who painted the Mona Lisa?", "how tall is a giraffe", "is it warm", "zebra"]


@pytest.fixture(params=["vectors", "words"])
def embedder(request: pytest.FixtureRequest) -> BagEmbedder | None:
    return BagEmbedder(dim=1024) if request.param == "vectors" else None


@pytest.fixture
def path(tmp_path: Path, embedder: BagEmbedder | None) -> Path:
    add(tmp_path / "kept", DOCUMENTS, embedder)
    return tmp_path / "kept"


def relevant(path: Path, embedder: BagEmbedder | None, asked: list[str]) -> list[bool | None]:
    found = Retriever(Collection.open(path), embedder).search(asked, 3)
    assert all(len({hit.relevant for hit in hits}) <= 1 for hits in found)
    return [hits[0].relevant if hits else False for hits in found]


def test_questions_of_the_documents_are_told_from_others(path: Path, embedder: BagEmbedder | None) -> None:
    assert relevant(path, embedder, ASKED) == [True] * 4 and relevant(path, embedder, OTHER) == [False] * 4
    ((first, *_),) = Retriever(Collection.open(path), embedder).search(OTHER[2:3], 3)
    assert citation(first)["relevant"] is False and first.relevance is not None
    assert first.relevance < (Collection.open(path).threshold or 0)
    ((first, *_),) = Retriever(Collection.open(path), embedder).search(ASKED[:1], 3)
    assert "relevant" not in citation(first) and verify(path) == []


def test_the_same_documents_calibrate_the_same(path: Path, embedder: BagEmbedder | None) -> None:
    other = path.with_name("other")
    for part in (DOCUMENTS[8:], DOCUMENTS[:8]):
        add(other, part, embedder)
    assert Collection.open(other).threshold == Collection.open(path).threshold is not None


def test_a_collection_made_before_answers_as_before_until_documents_are_added(
    path: Path, embedder: BagEmbedder | None
) -> None:
    database = sqlite3.connect(path)
    database.execute("DELETE FROM meta WHERE key = ?", (THRESHOLD,))
    database.commit()
    database.close()
    assert Collection.open(path).threshold is None and verify(path) == []
    assert set(relevant(path, embedder, ASKED + OTHER[2:3])) == {None}
    add(path, DOCUMENTS, embedder)
    assert relevant(path, embedder, ASKED) == [True] * 4 and relevant(path, embedder, OTHER) == [False] * 4


def test_a_small_collection_refuses_what_it_does_not_answer(tmp_path: Path, embedder: BagEmbedder | None) -> None:
    few = DOCUMENTS[: (LEAST_QUESTIONS - 1) // 6]
    add(tmp_path / "few", few, embedder)
    threshold = Collection.open(tmp_path / "few").threshold
    assert threshold is not None and threshold <= (LEAST if embedder else LEAST_BY_WORDS)
    assert relevant(tmp_path / "few", embedder, [*ASKED, *OTHER]) == [True] * 4 + [False] * 4
    add(tmp_path / "few", DOCUMENTS, embedder)
    assert (Collection.open(tmp_path / "few").threshold or 0) > threshold, "now its own questions tell"


def test_one_document_without_a_sentence_has_the_usual_threshold(tmp_path: Path, embedder: BagEmbedder | None) -> None:
    add(tmp_path / "one", [Document("a", "", "bikea bikeb", "a")], embedder)
    assert Collection.open(tmp_path / "one").threshold == (LEAST if embedder else LEAST_BY_WORDS)
    assert relevant(tmp_path / "one", embedder, ["bikea", "who is the CEO?"]) == [True, False]


def test_where_own_questions_are_less_relevant_their_relevance_is_the_threshold() -> None:
    class Far(BagEmbedder):
        def embed(self, texts, progress=None):
            return -super().embed(texts, progress)  # every question lies opposite to every passage

    embedder = Far(dim=1024)
    chunks = [piece for each in DOCUMENTS[:2] for piece in chunk(each)]
    least = threshold(
        chunks,
        BagEmbedder(dim=1024).embed([each.text for each in chunks]),
        BM25([passage(each) for each in chunks]),
        embedder,
    )
    assert least < LEAST


@pytest.mark.parametrize("value", ["inf", "nan", "x", ""])
def test_a_threshold_that_is_no_number_is_one_line(tmp_path: Path, value: str) -> None:
    add(tmp_path / "kept", DOCUMENTS, None)
    database = sqlite3.connect(tmp_path / "kept")
    database.execute("UPDATE meta SET value = ? WHERE key = ?", (value, THRESHOLD))
    database.commit()
    database.close()
    line = "kept: broken: 'threshold' in its table meta is not a number; rebuild it: riyaz rag add … --rebuild"
    with assert_refused(line):
        Collection.open(tmp_path / "kept")
    assert verify(tmp_path / "kept") == [line.removeprefix("kept: ")]


def test_vectors_without_their_embedder_say_nothing_of_relevance(tmp_path: Path) -> None:
    add(tmp_path / "kept", DOCUMENTS, BagEmbedder())
    assert relevant(tmp_path / "kept", None, ASKED) == [None] * 4, "what was calibrated is the mean of two"


def test_own_questions_are_the_rarest_words_of_a_sentence(tmp_path: Path) -> None:
    text = "# The heading has many words in it\n\nThe bike waits at nine sharp. Too short. The bike costs four euros.\n"
    add(tmp_path / "c", [Document("a", "", text, "a"), Document("b", "", "the bike has a bell in the end", "b")], None)
    assert questions(Collection.open(tmp_path / "c").chunks()) == [
        "waits at nine sharp", "the costs four euros", "the a bell end",
    ]  # fmt: skip
    assert questions([]) == []


def test_relevance_is_the_share_of_the_words_and_the_mean_with_the_cosine() -> None:
    assert relevance(np.array([0.0, 2.0]), 4.0, None).tolist() == [0, 0.5]
    assert relevance(np.array([0.0, 2.0]), 4.0, np.array([0.5, 1.0])).tolist() == [0.25, 0.75]
    assert relevance(np.array([0.0]), 0.0, None).tolist() == [0]


# on the terminal


def test_rag_ask_says_that_nothing_is_relevant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*line: str) -> str:
        assert cli.main(["rag", "ask", str(tmp_path / "kept"), *line]) == 0
        return capsys.readouterr().out

    add(tmp_path / "kept", DOCUMENTS, None)
    least = Collection.open(tmp_path / "kept").threshold
    assert least is not None
    out = said("is it warm", "--model", "not opened")
    assert out.startswith("nothing relevant: the best passage has relevance 0.") and out.count("\n") == 1
    assert f"below {least:.2f} nothing here fits; --threshold 0 shows the nearest" in out
    document = json.loads(said("is it warm", "--json"))
    assert document["passages"] == [] and document["relevance"] < document["threshold"] == least
    assert said("is it warm", "--threshold", "0").startswith("\n[1] d")
    assert said("bikea bikec").startswith("\n[1] d")
    document = json.loads(said("bikea bikec", "--json"))
    assert len(document["passages"]) == 2 and document["relevance"] >= document["threshold"]
    assert said("bikea bikec", "--threshold", "0.99").startswith("nothing relevant")
    assert said("zzz") == "no passage shares a word with the question\n"


def test_rag_ask_of_a_small_collection_says_why_it_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*line: str) -> tuple[str, str]:
        assert cli.main(["rag", "ask", str(tmp_path / "kept"), *line]) == 0
        found = capsys.readouterr()
        return found.out, found.err

    add(tmp_path / "kept", [Document("a", "", "The bike costs four euros. The desk is open.", "a")], None)
    out, _ = said("who is the ceo of this firm and how old are they?")
    assert out.startswith("nothing relevant: the best passage has relevance 0.0") and "--threshold 0 shows" in out
    out, err = said("what is the cost of the bike in euros?")
    assert out.startswith("\n[1] a") and not err
    database = sqlite3.connect(tmp_path / "kept")
    database.execute("DELETE FROM meta WHERE key = ?", (THRESHOLD,))
    database.commit()
    database.close()
    out, err = said("who is the ceo of this firm and how old are they?")
    line = "not calibrated: the nearest passages follow, whatever is asked; add the documents again: riyaz rag add"
    assert out.startswith("\n[1] a") and line in " ".join(err.split())
    assert "not calibrated" not in said("bike", "--threshold", "0")[1], "what was asked for needs no remark"
