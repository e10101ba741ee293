"""settings.json of a comparison: all that it is asked for, so that its folder is continued by the same command only."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from riyaz.config import CompareConfig, DataConfig
from riyaz.data import Reading
from riyaz.data.formats import DataFolder
from riyaz.data.task import Task
from riyaz.sources import Source


def settings_of(
    data_files: DataFolder,
    task: Task,
    source: Source,
    data_config: DataConfig,
    config: CompareConfig,
    methods: tuple,
) -> dict[str, Any]:
    """The contents of settings.json: model, data, task and settings, without the folder they are written to."""
    settings = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in asdict(config).items()
        if key not in ("out", "test", "methods", "model", "documents", "threads", "more", "limits")
    }
    return {
        "model": {"name": source.name, "path": str(Path(source.path).absolute()), "sha256": source.sha256()},
        "data": {"train": data_files.train.sha256, "test": data_files.test.sha256 if data_files.test else None},
        "task": asdict(task) | {"labels": list(task.labels)},
        "reading": _reading(data_config, data_files.train.reading),
        "settings": settings,
        "methods": list(methods),
    }


def _reading(config: DataConfig, columns: Reading | None) -> dict[str, Any]:
    """How the rows were read. The questions stand in the columns: the file that holds them may change."""
    return asdict(replace(config, questions=None)) | {"columns": columns and asdict(columns)}
