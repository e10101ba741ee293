"""Every option a user can set: its type, default, range and help text.

`DataConfig` holds the options for reading rows, `CompareConfig` those of a comparison, `PretrainConfig` those of
pretraining, `SamplingConfig` how an answer is drawn. The command line's flags are generated from their fields, and so
are the keys of the optional `riyaz.toml` next to the rows. `resolve(read_toml(path), flags)` combines them: a flag wins
over the file, the file over the default. Unknown keys and invalid values raise RiyazError naming file and key.

A field's metadata holds `help` and, for numbers, the range: `minimum` and `maximum` (inclusive), `above` and `below`
(exclusive). Choices are a Literal.
"""

import dataclasses
import difflib
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from riyaz.errors import RiyazError, brief, listed

MAX_TOML = 2**20  # bytes of a riyaz.toml
MAX_DOTS = 500  # in a line before its "=": the time that tomllib needs for a key grows with the square of its parts
THREADS: dict[str, str | int] = {  # torch crashes with millions
    "help": "threads to compute with; OMP_NUM_THREADS or all cores if not given",
    "minimum": 1,
    "maximum": 1024,
}
TaskKind = Literal["closed", "short", "free"]
Metric = Literal["accuracy", "exact_match", "token_f1", "rouge_l", "chrf"]
METRICS: tuple[str, ...] = typing.get_args(Metric)
MIN_ROWS = 20  # fewer rows are too few for a split


class Seconds(float):
    """A duration in seconds, written with units ("90s", "20m", "1h30m") or given as a number of seconds."""

    def __new__(cls, value: str | float) -> "Seconds":
        """From text such as "20m", or a number of seconds. Raises RiyazError for text that is not a duration."""
        return super().__new__(cls, parse_budget(value) if isinstance(value, str) else value)

    def __str__(self) -> str:
        """The shortest text that parses to this duration, such as "1h30m"; where none does, the number."""
        if not 0 <= self < math.inf:
            return f"{float(self):g}"
        hours, rest = divmod(float(self), 3600)
        minutes, seconds = divmod(rest, 60)
        parts = ((hours, "h"), (minutes, "m"), (seconds, "s"))
        return "".join(f"{number:g}{unit}" for number, unit in parts if number) or "0s"


def parse_budget(text: str, where: str = "") -> float:
    """The seconds of a duration such as "90s", "20m" or "1h30m". Raises RiyazError when the text is not one."""
    number = r"(\d+(?:\.\d+)?)"
    match = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s)?", re.sub(r"\s+", "", text.lower()))
    hint = "write it with its unit, such as 90s, 20m or 1h30m"
    if match is None or not any(match.groups()):
        raise RiyazError(f"{brief(text)} is not a duration", where, hint)
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    total = 3600 * hours + 60 * minutes + seconds
    if not 0 < total < math.inf:
        raise RiyazError(f"{brief(text)} is {'too long' if total else 'zero'}", where, hint)
    return total


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Options for reading rows as examples. None: detected from the file and reported."""

    prompt_column: str | None = field(default=None, metadata={"help": "column that holds the prompt"})
    answer_column: str | None = field(default=None, metadata={"help": "column that holds the answer"})
    encoding: str | None = field(
        default=None, metadata={"help": "encoding of files of rows that are not UTF-8, such as latin-1"}
    )
    skip_incomplete: bool = field(
        default=False, metadata={"help": "leave out rows without a prompt or an answer, and say how many"}
    )
    instruction: str | None = field(default=None, metadata={"help": "instruction given to the model with every row"})
    task: TaskKind | None = field(
        default=None,
        metadata={"help": "kind of the answers: a closed set of labels, short answers or free text"},
    )
    metric: Metric | None = field(default=None, metadata={"help": "score by which methods are compared"})

    def __post_init__(self) -> None:
        """Checks every value. Raises RiyazError naming the flag."""
        _check_fields(self)

    def reading(self) -> dict[str, Any]:
        """The options by which a file of rows is read, as arguments of `formats.load`."""
        return {name: getattr(self, name) for name in ("prompt_column", "answer_column", "encoding", "skip_incomplete")}


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Options of a comparison: model, data, methods, budget, and limits on the pick."""

    model: str = field(
        default="smollm2-135m",
        metadata={"help": "base model: a name `riyaz models` lists, a folder or a GGUF file"},
    )
    test: Path | None = field(default=None, metadata={"help": "test rows; if not given, a part of DATA is held out"})
    documents: Path | None = field(
        default=None,
        metadata={
            "help": "documents to retrieve from: a folder of .txt, .md, .html, .pdf and .docx files, or a file of rows"
        },
    )
    methods: tuple[str, ...] = field(
        default=(), metadata={"help": "methods to run, separated by commas; all if not given"}
    )
    budget: Seconds = field(
        default=Seconds("20m"),
        metadata={"help": "wall time of the whole command, such as 90s, 20m or 1h30m", "minimum": 1},
    )
    more: Seconds | None = field(
        default=None,
        metadata={
            "help": "wall time to add to a finished comparison in --out: arms that were cut short or skipped go on",
            "minimum": 1,
        },
    )
    threads: int | None = field(default=None, metadata=THREADS)
    margin: float = field(
        default=0.02,
        metadata={
            "help": "largest difference to the best score at which a cheaper method is picked",
            "minimum": 0,
            "maximum": 1,
        },
    )
    max_ms: float | None = field(
        default=None, metadata={"help": "longest time per answer that the pick may need, in milliseconds", "minimum": 0}
    )
    max_rss_mb: float | None = field(
        default=None, metadata={"help": "most memory that the pick may need, in megabytes", "minimum": 0}
    )
    max_forgetting: float | None = field(
        default=None,
        metadata={"help": "largest increase of the loss on general text that the pick may have, in nats per token"},
    )
    limit_train: int | None = field(
        default=None,
        metadata={"help": "use at most this many training rows, validation rows included", "minimum": MIN_ROWS},
    )
    limit_test: int | None = field(default=None, metadata={"help": "use at most this many test rows", "minimum": 1})
    general: Path | None = field(
        default=None,
        metadata={"help": "general text to measure forgetting on; Python's help topics if not given"},
    )
    allow_leakage: bool = field(
        default=False,
        metadata={
            "help": "continue when over 5 % of the test rows are also training rows (those are dropped from training)"
        },
    )
    replay: float = field(
        default=0.0,
        metadata={
            "help": "share of rows of general text (docstrings of Python's standard library, never the text that "
            "forgetting is measured on) among the training rows, to reduce forgetting",
            "minimum": 0,
            "maximum": 0.5,
        },
    )
    data_curve: bool = field(
        default=False,
        metadata={"help": "also train lora on a quarter and on half of the rows, to show whether more rows would help"},
    )
    seed: int = field(
        default=0, metadata={"help": "seed of the split and of training", "minimum": 0, "maximum": 2**31 - 1}
    )
    out: Path | None = field(default=None, metadata={"help": "folder for the results"})
    rank: int | None = field(
        default=None, metadata={"help": "rank of LoRA's matrices; 16 if not given", "minimum": 1, "maximum": 1024}
    )
    alpha: int | None = field(
        default=None,
        metadata={
            "help": "LoRA adds its product times alpha / rank; twice the rank if not given",
            "minimum": 1,
            "maximum": 4096,
        },
    )
    epochs: int | None = field(
        default=None,
        metadata={"help": "passes over the training rows of every trained method", "minimum": 1, "maximum": 1000},
    )
    steps: int | None = field(
        default=None,
        metadata={
            "help": "training steps of every trained method, in place of --epochs",
            "minimum": 1,
            "maximum": 10**6,
        },
    )
    learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "highest learning rate of every trained method; none is searched then",
            "above": 0,
            "below": 1,
        },
    )
    batch_size: int | None = field(
        default=None, metadata={"help": "training rows per step of every trained method", "minimum": 1, "maximum": 4096}
    )

    def __post_init__(self) -> None:
        """Checks every value; parses durations and comma-separated lists. Raises RiyazError naming the flag."""
        _check_fields(self)
        if self.epochs is not None and self.steps is not None:
            raise RiyazError("both say how long to train", "--epochs and --steps", "give one of them")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Options of pretraining from random weights. None: derived from text, budget and machine."""

    tokenizer: str | None = field(
        default=None,
        metadata={"help": "folder of a tokenizer, or bytes or chars; a BPE tokenizer trained on the text if not given"},
    )
    size: Literal["1m", "5m", "15m", "50m"] | None = field(
        default=None, metadata={"help": "approximate number of parameters; chosen by the budget if not given"}
    )
    budget: Seconds | None = field(
        default=None,
        metadata={
            "help": "wall time of the whole command, such as 90s or 1h; default 15m unless --size or --steps is given"
        },
    )
    family: Literal["llama", "gpt2"] | None = field(
        default=None, metadata={"help": "architecture of the model; llama if not given"}
    )
    context: int | None = field(
        default=None,
        metadata={"help": "context length: longest sequence the model reads, in tokens", "minimum": 1},
    )
    layers: int | None = field(default=None, metadata={"help": "number of layers", "minimum": 1})
    heads: int | None = field(default=None, metadata={"help": "attention heads per layer", "minimum": 1})
    width: int | None = field(
        default=None, metadata={"help": "hidden size: length of the vector of each token in the model", "minimum": 1}
    )
    batch: int | None = field(
        default=None, metadata={"help": "batch size: sequences of --context tokens per training step", "minimum": 1}
    )
    steps: int | None = field(default=None, metadata={"help": "number of training steps", "minimum": 1})
    lr: float | None = field(default=None, metadata={"help": "highest learning rate", "above": 0, "maximum": 1})
    dropout: float | None = field(
        default=None,
        metadata={"help": "share of activations set to zero during training", "minimum": 0, "below": 1},
    )
    compute: Literal["bfloat16", "float32"] | None = field(
        default=None, metadata={"help": "number format of the matrix products; the faster one if not given"}
    )
    validate_every: int | None = field(
        default=None, metadata={"help": "training steps between two validations, each with sample texts", "minimum": 1}
    )
    checkpoint_every: int | None = field(
        default=None,
        metadata={"help": "training steps between two checkpoints; --resume continues from the last one", "minimum": 1},
    )
    seed: int | None = field(
        default=None,
        metadata={
            "help": "seed of the initial weights and of the order of the rows; 0 if not given",
            "minimum": 0,
            "maximum": 2**31 - 1,
        },
    )
    threads: int | None = field(default=None, metadata=THREADS)
    prompt: str | None = field(
        default=None,
        metadata={
            "help": "text to watch at every validation: its likeliest next words, and what the model writes after it; "
            "The quick brown fox if not given"
        },
    )

    def __post_init__(self) -> None:
        """Checks every value. Raises RiyazError naming the flag."""
        _check_fields(self)
        if self.prompt is not None and not self.prompt.strip():
            raise RiyazError("is empty", "--prompt", "give the beginning of a sentence")

    def given(self) -> dict[str, Any]:
        """The options that were given: those that are not None."""
        return _given(self)


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the tokens of an answer are chosen. None: as the model's own settings say, else the likeliest one."""

    temperature: float | None = field(
        default=None,
        metadata={
            "help": "0 takes the likeliest token each time, 1 draws by the probabilities, more is livelier; as the "
            "model's generation_config.json says if not given, else 0",
            "minimum": 0,
        },
    )
    top_k: int | None = field(
        default=None, metadata={"help": "draw from so many of the likeliest tokens; 0: from all", "minimum": 0}
    )
    top_p: float | None = field(
        default=None,
        metadata={
            "help": "draw from the fewest tokens whose probabilities add up to this",
            "minimum": 0,
            "maximum": 1,
        },
    )
    min_p: float | None = field(
        default=None,
        metadata={
            "help": "draw from the tokens with at least this share of the highest probability",
            "minimum": 0,
            "maximum": 1,
        },
    )
    repetition_penalty: float | None = field(
        default=None,
        metadata={
            "help": "above 1 makes tokens that prompt or answer hold already less likely; 1: no penalty",
            "above": 0,
            "maximum": 10,
        },
    )
    seed: int | None = field(
        default=None, metadata={"help": "seed of the draws: the same one draws the same answer; 0 if not given"}
    )

    def __post_init__(self) -> None:
        """Checks every value. Raises RiyazError naming the flag."""
        _check_fields(self)

    def given(self) -> dict[str, Any]:
        """The options that were given: those that are not None."""
        return _given(self)


Config = DataConfig | CompareConfig | PretrainConfig | SamplingConfig
CONFIGS: tuple[type[DataConfig | CompareConfig], ...] = (DataConfig, CompareConfig)  # options allowed in riyaz.toml
TYPE_NAMES: dict[type, str] = {
    Seconds: "a duration",
    float: "a number",
    int: "a whole number",
    Path: "a path",
    bool: "true or false",
}


def _content(path: Path) -> bytes:
    """The bytes of a file of settings. Raises RiyazError for a large one: it may be a device without an end."""
    with open(path, "rb") as file:
        content = file.read(MAX_TOML + 1)
    if len(content) > MAX_TOML:
        raise RiyazError(f"has more than {MAX_TOML:,} bytes", str(path), "give a file of settings")
    if any(part.count(b".") > MAX_DOTS for part in re.split(rb"[=\n]", content)):
        raise RiyazError(f"a key has more than {MAX_DOTS} parts", str(path), "write one key in each line")
    return content


def read_toml(path: str | Path) -> dict[str, object]:
    """The checked settings of a riyaz.toml, its paths relative to its folder. Raises RiyazError naming file and key."""
    path = Path(path)
    try:
        table = tomllib.loads(_content(path).decode("utf-8-sig"))
    except OSError as error:
        raise RiyazError(f"cannot be read ({error.strerror})", str(path), "check the path") from None
    except UnicodeDecodeError:
        raise RiyazError("not UTF-8", str(path), "save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise RiyazError(f"not TOML: {error}", str(path), "correct that line") from None
    except RecursionError:
        raise RiyazError("nested too deeply", str(path), "give one value for each key") from None
    except ValueError:  # Python reads no whole number of more than 4,300 digits
        raise RiyazError("holds a number with too many digits", str(path), "correct the number") from None
    options = {f.name: (f, hint) for config in CONFIGS for f, hint in _typed_fields(config)}
    unknown = [key for key in table if key not in options]
    if unknown:
        near = difflib.get_close_matches(unknown[0], options, 1)
        hint = f"did you mean {near[0]!r}?" if near else "known keys: " + ", ".join(options)
        names = listed([brief(key) for key in unknown])
        raise RiyazError(f"unknown key{'s' if len(unknown) > 1 else ''} {names}", str(path), hint)
    settings = {}
    for key, value in table.items():
        where = f"{path}: {key}"
        option, kind = options[key]
        if kind is Seconds and not isinstance(value, str):
            raise RiyazError(f"{brief(value)} is not a duration", where, 'write it with its unit, such as "20m"')
        settings[key] = _relative_to(key, _checked(option, kind, value, where), path.parent)
    return settings


def resolve(settings: Mapping[str, object], given: Mapping[str, object]) -> tuple[DataConfig, CompareConfig]:
    """Combines defaults, a file's `settings` and the flags `given` (None: not given); later ones take precedence, and
    `steps` that are given take the place of a file's `epochs`, or the other way round."""
    flags = {key: value for key, value in given.items() if value is not None}
    values = {**settings, **flags}
    for length, other in (("steps", "epochs"), ("epochs", "steps")):
        if length in flags and other not in flags:
            values.pop(other, None)
    data_names = {f.name for f in dataclasses.fields(DataConfig)}
    data = {key: value for key, value in values.items() if key in data_names}
    compare = {key: value for key, value in values.items() if key not in data_names}
    return DataConfig(**data), CompareConfig(**compare)  # type: ignore[arg-type]


def _given(config: Config) -> dict[str, Any]:
    return {f.name: value for f in dataclasses.fields(config) if (value := getattr(config, f.name)) is not None}


def _typed_fields(config: type[Config]) -> list[tuple[dataclasses.Field, type]]:
    """Each field with its type, without `| None`."""
    hints = typing.get_type_hints(config)
    return [(f, _without_none(hints[f.name])) for f in dataclasses.fields(config)]


def _without_none(hint: type) -> type:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _check_fields(config: Config) -> None:
    for option, hint in _typed_fields(type(config)):
        value = getattr(config, option.name)
        if value is not None or option.default is not None:
            flag = "--" + option.name.replace("_", "-")
            object.__setattr__(config, option.name, _checked(option, hint, value, flag))


def _checked(option: dataclasses.Field, hint: type, value: object, where: str) -> object:
    """The value converted to the field's type and checked against its range. Raises RiyazError naming `where`."""
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            raise RiyazError(
                f"unknown {option.name} {brief(value)}", where, "choose one of " + ", ".join(typing.get_args(hint))
            )
        return value
    value = _converted(hint, value, where)
    minimum, maximum, above, below = map(option.metadata.get, ("minimum", "maximum", "above", "below"))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise RiyazError(f"{value} is not a finite number", where, "give a finite number")
        if minimum is not None and value < minimum:
            raise RiyazError(f"{brief(value)} is too small", where, f"give at least {minimum}")
        if maximum is not None and value > maximum:
            raise RiyazError(f"{brief(value)} is too large", where, f"give at most {maximum}")
        if above is not None and value <= above:
            raise RiyazError(f"{brief(value)} is too small", where, f"give more than {above}")
        if below is not None and value >= below:
            raise RiyazError(f"{brief(value)} is too large", where, f"give less than {below}")
    return value


def _converted(hint: type, value: object, where: str) -> object:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is Seconds and isinstance(value, str):
        return Seconds(parse_budget(value, where))
    if hint is Seconds and number:
        return Seconds(value)  # type: ignore[arg-type]
    if hint is float and number:
        try:
            return float(value)  # type: ignore[arg-type]
        except OverflowError:  # a whole number of hundreds of digits
            raise RiyazError(f"{brief(value)} is too large", where, "correct the value") from None
    if hint is int and number and isinstance(value, int):
        return value
    if hint is Path and isinstance(value, (str, Path)) and str(value):
        if "\0" in str(value):
            raise RiyazError("the path holds a NUL character", where, "no file can have that name")
        return Path(value)
    if (hint is bool and isinstance(value, bool)) or (hint is str and isinstance(value, str)):
        return value
    if typing.get_origin(hint) is tuple and isinstance(value, (str, list, tuple)):
        parts = [value] if isinstance(value, str) else list(value)
        if all(isinstance(part, str) for part in parts):
            return tuple(name.strip() for part in parts for name in part.split(",") if name.strip())
    raise RiyazError(f"{brief(value)} is not {TYPE_NAMES.get(hint, 'text')}", where, "correct the value")


def _relative_to(key: str, value: object, folder: Path) -> object:
    """A path, resolved against the file's folder; other values, model names included, unchanged."""
    if isinstance(value, Path):
        return folder / value
    if key == "model" and isinstance(value, str) and value.startswith(("./", "../")):
        return str(folder / value)
    return value
