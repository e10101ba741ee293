"""What `riyaz adapt --from` goes on from: the artifact is read and checked, and what the new rows leave of its task."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from riyaz import artifact as artifacts
from riyaz.adapters import Adapter
from riyaz.artifact import Artifact
from riyaz.comparison.dividing import without_learned
from riyaz.comparison.folder import StartFile
from riyaz.config import TOOLS, CompareConfig, DataConfig, TaskKind
from riyaz.data import Dataset
from riyaz.data.formats import DataFolder
from riyaz.data.schema import expect_tools
from riyaz.data.task import NAMES, Task, detect
from riyaz.errors import RiyazError, listed, number
from riyaz.files import file_sha256
from riyaz.methods import METHODS
from riyaz.methods.fitting.start import Start, shape_of
from riyaz.sources import Source

OPTION = "--from"
MOST_SAID = 100  # characters of an instruction in a note


def read_start(target: Path) -> Start:
    """The artifact that training goes on from. Raises RiyazError for what is none, and for one without a LoRA of its
    own."""
    folder = artifacts.resolve(target)
    if not (folder / artifacts.NAME).is_file():
        raise RiyazError("is no artifact", str(target), "give what riyaz adapt or riyaz compare made")
    document = Artifact.read(folder)
    kind, named = document.weights.kind, f"is an artifact of {document.method}"
    if kind == "full":
        hint = f"a whole model is a base of its own: leave {OPTION} out and name the folder with --model"
        raise RiyazError(f"{named}, which trains every weight", str(target), hint)
    if kind != "lora" or document.task is None:
        what = f"{named}, which has no LoRA to train further"
        raise RiyazError(what, str(target), f"name one of {listed(going_on())}")
    if document.weights.beside:
        what = f"{named}: a classifier answers together with its LoRA"
        raise RiyazError(what, str(target), "name the artifact of its LoRA")
    return Start(str(target), folder.absolute(), document)


def going_on() -> list[str]:
    """The names of the methods that go on from an artifact."""
    return [name for name, method in METHODS.items() if method.goes_on]


def start_file(start: Start) -> StartFile:
    """What settings.json holds of the artifact."""
    return StartFile(start.target, str(start.folder), _hash_of(start.folder))


def reopened(file: StartFile | None) -> Start | None:
    """The artifact that settings.json names; None where it names none. Raises RiyazError if it has changed."""
    if file is None:
        return None
    start = replace(read_start(Path(file.path)), target=file.target)
    if _hash_of(start.folder) != file.sha256:
        raise RiyazError("the artifact has changed since the training began", file.path)
    return start


def _hash_of(folder: Path) -> str:
    return file_sha256(folder / artifacts.NAME)


def expect_fitting(start: Start, methods: Sequence[str], source: Source, config: CompareConfig) -> CompareConfig:
    """The configuration with the rank and α of the artifact's LoRA, with which speeds are measured. Raises RiyazError
    for a method that cannot go on from it, for another base, and for another rank or α by hand."""
    for name in methods:
        if name not in going_on():
            raise RiyazError(f"{name} cannot go on from an artifact", OPTION, f"leave it out, or run {_or(going_on())}")
        if start.document.text.passages and not METHODS[name].needs_documents:
            what = f"the prompts of {start.target} hold passages of documents, and those of {name} do not"
            raise RiyazError(what, OPTION, "run rag_lora with --documents")
    base = start.document.base
    assert base is not None
    if source.sha256() != base.sha256:
        what = f"was trained on {base.name} ({base.sha256[:12]}), and --model is {source.name}"
        raise RiyazError(f"{what} ({source.sha256()[:12]})", start.target, "name the base that it was trained on")
    adapter = start.adapter(source)
    if adapter.whole or not adapter.pairs:
        what = "replaces whole modules" if adapter.whole else "adapts no layer"
        raise RiyazError(f"its adapter {what}, which is not trained further", start.target)
    return _with_shape(start, adapter, config)


def _with_shape(start: Start, adapter: Adapter, config: CompareConfig) -> CompareConfig:
    """The configuration with the LoRA's rank and α. Raises RiyazError for others by hand."""
    rank, alpha, alike = shape_of(adapter)
    for flag, chosen, own in (("--rank", config.rank, rank), ("--alpha", config.alpha, alpha)):
        if chosen is not None and (chosen != own or not alike):
            name, several = flag.removeprefix("--"), "" if alike else " in most layers"
            what = f"the LoRA of {start.target} has the {name} {number(own)}{several}, not {chosen}"
            raise RiyazError(what, flag, f"leave it out, or train a new LoRA without {OPTION}")
    return replace(config, rank=rank, alpha=alpha) if alike and isinstance(alpha, int) else config


def going_on_with(
    start: Start, data_files: DataFolder, config: DataConfig, allow_leakage: bool
) -> tuple[Task, DataFolder, list[str]]:
    """The task of new rows with what the artifact has learned, the rows without those of the test that it has learned,
    and notes. Raises RiyazError."""
    task, notes = task_for(start, data_files.train, config)
    data_files, more = without_learned(data_files, start.learned, allow_leakage)
    return task, data_files, notes + more


def task_for(start: Start, rows: Dataset, config: DataConfig) -> tuple[Task, list[str]]:
    """The task of new rows, with what the artifact has learned, and notes on it. Its instruction, kind and schema stay
    unless the user gives others; labels that the new rows lack stay, too. Raises RiyazError for rows of another kind.
    """
    before = start.task
    instruction = start.document.text.instruction if config.instruction is None else config.instruction
    task = detect(rows, instruction, config.metric, config.task or _kind(before, rows), config.schema,
                  config.max_words, config.max_new_tokens)  # fmt: skip
    _expect_same_kind(start, task, rows)
    notes = [_instruction_note(start, instruction, config.instruction is not None)]
    if task.kind == "closed":
        notes += _labels_notes(before, task)
        task = replace(task, labels=tuple(sorted({*before.labels, *task.labels})))
    elif task.kind != "questions" and before.schema and config.schema is None:
        for row in rows.examples if before.schema == TOOLS else ():
            expect_tools(row.tools, row.where)
        task = replace(task, schema=before.schema)
    return task, notes


def _kind(before: Task, rows: Dataset) -> TaskKind | None:
    """The kind that rows have if nobody says it: the artifact's, but of answers that are no labels of it None."""
    if before.kind in ("short", "free"):
        return None if rows.reading is not None and rows.reading.questions else before.kind  # type: ignore[return-value]
    answers = {answer for row in rows.examples for answer in row.answers}
    known = before.kind == "closed" and answers <= {*before.labels} and len(answers) <= len(rows.examples) / 2
    return "closed" if known else None


def _expect_same_kind(start: Start, task: Task, rows: Dataset) -> None:
    """Raises RiyazError where the artifact chooses and the new rows are written, or the other way round, and for other
    questions than the artifact's."""
    before = start.task
    chosen = {"closed", "questions"}
    if before.kind != task.kind and {before.kind, task.kind} & chosen:
        what = f"the answers of {start.target} are {NAMES[before.kind]}, and those of these rows {NAMES[task.kind]}"
        raise RiyazError(what, str(rows.path), "give rows of the same kind, or train a new artifact")
    same = [(question.name, question.type, question.keys) for question in before.questions] == [
        (question.name, question.type, question.keys) for question in task.questions
    ]
    if not same:
        names = listed([question.name for question in before.questions])
        raise RiyazError(f"the questions are not those of {start.target}: {names}", "--questions", "ask the same ones")


def _instruction_note(start: Start, instruction: str, own: bool) -> str:
    before = start.document.text.instruction
    if own and instruction != before:
        return f"the instruction is not that of {start.target}, which was {_cut(before)}"
    return f"the instruction of {start.target} is kept: {_cut(instruction)}"


def _labels_notes(before: Task, task: Task) -> list[str]:
    """What becomes of the labels that the artifact knows and the rows lack, and of those that are new."""
    kept, new = sorted({*before.labels} - {*task.labels}), sorted({*task.labels} - {*before.labels})
    stay = "labels of the artifact that no new row has, which stay but may be forgotten without rows"
    notes = [f"{stay}: {len(kept)} ({listed(kept)})"] if kept else []
    return notes + ([f"labels that are new to the artifact: {len(new)} ({listed(new)})"] if new else [])


def _cut(text: str) -> str:
    shown = repr(text) if len(text) <= MOST_SAID else repr(text[:MOST_SAID] + "…")
    return shown if text else "none"


def _or(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
