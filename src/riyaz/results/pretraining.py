"""Results of a pretraining run as typed values: run.json, metrics.jsonl and samples.jsonl.

None means "not measured"; a field marked OPTIONAL is then left out of the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from riyaz.json_files import OPTIONAL, Keys, from_json, parse_json
from riyaz.results.documents import ELSEWHERE, read_document

RUN, METRICS, SAMPLES, LEARNED = "run.json", "metrics.jsonl", "samples.jsonl", "learned.jsonl"

RunStatus = Literal["running", "stopped", "done"]


@dataclass(frozen=True)
class RunText:
    """The text of a run; its size in bytes and its hash are there before it is tokenised, the counts after."""

    files: int | None = field(default=None, metadata=OPTIONAL)
    bytes: int = 0
    tokens: int | None = field(default=None, metadata=OPTIONAL)
    train_tokens: int | None = field(default=None, metadata=OPTIONAL)
    valid_tokens: int | None = field(default=None, metadata=OPTIONAL)
    near_duplicates: int | None = field(default=None, metadata=OPTIONAL)
    sha256: str = ""


@dataclass(frozen=True)
class RunTokenizer:
    """The tokenizer of a run; `kind` is bpe, bytes, chars or folder (copied from one)."""

    kind: str
    vocab: int
    sha256: str


@dataclass(frozen=True)
class RunModel:
    """The shape of the model."""

    family: str
    layers: int
    heads: int
    width: int
    context: int
    parameters: int


@dataclass(frozen=True)
class Derived:
    """A derived setting, as text, and the reason for it."""

    name: str
    value: Any
    why: str


@dataclass(frozen=True)
class RunCost:
    """Cost of the whole run; `peak_share` is the share of the machine's peak FLOP/s reached in training."""

    seconds: float
    flops: float
    tokens: int
    tokens_s: float
    peak_share: float
    peak_rss_mb: float


@dataclass(frozen=True)
class RunResult:
    """The finished model on held-out text: loss in nats per token, and bits per byte."""

    valid_loss: float
    bits_per_byte: float
    windows: int
    best_step: int
    logit_difference: float


RunPlan = Annotated[dict[str, Any], Keys(steps=int, batch_size=int, validate_every=int)]  # and more of TrainPlan


@dataclass(frozen=True)
class PretrainRun:
    """run.json: the options, the settings derived from them, and the results so far; None: not reached yet."""

    status: RunStatus
    command: str
    resumed: list[str]
    paths: list[str]
    asked: dict[str, Any]
    text: RunText
    # package versions of a resumed command that differ from those the run began with
    resumed_with: dict[str, str] | None = field(default=None, metadata=OPTIONAL)
    seed: int | None = field(default=None, metadata=OPTIONAL)
    versions: dict[str, str] | None = field(default=None, metadata=OPTIONAL)
    tokenizer: RunTokenizer | None = field(default=None, metadata=OPTIONAL)
    model: RunModel | None = field(default=None, metadata=OPTIONAL)
    derived: list[Derived] | None = field(default=None, metadata=OPTIONAL)
    plan: RunPlan | None = field(default=None, metadata=OPTIONAL)
    length: int | None = field(default=None, metadata=OPTIONAL)  # steps, where it was changed while the run trained
    estimate: dict[str, float] | None = field(default=None, metadata=OPTIONAL)
    hardware: dict[str, Any] | None = field(default=None, metadata=OPTIONAL)
    cost: RunCost | None = field(default=None, metadata=OPTIONAL)
    result: RunResult | None = field(default=None, metadata=OPTIONAL)
    schema: Literal[1] = 1

    @classmethod
    def read(cls, path: Path) -> "PretrainRun":
        """The run in a run.json. Raises RiyazError naming the invalid field."""
        return read_document(cls, path, ELSEWHERE)


@dataclass(frozen=True)
class StepMetrics:
    """One line of metrics.jsonl: losses in nats per token; `peak_share` is the share of the machine's peak FLOP/s."""

    step: int
    loss: float | None = None
    norm: float | None = None
    learning_rate: float | None = None
    seconds: float | None = None
    tokens_s: float | None = None
    peak_share: float | None = None
    valid_loss: float | None = field(default=None, metadata=OPTIONAL)
    bits_per_byte: float | None = field(default=None, metadata=OPTIONAL)

    @classmethod
    def read(cls, path: Path) -> "list[StepMetrics]":
        """Every step of a metrics.jsonl. Raises RiyazError naming the invalid line."""
        return _by_step(cls, path)


@dataclass(frozen=True)
class Text:
    """A prompt and the model's continuation."""

    prompt: str
    text: str


@dataclass(frozen=True)
class Word:
    """A possible next token, and its probability."""

    text: str
    p: float


@dataclass(frozen=True)
class NextWord:
    """A prompt and its likeliest next tokens, likeliest first."""

    prompt: str
    words: list[Word]


@dataclass(frozen=True)
class Samples:
    """One line of samples.jsonl: generated texts and next-token probabilities after a step."""

    step: int
    texts: list[Text] = field(default_factory=list)
    next: NextWord | None = None

    @classmethod
    def read(cls, path: Path) -> "list[Samples]":
        """Every entry of a samples.jsonl. Raises RiyazError naming the invalid line."""
        return _by_step(cls, path)


@dataclass(frozen=True)
class TokenLoss:
    """A token and its loss in nats; None for the first one, which nothing predicts."""

    text: str
    nats: float | None = None


@dataclass(frozen=True)
class Learned:
    """One line of learned.jsonl: what a model in training makes of a fixed text and a fixed sentence after a step, and
    the lengths of that step's gradients: outside the layers, then of each. `lens` has the likeliest next tokens behind
    0, 1, … layers, or the likeliest labels. Training counts the tokens of the text from number `answer` on."""

    step: int
    text: list[TokenLoss] = field(default_factory=list)
    sentence: str = ""
    lens: list[list[Word]] = field(default_factory=list)
    gradients: list[float] | None = None
    answer: int | None = field(default=None, metadata=OPTIONAL)  # None: all

    @classmethod
    def read(cls, path: Path) -> "list[Learned]":
        """Every entry of a learned.jsonl. Raises RiyazError naming the invalid line."""
        return _by_step(cls, path)


def _by_step(cls: Any, path: Path) -> Any:
    """The lines of a JSON Lines file as `cls`, one per step in order of steps; none where there is no file.

    A resumed run writes some steps again: the later line counts. A last line without its end of line is left out: the
    run was killed while writing it.
    """
    if not path.is_file():
        return []
    entries = {}
    for where, line in _whole_lines(path):
        entry = from_json(cls, parse_json(line, where, ELSEWHERE, numbered=False), where, ELSEWHERE, unknown=True)
        entries[entry.step] = entry
    return [entries[step] for step in sorted(entries)]


def _whole_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.endswith(b"\n"):
                yield f"{path}:{number}", line
