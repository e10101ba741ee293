"""`riyaz run`: answers every row of a file and writes the rows with their answers.

Rows are read, answered and written as a stream of chunks; what is kept of each is 16 bytes and a line of OUT.partial.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from riyaz.cli.abstaining import ByConfidence, ByLimits, abstaining
from riyaz.cli.opened import looked_up, opened, tell_lookup
from riyaz.cli.options import Json, LookedUp, MaxNewTokens, Quiet, Schema, Served, Target, configured
from riyaz.cli.output import Screen
from riyaz.cli.rows_out import answerer_of, computed_by, target_hash, writable
from riyaz.cli.shards import ShardHead, ShardOption, read_shard, write_shard
from riyaz.config import TOOLS, Lookup, Precision
from riyaz.errors import RiyazError
from riyaz.events import Phase, Progress
from riyaz.files import disk_error, is_stream
from riyaz.json_files import to_document

if TYPE_CHECKING:
    from riyaz.cli.answered_rows import AnsweredRows
    from riyaz.cli.partial_answers import PartialAnswers
    from riyaz.cli.shards import Shard
    from riyaz.data.row_stream import RowStream
    from riyaz.data.written import Row
    from riyaz.predictor import Predictor
    from riyaz.predictor.prediction import Prediction

COLUMN, CONFIDENCE, RUNNER_UP, CITED = "prediction", "confidence", "runner_up", "citations"
Abstain = Annotated[
    float | None,
    Parameter(
        help="withhold answers that are likely wrong, so that about this share of the others is, such as 0.05; if "
        "answers are no labels of a closed set, riyaz limits must have measured the artifact"
    ),
]


def run(
    target: Target,
    file: Annotated[Path, Parameter(help="a file of rows with a prompt; answers are not needed")],
    /,
    *,
    out: Annotated[
        Path, Parameter(help="file to write: the rows as .jsonl, .csv, .tsv or .parquet, each with its prediction")
    ],
    force: Annotated[bool, Parameter(help="replace the file if it exists")] = False,
    prediction_column: Annotated[str, Parameter(help="column for the answers, which must be new")] = COLUMN,
    prompt_column: Annotated[str | None, configured("prompt_column")] = None,
    encoding: Annotated[str | None, configured("encoding")] = None,
    schema: Schema = None,
    max_new_tokens: MaxNewTokens = None,
    precision: Served = "auto",
    lookup: LookedUp = None,
    abstain: Abstain = None,
    shard: ShardOption = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Answer every row of a file; after a stop, the same command continues."""
    from riyaz import artifact
    from riyaz.cli.answered_rows import AnsweredRows, RunOptions
    from riyaz.cli.partial_answers import row_key
    from riyaz.data import many_files, row_stream, written
    from riyaz.data.schema import read_schema

    withheld, labels = abstaining(target, abstain), artifact.has_confidence(target)
    own, cited = _own_columns(prediction_column, labels or withheld is not None, labels)
    part = read_shard(shard)
    if part and is_stream(out):
        raise RiyazError("is a stream, and a shard is written to a file", str(out), "name a file")
    path = part.path(out) if part else out
    real = path if is_stream(path) else writable(path, many_files.matching_files(file), force)
    form, screen = written.form_of(out, file), Screen(json, quiet)
    schema_text = read_schema(schema) if schema else ""
    answerer = answerer_of(target, precision, schema_text)
    answerer += f" {max_new_tokens} tokens" if max_new_tokens else ""
    answerer += " abstaining" if isinstance(withheld, ByLimits) else ""
    like = artifact.reading_of(target)
    rows = row_stream.open_rows(
        file, prompt_column=prompt_column, encoding=encoding, like=like, read_answers=True, key=row_key
    )
    if rows.note:
        screen.talk.print(rows.note, soft_wrap=True)
    _refuse_own([*own, cited], rows.columns, file)
    is_json = artifact.keeps_to_schema(target) if schema is None else str(schema) != TOOLS
    options = RunOptions(
        list(rows.columns), rows.reading, own, cited, form, precision, max_new_tokens, schema_text,
        is_json and not is_stream(out), abstain if isinstance(withheld, ByConfidence) else None,
        withheld if isinstance(withheld, ByLimits) else None,
    )  # fmt: skip
    answered = AnsweredRows(options, withheld)
    job = _Job(screen, target, rows, _span(rows, part), withheld, precision, schema, max_new_tokens, lookup, _Opened())
    if is_stream(out):
        _stream(out, answered, job)
    elif part:
        head = ShardHead(
            "run", part.number, part.count, job.span.start, job.span.stop, rows.count, str(file), rows.sha256, target,
            target_hash(target), [], to_document(options),
        )  # fmt: skip
        _into_shard(real, answerer, job, head)
    else:
        _into_file(real, answerer, job, answered)
    _finish(screen, job, answered, out, path, part)


def _finish(screen: Screen, job: "_Job", answered: "AnsweredRows", out: Path, path: Path, part: "Shard | None") -> None:
    """Say what was written, and where."""
    for warning in [] if is_stream(out) else answered.warnings():
        screen.talk.print(warning, soft_wrap=True)
    of = f", {part} of {job.rows.count:,} rows" if part else ""
    screen.talk.print(f"{len(job.span):,} rows answered in {path}{of}", soft_wrap=True)
    for note in [] if part else answered.notes():
        screen.talk.print(note, soft_wrap=True)
    document: dict[str, Any] = {"target": job.target, "file": str(job.rows.path), "out": str(path)}
    document |= {"rows": len(job.span), "lookup": None}
    if job.opened.predictor is not None:
        tell_lookup(screen, job.opened.predictor)
        document["lookup"] = looked_up(job.opened.predictor)
    screen.finish(document | ({"shard": [part.number, part.count]} if part else {}))


@dataclass(eq=False)
class _Opened:
    """What has answered; None where all rows had their answers already."""

    predictor: "Predictor | None" = None


@dataclass(frozen=True)
class _Job:
    """What answers which of the rows."""

    screen: Screen
    target: str
    rows: "RowStream"
    span: range  # the numbers of the rows, counted from 0
    withheld: ByConfidence | ByLimits | None
    precision: Precision
    schema: Path | None
    max_new_tokens: int | None
    lookup: Lookup | None
    opened: "_Opened"

    @property
    def keys(self) -> Sequence[int]:
        """The keys of its rows."""
        return self.rows.keys[self.span.start : self.span.stop]

    def answers(self, ready: "PartialAnswers | None" = None) -> Iterator["list[Prediction]"]:
        """The answers to the rows that have none yet, some at a time."""
        from riyaz import scoring
        from riyaz.cli.partial_answers import CHUNK
        from riyaz.report.comparison.terminal import listener

        done, total = ready.count if ready else 0, len(self.span)
        predictor = self.opened.predictor = opened(
            self.screen, self.target, precision=self.precision, schema=self.schema,
            max_new_tokens=self.max_new_tokens, lookup=self.lookup,
        )  # fmt: skip
        if predictor.has_model:
            predictor.lm.drafts.remembers = True  # answers to one user's rows, often of one form
        if self.withheld:
            self.withheld.expect_alike(predictor)
        numbered = zip(count(), self.rows.between(self.span.start, self.span.stop))
        left = (example for row, (_, example) in numbered if not (ready and ready.has(row)))
        with listener(self.screen.talk) as listen:
            listen(Phase("answer", f"{total - done:,} rows"))

            def progress(ended: int, _: int) -> None:
                listen(Progress("answer", done + ended, total))

            while part := list(islice(left, CHUNK)):
                if predictor.has_model:
                    predictor.forget_tools()
                predictions = scoring.predict(predictor, part, progress)
                yield self.withheld.with_confidence(predictor, predictions, part) if self.withheld else predictions
                done += len(part)

    def pairs(self, predictions: "Iterable[Prediction]") -> "Iterator[tuple[Row, Prediction]]":
        """The rows as they are in the file, each with its answer."""
        read = self.rows.between(self.span.start, self.span.stop)
        return ((row, prediction) for (row, _), prediction in zip(read, predictions))

    def complete(self, ready: "PartialAnswers") -> None:
        """Give every row its answer. Raises KeyboardInterrupt that says how to go on."""
        total = len(self.span)
        if ready.count:
            text = f"{ready.count:,} of {total:,} rows were answered before, in {ready.path.name}"
            self.screen.talk.print(text, soft_wrap=True)
        try:
            if ready.count < total:
                for predictions in self.answers(ready):
                    ready.add(predictions)
        except KeyboardInterrupt:
            stored = f"{ready.count:,} of {total:,} answers are kept in {ready.path}"
            text = f"{stored}; the same command continues" if ready.count else "no answer is kept yet"
            raise KeyboardInterrupt(f"stopped; {text}") from None


def _span(rows: "RowStream", part: "Shard | None") -> range:
    """The numbers of the rows to answer."""
    from riyaz.cli.partial_answers import CHUNK

    return part.rows(rows.count, CHUNK) if part else range(rows.count)


def _into_file(out: Path, answerer: str, job: _Job, answered: "AnsweredRows") -> None:
    """Answer the rows and write them. Raises RiyazError, and KeyboardInterrupt that says how to go on."""
    from riyaz.cli.partial_answers import PartialAnswers

    with PartialAnswers(out, answerer, job.keys) as ready:
        job.complete(ready)
        answered.expect(each.confidence for each in ready.predictions())
        answered.write(out, job.pairs(ready.predictions()), ready.cited)
        ready.remove()


def _into_shard(out: Path, answerer: str, job: _Job, head: ShardHead) -> None:
    """Answer the rows of a shard and write it. Raises RiyazError, and KeyboardInterrupt that says how to go on."""
    from riyaz.cli.answered_rows import shard_line
    from riyaz.cli.partial_answers import PartialAnswers

    with PartialAnswers(out, answerer, job.keys, computed_by()) as ready:
        job.complete(ready)
        head = replace(head, computed=list(dict.fromkeys(ready.machines)), facts={"cites": ready.cited})
        write_shard(out, head, (shard_line(*each) for each in job.pairs(ready.predictions())))
        ready.remove()


def _own_columns(prediction: str, confidence: bool, runner_up: bool) -> tuple[list[str], str]:
    """(the columns of every answer, the column of citations), by the column of the prediction. Raises RiyazError for a
    blank name."""
    if not prediction.strip():
        hint = "pass a name, such as --prediction-column answered"
        raise RiyazError("the name is blank", "--prediction-column", hint)
    before = "" if prediction == COLUMN else f"{prediction}_"
    return [prediction, *[before + CONFIDENCE] * confidence, *[before + RUNNER_UP] * runner_up], before + CITED


def _refuse_own(written: Sequence[str], columns: Sequence[str], file: Path) -> None:
    """Raises RiyazError where the rows have a column that is written."""
    for column in written:
        if column in columns:
            hint = "pass --prediction-column with another name, such as --prediction-column answered"
            raise RiyazError(f"the rows have a column {column!r} of their own", str(file), hint)


def _stream(out: Path, answered: "AnsweredRows", job: _Job) -> None:
    """Write the rows to a device, a pipe or an open file as they are answered; where answers are withheld by the
    confidence of all, when all are."""
    from riyaz.data import written

    options = answered.options
    if options.form.kind == ".parquet":
        raise RiyazError("Parquet cannot be written as a stream", str(out), "name a file")
    predictions = (each for part in job.answers() for each in part)
    try:
        with open(1, "wb", closefd=False) if str(out) == "/dev/stdout" else open(out, "wb") as stream:
            known = list(predictions) if answered.needs_all else []
            answered.expect(each.confidence for each in known)
            filled = answered.rows(job.pairs(chain(known, predictions)))
            for line in written.lines(filled, [*options.columns, *options.answer_columns], options.form):
                stream.write(line)
                stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise disk_error(error, out) from error
