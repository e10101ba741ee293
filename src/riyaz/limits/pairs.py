"""Reads pairs of sentences that differ in a group: CrowS-Pairs, StereoSet, WinoBias and Winogender, by their fields.

    read(Path("crows_pairs/test.jsonl"))   # a set of pairs, with what its authors count

Nothing of these data sets comes with riyaz; a path names them.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riyaz.data.tables import Problems, read_table
from riyaz.errors import RiyazError, few, shown
from riyaz.json_files import read_json
from riyaz.limits.figures import source_of

GROUPS = {
    "crows": {
        *("race-color", "socioeconomic", "gender", "disability", "nationality", "sexual-orientation"),
        *("physical-appearance", "religion", "age"),
    },
    "stereoset": {"gender", "profession", "race", "religion"},
}
KNOWN = "CrowS-Pairs, StereoSet, WinoBias or Winogender"
FIX = "correct the file, or leave the row out"


@dataclass(frozen=True)
class Pair:
    """Two texts of which the model finds one likelier; `first` is the stereotyped one where `directed` sets have one.

    `after` is what stands before both. `unrelated` is a third text that makes no sense there.
    """

    first: str
    second: str
    group: str
    after: str = ""
    unrelated: str | None = None


@dataclass(frozen=True)
class PairSet:
    """The pairs of one file: its format's name, and what a preference for `first` means."""

    name: str
    source: str
    pairs: tuple[Pair, ...]
    prefers: str


def read(path: Path) -> PairSet:
    """The pairs of a file, or of a folder of WinoBias. Raises RiyazError naming the line of a missing or equal half, an
    unknown group or an unknown format."""
    if path.is_dir():
        return _winobias(path)
    if path.suffix == ".json":
        document = read_json(path)
        if isinstance(document, dict) and isinstance(document.get("data"), dict):
            return _stereoset(path, document["data"])
    table = read_table(path, numbered=True)
    columns = set(table.columns)
    if {"sent_more", "sent_less"} & columns:
        return _crows(path, table.rows)
    if {"sentence", "gender", "occupation"} <= columns:
        return _winogender(path, table.rows)
    raise RiyazError(f"has no fields of {KNOWN}", str(path), "give a file in one of these formats")


def _text(row: dict[str, object], key: str) -> str:
    value = row.get(key)
    return value.strip() if isinstance(value, str) else ""


def _checked(pair: Pair, known: set[str] | None, line: int, problems: Problems) -> Pair:
    if not pair.first or not pair.second:
        problems.add(line, "half of the pair is missing")
    elif pair.first == pair.second:
        problems.add(line, f"both sentences are {shown(pair.first)}")
    elif known is not None and pair.group not in known:
        problems.add(line, f"unknown group {shown(pair.group)}; known: {', '.join(sorted(known))}")
    return pair


def _crows(path: Path, rows: Sequence[tuple[int, dict[str, object]]]) -> PairSet:
    """Nangia et al. 2020 (arXiv 2010.00133): `sent_more` is the more stereotyped sentence."""
    problems = Problems(path)
    pairs = [
        _checked(Pair(_text(row, "sent_more"), _text(row, "sent_less"), _text(row, "bias_type")),
                 GROUPS["crows"], line, problems)
        for line, row in rows
    ]  # fmt: skip
    problems.check(FIX)
    return PairSet("CrowS-Pairs", source_of(path), tuple(pairs), "the stereotype")


def _winogender(path: Path, rows: Sequence[tuple[int, dict[str, object]]]) -> PairSet:
    """Rudinger et al. 2018 (arXiv 1804.09301): the same sentence with a male and a female pronoun. No side of it is the
    stereotype; the groups are whom the pronoun means."""
    problems, by_key = Problems(path), defaultdict[tuple[str, ...], dict[str, tuple[int, str]]](dict)
    for line, row in rows:
        gender = _text(row, "gender")
        if gender not in ("male", "female", "neutral"):
            problems.add(line, f"unknown group {shown(gender)}; known: male, female, neutral")
        key = tuple(_text(row, name) for name in ("occupation", "participant", "answer"))
        by_key[key][gender] = line, _text(row, "sentence")
    pairs = []
    for (occupation, _, answer), halves in by_key.items():
        line, _first = next(iter(halves.values()))
        group = "he or she: the occupation" if answer == occupation else "he or she: the other one"
        male, female = (halves.get(gender, (line, ""))[1] for gender in ("male", "female"))
        pairs.append(_checked(Pair(male, female, group), None, line, problems))
    problems.check(FIX)
    return PairSet("Winogender", source_of(path), tuple(pairs), "he to she")


def _stereoset(path: Path, data: dict[str, Any]) -> PairSet:
    """Nadeem et al. 2021 (arXiv 2004.09456): a stereotype, an anti-stereotype and an unrelated text for a context."""
    pairs = []
    for kind in ("intrasentence", "intersentence"):
        for place, entry in enumerate(data.get(kind) or ()):
            where = f"{path}: data.{kind}[{place}]"
            try:
                texts = {each["gold_label"]: str(each["sentence"]).strip() for each in entry["sentences"]}
                group, context = str(entry["bias_type"]), str(entry["context"])
            except (TypeError, KeyError) as error:
                raise RiyazError(f"is no entry of StereoSet: {error} is missing", where, FIX) from error
            first, second = texts.get("stereotype", ""), texts.get("anti-stereotype", "")
            after = context + " " if kind == "intersentence" else ""
            problems = Problems(Path(where), mark=" #")
            pair = Pair(first, second, group, after, texts.get("unrelated"))
            pairs.append(_checked(pair, GROUPS["stereoset"], place + 1, problems))
            problems.check(FIX)
    if not pairs:
        raise RiyazError("holds no entries of StereoSet", str(path), "give its dev.json")
    return PairSet("StereoSet", source_of(path), tuple(pairs), "the stereotype")


def _winobias(folder: Path) -> PairSet:
    """Zhao et al. 2018 (arXiv 1804.06876): line i of a `pro_` file and of its `anti_` file are one sentence with the
    pronoun of the other gender."""
    files = sorted(folder.glob("pro_stereotyped*"))
    if not files:
        what = "holds no files pro_stereotyped_* and anti_stereotyped_*"
        raise RiyazError(what, str(folder), "give the folder of WinoBias, or a file of pairs")
    pairs: list[Pair] = []
    for pro in files:
        anti = folder / pro.name.replace("pro_", "anti_", 1)
        if not anti.is_file():
            raise RiyazError("half of the pairs is missing", str(anti), "put it beside the other file")
        halves = [_lines(pro), _lines(anti)]
        if len(halves[0]) != len(halves[1]):
            what = f"{len(halves[0])} lines, and {len(halves[1])} in {anti.name}: half of a pair is missing"
            raise RiyazError(what, str(pro), FIX)
        problems, kind = Problems(pro), "type 1" if "type1" in pro.name else "type 2" if "type2" in pro.name else "all"
        pairs += [_checked(Pair(a, b, kind), None, line, problems) for line, (a, b) in enumerate(zip(*halves), 1)]
        problems.check(FIX)
    return PairSet("WinoBias", source_of(folder), tuple(pairs), "the stereotype")


def _lines(path: Path) -> list[str]:
    """The sentences of a file without their numbers and brackets."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [re.sub(r"[\[\]]", "", re.sub(r"^\d+\s+", "", line)).strip() for line in lines]


def groups_line(pairs: Sequence[Pair]) -> str:
    """How many pairs of which groups, as text."""
    counts: dict[str, int] = defaultdict(int)
    for pair in pairs:
        counts[pair.group] += 1
    return few((f"{name} {count:,}" for name, count in sorted(counts.items())), count=len(counts))
