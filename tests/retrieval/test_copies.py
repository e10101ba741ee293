"""A copy of a file under another name takes no second place, and is named in the citation of the first."""

import json
from pathlib import Path

import pytest
from document_files import pdf
from tiny_embedder import BagEmbedder

from riyaz.cli import main as cli
from riyaz.data import Example
from riyaz.retrieval.collection import Collection, add
from riyaz.retrieval.documents import Document, read_documents
from riyaz.retrieval.open_retriever import without_own
from riyaz.retrieval.search import Hit, Retriever, citation, ranked_names

RENT = "Bikes are rented by the day, and a helmet is free. Late returns cost four euros for every hour that begins."
LONG = RENT + " The desk opens at nine in the morning, also on Sundays."


@pytest.fixture(params=["vectors", "words"])
def embedder(request: pytest.FixtureRequest) -> BagEmbedder | None:
    return BagEmbedder() if request.param == "vectors" else None


def asked(tmp_path: Path, documents: list[Document], embedder: BagEmbedder | None, query: str, k: int = 5) -> list[Hit]:
    add(tmp_path / "c", documents, embedder)
    return Retriever(Collection.open(tmp_path / "c"), embedder).search([query], k)[0]


def found(hits: list[Hit]) -> list[tuple[str, tuple[str, ...]]]:
    return [(hit.doc_id, hit.also) for hit in hits]


def test_a_copied_file_takes_one_place_and_both_names_are_cited(tmp_path: Path, embedder: BagEmbedder | None) -> None:
    (tmp_path / "docs").mkdir()
    for name, text in {"a.txt": RENT, "b.txt": f"  {RENT.upper()}\n", "dogs.txt": "Dogs ride in the trailer."}.items():
        (tmp_path / "docs" / name).write_text(text)
    documents, notes = read_documents(tmp_path / "docs")
    assert notes == ["1 document says the same as another, so a search shows their text once: b.txt and a.txt"]
    hits = asked(tmp_path, documents, embedder, "bikes rented by the day, dogs")
    assert sorted(found(hits)) == [("a.txt", ("b.txt",)), ("dogs.txt", ())]
    assert [citation(hit).get("also") for hit in hits if hit.doc_id == "a.txt"] == [["b.txt"]]
    assert [citation(hit).get("also") for hit in hits if hit.doc_id == "dogs.txt"] == [None]
    assert all(hit.text == Collection.open(tmp_path / "c").documents[n * 2].text for n, hit in enumerate(sorted(
        hits, key=lambda hit: hit.doc_id)))  # fmt: skip


def test_a_copy_in_another_format_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.pdf").write_bytes(pdf([RENT.replace(" is ", "\nis ")]))
    (tmp_path / "docs" / "b.html").write_text(f"<p>{RENT.replace('day', '<b>day</b>')}</p>")
    assert found(asked(tmp_path, read_documents(tmp_path / "docs")[0], None, "helmet")) == [("a.pdf", ("b.html",))]


def test_a_passage_inside_another_is_one_hit(tmp_path: Path, embedder: BagEmbedder | None) -> None:
    documents = [Document("long", "T", LONG, "x"), Document("short", "T", RENT, "x")]
    assert found(asked(tmp_path, documents, embedder, "the desk opens at nine in the morning")) == [
        ("long", ("short",))
    ]


def test_a_longer_passage_behind_one_that_it_contains_stays(tmp_path: Path, embedder: BagEmbedder | None) -> None:
    documents = [Document("short", "T", RENT, "x"), Document("long", "T", LONG, "x")]
    assert found(asked(tmp_path, documents, embedder, RENT)) == [("short", ()), ("long", ())], "it says more"


def test_what_differs_in_one_word_or_number_stays(tmp_path: Path, embedder: BagEmbedder | None) -> None:
    documents = [Document("old", "T", RENT, "x"), Document("new", "T", RENT.replace("four", "five"), "x")]
    assert sorted(found(asked(tmp_path, documents, embedder, "late returns"))) == [("new", ()), ("old", ())]


def test_short_answers_to_other_questions_stay(tmp_path: Path, embedder: BagEmbedder | None) -> None:
    documents = [Document("1", "May I bring a dog?", "Yes.", "x"), Document("2", "Is a helmet free?", "Yes.", "x")]
    assert len(asked(tmp_path, documents, embedder, "yes")) == 2


def test_copies_leave_their_places_to_others(tmp_path: Path, embedder: BagEmbedder | None) -> None:
    documents = [Document(f"copy{n}", "T", RENT, "x") for n in range(6)]
    documents += [Document("other", "T", "A helmet costs nothing.", "x")]
    hits = asked(tmp_path, documents, embedder, "helmet", k=2)
    assert sorted(len(hit.also) for hit in hits) == [0, 5] and {"other"} < {hit.doc_id for hit in hits}


def test_within_the_copy_the_copy_is_found(tmp_path: Path, embedder: BagEmbedder | None) -> None:
    add(tmp_path / "c", [Document("a", "T", RENT, "x"), Document("b", "T", RENT, "x")], embedder)
    retriever = Retriever(Collection.open(tmp_path / "c"), embedder)
    assert found(retriever.search(["helmet"], 3, [{"b"}])[0]) == [("b", ())]


def test_a_row_that_is_a_document_does_not_take_its_copies_with_it(
    tmp_path: Path, embedder: BagEmbedder | None
) -> None:
    add(tmp_path / "c", [Document("a", "T", RENT, "x"), Document("b", "T", RENT, "x")], embedder)
    row = Example(({"role": "user", "content": "helmet"},), (RENT,), own_doc_ids=("a",))
    retriever = without_own(Retriever(Collection.open(tmp_path / "c"), embedder), [row])
    assert found(retriever.search(["helmet"], 3)[0]) == [("b", ())]
    assert found(retriever.search(["a helmet"], 3)[0]) == [("a", ("b",))]


def test_a_row_that_names_the_copy_counts_as_found() -> None:
    hit = Hit("a", "", "", 0, 4, "text", 1.0, also=("b",))
    assert ranked_names([hit, Hit("c", "", "", 0, 4, "text", 0.5)], ("b",)) == ["b", "c"]
    assert ranked_names([hit], ("z",)) == ["a"]


def test_the_terminal_names_every_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("docs").mkdir()
    Path("docs/a.txt").write_text(RENT)
    Path("docs/b\x1b.txt").write_text(RENT)
    cli.main(["rag", "add", "kept", "docs", "--lexical"])
    capsys.readouterr()
    assert cli.main(["rag", "ask", "kept", "is a helmet free?"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"\n[1] a.txt, characters 0–{len(RENT)}, also in b.txt  relevance ") and "[2]" not in out
    cli.main(["rag", "ask", "kept", "is a helmet free?", "--json"])
    (passage,) = json.loads(capsys.readouterr().out)["passages"]
    assert passage["also"] == ["b.txt"]
