"""General text to measure forgetting on: the topics of Python's help, and English prose."""

import pydoc_data.topics
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from riyaz.errors import RiyazError
from riyaz.files import refuse_device

TOKENS, BLOCK = 4096, 512  # tokens of all measured blocks, and of one


def general_text(path: str | None) -> str:
    """The text of a file, or without a path the topics of Python's help: forgetting is measured on it. Raises
    RiyazError if the file cannot be read or has fewer than 2,000 characters."""
    if path is None:
        return "\n\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))
    refuse_device(Path(path))
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RiyazError(f"cannot be read as text ({error})", path, "give a UTF-8 text file to --general") from error
    if len(text) < 2000:
        raise RiyazError(f"{len(text)} characters are too few to measure forgetting on", path, "give more text")
    return text


@cache
def prose_text() -> str:
    """English prose that riyaz brings along: a second text that forgetting is measured on, of another kind than help
    topics about code."""
    return resources.files("riyaz.data").joinpath("prose.txt").read_text(encoding="utf-8")


def general_blocks(stream: Sequence[int]) -> list[list[int]]:
    """Evenly spaced blocks of a token stream, about TOKENS tokens in all, on which forgetting is measured."""
    size = min(BLOCK, len(stream))
    count = max(1, min(TOKENS // size, len(stream) // size))
    starts = [round(i * (len(stream) - size) / max(1, count - 1)) for i in range(count)]
    return [list(stream[start : start + size]) for start in starts]
