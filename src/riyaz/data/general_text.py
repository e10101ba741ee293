"""General text: forgetting is measured on evenly spaced blocks of it, and the text between them is rehearsed."""

import pydoc_data.topics
from collections.abc import Sequence
from pathlib import Path

from riyaz.errors import RiyazError

TOKENS, BLOCK = 4096, 512  # tokens of all measured blocks, and of one


def general_text(path: str | None) -> str:
    """The text of a file, or without a path the topics of Python's help. Raises RiyazError if the file cannot be read
    or has fewer than 2,000 characters."""
    if path is None:
        return "\n\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RiyazError(f"cannot be read as text ({error})", path, "give a UTF-8 text file to --general") from error
    if len(text) < 2000:
        raise RiyazError(f"{len(text)} characters are too few to measure forgetting on", path, "give more text")
    return text


def general_blocks(stream: Sequence[int]) -> list[list[int]]:
    """Evenly spaced blocks of a token stream, about TOKENS tokens in all, on which forgetting is measured."""
    return [list(stream[start:end]) for start, end in _measured_ranges(stream)]


def general_gaps(stream: Sequence[int]) -> list[list[int]]:
    """The tokens between those blocks, which training may rehearse."""
    ends = [0, *(end for _, end in _measured_ranges(stream))]
    starts = [*(start for start, _ in _measured_ranges(stream)), len(stream)]
    return [list(stream[end:start]) for end, start in zip(ends, starts) if start > end]


def _measured_ranges(stream: Sequence[int]) -> list[tuple[int, int]]:
    size = min(BLOCK, len(stream))
    count = max(1, min(TOKENS // size, len(stream) // size))
    starts = [round(i * (len(stream) - size) / max(1, count - 1)) for i in range(count)]
    return [(start, start + size) for start in starts]
