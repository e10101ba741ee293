"""Seeded choices among examples that depend only on their contents and the seed.

Order comes from SHA-256 of (seed, purpose, key), so the same rows give the same choice on every machine, in
every file order, and two purposes choose independently. Examples with the same key always come together.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from riyaz.data import Example

Group = list[Example]  # the duplicates of one prompt


def digest(seed: int, purpose: str, key: str) -> str:
    """The place of a key in the seeded order of one purpose."""
    return hashlib.sha256(f"{seed}\x1f{purpose}\x1f{key}".encode()).hexdigest()


def ordered(examples: Iterable[Example], seed: int, purpose: str) -> list[Example]:
    """The examples in seeded order; duplicates stand side by side, in the order of their texts."""
    return sorted(examples, key=lambda e: (digest(seed, purpose, e.key), e.prompt, e.answers, e.where))


def sample(examples: Sequence[Example], count: int, *, by_label: bool, seed: int, purpose: str) -> list[Example]:
    """Exactly `count` examples (all, when there are fewer) in seeded order, in proportion to the labels."""
    strata = defaultdict(list)
    for example in ordered(examples, seed, purpose):
        strata[example.answer if by_label else ""].append(example)
    sizes = {label: len(members) for label, members in strata.items()}
    wanted = allocate(sizes, sizes, min(count, len(examples)))
    return ordered((e for label, members in strata.items() for e in members[: wanted[label]]), seed, purpose)


def hold_out(
    examples: Sequence[Example],
    fraction: float,
    *,
    by_label: bool,
    seed: int,
    purpose: str,
    most: int | None = None,
) -> tuple[list[Example], list[Example]]:
    """(held out, rest): a fraction of the prompts, `most` rows at most; the rest keeps one of each label.

    Counted in prompts and not in rows, because duplicates stay together.
    """
    strata = _groups_by_label(examples, by_label, seed, purpose)
    prompts = {label: len(groups) for label, groups in strata.items()}
    spare = {label: count - 1 for label, count in prompts.items()}
    if not any(spare.values()):
        spare = prompts
    total = sum(prompts.values())
    target = max(1, round(fraction * total))
    target = min(target, sum(spare.values()), total - 1, *([most] if most else []))
    wanted = allocate(prompts, spare, target)
    held = [group for label, groups in strata.items() for group in groups[: wanted[label]]]
    while most and len(held) > 1 and sum(map(len, held)) > most:
        held.remove(max(held, key=len))
    keys = {group[0].key for group in held}
    out = ordered((e for e in examples if e.key in keys), seed, purpose)
    return out, ordered((e for e in examples if e.key not in keys), seed, purpose)


def deal(examples: Sequence[Example], hands: int, *, by_label: bool, seed: int, purpose: str) -> list[set[str]]:
    """The keys of `hands` parts, each prompt in exactly one, every label spread evenly over them."""
    parts: list[set[str]] = [set() for _ in range(hands)]
    strata = _groups_by_label(examples, by_label, seed, purpose)
    for turn, group in enumerate(group for label in sorted(strata) for group in strata[label]):
        parts[turn % hands].add(group[0].key)
    return parts


def allocate(weights: dict[str, int], room: dict[str, int], total: int) -> dict[str, int]:
    """Shares of `total` in proportion to the weights and within the room, at least one each while it lasts.

    Largest remainders decide what is left over; `total` must not be above the sum of the room.
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
        else:  # the only row of a label is given up last
            open_labels = [label for label in share if share[label] > 1] or [*filter(share.get, share)]
        # Labels furthest from their exact share move first, then frequent ones.
        open_labels.sort(key=lambda label: (step * (share[label] - exact[label]), -weights[label], label))
        for label in open_labels[: abs(left)]:
            share[label] += step
            left -= step
    return share


def _groups_by_label(examples: Sequence[Example], by_label: bool, seed: int, purpose: str) -> dict[str, list[Group]]:
    """The groups of duplicates in seeded order under the label of their first answer."""
    groups: dict[str, Group] = defaultdict(list)
    for example in ordered(examples, seed, purpose):
        groups[example.key].append(example)
    strata: dict[str, list[Group]] = defaultdict(list)
    for group in groups.values():
        strata[group[0].answer if by_label else ""].append(group)
    return dict(strata)
