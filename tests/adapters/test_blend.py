"""Sums of LoRAs beside dense matrices: exact up to one rounding, and of a smaller rank with the error that is said."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from riyaz.adapters import Pair
from riyaz.adapters.blend import RankError, reduced, weighted_sum

# The relative error of one rounding to float32. Every product of the sum has a factor that was rounded once.
ROUNDING = 2.0**-24
TRUE = 1e-6  # relative difference of two errors: the reduced factors are stored in float32
SHAPES = {"model.layers.0.q": (24, 40), "model.layers.1.q": (40, 24), "lm_head": (6, 50)}


def random_pairs(seed: int, rank: int, alpha: float, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> dict[str, Pair]:
    """A LoRA with seeded numbers on every one of these linears."""
    generator = np.random.default_rng(seed)

    def matrix(*shape: int) -> np.ndarray:
        return generator.normal(0, 0.3, shape).astype(np.float32)

    return {
        path: Pair(matrix(rank, inner), matrix(outer, rank), alpha / rank) for path, (outer, inner) in shapes.items()
    }


def dense(pair: Pair) -> np.ndarray:
    """What a pair adds to its linear's weight (out, in), in float64."""
    return pair.scale * (pair.b.astype(np.float64) @ pair.a.astype(np.float64))


def dense_sum(adapters: Sequence[Mapping[str, Pair]], weights: Sequence[float], path: str) -> np.ndarray:
    return sum(weight * dense(pairs[path]) for pairs, weight in zip(adapters, weights) if path in pairs)


def size_of_terms(adapters: Sequence[Mapping[str, Pair]], weights: Sequence[float], path: str) -> float:
    """The largest sum of the sizes of all products that an entry of the sum consists of."""
    terms = [
        abs(weight * pairs[path].scale) * (np.abs(pairs[path].b).astype(np.float64) @ np.abs(pairs[path].a))
        for pairs, weight in zip(adapters, weights)
        if path in pairs
    ]
    return float(np.sum(terms, axis=0).max())


@pytest.mark.parametrize("weights", [(0.5, 0.3, 0.2), (1 / 3,) * 3, (1.7, -0.9, 1e-3), (1e6, 1e-6, 1.0)])
def test_the_sum_is_the_dense_one_whatever_the_ranks_and_scales(weights):
    adapters = [random_pairs(1, 3, 8.0), random_pairs(2, 5, 7.0), random_pairs(3, 4, 0.1)]
    made = weighted_sum(adapters, weights)
    assert list(made) == list(SHAPES)
    for path, pair in made.items():
        assert pair.rank == 3 + 5 + 4 and pair.a.dtype == pair.b.dtype == np.float32
        apart = np.abs(dense(pair) - dense_sum(adapters, weights, path)).max()
        assert apart <= ROUNDING * size_of_terms(adapters, weights, path), path


def test_factors_of_one_size_round_nothing():
    one, two = random_pairs(1, 3, 7.0), random_pairs(2, 3, 7.0)
    made = weighted_sum([one, two], [1 / 3, -1 / 3])
    for path, pair in made.items():
        assert pair.scale == (1 / 3) * (7 / 3)
        assert np.array_equal(pair.a, np.concatenate([one[path].a, two[path].a]))
        assert np.array_equal(pair.b, np.concatenate([one[path].b, -two[path].b], axis=1))


def test_a_layer_of_one_adapter_counts_as_zero_in_the_others():
    one, two = random_pairs(1, 3, 8.0), random_pairs(2, 2, 2.0, {"lm_head": (6, 50), "model.layers.1.v": (8, 24)})
    weights = (0.25, 0.75)
    made = weighted_sum([one, two], weights)
    assert {path: pair.rank for path, pair in made.items()} == {
        "model.layers.0.q": 3, "model.layers.1.q": 3, "lm_head": 5, "model.layers.1.v": 2,
    }  # fmt: skip
    for path, pair in made.items():
        apart = np.abs(dense(pair) - dense_sum([one, two], weights, path)).max()
        assert apart <= ROUNDING * size_of_terms([one, two], weights, path), path
    assert np.array_equal(made["model.layers.1.v"].b, two["model.layers.1.v"].b), "alone, a pair keeps its bits"
    assert made["model.layers.1.v"].scale == 0.75


def test_an_adapter_with_the_weight_0_adds_no_rank_and_no_layer():
    one, two = random_pairs(1, 3, 8.0), random_pairs(2, 2, 2.0, SHAPES | {"other": (4, 4)})
    made = weighted_sum([one, two], [1, 0])
    assert made.keys() == one.keys()
    for path, pair in made.items():
        assert pair.scale == one[path].scale and np.array_equal(pair.b, one[path].b)
        assert np.array_equal(pair.a, one[path].a)


def test_an_adapter_that_adds_nothing_is_no_division_by_zero():
    made = weighted_sum([random_pairs(1, 3, 0.0), random_pairs(2, 2, 0.0)], [0.5, 0.5])
    assert all(not dense(pair).any() for pair in made.values())
    kept, error = reduced(made, 2)
    assert error == RankError() and {pair.rank for pair in kept.values()} == {2}


@pytest.mark.parametrize("rank", [1, 2, 5, 7, 11])
def test_the_error_of_a_rank_is_the_true_and_the_least_one(rank):
    adapters, weights = [random_pairs(1, 3, 8.0), random_pairs(2, 5, 7.0), random_pairs(3, 4, 0.9)], (0.5, -0.4, 2.0)
    whole = weighted_sum(adapters, weights)
    kept, error = reduced(whole, rank)
    norms, losses, least = {}, {}, {}
    for path, (outer, inner) in SHAPES.items():
        assert kept[path].a.shape[1] == inner and kept[path].b.shape[0] == outer
        assert kept[path].rank == min(rank, outer, inner)
        total = dense_sum(adapters, weights, path)
        norms[path], losses[path] = np.linalg.norm(total), np.linalg.norm(total - dense(kept[path]))
        least[path] = np.linalg.norm(np.linalg.svd(total, compute_uv=False)[rank:])
        assert math.isclose(losses[path], least[path], rel_tol=TRUE, abs_tol=TRUE * norms[path]), path
    overall = np.linalg.norm(list(losses.values())) / np.linalg.norm(list(norms.values()))
    assert math.isclose(error.overall, overall, rel_tol=TRUE)
    shares = {path: losses[path] / norms[path] for path in SHAPES}
    assert error.layer == max(shares, key=shares.__getitem__)
    assert math.isclose(error.worst, shares[error.layer], rel_tol=TRUE)
    assert error.worst > error.overall > 0


def test_the_overall_error_weighs_every_layer_by_its_size():
    large, small = random_pairs(1, 4, 400.0, {"large": (20, 20)}), random_pairs(2, 4, 0.004, {"small": (20, 20)})
    kept, error = reduced(large | small, 4)
    assert error == RankError() and kept["large"].rank == 4
    one = Pair(large["large"].a[:1], large["large"].b[:, :1], 100.0)  # of rank 1, so that only the small layer loses
    _, error = reduced({"large": one} | small, 2)
    assert error.layer == "small" and error.worst > 0.1 and error.overall < 1e-3 * error.worst


def test_a_rank_that_is_not_smaller_keeps_every_bit():
    whole = weighted_sum([random_pairs(1, 3, 8.0), random_pairs(2, 5, 7.0)], (0.5, 0.5))
    kept, error = reduced(whole, 8)
    assert error == RankError() and all(kept[path] is pair for path, pair in whole.items())


def test_a_sum_of_one_adapter_with_itself_has_its_rank():
    one = random_pairs(1, 3, 8.0, {"q": (24, 40)})
    twice = weighted_sum([one, one], (0.5, 0.5))
    assert twice["q"].rank == 6
    kept, error = reduced(twice, 3)
    assert kept["q"].rank == 3 and error.overall < 1e-12
    assert np.abs(dense(kept["q"]) - dense(one["q"])).max() < 10 * ROUNDING * np.abs(dense(one["q"])).max()
