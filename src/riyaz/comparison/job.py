"""The inputs of a comparison, read and checked before anything is measured: models, rows, task and methods."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from riyaz.comparison import documents, teach
from riyaz.comparison.bases import arm_names, open_bases
from riyaz.comparison.by_hand import by_hand_notes, own_instructions
from riyaz.comparison.chosen_methods import chosen_methods, fitting_task, last_turn_note, require_packages
from riyaz.comparison.dividing import divider
from riyaz.comparison.folder import ComparisonFolder
from riyaz.comparison.from_artifact import expect_fitting, going_on_with
from riyaz.comparison.general_texts import checked_texts
from riyaz.comparison.settings import settings_of
from riyaz.comparison.shorter_test import Divide
from riyaz.config import CompareConfig, DataConfig
from riyaz.data import Example
from riyaz.data.formats import DataFolder, open_data
from riyaz.data.judging import expect_judged
from riyaz.data.split import Split
from riyaz.data.tables import Table
from riyaz.data.task import Task, detect
from riyaz.data.turns import last_note
from riyaz.engine.opening import engine_note, expect_memory
from riyaz.events import Listen, Note
from riyaz.methods import METHODS
from riyaz.methods.fitting.start import Start
from riyaz.metrics.executed import expect_ready
from riyaz.quality.schema_rows import own_schema_notes, schema_notes
from riyaz.ranks import ALONE, Ranks
from riyaz.sources import Source


@dataclass(frozen=True)
class Job:
    """The inputs of a comparison, read and checked; nothing is measured yet."""

    methods: tuple[str, ...]
    bases: dict[str, Source]  # the models by name
    files: DataFolder
    task: Task
    divide: Divide
    parts: Split  # the rows, if the budget is enough to test all of them
    settings: dict[str, Any]  # settings.json
    unlabelled: tuple[Example, ...] = ()  # rows that a teacher alone answers
    needed: str = ""  # the method without which nothing is run
    ranks: Ranks = ALONE  # the processes that fit it together

    @property
    def source(self) -> Source:
        """The only model, or the first."""
        return next(iter(self.bases.values()))

    @property
    def measured(self) -> list[str | None]:
        """The bases as the folder keeps what is measured of them: the only one has no name there."""
        return [None] if len(self.bases) == 1 else [*self.bases]

    @property
    def arms(self) -> list[str]:
        """The names of the arms, in the order of the table."""
        return arm_names(self.methods, list(self.bases))


def open_job(
    data: Path | Table, data_config: DataConfig, config: CompareConfig, test: Table | None, listen: Listen,
    start: Start | None = None,
) -> Job:  # fmt: skip
    """Open the models and the data, divide the rows and check that all can be used. Raises RiyazError."""
    methods = chosen_methods(config)
    require_packages(methods, named=bool(config.methods))
    bases = open_bases(config.model)
    if note := engine_note():
        listen(Note(note))
    for source in bases.values():
        expect_memory(source, config.precision)
        if any(METHODS[name].recipe for name in methods):
            expect_memory(source, engine="torch")  # which trains
    texts = checked_texts(config, list(bases.values()))
    assert config.out is not None
    whole = not ComparisonFolder(config.out).reads_last_turns()
    data_files = open_data(data, test=test or config.test, whole=whole, **data_config.reading())
    toml = str(data / "riyaz.toml") if isinstance(data, Path) else ""
    notes = by_hand_notes(config, methods, data_files.settings, toml)
    instructions, unused = own_instructions(config.instructions, methods, data_files.settings, toml)
    used = config.documents if any(METHODS[name].needs_documents for name in methods) else None
    if used is not None:
        train = documents.with_own_documents(data_files.train, used, data_config)
        data_files = replace(data_files, train=train)
    if start is None:
        task = detect(data_files.train, data_config.instruction, data_config.metric, data_config.task,
                      data_config.schema, data_config.max_words, data_config.max_new_tokens)  # fmt: skip
    else:
        config = expect_fitting(start, methods, next(iter(bases.values())), config)
        task, data_files, more = going_on_with(start, data_files, data_config, config.allow_leakage)
        notes += more
    tested = data_files.test or data_files.train
    expect_judged(task.metric, tested)
    expect_ready(task.metric, (*data_files.train.examples, *tested.examples), data_config.unsafe_code)
    notes += schema_notes(task.schema, data_files.train.examples)
    own_rows = (*data_files.train.examples, *(data_files.test.examples if data_files.test else ()))
    notes += own_schema_notes(task, own_rows)
    methods = fitting_task(methods, task, config, listen)
    divide = divider(data_files, task, bases, config, methods, used, start.learned if start else ())
    parts, report = divide(True, config.limit_test)
    begun = [] if whole else filter(None, [last_note(data_files.train.examples)])
    for note in [*report.notes, *notes, *unused, *begun, *last_turn_note(methods, data_files.train.examples)]:
        listen(Note(note))
    settings = settings_of(data_files, task, bases, data_config, config, methods, instructions, start)
    settings["settings"] |= texts
    if used is not None:
        settings["documents"] = documents.identity(used, listen)
    if not any(METHODS[name].needs_teacher for name in methods):
        return Job(methods, bases, data_files, task, divide, parts, settings)
    settings["teacher"] = teach.identity(config, list(bases.values()))
    unanswered = teach.unlabelled_rows(config.unlabelled, data_files.train.reading, parts, task, list(bases.values()))
    settings["data"] |= {"unlabelled": unanswered.sha256} if unanswered.sha256 else {}
    for note in unanswered.notes:
        listen(Note(note))
    return Job(methods, bases, data_files, task, divide, parts, settings, unanswered.rows)
