"""Shell commands compared by their words, never run: the order of options does not count."""

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from riyaz.metrics.structured import unfenced

MOST_OPTIONS = 8  # different options of a command of which every set is tried as those that take a value
PROMPT = re.compile(r"\A\s*\$\s+")  # the sign before a command in documents
OPERATORS = frozenset("|&;<>()")


def command(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction is an accepted command, word for word as a shell splits it, apart from the order of options.

    Words without a dash keep their order, and an option keeps its value. Which options take one is not known: two
    commands are equal if they are for some set of options that do. A text that a shell cannot split is no command.
    """
    words = split(prediction)
    return float(words is not None and any(_equal(words, split(answer)) for answer in answers))


def is_command(text: str) -> bool:
    """Whether a shell can split a text into words."""
    return bool(split(text))


def split(text: str) -> list[list[str]] | None:
    """The words of each command of a line, its operators as commands of one word; None for a text with open quotes. A
    fenced block and a leading `$ ` are taken off."""
    lexer = shlex.shlex(PROMPT.sub("", unfenced(text).strip()), posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        words = list(lexer)
    except ValueError:
        return None
    commands: list[list[str]] = [[]]
    for word in words:
        if word and OPERATORS.issuperset(word):
            commands += [[word], []]
        else:
            commands[-1].append(word)
    return commands


def _equal(some: list[list[str]], others: list[list[str]] | None) -> bool:
    return others is not None and len(some) == len(others) and all(map(_equal_command, some, others))


def _equal_command(some: list[str], others: list[str]) -> bool:
    if some == others:
        return True
    if Counter(some) != Counter(others):
        return False
    options = sorted({word for word in some if _is_option(word)})
    counts = range(len(options) + 1) if len(options) <= MOST_OPTIONS else (0, len(options))
    taking = (set(chosen) for count in counts for chosen in combinations(options, count))
    return any(_parts(some, valued) == _parts(others, valued) for valued in taking)


def _parts(words: list[str], valued: set[str]) -> tuple[Counter[tuple[str, ...]], list[str]]:
    """The options of a command, those of `valued` each with the word behind it, and its other words in order; all are
    other words behind `--`."""
    options: Counter[tuple[str, ...]] = Counter()
    others: list[str] = []
    place = 0
    while place < len(words):
        word = words[place]
        if word == "--":
            others += words[place:]
            break
        if not _is_option(word):
            others.append(word)
        elif word in valued and place + 1 < len(words) and not _is_option(words[place + 1]):
            options[word, words[place + 1]] += 1
            place += 1
        else:
            options[word,] += 1
        place += 1
    return options, others


def _is_option(word: str) -> bool:
    return word.startswith("-") and word not in ("-", "--")
