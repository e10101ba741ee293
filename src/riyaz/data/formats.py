"""Read files and folders as datasets.

`load(path)` reads one file, the files of a pattern such as `part-*.parquet`, or a folder that `datasets` saved;
`open_data(path)` reads these or a folder with `train.*`, optional `test.*` and `riyaz.toml`, where each part is one
file or shards. `Dataset.format` names the columns that were read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from riyaz import config
from riyaz.config import Turns
from riyaz.data import Dataset, Example, Reading
from riyaz.data.check_columns import check_columns, check_of, one_database
from riyaz.data.column_roles import find_reading
from riyaz.data.encodings import NotUTF8
from riyaz.data.example_stream import ExampleStream, StreamedRows, streamed_tables
from riyaz.data.groups import by_document, group_column_of
from riyaz.data.many_files import (
    combine,
    common_folder,
    is_table,
    matching_files,
    mixed_columns,
    part_files,
    read_tables,
)
from riyaz.data.parquet import SPLITS, saved_splits
from riyaz.data.questions import Question, answer_places, questions_from
from riyaz.data.records import DOCUMENTS, Incomplete, RowProblem, example_of, examples_of, holds_conversations
from riyaz.data.spellings import most_frequent_spellings, spell_alike
from riyaz.data.tables import Problems, Table
from riyaz.data.turns import by_turn
from riyaz.errors import RiyazError, brief, listed


@dataclass(frozen=True)
class DataFolder:
    """The data at a path: training rows, test rows if any, and the settings of riyaz.toml."""

    train: Dataset
    test: Dataset | None = None
    settings: dict[str, object] = field(default_factory=dict)
    unused: tuple[str, ...] = ()  # tables in the folder that were not read


def load(
    path: str | Path | Table,
    *,
    prompt_column: str | None = None,
    answer_column: str | None = None,
    encoding: str | None = None,
    skip_incomplete: bool = False,
    merge_labels: bool = False,
    group_column: str | None = None,
    questions: Path | Sequence[Any] | None = None,
    database: Path | None = None,
    turns: Turns | None = None,
    answers_required: bool = True,
    like: Reading | None = None,
    whole: bool = True,
    streamed: bool = False,
) -> Dataset:
    """The examples of a file, of several read as one, or of rows in memory; each needs an answer if `answers_required`.

    What is not given is as in `like`, where the file has its columns. Without `encoding` text must be UTF-8. Rows
    without a prompt or an answer are left out and counted with `skip_incomplete`. Labels are spelled as in `like`, or
    each in its most frequent way with `merge_labels`. With `questions`, a file of them or a list, the answers are those
    of their columns, and rows that answer none are left out. Queries run on `database` where a row names no other one.
    Of a conversation every answer makes an example, or only the last, as `turns` says. Without `whole` it is read as
    it once was: only the last if nothing else is said, and tools are text. With `streamed` the examples are an
    `ExampleStream`, of as many rows as there are: the same ones, but that columns are judged by its HEAD_ROWS.
    Raises RiyazError with file and line.
    """
    encoding, tables = _tables(path if isinstance(path, Table) else Path(path), encoding, like, streamed)
    path = path.path if isinstance(path, Table) else Path(path)
    combined = combine(path, tables)
    try:
        group, no_group = group_column_of(combined, group_column, like)
        questions_here = questions_from(questions) or (like.questions if like else ())
        if answers_required:
            questions_here = _questions(combined, questions_here, answer_column)
        reading, note = find_reading(
            _headed(combined), prompt_column, answer_column, answers_required and not questions_here, like, group,
            [question.column for question in questions_here],
        )  # fmt: skip
    except RiyazError as error:
        raise mixed_columns(error, path, tables) from None
    skip = answers_required and (skip_incomplete or (like is not None and like.skip_incomplete))
    spellings = like.spellings if like is not None else ()
    reading = replace(reading, encoding=encoding, skip_incomplete=skip, spellings=spellings, group=group)
    if questions_here:
        reading = replace(reading, answer="", references="", questions=questions_here, skip_incomplete=True)
    used = {*reading.format.split(","), reading.group}
    reading = replace(reading, checks=check_columns(tables, used, reading.answer) if answers_required else ())
    if whole and like is None and holds_conversations(combined, reading.prompt):
        reading = replace(reading, turns="last" if reading.checks else "all", called=True)  # checks are of the last
    reading = replace(reading, turns=turns or reading.turns)
    folder, all_rows = common_folder(tables), one_database(database) if answers_required else ""
    rows = _Rows(tables, reading, folder, answers_required, all_rows)
    examples: Sequence[Example]
    examples, skipped, incomplete = rows.streamed() if streamed else rows.whole()
    if not examples:
        what = "every answer has weight 0, so there is nothing to learn" if skipped else "no row is complete"
        raise RiyazError(what, str(path), "give the answers weight 1" if skipped else "give prompts and answers")
    missing = _missing(questions_here, examples) if answers_required else []
    notes = [note, no_group if answers_required else "", *missing]
    if merge_labels and not reading.spellings:
        reading = replace(reading, spellings=most_frequent_spellings(examples))
    if reading.spellings:
        examples, merged = spell_alike(examples, reading.spellings)
        notes.append(merged)
    if answers_required and reading.turns == "all":
        examples, conversations = by_turn(examples)
        notes.append(conversations)
    if answers_required and not group and not no_group and {*DOCUMENTS} & {*combined.columns}:
        examples, grouped = by_document(examples)
        notes.append(grouped)
    return Dataset(
        examples=examples if streamed else tuple(examples),
        format=reading.format,
        path=path,
        sha256=combined.sha256,
        columns=combined.columns,
        skipped=skipped,
        answer_column=reading.answer,
        folder=None if combined.in_memory else folder,
        incomplete=incomplete,
        reading=reading,
        notes=tuple(f"{path.name}: {note}" for note in notes if note),
    )


def _questions(table: Table, questions: tuple[Question, ...], answer_column: str | None) -> tuple[Question, ...]:
    """The questions, each with the column of its answers, which is that of its name unless it names another. Raises
    RiyazError for a column that the table lacks, or that holds none of the choices, and beside an answer column."""
    if questions and answer_column:
        raise RiyazError("the questions name the columns of their answers", "--answer-column", "leave it out")
    placed = tuple(replace(question, column=question.column or question.name) for question in questions)
    for question in placed:
        if question.column not in table.columns:
            hint = f"name its column as `column`; the file has {listed(table.columns)}"
            raise RiyazError(f"there is no column {question.column!r} for the question {question.name!r}",
                             str(table.path), hint)  # fmt: skip
        places = (question.place(cell) for cell in _cells(table, question.column))
        first = [*islice(places, 1)]
        if first == [None] and all(place is None for place in places):
            what = f"the column {question.column!r} holds none of the choices of the question {question.name!r}"
            held = dict.fromkeys(_cells(table, question.column))
            raise RiyazError(what, str(table.path), f"it holds {listed(map(brief, held))}")
    return placed


def _cells(table: Table, column: str) -> Iterator[str | bool]:
    """What the rows hold in a column, without empty cells."""
    for _, row in table.rows:
        value = row.get(column)
        if value not in (None, "") and value == value:  # not NaN
            yield value if isinstance(value, bool) else str(value)


def _missing(questions: tuple[Question, ...], examples: Sequence[Example]) -> list[str]:
    """A line for each question that some rows do not answer."""
    counts = [0] * len(questions)
    for example in examples if questions else ():
        for number, place in enumerate(answer_places(questions, example.answer) if example.answers else ()):
            counts[number] += place is None
    return [
        f"{count:,} of {len(examples):,} rows have no answer to {question.name!r}: they teach and test the others"
        for question, count in zip(questions, counts) if count
    ]  # fmt: skip


def _tables(
    path: Path | Table, encoding: str | None, like: Reading | None, streamed: bool
) -> tuple[str | None, list[Table]]:
    """The tables of a path, in the encoding of `like` where none is given and they are not UTF-8; and the encoding."""
    read = streamed_tables if streamed and isinstance(path, Path) else read_tables
    try:
        return encoding, read(path, encoding)  # type: ignore[arg-type]
    except NotUTF8:
        if like is None or like.encoding is None:
            raise
        return like.encoding, read_tables(path, like.encoding)


def _headed(table: Table) -> Table:
    """The table with the first rows of a stream, by which its columns are judged."""
    return replace(table, rows=table.rows.head()) if isinstance(table.rows, StreamedRows) else table


@dataclass(frozen=True)
class _Rows:
    """The rows of some tables, and how they become examples."""

    tables: list[Table]
    reading: Reading
    folder: Path
    answers_required: bool
    database: str  # of rows that name none

    def whole(self) -> tuple[list[Example], int, int]:
        """The examples, the number of conversations in which every answer has weight 0, and that of incomplete rows
        that are left out. Raises RiyazError naming the lines of wrong rows."""
        examples, skipped, incomplete = list[Example](), 0, 0
        for table in self.tables:
            left_out = _LeftOut(Problems(table.path, mark=table.mark))
            examples += self._of(table, left_out)
            self._check(left_out)
            skipped += left_out.skipped
            incomplete += left_out.incomplete
        return examples, skipped, incomplete

    def streamed(self) -> tuple[ExampleStream, int, int]:
        """The same with examples that are made anew whenever they are read."""
        count = skipped = incomplete = 0
        for table in self.tables:
            left_out = _LeftOut(Problems(table.path, mark=table.mark))
            count += sum(1 for _ in self._of(table, left_out))
            self._check(left_out)
            skipped += left_out.skipped
            incomplete += left_out.incomplete
        files = [(table.path, table.sha256) for table in self.tables if isinstance(table.rows, StreamedRows)]
        return ExampleStream(self._again, count, files), skipped, incomplete

    def _again(self) -> Iterator[Example]:
        for table in self.tables:
            left_out = _LeftOut(Problems(table.path, mark=table.mark))
            yield from self._of(table, left_out)
            self._check(left_out)  # a row that was changed while all were read

    def _of(self, table: Table, left_out: "_LeftOut") -> Iterator[Example]:
        """The examples of one table; what makes none is added to `left_out`."""
        reading = self.reading
        for line, row in table.rows:
            try:
                made = _of_row(row, reading, table.place(line, self.folder), self.answers_required)
                if reading.checks or self.database:
                    check = check_of(row, reading.checks, table.path.parent, self.database)
                    made = [replace(example, check=check) for example in made]
            except RowProblem as problem:
                left_out.incomplete += isinstance(problem, Incomplete)
                if not (reading.skip_incomplete and isinstance(problem, Incomplete)):
                    left_out.problems.add(line, str(problem))
                continue
            left_out.skipped += not made
            yield from made

    def _check(self, left_out: "_LeftOut") -> None:
        """Raises RiyazError naming the lines of wrong rows."""
        problems, incomplete = left_out.problems, left_out.incomplete
        hint = "correct or remove the row" + ("s" if len(problems.entries) > 1 else "")
        if incomplete and self.answers_required and not self.reading.skip_incomplete:
            hint += ", or pass --skip-incomplete to leave out those without a prompt or an answer"
        mended = bool(incomplete) and incomplete == len(problems.entries) and self.answers_required
        problems.check(hint, {"skip_incomplete": True} if mended else None)


@dataclass
class _LeftOut:
    """What of a table makes no examples: wrong rows, the number of conversations in which every answer has weight 0,
    and that of incomplete rows."""

    problems: Problems
    skipped: int = 0
    incomplete: int = 0


def _of_row(row: dict[str, object], reading: Reading, where: str, answers_required: bool) -> list[Example]:
    if answers_required:
        return examples_of(row, reading, where)
    example = example_of(row, reading, where, answers_required)
    return [] if example is None else [example]


def open_data(
    path: str | Path | Table, *, test: str | Path | Table | None = None, whole: bool = True, **options: Any
) -> DataFolder:
    """Read a file of training rows, rows in memory, or a folder; `whole` and `options` are those of `load`, and options
    override the folder's riyaz.toml. Test rows are read as the training rows are. Raises RiyazError."""
    path = path if isinstance(path, Table) else Path(path)
    if isinstance(path, Path) and path.is_dir() and not is_table(path):
        return load_folder(path, test=test, whole=whole, **options)
    train = load(path, whole=whole, **options)
    return DataFolder(train, load(test, **options, like=train.reading) if test else None)


def load_folder(
    folder: str | Path, *, test: str | Path | Table | None = None, whole: bool = True, **options: Any
) -> DataFolder:
    """Read `train.*`, optional `test.*` and `riyaz.toml` of a folder; arguments override the settings."""
    folder = Path(folder)
    settings_path = folder / "riyaz.toml"
    settings = config.read_toml(settings_path) if settings_path.exists() else {}
    named = None if isinstance(test, Table) else test
    switches = {name: options.get(name) or None for name in ("skip_incomplete", "merge_labels")}
    flags = {"test": named, **options, **switches}
    data_config, compare_config = config.resolve(settings, flags)
    splits = saved_splits(folder)
    tables = sorted(folder / name for name in splits) or sorted(entry for entry in folder.iterdir() if is_table(entry))
    paths = {part: folder / part if part in splits else _one_part(folder, part) for part in ("train", "test")}
    train_path = paths["train"]
    if train_path is None:
        names = listed([entry.name for entry in tables])
        what = f"no split 'train' in {SPLITS}" if splits else "no train.jsonl, train.csv, … in this folder"
        hint = f"name one of its files ({names})" if tables else "put train.jsonl there"
        raise RiyazError(what, str(folder), hint)
    test_source = test if isinstance(test, Table) else compare_config.test or paths["test"]
    train = load(train_path, whole=whole, **data_config.reading())
    used = {
        path.resolve() for part in (train_path, test_source) if isinstance(part, Path) for path in matching_files(part)
    } | {path.resolve() for path in (data_config.schema, data_config.questions) if isinstance(path, Path)}
    return DataFolder(
        train=train,
        test=load(test_source, **data_config.reading(), like=train.reading) if test_source else None,
        settings=settings,
        unused=tuple(entry.name for entry in tables if entry.resolve() not in used),
    )


def _one_part(folder: Path, stem: str) -> Path | None:
    """The file `stem.*` of a folder, or the pattern of its shards; None if neither exists. RiyazError for several."""
    paths = part_files(folder, stem)
    if len(paths) > 1:
        names = " and ".join(path.name for path in paths)
        raise RiyazError(f"{names} are both in this folder", str(folder), "keep one of them")
    return paths[0] if paths else None
