"""Seeded sampling of examples, which depends only on their contents and the seed.

Examples are sorted by SHA-256 of (seed, purpose, key), so the same rows give the same choice on every machine and in
any file order, and two purposes choose independently. Examples with the same key are adjacent. Every choice keeps the
proportions of the labels of a closed set, and of the slices where rows have them. Rows of one group stay together.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from riyaz.data import Example
from riyaz.data.groups import unit

Group = list[Example]  # examples of the same unit: of one group, or with the same key


def digest(seed: int, purpose: str, key: str) -> str:
    """The sort key that gives an example's key its place in the seeded order of a purpose."""
    return hashlib.sha256(f"{seed}\x1f{purpose}\x1f{key}".encode()).hexdigest()


def ordered(examples: Iterable[Example], seed: int, purpose: str) -> list[Example]:
    """The examples in seeded order; duplicates are adjacent, sorted by their texts."""
    return sorted(examples, key=lambda e: (digest(seed, purpose, e.key), e.prompt, e.answers, e.where))


def sample(examples: Sequence[Example], count: int, *, by_label: bool, seed: int, purpose: str) -> list[Example]:
    """Exactly `count` examples (all, if there are fewer) in seeded order, the slices in their proportions; `by_label`
    keeps the labels' proportions too."""
    strata = defaultdict(list)
    for example in ordered(examples, seed, purpose):
        strata[example.answer if by_label else ""].append([example])
    sizes = {label: len(members) for label, members in strata.items()}
    shares = allocate(sizes, sizes, min(count, len(examples)))
    return ordered((group[0] for group in _chosen(strata, shares)), seed, purpose)


def hold_out(
    examples: Sequence[Example],
    fraction: float,
    *,
    by_label: bool,
    seed: int,
    purpose: str,
    max_rows: int | None = None,
) -> tuple[list[Example], list[Example]]:
    """(held out, rest): a fraction of the prompts, at most `max_rows` rows; the rest keeps a prompt of each label.

    Counts prompts rather than rows, because duplicates stay together; where rows have groups it counts groups, and
    leaves the copies of held-out rows in other groups out of the rest.
    """
    strata = _groups_by_label(examples, by_label, seed, purpose)
    prompts = {label: len(groups) for label, groups in strata.items()}
    spare = {label: count - 1 for label, count in prompts.items()}
    if not any(spare.values()):
        spare = prompts
    total = sum(prompts.values())
    target = max(1, round(fraction * total))
    target = min(target, sum(spare.values()), total - 1, *([max_rows] if max_rows else []))
    shares = allocate(prompts, spare, target)
    held = _chosen(strata, shares)
    while max_rows and len(held) > 1 and sum(map(len, held)) > max_rows:
        held.remove(max(held, key=len))
    out = ordered((example for group in held for example in group), seed, purpose)
    return out, ordered(without(examples, out), seed, purpose)


def without(examples: Sequence[Example], held: Sequence[Example]) -> list[Example]:
    """The examples of other units than the held-out ones, without copies of their prompts."""
    units, keys = {unit(example) for example in held}, {example.key for example in held}
    return [example for example in examples if unit(example) not in units and example.key not in keys]


def deal(examples: Sequence[Example], folds: int, *, by_label: bool, seed: int, purpose: str) -> list[list[Example]]:
    """The examples of each of `folds` folds: every unit is in one fold; labels and their slices are spread evenly."""
    parts: list[list[Example]] = [[] for _ in range(folds)]
    strata = _groups_by_label(examples, by_label, seed, purpose)
    dealt = [group for label in sorted(strata) for group in sorted(strata[label], key=_slice)]
    for turn, group in enumerate(dealt):
        parts[turn % folds] += group
    return parts


def allocate(weights: dict[str, int], room: dict[str, int], total: int) -> dict[str, int]:
    """Split `total` in proportion to `weights`: at most `room[label]` each, and at least one each while `total` allows.

    Remainders go to the labels with the largest; `total` must not exceed the sum of `room`.
    """
    assert 0 <= total <= sum(room.values())
    weight = sum(weights.values())
    exact = {label: total * weights[label] / weight for label in weights}
    share = {label: min(room[label], max(1, int(exact[label]))) for label in weights}
    left = total - sum(share.values())
    while left:
        step = 1 if left > 0 else -1
        if step > 0:
            open_labels = [label for label in share if share[label] < room[label]]
        else:  # a label loses its only row last
            open_labels = [label for label in share if share[label] > 1] or [*filter(share.get, share)]
        # Labels furthest from their exact share change first, then frequent ones.
        open_labels.sort(key=lambda label: (step * (share[label] - exact[label]), -weights[label], label))
        for label in open_labels[: abs(left)]:
            share[label] += step
            left -= step
    return share


def _groups_by_label(examples: Sequence[Example], by_label: bool, seed: int, purpose: str) -> dict[str, list[Group]]:
    """Units in seeded order, by the answer of their first example (by "" without `by_label`)."""
    groups: dict[str, Group] = defaultdict(list)
    for example in ordered(examples, seed, purpose):
        groups[unit(example)].append(example)
    strata: dict[str, list[Group]] = defaultdict(list)
    for _, group in sorted(groups.items(), key=lambda pair: digest(seed, purpose, pair[0])):
        strata[group[0].answer if by_label else ""].append(group)
    return dict(strata)


def _chosen(strata: Mapping[str, Sequence[Group]], shares: Mapping[str, int]) -> list[Group]:
    """Each label's share of its groups, and of all labels together each slice in its proportion.

    A slice first gets its proportion of every label's share, rounded down. The rest of a share goes one by one to the
    label's slices that have the fewest groups yet for their size; of equal ones to the first in seeded order.
    """
    cells: dict[str, dict[str, list[Group]]] = {label: defaultdict(list) for label in strata}
    for label, groups in strata.items():
        for group in groups:
            cells[label][_slice(group)].append(group)
    sizes = Counter(_slice(group) for groups in strata.values() for group in groups)
    owed = {name: sum(shares.values()) * size / sizes.total() for name, size in sizes.items()}
    counts = {
        label: {name: shares[label] * len(groups) // len(strata[label]) for name, groups in parts.items()}
        for label, parts in cells.items()
    }
    for parts in counts.values():
        owed = {name: count - parts.get(name, 0) for name, count in owed.items()}
    for label, parts in counts.items():
        for _ in range(shares[label] - sum(parts.values())):
            name = max((name for name in parts if parts[name] < len(cells[label][name])), key=owed.__getitem__)
            parts[name] += 1
            owed[name] -= 1
    return [group for label, parts in counts.items() for name, n in parts.items() for group in cells[label][name][:n]]


def _slice(group: Group) -> str:
    return group[0].slice or ""
