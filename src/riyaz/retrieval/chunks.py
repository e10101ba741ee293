"""Documents as passages that a model can read: cut at headings, then paragraphs, sentences, words, characters.

A chunk is a range of its document, so a citation is two numbers that code wrote and nobody can forge.
"""

import bisect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from riyaz.retrieval.documents import Document

SIZE, OVERLAP = 200, 32  # tokens of a chunk's own text, which alone is embedded: titles and headings are for BM25
LONGEST = 16  # characters that count as one token at most: a tokenizer calls a run of a million letters one word

_HEADING = re.compile(r"(#{1,6})[ \t]+(\S.*?)[ \t#]*$")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE = re.compile(r"[.!?…]+[\"'”’»)\]]*\s+|[。！？]+[」』”’]*\s*|\n\s*")
_SPACE = re.compile(r"\s+")
_TOKEN = re.compile(r"[\u3040-\u9fff]|[^\W\u3040-\u9fff]+|[^\w\s]")  # a character of a script without spaces is one

TokenOffsets = Callable[[str], list[tuple[int, int]]]


@dataclass(frozen=True)
class Chunk:
    """One passage: `text` is characters start to end of its document's text; `heading` the path of its headings."""

    doc_id: str
    title: str
    heading: str
    start: int
    end: int
    text: str


def word_offsets(text: str) -> list[tuple[int, int]]:
    """Character ranges of words and punctuation marks: the tokens where there is no embedder."""
    return [match.span() for match in _TOKEN.finditer(text)]


def passage(chunk: Chunk) -> str:
    """What is searched: title, headings and text, each on a line of its own."""
    return "\n".join(part for part in (chunk.title, chunk.heading, chunk.text) if part)


def chunk(
    document: Document,
    token_offsets: TokenOffsets = word_offsets,
    size: int = SIZE,
    overlap: int = OVERLAP,
    window: int | None = None,
) -> list[Chunk]:
    """The chunks of a document in its order, each of at most `size` places where tokens begin and about `overlap` of
    them shared with the one before inside a section. Every character that is not blank lies in one. With `window` no
    chunk has more tokens than that when it is read alone, so an embedder that reads as many cuts none."""
    text, size = document.text, min(size, window or size)
    found = list(_sections(text))
    paragraphs, sentences, words = (
        np.array([match.end() for match in pattern.finditer(text)], np.int64)
        for pattern in (_PARAGRAPH, _SENTENCE, _SPACE)
    )
    tokens = np.array([start for start, _ in token_offsets(text)], np.int64)
    starts = np.array([start for start, _ in found], np.int64)
    units = _fill(np.unique(np.concatenate((tokens, sentences, words, starts, [0, len(text)]))))
    places = [np.searchsorted(units, ends).tolist() for ends in (paragraphs, sentences, words)]
    first = [*np.searchsorted(units, starts).tolist(), len(units) - 1]

    def range_of(low: int, high: int) -> tuple[int, int]:
        return _trimmed(text, int(units[low]), int(units[high]))

    def count(low: int, high: int) -> int:
        start, end = range_of(low, high)
        return len(token_offsets(text[start:end])) if window else 0

    chunks = []
    for number, (_, heading) in enumerate(found):
        for whole in _cuts(first[number], first[number + 1], places, size, overlap):
            for start, end in (range_of(*part) for part in _fitting(*whole, places, overlap, count, window or 0)):
                if start < end:
                    chunks.append(Chunk(document.doc_id, document.title, heading, start, end, text[start:end]))
    return sorted(chunks, key=lambda piece: piece.start)


def _sections(text: str) -> Iterator[tuple[int, str]]:
    """(start, path of headings) of each section; a heading without text of its own joins the next section."""
    path: list[tuple[int, str]] = []
    start, body, fenced, after_blank, place = 0, False, False, True, 0
    for line in text.split("\n"):
        match = None if fenced or not after_blank else _HEADING.match(line)
        if match:
            if body:
                yield start, " > ".join(name for _, name in path)
                start, body = place, False
            path = [(level, name) for level, name in path if level < len(match[1])] + [(len(match[1]), match[2])]
        elif _FENCE.match(line):
            fenced, body = not fenced, True
        elif line.strip():
            body = True
        # `# …` under a line of text is more often a comment in code than a heading
        after_blank = bool(match) or not line.strip()
        place += len(line) + 1
    yield start, " > ".join(name for _, name in path)


def _fill(units: np.ndarray) -> np.ndarray:
    """The boundaries with more of them, so that none is farther than LONGEST characters from the next."""
    lengths = np.diff(units)
    pieces = -(-lengths // LONGEST)
    if not len(lengths) or pieces.max() <= 1:
        return units
    within = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    return np.append(np.repeat(units[:-1], pieces) + within * LONGEST, units[-1])


def _cuts(low: int, high: int, places: list[list[int]], size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Ranges of units that cover [low, high): each cut at the last good place that fits, the best kind first."""
    paragraphs, sentences, words = places
    while high - low > size:
        end = low + size
        cut = (
            _last(paragraphs, low + size // 3, end)
            or _last(sentences, low + size // 2, end)
            or _last(words, low + size // 2, end)
            or end
        )
        yield low, cut
        back = max(cut - min(overlap, (cut - low) // 2), low + 1)
        low = _first(sentences, back, cut) or _first(words, back, cut) or back
    yield low, high


def _fitting(
    low: int, high: int, places: list[list[int]], overlap: int, count: Callable[[int, int], int], window: int
) -> Iterator[tuple[int, int]]:
    """The range, or smaller ones that cover it, of at most `window` tokens each. It may have more than places where
    tokens begin: a Korean letter is up to three, and the rest of a word that was cut is read as another word."""
    tokens = count(low, high)
    if tokens <= window or high - low <= 1:
        yield low, high
        return
    size = max(1, (high - low) * window // tokens)
    for part in _cuts(low, high, places, size, min(overlap, size // 6)):
        yield from _fitting(*part, places, overlap, count, window)


def _last(places: list[int], after: int, until: int) -> int | None:
    """The last place in (after, until], if any."""
    i = bisect.bisect_right(places, until) - 1
    return places[i] if i >= 0 and places[i] > after else None


def _first(places: list[int], since: int, before: int) -> int | None:
    """The first place in [since, before), if any."""
    i = bisect.bisect_left(places, since)
    return places[i] if i < len(places) and places[i] < before else None


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The range without blanks at either end; empty when there is nothing else."""
    piece = text[start:end]
    lead = len(piece) - len(piece.lstrip())
    return start + lead, start + max(lead, len(piece.rstrip()))
