"""The answers of `riyaz decide` as they are written, and how they are spread over a file."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riyaz.cli.partial_records import Record, record_line
from riyaz.cli.shards import AGAIN, ShardFile, expect_kind, row_in
from riyaz.data import Reading
from riyaz.data.questions import Question
from riyaz.data.written import Form, Row, formulas, lines
from riyaz.errors import RiyazError
from riyaz.files import atomic_file
from riyaz.json_files import from_json

if TYPE_CHECKING:
    from riyaz.predictor import Decided

DIGITS = 6  # decimals of a probability
SHOWN = 3  # answers that the table names


def record_of(
    where: str, decided: "Sequence[Decided | None]", questions: Sequence[Question], least: float, probabilities: bool
) -> Record:
    """The answers to one row by the names of the questions: null for one that cannot be answered, and the answer alone
    null where its confidence is below `least`. Without `probabilities` those are left out."""
    answers = {
        question.name: None if each is None else _answer(each, least, probabilities)
        for question, each in zip(questions, decided)
    }
    return {"where": where, "answers": answers}


def _answer(decided: "Decided", least: float, probabilities: bool) -> dict[str, Any]:
    question, confidence = decided.question, round(decided.confidence, DIGITS)
    answer: dict[str, Any] = {"type": question.type, "answer": decided.answer if confidence >= least else None}
    answer["confidence"] = confidence
    if question.type == "score":
        answer["score"] = round(decided.score, DIGITS)
    if probabilities:
        key = "label" if question.type == "score" else "value"
        pairs = zip(question.choices, decided.probabilities.tolist())
        answer["probabilities"] = [{key: choice.value, "probability": round(p, DIGITS)} for choice, p in pairs]
    answer["trained"] = decided.trained
    return answer


def columns_of(questions: Sequence[Question], prefix: str) -> list[str]:
    """The columns that a table gets: NAME, NAME_confidence, and NAME_score of a score."""
    return [prefix + question.name + ending for question in questions for ending in _endings(question)]


def cells(record: Mapping[str, Any], questions: Sequence[Question], prefix: str) -> dict[str, object]:
    """The columns of one row; None where there is no answer."""
    filled: dict[str, object] = {}
    for question in questions:
        answer = record["answers"].get(question.name) or {}
        for ending, member in _endings(question).items():
            filled[prefix + question.name + ending] = answer.get(member)
    return filled


def _endings(question: Question) -> dict[str, str]:
    """The members of an answer that a table shows, by the endings of their columns."""
    return {"": "answer", "_confidence": "confidence"} | ({"_score": "score"} if question.type == "score" else {})


@dataclass
class Spread:
    """How one question was answered over a file."""

    question: Question
    by: str  # what answers it: "training", its "base", or "" for nothing
    answers: Counter[str | bool] = field(default_factory=Counter)
    withheld: int = 0
    missing: int = 0  # rows without an answer, as nothing answers the question or the row is too long
    confidence: float = 0.0  # sum over the rows with an answer or a withheld one
    score: float = 0.0  # likewise

    def add(self, answer: Mapping[str, Any] | None) -> None:
        """Count the answer of one row."""
        if answer is None:
            self.missing += 1
            return
        self.confidence += answer["confidence"]
        self.score += answer.get("score", 0.0)
        if answer["answer"] is None:
            self.withheld += 1
        else:
            self.answers[answer["answer"]] += 1

    @property
    def decided(self) -> int:
        """Rows with an answer or a withheld one."""
        return self.answers.total() + self.withheld

    def row(self) -> list[str]:
        """The cells of TITLES."""
        answered_rows = self.answers.total()
        common = [f"{_text(value)} {count / answered_rows:.0%}" for value, count in self.answers.most_common(SHOWN)]
        if len(self.answers) > SHOWN:
            common.append(f"{len(self.answers) - SHOWN} more")
        if self.question.type == "score" and self.decided:
            common.insert(0, f"mean {self.score / self.decided:.2f}")
        sure = f"{self.confidence / self.decided:.3f}" if self.decided else ""
        numbers = [f"{number:,}" for number in (answered_rows, self.withheld, self.missing)]
        return [self.question.name, self.by or "nothing", *numbers, sure, ", ".join(common)]

    def document(self) -> dict[str, Any]:
        """The same as JSON."""
        confidence, score = (round(total / max(1, self.decided), DIGITS) for total in (self.confidence, self.score))
        return {
            "name": self.question.name, "type": self.question.type, "by": self.by or None,
            "answered": self.answers.total(), "abstained": self.withheld, "not_answered": self.missing,
            "confidence": confidence if self.decided else None,
            "score": score if self.decided and self.question.type == "score" else None,
            "answers": [{"value": value, "rows": count} for value, count in self.answers.most_common()],
        }  # fmt: skip


TITLES = ("question", "by", "answered", "abstained", "none", "confidence", "most frequent")
NUMBERS = TITLES[2:6]


def _text(value: str | bool) -> str:
    return value if isinstance(value, str) else str(value).lower()


@dataclass
class Tally:
    """Counts what is answered, and remembers the first row that is too long."""

    spread: list[Spread]
    too_long: int = 0
    first: tuple[str, str] = ("", "")  # its place, and why

    def add(self, record: Record) -> None:
        """Count one record."""
        for each in self.spread:
            each.add(record["answers"].get(each.question.name))
        if "error" in record:
            self.first = self.first if self.too_long else (record["where"], record["error"])
            self.too_long += 1

    def check(self, out: Path) -> None:
        """Raises RiyazError naming the first row that is too long, if there is one."""
        if self.too_long:
            where, what = self.first
            others = self.too_long - 1
            more = f" (and {others:,} more row{'s' if others > 1 else ''})" if others else ""
            hint = f"shorten it, or choose a model with a longer context; {out} has the answers of all other rows"
            raise RiyazError(what + more, where, hint)


@dataclass(frozen=True)
class DecideOptions:
    """What decides which answers `riyaz decide` gives to rows, and how they are written; alike in all shards."""

    columns: list[str]  # of the rows that are read
    reading: Reading
    questions: list[Question]
    by: list[str]  # what answers each: "training", its "base", or "" for nothing
    form: Form
    precision: str
    prefix: str
    abstain_below: float

    def write(self, out: Path, pairs: Iterable[tuple[Row, Record]]) -> int:
        """Write a table of the rows with their answers, and return how many of its fields a spreadsheet may run as
        formulas. Raises RiyazError."""
        count = 0

        def filled() -> Iterator[Row]:
            nonlocal count
            for row, record in pairs:
                row = row | cells(record, self.questions, self.prefix)
                count += formulas([row])
                yield row

        with atomic_file(out) as file:
            file.writelines(lines(filled(), [*self.columns, *columns_of(self.questions, self.prefix)], self.form))
        return count


@dataclass(frozen=True)
class _StoredAnswer:
    """What an answer in a shard must hold."""

    type: str
    answer: str | bool | None
    confidence: float
    trained: bool
    score: float = 0.0
    probabilities: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class _StoredRecord:
    """What a record in a shard must hold."""

    where: str
    answers: dict[str, _StoredAnswer | None]
    error: str = ""


def join_decisions(shards: Sequence[ShardFile], real: Path, out: Path) -> tuple[Tally, int]:
    """Write the answers of all shards to `real`, which `out` names, as `riyaz decide` without shards writes them.
    Returns what is counted, and how many fields a spreadsheet may run as formulas. Raises RiyazError."""
    options = from_json(DecideOptions, shards[0].head.options, f"{shards[0].path}: options", AGAIN)
    expect_kind(out, options.form.kind)
    tally = Tally([Spread(question, by) for question, by in zip(options.questions, options.by)])
    table = options.form.kind != ".jsonl"

    def pairs() -> Iterator[tuple[Row, Record]]:
        for shard in shards:
            for where, line in shard.lines():
                record, row = line.get("record"), row_in(line, where) if table else {}
                from_json(_StoredRecord, record, where, AGAIN)
                assert isinstance(record, dict)  # or it would have been refused
                tally.add(record)
                yield row, record

    if table:
        return tally, options.write(real, pairs())
    with atomic_file(real) as file:
        file.writelines(record_line(record) for _, record in pairs())
    return tally, 0
