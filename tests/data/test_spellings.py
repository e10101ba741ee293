"""Spellings of one label: which are merged, into which, and that every reader of the rows reads them alike."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_comparison
from tiny_comparison import command

from riyaz.config import DataConfig
from riyaz.data import Example, Reading, formats
from riyaz.data.spellings import most_frequent_spellings, spell_alike
from riyaz.data.split import split
from riyaz.data.task import detect
from riyaz.errors import RiyazError
from riyaz.events import Event, Note, quiet
from riyaz.target_scores import evaluate_target

SPELLED = ["lieferung", "Lieferung", "lieferung", "rechnung", "Rechnung\u200b", "rechnung"]


def rows_file(path: Path, labels: list[str], rows: int = 60) -> Path:
    lines = [json.dumps({"text": f"where is order {n}?", "label": labels[n % len(labels)]}) for n in range(rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def example(*answers: str) -> Example:
    return Example(({"role": "user", "content": "x"},), answers)


def test_the_most_frequent_spelling_wins_and_of_equal_ones_the_first() -> None:
    rows = [example(label) for label in ["B", "a", "A", "a", "b", "c d", "C  D", "C  D"]]
    assert set(most_frequent_spellings(rows)) == {"a", "B", "C  D"}


def test_rows_are_spelled_alike_and_a_line_counts_them() -> None:
    merged, line = spell_alike([example("Lieferung"), example("lieferung"), example("x", "X")], ("lieferung", "x"))
    assert [row.answers for row in merged] == [("lieferung",), ("lieferung",), ("x",)]
    assert line == "labels merged: 'Lieferung' as 'lieferung' (1 row), 'X' as 'x' (1 row)"
    assert spell_alike(merged, ("lieferung", "x")) == (merged, "")


def test_a_file_is_read_with_its_spellings_as_they_are_or_merged(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "train.jsonl", SPELLED)
    assert len({row.answer for row in formats.load(path).examples}) == 4
    merged = formats.load(path, merge_labels=True)
    assert {row.answer for row in merged.examples} == {"lieferung", "rechnung"}
    assert any("'Lieferung' as 'lieferung' (10 rows)" in note for note in merged.notes)
    assert merged.reading is not None and set(merged.reading.spellings) == {"lieferung", "rechnung"}


def test_test_rows_are_read_with_the_spellings_of_the_training_rows(tmp_path: Path) -> None:
    rows_file(tmp_path / "train.jsonl", ["billing", "refund"])
    rows_file(tmp_path / "test.jsonl", ["Billing", "REFUND", "other"])
    folder = formats.open_data(tmp_path, merge_labels=True)
    assert folder.test is not None
    assert {row.answer for row in folder.test.examples} == {"billing", "refund", "other"}
    (tmp_path / "riyaz.toml").write_text("merge_labels = true\n")
    assert formats.open_data(tmp_path).test == folder.test


def test_a_reading_that_was_stored_spells_another_file_alike(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "new.jsonl", ["Billing", "refund"])
    like = Reading("text", "label", spellings=("billing", "refund"))
    assert {row.answer for row in formats.load(path, like=like).examples} == {"billing", "refund"}
    assert formats.load(path, like=replace(like, spellings=())).notes == ()


def test_answers_in_free_text_have_no_spellings_to_merge(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"p {n}", "completion": f"it is {n} " * 9}) + "\n" for n in range(30))
    )
    data = formats.load(path, merge_labels=True)
    with pytest.raises(RiyazError, match="--merge-labels merges spellings of labels, and these answers are free text"):
        detect(data)


def test_the_note_names_the_flag_and_the_flag_ends_the_note(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "train.jsonl", SPELLED)
    data = formats.load(path)
    assert any("--merge-labels" in note for note in split(data, None, detect(data))[1].notes)
    said = command("data", path, "--merge-labels")
    assert said.status == 0 and "labels that differ only" not in said.out, said.err
    assert "labels merged: 'Lieferung' as 'lieferung' (10 rows)" in said.out


def test_an_artifact_knows_its_labels_in_another_spelling(quick, tmp_path: Path) -> None:
    rows = [row | {"label": str(row["label"]).upper()} for row in tiny_comparison.closed_rows(18, "today")]
    test, artifact = tiny_comparison.write_rows(tmp_path / "test.jsonl", rows), str(quick.artifact("nearest"))
    with pytest.raises(RiyazError, match="no row has one of the artifact's labels"):
        evaluate_target(artifact, test, DataConfig(), listen=quiet)
    events: list[Event] = []
    scores = evaluate_target(artifact, test, DataConfig(merge_labels=True), listen=events.append)
    assert scores.score == 1.0
    assert any(isinstance(event, Note) and event.text.startswith("labels merged") for event in events)
