"""Duplicates are found across spelling, and the kind of task follows from the answers."""

import hashlib
import json
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
    """A dataset with the given answers."""
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
    found = task.detect(dataset_of(["a", "b"] * 10), instruction="", metric="rouge_l")
    assert (found.kind, found.instruction, found.metric) == ("closed", "", "rouge_l")
    with pytest.raises(RiyazError, match="accuracy, exact_match, rouge_l"):
        task.detect(dataset_of(["a", "b"]), metric="bleu")


def test_one_label_only_is_refused():
    for column in ("label", "answer"):
        with pytest.raises(RiyazError, match="all 30 rows have the same answer 'spam'"):
            task.detect(dataset_of(["spam"] * 30, column))
