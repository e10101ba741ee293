"""How much of a held-out text stands in the training text too: runs of tokens that both have.

A run is as many tokens as about RUN_BYTES bytes, a sentence. Runs are compared by hash wherever they stand, so a copy
counts even if it does not begin where a block begins; one run in SAMPLED is looked at, the same in every block.
"""

import numpy as np

RUN_BYTES = 50
RUN_LEAST = 8  # tokens
SAMPLED = 8  # a power of two
MOST = 0.5  # of a block's runs: more of them elsewhere, and it is a near-duplicate
ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio, which spreads hashes
ROWS = 2**20  # tokens hashed at once


def repeated_blocks(tokens: np.ndarray, blocks: np.ndarray, held: np.ndarray, bytes_per_token: float) -> int:
    """How many held-out blocks are near-duplicates: more than half of their runs stand in blocks not held out.

    `tokens` (T,), `blocks` (blocks, 2) start and end, `held` (blocks,) bool.
    """
    length = max(RUN_LEAST, 2 ** round(np.log2(RUN_BYTES / max(bytes_per_token, 0.1))))
    known = np.sort(np.concatenate([_runs(tokens[start:end], length) for start, end in _joined(blocks[~held])]))
    return sum(_share(_runs(tokens[start:end], length), known) > MOST for start, end in blocks[held])


def _share(runs: np.ndarray, known: np.ndarray) -> float:
    """The share of the runs that are among the sorted known ones."""
    if not len(runs) or not len(known):
        return 0.0
    places = np.minimum(np.searchsorted(known, runs), len(known) - 1)
    return float((known[places] == runs).mean())


def _joined(blocks: np.ndarray) -> list[tuple[int, int]]:
    """Blocks that follow each other as one, up to ROWS tokens."""
    joined: list[tuple[int, int]] = []
    for start, end in blocks.tolist():
        if joined and joined[-1][1] == start and end - joined[-1][0] <= ROWS:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def _runs(tokens: np.ndarray, length: int) -> np.ndarray:
    """The hashes of the sampled runs of `length` (a power of two) tokens, uint64."""
    hashes = (np.asarray(tokens, dtype=np.uint64) + np.uint64(1)) * ODD
    power, size = int(ODD), 1
    while size < length and len(hashes) > size:  # a run twice as long is two runs
        hashes = hashes[:-size] * np.uint64(power) + hashes[size:]
        power, size = power * power % 2**64, size * 2
    if size < length:
        return np.empty(0, np.uint64)
    hashes = (hashes ^ (hashes >> np.uint64(29))) * ODD
    return hashes[hashes >> np.uint64(64 - SAMPLED.bit_length() + 1) == 0]
