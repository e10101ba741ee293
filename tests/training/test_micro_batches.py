"""Micro batches: whole rows, of about the same size, what all begin with read once; losses of rows do not depend on
them."""

import pytest
import torch
from small_llama import random_rows, small_model

from riyaz.data.packing import pack
from riyaz.data.rows import Row
from riyaz.train import answer_loss, micro_batches, row_nats

LOSS = 1e-5  # nats, float32, a row alone and among others


@pytest.mark.parametrize("budget", [1, 25, 60, 10**6])
def test_micro_batches_hold_whole_rows_in_order_within_the_budget(budget: int) -> None:
    rows = random_rows(6, 30)
    parts = list(micro_batches(rows, budget))
    together = [length for part in parts for length in part.lengths]
    assert together == pack(rows).lengths
    assert torch.equal(torch.cat([torch.from_numpy(p.labels) for p in parts]), torch.from_numpy(pack(rows).labels))
    assert all(sum(part.lengths) <= budget or len(part.lengths) == 1 for part in parts)
    if budget == 10**6:
        assert len(parts) == 1


def test_micro_batches_are_of_about_the_same_size() -> None:
    rows = [Row((number, *[1] * 49), (2,) * 10) for number in range(8)]
    assert [len(part.lengths) for part in micro_batches(rows, 300)] == [4, 4]  # not five and three
    assert [len(part.lengths) for part in micro_batches(rows, 480)] == [8]


def test_what_all_rows_begin_with_does_not_count_in_a_micro_batch() -> None:
    begin = tuple(range(200))
    rows = [Row((*begin, number), (2,) * 9) for number in range(16)]
    for budget, count in ((80, 8), (40, 4), (1, 1)):
        parts = list(micro_batches(rows, budget))
        assert [len(part.lengths) for part in parts] == [count] * (16 // count)
        assert count == 1 or all(part.shared == 200 for part in parts)


def test_losses_of_rows_do_not_depend_on_what_stands_beside_them() -> None:
    model = small_model()
    rows = [Row((*range(1, 20), *row.prompt), row.answer) for row in random_rows(7, 6)]
    spans = (len(rows[2].prompt), len(rows[2].prompt) + len(rows[2].answer))
    rows[2] = Row((*rows[2].prompt, *rows[2].answer, 3), (5, 6), earlier=(spans,))
    alone = [row_nats(model, [row])[0] for row in rows]
    for micro_tokens in (1, 60, 10**6):
        assert row_nats(model, rows, micro_tokens) == pytest.approx(alone, rel=LOSS)
    assert row_nats(model, []) == []
    assert sum(alone) / sum(len(row.labels) for row in rows) == pytest.approx(answer_loss(model, rows), abs=LOSS)
