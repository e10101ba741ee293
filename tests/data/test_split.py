"""Rows are held out by contents and seed alone: exact limits, copies together, every label in its share."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from grids import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from riyaz.data import Dataset, Example, task
from riyaz.data.sampling import allocate, deal, digest, hold_out, ordered, sample
from riyaz.data.split import FOLDS, Split, split
from riyaz.errors import RiyazError

SIZES = {"common": 200, "medium": 60, "small": 30, "rare": 10}


def example(prompt: str, answer: str, line: int, name: str = "train") -> Example:
    """One row of a file."""
    return Example(({"role": "user", "content": prompt},), (answer,), None, f"{name}.jsonl:{line}")


def dataset(pairs: list[tuple[str, str]], name: str = "train", column: str = "label") -> Dataset:
    """A file of (prompt, answer) rows."""
    examples = tuple(example(*pair, line, name) for line, pair in enumerate(pairs, 1))
    return Dataset(examples, f"text,{column}", Path(f"{name}.jsonl"), "", ("text", column), 0, column)


def labelled(sizes: dict[str, int], name: str = "train") -> list[tuple[str, str]]:
    """(prompt, label) pairs, sorted by label as such files often are."""
    return [(f"{name} {label} {n}", label) for label, size in sizes.items() for n in range(size)]


def prompts(examples: tuple[Example, ...]) -> list[str]:
    return [e.prompt for e in examples]


def divide(train: Dataset, test: Dataset | None = None, **options) -> Split:
    """The split of a detected task."""
    return split(train, test, task.detect(train), **options)[0]


def parts(result: Split) -> list[tuple[Example, ...]]:
    """Training, validation and test rows."""
    return [result.train, result.valid, result.test]


def test_limits_are_exact():
    train, test = dataset(labelled(SIZES)), dataset(labelled(SIZES, "test"), "test")
    for limit in (20, 37, 100, 299, 300):
        result = divide(train, test, limit_train=limit, limit_test=limit)
        assert len(result.train) + len(result.valid) == limit == len(result.test)
    result = divide(train, test, limit_train=1000, limit_test=1000)
    assert len(result.train) + len(result.valid) == len(result.test) == 300


def test_labels_keep_their_share():
    train, test = dataset(labelled(SIZES)), dataset(labelled(SIZES, "test"), "test")
    result = divide(train, test, limit_train=150, limit_test=30)
    assert Counter(e.answer for e in result.train + result.valid) == {k: v / 2 for k, v in SIZES.items()}
    assert Counter(e.answer for e in result.valid) == {"common": 20, "medium": 6, "small": 3, "rare": 1}
    assert Counter(e.answer for e in result.test) == {k: v / 10 for k, v in SIZES.items()}


def test_every_label_has_a_row_while_there_is_room():
    pairs = labelled({"huge": 300, **{f"tiny {n}": 2 for n in range(20)}})
    train, test = dataset(pairs), dataset([(f"test {p}", a) for p, a in pairs], "test")
    for seed in range(5):
        result = divide(train, test, limit_train=40, limit_test=25, seed=seed)
        assert len({e.answer for e in result.train}) == 21 == len({e.answer for e in result.test})
        assert len({e.answer for e in divide(train, test, limit_test=15, seed=seed).test}) == 15


def test_the_split_is_a_function_of_contents_and_seed():
    pairs = labelled(SIZES)
    shuffled = random.Random(1).sample(pairs, len(pairs))
    one, two = (divide(dataset(rows), limit_train=150, limit_test=40, seed=3) for rows in (pairs, shuffled))
    assert prompts(one.train) == prompts(two.train) and prompts(one.valid) == prompts(two.valid)
    assert set(prompts(one.test)) == set(prompts(two.test))
    lines = [int(e.where.split(":")[1]) for e in one.test]
    assert lines == sorted(lines)
    other = divide(dataset(pairs), limit_train=150, limit_test=40, seed=4)
    assert set(prompts(one.test)) != set(prompts(other.test))
    # In seeded order, so that the first rows of a file sorted by label are not all of one label.
    assert len({e.answer for e in one.train[:20]}) > 1


def test_the_order_does_not_change_between_machines():
    assert digest(0, "test", "key")[:16] == "4cc4e62a0fb952a4"
    code = (
        "import sys; sys.path[:0] = ['tests/data', 'tests/helpers']; import test_split as t, json;"
        "r = t.divide(t.dataset(t.labelled(t.SIZES)), limit_train=50, limit_test=30);"
        "print(json.dumps([t.prompts(part) for part in t.parts(r)]))"
    )
    command, root = [sys.executable, "-c", code], Path(__file__).parents[2]
    outputs = set()
    for hash_seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        outputs.add(subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=env).stdout)
    here = divide(dataset(labelled(SIZES)), limit_train=50, limit_test=30)
    assert [json.loads(output) for output in outputs] == [[prompts(part) for part in parts(here)]]


def test_a_larger_limit_keeps_the_rows_of_a_smaller_one():
    train, test = dataset(labelled(SIZES)), dataset(labelled(SIZES, "test"), "test")
    small, large = (set(prompts(divide(train, test, limit_test=limit).test)) for limit in (100, 200))
    assert small < large


@pytest.mark.parametrize("column", ["label", "answer"])
@pytest.mark.parametrize("count", [60, 400])
def test_duplicates_stay_together(column, count):
    pairs = [(f"Question {n // 3}" + " " * (n % 3), f"answer {n % 4}") for n in range(count)]
    train = dataset(pairs, column=column)
    for seed in range(3):
        result, report = split(train, None, task.detect(train), seed=seed)
        splits = result.folds or (result,)
        for each in splits:
            keys = [{e.key for e in part} for part in parts(each)]
            assert all(keys) and not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])
        assert report.duplicates == count - len({e.key for e in train.examples})
        assert report.conflicts > 0
        assert any("repeat a prompt" in note for note in report.notes)


def test_without_a_test_file_a_quarter_is_held_out():
    result = divide(dataset(labelled({"a": 400, "b": 400})))
    assert [len(part) for part in parts(result)] == [480, 120, 200] and result.folds == ()
    assert Counter(e.answer for e in result.test) == {"a": 100, "b": 100}
    result = divide(dataset(labelled({"a": 400, "b": 400})), limit_train=300, limit_test=50)
    assert [len(part) for part in parts(result)] == [240, 60, 50]


@pytest.mark.parametrize(("rows", "tested"), [(199, 199), (200, 100), (300, 100), (400, 100), (401, 100), (480, 120)])
def test_one_row_more_does_not_change_the_test_much(rows, tested):
    train = dataset([(f"q{n}", "ab"[n % 2]) for n in range(rows)])
    assert len(divide(train).tested) == tested
    assert rows > 199 or 75 <= len(divide(train, deal_folds=False).tested) <= 100


def test_validation_has_at_most_256_rows():
    result = divide(dataset(labelled({"a": 2000, "b": 1000})), dataset(labelled({"a": 9}, "test"), "test"))
    assert len(result.valid) == 256 and len(result.train) == 3000 - 256
    copies = [(f"q{n // 2}", "ab"[n % 3 == 0]) for n in range(3000)]
    result = divide(dataset(copies, column="label"), dataset([("x", "a")], "test"))
    assert 250 <= len(result.valid) <= 256


def test_validation_leaves_every_label_in_training():
    pairs = labelled({"a": 50, **{f"once {n}": 1 for n in range(30)}})
    result = divide(dataset(pairs), dataset([("x", "a")], "test"))
    assert len({e.answer for e in result.train}) == 31 and {e.answer for e in result.valid} == {"a"}


def test_few_rows_are_dealt_into_folds():
    train = dataset(labelled({"a": 80, "b": 60, "c": 10}))
    result, report = split(train, None, task.detect(train))
    assert len(result.folds) == FOLDS and result.test == () and len(result.train) + len(result.valid) == 150
    assert sorted(prompts(result.tested)) == sorted(prompts(train.examples))
    for fold in result.folds:
        assert Counter(e.answer for e in fold.test) == {"a": 16, "b": 12, "c": 2}
        assert len(fold.train) + len(fold.valid) + len(fold.test) == 150 and len(fold.valid) == 24
    assert report.rows == {
        "file": 150, "test_file": 0, "train": 120, "valid": 30, "test": 150, "folds": 5, "skipped": 0,
        "incomplete": 0,
    }  # fmt: skip
    assert report.notes == ["folds, because there is no test file and few rows: 5"]
    limited = divide(train, limit_train=60, limit_test=40)
    assert len(limited.tested) == 40 and all(len(f.train) + len(f.valid) == 60 for f in limited.folds)


def test_training_rows_of_the_test_are_dropped_and_counted():
    train = dataset([*labelled(SIZES), (" TEST common  0", "common"), ("test common 0", "common")])
    test = dataset(labelled(SIZES, "test"), "test")
    result, report = split(train, test, task.detect(train))
    assert report.leakage == {"test_rows": 1, "share": 1 / 300, "dropped": 2}
    assert len(result.train) + len(result.valid) == 300 and len(result.test) == 300
    assert not {e.key for e in result.train + result.valid} & {e.key for e in result.test}
    assert report.notes[-1] == "training rows dropped because their prompts are in the test: 2"


def test_much_leakage_is_refused_unless_allowed():
    train = dataset(labelled(SIZES))
    leaked = labelled(SIZES)[:6]
    test = dataset([*leaked, *labelled({"common": 114}, "test")], "test")  # 6 of 120: exactly 5 %
    assert split(train, test, task.detect(train))[1].leakage["dropped"] == 6
    test = dataset([*leaked, *labelled({"common": 113}, "test")], "test")
    with pytest.raises(RiyazError) as error:
        divide(train, test)
    text = str(error.value)
    assert text.startswith("test.jsonl: 6 of 119 test rows (5.0%)") and "test.jsonl:1 (train.jsonl:1)" in text
    assert text.endswith("or pass --allow-leakage to continue without their training copies")
    result = divide(train, test, allow_leakage=True)
    assert len(result.train) + len(result.valid) == 294
    with pytest.raises(RiyazError, match=r"train.jsonl: 0 rows are left after removing 300"):
        divide(train, train, allow_leakage=True)


def test_too_few_rows_are_refused():
    with pytest.raises(RiyazError, match=r"train.jsonl: 19 rows: too few .*; give at least 20 rows"):
        divide(dataset(labelled({"a": 10, "b": 9})))
    copies = dataset([(f"q{n % 7}", "ab"[n % 2]) for n in range(400)])
    with pytest.raises(RiyazError, match="400 rows with only 7 different prompts"):
        divide(copies)
    assert len(divide(dataset(labelled({"a": 10, "b": 10}))).tested) == 20


def test_labels_come_from_the_whole_training_file():
    train = dataset(labelled({"a": 300, **{f"rare {n}": 1 for n in range(30)}}))
    test = dataset([("x", "a"), ("y", "rare 7"), ("z", "new")], "test")
    found = task.detect(train)
    result, report = split(train, test, found, limit_train=20)
    assert len(found.labels) == 31 and len({e.answer for e in result.train + result.valid}) <= 20
    assert report.unseen_labels == ["new"] and set(report.labels) == set(found.labels)
    assert report.labels["a"]["test"] == 1 and report.labels["rare 7"]["test"] == 1
    assert "which no method can get right: 1" in report.notes[-1]
    left_out = min({*found.labels} - {e.answer for e in result.train + result.valid})
    test = dataset([("x", "a"), ("y", left_out), ("z", "new")], "test")
    notes = split(train, test, found, limit_train=20)[1].notes
    assert "which no method can get right: 1" in notes[-2]
    assert notes[-1].endswith("no row to train or validate on has: only its name can tell: 1")
    strange = dataset([("x", "A"), ("y", "Rare 7")], "test")
    with pytest.raises(RiyazError, match=r"test.jsonl:1: no test row has a label of the training rows.*'A'"):
        split(train, strange, found)


def test_labels_that_are_tested_but_not_learned_are_counted():
    single = dataset(labelled({"a": 30, "b": 30, "hours": 1}))
    _, report = split(single, None, task.detect(single))
    assert report.rows["folds"] == FOLDS and report.notes[-2].endswith("only its name can tell: 1"), report.notes
    team = dataset([(f"row {n}", f"topic {n % 12}") for n in range(480)])
    team = replace(team, examples=tuple(replace(e, group=e.answer) for e in team.examples))
    with pytest.raises(RiyazError, match=r"no test row has a label of the training rows") as error:
        split(team, None, task.detect(team))
    assert error.value.hint == "leave out --group-column" and error.value.where.startswith("train.jsonl:")


def test_the_report_is_json():
    rows = labelled(SIZES)
    test = dataset(labelled(SIZES, "test"), "test")
    examples = (replace(e, slice="hard" if n < 3 else None) for n, e in enumerate(test.examples))
    test = replace(test, examples=tuple(examples), skipped=2)
    report = split(dataset(rows), test, task.detect(dataset(rows)))[1]
    record = json.loads(json.dumps(report.to_dict()))
    assert record["slices"] == {"hard": 3} and record["rows"]["skipped"] == 2
    assert record["answer_words"] == {"median": 1, "p95": 1, "longest": 1}
    assert record["labels"]["rare"] == {"train": 8, "valid": 2, "test": 10}


SLICES = {"direct": 84, "oblique": 73, "unanswerable": 61, "two desks": 22}


def sliced_rows() -> list[Example]:
    """240 rows in four slices of different sizes; three labels, of which one is only in the first slice."""
    rows = []
    for name, size in SLICES.items():
        labels = ["a", "b", "c"] if name == "direct" else ["a", "b"]
        rows += [
            Example(({"role": "user", "content": f"{name} {n}"},), (labels[n % len(labels)],), name, f"train.jsonl:{n}")
            for n in range(size)
        ]
    return rows


def proportional(rows: list[Example], count: float, error: int = 1) -> bool:
    """Whether each slice has its share of `count` rows, to `error` rows."""
    counts = Counter(row.slice for row in rows)
    return all(abs(counts[name] - count * size / 240) <= error for name, size in SLICES.items())


@pytest.mark.parametrize("by_label", [True, False])
def test_slices_keep_their_share(by_label):
    rows = sliced_rows()
    for seed in range(20):
        chosen = sample(rows, 60, by_label=by_label, seed=seed, purpose="p")
        assert proportional(chosen, 60) and len(chosen) == 60
        assert chosen == sample(rows[::-1], 60, by_label=by_label, seed=seed, purpose="p")
        out, rest = hold_out(rows, 0.25, by_label=by_label, seed=seed, purpose="p")
        assert proportional(out, 60) and proportional(rest, 180)
        for fold in deal(rows, 5, by_label=by_label, seed=seed, purpose="p"):
            # of each label's slices one row more or less
            assert proportional(fold, 48, error=2 if by_label else 1)
    assert chosen != sample(rows, 60, by_label=by_label, seed=0, purpose="p")


def test_a_slice_for_each_row_changes_nothing():
    rows = [example(f"q{n}", "ab"[n % 3 == 0], n) for n in range(200)]
    alone = [replace(row, slice=f"user {n}") for n, row in enumerate(rows)]
    chosen, other = (sample(r, 50, by_label=True, seed=1, purpose="p") for r in (rows, alone))
    assert prompts(chosen) == prompts(other)


# Properties

COUNTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.integers(1, 40), min_size=1, max_size=12)


@settings(max_examples=examples(200), deadline=None)
@given(COUNTS, st.data())
def test_shares_are_exact_proportional_and_leave_nobody_out(sizes, data):
    total = data.draw(st.integers(0, sum(sizes.values())))
    share = allocate(sizes, sizes, total)
    assert sum(share.values()) == total and all(0 <= share[label] <= sizes[label] for label in sizes)
    if total >= len(sizes):
        assert min(share.values()) >= 1
    exact = {label: total * size / sum(sizes.values()) for label, size in sizes.items()}
    if min(exact.values()) >= 1:
        assert all(abs(share[label] - exact[label]) <= 1 for label in sizes)


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc")), min_size=2, max_size=80),
    st.integers(0, 3), st.booleans(), st.integers(1, 80),
)  # fmt: skip
def test_choices_partition_the_rows(pairs, seed, by_label, count):
    rows = [example(f"q{number}", answer, line) for line, (number, answer) in enumerate(pairs, 1)]
    chosen = sample(rows, count, by_label=by_label, seed=seed, purpose="p")
    assert len(chosen) == min(count, len(rows)) and len({e.where for e in chosen}) == len(chosen)
    out, rest = hold_out(rows, 0.2, by_label=by_label, seed=seed, purpose="p")
    assert sorted(e.where for e in out + rest) == sorted(e.where for e in rows)
    assert not {e.key for e in out} & {e.key for e in rest}
    if len({e.key for e in rows}) > 1:
        assert out and rest
    assert ordered(rows, seed, "p") == ordered(rows[::-1], seed, "p")
