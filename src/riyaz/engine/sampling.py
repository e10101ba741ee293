"""Drawing the next token, by the Gumbel-max trick (Gumbel 1954; Maddison et al. 2014, arXiv 1411.0030): every token
has noise of its own, and the highest sum of log-probability and noise wins.

The noise is a function of (seed, request, position, token). The same log-probabilities therefore give the same token
alone, in a batch and after a restart, and a rounding difference matters only where it changes the highest sum.
"""

import numpy as np

from riyaz.engine.request import Sampling

BLOCK = 64  # tokens whose largest log-probability is looked at first
_WORD = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15  # SplitMix64's increment


def draw(log_probabilities: np.ndarray, sampling: Sampling, request: int, position: int) -> int:
    """The token at `position` of a request's answer, drawn from all tokens by their log-probabilities (V,) float32; the
    temperature must be above 0."""
    tokens, p = kept(log_probabilities, sampling)
    uniform = _uniform(tokens, sampling.seed, request, position)
    first = p.argmax()
    # The highest log p - log(-log u) has the least -log(u) / p, and -log(u) is at least 1 - u: most tokens are out
    most = -np.log(uniform[first]) / p[first] * (1 + 1e-9)
    able = np.flatnonzero(1 - uniform <= most * p)
    return int(tokens[able[np.argmax(np.log(p[able]) + gumbel(uniform[able]))]])


def kept(log_probabilities: np.ndarray, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """The tokens (K,) that top-k, top-p and min-p keep of all (V,), and their probabilities (K,), none of them 0; not
    renormalised after top-p and min-p."""
    tokens = np.arange(len(log_probabilities))
    if 0 < sampling.top_k < len(tokens):
        tokens, log_probabilities = likeliest(log_probabilities, sampling.top_k)
    behind = log_probabilities.astype(np.float64) - log_probabilities.max()  # relative to the likeliest token
    with np.errstate(over="ignore"):  # -inf, probability 0, at a temperature near 0
        p = np.exp(behind / sampling.temperature)
    p /= p.sum()
    # Those below a V-th of 1 - top_p are together less than 1 - top_p, so top-p keeps none of them
    least = max((1 - sampling.top_p) / len(p), sampling.min_p * p.max(), np.nextafter(0, 1))
    able = np.flatnonzero(p >= least)
    if sampling.top_p < 1:
        able = able[falling(log_probabilities[able])]
        able = able[: int(np.searchsorted(np.cumsum(p[able]), sampling.top_p)) + 1]
    return tokens[able], p[able]


def likeliest(log_probabilities: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` likeliest of the tokens (V,) and their log-probabilities, likeliest first, then the lower token."""
    tokens = np.arange(len(log_probabilities))
    if count < len(tokens):
        some = log_probabilities
        if count <= len(tokens) // BLOCK:  # the count-th of the blocks' largest is at most the count-th of all
            some = some[: len(tokens) // BLOCK * BLOCK].reshape(-1, BLOCK).max(1)
        tokens = np.flatnonzero(log_probabilities >= np.partition(some, -count)[-count])
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


def gumbel(uniform: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise (K,) of uniform numbers (K,)."""
    noise: np.ndarray = -np.log(-np.log(uniform))
    return noise


def _uniform(tokens: np.ndarray, seed: int, request: int, position: int) -> np.ndarray:
    """A number (K,) between 0 and 1, neither of them, for each of the tokens (K,): SplitMix64 (Steele et al. 2014, doi
    10.1145/2714064.2660195) over the three numbers and the token."""
    state = 0
    for number in (seed, request, position):
        state = int(_mixed(np.array([(state ^ (number & _WORD)) + _STEP & _WORD], np.uint64))[0])
    words = _mixed((np.uint64(state) ^ tokens.astype(np.uint64)) + np.uint64(_STEP))
    uniform: np.ndarray = ((words >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53
    return uniform


def _mixed(words: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64 on words (K,) of 64 bits."""
    words = (words ^ words >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ words >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return words ^ words >> np.uint64(31)
