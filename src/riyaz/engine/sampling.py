"""Drawing the next token, by the Gumbel-max trick (Gumbel 1954; Maddison et al. 2014, arXiv 1411.0030): every token
has noise of its own, and the highest sum of log-probability and noise wins.

The noise is a function of (seed, request, position, token). The same log-probabilities therefore give the same token
alone, in a batch and after a restart, and a rounding difference matters only where it changes the highest sum.
"""

import numpy as np

from riyaz.engine.request import Sampling

_WORD = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15  # SplitMix64's increment


def draw(tokens: np.ndarray, log_probabilities: np.ndarray, sampling: Sampling, request: int, position: int) -> int:
    """The token at `position` of a request's answer, drawn from `tokens` (K,) by their log-probabilities (K,), both
    likeliest first; the temperature must be above 0."""
    p = probabilities(log_probabilities, sampling)
    noise = gumbel(tokens[: len(p)], sampling.seed, request, position)
    with np.errstate(divide="ignore"):  # a probability of 0 is -inf
        return int(tokens[np.argmax(np.log(p) + noise)])


def probabilities(log_probabilities: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Probabilities of the first tokens that top-k, top-p and min-p keep; not renormalised after top-p and min-p."""
    if sampling.top_k:
        log_probabilities = log_probabilities[: sampling.top_k]
    behind = log_probabilities.astype(np.float64) - log_probabilities[0]  # relative to the likeliest token
    with np.errstate(over="ignore"):  # -inf, probability 0, at a temperature near 0
        p = np.exp(behind / sampling.temperature)
    p /= p.sum()
    count = len(p)
    if sampling.top_p < 1:
        count = int(np.searchsorted(np.cumsum(p), sampling.top_p)) + 1
    if sampling.min_p > 0:
        count = min(count, int((p >= sampling.min_p * p[0]).sum()))
    return p[:count]


def likeliest(log_probabilities: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` likeliest of the tokens (V,) and their log-probabilities, likeliest first, then the lower token."""
    tokens = np.arange(len(log_probabilities))
    if count < len(tokens):
        least = np.partition(log_probabilities, -count)[-count]
        tokens = np.flatnonzero(log_probabilities >= least)
    tokens = tokens[falling(log_probabilities[tokens])[:count]]
    return tokens, log_probabilities[tokens]


def falling(values: np.ndarray) -> np.ndarray:
    """The places of float32 numbers (K,) from the largest to the smallest, equal ones as they stand.

    Each number becomes a whole one of the same order, with its place in the lower half, since numpy sorts whole numbers
    seven times as fast as it sorts floats stably."""
    bits = (values + np.float32(0)).view(np.int32)  # -0 as 0
    rising = np.where(bits < 0, ~bits, bits | np.int32(-(2**31))).view(np.uint32)
    keys = (~rising).astype(np.uint64) << np.uint64(32) | np.arange(len(values), dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64(2**32 - 1)).astype(np.int64)


def gumbel(tokens: np.ndarray, seed: int, request: int, position: int) -> np.ndarray:
    """Standard Gumbel noise (K,) of tokens (K,): SplitMix64 (Steele et al. 2014, doi 10.1145/2714064.2660195) over the
    three numbers and each token."""
    state = 0
    for number in (seed, request, position):
        state = int(_mixed(np.array([(state ^ (number & _WORD)) + _STEP & _WORD], np.uint64))[0])
    words = _mixed((np.uint64(state) ^ tokens.astype(np.uint64)) + np.uint64(_STEP))
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53  # inside (0, 1)
    return -np.log(-np.log(uniform))


def _mixed(words: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64 on words (K,) of 64 bits."""
    words = (words ^ words >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ words >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return words ^ words >> np.uint64(31)
