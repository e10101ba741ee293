"""Rows made of a file of prompts without answers: a teacher answers them."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from riyaz.artifact import Artifact, resolve
from riyaz.comparison.bases import open_bases
from riyaz.comparison.run import expect_new
from riyaz.comparison.teach import by_endpoint, by_model, identity, name_of
from riyaz.config import MIN_ROWS, CompareConfig, DataConfig
from riyaz.data import Example
from riyaz.data.formats import load
from riyaz.data.task import DECISIONS, FITTING, Task
from riyaz.errors import RiyazError
from riyaz.events import Listen, Phase
from riyaz.json_files import json_or, write_lines
from riyaz.teacher.model import has_task, open_teacher
from riyaz.teacher.outputs import Output, prompt_key

ROWS = ".answers.jsonl"  # behind the name of --out


def answered_prompts(
    prompts: Path, data_config: DataConfig, config: CompareConfig, listen: Listen
) -> tuple[Path, DataConfig]:
    """Write the rows OUT.answers.jsonl and return their path, with how they are read: as the teacher's own task, if it
    is an artifact, else as the user says. What a stopped command has answered is not answered again. Raises
    RiyazError."""
    assert config.out is not None and config.teacher is not None
    expect_new(config.out)
    loaded = load(
        prompts, prompt_column=data_config.prompt_column, encoding=data_config.encoding, answers_required=False
    )
    rows = {prompt_key(row.messages): row for row in loaded.examples}
    if len(rows) < MIN_ROWS:  # as the split of the answered rows would say when all are answered
        raise RiyazError(f"{len(rows)} different prompts are too few", str(prompts), f"give at least {MIN_ROWS}")
    out = config.out.with_name(config.out.name + ROWS)
    _expect_answers(out, rows)
    bases = list(open_bases(config.model).values())
    entry, task = identity(config, bases), _task(config.teacher, data_config)
    listen(Phase("teach", f"answers of {name_of(entry)} to {len(rows):,} prompts", method="teach"))
    if "address" in entry:
        made = by_endpoint(entry, task, rows, bases[0].tokenizer(), listen)
    else:
        predictor = open_teacher(entry["path"], task, config.precision)
        made = by_model(predictor, entry, task, rows, math.inf, listen)
        del predictor
    records = [_record(rows[key], output) for key, output in made.items() if output.text]
    if not records:
        raise RiyazError("every answer of the teacher is empty", f"--teacher {name_of(entry)}", "name another teacher")
    write_lines(out, records)
    kind = None if task.kind == "questions" else task.kind
    metric = None if task.metric == DECISIONS else task.metric
    return out, replace(
        data_config, prompt_column=None, answer_column=None, instruction=task.instruction, task=kind,
        metric=data_config.metric or metric,
    )  # fmt: skip


def _expect_answers(path: Path, rows: Collection[str]) -> None:
    """Raises RiyazError for a file that holds anything but answers to these prompts, by their keys, of an earlier
    command."""
    if not path.exists():
        return
    for entry in (json_or(line.decode(errors="replace"), None) for line in path.read_bytes().splitlines()):
        match entry:
            case {"messages": [*turns, {"role": "assistant"}]} if prompt_key(turns) in rows:
                continue
        raise RiyazError("already exists and holds other rows", str(path), "choose another --out, or move the file")


def _task(teacher: str, data_config: DataConfig) -> Task:
    """The task of an artifact, unless the user says otherwise; else free text with the user's instruction."""
    own = Artifact.read(resolve(teacher)).task if has_task(teacher) else None
    if own is None:
        kind = data_config.task or "free"
        if kind in ("closed", "questions"):
            what = f"the prompts do not say which labels there are, and {teacher} has no task of its own"
            raise RiyazError(what, "--task", "leave it out, give --rows, or name an artifact as the teacher")
        return Task(kind, (), FITTING[kind][0], data_config.instruction or "", "the teacher's answers",
                    max_new_tokens=data_config.max_new_tokens)  # fmt: skip
    return own if data_config.instruction is None else replace(own, instruction=data_config.instruction)


def _record(row: Example, output: Output) -> Mapping[str, Any]:
    return {"messages": [*row.messages, {"role": "assistant", "content": output.text}]}
