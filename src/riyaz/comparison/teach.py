"""The teacher of a comparison: its answers to the training prompts, made once before speeds are measured.

The folder `teacher/` holds the rows without answers (unlabelled.jsonl), the outputs, and teacher.json, which is written
last. Every answer is kept in the store as it arrives, so that neither a stop nor another comparison makes it, or buys
it, again.
"""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from riyaz.artifact import TextPart, count_trained, read_examples
from riyaz.comparison.arm_row import FINISHED, row_points
from riyaz.comparison.context_limit import too_long
from riyaz.comparison.folder import DAMAGED, TEACHER, ComparisonFolder, Settings
from riyaz.config import LIKELIHOODS, CompareConfig
from riyaz.data import Example, Reading
from riyaz.data.formats import load
from riyaz.data.split import Split
from riyaz.data.task import Task
from riyaz.errors import RiyazError
from riyaz.events import Listen, Note, Progress
from riyaz.families import describe
from riyaz.files import new_sha256
from riyaz.json_files import from_json, json_line, read_json, write_json, write_lines
from riyaz.methods import METHODS
from riyaz.methods.fitting.taught import UNLABELLED
from riyaz.metrics.paired import paired_test
from riyaz.predictor import CHAT_TOKENS, Predictor
from riyaz.prompting import messages_for
from riyaz.results import PREDICTIONS, Answer, ArmResult, Teacher
from riyaz.scoring import answers_alone, predict, score
from riyaz.sources import Source, store
from riyaz.teacher import outputs
from riyaz.teacher.endpoint import Endpoint, ask, is_address, open_endpoint
from riyaz.teacher.model import among, answered, has_task, open_teacher, same_tokens, spelled, with_tokens
from riyaz.teacher.model import identity as model_identity
from riyaz.teacher.outputs import Output, append, kept, prompt_key
from riyaz.text.tokenizer import Tokenizer

DONE = "teacher.json"
CHUNK = 64  # rows that a model of ours answers together; a stop loses at most these
SHARE = 0.5  # of the budget, which a teacher of ours may take for the training prompts
JUDGED_ROWS, ALONE_ROWS = 300, 8  # test rows that it answers too, and those of them answered alone
LEAST_ROWS = 0.5  # share of the prompts to which there must be a usable answer


@dataclass(frozen=True)
class Lesson:
    """teacher.json: how the teacher has answered."""

    prompts: int  # training prompts and rows without answers
    answered: int  # of these with a usable answer
    soft: bool  # whether what it predicted is known too
    seconds: float
    ms_per_answer: float | None = None  # of a model of ours, one row at a time
    scores: dict[str, float] = field(default_factory=dict)  # of test rows by `prompt_key`


def identity(config: CompareConfig, bases: Sequence[Source]) -> dict[str, Any]:
    """The teacher's entry in settings.json. Raises RiyazError for one that cannot be opened, and for the student."""
    assert config.teacher is not None
    if is_address(config.teacher):
        endpoint = open_endpoint(config.teacher, config.teacher_model)
        return {"address": endpoint.address, "model": endpoint.model}
    if config.teacher_model is not None:
        raise RiyazError(
            "names the model of an endpoint", "--teacher-model", "leave it out, or give --teacher its address"
        )
    sha256 = model_identity(config.teacher)
    if sha256 in {source.sha256() for source in bases}:
        raise RiyazError("is the student itself", f"--teacher {config.teacher}", "name another model, or an artifact")
    return {"path": config.teacher, "sha256": sha256}


class Unlabelled(NamedTuple):
    """Rows that a teacher alone answers: the file's hash, and notes on the rows that were left out."""

    rows: tuple[Example, ...] = ()
    sha256: str | None = None
    notes: tuple[str, ...] = ()


def unlabelled_rows(
    path: Path | None, like: Reading | None, parts: Split, task: Task, bases: Sequence[Source]
) -> Unlabelled:
    """The rows of a file that need no answers, without those whose prompts are rows of the split or do not fit the
    context of a base."""
    if path is None:
        return Unlabelled()
    rows = load(path, like=like and replace(like, answer="", rejected="", references=""), answers_required=False)
    tested = {row.key for row in parts.tested}
    known = {row.key for row in (*parts.train, *parts.valid)} | tested
    fresh = {row.key: replace(row, answers=("",)) for row in rows.examples if row.key not in known}
    notes = list(rows.notes)
    if left := sum(row.key in tested for row in rows.examples):
        notes.append(f"{path.name}: {left} prompts are test rows, which the teacher is not asked for training")
    long = dict[int, str]()
    for base in bases:
        long |= too_long(fresh.values(), task, base.tokenizer(), describe(base).config.context)
    if long:
        notes.append(f"{len(long)} prompts without answers do not fit the context, such as {min(long.values())}")
    return Unlabelled(tuple(row for row in fresh.values() if id(row) not in long), rows.sha256, tuple(notes))


def prepare(folder: ComparisonFolder, rows: Sequence[Example]) -> None:
    """Write the rows without answers for the process that asks the teacher."""
    path = folder.path / TEACHER / UNLABELLED
    if not path.exists():
        write_lines(path, (row.to_record() | {"answers": []} for row in rows))


def is_taught(folder: ComparisonFolder) -> bool:
    """Whether the teacher has answered."""
    return (folder.path / TEACHER / DONE).exists()


def read_lesson(folder: ComparisonFolder) -> Lesson:
    """teacher.json. Raises RiyazError if it is damaged."""
    path = folder.path / TEACHER / DONE
    return from_json(Lesson, read_json(path, DAMAGED), str(path), DAMAGED)


def unlabelled(folder: ComparisonFolder) -> tuple[Example, ...]:
    """The rows without answers."""
    path = folder.path / TEACHER / UNLABELLED
    return read_examples(path, DAMAGED, answered=False) if path.exists() else ()


def teach(
    folder: ComparisonFolder, settings: Settings, students: Sequence[Tokenizer], seconds: float, listen: Listen
) -> None:
    """Get the teacher's answers to all training prompts, in at most so many seconds of a model of ours, and write
    them. The bases that learn from them have the tokenizers `students`."""
    began, entry, task = time.monotonic(), settings.teacher, settings.task
    assert entry is not None
    rows = {prompt_key(row.messages): row for row in _prompts(folder)}
    ms, scores = None, dict[str, float]()
    if "address" in entry:
        made = by_endpoint(entry, task, rows, students[0], listen)
    else:
        predictor = open_teacher(entry["path"], task, settings.settings.precision)
        made = by_model(predictor, entry, task, rows, began + seconds, listen)
        made = _with_soft(predictor, task, students, rows, made, listen)
        ms, scores = _judged(folder, predictor, task)
        if known := has_task(entry["path"]) and count_trained(entry["path"], _tested(folder)):
            listen(Note(f"the teacher has learned {known} of the test rows: its score says little"))
    usable = {key: each for key, each in made.items() if each.text}
    if len(usable) < max(1, LEAST_ROWS * len(made)):
        what = f"{len(usable)} of {len(made)} answers are {'labels of the rows' if task.labels else 'not empty'}"
        raise RiyazError(what, f"--teacher {name_of(entry)}", "name another teacher, or say more with --instruction")
    outputs.write(folder.path / TEACHER, usable)
    soft = all(each.soft is not None for each in usable.values())
    lesson = Lesson(len(rows), len(usable), soft, time.monotonic() - began, ms, scores)
    write_json(folder.path / TEACHER / DONE, lesson)
    listen(Note(_summary(lesson, len(made))))


def name_of(entry: Mapping[str, str]) -> str:
    """A teacher as the user named it."""
    return entry["path"] if "path" in entry else f"{entry['address']} ({entry['model']})"


def _summary(lesson: Lesson, made: int) -> str:
    learned = "the student learns what it predicted" if lesson.soft else "the student learns its texts"
    count = f"{lesson.answered:,} of {lesson.prompts:,} prompts in {lesson.seconds:.0f} s"
    text = f"the teacher has answered {count}; {learned}"
    unusable = f"; {made - lesson.answered:,} answers could not be used" if made > lesson.answered else ""
    late = f"; {lesson.prompts - made:,} were left out for lack of time" if made < lesson.prompts else ""
    return text + unusable + late


def _prompts(folder: ComparisonFolder) -> Iterator[Example]:
    """The training and validation rows of every part, then the rows without answers."""
    for part in _parts(folder):
        for which in ("train", "valid"):
            yield from folder.rows(part, which)
    yield from unlabelled(folder)


def _parts(folder: ComparisonFolder) -> list[str]:
    """The names of the parts: the folds, each with test rows of its own, if there are some, then FINAL."""
    return sorted(path.name for path in (folder.path / "split").iterdir())


def by_model(
    predictor: Predictor, entry: Mapping[str, str], task: Task, rows: Mapping[str, Example], deadline: float,
    listen: Listen,
) -> dict[str, Output]:  # fmt: skip
    """The answers of a model of ours by the rows' keys: as many as it gives before the deadline, and at least some."""
    of_task = has_task(entry["path"])
    own = predictor.task.labels if of_task and task.kind == "closed" and predictor.task else ()
    whole = replace(task, labels=own or task.labels)  # so that rows of fewer labels find what it has answered
    how = () if of_task else (task.instruction, task.max_new_tokens)
    path = _kept_in(entry, predictor.served, task.kind, whole.labels, how)
    made = {key: each for key, each in kept(path).items() if key in rows}
    left, began = [key for key in rows if key not in made], time.monotonic()
    for start in range(0, len(left), CHUNK):
        listen(Progress("teach", len(made), len(rows), method="teacher"))
        now = time.monotonic()
        if start and now + (now - began) * CHUNK / start > deadline:
            break
        keys = left[start : start + CHUNK]
        more = dict(zip(keys, answered(predictor, whole, [rows[key] for key in keys])))
        append(path, more)
        made |= more
    return made if whole.labels == task.labels else {key: among(task, own, each) for key, each in made.items()}


def _kept_in(*parts: object) -> Path:
    """The file of the store for the answers of one teacher to one task."""
    return store.home() / TEACHER / f"{new_sha256(json_line(parts)).hexdigest()}.jsonl"


def _with_soft(
    predictor: Predictor, task: Task, students: Sequence[Tokenizer], rows: Mapping[str, Example],
    made: Mapping[str, Output], listen: Listen,
) -> dict[str, Output]:  # fmt: skip
    """Texts of a teacher with the students' tokens, with what it predicted at each of them."""
    if task.kind == "closed" or not predictor.has_model or predictor.has_labels or predictor.has_questions:
        return dict(made)
    if not all(same_tokens(predictor.tokenizer, student) for student in students):
        listen(Note("the teacher has other tokens than the student, which so learns from its texts alone"))
        return dict(made)
    keys, soft = [key for key, output in made.items() if output.text], dict[str, Output]()
    for start in range(0, len(keys), CHUNK):
        listen(Progress("predictions", start, len(keys), method="teacher"))
        part = keys[start : start + CHUNK]
        soft |= zip(part, with_tokens(predictor, [rows[key] for key in part], [made[key].text for key in part]))
    return soft | {key: output for key, output in made.items() if not output.text}


def _judged(folder: ComparisonFolder, predictor: Predictor, task: Task) -> tuple[float | None, dict[str, float]]:
    """(milliseconds of an answer given alone, scores of test rows by `prompt_key`) of a model of ours."""
    tested = _tested(folder)[:JUDGED_ROWS]
    if not tested or task.metric in LIKELIHOODS:
        return None, {}
    _, milliseconds = answers_alone(predictor, tested[:ALONE_ROWS])
    points = score(task, predict(predictor, tested), tested).each
    scores = {prompt_key(row.messages): float(point) for row, point in zip(tested, points)}
    return statistics.median(milliseconds), scores


def by_endpoint(
    entry: Mapping[str, str], task: Task, rows: Mapping[str, Example], student: Tokenizer, listen: Listen
) -> dict[str, Output]:
    """The answers of an endpoint by the rows' keys."""
    endpoint, limit = Endpoint(entry["address"], entry["model"]), task.max_new_tokens or CHAT_TOKENS
    text = TextPart(task.instruction, list_labels=task.kind == "closed")
    conversations = {key: messages_for(text, task, row.messages, ()) for key, row in rows.items()}
    own = {key: prompt_key(messages) for key, messages in conversations.items()}  # with the instruction
    path = _kept_in(entry, limit)
    bought = kept(path)
    left = [key for key in rows if own[key] not in bought]
    sent = sum(map(len, student.render([conversations[key] for key in left])))
    listen(Note(f"{name_of(entry)}: {len(left):,} requests, about {sent:,} tokens to send and at most "
                f"{limit * len(left):,} to receive; {len(rows) - len(left):,} answers are known already"))  # fmt: skip

    def keep(place: int, text: str) -> None:
        output = {own[left[place]]: Output(text)}
        append(path, output)
        bought.update(output)
        listen(Progress("teach", sum(key in bought for key in own.values()), len(rows), method="teacher"))

    try:
        ask(endpoint, [conversations[key] for key in left], limit, keep)
    except RiyazError as error:
        if bought:
            hint = f"{len(bought):,} answers are kept: the same command asks for the others"
            error.hint = f"{error.hint}; {hint}" if error.hint else hint
        raise
    return {key: Output(spelled(task, bought[own[key]].text) or "") for key in rows}


def beside(folder: ComparisonFolder, arms: Sequence[ArmResult]) -> list[ArmResult]:
    """The arms, those that learned from the teacher with its score and their own on the test rows that it has answered
    too."""
    entry = folder.settings().teacher
    if entry is None:
        return list(arms)
    lesson = read_lesson(folder)
    return [replace(arm, teacher=_of_arm(folder, arm, name_of(entry), lesson)) for arm in arms]


def _tested(folder: ComparisonFolder) -> list[Example]:
    return [row for part in _parts(folder) for row in folder.rows(part, "test")]


def _of_arm(folder: ComparisonFolder, arm: ArmResult, name: str, lesson: Lesson) -> Teacher | None:
    if not METHODS[arm.method].needs_teacher or arm.status not in FINISHED:
        return None
    known = Teacher(name, lesson.prompts, lesson.answered, lesson.soft, lesson.seconds, lesson.ms_per_answer)
    both: list[tuple[float, float]] = []  # the student's point for a test row, and the teacher's
    for part in _parts(folder):
        keys, path = [prompt_key(row.messages) for row in folder.rows(part, "test")], folder.part(arm.name, part)
        own = row_points(Answer.read(path / PREDICTIONS)) if keys else ()
        both += [(point, lesson.scores[key]) for key, point in zip(keys, own, strict=True) if key in lesson.scores]
    if not both:
        return known
    mine, theirs = np.array(both).T
    test = paired_test(mine, theirs)
    return replace(known, rows=len(both), score=float(theirs.mean()), student=float(mine.mean()),
                   difference=test.difference, low=test.low, high=test.high)  # fmt: skip
