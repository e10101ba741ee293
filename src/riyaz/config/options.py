"""Every option a user can set: its type, default, range and help text.

`DataConfig` holds the options for reading rows, `CompareConfig` those of a comparison, `PretrainConfig` those of
pretraining, `SamplingConfig` how an answer is drawn, `ServeConfig` a server's. The command line's flags are generated
from their fields, and so are the keys of the optional `riyaz.toml` next to the rows of a comparison.

A field's metadata holds `help` and, for numbers, the range: `minimum` and `maximum` (inclusive), `above` and `below`
(exclusive), and `by_method` where it can be one for every method or one for each by name. Choices are a Literal.
"""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from riyaz.config.checking import Seconds, check_fields
from riyaz.errors import RiyazError

THREADS: dict[str, str | int] = {  # torch crashes with millions
    "help": "threads to compute with; OMP_NUM_THREADS or all cores if not given",
    "minimum": 1,
    "maximum": 1024,
}
TaskKind = Literal["closed", "short", "free"]
Metric = Literal["accuracy", "exact_match", "token_f1", "rouge_l", "chrf"]
Kv = Literal["auto", "bf16", "int8"]  # how keys and values of an answer are held
# how weights are served; auto: as the file stores them, float32 as bf16
Precision = Literal["auto", "fp32", "bf16", "int8", "int4"]
METRICS: tuple[str, ...] = typing.get_args(Metric)
MIN_ROWS = 20  # fewer rows are too few for a split


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
        check_fields(self)

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
    precision: Precision = field(
        default="auto",
        metadata={
            "help": "how weights are held when the model answers; auto: as the file stores them, float32 as bf16"
        },
    )
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
    limits: bool = field(
        default=False,
        metadata={"help": "also measure what the arms cannot do (riyaz limits), in a fifth of the budget"},
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
    # a float or a dict of them by method, once it is checked
    learning_rate: float | str | Mapping[str, float] | None = field(
        default=None,
        metadata={
            "help": "highest learning rate of every trained method, such as 1e-3, or of those that are named, such as "
            "lora=1e-3,full=5e-5; none is searched for these",
            "above": 0,
            "below": 1,
            "by_method": True,
        },
    )
    batch_size: int | None = field(
        default=None, metadata={"help": "training rows per step of every trained method", "minimum": 1, "maximum": 4096}
    )

    def __post_init__(self) -> None:
        """Checks every value; parses durations and comma-separated lists. Raises RiyazError naming the flag."""
        check_fields(self)
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
    family: Literal["llama", "gpt2", "bitnet"] | None = field(
        default=None, metadata={"help": "architecture of the model; llama, and bitnet with --ternary, if not given"}
    )
    ternary: bool | None = field(
        default=None,
        metadata={"help": "train weights -1, 0 and 1 with a scale (BitNet b1.58) in all layers but embedding and head"},
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
        check_fields(self)
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
        check_fields(self)

    def given(self) -> dict[str, Any]:
        """The options that were given: those that are not None."""
        return _given(self)


Config = DataConfig | CompareConfig | PretrainConfig | SamplingConfig
CONFIGS: tuple[type[DataConfig | CompareConfig], ...] = (DataConfig, CompareConfig)  # options allowed in riyaz.toml


def _given(config: Config) -> dict[str, Any]:
    return {f.name: value for f in dataclasses.fields(config) if (value := getattr(config, f.name)) is not None}


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Where a server listens, who may ask, and its limits."""

    host: str = field(
        default="127.0.0.1", metadata={"help": "address to listen on; any but this machine's needs a key"}
    )
    port: int = field(default=8000, metadata={"help": "port; 0 takes a free one", "minimum": 0, "maximum": 65535})
    api_key_file: Path | None = field(default=None, metadata={"help": "file with the keys of clients, one on a line"})
    allow_host: tuple[str, ...] = field(
        default=(), metadata={"help": "further names by which clients reach the server"}
    )
    allow_origin: tuple[str, ...] = field(
        default=(), metadata={"help": "web pages of other origins that may ask, such as https://example.org"}
    )
    adapters: Path | None = field(
        default=None, metadata={"help": "folder of adapters and artifacts that clients may load by name"}
    )
    models: int = field(
        default=2, metadata={"help": "most models in memory, where artifacts need more than one", "minimum": 1}
    )
    embedder: str = field(default="minilm", metadata={"help": "the model behind /v1/embeddings"})
    max_queue: int = field(
        default=64, metadata={"help": "most requests that wait; further ones get 429", "minimum": 0, "maximum": 10**6}
    )
    queue_timeout: Seconds = field(
        default=Seconds(60), metadata={"help": "longest that a request waits for its start", "above": 0}
    )
    request_timeout: Seconds = field(
        default=Seconds(600), metadata={"help": "longest that an answer is made; it is cut then", "above": 0}
    )
    max_tokens: int | None = field(
        default=None, metadata={"help": "most tokens of an answer; what the context holds if not given", "minimum": 1}
    )
    max_body_mb: float = field(default=2.0, metadata={"help": "largest request", "above": 0, "maximum": 1024})
    no_page: bool = field(default=False, metadata={"help": "serve no page at /"})
    max_upload_mb: float = field(
        default=256.0, metadata={"help": "largest file that the page takes", "above": 0, "maximum": 10**5}
    )
    piece: int = field(
        default=256,
        metadata={"help": "tokens of prompts read between two tokens of running answers", "minimum": 64},
    )
    keep_mb: float = field(
        default=256.0,
        metadata={"help": "keys and values of prompts that are kept for the next turn of a conversation", "minimum": 0},
    )
    drain: Seconds = field(
        default=Seconds(10),
        metadata={"help": "how long answers go on when the server is told to end", "minimum": 0},
    )

    def __post_init__(self) -> None:
        """Checks every value. Raises RiyazError naming the flag."""
        check_fields(self)
