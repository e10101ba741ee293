"""`riyaz decide`: answers typed questions about every row of a file, with calibrated probabilities."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from riyaz.cli.opened import opened
from riyaz.cli.options import Json, Quiet, Served, Target, configured
from riyaz.cli.output import Screen
from riyaz.cli.rows_out import answerer_of, formulas_note, writable
from riyaz.errors import RiyazError, brief, listed
from riyaz.events import Listen, Phase, Progress
from riyaz.json_files import json_line

if TYPE_CHECKING:
    from riyaz.cli.decided_rows import Spread
    from riyaz.cli.partial_decisions import PartialDecisions, Record
    from riyaz.data import Example
    from riyaz.data.questions import Question
    from riyaz.data.row_stream import RowStream
    from riyaz.data.written import Form, Row
    from riyaz.predictor import Decided, Predictor, TooLong

TEXTS, PROMPTS = 512, 64  # rows answered together, by a classifier and by a language model; a stop loses at most these


def decide(
    target: Target,
    file: Annotated[Path, Parameter(help="a file of rows with a text; answers are not needed")],
    /,
    *,
    out: Annotated[
        Path, Parameter(help="file to write: the answers as .jsonl, or the rows with their answers as .csv or .tsv")
    ],
    questions: Annotated[
        Path | None, Parameter(help="file of typed questions; those that the artifact was trained on if not given")
    ] = None,
    abstain_below: Annotated[
        float,
        Parameter(
            help="withhold answers with a lower confidence, such as 0.7", validator=validators.Number(gte=0, lte=1)
        ),
    ] = 0.0,
    prefix: Annotated[str, Parameter(help="what the new columns of a table begin with, such as said_")] = "",
    force: Annotated[bool, Parameter(help="replace the file if it exists")] = False,
    prompt_column: Annotated[str | None, configured("prompt_column")] = None,
    encoding: Annotated[str | None, configured("encoding")] = None,
    precision: Served = "auto",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Answer typed questions about every row of a file, with calibrated probabilities."""
    from riyaz import artifact
    from riyaz.cli.decided_rows import NUMBERS, TITLES, Spread, columns_of
    from riyaz.cli.partial_decisions import PartialDecisions
    from riyaz.data import many_files, row_stream
    from riyaz.library.decision import given_questions, questions_for
    from riyaz.predictor import answered_by
    from riyaz.report.comparison.terminal import listener

    began, screen = time.monotonic(), Screen(json, quiet)
    real, form = writable(out, many_files.matching_files(file), force), _form(out, file)
    typed_questions = given_questions(questions)
    answerer, like = answerer_of(target, precision), artifact.reading_of(target)
    answer_columns = [question.column or question.name for question in typed_questions]
    with listener(screen.talk) as listen:
        listen(Phase("read", file.name))
        rows = row_stream.open_rows(
            file, prompt_column=prompt_column, encoding=encoding, like=like, answer_columns=answer_columns
        )
        predictor = opened(screen, target, precision=precision)
        typed_questions = questions_for(predictor, typed_questions, target)
        answerers = answered_by(predictor, typed_questions)
        spread = [Spread(question, by) for question, by in zip(typed_questions, answerers)]
        if form.kind != ".jsonl":
            _expect_new(columns_of(typed_questions, prefix), rows.columns, file)
        if rows.note:
            screen.talk.print(rows.note, soft_wrap=True)
        tally = _Tally(spread)
        job = _Job(predictor, typed_questions, abstain_below, form.kind == ".jsonl")
        about = {"answerer": answerer, "rows": _hash(rows.sha256, rows.reading), "questions": _hash(typed_questions)}
        about["options"] = _hash(abstain_below)
        with PartialDecisions(real, about, rows.count, job.chunk(answerers), tally.add) as ready:
            if ready.count:
                text = f"{ready.count:,} of {rows.count:,} rows were answered before, in {ready.path.name}"
                screen.talk.print(text, soft_wrap=True)
            _answer(job, rows, ready, listen)
            formulas = _finish(ready, rows, typed_questions, prefix, real, form)
    if formulas:
        screen.talk.print(formulas_note(formulas), soft_wrap=True)
    seconds = time.monotonic() - began
    screen.talk.print(f"{rows.count:,} rows in {out}, {seconds:.1f} s", soft_wrap=True)
    screen.table(TITLES, [each.row() for each in spread], NUMBERS)
    document = {"target": target, "file": str(file), "out": str(out), "rows": rows.count}
    screen.finish(document | {"seconds": round(seconds, 3), "questions": [each.document() for each in spread]})
    tally.check(out)


@dataclass(frozen=True)
class _Job:
    """What answers which questions, and how."""

    predictor: "Predictor"
    questions: "tuple[Question, ...]"
    least: float
    probabilities: bool

    def chunk(self, by: Sequence[str]) -> int:
        """Rows that are answered together: fewer where each is asked many questions one after another."""
        return max(1, PROMPTS // max(1, by.count("base"))) if self.predictor.has_model else TEXTS

    def records(self, examples: "Sequence[Example]") -> "list[Record]":
        """The records of some rows; one that does not fit the context has no answers, and says why."""
        from riyaz.cli.decided_rows import record_of
        from riyaz.predictor import TooLong

        records = []
        for example, decided in zip(examples, _decided(self.predictor, examples, self.questions), strict=True):
            error = {"error": decided.what} if isinstance(decided, TooLong) else {}
            answers = [None] * len(self.questions) if isinstance(decided, TooLong) else decided
            record = record_of(example.where, answers, self.questions, self.least, self.probabilities)
            records.append(record | error)
        return records


@dataclass
class _Tally:
    """Counts what is answered, and remembers the first row that is too long."""

    spread: "list[Spread]"
    too_long: int = 0
    first: tuple[str, str] = ("", "")  # its place, and why

    def add(self, record: "Record") -> None:
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


def _answer(job: _Job, rows: "RowStream", ready: "PartialDecisions", listen: Listen) -> None:
    """Answer the rows that have no answer yet. Raises RiyazError, and KeyboardInterrupt that says how to go on."""
    left = (example for _, example in islice(rows, ready.count, None))
    listen(Phase("answer", f"{rows.count - ready.count:,} rows"))
    try:
        while part := list(islice(left, ready.chunk)):
            ready.add(job.records(part))
            listen(Progress("answer", ready.count, rows.count))
    except KeyboardInterrupt:
        stored = f"the answers to {ready.count:,} of {rows.count:,} rows are kept in {ready.path}"
        text = f"{stored}; the same command continues" if ready.count else "no answer is kept yet"
        raise KeyboardInterrupt(f"stopped; {text}") from None
    if ready.count != rows.count:
        raise _changed(rows, ready)


def _decided(
    predictor: "Predictor", examples: "Sequence[Example]", questions: "Sequence[Question]"
) -> "list[list[Decided | None] | TooLong]":
    """The answers to each row, in batches without those that do not fit the context."""
    from riyaz.engine.parts import finished
    from riyaz.predictor import TooLong, deciding_rows

    conversations, where = [example.messages for example in examples], [example.where for example in examples]
    try:
        return [*finished(deciding_rows(predictor, conversations, questions, where))]
    except TooLong as error:
        if len(examples) == 1:
            return [error]
    half = len(examples) // 2
    return [*_decided(predictor, examples[:half], questions), *_decided(predictor, examples[half:], questions)]


def _finish(
    ready: "PartialDecisions", rows: "RowStream", questions: "Sequence[Question]", prefix: str, real: Path, form: "Form"
) -> int:
    """Write the file, and return how many of its fields a spreadsheet may run as formulas. Raises RiyazError."""
    from riyaz.cli.decided_rows import cells, columns_of
    from riyaz.data import written
    from riyaz.files import atomic_file

    if form.kind == ".jsonl":
        ready.become(real)
        return 0
    formulas = 0

    def filled() -> "Iterator[Row]":
        nonlocal formulas
        written_rows = 0
        for (row, example), record in zip(rows, ready.records()):
            if record.get("where") != example.where:
                raise _changed(rows, ready)
            written_rows += 1
            row = row | cells(record, questions, prefix)
            formulas += written.formulas([row])
            yield row
        if written_rows != rows.count:
            raise _changed(rows, ready)

    with atomic_file(real) as file:
        file.writelines(written.lines(filled(), [*rows.columns, *columns_of(questions, prefix)], form))
    ready.remove()
    return formulas


def _form(out: Path, file: Path) -> "Form":
    """How the file is written, by its name. Raises RiyazError."""
    from riyaz.data import written
    from riyaz.files import is_stream

    hint = "end the name in .jsonl, .csv or .tsv"
    if is_stream(out):
        what = "is a stream, and the answers are kept beside the file until all rows have theirs"
        raise RiyazError(what, str(out), "choose a file")
    if out.suffix.lower() == ".parquet":
        raise RiyazError("Parquet is not written row by row", str(out), hint)
    try:
        return written.form_of(out, file)
    except RiyazError as error:
        raise RiyazError(error.what, error.where, hint) from None


def _expect_new(columns: Sequence[str], of_rows: Sequence[str], file: Path) -> None:
    """Raises RiyazError where a column would be written twice."""
    known = set(of_rows)
    if taken := [name for name in columns if name in known]:
        hint = "pass --prefix, such as --prefix said_, or write the answers as .jsonl"
        raise RiyazError(f"the rows have a column {listed(map(brief, taken))} of their own", str(file), hint)
    if twice := [name for place, name in enumerate(columns) if name in columns[:place]]:
        what = f"two questions would write the column {listed(map(brief, twice))}"
        raise RiyazError(what, "--questions", "rename one, or write the answers as .jsonl")


def _changed(rows: "RowStream", ready: "PartialDecisions") -> RiyazError:
    hint = f"delete {ready.path}, and run the same command again"
    return RiyazError("was changed while its rows were answered", str(rows.path), hint)


def _hash(*values: object) -> str:
    return hashlib.sha256(json_line(values)).hexdigest()
