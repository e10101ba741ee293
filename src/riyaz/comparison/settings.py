"""settings.json of a comparison: all that it is asked for, so that its folder is continued by the same command only."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from riyaz.comparison.from_artifact import start_file
from riyaz.config import CompareConfig, DataConfig
from riyaz.data import Reading
from riyaz.data.checks import databases_hash
from riyaz.data.formats import DataFolder
from riyaz.data.task import Task
from riyaz.engine.opening import lookup_mode
from riyaz.methods.fitting.start import Start
from riyaz.sources import Source


def settings_of(
    data_files: DataFolder,
    task: Task,
    bases: Mapping[str, Source],
    data_config: DataConfig,
    config: CompareConfig,
    methods: tuple,
    instructions: tuple[str, ...] | None,
    start: Start | None = None,
) -> dict[str, Any]:
    """The contents of settings.json: model, data, task, settings and the artifact that training goes on from, without
    the folder they are written to. Whether answers are looked up is settled here, for places too, whose environment is
    another. Raises RiyazError for a RIYAZ_LOOKUP that names no way."""
    config = replace(config, lookup=config.lookup or lookup_mode())
    settings = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in asdict(config).items()
        if key
        not in (
            "out",
            "test",
            "methods",
            "model",
            "documents",
            "threads",
            "more",
            "limits",
            "teacher",
            "teacher_model",
            "places",
            "ray",
            "allow_answer_in_prompt",
        )
        and (key, value) != ("seeds", None)
    } | {"instructions": instructions and list(instructions)}
    models = [
        {"name": name, "path": str(Path(source.path).absolute()), "sha256": source.sha256()}
        for name, source in bases.items()
    ]
    own: dict[str, Any] = {"models": models} if len(models) > 1 else {}
    own |= {"artifact": asdict(start_file(start))} if start else {}
    return own | {
        "model": models[0],
        "data": {"train": data_files.train.sha256, "test": data_files.test.sha256 if data_files.test else None}
        | _databases(data_files),
        "task": asdict(task) | {"labels": list(task.labels)},
        "reading": _reading(data_config, data_files.train.reading),
        "settings": settings,
        "methods": list(methods),
    }


def _databases(data_files: DataFolder) -> dict[str, str]:
    """The hash of the contents of the databases on which queries run, if there are any: their rows decide scores."""
    files = (data_files.train, *((data_files.test,) if data_files.test else ()))
    digest = databases_hash(row.check for file in files for row in file.examples)
    return {"databases": digest} if digest else {}


def _reading(config: DataConfig, columns: Reading | None) -> dict[str, Any]:
    """How the rows were read. The questions stand in the columns, the schema in the task: the file that holds them may
    change. Of databases the contents count."""
    return asdict(replace(config, questions=None, database=None, schema=None)) | {
        "columns": columns and asdict(columns)
    }
