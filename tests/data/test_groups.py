"""Rows of one group stay on one side of every split, and a file whose groups cannot be split is refused in one line."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from tiny_comparison import closed_rows, command, files, write_rows

from riyaz.data import Dataset, Example, formats, task
from riyaz.data.split import Split, leaks, split
from riyaz.errors import RiyazError


def dataset(rows: list[tuple[int, str, int | None]]) -> Dataset:
    """A file of rows (number of the prompt, label, number of the group)."""
    examples = tuple(
        Example(
            ({"role": "user", "content": f"prompt {n}"},),
            (label,),
            None,
            f"t.jsonl:{line}",
            group=group and f"g{group}",
        )
        for line, (n, label, group) in enumerate(rows, 1)
    )
    return Dataset(examples, "text,label", Path("t.jsonl"), "", ("text", "label"), 0, "label")


def sides(result: Split) -> list[list[tuple[Example, ...]]]:
    """The parts of the split and of every fold."""
    return [[part.train, part.valid, part.test] for part in (result, *result.folds)]


@pytest.mark.parametrize("count", [60, 240])  # in folds, and with one part held out
@pytest.mark.parametrize("seed", range(8))
def test_no_group_and_no_prompt_is_on_two_sides(count, seed):
    """Prompts repeat within a group and in others, and some rows have no group."""
    random = Random(seed)
    rows = [(random.randrange(count), "ab"[i % 2], random.choice([None, *range(1, 20)])) for i in range(count)]
    data = dataset(rows)
    result, _ = split(data, None, task.detect(data), seed=seed, deal_folds=seed % 2 == 0)
    for parts in sides(result):
        for side in ("group", "key"):
            values = [{getattr(row, side) for row in part} - {None} for part in parts]
            assert not (values[0] & values[1] or values[0] & values[2] or values[1] & values[2])
        assert parts[0] and parts[1]
    tested = [row.where for row in result.tested]
    assert len(tested) == len(set(tested))


def test_forty_groups_or_half_of_them_are_held_out():
    for groups, expected in ((60, 30), (100, 40), (400, 100)):
        rows = [(n, "ab"[n % 2], n % groups + 1) for n in range(groups * 12)]
        data = dataset(rows)
        result, report = split(data, None, task.detect(data))
        assert report.groups["test"] == expected == len({row.group for row in result.test})
        assert any(f"{expected} to test on" in note for note in report.notes)


def test_a_group_of_a_fold_is_tested_once():
    data = dataset([(n, "ab"[n % 2], n % 15 + 1) for n in range(90)])
    result, report = split(data, None, task.detect(data))
    assert len(result.folds) == 5 and [len({row.group for row in fold.test}) for fold in result.folds] == [3] * 5
    assert report.groups["test"] == 15


def test_without_groups_an_example_is_written_as_before():
    row = Example(({"role": "user", "content": "a"},), ("b",))
    assert row.to_record() == {"messages": [{"role": "user", "content": "a"}], "answers": ["b"]}
    grouped = replace(row, group="c")
    assert grouped.key == row.key and Example.from_record(grouped.to_record()) == grouped
    assert split(dataset([(n, "ab"[n % 2], None) for n in range(60)]), None, TASK)[1].groups is None


TASK = task.detect(dataset([(n, "ab"[n % 2], None) for n in range(60)]))


# files


def rows_of(count: int, groups: int, ending: str = "please", first: int = 0) -> list[dict]:
    """Rows of a closed set with a column `customer`."""
    return [{**row, "customer": f"c{first + i % groups}"} for i, row in enumerate(closed_rows(count, ending))]


def reading(path: Path, column: str | None = "customer") -> Dataset:
    return formats.load(path, group_column=column)


def test_the_column_names_the_groups_and_an_empty_field_stands_alone(tmp_path):
    rows = rows_of(40, 8)
    rows[3]["customer"] = ""
    data = reading(write_rows(tmp_path / "train.jsonl", rows))
    assert [row.group for row in data.examples[:4]] == ["c0", "c1", "c2", None]
    assert data.reading.group == "customer" and "customer" not in data.unused_columns
    again = formats.load(write_rows(tmp_path / "more.jsonl", rows_of(9, 3)), like=data.reading)
    assert again.examples[0].group == "c0"
    other = formats.load(write_rows(tmp_path / "other.jsonl", closed_rows(9, "now")), like=data.reading)
    assert other.examples[0].group is None and "no column 'customer'" in other.notes[0]


def test_a_group_column_is_not_guessed_as_the_answer(tmp_path):
    rows = [{"Anfrage": f"Wo ist Bestellung {i} heute?", "Ziel": "ab"[i % 2] * 3, "Kunde": f"Anna {'xyz'[i % 3]} M."}
            for i in range(30)]  # fmt: skip
    path = write_rows(tmp_path / "t.jsonl", rows)
    assert formats.load(path, group_column="Kunde").format == "Anfrage,Ziel"


def test_rows_about_the_same_document_are_a_group_by_themselves(tmp_path):
    rows = [{**row, "doc_id": f"d{i % 12}"} for i, row in enumerate(closed_rows(48, "please"))]
    data = reading(write_rows(tmp_path / "t.jsonl", rows), None)
    assert data.examples[0].group == "d0" and "48 rows in 12 groups" in data.notes[0]
    single = [{**row, "doc_id": f"d{i}"} for i, row in enumerate(closed_rows(48, "please"))]
    few = [{**row, "doc_id": f"d{i % 4}"} for i, row in enumerate(closed_rows(48, "please"))]
    for name, others in (("single", single), ("few", few)):
        plain = reading(write_rows(tmp_path / f"{name}.jsonl", others), None)
        assert {row.group for row in plain.examples} == {None} and not plain.notes, name


@pytest.mark.parametrize(
    ("groups", "column", "words"),
    [
        (1, "customer", "all 45 rows are of one group ('customer')"),
        (4, "customer", "the rows are of 4 groups ('customer'), and a split needs 5"),
        (9, "client", "no column 'client' to group by"),
    ],
)
def test_what_cannot_be_split_is_refused_in_one_line_and_nothing_is_written(
    one_core, asked, tmp_path, groups, column, words
):
    write_rows(tmp_path / "data/train.jsonl", rows_of(45, groups))
    before = files(tmp_path)
    told = command("compare", tmp_path / "data", *asked, "--group-column", column, "--out", tmp_path / "out")
    assert told.status == 2 and words in told.line and files(tmp_path) == before


def test_groups_of_a_given_test_file_that_cross_are_refused_or_left_out(tmp_path):
    train = reading(write_rows(tmp_path / "train.jsonl", rows_of(60, 10)))
    test = reading(write_rows(tmp_path / "test.jsonl", rows_of(30, 6, "today", first=8)))  # c8 and c9 are in both
    kind = task.detect(train)
    with pytest.raises(RiyazError, match="10 of 30 test rows are of groups that training rows have too") as error:
        split(train, test, kind)
    assert "'c8' (train.jsonl:9 and test.jsonl:1)" in error.value.what and "--allow-leakage" in error.value.hint
    assert error.value.options == {"allow_leakage": True} and leaks(train, test)
    apart = reading(write_rows(tmp_path / "apart.jsonl", rows_of(30, 6, "tomorrow", first=50)))
    assert not leaks(train, None) and not leaks(train, apart)
    result, report = split(train, test, kind, allow_leakage=True)
    assert len(result.train) + len(result.valid) == 48 and len(result.test) == 30
    assert any("'c8' (train.jsonl:9 and test.jsonl:1): 12" in note for note in report.notes)
    one = reading(write_rows(tmp_path / "one.jsonl", rows_of(30, 1, "today", first=20)))
    with pytest.raises(RiyazError, match="all 30 rows are of one group"):
        split(train, one, kind)


def test_a_test_about_the_same_documents_is_noted_and_keeps_its_training_rows(tmp_path):
    rows = [[{**row, "doc_id": f"d{i % 12}"} for i, row in enumerate(closed_rows(48, e))] for e in ("please", "now")]
    train, test = (reading(write_rows(tmp_path / f"{n}.jsonl", r), None) for n, r in zip(("train", "test"), rows))
    result, report = split(train, test, task.detect(train))
    assert len(result.train) + len(result.valid) == 48 == len(result.test)
    assert not {row.group for row in result.train} & {row.group for row in result.valid}
    assert any("48 of 48 test rows are about documents that training rows are about too" in n for n in report.notes)


# a comparison


def test_a_comparison_carries_groups_to_the_pick_and_the_report(one_core, inside, asked, tmp_path):
    write_rows(tmp_path / "data/train.jsonl", rows_of(60, 15))
    write_rows(tmp_path / "data/test.jsonl", rows_of(36, 12, "today", first=100))
    (tmp_path / "data/riyaz.toml").write_text('group_column = "customer"\n')
    out = tmp_path / "out"
    arguments = ("compare", tmp_path / "data", *asked, "--methods", "nearest,zero_shot", "--out", out)
    told = command(*arguments)
    assert told.status == 0, told.err
    document = told.document
    assert document["data"]["groups"] == {"train": 12, "valid": 3, "test": 12}
    assert {arm["n_groups"] for arm in document["arms"]} == {12} and "36 test rows in 12 groups" in document["reason"]
    assert document["pairs"][0]["test"] == "sign flips over groups"
    answers = (out / "arms/nearest/kept/predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["group"] for line in answers[:2]] == ["c100", "c101"]
    assert all(
        part["n_groups"] == 6 and part["ci_low"] <= part["score"] for part in document["arms"][0]["slices"].values()
    )
    inside.clear()
    assert command(*arguments).status == 0 and inside == [], "the same command continues it"
    assert command("report", out).status == 0 and "are over 12 groups." in (out / "report.md").read_text()
    told = command("evaluate", out / "nearest", "--test", tmp_path / "data/test.jsonl", "--json")
    assert told.document["n_groups"] == 12 and told.document["score"] == document["arms"][0]["score"]
    assert "on 36 rows in 12 groups" in command("evaluate", out / "nearest", "--test", tmp_path / "data/test.jsonl").out
