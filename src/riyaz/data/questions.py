"""Typed questions about a text: a predicate (is it so?), a choice (which of these?) or a score (how much?).

    {"questions": [{"name": "urgent", "type": "predicate", "instructions": "Is it urgent?", "column": "urgent"},
                   {"name": "team", "type": "choice", "instructions": "Who answers?", "column": "team",
                    "choices": [{"value": "billing", "description": "invoices, payments"}, {"value": "support"}]},
                   {"name": "mood", "type": "score", "instructions": "How content is the writer?", "column": "mood",
                    "levels": [{"label": "angry"}, {"label": "neutral"}, {"label": "happy"}]}]}

The words are those of OpenAI's `/v1/decisions`. `column` names the column of the user's rows that holds the answers.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from riyaz.errors import RiyazError, brief, joined
from riyaz.files import refuse_device

QuestionType = Literal["predicate", "choice", "score"]
TYPES: tuple[str, ...] = get_args(QuestionType)
MOST_QUESTIONS, FEWEST_CHOICES, MOST_CHOICES = 400, 2, 255
OWN_NAME = "label"  # of the question of one closed set, which has no name
LONGEST = 2**14  # characters of instructions or of a description
LONGEST_VALUE = 1000  # characters of a choice, a level or a name
MEMBERS = {"predicate": (), "choice": ("choices",), "score": ("levels",)}  # beside those of every question
COMMON = ("name", "type", "instructions", "column")
WHOLE = re.compile(r"(-?\d+)\.0+")  # as a column with missing cells writes a whole number
YES_NO = {"true": 0, "yes": 0, "1": 0, "1.0": 0, "false": 1, "no": 1, "0": 1, "0.0": 1}  # cells of a predicate's column


@dataclass(frozen=True)
class Choice:
    """A value that may be the answer, and what it stands for; a text and a boolean are never the same choice."""

    value: str | bool
    description: str = ""

    @property
    def text(self) -> str:
        """The value as a text: `true` and `false` for booleans."""
        return self.value if isinstance(self.value, str) else str(self.value).lower()


TRUE_FALSE: tuple[Choice, ...] = (Choice(True), Choice(False))


@dataclass(frozen=True)
class Question:
    """A question and its possible answers: those of a predicate are true and false, in this order, those of a score
    its levels from the lowest to the highest. `column` holds the answers of rows; "": none does."""

    name: str
    type: QuestionType
    instructions: str
    choices: tuple[Choice, ...] = TRUE_FALSE
    column: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """The text of every choice."""
        return tuple(choice.text for choice in self.choices)

    @property
    def keys(self) -> tuple[str, ...]:
        """The labels, as JSON where a text and a boolean would be written alike: no two are equal."""
        labels = self.labels
        return labels if len(set(labels)) == len(labels) else tuple(json.dumps(each.value) for each in self.choices)

    def place(self, cell: str | bool) -> int | None:
        """The place of the choice that a cell of the answers' column names, white space around it apart; a predicate's
        may also say yes and no, or 1 and 0; 2.0 is 2 where no choice is written so. Of a text and a boolean that are
        written alike a cell names the one of its own type. None for a cell that names none."""
        text = str(cell).lower() if isinstance(cell, bool) else cell.strip()
        if self.type == "predicate":
            return YES_NO.get(text.casefold())
        named = [place for place, label in enumerate(self.labels) if label.strip() == text]
        if not named and (whole := WHOLE.fullmatch(text)):
            return self.place(whole[1])
        typed = (place for place in named if isinstance(self.choices[place].value, bool) == isinstance(cell, bool))
        return next(typed, named[0] if named else None)

    def agrees(self, other: "Question") -> bool:
        """Whether the other has this one's name, type and choices, so that one's answer is the other's: those of a
        choice in any order, levels in the same. Where this one has no name the other's is not looked at; another
        without a name must have this one's instructions, as every predicate has the same choices."""
        mine, others = [[choice.value for choice in each.choices] for each in (self, other)]
        if self.type == "choice":
            mine, others = sorted(mine, key=_typed), sorted(others, key=_typed)
        alike = list(map(_typed, mine)) == list(map(_typed, others))
        named = self.name == other.name if other.name else self.instructions.strip() == other.instructions.strip()
        return (named or not self.name) and self.type == other.type and alike

    def document(self) -> dict[str, Any]:
        """The question as a file of questions writes it."""
        listed = [
            {"label" if self.type == "score" else "value": choice.value,
             **({"description": choice.description} if choice.description else {})}
            for choice in self.choices
        ]  # fmt: skip
        members = dict.fromkeys(MEMBERS[self.type], listed)
        own = {"name": self.name, "type": self.type, "instructions": self.instructions}
        return own | ({"column": self.column} if self.column else {}) | members


def read_questions(path: str | Path) -> tuple[Question, ...]:
    """The questions of a file, each with the column of its answers, by default the one of its name. Raises RiyazError
    naming the file and the entry that is wrong."""
    refuse_device(Path(path))
    try:
        document = json.loads(Path(path).read_text("utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise RiyazError("no such file", str(path), "check the path") from None
    except OSError as error:
        raise RiyazError(f"cannot be read ({error.strerror})", str(path), "check the file") from None
    except (ValueError, RecursionError) as error:
        what = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else f"is not JSON ({str(error)[:100]})"
        raise RiyazError(what, str(path), "correct it") from None
    entries = document.get("questions") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise RiyazError("has no list `questions`", str(path), 'write {"questions": [{"name": …, "type": …}, …]}')
    return questions_of(entries, str(path))


def questions_of(entries: Sequence[Any], where: str) -> tuple[Question, ...]:
    """The questions of a file's list; `where` is the file. Raises RiyazError naming the entry that is wrong."""
    _expect_count(entries, "questions", 1, MOST_QUESTIONS, where)
    questions = []
    for place, entry in enumerate(entries):
        at = f"{where}: questions.{place}"
        question = question_of(entry, at)
        if not question.name:
            raise RiyazError("has no name", at, "give it one: its answers are found by it")
        questions.append(question)
    _expect_different([question.name for question in questions], "name", where)
    _expect_different([question.column for question in questions if question.column], "column", where)
    return tuple(questions)


def question_of(entry: Any, where: str) -> Question:
    """The question of a JSON object. Raises RiyazError with `where` and the member that is wrong."""
    if not isinstance(entry, Mapping):
        raise RiyazError(f"is {brief(entry)}, not an object", where, "write a question as an object")
    kind = entry.get("type")
    if kind not in TYPES:
        raise RiyazError(f"is {brief(kind)}", f"{where}.type", f"choose one of {', '.join(TYPES)}")
    for name in entry:
        if name not in (*COMMON, *MEMBERS[kind]):
            hint = f"a {kind} has {joined([*COMMON, *MEMBERS[kind]])}"
            raise RiyazError(f"has the unknown member {brief(name)}", where, hint)
    name, column = _text(entry, "name", where, LONGEST_VALUE), _text(entry, "column", where, LONGEST_VALUE)
    instructions = _text(entry, "instructions", where, LONGEST)
    if not instructions.strip():
        raise RiyazError("is missing or empty", f"{where}.instructions", "write what is asked about the text")
    choices = TRUE_FALSE
    for member in MEMBERS[kind]:
        choices = _choices(entry.get(member), member, f"{where}.{member}")
    return Question(name, kind, instructions, choices, column)


def questions_from(source: "Path | Sequence[Any] | None") -> tuple[Question, ...]:
    """The questions of a file, or of the tables of a riyaz.toml; none for None. Raises RiyazError."""
    if source is None:
        return ()
    return read_questions(source) if isinstance(source, Path) else questions_of(source, "riyaz.toml")


def answers_text(questions: Sequence[Question], places: Sequence[int | None]) -> str:
    """The answers of a row as JSON, `{"team": "billing", "urgent": true}`, from the place of each question's choice;
    None where a question has no answer."""
    pairs = zip(questions, places, strict=True)
    answers = {question.name: question.choices[place].value for question, place in pairs if place is not None}
    return json.dumps(answers, ensure_ascii=False)


@lru_cache(maxsize=2**16)
def answer_places(questions: tuple[Question, ...], text: str) -> tuple[int | None, ...]:
    """The place of each question's answer in a text that `answers_text` wrote; None for one without an answer. Raises
    RiyazError for another text."""
    if not questions:
        return ()
    try:
        values = json.loads(text)
        known = [[_typed(choice.value) for choice in question.choices] for question in questions]
        return tuple(
            choices.index(_typed(values[question.name])) if question.name in values else None
            for question, choices in zip(questions, known)
        )
    except (ValueError, TypeError):
        raise RiyazError(f"{brief(text)} does not answer the questions", hint="make the folder again") from None


def _choices(entries: Any, member: str, where: str) -> tuple[Choice, ...]:
    if not isinstance(entries, list):
        raise RiyazError(f"is {brief(entries)}, not a list", where, f"list at least {FEWEST_CHOICES}")
    _expect_count(entries, member, FEWEST_CHOICES, MOST_CHOICES, where)
    key, kinds = ("value", (str, bool)) if member == "choices" else ("label", (str,))
    choices = []
    for place, entry in enumerate(entries):
        at = f"{where}.{place}"
        if not isinstance(entry, Mapping) or not isinstance(entry.get(key), kinds):
            what = f"has no {key} that is a text{' or a boolean' if bool in kinds else ''}"
            raise RiyazError(what, at, f'write {{"{key}": …}}')
        if unknown := [name for name in entry if name not in (key, "description")]:
            raise RiyazError(f"has the unknown member {brief(unknown[0])}", at, f"it has {key} and description")
        value = entry[key]
        if isinstance(value, str) and (not value.strip() or len(value) > LONGEST_VALUE):
            raise RiyazError(f"is empty or longer than {LONGEST_VALUE} characters", f"{at}.{key}", "change it")
        choices.append(Choice(value, _text(entry, "description", at, LONGEST)))
    _expect_different([_typed(choice.value) for choice in choices], key, where)
    return tuple(choices)


def _text(entry: Mapping[str, Any], name: str, where: str, longest: int) -> str:
    value = entry.get(name)
    if value is not None and not isinstance(value, str):
        raise RiyazError(f"is {brief(value)}, not a text", f"{where}.{name}", "write it in quotes")
    if value and len(value) > longest:
        raise RiyazError(
            f"has {len(value):,} characters; at most {longest:,} are read", f"{where}.{name}", "shorten it"
        )
    return value or ""


def _expect_count(entries: Sequence[Any], what: str, least: int, most: int, where: str) -> None:
    if not least <= len(entries) <= most:
        raise RiyazError(f"has {len(entries)} {what}", where, f"give {least} to {most}")


def _expect_different(values: Sequence[Any], what: str, where: str) -> None:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            shown = value[1] if isinstance(value, tuple) else value
            raise RiyazError(f"has the {what} {brief(shown)} twice", where, "remove one, or change it")
        seen.add(value)


def _typed(value: str | bool) -> tuple[bool, str | bool]:
    """A value that tells a text from a boolean, and sorts."""
    return isinstance(value, bool), value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
