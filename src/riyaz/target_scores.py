"""A model or an artifact scored on the rows of a file, some rows at a time: `riyaz evaluate`.

Rows are read anew whenever they are needed. The scores of all are made of a `ScoredRow` of each, which can be written
to disk, so some may come from elsewhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from riyaz import hardware
from riyaz.artifact import TextPart, count_trained, reading_of
from riyaz.config import DataConfig, Precision
from riyaz.data import Example
from riyaz.data.data_report import LEFT_OUT
from riyaz.data.example_stream import ExampleStream
from riyaz.data.formats import load
from riyaz.data.judging import expect_judged
from riyaz.data.schema import as_written, read_schema
from riyaz.data.spellings import spell_alike, twins_note
from riyaz.data.tables import Table
from riyaz.data.task import Task, check_metric, detect, limit_for
from riyaz.engine.opening import engine_note
from riyaz.errors import RiyazError
from riyaz.evaluate import LATENCY_ROWS, answers_of, prompt_tokens
from riyaz.events import Listen, Note, Phase, Progress
from riyaz.metrics.executed import expect_ready
from riyaz.metrics.intervals import interval
from riyaz.predictor import (
    ModelPredictor,
    Predictor,
    PromptedModel,
    keeping_to,
    open_target,
    predictor_for,
    within,
)
from riyaz.quality.schema_rows import own_schema_notes
from riyaz.results import FileFacts, TargetScores
from riyaz.scored_columns import ScoredColumns, ScoredRow
from riyaz.scoring import latency, predict, with_accepted

CHUNK = 512  # rows answered together


@dataclass(frozen=True)
class TargetFacts:
    """What is scored on which rows, as far as it is known before they are answered."""

    target: str
    test: FileFacts
    task: Task
    instruction: str
    trained_rows: int | None  # that the artifact was trained on; None for a model


@dataclass(frozen=True)
class Measured:
    """What an answer costs: milliseconds of one made alone, tokens of a prompt, the process's memory in MB; and how the
    weights were held."""

    ms_per_answer: float
    prompt_tokens: float
    peak_rss_mb: float
    served: str | None


@dataclass(frozen=True)
class OpenTarget:
    """An open model or artifact and the rows that it is scored on."""

    facts: TargetFacts
    predictor: Predictor
    rows: Sequence[Example]
    listen: Listen

    def scored(self, span: range, done: int = 0) -> Iterator[list[ScoredRow]]:
        """The rows of a span with their answers, CHUNK at a time, without the first `done` of them, whole chunks.
        Raises RiyazError where a file was changed meanwhile."""
        task, start = self.facts.task, span.start + done
        rows = islice(self.rows, max(0, start - 1), span.stop)
        before = [*islice(rows, min(1, start))]
        for first in range(start, span.stop, CHUNK):

            def progress(ended: int, _: int, answered: int = first - span.start) -> None:
                self.listen(Progress("evaluate", answered + ended, len(span)))

            if self.predictor.has_model:
                self.predictor.forget_tools()
            part = [*islice(rows, CHUNK)]
            predictions = with_accepted(self.predictor, task, predict(self.predictor, part, progress), part, before)
            yield [
                ScoredRow(answer, prediction.reward, row.desirable)
                for answer, prediction, row in zip(
                    answers_of(self.predictor, task, predictions, part), predictions, part, strict=True
                )
            ]
            before = part[-1:]
        if isinstance(self.rows, ExampleStream):
            self.rows.expect_unchanged()

    def measured(self) -> Measured:
        """What an answer costs, on the first LATENCY_ROWS rows."""
        sample = [*self.rows[:LATENCY_ROWS]]
        milliseconds = latency(self.predictor, sample, len(sample))
        tokens = prompt_tokens(self.predictor, sample)
        return Measured(milliseconds, tokens, hardware.peak_rss() / hardware.MB, self.predictor.served)


def evaluate_target(
    target: str, test: Path, data_config: DataConfig, *, limit: int | None = None, precision: Precision = "auto",
    listen: Listen,
) -> TargetScores:  # fmt: skip
    """Scores of a model or an artifact, served in `precision`, on the rows of a file, or on the first `limit` of them.
    Raises RiyazError."""
    opened = open_scored(target, test, data_config, limit=limit, precision=precision, listen=listen)
    columns = ScoredColumns(opened.facts.task)
    for part in opened.scored(range(len(opened.rows))):
        for row in part:
            columns.add(row)
    return target_scores(opened.facts, columns, opened.measured())


def open_scored(
    target: str, test: Path | Table, data_config: DataConfig, *, limit: int | None = None,
    precision: Precision = "auto", opened: Predictor | None = None, listen: Listen,
) -> OpenTarget:  # fmt: skip
    """A model or an artifact, served in `precision` or `opened` already, and the rows of a file, or the first `limit`
    of them.

    The task is the artifact's; for a model it is detected from the file, labels included, and every prompt holds its
    instruction. Raises RiyazError.
    """
    if limit is not None and limit < 1:
        raise RiyazError(f"{limit} rows are too few", "--limit", "give at least 1")
    data = load(test, **data_config.reading(), like=reading_of(target), streamed=True)
    rows = data.examples[:limit]
    for note in data.notes:
        listen(Note(note))
    if data.incomplete:
        listen(Note(f"{LEFT_OUT}: {data.incomplete}"))
    if note := engine_note():
        listen(Note(note))
    predictor = open_target(target, precision=precision) if opened is None else opened
    if predictor.task is None:
        task = detect(data, data_config.instruction, data_config.metric, data_config.task, data_config.schema,
                      data_config.max_words, data_config.max_new_tokens)  # fmt: skip
        if predictor.has_model:
            predictor = _instructed(predictor, task, data.examples)
    else:
        task = _own_task(predictor.task, target, data_config)
        if data_config.merge_labels:
            rows = _spelled_as(task, rows, listen)
        _check_labels(task, rows, data.path, listen)
    expect_judged(task.metric, data, rows)
    expect_ready(task.metric, rows, data_config.unsafe_code)
    for said in own_schema_notes(task, rows):
        listen(Note(said))
    trained = count_trained(target, rows)
    if trained:
        had = f"{trained} of {len(rows)} rows were among the rows this artifact was trained on"
        listen(Note(f"{had}: their score says little"))
    listen(Phase("evaluate", f"{len(rows)} rows"))

    if data_config.max_new_tokens != task.max_new_tokens:  # else it is the artifact's own, or that of a model's task
        predictor = within(predictor, data_config.max_new_tokens)
    if data_config.schema is not None:
        schema = as_written(read_schema(data_config.schema), (row.answer for row in data.examples))
        predictor = keeping_to(predictor, schema, str(data_config.schema))
    facts = TargetFacts(
        target, FileFacts(str(data.path), data.sha256, data.format), task, predictor.text.instruction, trained
    )
    return OpenTarget(facts, predictor, rows, listen)


def target_scores(facts: TargetFacts, columns: ScoredColumns, measured: Measured) -> TargetScores:
    """The scores of all rows, of which there is at least one."""
    task, groups = facts.task, columns.groups()
    extras = columns.extras()
    if len(columns.nats):
        extras = extras | {"answer_log_probability": float(np.mean(columns.nats.values()))}
    calibration, questions, rows = columns.calibration(groups), columns.questions(), columns.row_scores()
    low, high = interval(rows, groups)
    return TargetScores(
        target=facts.target, test=facts.test, task=task.kind, metric=task.metric, instruction=facts.instruction,
        score=float(rows.mean()), ci_low=low, ci_high=high, n_test=len(rows),
        extras={**extras}, slices=columns.slices(rows, groups),
        ms_per_answer=measured.ms_per_answer, prompt_tokens=measured.prompt_tokens, peak_rss_mb=measured.peak_rss_mb,
        trained_rows=facts.trained_rows, served=measured.served, calibration=calibration,
        n_groups=None if groups is None else int(groups.max()) + 1, questions=questions,
    )  # fmt: skip


def _spelled_as(task: Task, rows: Sequence[Example], listen: Listen) -> Sequence[Example]:
    """The rows with the task's spelling of each label, and a note about those that were changed."""
    spelled, merged = spell_alike(rows, task.labels)
    if merged:
        listen(Note(merged))
    return spelled


def _instructed(model: PromptedModel, task: Task, rows: Sequence[Example]) -> ModelPredictor:
    """The model with the task's instruction in every prompt, and an answer limit for the longest accepted answer."""
    said = (row.said for row in rows)
    parts = iter(lambda: [*islice(said, CHUNK)], [])
    longest = max(max(map(len, model.tokenizer.answer_ids(part))) for part in parts)
    instructed = replace(model, text=TextPart(task.instruction), task=task)
    return predictor_for(instructed, max_new_tokens=limit_for(task, longest))


def _own_task(task: Task, target: str, config: DataConfig) -> Task:
    """The artifact's task, with another metric if one is given. Raises RiyazError for another instruction or task."""
    if config.instruction is not None and config.instruction != task.instruction:
        hint = "leave out --instruction, or evaluate the base model with it"
        raise RiyazError(f"this artifact was made with the instruction {task.instruction!r}", target, hint)
    if config.task not in (None, task.kind):
        what = f"this artifact was made for the task {task.kind}"
        raise RiyazError(what, target, "leave out --task, or evaluate the base model with it")
    check_metric(config.metric, task.kind)
    return replace(task, metric=config.metric or task.metric, max_words=config.max_words or task.max_words)


def _check_labels(task: Task, rows: Sequence[Example], test: Path, listen: Listen) -> None:
    """Note how many rows have a label that the artifact lacks. Raises RiyazError if all of them do."""
    if task.kind != "closed":
        return
    known, labels, unknown = {*task.labels}, {*task.labels}, 0
    for row in rows:
        labels.update(row.answers)
        unknown += known.isdisjoint(row.answers)
    if unknown == len(rows):
        first = rows[0]
        what = f"no row has one of the artifact's labels; this one has {first.answer!r}"
        raise RiyazError(what, f"{test}:{first.where.rpartition(':')[2]}", "use rows of the same task")
    if unknown:
        listen(Note(f"{unknown} of {len(rows)} rows have a label that the artifact does not know"))
    twins = twins_note(labels)
    if twins:
        listen(Note(twins))
