"""Drawing tokens: by their probabilities, from noise that neighbours and rounding seldom change."""

import numpy as np
import pytest

from riyaz.engine import Sampling
from riyaz.engine.sampling import draw, falling, likeliest


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [(Sampling(1.0), 5), (Sampling(0.5), 5), (Sampling(1.0, top_k=2), 2), (Sampling(1.0, top_p=0.6), 2),
     (Sampling(1.0, min_p=0.3), 3)],
)  # fmt: skip
def test_tokens_are_drawn_by_their_probabilities(sampling: Sampling, kept: int) -> None:
    p, tokens = np.array([0.45, 0.25, 0.15, 0.1, 0.05]), np.array([7, 3, 400, 1, 65_000])
    wanted = p[:kept] ** (1 / sampling.temperature)
    drawn = [draw(tokens, np.log(p), sampling, request, place) for request in range(40) for place in range(100)]
    counts = np.array([drawn.count(token) for token in tokens])
    assert counts[kept:].sum() == 0
    assert np.abs(counts[:kept] / 4000 - wanted / wanted.sum()).max() < 0.03  # four standard errors


def test_a_rounding_difference_seldom_changes_what_is_drawn() -> None:
    generator, changed = np.random.default_rng(0), 0
    for place in range(300):
        log_p = np.sort(generator.normal(-8, 2, 1000))[::-1]
        near = log_p + generator.normal(0, 0.01, 1000)
        order = (-near).argsort()
        tokens, sampling = np.arange(1000), Sampling(1.0, seed=3)
        changed += draw(tokens, log_p, sampling, 0, place) != draw(tokens[order], near[order], sampling, 0, place)
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
