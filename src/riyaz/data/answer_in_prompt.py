"""Whether the prompts of a closed set tell their labels: the label itself stands there, or a sign that alone tells it.

A prompt may hold its label by nature: a customer writes "refund". A leak differs in three ways. It stands at one place
of the text, or is one word for each label; where it stands it is hardly ever wrong; and it tells several labels, not
only the one with an everyday name. So signs are learned on one half of the rows and counted on the other, and the
labels that a sign tells worst decide.
"""

import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from riyaz.data import Dataset, Example
from riyaz.data.prompt_signs import LINE, WORD, PromptSigns, folded, prompt_signs, text_of, unvaried, words_of
from riyaz.data.questions import Question, answer_places
from riyaz.data.task import Task
from riyaz.errors import RiyazError

MOST_ROWS = 5000  # rows that are looked at, evenly spread over the file
RIGHT = 0.97  # share of the rows with a sign whose label it must tell
LABEL_AT_PLACE = 0.1  # share that a label at one place must tell, without the rows of the one that it tells most often
CONTENT_OF_PLACE = 0.5  # share that any content of one place must tell, mean of the half of the labels it tells worst
ANYWHERE = 0.9  # the same for a label, or for one word of each label, wherever it stands
ONE_SIDED = 0.99  # share of the rows of one of two labels that always have a content which the other label never has
LEAST_LABELS, LEAST_SIGNS = 8, 30  # rows that labels must tell, and that any other sign must
LEAST_OF_LABEL = 4  # rows of a label that counts
REVERSED = 5  # characters from which on a label is looked for backwards: "maps" is no sign of spam
NUMBERS = re.compile(r"[\W\d_]+")
OPTION = "allow_answer_in_prompt"


@dataclass(frozen=True)
class AnswerInPrompt:
    """`rows` of `looked_at` different prompts, a `share`, hold an accepted answer. `telling` of them, a
    `telling_share`, tell their label by the `sign`; 0 where there is none. `first` is the place of such a row."""

    rows: int
    looked_at: int
    share: float
    telling: int = 0
    telling_share: float = 0.0
    sign: str = ""
    first: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The findings as plain JSON values."""
        return asdict(self)

    @property
    def note(self) -> str:
        """One sentence about prompts that tell their label; "" where none does."""
        if not self.telling:
            return ""
        rows = f"{self.telling:,} of {self.looked_at:,} different prompts ({self.telling_share:.1%})"
        return f"{rows} tell their label, such as {self.first}: {self.sign}"


def answer_in_prompt(train: Dataset, test: Dataset | None, task: Task) -> AnswerInPrompt | None:
    """What the prompts of a closed set or of typed questions tell: those of the training rows, or of the test rows
    where they tell more; of several questions the one that is told most. None for other tasks, in whose prompts answers
    may stand by design."""
    if task.kind not in ("closed", "questions"):
        return None
    answers = []
    for rows in [train, *([test] if test is not None and test.examples else [])]:
        if task.questions:
            answers += [_of_question(rows.examples, task.questions, place) for place in range(len(task.questions))]
        else:
            answers.append(_of_rows(rows.examples, task.labels))
    return max(answers, key=lambda each: (each.telling_share, each.share))


def _of_question(examples: Sequence[Example], questions: tuple[Question, ...], number: int) -> AnswerInPrompt:
    """What the prompts tell of one question, from the rows that answer it."""
    question, answered = questions[number], []
    for example in examples:
        place = answer_places(questions, example.answer)[number]
        if place is not None:
            answered.append(replace(example, answers=(question.labels[place],)))
    of_question = _of_rows(answered, question.labels)
    return (
        replace(of_question, sign=f"{of_question.sign} (question {question.name!r})")
        if of_question.telling
        else of_question
    )


def refuse_telling(answers: AnswerInPrompt | None, where: str, allow: bool) -> None:
    """Raises RiyazError for prompts that tell their label, unless that is allowed."""
    if answers is not None and answers.telling and not allow:
        hint = "remove it from the prompts, or pass --allow-answer-in-prompt if it will stand in new prompts too"
        raise RiyazError(answers.note, where, hint, {OPTION: True})


@dataclass(frozen=True)
class _Row:
    """One row: its signs, its label, all that it accepts, its place, and the half of the rows that it is in."""

    signs: PromptSigns
    label: str
    accepted: frozenset[str]
    where: str
    half: int


class _Tally:
    """How often a sign tells the right label of a row, for each label, and how often a wrong one."""

    def __init__(self, sign: str) -> None:
        self.sign, self.right, self.wrong, self.first = sign, Counter[str](), 0, ""

    def count(self, row: _Row, label: str) -> None:
        """One row of which the sign tells this label."""
        if label in row.accepted:
            self.first = self.first or row.where
            self.right[row.label] += 1
        else:
            self.wrong += 1

    def is_right(self, rows: int, share: float = RIGHT) -> bool:
        """Whether it tells so many rows, and is right in this share of those that have it."""
        right = self.right.total()
        return right >= rows and right >= share * (right + self.wrong)

    def without_most(self, sizes: Mapping[str, int]) -> float:
        """Share of the rows that it tells, without those of the label that it tells most often."""
        most = max(sizes, key=lambda label: self.right[label])
        others = sum(self.right[label] for label in sizes if label != most)
        return others / max(1, sum(sizes.values()) - sizes[most])

    def worst_half(self, sizes: Mapping[str, int]) -> float:
        """Share of a label's rows that it tells, mean over the half of the labels that it tells worst."""
        shares = sorted(self.right[label] / size for label, size in sizes.items())
        half = shares[: (len(shares) + 1) // 2]
        return sum(half) / len(half)

    def of_one_side(self, sizes: Mapping[str, int]) -> bool:
        """Whether one of two labels always has it."""
        if len(sizes) != 2 or min(sizes.values()) < LEAST_SIGNS:
            return False
        return max(self.right[label] / size for label, size in sizes.items()) >= ONE_SIDED


def _of_rows(examples: Sequence[Example], labels: Iterable[str]) -> AnswerInPrompt:
    """What the prompts of some rows tell of their labels."""
    rows = _different(examples)
    sizes = {label: rows for label, rows in Counter(row.label for row in rows).items() if rows >= LEAST_OF_LABEL}
    holding, anywhere, at_places = _labels_in(rows, labels)
    telling = []
    if len(sizes) > 1:
        telling = [each for each in at_places
                   if each.is_right(LEAST_LABELS) and each.without_most(sizes) >= LABEL_AT_PLACE]  # fmt: skip
        wherever = ((anywhere, LEAST_LABELS), (_by_word(rows, sizes), LEAST_SIGNS))
        telling += [each for each, least in wherever if each.is_right(least) and each.worst_half(sizes) >= ANYWHERE]
        for each in _by_place(rows):
            all_labels = each.is_right(LEAST_SIGNS) and each.worst_half(sizes) >= CONTENT_OF_PLACE
            if all_labels or (each.is_right(LEAST_SIGNS, ONE_SIDED) and each.of_one_side(sizes)):
                telling.append(each)
    best = max(telling, key=lambda each: each.right.total(), default=_Tally(""))
    right, count = best.right.total(), max(1, len(rows))
    return AnswerInPrompt(holding, len(rows), holding / count, right, right / count, best.sign, best.first)


def _different(examples: Sequence[Example]) -> list[_Row]:
    """The rows whose prompts differ by more than numbers, of at most MOST_ROWS; those of a label take turns between the
    two halves."""
    step = -(-len(examples) // MOST_ROWS)
    rows, seen, turns = [], set[str](), Counter[str]()
    for example in (each for number, each in enumerate(examples) if number % step == 0):
        text = text_of(example)
        letters = NUMBERS.sub(" ", text) or text
        if letters not in seen:
            seen.add(letters)
            accepted, half = frozenset(example.answers), turns[example.answer] % 2
            rows.append(_Row(prompt_signs(text), example.answer, accepted, example.where, half))
            turns[example.answer] += 1
    return rows


def _labels_in(rows: Sequence[_Row], labels: Iterable[str]) -> tuple[int, _Tally, list[_Tally]]:
    """The number of rows in whose prompt an accepted label stands, also in base64 or backwards; how well a label tells
    that stands anywhere, and at each place."""
    labels = tuple(labels)
    signed = _signed(labels)
    names, written = _names(label for label in labels if label not in signed.values()), _pattern(signed)
    places: dict[str, _Tally] = {}
    anywhere, holding = _Tally("it stands there"), 0
    for row in rows:
        met = set()
        meetings = [(label, _around(row.signs, start, end)) for start, end, label in _meetings(row.signs.words, names)]
        for label, around in [*meetings, *(_written(row.signs, written, signed) if written else ())]:
            met.add(label)
            for place in around:
                places.setdefault(place, _Tally(f"it stands {place}")).count(row, label)
        for _, _, label in _meetings(row.signs.hidden, names):
            met.add(label)
            places.setdefault("base64", _Tally("it stands there in base64")).count(row, label)
        holding += bool(met & row.accepted)
        if met:
            anywhere.count(row, row.label if met <= row.accepted else "")
    return holding, anywhere, list(places.values())


def _names(labels: Iterable[str]) -> dict[str, list[tuple[tuple[str, ...], str]]]:
    """The labels by their first word: all their words and the label, the longest first; long ones backwards too."""
    names = defaultdict(list)
    for label in labels:
        for name in (label, folded(label)[::-1]) if len(label) >= REVERSED else (label,):
            if words := words_of(name):
                names[words[0]].append((words, label))
    return {first: sorted(entries, key=lambda entry: -len(entry[0])) for first, entries in names.items()}


def _meetings(
    words: tuple[str, ...], names: Mapping[str, list[tuple[tuple[str, ...], str]]]
) -> Iterator[tuple[int, int, str]]:
    """Where labels stand among the words: (first word, word behind it, label), of each word in one label only."""
    behind = 0
    for start, word in enumerate(words):
        for name, label in names.get(word, ()) if start >= behind else ():
            if words[start : start + len(name)] == name:
                behind = start + len(name)
                yield start, behind, label
                break


def _signed(labels: Sequence[str]) -> dict[str, str]:
    """The labels that their words do not tell, by how they are written: an emoji, `-1` beside `1`, `C++` beside `C`."""
    known = Counter(words_of(label) for label in labels)
    return {
        unvaried(folded(label).strip()): label
        for label in labels
        if label.strip() and (not words_of(label) or known[words_of(label)] > 1)
    }


def _pattern(signed: Mapping[str, str]) -> re.Pattern[str] | None:
    """Finds any of these labels, the longest first, and none within a longer word."""
    each = []
    for name in sorted(signed, key=len, reverse=True):
        begins, ends = ("(?<![^_\\W])" if name[0].isalnum() else ""), ("(?![^_\\W])" if name[-1].isalnum() else "")
        each.append(f"{begins}{re.escape(name)}{ends}")
    return re.compile("|".join(each)) if each else None


def _written(
    signs: PromptSigns, pattern: re.Pattern[str], signed: Mapping[str, str]
) -> Iterator[tuple[str, Iterator[str]]]:
    """The labels that stand in a prompt as they are written, each with the names of its place."""
    text = unvaried("".join(part for pair in zip(signs.gaps, (*signs.words, "")) for part in pair))
    starts, ends = zip(*(word.span() for word in WORD.finditer(text)), strict=True) if signs.words else ((), ())
    for match in pattern.finditer(text):
        number, left = bisect_right(ends, match.start()), len(starts) - bisect_left(starts, match.end())
        around = text[max(0, match.start() - LINE) : match.start()], text[match.end() : match.end() + LINE]
        last = text[starts[number - 1] : ends[number - 1]] if number else ""
        yield signed[match[0]], _place(number, last, left, around[0].rstrip()[-1:], around[1].lstrip()[:1])


def _around(signs: PromptSigns, start: int, end: int) -> Iterator[str]:
    """The names of the place of a label that stands from one word to another."""
    before, after = signs.gaps[start].strip()[-1:], signs.gaps[end].strip()[:1]
    return _place(start, signs.words[start - 1] if start else "", len(signs.words) - end, before, after)


def _place(number: int, last: str, left: int, before: str, after: str) -> Iterator[str]:
    """The names of a place: behind so many words, of which this is the last, before so many, between two characters."""
    if number < 3:
        yield ("at the beginning", "behind the first word", "behind the first two words")[number]
    if left < 3:
        yield ("at the end", "before the last word", "before the last two words")[left]
    if last:
        yield f"behind {last!r}"
    if before and not before.isalnum():
        yield f"behind {before!r}"
        if after and not after.isalnum():
            yield f"between {before!r} and {after!r}"


def _by_place(rows: Sequence[_Row]) -> list[_Tally]:
    """How well the content of each place tells the label: learned on one half of the rows, counted on the other."""
    counts: dict[tuple[str, str, int], dict[str, int]] = defaultdict(dict)
    for row in rows:
        for place, content in row.signs.places.items():
            labels = counts[place, content, row.half]
            labels[row.label] = labels.get(row.label, 0) + 1
    label_of = {key: label for key, labels in counts.items() if (label := _one_label(labels))}
    tallies: dict[str, _Tally] = {}
    for row in rows:
        for place, content in row.signs.places.items():
            learned = label_of.get((place, content, 1 - row.half))
            if learned:
                tallies.setdefault(place, _Tally(f"it follows from {place}, such as {content!r}")).count(row, learned)
    return list(tallies.values())


def _one_label(rows: Mapping[str, int]) -> str:
    """The label of nearly all of two rows or more; "" if there is none."""
    label, most = max(rows.items(), key=lambda entry: entry[1])
    return label if most >= 2 and most >= RIGHT * sum(rows.values()) else ""


def _by_word(rows: Sequence[_Row], sizes: Mapping[str, int]) -> _Tally:
    """How well one word for each label tells it, wherever it stands: chosen on one half of the rows, counted on the
    other."""
    held = [{*row.signs.words, *row.signs.hidden} for row in rows]
    tally = _Tally("")
    for learned in (0, 1):
        label_of = _word_of_each_label(
            [(row.label, words) for row, words in zip(rows, held) if row.half == learned], sizes
        )
        for row, words in zip(rows, held):
            labels = {label_of[word] for word in words & label_of.keys()} if row.half != learned else set()
            if labels:
                tally.count(row, labels.pop() if len(labels) == 1 else "")
        for word, label in sorted(label_of.items())[:1]:
            tally.sign = f"one word tells each of the labels, such as {word!r} the label {label!r}"
    return tally


def _word_of_each_label(rows: Sequence[tuple[str, set[str]]], labels: Iterable[str]) -> dict[str, str]:
    """The label of a word, for the most frequent word of each label among those that stand in nearly all of its rows
    and in nearly no others."""
    counts: dict[str, Counter[str]] = {label: Counter() for label in labels}
    for label, words in rows:
        if label in counts:
            counts[label].update(words)
    sizes = Counter(label for label, _ in rows)
    label_of = {}
    for label, held in counts.items():
        for word, number in sorted(held.items(), key=lambda entry: (-entry[1], entry[0])):
            if number < ANYWHERE * sizes[label]:
                break
            if _one_label({other: each[word] for other, each in counts.items() if each[word]}) == label:
                label_of[word] = label
                break
    return label_of
