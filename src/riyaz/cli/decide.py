"""`riyaz decide`: answers typed questions about every row of a file, with calibrated probabilities."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from riyaz.cli.opened import opened
from riyaz.cli.options import Json, Quiet, Served, Target, configured
from riyaz.cli.output import Screen
from riyaz.cli.rows_out import answerer_of, computed_by, formulas_note, target_hash, writable
from riyaz.cli.shards import ShardHead, ShardOption, read_shard, write_shard
from riyaz.errors import RiyazError, brief, listed
from riyaz.events import Listen, Phase, Progress
from riyaz.json_files import json_line, to_document

if TYPE_CHECKING:
    from riyaz.cli.decided_rows import DecideOptions, Tally
    from riyaz.cli.partial_records import PartialRecords, Record
    from riyaz.data import Example
    from riyaz.data.questions import Question
    from riyaz.data.row_stream import RowStream
    from riyaz.data.written import Form, Row
    from riyaz.predictor import Decided, Predictor, TooLong

OTHERS = {  # what differs, by the member of OUT.partial.json
    "answerer": "answers of another model, or another version of riyaz",
    "rows": "answers to other rows",
    "questions": "answers to other questions",
    "options": "answers with another --abstain-below",
}
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
    shard: ShardOption = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Answer typed questions about every row of a file, with calibrated probabilities."""
    from riyaz import artifact
    from riyaz.cli.decided_rows import DecideOptions, Spread, Tally, columns_of
    from riyaz.cli.partial_answers import row_key
    from riyaz.cli.partial_records import PartialRecords, RecordsOf
    from riyaz.data import many_files, row_stream
    from riyaz.library.decision import given_questions, questions_for
    from riyaz.predictor import answered_by
    from riyaz.report.comparison.terminal import listener

    began, screen, part = time.monotonic(), Screen(json, quiet), read_shard(shard)
    path, read = part.path(out) if part else out, many_files.matching_files(file)
    form, real = _form(out, file), writable(path, read, force)
    typed_questions = given_questions(questions)
    answerer, like = answerer_of(target, precision), artifact.reading_of(target)
    answer_columns = [question.column or question.name for question in typed_questions]
    with listener(screen.talk) as listen:
        listen(Phase("read", file.name))
        rows = row_stream.open_rows(
            file, prompt_column=prompt_column, encoding=encoding, like=like, answer_columns=answer_columns,
            key=row_key if part else None,
        )  # fmt: skip
        predictor = opened(screen, target, precision=precision)
        typed_questions = questions_for(predictor, typed_questions, target)
        answerers = answered_by(predictor, typed_questions)
        if form.kind != ".jsonl":
            _expect_new(columns_of(typed_questions, prefix), rows.columns, file)
        if rows.note:
            screen.talk.print(rows.note, soft_wrap=True)
        tally = Tally([Spread(question, by) for question, by in zip(typed_questions, answerers)])
        options = DecideOptions(
            list(rows.columns), rows.reading, list(typed_questions), list(answerers), form, precision, prefix,
            abstain_below,
        )  # fmt: skip
        span, chunk = range(rows.count), _chunk(predictor, answerers)
        span = part.rows(rows.count, chunk) if part else span
        job = _Job(predictor, options, rows, span)
        about = {"answerer": answerer, "rows": _hash(rows.sha256, rows.reading), "questions": _hash(typed_questions)}
        about["options"] = _hash(abstain_below)
        computed = computed_by() if part else ""
        with PartialRecords(
            real, RecordsOf("decide", OTHERS, "answers"), about, len(span), chunk, tally.add, computed
        ) as ready:
            if ready.count:
                text = f"{ready.count:,} of {len(span):,} rows were answered before, in {ready.path.name}"
                screen.talk.print(text, soft_wrap=True)
            _answer(job, ready, listen)
            if part:
                head = ShardHead(
                    "decide", part.number, part.count, span.start, span.stop, rows.count, str(file), rows.sha256,
                    target, target_hash(target), ready.machines, to_document(options),
                )  # fmt: skip
                formulas = _finish_shard(job, ready, real, head)
            else:
                formulas = _finish(job, ready, real)
    of = f", {part} of {rows.count:,} rows" if part else ""
    seconds = time.monotonic() - began
    document = {"target": target, "file": str(file), "out": str(path), "rows": len(span)}
    document |= {"shard": [part.number, part.count]} if part else {}
    show_decisions(screen, tally, formulas, f"{len(span):,} rows in {path}{of}", document, seconds)
    tally.check(path)


def show_decisions(
    screen: Screen, tally: "Tally", formulas: int, line: str, document: "dict[str, Any]", seconds: float
) -> None:
    """Print what was written and how each question was answered."""
    from riyaz.cli.decided_rows import NUMBERS, TITLES

    if formulas:
        screen.talk.print(formulas_note(formulas), soft_wrap=True)
    screen.talk.print(f"{line}, {seconds:.1f} s", soft_wrap=True)
    screen.table(TITLES, [each.row() for each in tally.spread], NUMBERS)
    screen.finish(document | {"seconds": round(seconds, 3), "questions": [each.document() for each in tally.spread]})


@dataclass(frozen=True)
class _Job:
    """What answers which questions, and how."""

    predictor: "Predictor"
    options: "DecideOptions"
    rows: "RowStream"
    span: range  # the numbers of the rows, counted from 0

    @property
    def end(self) -> int | None:
        """The number of the first row behind them; None where there should be none."""
        return None if self.span.stop == self.rows.count else self.span.stop

    def records(self, examples: "Sequence[Example]") -> "list[Record]":
        """The records of some rows; one that does not fit the context has no answers, and says why."""
        from riyaz.cli.decided_rows import record_of
        from riyaz.predictor import TooLong

        if self.predictor.has_model:
            self.predictor.forget_tools()
        records, questions, probabilities = [], self.options.questions, self.options.form.kind == ".jsonl"
        for example, decided in zip(examples, _decided(self.predictor, examples, questions), strict=True):
            error = {"error": decided.what} if isinstance(decided, TooLong) else {}
            answers = [None] * len(questions) if isinstance(decided, TooLong) else decided
            record = record_of(example.where, answers, questions, self.options.abstain_below, probabilities)
            records.append(record | error)
        return records

    def pairs(self, ready: "PartialRecords") -> "Iterator[tuple[Row, Record]]":
        """The rows as they are in the file, each with its record. Raises RiyazError where the file was changed."""
        pairs = 0
        for (row, example), record in zip(self.rows.between(self.span.start, self.end), ready.records()):
            if record.get("where") != example.where:
                raise _changed(self.rows, ready)
            pairs += 1
            yield row, record
        if pairs != len(self.span):
            raise _changed(self.rows, ready)


def _chunk(predictor: "Predictor", by: Sequence[str]) -> int:
    """Rows that are answered together: fewer where each is asked many questions one after another."""
    return max(1, PROMPTS // max(1, by.count("base"))) if predictor.has_model else TEXTS


def _answer(job: _Job, ready: "PartialRecords", listen: Listen) -> None:
    """Answer the rows that have no answer yet. Raises RiyazError, and KeyboardInterrupt that says how to go on."""
    total = len(job.span)
    left = (example for _, example in job.rows.between(job.span.start + ready.count, job.end))
    listen(Phase("answer", f"{total - ready.count:,} rows"))
    try:
        while part := list(islice(left, ready.chunk)):
            ready.add(job.records(part))
            listen(Progress("answer", ready.count, total))
    except KeyboardInterrupt:
        stored = f"the answers to {ready.count:,} of {total:,} rows are kept in {ready.path}"
        text = f"{stored}; the same command continues" if ready.count else "no answer is kept yet"
        raise KeyboardInterrupt(f"stopped; {text}") from None
    if ready.count != total:
        raise _changed(job.rows, ready)


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


def _finish(job: _Job, ready: "PartialRecords", real: Path) -> int:
    """Write the file, and return how many of its fields a spreadsheet may run as formulas. Raises RiyazError."""
    if job.options.form.kind == ".jsonl":
        ready.become(real)
        return 0
    formulas = job.options.write(real, job.pairs(ready))
    ready.remove()
    return formulas


def _finish_shard(job: _Job, ready: "PartialRecords", real: Path, head: ShardHead) -> int:
    """Write the file of a shard, with the rows where they are written beside their answers. Raises RiyazError."""
    table = job.options.form.kind != ".jsonl"
    write_shard(real, head, ({"record": record} | ({"row": row} if table else {}) for row, record in job.pairs(ready)))
    ready.remove()
    return 0


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


def _changed(rows: "RowStream", ready: "PartialRecords") -> RiyazError:
    hint = f"delete {ready.path}, and run the same command again"
    return RiyazError("was changed while its rows were answered", str(rows.path), hint)


def _hash(*values: object) -> str:
    return hashlib.sha256(json_line(values)).hexdigest()
