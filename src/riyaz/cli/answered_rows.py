"""The rows of `riyaz run` as they are written, each with its answer, and what is said about all of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from riyaz.cli.abstaining import ByConfidence, ByLimits, GivenAnswers
from riyaz.cli.rows_out import cut_note, formulas_note
from riyaz.cli.shards import AGAIN, ShardFile, expect_kind, row_in
from riyaz.data import Reading
from riyaz.data.written import Form, Row, formulas, write_rows
from riyaz.json_files import from_json, json_or, to_document
from riyaz.predictor.prediction import Prediction

NO_JSON = object()
TABLES = (".csv", ".tsv")  # kinds of files that a spreadsheet opens


@dataclass(frozen=True)
class RunOptions:
    """What decides which answers `riyaz run` gives to rows, and how they are written; alike in all shards."""

    columns: list[str]  # of the rows that are read
    reading: Reading
    answer_columns: list[str]  # of every answer: its text, and where it has them its confidence and its runner-up
    citation_column: str  # that of citations, where an answer has some
    form: Form
    precision: str
    max_new_tokens: int | None = None
    schema: str = ""  # the text of --schema
    keeps_to_schema: bool = False  # whether answers are JSON under a schema
    abstain: float | None = None  # the share of wrong answers, where answers are withheld by their confidence
    limits: ByLimits | None = None  # where they are withheld by a threshold


@dataclass
class AnsweredRows:
    """Makes the rows that are written, of the rows that are read and their answers, one by one, and counts them."""

    options: RunOptions
    withheld: ByConfidence | ByLimits | None
    least: float = 0.0  # how sure an answer must be not to be withheld
    counts: GivenAnswers = field(default_factory=GivenAnswers)
    cut: int = 0  # answers under a schema that are no whole JSON
    formulas: int = 0  # fields that a spreadsheet may run

    @property
    def needs_all(self) -> bool:
        """Whether all answers must be known before the first is written."""
        return self.withheld is not None and self.withheld.needs_all

    def expect(self, confidences: Iterable[float | None]) -> None:
        """Decide which answers are withheld; `confidences` are those of all rows, read only where all are needed."""
        self.least = self.withheld.least(confidences) if self.withheld else 0.0

    def rows(self, pairs: Iterable[tuple[Row, Prediction]]) -> Iterator[Row]:
        """The rows that are written."""
        options = self.options
        for row, prediction in pairs:
            if self.withheld:
                prediction = self.withheld.withheld(prediction, self.least)
            self.counts.add(prediction)
            if options.keeps_to_schema:
                self.cut += json_or(prediction.text, NO_JSON) is NO_JSON
            answer = dict(zip(options.answer_columns, (prediction.text, prediction.confidence, prediction.runner_up)))
            row = {**row, **answer} | ({options.citation_column: prediction.citations} if prediction.citations else {})
            if options.form.kind in TABLES:
                self.formulas += formulas([row])
            yield row

    def write(self, out: Path, pairs: Iterable[tuple[Row, Prediction]], cites: bool) -> None:
        """Write the file; `cites` says whether an answer has citations. Raises RiyazError."""
        columns = [*self.options.columns, *self.options.answer_columns, *[self.options.citation_column] * cites]
        write_rows(out, self.rows(pairs), columns, self.options.form)

    def warnings(self) -> list[str]:
        """A warning about fields that a spreadsheet may run, where there are any."""
        return [formulas_note(self.formulas)] if self.formulas else []

    def notes(self) -> list[str]:
        """One line each about answers that are blank or cut, where there are any."""
        blank = [self.withheld.note(self.counts)] if self.withheld else []
        return blank + ([cut_note(self.cut, self.counts.rows)] if self.cut else [])


@dataclass(frozen=True)
class StoredAnswer:
    """The answer to a row, as a shard holds it."""

    prediction: str
    citations: list[dict[str, Any]]
    confidence: float | None
    runner_up: str | None


def shard_line(row: Row, answer: Prediction) -> dict[str, Any]:
    """The line of a shard for a row, as it is in the file, and its answer."""
    stored = StoredAnswer(answer.text, list(answer.citations), answer.confidence, answer.runner_up)
    return {"row": row, **to_document(stored)}


def join_answers(shards: Sequence[ShardFile], real: Path, out: Path) -> AnsweredRows:
    """Write the rows of all shards to `real`, which `out` names, as `riyaz run` without shards writes them. Raises
    RiyazError."""
    head = shards[0].head
    options = from_json(RunOptions, head.options, f"{shards[0].path}: options", AGAIN)
    expect_kind(out, options.form.kind)
    withheld = options.limits if options.abstain is None else ByConfidence(head.target, options.abstain)
    answered = AnsweredRows(options, withheld)
    answered.expect(prediction.confidence for _, prediction in _pairs(shards))
    answered.write(real, _pairs(shards), any(each.head.facts.get("cites") is True for each in shards))
    return answered


def _pairs(shards: Sequence[ShardFile]) -> Iterator[tuple[Row, Prediction]]:
    """Every row with its answer. Raises RiyazError where a shard is damaged."""
    for shard in shards:
        for where, entry in shard.lines():
            row, stored = row_in(entry, where), from_json(StoredAnswer, entry, where, AGAIN)
            cited = tuple(stored.citations)
            yield row, Prediction(stored.prediction, None, cited, stored.confidence, stored.runner_up)
