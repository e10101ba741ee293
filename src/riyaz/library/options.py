"""The options of the library's functions: those of the commands, under the names of their configuration's fields.

The dictionaries below type the keyword arguments; values, ranges and defaults have their home in `config`.
"""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Literal, TypedDict

from riyaz.config import (
    CompareConfig,
    DataConfig,
    FreshFamily,
    Lookup,
    Metric,
    Precision,
    TaskKind,
    Turns,
    read_toml,
    resolve,
)
from riyaz.data.tables import Table
from riyaz.errors import RiyazError

Place = str | PathLike[str]


class ReadingOptions(TypedDict, total=False):
    """How rows become examples: the fields of `config.DataConfig`."""

    prompt_column: str | None
    answer_column: str | None
    encoding: str | None
    skip_incomplete: bool | None
    merge_labels: bool | None
    group_column: str | None
    questions: Place | Sequence[Mapping[str, object]] | None
    turns: Turns | None
    schema: Place | None
    database: Place | None
    instruction: str | None
    task: TaskKind | None
    metric: Metric | None
    max_new_tokens: int | None
    max_words: int | None
    unsafe_code: bool | None


class MethodOptions(ReadingOptions, total=False):
    """What every method is given: the fields of `config.CompareConfig` that no choice between methods needs."""

    model: Place | Sequence[Place] | None
    documents: Place | None
    budget: str | float | None
    threads: int | None
    precision: Precision | None
    lookup: Lookup | None
    limit_train: int | None
    limit_test: int | None
    general: Place | None
    allow_leakage: bool | None
    allow_answer_in_prompt: bool | None
    replay: float | None
    replay_from: Place | None
    seed: int | None
    rank: int | None
    alpha: int | None
    beta: float | None
    length_normalised: bool | None
    epochs: int | None
    steps: int | None
    learning_rate: float | str | Mapping[str, float] | None
    batch_size: int | None
    instructions: Place | None
    teacher: str | None
    teacher_model: str | None
    unlabelled: Place | None


class AdaptOptions(MethodOptions, total=False):
    """What one method is given, and what it goes on from: the fields of `config.AdaptConfig` too."""

    from_: Place | None
    earlier_test: Place | None


class CompareOptions(MethodOptions, total=False):
    """What is compared, for how long, and what the pick must respect: the fields of `config.CompareConfig`."""

    methods: str | Sequence[str] | None
    more: str | float | None
    margin: float | None
    max_ms: float | None
    max_rss_mb: float | None
    max_forgetting: float | None
    data_curve: bool | None
    seeds: int | None
    places: str | Sequence[str] | None
    ray: str | None
    limits: bool | None
    out: Place | None


class PretrainOptions(TypedDict, total=False):
    """What model is trained from random weights, and how long: the fields of `config.PretrainConfig`."""

    tokenizer: Place | None
    size: Literal["1m", "5m", "15m", "50m"] | None
    budget: str | float | None
    family: FreshFamily | None
    ternary: bool | None
    context: int | None
    layers: int | None
    heads: int | None
    width: int | None
    batch: int | None
    steps: int | None
    lr: float | None
    dropout: float | None
    compute: Literal["bfloat16", "float32"] | None
    validate_every: int | None
    checkpoint_every: int | None
    local_steps: int | None
    seed: int | None
    threads: int | None
    prompt: str | None


class LimitsOptions(TypedDict, total=False):
    """What is measured of a model's limits, and on what: the fields of `config.LimitsConfig`."""

    suite: str | Sequence[str] | None
    pairs: Place | Sequence[Place] | None
    questions: Place | Sequence[Place] | None
    rows: Place | None
    documents: Place | None
    budget: str | float | None
    precision: Precision | None
    price_per_hour: float | None
    price_per_million: float | None
    carbon: float | None


def checked_options(function: str, names: Mapping[str, object], allowed: type, *others: str) -> dict[str, object]:
    """The options that were given a value. RiyazError for one that the function has not, with the nearest that it has;
    `others` are its arguments beside the options of `allowed`."""
    known = [*allowed.__annotations__, *others]
    for name in names:
        if name not in allowed.__annotations__:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else "options: " + ", ".join(known)
            raise RiyazError(f"{function} has no option {name!r}", hint=hint)
    as_text = ("model", "tokenizer")  # names or paths
    return {name: _as_text(value) if name in as_text else value for name, value in names.items() if value is not None}


def _as_text(value: object) -> object:
    """A name or path as text, or a list of them; what is none of these unchanged."""
    if isinstance(value, PathLike):
        return os.fspath(value)
    return [_as_text(each) for each in value] if isinstance(value, (list, tuple)) else value


def resolve_options(
    data: Path | Table, options: Mapping[str, object], start: Path | None = None
) -> tuple[DataConfig, CompareConfig]:
    """Defaults, then the riyaz.toml of a data folder, then the options that were given. With an artifact `start` the
    default model is its base. Raises RiyazError."""
    toml = data / "riyaz.toml" if isinstance(data, Path) else None
    settings = read_toml(toml) if toml is not None and toml.is_file() else {}
    if start is not None and settings.get("model") is None and options.get("model") is None:
        from riyaz.comparison.from_artifact import read_start  # which loads numpy

        settings["model"] = (read_start(start).base_name,)
    return resolve(settings, options)


def results_folder(config: CompareConfig, data: Path | Table) -> Path:
    """Where results go: `out`, or a folder named after the data, so that the same call finds it again."""
    if config.out is not None:
        return config.out
    if isinstance(data, Table):
        return Path("riyaz-results") / f"{data.path.name}-{data.sha256[:8]}"
    name = data.resolve().name if data.is_dir() else data.name.removesuffix(".gz").rpartition(".")[0] or data.name
    folder = Path("riyaz-results") / re.sub(r"[*?\[\]]+", "_", name)
    for path in (folder.parent, folder):
        if path.is_symlink():  # it may have come with a stranger's repository, and nobody has named it
            raise RiyazError("is a link", str(path), "name the folder itself with --out")
    return folder


def as_path(value: Place, name: str) -> Path:
    """The argument `name` as a Path. RiyazError for what is no path, such as a list of them."""
    if not isinstance(value, (str, PathLike)):
        raise RiyazError(f"{value!r} is not a path", name, "give a path")
    return Path(value)


def called(function: str, *arguments: object, **options: object) -> str:
    """The call as one would write it; results name it as the command that made them."""
    shown = [_written(value) for value in arguments]
    shown += [f"{name}={_written(value)}" for name, value in options.items() if value is not None]
    return f"riyaz.{function}({', '.join(shown)})"


def _written(value: object) -> str:
    if isinstance(value, PathLike):
        return repr(os.fspath(value))
    if isinstance(value, Mapping):
        return repr(dict(value))
    plain = isinstance(value, (str, int, float)) or (
        isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value)
    )
    return repr(value) if plain else type(value).__name__
