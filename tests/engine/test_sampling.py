"""Drawing tokens: by their probabilities, from noise that neighbours and rounding seldom change."""

import numpy as np
import pytest

from riyaz.engine import Sampling
from riyaz.engine.sampling import _uniform, draw, falling, gumbel, kept, likeliest


@pytest.mark.parametrize(
    ("sampling", "tokens"),
    [(Sampling(1.0), [7, 3, 400, 1, 499]), (Sampling(0.5), [7, 3, 400, 1, 499]), (Sampling(1.0, top_k=2), [7, 3]),
     (Sampling(1.0, top_p=0.6), [7, 3]), (Sampling(1.0, min_p=0.3), [7, 3, 400]),
     (Sampling(1.0, top_k=4, top_p=0.8, min_p=0.2), [7, 3, 400])],
)  # fmt: skip
def test_tokens_are_drawn_by_their_probabilities(sampling: Sampling, tokens: list[int]) -> None:
    log_p = np.full(500, -np.inf, np.float32)
    log_p[[7, 3, 400, 1, 499]] = np.log([0.45, 0.25, 0.15, 0.1, 0.05])
    wanted = np.exp(log_p[tokens]) ** (1 / sampling.temperature)
    drawn = [draw(log_p, sampling, request, place) for request in range(40) for place in range(100)]
    counts = np.array([drawn.count(token) for token in tokens])
    assert counts.sum() == 4000
    assert np.abs(counts / 4000 - wanted / wanted.sum()).max() < 0.03  # four standard errors


def drawn_slowly(log_p: np.ndarray, sampling: Sampling, request: int, position: int) -> tuple[list[int], int]:
    """(the tokens that are kept, likeliest first; the one that is drawn), from all tokens, sorted."""
    order = np.argsort(-log_p, kind="stable")[: sampling.top_k or None]
    p = np.exp((log_p[order].astype(np.float64) - log_p.max()) / sampling.temperature)
    p /= p.sum()
    count = int(np.searchsorted(np.cumsum(p), sampling.top_p)) + 1 if sampling.top_p < 1 else len(p)
    count = min(count, int((p >= max(sampling.min_p * p[0], np.nextafter(0, 1))).sum()))
    noise = gumbel(_uniform(order, sampling.seed, request, position))
    return order[:count].tolist(), int(order[np.argmax(np.log(p[:count]) + noise[:count])])


@pytest.mark.parametrize("spread", [0.1, 3.0, 12.0])
@pytest.mark.parametrize("temperature", [0.05, 0.7, 2.0])
@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"), [(0, 1, 0), (0, 0.9, 0), (0, 1, 0.02), (50, 0.95, 0.01), (1, 1, 0)]
)
def test_the_same_tokens_are_kept_and_drawn_as_when_all_are_sorted(
    spread: float, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    generator = np.random.default_rng(int(10 * spread))
    sampling = Sampling(temperature, top_k, top_p, min_p, seed=5)
    for place in range(25):
        log_p = np.round(generator.normal(0, spread, 3000), 2).astype(np.float32)  # some are equal
        log_p[generator.integers(0, 3000, 100)] = -np.inf
        wanted, token = drawn_slowly(log_p, sampling, 9, place)
        assert set(kept(log_p, sampling)[0].tolist()) == set(wanted)
        assert draw(log_p, sampling, 9, place) == token


def test_a_rounding_difference_seldom_changes_what_is_drawn() -> None:
    generator, changed = np.random.default_rng(0), 0
    for place in range(300):
        log_p = generator.normal(-8, 2, 1000).astype(np.float32)
        near = log_p + generator.normal(0, 0.01, 1000).astype(np.float32)
        changed += draw(log_p, Sampling(1.0, seed=3), 0, place) != draw(near, Sampling(1.0, seed=3), 0, place)
    assert changed <= 9


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 7, 5000])
def test_the_likeliest_are_those_of_a_stable_sort(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    log_p = generator.integers(-30, 1, 5000).astype(np.float32) / 3  # many are equal
    log_p[generator.integers(0, 5000, 50)] = -np.inf
    log_p[generator.integers(0, 5000, 50)] = np.float32(-0.0)
    wanted = np.argsort(-log_p, kind="stable")[:count]
    tokens, values = likeliest(log_p, count)
    assert tokens.tolist() == wanted.tolist() and values.tolist() == log_p[wanted].tolist()
    raised = log_p + np.float32(12)  # numbers on both sides of 0
    assert falling(raised).tolist() == np.argsort(-raised, kind="stable").tolist()
