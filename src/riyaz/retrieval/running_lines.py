"""Headers and footers of printed pages: titles that stand at the top or bottom of many pages, and page numbers."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

EDGE = 3  # lines at each end of a page among which headers and footers are looked for; a file may write both first
LONGEST = 200  # characters of such a line
LEAST_PAGES, SHARE = 3, 0.4  # pages that have it, and their share: titles may differ on left and right pages
_NUMBER = re.compile(r"\d+")
_WORD = re.compile(r"[^\W\d_]+")
_PAGE = frozenset(["p", "pg", "page", "s", "seite", "sida", "side", "pag", "pág", "pagina", "página", "strana", "стр"])


class _Line(NamedTuple):
    page: int
    place: int  # among the lines of its page
    text: str  # in lower case with single spaces
    shape: str  # the same with # for every number


def without_running_lines(pages: Sequence[str]) -> tuple[list[str], int, list[str]]:
    """The texts of pages without headers and footers, how many lines were left out, and at most two of them.

    A title stays on the first page that has it, so that no word of a document is lost; a number stays on none. Numbers
    count as those of pages if each page's is higher by one than that of the page before it.
    """
    lines = [page.split("\n") for page in pages]
    edges = [line for number, each in enumerate(lines) for line in _edges(number, each)]
    least = max(LEAST_PAGES, math.ceil(SHARE * sum(bool(page) for page in pages)))
    titles, numbers = _titles(edges, least), _numbers(edges, least)
    gone: defaultdict[int, set[int]] = defaultdict(set)
    for line in (*titles, *numbers):
        gone[line.page].add(line.place)
    left = [_without(page, each, gone.get(number)) for number, (page, each) in enumerate(zip(pages, lines))]
    named = [" ".join(lines[kind[0].page][kind[0].place].split()) for kind in (titles, numbers) if kind]
    return left, sum(map(len, gone.values())), named


def _edges(page: int, lines: Sequence[str]) -> Iterator[_Line]:
    """The short ones of the first and last EDGE lines of a page that are not blank."""
    places = [place for place, line in enumerate(lines) if line.strip()]
    for place in sorted({*places[:EDGE], *places[-EDGE:]}):
        if len(lines[place]) <= LONGEST:
            text = " ".join(lines[place].casefold().split())
            yield _Line(page, place, text, _NUMBER.sub("#", text))


def _titles(edges: Sequence[_Line], least: int) -> list[_Line]:
    """The lines whose text stands on at least `least` pages, except on the first page that has it."""
    pages_of: defaultdict[str, set[int]] = defaultdict(set)
    for line in edges:
        pages_of[line.text].add(line.page)
    first = {text: min(pages) for text, pages in pages_of.items()}
    return [line for line in edges if len(pages_of[line.text]) >= least and line.page > first[line.text]]


def _numbers(edges: Sequence[_Line], least: int) -> list[_Line]:
    """The lines of one shape with a number that counts at least `least` pages."""
    shapes: defaultdict[str, list[_Line]] = defaultdict(list)
    for line in edges:
        if "#" in line.shape and _may_number(line.shape):
            shapes[line.shape].append(line)
    numbered = []
    for alike in shapes.values():
        values = [[int(number[:9]) - line.page for number in _NUMBER.findall(line.text)] for line in alike]
        for place in range(len(values[0])):
            on_pages = {(line.page, each[place]) for line, each in zip(alike, values)}
            ahead, count = Counter(value for _, value in on_pages).most_common(1)[0]
            if count >= least:
                numbered += [line for line, each in zip(alike, values) if each[place] == ahead]
    return sorted(set(numbered))


def _may_number(shape: str) -> bool:
    """Whether a line may hold a page's number. One other word beside it is more often a heading, such as `Step 3`."""
    said = _WORD.findall(shape)
    return len(said) != 1 or said[0] in _PAGE


def _without(page: str, lines: Sequence[str], gone: set[int] | None) -> str:
    return "\n".join(line for place, line in enumerate(lines) if place not in gone).strip() if gone else page
