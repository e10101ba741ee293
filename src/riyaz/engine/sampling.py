"""Draws the next token. A random number is a function of (seed, request, position), so a text is the same alone, in a
batch and after a restart."""

import numpy as np

from riyaz.engine.request import Sampling

_WORD = 2**64 - 1


def draw(tokens: np.ndarray, log_probabilities: np.ndarray, sampling: Sampling, request: int, position: int) -> int:
    """The token at `position` of a request's answer, drawn from `tokens` (K,) by their log-probabilities (K,), both
    likeliest first; the temperature must be above 0."""
    p = probabilities(log_probabilities, sampling)
    below = np.cumsum(p)
    place = np.searchsorted(below, uniform(sampling.seed, request, position) * below[-1], side="right")
    return int(tokens[min(int(place), len(p) - 1)])


def probabilities(log_probabilities: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Probabilities of the first tokens that top-k, top-p and min-p keep; not renormalised after top-p and min-p."""
    if sampling.top_k:
        log_probabilities = log_probabilities[: sampling.top_k]
    behind = log_probabilities.astype(np.float64) - log_probabilities[0]  # relative to the likeliest token
    with np.errstate(over="ignore"):  # -inf, probability 0, at a temperature near 0
        p = np.exp(behind / sampling.temperature)
    p /= p.sum()
    kept = len(p)
    if sampling.top_p < 1:
        kept = int(np.searchsorted(np.cumsum(p), sampling.top_p)) + 1
    if sampling.min_p > 0:
        kept = min(kept, int((p >= sampling.min_p * p[0]).sum()))
    return p[:kept]


def uniform(seed: int, request: int, position: int) -> float:
    """A random number in [0, 1): SplitMix64 (Steele et al. 2014, doi 10.1145/2714064.2660195) of the arguments."""
    state = 0
    for number in (seed, request, position):
        state = _mixed((state ^ (number & _WORD)) + 0x9E3779B97F4A7C15 & _WORD)
    return (state >> 11) / 2**53


def _mixed(word: int) -> int:
    """The output function of SplitMix64."""
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB & _WORD
    return word ^ word >> 31
