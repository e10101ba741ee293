"""Count held-out blocks that largely repeat the training text, by the runs of tokens that both contain; and how much of
one text another one repeats.

A run has about RUN_BYTES bytes of text, a sentence. Runs are compared by hash at every position, so a copy counts
wherever it begins in a block. One run in SAMPLED is compared, chosen by its hash and so the same in every block.
"""

import math

import numpy as np

RUN_BYTES = 50
MIN_RUN = 8  # tokens
SAMPLED = 8  # one run in so many is compared; a power of two
MAX_SHARED = 0.5  # share of a block's runs; with more of them in training it is a near-duplicate
ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio, a multiplier that spreads hashes
CHUNK = 2**20  # tokens hashed at once


def repeated_blocks(tokens: np.ndarray, blocks: np.ndarray, held: np.ndarray, bytes_per_token: float) -> int:
    """Number of held-out blocks that are near-duplicates: over half of their runs are in training blocks too.

    `tokens` (T,), `blocks` (blocks, 2) start and end, `held` (blocks,) bool.
    """
    length = max(MIN_RUN, 2 ** round(np.log2(RUN_BYTES / max(bytes_per_token, 0.1))))
    trained = np.sort(np.concatenate([_runs(tokens[start:end], length) for start, end in _joined(blocks[~held])]))
    return sum(_share(_runs(tokens[start:end], length), trained) > MAX_SHARED for start, end in blocks[held])


def share_repeated(text: str, of: str) -> float:
    """The share of the runs of a text, of RUN_BYTES or a few more, that another one holds too, wherever lines end; 0
    for a text shorter than a run."""
    one, other = (np.frombuffer(" ".join(each.split()).encode(), np.uint8) for each in (text, of))
    length = 2 ** math.ceil(math.log2(RUN_BYTES))
    return _share(_runs(one, length), np.sort(_runs(other, length)))


def _share(runs: np.ndarray, trained: np.ndarray) -> float:
    """The share of the runs that are in `trained`, the sorted runs of the training blocks."""
    if not len(runs) or not len(trained):
        return 0.0
    places = np.minimum(np.searchsorted(trained, runs), len(trained) - 1)
    return float((trained[places] == runs).mean())


def _joined(blocks: np.ndarray) -> list[tuple[int, int]]:
    """(start, end) of the blocks, with adjacent ones joined up to CHUNK tokens."""
    joined: list[tuple[int, int]] = []
    for start, end in blocks.tolist():
        if joined and joined[-1][1] == start and end - joined[-1][0] <= CHUNK:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def _runs(tokens: np.ndarray, length: int) -> np.ndarray:
    """Hashes of the sampled runs of `length` tokens (a power of two), uint64."""
    hashes = (np.asarray(tokens, dtype=np.uint64) + np.uint64(1)) * ODD
    power, size = int(ODD), 1
    while size < length and len(hashes) > size:  # doubles the length: the hash of two adjacent runs
        hashes = hashes[:-size] * np.uint64(power) + hashes[size:]
        power, size = power * power % 2**64, size * 2
    if size < length:
        return np.empty(0, np.uint64)
    hashes = (hashes ^ (hashes >> np.uint64(29))) * ODD
    return hashes[hashes >> np.uint64(64 - SAMPLED.bit_length() + 1) == 0]
