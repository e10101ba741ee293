"""Duplicates are found across spelling, and the kind of task follows from the answers."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from riyaz.data import Dataset, Example, normalise, task
from riyaz.errors import RiyazError


def test_duplicates_are_found_across_spelling():
    assert normalise(" Ｗhere\tIS\n my  CARD ") == "where is my card"
    one, two = (Example(({"role": "user", "content": text},), ("a",)) for text in ("Straße", "STRASSE  "))
    assert one.key == two.key != Example(({"role": "user", "content": "Gasse"},), ("a",)).key
    system = Example(({"role": "system", "content": "s"}, {"role": "user", "content": "strasse"}), ("a",))
    earlier = Example(({"role": "user", "content": "q"}, {"role": "user", "content": "strasse"}), ("a",))
    assert system.key == one.key != earlier.key


def test_the_key_is_the_same_on_every_machine():
    example = Example(({"role": "user", "content": "Where is my card?"},), ("card",))
    assert example.key == hashlib.sha256(b"where is my card?").hexdigest()


def test_examples_survive_a_file():
    example = Example(({"role": "user", "content": "q"},), ("a", "b"), "rare", "train.jsonl:3", ("7", "8"))
    assert Example.from_record(json.loads(json.dumps(example.to_record()))) == example
    bare = Example(({"role": "user", "content": "q"},), ("a",))
    assert Example.from_record(json.loads(json.dumps(bare.to_record()))) == bare


def dataset_of(answers: list[str], answer_column: str = "answer") -> Dataset:
    examples = tuple(Example(({"role": "user", "content": f"q{n}"},), (a,)) for n, a in enumerate(answers))
    return Dataset(examples, f"question,{answer_column}", Path("a.jsonl"), "", (), answer_column=answer_column)


@pytest.mark.parametrize(
    ("answers", "column", "kind", "metric"),
    [
        ([f"label {n}" for n in range(30)], "label", "closed", "accuracy"),
        ([f"label {n // 3}" for n in range(30)], "answer", "closed", "accuracy"),
        ([f"label {n // 3}" for n in range(29)], "answer", "short", "exact_match"),
        ([f"label {n // 3}" for n in range(600)], "answer", "closed", "accuracy"),
        ([f"label {n // 3}" for n in range(603)], "answer", "short", "exact_match"),
        (["x" * 60, "y"] * 10, "answer", "closed", "accuracy"),
        (["x" * 61, "y"] * 10, "answer", "short", "exact_match"),
        ([f"{n} two three four five six" for n in range(30)], "answer", "short", "exact_match"),
        ([f"{n} two three four five six seven" for n in range(30)], "answer", "free", "rouge_l"),
    ],
)
def test_the_task_follows_the_answers(answers, column, kind, metric):
    found = task.detect(dataset_of(answers, column))
    assert (found.kind, found.metric) == (kind, metric)
    assert found.labels == (tuple(sorted(set(answers))) if kind == "closed" else ())
    assert found.instruction == task.INSTRUCTION[kind] and found.why


def test_the_reason_speaks_for_the_kind():
    assert task.detect(dataset_of([f"{n} b c d e f g" for n in range(30)])).why == "the median answer has 7 words"
    assert task.detect(dataset_of([f"{n}" for n in range(30)])).why == "the median answer has 1 word"


def test_the_user_may_set_instruction_and_metric():
    found = task.detect(dataset_of(["a", "b"] * 10), instruction="", metric="exact_match")
    assert (found.kind, found.instruction, found.metric) == ("closed", "", "exact_match")
    with pytest.raises(RiyazError, match="accuracy, exact_match, token_f1, rouge_l, chrf"):
        task.detect(dataset_of(["a", "b"]), metric="bleu")


@pytest.mark.parametrize(
    ("kind", "metric", "refused"),
    [
        ("closed", "accuracy", "token_f1"), ("closed", "exact_match", "chrf"), ("short", "token_f1", "accuracy"),
        ("short", "chrf", "accuracy"), ("free", "chrf", "accuracy"), ("free", "token_f1", "accuracy"),
    ],
)  # fmt: skip
def test_the_user_may_set_the_kind_and_a_metric_that_fits_it(kind, metric, refused):
    data = dataset_of([f"label {n // 2}" for n in range(40)])
    found = task.detect(data, metric=metric, kind=kind)
    assert (found.kind, found.metric, found.why) == (kind, metric, "it was given")
    assert found.instruction == task.INSTRUCTION[kind] and len(found.labels) == (20 if kind == "closed" else 0)
    assert task.detect(data, kind=kind).metric == task.FITTING[kind][0]
    with pytest.raises(RiyazError, match=f"--metric: {refused} does not score .*; choose one of .*, or .* --task"):
        task.detect(data, metric=refused, kind=kind)
    if kind == "short":  # the kind that is detected here
        with pytest.raises(RiyazError, match="accuracy does not score short answers"):
            task.detect(data, metric="accuracy")


def test_a_closed_set_needs_labels_that_repeat():
    data = dataset_of([f"label {n // 2}" for n in range(39)] + ["another"])
    with pytest.raises(RiyazError, match="21 different answers in 40 rows are no set of labels; leave out --task"):
        task.detect(data, kind="closed")
    with pytest.raises(RiyazError, match="no set of labels; give at least two rows for each label"):
        task.detect(replace(data, answer_column="label"), kind="closed")


def test_one_label_only_is_refused():
    for column in ("label", "answer"):
        with pytest.raises(RiyazError, match="all 30 rows have the same answer 'spam'"):
            task.detect(dataset_of(["spam"] * 30, column))


def test_the_limit_of_an_answer_follows_from_the_longest_and_the_task():
    free = task.Task("free", (), "chrf", "", "")
    assert [task.limit_for(free, longest) for longest in (1, 100)] == [8, 125]
    assert task.limit_for(replace(free, schema="{}"), 100) == 200
    assert task.limit_for(replace(free, schema="{}", max_new_tokens=7), 100) == 7
