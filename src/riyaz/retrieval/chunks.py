"""Split documents into passages short enough for a model: at headings and pages, then paragraphs, sentences, words,
characters.

A chunk is a range of characters of its document, so a citation is two numbers set by code, not by a model.
"""

import bisect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from riyaz.retrieval.documents import Document
from riyaz.retrieval.parsers import heading_of

SIZE, OVERLAP = 200, 32  # tokens of a chunk's text, which is all that is embedded; titles and headings are for BM25
MAX_UNIT = 16  # characters that count as one token at most, since a tokenizer may read a million letters as one word

_FENCE = re.compile(r" {0,3}(```|~~~)")
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+\s+|[。！？]+[」』”’]*\s*|\n\s*")
_SPACE = re.compile(r"\s+")
_TOKEN = re.compile(r"[\u3040-\u9fff]|[^\W\u3040-\u9fff]+|[^\w\s]")  # each kana or Chinese character is one

TokenOffsets = Callable[[str], list[tuple[int, int]]]


@dataclass(frozen=True)
class Chunk:
    """One passage: `text` is characters `start` to `end` of its document; `heading` is the path of headings above."""

    doc_id: str
    title: str
    heading: str
    start: int
    end: int
    text: str


def word_offsets(text: str) -> list[tuple[int, int]]:
    """Character ranges of words and punctuation marks, which are the tokens if there is no embedder."""
    return [match.span() for match in _TOKEN.finditer(text)]


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text, as far as its marks tell them; headings are none."""
    lines = (line for line in text.split("\n") if not heading_of(line))
    return [part for line in lines for part in _SENTENCE.split(line) if part.strip()]


def passage(chunk: Chunk) -> str:
    """The text that BM25 indexes: title, heading path and text, each on its own line."""
    return "\n".join(part for part in (chunk.title, chunk.heading, chunk.text) if part)


def chunk(
    document: Document,
    token_offsets: TokenOffsets = word_offsets,
    size: int = SIZE,
    overlap: int = OVERLAP,
    window: int | None = None,
) -> list[Chunk]:
    """Split a document into chunks, in order. Each has at most `size` token starts and shares about `overlap` of them
    with the chunk before it in the same section; together they contain every non-blank character. With `window` no
    chunk, tokenised alone, has more than `window` tokens, so an embedder with this window cuts none off."""
    text, size = document.text, min(size, window or size)
    sections = _with_pages(list(_sections(text)), document.pages)
    paragraphs, sentences, words = (
        np.array([match.end() for match in pattern.finditer(text)], np.int64)
        for pattern in (_PARAGRAPH, _SENTENCE, _SPACE)
    )
    tokens = np.array([start for start, _ in token_offsets(text)], np.int64)
    starts = np.array([start for start, _ in sections], np.int64)
    units = _with_extra_boundaries(np.unique(np.concatenate((tokens, sentences, words, starts, [0, len(text)]))))
    places = [np.searchsorted(units, ends).tolist() for ends in (paragraphs, sentences, words)]
    first = [*np.searchsorted(units, starts).tolist(), len(units) - 1]

    def range_of(low: int, high: int) -> tuple[int, int]:
        return _trimmed(text, int(units[low]), int(units[high]))

    def count(low: int, high: int) -> int:
        start, end = range_of(low, high)
        return len(token_offsets(text[start:end])) if window else 0

    chunks = []
    for number, (_, heading) in enumerate(sections):
        for whole in _cuts(first[number], first[number + 1], places, size, overlap):
            for start, end in (range_of(*part) for part in _within_window(*whole, places, overlap, count, window or 0)):
                if start < end:
                    chunks.append(Chunk(document.doc_id, document.title, heading, start, end, text[start:end]))
    return sorted(chunks, key=lambda piece: piece.start)


def _sections(text: str) -> Iterator[tuple[int, str]]:
    """(start, path of headings) of each section; a heading without text below it belongs to the next section."""
    path: list[tuple[int, str]] = []
    start, body, fenced, after_blank, place = 0, False, False, True, 0
    for line in text.split("\n"):
        heading = None if fenced or not after_blank else heading_of(line)
        if heading:
            if body:
                yield start, " > ".join(name for _, name in path)
                start, body = place, False
            path = [*((level, name) for level, name in path if level < heading[0]), heading]
        elif _FENCE.match(line):
            fenced, body = not fenced, True
        elif line.strip():
            body = True
        # `# …` directly below a line of text is more often a comment in code than a heading
        after_blank = bool(heading) or not line.strip()
        place += len(line) + 1
    yield start, " > ".join(name for _, name in path)


def _with_pages(sections: list[tuple[int, str]], pages: Sequence[int]) -> list[tuple[int, str]]:
    """The sections, each divided where a page begins, so that every chunk lies on one page."""
    begins = [start for start, _ in sections]
    within = {page: sections[bisect.bisect_right(begins, page) - 1][1] for page in pages}
    return sorted((within | dict(sections)).items())


def _with_extra_boundaries(units: np.ndarray) -> np.ndarray:
    """The boundaries and further ones between them, so that no two neighbours are over MAX_UNIT characters apart."""
    lengths = np.diff(units)
    pieces = -(-lengths // MAX_UNIT)
    if not len(lengths) or pieces.max() <= 1:
        return units
    within = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    return np.append(np.repeat(units[:-1], pieces) + within * MAX_UNIT, units[-1])


def _cuts(low: int, high: int, places: list[list[int]], size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Ranges of units that cover [low, high), cut at the last paragraph end that fits, else sentence, word or unit."""
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


def _within_window(
    low: int, high: int, places: list[list[int]], overlap: int, count: Callable[[int, int], int], window: int
) -> Iterator[tuple[int, int]]:
    """The range, or smaller ones that cover it, of at most `window` tokens each. A range may have more tokens than
    token starts: a Korean letter is up to three tokens, and the rest of a cut word is tokenised as another word."""
    tokens = count(low, high)
    if tokens <= window or high - low <= 1:
        yield low, high
        return
    size = max(1, (high - low) * window // tokens)
    for part in _cuts(low, high, places, size, min(overlap, size // 6)):
        yield from _within_window(*part, places, overlap, count, window)


def _last(places: list[int], after: int, until: int) -> int | None:
    i = bisect.bisect_right(places, until) - 1
    return places[i] if i >= 0 and places[i] > after else None


def _first(places: list[int], since: int, before: int) -> int | None:
    """The first place in [since, before), or None."""
    i = bisect.bisect_left(places, since)
    return places[i] if i < len(places) and places[i] < before else None


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The range without white space at either end; empty if there is nothing else."""
    piece = text[start:end]
    lead = len(piece) - len(piece.lstrip())
    return start + lead, start + max(lead, len(piece.rstrip()))
