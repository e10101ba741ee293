"""Which rows are fitted and which are held out: rows of one unit are never on both sides, and no copy of a row that is
held out is fitted.

A row's unit is its group; of a row without one, the rows with its text.
"""

from collections.abc import Sequence

import numpy as np

from riyaz.data import normalise


def units_and_copies(texts: Sequence[str], groups: Sequence[str | None] | None) -> tuple[np.ndarray, np.ndarray]:
    """The numbers (n,) of each row's unit and of its text; each row is a unit where all are of the same one."""
    keys = [normalise(text) for text in texts]
    names = keys if groups is None else [
        f"text {key}" if group is None else f"group {group}" for key, group in zip(keys, groups, strict=True)
    ]  # fmt: skip
    units = numbers(names)
    return units if units.any() else np.arange(len(texts)), numbers(keys)


def numbers(names: Sequence[str]) -> np.ndarray:
    """(n,) the number of each name: 0 for the first one, and so on."""
    place = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([place[name] for name in names], int)


def folds_of(units: np.ndarray, order: np.ndarray, count: int) -> np.ndarray:
    """(n,) the fold of each row: the units are dealt to `count` folds in the order of their first rows in `order`."""
    first = np.unique(units[order], return_index=True)[1]
    turns = np.empty(len(first), int)
    turns[np.argsort(first)] = np.arange(len(first))
    return (turns % count)[units]


def last_units(units: np.ndarray, order: np.ndarray, least: int) -> np.ndarray:
    """(n,) whether a row is among the last of `order`: whole units, the last first, until they have `least` rows. One
    that would make them more than half of all is passed over; where all are larger, the smallest is taken."""
    sizes, chosen, rows = np.bincount(units), [], 0
    for unit in dict.fromkeys(units[order[::-1]].tolist()):
        if rows + sizes[unit] <= len(order) // 2:
            chosen.append(unit)
            rows += sizes[unit]
        if rows >= least:
            break
    return np.isin(units, chosen or [int(sizes.argmin())])


def without_copies(copies: np.ndarray, held: np.ndarray) -> np.ndarray:
    """(n,) whether a row may be fitted when those of `held` (n,) are not: it is no copy of them. Where all others are
    copies, all of these."""
    other = ~held & ~np.isin(copies, copies[held])
    return other if other.any() else ~held
