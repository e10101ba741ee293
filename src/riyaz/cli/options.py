"""Command-line flags made from the configuration dataclasses, which hold their names, types, defaults and help.

cyclopts builds a flag class from the flags that were given, so the class knows them: a given flag takes precedence over
the folder's riyaz.toml even when it repeats the default.
"""

import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any, Self

from cyclopts import Group, Parameter, validators

from riyaz import hardware
from riyaz.cli.model_names import LANGUAGE_MODEL, names_of_language_models
from riyaz.config import CONFIGS, AdaptConfig, CompareConfig, DataConfig, Kv, Lookup, Precision, PretrainConfig, Seconds

ABSENT = Parameter(parse=False)  # marks a field that is not a flag of this verb
READING = Group("Reading the rows", sort_key=3)  # listed after the arguments and the options
BY_HAND = Parameter(group=Group("Training by hand", sort_key=2))

Json = Annotated[bool, Parameter(name="--json", help="print one JSON document as the last line of stdout")]
Quiet = Annotated[bool, Parameter(name="--quiet", help="print only the result and errors, no progress or notes")]
Data = Annotated[
    Path,
    Parameter(
        help="a file of rows (.jsonl, .json, .csv, .tsv, each also .gz, .xlsx, .parquet), a quoted pattern, or a "
        "folder with train.*"
    ),
]
Target = Annotated[
    str,
    Parameter(
        help="a model (name, folder or GGUF file), an artifact, a comparison, or an arm of it: COMPARISON/METHOD"
    ),
    LANGUAGE_MODEL,
]


def _field(name: str) -> Field[Any]:
    return next(option for config in CONFIGS for option in fields(config) if option.name == name)


def help_of(name: str) -> str:
    """The help of the configuration field of this name."""
    return _field(name).metadata["help"]


class ExplicitFlags:
    """Keeps the flags of the command line in `explicit`: field name to value."""

    explicit: dict[str, Any]

    def __new__(cls, **explicit: Any) -> Self:
        """The flag object with its keyword arguments in `explicit`."""
        made = super().__new__(cls)
        object.__setattr__(made, "explicit", explicit)
        return made


class DataFlags(ExplicitFlags, DataConfig):
    """The flags for reading rows."""


class ByHandFlags:
    """The flags of training by hand, listed apart, and the model with its default as one writes it."""

    model: Annotated[tuple[str, ...], LANGUAGE_MODEL, Parameter(show_default=", ".join)]
    teacher: Annotated[str | None, LANGUAGE_MODEL]
    rank: Annotated[int | None, BY_HAND]
    alpha: Annotated[int | None, BY_HAND]
    beta: Annotated[float | None, BY_HAND]
    length_normalised: Annotated[bool, BY_HAND]
    epochs: Annotated[int | None, BY_HAND]
    steps: Annotated[int | None, BY_HAND]
    learning_rate: Annotated[str | None, BY_HAND, Parameter(metavar="RATE")]
    batch_size: Annotated[int | None, BY_HAND]


class CompareFlags(ExplicitFlags, ByHandFlags, CompareConfig):
    """The flags of a comparison."""

    model: Annotated[
        tuple[str, ...],
        Parameter(help=f"{help_of('model')}; with several, separated by commas, every method runs on each"),
        LANGUAGE_MODEL,
        Parameter(show_default=", ".join),
    ]


class AdaptFlags(ExplicitFlags, ByHandFlags, CompareConfig):
    """The flags of a comparison without those that only the pick needs; --out is required."""

    methods: Annotated[tuple[str, ...], ABSENT]
    more: Annotated[Seconds | None, ABSENT]
    margin: Annotated[float, ABSENT]
    max_ms: Annotated[float | None, ABSENT]
    max_rss_mb: Annotated[float | None, ABSENT]
    max_forgetting: Annotated[float | None, ABSENT]
    data_curve: Annotated[bool, ABSENT]
    seeds: Annotated[int | None, ABSENT]
    places: Annotated[tuple[str, ...], ABSENT]
    ray: Annotated[str | None, ABSENT]
    limits: Annotated[bool, ABSENT]
    out: Annotated[Path | None, Parameter(required=True)]


class DistilFlags(AdaptFlags):
    """The flags of one method whose model and teacher are the command's own."""

    model: Annotated[tuple[str, ...], ABSENT]
    teacher: Annotated[str | None, ABSENT]
    documents: Annotated[Path | None, ABSENT]
    instructions: Annotated[Path | None, ABSENT]


Reading = Annotated[DataFlags, Parameter(name="*", group=READING)]
Comparing = Annotated[CompareFlags, Parameter(name="*")]
Adapting = Annotated[AdaptFlags, Parameter(name="*")]
Distilling = Annotated[DistilFlags, Parameter(name="*")]
Continuing = Annotated[AdaptConfig, Parameter(name="*")]
Pretraining = Annotated[PretrainConfig, Parameter(name="*")]

READING_DEFAULTS, COMPARING_DEFAULTS, ADAPTING_DEFAULTS = DataFlags(), CompareFlags(), AdaptFlags()
DISTILLING_DEFAULTS, CONTINUING_DEFAULTS, PRETRAINING_DEFAULTS = DistilFlags(), AdaptConfig(), PretrainConfig()


def configured(name: str, more: str = "") -> Parameter:
    """The flag of one configuration field, for verbs that take only some; None when not given. `more` is added to its
    help."""
    option = _field(name)
    default = ", ".join(option.default) if isinstance(option.default, tuple) else str(option.default)
    completer = names_of_language_models if name == "model" else None
    return Parameter(help=help_of(name) + more, show_default=lambda _: default, completer=completer)


Schema = Annotated[Path | None, configured("schema")]
MaxNewTokens = Annotated[int | None, configured("max_new_tokens"), Parameter(validator=validators.Number(gte=1))]
LookedUp = Annotated[Lookup | None, configured("lookup")]
Served = Annotated[Precision, configured("precision")]
Held = Annotated[
    Kv,
    Parameter(
        help="how the keys and values of attention are held; int8: half the memory; auto: bf16, and fp32 where "
        "--precision is"
    ),
]


def resolve_options(
    data: Path, *flags: ExplicitFlags, others: Mapping[str, object] | None = None, start: Path | None = None
) -> tuple[DataConfig, CompareConfig]:
    """Defaults, then the riyaz.toml of a data folder, then the flags that were given (None: not given). The model is by
    default that of the artifact `start`."""
    from riyaz.library import options

    written = {name: value for flag in flags for name, value in flag.explicit.items()}
    return options.resolve_options(data, {**(others or {}), **written}, start)


def command_began() -> float:
    """`time.monotonic()` when the command began: with its process, or now if the process is a caller's own."""
    own = Path(sys.argv[0]).stem in ("riyaz", "main")
    return time.monotonic() - (hardware.process_seconds() if own else 0.0)


def command_line() -> str:
    """The command that is running, as a shell would read it again; results name it."""
    return shlex.join(["riyaz", *sys.argv[1:]])
