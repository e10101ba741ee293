"""`riyaz evaluate`: scores one model or artifact on test rows."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from riyaz.cli.options import READING_DEFAULTS, Json, Quiet, Reading, Served, Target, resolve_options
from riyaz.cli.output import Screen
from riyaz.cli.rows_out import answerer_of, computed_by, target_hash, writable
from riyaz.cli.shards import AGAIN, FLAG, Shard, ShardFile, ShardHead, ShardOption, expect_kind, read_shard, write_shard
from riyaz.errors import RiyazError
from riyaz.extras import load
from riyaz.json_files import from_json, json_line, parse_json, to_document, write_json

if TYPE_CHECKING:
    from riyaz.cli.partial_records import PartialRecords
    from riyaz.data.task import Task
    from riyaz.results import TargetScores
    from riyaz.scored_columns import ScoredRow
    from riyaz.target_scores import OpenTarget

KIND = ".json"
OTHERS = {  # what differs, by the member of OUT.partial.json
    "answerer": "answers of another model, or another version of riyaz",
    "rows": "answers to other rows",
    "options": "answers with other options",
}


def evaluate(
    target: Target,
    /,
    *,
    test: Annotated[Path, Parameter(help="a file of test rows")],
    limit: Annotated[int | None, Parameter(help="use only the first N rows")] = None,
    precision: Served = "auto",
    out: Annotated[
        Path | None,
        Parameter(help="file to write the scores to, as .json; after a stop, the same command continues"),
    ] = None,
    force: Annotated[bool, Parameter(help="replace the file if it exists")] = False,
    shard: ShardOption = None,
    reading: Reading = READING_DEFAULTS,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Score a model or an artifact on test rows."""
    load("compare")
    data_config, _ = resolve_options(test, reading)
    part = read_shard(shard)
    if part and out is None:
        raise RiyazError("a shard is written to a file", FLAG, "name the whole one, such as --out scores.json")

    from riyaz.report.comparison import terminal
    from riyaz.target_scores import evaluate_target, open_scored

    screen = Screen(json, quiet)
    if out is None:
        with terminal.listener(screen.talk) as listen:
            document = evaluate_target(target, test, data_config, limit=limit, precision=precision, listen=listen)
        terminal.print_scores(document, screen.data)
        screen.finish(document)
        return
    from riyaz.data.many_files import matching_files
    from riyaz.data.schema import read_schema

    if out.suffix.lower() != KIND:
        raise RiyazError("the scores are written as JSON", str(out), f"end the name in {KIND}")
    path = part.path(out) if part else out
    real = writable(path, matching_files(test), force)
    with terminal.listener(screen.talk) as listen:
        opened = open_scored(target, test, data_config, limit=limit, precision=precision, listen=listen)
        options = EvaluateOptions(
            precision, limit, parse_json(json_line(data_config), ""), opened.facts.test.format,
            to_document(opened.facts.task), opened.facts.instruction, opened.facts.trained_rows,
            read_schema(data_config.schema) if data_config.schema else "",
        )  # fmt: skip
        scores = _answer_into(real, opened, options, part)
    if part:
        rows = part.rows(len(opened.rows), _chunk())
        screen.talk.print(f"{len(rows):,} rows scored in {path}, {part} of {len(opened.rows):,} rows", soft_wrap=True)
        screen.finish({"target": target, "test": str(test), "out": str(path), "shard": [part.number, part.count]})
    else:
        assert scores is not None
        show_scores(screen, scores)


@dataclass(frozen=True)
class EvaluateOptions:
    """What decides which scores `riyaz evaluate` gives to rows; alike in all shards."""

    precision: str
    limit: int | None
    reading: dict[str, Any]  # the options of reading the rows
    format: str  # the columns that were read
    task: dict[str, Any]
    instruction: str
    trained_rows: int | None
    schema: str  # the text of --schema


def show_scores(screen: Screen, scores: "TargetScores") -> None:
    """Print the scores, as text or as JSON."""
    from riyaz.report.comparison import terminal

    terminal.print_scores(scores, screen.data)
    screen.finish(scores)


def _chunk() -> int:
    from riyaz.target_scores import CHUNK

    return CHUNK


def _answer_into(
    real: Path, opened: "OpenTarget", options: EvaluateOptions, part: Shard | None
) -> "TargetScores | None":
    """Answer the rows, or those of a shard, and write the scores, or the shard. Raises RiyazError, and
    KeyboardInterrupt that says how to go on."""
    from riyaz.cli.partial_records import PartialRecords, RecordsOf
    from riyaz.scored_columns import ScoredColumns, ScoredRow
    from riyaz.target_scores import target_scores

    facts, count = opened.facts, len(opened.rows)
    span = part.rows(count, _chunk()) if part else range(count)
    about = {"answerer": answerer_of(facts.target, options.precision), "rows": _hash(facts.test.sha256, count)}
    about["options"] = _hash(options)
    computed = computed_by() if part else ""
    of = RecordsOf("evaluate", OTHERS, "answer")
    with PartialRecords(real, of, about, len(span), _chunk(), lambda record: None, computed) as ready:
        _complete(opened, span, ready)
        measured = opened.measured()
        scores = None
        if part:
            head = ShardHead(
                "evaluate", part.number, part.count, span.start, span.stop, count, facts.test.path, facts.test.sha256,
                facts.target, target_hash(facts.target), ready.machines, to_document(options), to_document(measured),
            )  # fmt: skip
            write_shard(real, head, ready.records())
        else:
            columns = ScoredColumns(facts.task)
            for record in ready.records():
                columns.add(from_json(ScoredRow, record, str(ready.path)))
            scores = target_scores(facts, columns, measured)
            write_json(real, scores, ascii=True)
        ready.remove()
    return scores


def _complete(opened: "OpenTarget", span: range, ready: "PartialRecords") -> None:
    """Give every row its answer and its score. Raises KeyboardInterrupt that says how to go on."""
    try:
        for rows in opened.scored(span, ready.count):
            ready.add([parse_json(json_line(row), "") for row in rows])
    except KeyboardInterrupt:
        stored = f"the answers to {ready.count:,} of {len(span):,} rows are kept in {ready.path}"
        text = f"{stored}; the same command continues" if ready.count else "no answer is kept yet"
        raise KeyboardInterrupt(f"stopped; {text}") from None


def join_scores(shards: Sequence[ShardFile], real: Path, out: Path) -> "TargetScores":
    """Write the scores of the rows of all shards to `real`, which `out` names, as `riyaz evaluate` without shards makes
    them. What an answer costs is as measured for the first shard; the memory that of the largest process. Raises
    RiyazError."""
    from riyaz.data.task import Task
    from riyaz.results import FileFacts
    from riyaz.scored_columns import ScoredColumns, ScoredRow
    from riyaz.target_scores import Measured, TargetFacts, target_scores

    expect_kind(out, KIND)
    head, where = shards[0].head, str(shards[0].path)
    options = from_json(EvaluateOptions, head.options, f"{where}: options", AGAIN)
    task = from_json(Task, options.task, f"{where}: options.task", AGAIN)
    measured = [from_json(Measured, each.head.facts, f"{each.path}: facts", AGAIN) for each in shards]
    test = FileFacts(head.file, head.file_sha256, options.format)
    facts = TargetFacts(head.target, test, task, options.instruction, options.trained_rows)
    columns = ScoredColumns(task)
    for shard in shards:
        for at, entry in shard.lines():
            columns.add(_expect_scored(from_json(ScoredRow, entry, at, AGAIN), task, at))
    peak = max(each.peak_rss_mb for each in measured)
    scores = target_scores(facts, columns, replace(measured[0], peak_rss_mb=peak))
    write_json(real, scores, ascii=True)
    return scores


def _expect_scored(row: "ScoredRow", task: "Task", where: str) -> "ScoredRow":
    """The row of a shard. Raises RiyazError where it lacks what the scores of all rows need of it."""
    answer, choices = row.answer, [len(question.choices) for question in task.questions]
    lacks = not answer.answers or answer.score is None or (task.metric == "thumbs" and row.reward is None)
    if lacks or (choices and [len(each.probabilities) for each in answer.decided or []] != choices):
        raise RiyazError("holds no score", where, AGAIN)
    return row


def _hash(*values: object) -> str:
    return hashlib.sha256(json_line(values)).hexdigest()
