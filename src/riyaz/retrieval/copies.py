"""Passages that say the same: a copy of a file under another name, or in another format, takes no second place.

A passage is a copy of one found before it that has all its words in their order, so what differs in a word or a number
stays, and so does a longer passage behind one that it contains: it says more. A short passage may answer different
questions, such as `Yes.`, and needs the same title too.
"""

from collections.abc import Iterable
from typing import NamedTuple

from riyaz.retrieval.lexical import words

SHORT = 20  # words; with fewer the title counts


class Saying(NamedTuple):
    """The words of a passage, and its title if it is short; no words if it has only signs."""

    title: str
    words: str  # with a space before, between and after


def saying(title: str, text: str) -> Saying:
    """What a passage says; `title` is "" if nobody gave one."""
    said = words(text)
    return Saying(title if len(said) < SHORT else "", f" {' '.join(said)} " if said else "")


def grouped(sayings: Iterable[Saying], k: int) -> dict[int, list[int]]:
    """Of passages, best first, the indices of the first k that say more than those before, each with its copies'."""
    kept: dict[int, Saying] = {}
    copies: dict[int, list[int]] = {}
    for index, each in enumerate(sayings):
        first = next((place for place, other in kept.items() if _says(other, each)), None)
        if first is not None:
            copies[first].append(index)
        elif len(kept) < k:
            kept[index], copies[index] = each, []
    return copies


def _says(one: Saying, other: Saying) -> bool:
    """Whether one passage says all that the other says."""
    return bool(other.words) and (one == other or (not _is_short(other) and other.words in one.words))


def _is_short(said: Saying) -> bool:
    return said.words.count(" ") <= SHORT  # there is one more than words
