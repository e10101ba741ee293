"""The bases of a comparison, and its arms: with one base an arm for each method; with several an arm for each method on
each base, and one for each method that uses no language model.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from riyaz.comparison.speeds import Speeds
from riyaz.errors import RiyazError, joined
from riyaz.methods import METHODS
from riyaz.methods.fitting.base import ArmPlan, Method
from riyaz.results import arm_name, parted
from riyaz.sources import Source, open_source

LONGEST = 64  # characters of a base's name in that of an arm
T = TypeVar("T")


def open_bases(names: Sequence[str]) -> dict[str, Source]:
    """The models by the names that their arms get, in the given order. Raises RiyazError for two that are the same or
    would have the same name."""
    opened: dict[str, Source] = {}
    for each in names:
        source = open_source(each)
        name = base_name(source) if len(names) > 1 else source.name
        other = next((known for known in opened if known.casefold() == name.casefold()), None)
        if other is not None:
            what = f"{opened[other].path} and {source.path} are both called {name}"
            what += "" if other == name else ", but for upper and lower case"  # one folder on a disk that tells none
            raise RiyazError(what, "--model", "rename one of them, or leave it out")
        opened[name] = source
    if len(opened) > 1:
        _expect_different(opened)
    return opened


def _expect_different(opened: Mapping[str, Source]) -> None:
    """Raises RiyazError for two bases with the same weights."""
    hashes: dict[str, str] = {}
    for name, source in opened.items():
        other = hashes.setdefault(source.sha256(), name)
        if other != name:
            raise RiyazError(f"{other} and {name} are the same model", "--model", "leave one of them out")


def base_name(source: Source) -> str:
    """A model's name in characters that a folder may have: the part of an arm's name behind the @."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", source.name)[:LONGEST].strip(".-") or "model"


def expect_one(names: Sequence[str], what: str) -> None:
    """Raises RiyazError for several models where `what` takes one."""
    if len(names) > 1:
        hint = "name one of them, or let riyaz compare find the best"
        raise RiyazError(f"{what} takes one base, and these are {len(names)}: {joined(list(names))}", "--model", hint)


def arm_names(methods: Sequence[str], bases: Sequence[str]) -> list[str]:
    """The names of the arms: of each method in turn those on all bases."""
    if len(bases) < 2:
        return list(methods)
    return [arm_name(method, base) for method in methods for base in (bases if _uses_base(method) else (None,))]


def arm_of(method: str, base: str | None) -> str:
    """The name of the arm of a method beside those on `base`: a method without a language model has one on no base."""
    return arm_name(method, base if _uses_base(method) else None)


def _uses_base(method: str) -> bool:
    return METHODS[method].about.language_model


def method_of(name: str) -> Method:
    """The method of an arm."""
    return METHODS[parted(name)[0]]


def parts_of(name: str) -> tuple[str, ...]:
    """The names of the arms that an arm joins: those on its own base, and those on none."""
    base = parted(name)[1]
    return tuple(arm_of(method, base) for method in method_of(name).of)


def rate_of(name: str) -> str:
    """The name of the arm whose learning rate an arm takes, on the same base; "" if it searches one."""
    other = method_of(name).rate_of
    return arm_of(other, parted(name)[1]) if other else ""


def instruction_of(name: str) -> str:
    """The name of the arm whose instruction an arm takes, on the same base; "" if it has the task's own."""
    other = method_of(name).instruction_of
    return arm_of(other, parted(name)[1]) if other else ""


def in_leaving_order(names: Iterable[str]) -> list[str]:
    """The arms in the order in which a short budget leaves them out; of a method's the one on the last base first."""
    places = {method: place for place, method in enumerate(METHODS)}
    last_first = list(names)[::-1]
    return sorted(last_first, key=lambda name: (method_of(name).left_out, places[parted(name)[0]]))


def unplanned(name: str) -> ArmPlan:
    """The plan of an arm with nothing in it but its method and base."""
    method, base = parted(name)
    return ArmPlan(method, base=base)


def merged(by_base: Mapping[str, Speeds]) -> Speeds:
    """The speeds of all arms, by their names, from those of the methods on each base. What no base changes is the first
    one's; so are the methods without a language model."""
    first, *others = by_base.values()
    if not others:
        return first
    names = list(by_base)

    def of_arms(tables: Sequence[Mapping[str, T]]) -> dict[str, T]:
        return {
            arm_of(method, base): value
            for place, (base, table) in enumerate(zip(names, tables, strict=True))
            for method, value in table.items()
            if place == 0 or _uses_base(method)
        }

    each = list(by_base.values())
    return replace(
        first,
        rss_mb=max(speeds.rss_mb for speeds in each),
        predict=of_arms([speeds.predict for speeds in each]),
        arms=of_arms([speeds.arms for speeds in each]),
        unable=of_arms([speeds.unable for speeds in each]),
        derived=tuple(of_arms([dict.fromkeys(speeds.derived) for speeds in each])),
        base_seconds_of={base: speeds.base_seconds for base, speeds in by_base.items()},
    )
