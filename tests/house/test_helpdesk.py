"""examples/helpdesk: what its README says of the rows and of the handbook, checked again."""

import difflib
import json
import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from riyaz.data import Example
from riyaz.metrics.scores import normalise_squad, score_rows
from riyaz.retrieval.chunks import chunk, passage
from riyaz.retrieval.documents import read_documents
from riyaz.retrieval.lexical import BM25, words_and_prefixes

FOLDER = Path(__file__).parents[2] / "examples/helpdesk"
SLICES = {
    "train": {"fact": 233, "desk": 62, "refusal": 41},
    "test": {"fact": 145, "desk": 35, "refusal": 24},
}
NEAREST = {"fact": 0.0, "desk": 0.51, "refusal": 0.25}  # of the README
FOUND = {1: 0.90, 3: 0.99}  # of the README: share of test facts in the first passages by BM25
ALIKE = 0.7  # word ratio of two questions from which one is nearly the other
DESKS_PAGE = "which-desk-handles-what.md"
REFUSAL = "not in the handbook"

Row = dict


def read(name: str) -> list[Row]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


TRAIN, TEST = read("train"), read("test")
FACTS = {name: [row for row in rows if row["slice"] == "fact"] for name, rows in (("train", TRAIN), ("test", TEST))}
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((FOLDER / "handbook").iterdir())}
DESKS = set(re.findall(r"^- The `(\w+)` desk:", PAGES[DESKS_PAGE], re.MULTILINE))


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def sentences(row: Row) -> set[str]:
    """The sentences, list items and table rows of the row's page in which its first answer stands as whole words."""
    answer = re.compile(rf"(?<!\w){re.escape(row['answers'][0])}(?!\w)", re.IGNORECASE)
    parts = [part for line in PAGES[row["doc_id"]].splitlines() for part in re.split(r"(?<=[.!?]) ", line)]
    return {part for part in parts if answer.search(part)}


def absent_answers(rows: list[Row]) -> list[str]:
    """Questions whose first answer does not stand in the page that they name."""
    return [row["question"] for row in rows if "doc_id" in row and not sentences(row)]


def given_away(rows: list[Row]) -> list[str]:
    """Questions in which their own first answer stands as words."""
    found = []
    for row in rows:
        asked, answer = f" {' '.join(words(row['question']))} ", f" {' '.join(words(row['answers'][0]))} "
        found += [row["question"]] if answer in asked else []
    return found


def long_answers(rows: list[Row]) -> list[str]:
    """Accepted answers of more than five words."""
    return [answer for row in rows for answer in row["answers"] if len(answer.split()) > 5]


def alike(train: list[Row], test: list[Row], limit: float = ALIKE) -> list[tuple[str, str]]:
    """Pairs of a test and a training question whose word ratio reaches the limit."""
    found, matcher = [], difflib.SequenceMatcher(autojunk=False)
    known = [(row["question"], words(row["question"])) for row in train]
    for row in test:
        matcher.set_seq2(words(row["question"]))  # what is set second is prepared once
        for question, asked in known:
            matcher.set_seq1(asked)
            if matcher.real_quick_ratio() >= limit and matcher.quick_ratio() >= limit and matcher.ratio() >= limit:
                found.append((row["question"], question))
    return found


def asked_in_both(train: list[Row], test: list[Row]) -> list[str]:
    """Test questions of a fact that training asks for too: the same page with the same answer, or an answer that stands
    in only one sentence of the page, which is also the only sentence of a training row's answer."""
    answers = {(row["doc_id"], normalise_squad(row["answers"][0])) for row in train}
    lines = {(row["doc_id"], *sentences(row)) for row in train if len(sentences(row)) == 1}
    return [
        row["question"]
        for row in test
        if (row["doc_id"], normalise_squad(row["answers"][0])) in answers or (row["doc_id"], *sentences(row)) in lines
    ]


def test_counts_columns_and_slices() -> None:
    for name, rows in (("train", TRAIN), ("test", TEST)):
        assert Counter(row["slice"] for row in rows) == SLICES[name]
        for row in rows:
            assert set(row) - {"doc_id"} == {"question", "answers", "slice"}
            assert ("doc_id" in row) == (row["slice"] != "refusal")
            assert row["question"] == row["question"].strip() and row["answers"] and all(row["answers"])
            assert len(set(row["answers"])) == len(row["answers"])
        assert sum(row["slice"] == "refusal" for row in rows) / len(rows) == pytest.approx(0.12, abs=0.01)
    assert len({" ".join(words(row["question"])) for row in TRAIN + TEST}) == len(TRAIN) + len(TEST)


def test_the_handbook_is_as_long_as_it_says() -> None:
    assert len(PAGES) == 38 and all(text.startswith("# ") for text in PAGES.values())
    count = sum(len(text.split()) for text in PAGES.values())
    assert count == pytest.approx(13_700, rel=0.02)
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "38 pages, 13,700 words" in readme and f"{len(TRAIN)} rows" in readme and f"has {len(TEST)}." in readme


def test_answers_stand_in_their_page_and_not_in_their_question() -> None:
    assert {row["doc_id"] for row in TRAIN + TEST if "doc_id" in row} == set(PAGES)
    assert absent_answers(TRAIN + TEST) == []
    assert given_away(TRAIN + TEST) == []


def test_answers_are_short_and_those_of_desks_and_refusals_are_fixed() -> None:
    assert len(DESKS) == 7
    assert long_answers(TRAIN + TEST) == []
    for rows in (TRAIN, TEST):
        desks = [row for row in rows if row["slice"] == "desk"]
        assert {tuple(row["answers"]) for row in desks} == {(name,) for name in DESKS}
        assert {row["doc_id"] for row in desks} == {DESKS_PAGE}
        assert {tuple(row["answers"]) for row in rows if row["slice"] == "refusal"} == {(REFUSAL,)}
        assert not any(REFUSAL in row["answers"] for row in rows if row["slice"] != "refusal")


def test_no_test_fact_is_asked_in_training() -> None:
    assert asked_in_both(FACTS["train"], FACTS["test"]) == []


def test_no_test_question_is_nearly_one_to_train_on() -> None:
    assert alike(TRAIN, TEST) == []


def test_questions_do_not_come_from_a_template() -> None:
    for rows in (TRAIN, TEST):
        assert max(Counter(tuple(words(row["question"])[:4]) for row in rows).values()) <= 4


def test_the_first_passages_by_words_hold_the_facts() -> None:
    chunks = [piece for document in read_documents(FOLDER / "handbook")[0] for piece in chunk(document)]
    index = BM25([passage(piece) for piece in chunks], words_and_prefixes)
    top = [[chunks[i] for i in index.top(row["question"], max(FOUND))] for row in FACTS["test"]]
    for count, expected in FOUND.items():
        held = [
            any(piece.doc_id == row["doc_id"] and any(part in piece.text for part in sentences(row)) for piece in first)
            for row, first in zip(FACTS["test"], (found[:count] for found in top), strict=True)
        ]
        assert sum(held) / len(held) == pytest.approx(expected, abs=0.01), count


def test_copying_the_nearest_answer_reaches_what_the_readme_says() -> None:
    index = BM25([row["question"] for row in TRAIN])
    copied = [TRAIN[index.top(row["question"], 1)[0]]["answers"][0] for row in TEST]
    scores = score_rows("exact_match", copied, [Example((), tuple(row["answers"])) for row in TEST])
    assert scores.mean() == pytest.approx(0.12, abs=0.006)
    for name, expected in NEAREST.items():
        part = [score for score, row in zip(scores, TEST) if row["slice"] == name]
        assert sum(part) / len(part) == pytest.approx(expected, abs=0.006), name


@pytest.mark.parametrize(
    ("check", "row"),
    [
        (absent_answers, {"question": "How much?", "answers": ["4,000 euros"], "doc_id": "deposits.md"}),
        (given_away, {"question": "Is it CLAIMS who takes it?", "answers": ["claims"]}),
        (long_answers, {"question": "Where?", "answers": ["hall", "over the counter at Millrace Yard"]}),
        (lambda rows: alike(rows, TEST), {"question": TEST[3]["question"] + " please"}),
        (lambda rows: asked_in_both(rows, FACTS["test"]), {**FACTS["test"][0], "question": "In other words?"}),
        (
            lambda rows: asked_in_both(FACTS["train"], rows),  # the sentence of "100 euros", which training asks for
            {"question": "Which bike needs 100 euros?", "answers": ["Wren: 100"], "doc_id": "deposits.md"},
        ),
    ],
)
def test_the_checks_see_bad_rows(check, row: Row) -> None:
    assert check([row])


def test_the_instruction_names_every_desk_and_the_refusal() -> None:
    instruction = tomllib.loads((FOLDER / "riyaz.toml").read_text(encoding="utf-8"))["instruction"]
    assert set(words(instruction)) >= DESKS
    assert instruction.endswith(f"answer: {REFUSAL}.") and "five words" in instruction and "\n" not in instruction


def test_riyaz_reads_it_with_its_documents_and_instruction() -> None:
    from riyaz.data.formats import load_folder
    from riyaz.data.task import detect

    folder = load_folder(FOLDER)
    task = detect(folder.train, instruction=folder.settings["instruction"])
    assert (task.kind, task.metric) == ("short", "exact_match") and "five words" in task.instruction
    documents, notes = read_documents(folder.settings["documents"])
    assert {document.doc_id for document in documents} == set(PAGES) and notes == []
    assert folder.test is not None
    named = [example.doc_ids for example in folder.test.examples if example.doc_ids]
    assert len(named) == 180 and {name for names in named for name in names} <= set(PAGES)
