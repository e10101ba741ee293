"""`riyaz run`: answers every row of a file and writes the rows with their answers."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from riyaz.cli.abstaining import ByLimits, abstaining
from riyaz.cli.opened import opened
from riyaz.cli.options import Json, MaxNewTokens, Quiet, Schema, Served, Target, configured
from riyaz.cli.output import Screen
from riyaz.cli.rows_out import answerer_of, cut_notes, formulas_note, writable
from riyaz.config import TOOLS
from riyaz.errors import RiyazError
from riyaz.events import Listen, Phase, Progress
from riyaz.files import disk_error, is_stream

if TYPE_CHECKING:
    from riyaz.data import Example
    from riyaz.data.written import Form, Row
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
    abstain: Abstain = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Answer every row of a file; after a stop, the same command continues."""
    from riyaz import artifact
    from riyaz.cli.partial_answers import PartialAnswers
    from riyaz.data import formats, written
    from riyaz.data.schema import read_schema
    from riyaz.report.comparison.terminal import listener

    withheld, labels = abstaining(target, abstain), artifact.has_confidence(target)
    own, cited = _own_columns(prediction_column, labels or withheld is not None, labels)
    real = out if is_stream(out) else writable(out, file, force)
    form = written.form_of(out, file)
    screen = Screen(json, quiet)
    answerer = answerer_of(target, precision, read_schema(schema) if schema else "")
    answerer += f" {max_new_tokens} tokens" if max_new_tokens else ""
    answerer += " abstaining" if isinstance(withheld, ByLimits) else ""
    like = artifact.reading_of(target)
    dataset = formats.load(file, prompt_column=prompt_column, encoding=encoding, answers_required=False, like=like)
    for note in dataset.notes:
        screen.talk.print(note, soft_wrap=True)
    examples, notes = dataset.examples, list[str]()
    _refuse_own([*own, cited], dataset.columns, file)
    fields = _fields(file, dataset.reading.encoding if dataset.reading else encoding)

    def row(example: "Example", prediction: "Prediction") -> "Row":
        answer = dict(zip(own, (prediction.text, prediction.confidence, prediction.runner_up)))
        return {**fields[example.where], **answer} | ({cited: prediction.citations} if prediction.citations else {})

    def rows(predictions: "Iterable[Prediction]") -> Iterator["Row"]:
        if withheld:
            predictions = withheld.withheld(list(predictions))
            notes.append(withheld.note(predictions))
        return map(row, examples, predictions)

    def answers(left: "Sequence[Example]") -> Iterator["list[Prediction]"]:
        predictor = opened(screen, target, precision=precision, schema=schema, max_new_tokens=max_new_tokens)
        if withheld:
            withheld.expect_alike(predictor)
        with listener(screen.talk) as listen:
            listen(Phase("answer", f"{len(left):,} rows"))
            for part, predictions in _in_chunks(predictor, left, len(examples), listen):
                yield withheld.with_confidence(predictor, predictions, part) if withheld else predictions

    columns = [*dataset.columns, *own]
    if is_stream(out):
        _stream(out, form, columns, rows(chain.from_iterable(answers(examples))))
    else:
        with PartialAnswers(real, answerer, examples) as ready:
            if ready.answers:
                text = f"{len(ready.answers):,} of {len(examples):,} rows were answered before, in {ready.path.name}"
                screen.talk.print(text, soft_wrap=True)
            try:
                if ready.left:
                    for predictions in answers([examples[index] for index in ready.left]):
                        ready.add(predictions)
            except KeyboardInterrupt:
                stored = f"{len(ready.answers):,} of {len(examples):,} answers are kept in {ready.path}"
                text = f"{stored}; the same command continues" if ready.answers else "no answer is kept yet"
                raise KeyboardInterrupt(f"stopped; {text}") from None
            answered = list(rows(ready.answers[index] for index in range(len(examples))))
            columns += [cited] * any(cited in each for each in answered)
            written.write_rows(real, answered, columns, form)
            if artifact.keeps_to_schema(target) if schema is None else str(schema) != TOOLS:
                notes += cut_notes(each[prediction_column] for each in answered)
            ready.remove()
        if form.kind in (".csv", ".tsv") and (formulas := written.formulas(answered)):
            screen.talk.print(formulas_note(formulas), soft_wrap=True)
    place = f"{real}, where {out} leads" if out.is_symlink() and not is_stream(out) else out
    screen.talk.print(f"{len(examples):,} rows answered in {place}", soft_wrap=True)
    for note in notes:
        screen.talk.print(note, soft_wrap=True)
    screen.finish({"target": target, "file": str(file), "out": str(out), "rows": len(examples)})


def _in_chunks(
    predictor: "Predictor", left: "Sequence[Example]", total: int, listen: Listen
) -> "Iterator[tuple[Sequence[Example], list[Prediction]]]":
    """The rows that are left of `total`, some at a time, with their answers."""
    from riyaz import scoring
    from riyaz.cli.partial_answers import CHUNK

    for first in range(0, len(left), CHUNK):

        def progress(done: int, _: int, first: int = first) -> None:
            listen(Progress("answer", total - len(left) + first + done, total))

        part = left[first : first + CHUNK]
        yield part, scoring.predict(predictor, part, progress)


def _own_columns(prediction: str, confidence: bool, runner_up: bool) -> tuple[list[str], str]:
    """(the columns of every answer, the column of citations), by the column of the prediction. Raises RiyazError for a
    blank name."""
    if not prediction.strip():
        hint = "pass a name, such as --prediction-column answered"
        raise RiyazError("the name is blank", "--prediction-column", hint)
    before = "" if prediction == COLUMN else f"{prediction}_"
    return [prediction, *[before + CONFIDENCE] * confidence, *[before + RUNNER_UP] * runner_up], before + CITED


def _fields(file: Path, encoding: str | None) -> "dict[str, Row]":
    """The rows of a file as they are written there, by their places."""
    from riyaz.data import many_files

    tables = many_files.read_tables(file, encoding)
    root = many_files.common_folder(tables)
    return {table.place(line, root): row for table in tables for line, row in table.rows}


def _refuse_own(written: Sequence[str], columns: Sequence[str], file: Path) -> None:
    """Raises RiyazError where the rows have a column that is written."""
    for column in written:
        if column in columns:
            hint = "pass --prediction-column with another name, such as --prediction-column answered"
            raise RiyazError(f"the rows have a column {column!r} of their own", str(file), hint)


def _stream(out: Path, form: "Form", columns: list[str], rows: "Iterator[Row]") -> None:
    """Write the rows to a device, a pipe or an open file as they are answered."""
    from riyaz.data import written

    if form.kind == ".parquet":
        raise RiyazError("Parquet cannot be written as a stream", str(out), "name a file")
    try:
        with open(1, "wb", closefd=False) if str(out) == "/dev/stdout" else open(out, "wb") as stream:
            for line in written.lines(rows, columns, form):
                stream.write(line)
                stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise disk_error(error, out) from error
