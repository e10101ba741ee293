"""Flags that come from the configuration dataclasses: their names, types, defaults and help have one home.

A flag class knows which fields were written on the command line, because cyclopts builds it from those alone;
so a flag wins over the folder's riyaz.toml even where it repeats the default.
"""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Self

from cyclopts import Group, Parameter

from riyaz.config import CONFIGS, CompareConfig, DataConfig, PretrainConfig

ABSENT = Parameter(parse=False)  # a field that is no flag of this verb
READING = Group("Reading the rows", sort_key=2)  # after the arguments and the options

Json = Annotated[bool, Parameter(name="--json", help="print one JSON document as the last line of stdout")]
Data = Annotated[
    Path,
    Parameter(
        help="a file of rows (.jsonl, .json, .csv, .tsv, .gz, .parquet), a pattern, or a folder with train.* in it"
    ),
]
Target = Annotated[str, Parameter(help="a model (name, folder or GGUF file), an artifact's folder or a comparison's")]


class Given:
    """Remembers in `given` the fields that were written on the command line."""

    given: dict[str, Any]

    def __new__(cls, **given: Any) -> Self:
        """A flag object that carries its arguments."""
        made = super().__new__(cls)
        object.__setattr__(made, "given", given)
        return made


class DataFlags(Given, DataConfig):
    """How rows are read."""


class CompareFlags(Given, CompareConfig):
    """What is compared and what the pick respects."""


class AdaptFlags(Given, CompareConfig):
    """The same without what only a choice between arms needs."""

    methods: Annotated[tuple[str, ...], ABSENT]
    margin: Annotated[float, ABSENT]
    max_ms: Annotated[float | None, ABSENT]
    max_rss_mb: Annotated[float | None, ABSENT]
    max_forgetting: Annotated[float | None, ABSENT]
    data_curve: Annotated[bool, ABSENT]
    out: Annotated[Path | None, Parameter(required=True)]


Reading = Annotated[DataFlags, Parameter(name="*", group=READING)]
Comparing = Annotated[CompareFlags, Parameter(name="*")]
Adapting = Annotated[AdaptFlags, Parameter(name="*")]
Pretraining = Annotated[PretrainConfig, Parameter(name="*")]

READING_DEFAULTS, COMPARING_DEFAULTS, ADAPTING_DEFAULTS = DataFlags(), CompareFlags(), AdaptFlags()
PRETRAINING_DEFAULTS = PretrainConfig()


def configured(name: str) -> Parameter:
    """The flag of one configuration field, for verbs that take only some; None when not given."""
    option = next(option for config in CONFIGS for option in fields(config) if option.name == name)
    return Parameter(help=option.metadata["help"], show_default=lambda _: str(option.default))


def settle(data: Path, *flags: Given, given: Mapping[str, object] | None = None) -> tuple[DataConfig, CompareConfig]:
    """Defaults, then the riyaz.toml of a data folder, then the flags that were given (None: not given)."""
    from riyaz.library import options

    written = {name: value for flag in flags for name, value in flag.given.items()}
    return options.settle(data, {**(given or {}), **written})


def command_line() -> str:
    """The command that is running, as a shell would read it again; results name it."""
    return shlex.join(["riyaz", *sys.argv[1:]])
