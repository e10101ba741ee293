"""Dropout: the seed counts, a row has its masks however rows are packed, and as many activations fall as asked for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_llama import random_rows, small_model

from riyaz.data.packing import PackedRows, pack, padded
from riyaz.data.rows import Row
from riyaz.events import quiet
from riyaz.layers.dropout import LEVELS, Dropout, dropping, laid_out
from riyaz.train import TrainPlan, set_dropout, train

SEED, STEP, C = 7, 3, 12
PLAN = TrainPlan(steps=1, learning_rate=1e-3, dropout=0.3, compute="float32", keep_best=False)


def layer(p: float = 0.5, number: int = 2) -> Dropout:
    made = Dropout().train()
    made.p, made.number = p, number
    return made


def placed_rows(*lengths: int) -> list[Row]:
    """Rows of so many tokens, which begin alike where they are long."""
    return [
        Row(tuple(range(5, 5 + length // 2)), (*range(100 * place, 100 * place + length - length // 2), 2), place=place)
        for place, length in enumerate(lengths, 4)
    ]


def masks(rows: PackedRows, drop: Dropout, seed: int = SEED, step: int = STEP) -> torch.Tensor:
    with dropping(seed, step, rows):
        return drop(torch.ones(len(rows.tokens), C))


def test_the_seed_changes_the_masks(tmp_path: Path) -> None:
    """Of one row, so that it is not the order that changes."""
    losses = [
        train(small_model().requires_grad_(True), random_rows(1, 1), (), replace(PLAN, seed=seed), tmp_path / f"{seed}",
              quiet).history[0]["loss"] for seed in (1, 2)
    ]  # fmt: skip
    assert losses[0] != losses[1]


def test_a_row_has_its_masks_however_rows_are_packed() -> None:
    rows = placed_rows(9, 14, 5)
    drop = layer()
    alone = [masks(pack([row]), drop) for row in rows]
    assert all(set(each.unique().tolist()) == {0.0, 2.0} for each in alone)
    together = masks(padded(pack(rows), 16), drop)
    assert len(together) % 16 == 0 and torch.equal(together[: sum(map(len, alone))], torch.cat(alone))
    assert (together[sum(map(len, alone)) :] == 2).all(), "padding is kept"
    assert torch.equal(masks(pack(rows[::-1]), drop), torch.cat(alone[::-1]))
    for other in (layer(number=3), layer()):
        changed = masks(pack(rows[:1]), other, step=STEP + (other.number == drop.number))
        assert not torch.equal(changed, alone[0]), "another layer or step has other masks"
    assert not torch.equal(masks(pack(rows[:1]), drop, seed=SEED + 1), alone[0])


def test_what_rows_share_falls_as_in_the_first_one() -> None:
    rows, drop = placed_rows(40, 44, 48), layer()
    packed = pack(rows)
    assert packed.shared >= 8
    alone = [masks(pack([row]), drop) for row in rows]
    together = masks(packed, drop)
    assert torch.equal(together[: len(alone[0])], alone[0])
    assert torch.equal(together[-packed.lengths[2] :], alone[2][packed.shared :])
    with dropping(SEED, STEP, packed), laid_out([len(each) for each in alone]):
        assert torch.equal(drop(torch.ones(sum(map(len, alone)), C)), torch.cat(alone))


def test_both_answers_of_a_pair_have_their_own_masks() -> None:
    (pair,) = placed_rows(10)
    packed = pack([replace(pair, rejected=pair.answer)])
    better, worse = masks(packed, layer())[packed.shared :].split(packed.lengths)
    assert packed.places == ((4, 0), (4, 1)) and not torch.equal(better, worse)


@pytest.mark.parametrize("p", [0.1, 0.37, 0.9])
def test_as_many_fall_as_asked_for_and_the_mean_stays(p: float) -> None:
    rows = pack([Row((1,), tuple(range(2, 4000)), place=0)])
    with dropping(SEED, STEP, rows):
        out = layer(p)(torch.ones(len(rows.tokens), 64))
    error = 4 * (p * (1 - p) / out.numel()) ** 0.5  # four standard errors
    assert (out == 0).float().mean().item() == pytest.approx(p, abs=error + 1 / LEVELS)
    assert out.double().mean().item() == pytest.approx(1, abs=error / (1 - p))


def test_the_gradient_is_that_of_what_is_kept() -> None:
    rows = pack(placed_rows(9))
    x = torch.randn(len(rows.tokens), C, requires_grad=True)
    drop = layer()
    with dropping(SEED, STEP, rows):
        drop(x).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, masks(rows, drop))


def test_nothing_falls_outside_of_training() -> None:
    x, drop = torch.randn(3, C), layer()
    assert drop.eval()(x) is x and layer(0.0)(x) is x
    with pytest.raises(AssertionError, match="belongs in `dropping`"):
        layer()(x)


def test_layers_are_numbered_in_their_order() -> None:
    model = small_model()
    set_dropout(model, 0.2)
    layers = [each for each in model.modules() if isinstance(each, Dropout)]
    assert [each.number for each in layers] == list(range(len(layers))) and {each.p for each in layers} == {0.2}


def test_numpy_draws_what_it_drew() -> None:
    """The stream of Philox is a part of a run's plan."""
    drawn = np.random.Philox(key=SEED << 64 | STEP, counter=(0, 2, 4, 0)).random_raw(2).view(np.uint16)
    assert drawn.tolist() == [4101, 16773, 3527, 50694, 154, 2337, 34064, 31715]
