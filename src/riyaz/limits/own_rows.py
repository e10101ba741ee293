"""The user's rows: of an arm of a comparison its validation and test rows, else those of a file, in two halves."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from riyaz.artifact import TextPart, count_trained, read_examples, reading_of, resolve
from riyaz.config import LimitsConfig
from riyaz.data import Example
from riyaz.data.formats import load
from riyaz.data.groups import unit
from riyaz.data.judging import expect_judged
from riyaz.data.sampling import digest
from riyaz.data.task import Task, detect, limit_for
from riyaz.errors import RiyazError
from riyaz.events import Listen, Note
from riyaz.limits.figures import source_of
from riyaz.limits.inputs import Rows
from riyaz.predictor import Predictor, predictor_for
from riyaz.retrieval.documents import Document, read_documents
from riyaz.scoring import by_text

FEWEST = 4


def own_rows(target: str, predictor: Predictor, config: LimitsConfig, listen: Listen) -> tuple[Rows | None, Predictor]:
    """The rows, None if there are none, and the predictor that answers them: a plain model is told the task. Raises
    RiyazError for rows that cannot be read, or whose labels the artifact does not know."""
    if config.rows is None:
        split = _of_comparison(target)
        if split is None or predictor.task is None:
            return None, predictor
        calibrate, test = (read_examples(split / f"{part}.jsonl") for part in ("valid", "test"))
        if len(calibrate) + len(test) < FEWEST or not test:
            return None, predictor
        return Rows(by_text(predictor.task), calibrate, test, "the comparison's own rows"), predictor
    data = load(config.rows, like=reading_of(target))
    for note in data.notes:
        listen(Note(note))
    if len(data.examples) < FEWEST:
        raise RiyazError(f"{len(data.examples)} rows are too few", str(config.rows), f"give at least {FEWEST}")
    trained = count_trained(target, data.examples)
    if trained:
        listen(Note(f"{trained} of {len(data.examples)} rows were among the rows this artifact was trained on"))
    task = predictor.task or detect(data)
    if task.kind == "closed" and not any(set(row.answers) & set(task.labels) for row in data.examples):
        what = f"no row has one of the artifact's labels; this one has {data.examples[0].answer!r}"
        raise RiyazError(what, data.place(data.examples[0]), "use rows of the same task")
    expect_judged(task.metric, data)
    halves: tuple[list[Example], list[Example]] = [], []
    for row in data.examples:
        halves[int(digest(0, "limits", unit(row))[:4], 16) % 2].append(row)
    if not all(halves):
        halves = list(data.examples[::2]), list(data.examples[1::2])
    rows = Rows(by_text(task), tuple(halves[0]), tuple(halves[1]), source_of(config.rows))
    return rows, _prompted(predictor, task, data.examples)


def _of_comparison(target: str) -> Path | None:
    """The folder of the rows that an arm was made and tested on; None for any other target."""
    folder = resolve(target)
    split = folder.parent.parent.parent.parent / "split" / "kept"
    return (
        split
        if folder.name == "artifact" and all((split / f"{p}.jsonl").is_file() for p in ("valid", "test"))
        else None
    )


def _prompted(predictor: Predictor, task: Task, rows: Sequence[Example]) -> Predictor:
    """A model with the task's instruction in its prompts; anything that has a task stays as it is."""
    if not predictor.has_model or predictor.task is not None:
        return predictor
    longest = max(map(len, predictor.tokenizer.answer_ids([row.said for row in rows])))
    prompted = replace(predictor, text=TextPart(task.instruction), task=task)
    return predictor_for(prompted, max_new_tokens=limit_for(task, longest))


def named_documents(path: Path, rows: Rows | None, listen: Listen) -> Mapping[str, Document]:
    """The documents by their ids. Raises RiyazError where no row names one of them."""
    documents, notes = read_documents(path)
    for note in notes:
        listen(Note(note))
    by_id = {each.doc_id: each for each in documents}
    if rows is None:
        raise RiyazError("there are no rows that name documents", str(path), "name a file of rows with --rows")
    named = [name for row in (*rows.calibrate, *rows.test) for name in row.doc_ids]
    if not named:
        raise RiyazError("no row names a document", rows.source, "give rows a field doc_id")
    if not any(name in by_id for name in named):
        what = f"the rows name {named[0]!r}, which is the id of no document"
        raise RiyazError(what, str(path), "give documents a field doc_id, as the rows have it")
    return by_id
