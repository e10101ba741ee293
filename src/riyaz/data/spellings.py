"""Spellings of one label: `lieferung`, `Lieferung` and `lieferung` with a character that nobody sees.

Labels are spellings of one label if they differ only by case, white space, Unicode form or characters that cannot be
seen. A note names them; with `--merge-labels` every row gets the most frequent spelling.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from riyaz.data import Example, normalise
from riyaz.data.example_stream import mapped
from riyaz.errors import few

PAIRS_NAMED = 5  # groups of spellings that a note names


def label_twins(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of labels that are spellings of one."""
    groups: dict[str, list[str]] = defaultdict(list)
    for label in sorted(labels):
        groups[_folded(label)].append(label)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def twins_note(labels: Iterable[str]) -> str:
    """A sentence that names such labels; "" if there are none."""
    twins = label_twins(labels)
    named = ", ".join(" and ".join(map(visible, group)) for group in twins[:PAIRS_NAMED])
    more = f" and {len(twins) - PAIRS_NAMED} more" if len(twins) > PAIRS_NAMED else ""
    what = "labels that differ only by case, white space, Unicode form or invisible characters"
    return f"{what}: {named}{more}; --merge-labels merges them" if twins else ""


def most_frequent_spellings(examples: Sequence[Example]) -> tuple[str, ...]:
    """Each label of the rows once, in its most frequent spelling; of equally frequent ones the first."""
    counts = Counter(answer for example in examples for answer in example.answers)
    ordered = sorted(counts, key=lambda label: -counts[label])  # stable: else in the order of the rows
    return tuple({_folded(label): label for label in reversed(ordered)}.values())[::-1]


def spell_alike(examples: Sequence[Example], spellings: Sequence[str]) -> tuple[Sequence[Example], str]:
    """The rows with every label in its spelling of `spellings`, and one line about the changed ones, "" if there are
    none. A label that has no spelling there stays as it is."""
    spelling_of = {_folded(label): label for label in spellings}
    changed = Counter[tuple[str, str]]()

    def spelled(example: Example) -> Example:
        answers = tuple(dict.fromkeys(spelling_of.get(_folded(answer), answer) for answer in example.answers))
        return example if answers == example.answers else replace(example, answers=answers)

    for example in examples:
        if spelled(example) is not example:
            changed.update((old, new) for old in example.answers if (new := spelling_of.get(_folded(old), old)) != old)
    pairs = [
        f"{visible(old)} as {visible(new)} ({rows} row{'s' * (rows > 1)})" for (old, new), rows in changed.most_common()
    ]
    return mapped(examples, spelled), f"labels merged: {few(pairs, count=PAIRS_NAMED)}" if pairs else ""


def visible(label: str) -> str:
    """The label in quotes, with escapes for what cannot be seen or looks like another character."""
    return repr(label) if unicodedata.is_normalized("NFKC", label) else ascii(label)


def _folded(label: str) -> str:
    """What the spellings of one label have in common."""
    return normalise("".join(letter for letter in label if unicodedata.category(letter) != "Cf"))
