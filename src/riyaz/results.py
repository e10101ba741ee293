"""What a comparison and a pretraining run leave behind, as typed values that read and write their files.

    compare.json        Comparison, with an ArmResult for every arm
    fit.json, result.json, predictions.jsonl   Fit, Evaluation and Answers of one part of an arm
    run.json            PretrainRun; metrics.jsonl and samples.jsonl beside it hold StepMetrics and Samples

A field that may be None was not measured; one marked OPTIONAL is left out of the file then.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from riyaz.config import Metric
from riyaz.errors import RiyazError
from riyaz.files import OPTIONAL, Keys, from_json, parse_json, read_json, read_lines

SCHEMA = 1  # of compare.json, result.json and run.json; files of before it was written are read as 1
COMPARE, RESULT, FIT, PREDICTIONS = "compare.json", "result.json", "fit.json", "predictions.jsonl"
RUN, METRICS, SAMPLES = "run.json", "metrics.jsonl", "samples.jsonl"
AGAIN = "remove it and run riyaz compare again"
ELSEWHERE = "choose another --out"

Status = Literal["ok", "cut", "failed", "skipped"]  # cut: trained less than its recipe
Decision = Literal["clear", "tie", "undecided"]
RunStatus = Literal["running", "stopped", "done"]
Check = Annotated[dict[str, Any], Keys(ok=bool)]  # whether it held, and the figures that decided
T = TypeVar("T")


@dataclass(frozen=True)
class SliceScore:
    """Mean score of the `n` test rows of one slice."""

    score: float | None
    n: int | None = None


@dataclass(frozen=True)
class CurvePoint:
    """Losses in nats per answer token after a training step."""

    step: int
    loss: float | None = None
    valid_loss: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class SeedScore:
    """The score of an arm that was trained with this seed."""

    seed: int
    score: float


@dataclass(frozen=True)
class Retrieval:
    """What retrieval found, and the scores without passages, with those of it, and with the right documents alone."""

    k: int  # passages in a prompt
    rows: int | None = None
    grounded_rows: int | None = None
    closed_book: float | None = None
    retrieved: float | None = None
    grounded_nats: float | None = None  # by which the passages raise log p of the answer, per token
    # recall by number of passages; this and the rest are None where rows name no documents
    recall: dict[str, float] | None = field(default=None, metadata=OPTIONAL)
    mrr: float | None = field(default=None, metadata=OPTIONAL)
    named_rows: int | None = field(default=None, metadata=OPTIONAL)
    oracle: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class ArmResult:
    """One arm's row of compare.json."""

    method: str
    status: Status
    metric: str | None = None
    score: float | None = None  # 0 to 1, with its 95 % interval
    ci_low: float | None = None
    ci_high: float | None = None
    slices: dict[str, SliceScore] = field(default_factory=dict)
    n_test: int = 0
    extras: dict[str, float | None] = field(default_factory=dict)  # second scores
    train_seconds: float = 0.0
    search_seconds: float = 0.0
    eval_seconds: float = 0.0
    peak_rss_mb: float | None = None
    serve_rss_mb: float | None = field(default=None, metadata=OPTIONAL)
    trainable_params: int = 0
    artifact_mb: float | None = None
    ms_per_answer: float | None = None
    prompt_tokens: float | None = None
    forgetting_nats: float | None = None  # per token of general text, against the base
    kl_task: float | None = None  # to the base, on the task
    chosen: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)
    curve: list[CurvePoint] = field(default_factory=list)
    retrieval: Retrieval | None = field(default=None, metadata=OPTIONAL)
    reason: str = ""
    seeds: list[SeedScore] | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Pair:
    """The difference between two arms on the same rows, with its 95 % interval."""

    arms: tuple[str, str]
    difference: float
    low: float
    high: float
    p_value: float
    test: str


@dataclass(frozen=True)
class CurveScore:
    """The score of an arm that was trained on so many rows, with its 95 % interval."""

    rows: int
    score: float
    ci_low: float | None = None
    ci_high: float | None = None


@dataclass(frozen=True)
class FileFacts:
    """A file of rows: where it lay, its hash, and the columns that were read."""

    path: str
    sha256: str
    format: str


@dataclass(frozen=True)
class Leakage:
    """Test rows whose prompt stands in the training rows too, their share, and training rows dropped for it."""

    test_rows: float | None = None
    share: float | None = None
    dropped: float | None = None


@dataclass(frozen=True)
class Documents:
    """The documents that were retrieved from; `embedder` is the hash of what made their vectors."""

    path: str
    documents: int
    sha256: str
    notes: list[str] = field(default_factory=list)
    embedder: str | None = None


@dataclass(frozen=True)
class Data:
    """The rows of a comparison: files, task, counts, and the first ones as a model learns them."""

    files: dict[str, FileFacts] = field(default_factory=dict)
    task: str | None = None
    metric: str | None = None
    why: str | None = None
    instruction: str | None = None
    rows: dict[str, int] = field(default_factory=dict)
    duplicates: int | None = None
    conflicts: int | None = None
    leakage: Leakage | None = None
    answer_words: dict[str, float] = field(default_factory=dict)
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    unseen_labels: list[str] = field(default_factory=list)
    slices: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rendered: list[list[tuple[str, bool]]] = field(default_factory=list)  # pieces; the loss is on those with True
    documents: Documents | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Model:
    """The base model of a comparison."""

    name: str
    format: str | None = None
    family: str | None = None
    parameters: int | None = None
    sha256: str | None = None
    mb: float | None = None


@dataclass(frozen=True)
class Comparison:
    """compare.json: the arms, the pick and why, and what it takes to trust them."""

    arms: list[ArmResult]
    pick: str | None
    runner_up: str | None
    decision: Decision
    reason: str
    rows_needed: int | None = None  # of the test, where the pick is undecided
    pairs: list[Pair] = field(default_factory=list)
    estimate_seconds: float | None = None
    data_curve: list[CurveScore] | None = field(default=None, metadata=OPTIONAL)
    seconds: float | None = None
    data: Data = field(default_factory=Data)
    model: Model | None = None
    hardware: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    schema: Literal[1] = 1

    @classmethod
    def read(cls, path: Path) -> "Comparison":
        """The comparison in a compare.json. Raises RiyazError naming the place that is wrong."""
        return _read(cls, path, AGAIN)

    @property
    def ranked(self) -> list[ArmResult]:
        """Arms by score, best first; arms without a score last, in their own order."""
        return sorted(self.arms, key=lambda arm: math.inf if arm.score is None else -arm.score)

    @property
    def metric(self) -> str | None:
        """The metric that the arms were scored by."""
        return next((arm.metric for arm in self.arms if arm.metric), None)


@dataclass(frozen=True)
class Fit:
    """fit.json: how one part of an arm was made."""

    chosen: dict[str, Any]
    checks: dict[str, Check]
    search_seconds: float
    train_seconds: float
    trainable_params: int
    valid_loss: float | None
    valid_score: float | None
    curve: list[CurvePoint]
    peak_rss_mb: float
    seconds: float

    @classmethod
    def read(cls, path: Path) -> "Fit":
        """What a fit.json holds. Raises RiyazError naming the place that is wrong."""
        return _read(cls, path, ELSEWHERE)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """result.json: what one part of an arm costs to serve, what it forgot, and its checks.

    What a fold's artifact costs, forgets and drifts is not measured: those fields are None.
    """

    metric: Metric
    checks: dict[str, Check]
    ms_per_answer: float | None = None
    prompt_tokens: float | None = None
    forgetting_nats: float | None = None
    kl_task: float | None = None
    serve_rss_mb: float | None = field(default=None, metadata=OPTIONAL)
    retrieval: Retrieval | None = field(default=None, metadata=OPTIONAL)
    eval_seconds: float
    peak_rss_mb: float
    schema: Literal[1] = 1

    @classmethod
    def read(cls, path: Path) -> "Evaluation":
        """What a result.json holds. Raises RiyazError naming the place that is wrong."""
        return _read(cls, path, ELSEWHERE)


@dataclass(frozen=True)
class Answer:
    """One line of predictions.jsonl: a test row, what the arm answered and how that scored."""

    where: str
    prompt: str
    answers: list[str]
    prediction: str
    score: float | None
    slice: str | None = None
    log_probability: float | None = None
    answer_log_probability: float | None = None  # of the accepted answer
    citations: list[dict[str, Any]] | None = field(default=None, metadata=OPTIONAL)

    @classmethod
    def read(cls, path: Path, hint: str = ELSEWHERE) -> "list[Answer]":
        """Every line of a predictions.jsonl. Raises RiyazError naming the line that is wrong."""
        rows = [(where, from_json(cls, row, where, hint, unknown=True)) for where, row in read_lines(path, hint)]
        for where, row in rows:
            if not row.answers:
                raise RiyazError("answers is empty", where, hint)
        return [row for _, row in rows]


@dataclass(frozen=True)
class TargetScores:
    """What `riyaz evaluate` says of a model or an artifact on the rows of a file."""

    target: str
    test: FileFacts
    task: str
    metric: str
    instruction: str
    score: float
    ci_low: float
    ci_high: float
    n_test: int
    extras: dict[str, float | None]
    slices: dict[str, SliceScore]
    ms_per_answer: float
    prompt_tokens: float
    peak_rss_mb: float


@dataclass(frozen=True)
class RunText:
    """The text of a pretraining run; before it is tokenised only its size and hash are known."""

    files: int | None = field(default=None, metadata=OPTIONAL)
    bytes: int = 0
    tokens: int | None = field(default=None, metadata=OPTIONAL)
    train_tokens: int | None = field(default=None, metadata=OPTIONAL)
    valid_tokens: int | None = field(default=None, metadata=OPTIONAL)
    near_duplicates: int | None = field(default=None, metadata=OPTIONAL)
    sha256: str = ""


@dataclass(frozen=True)
class RunTokenizer:
    """The tokenizer of a pretraining run: bpe, bytes, chars or the folder it was copied from."""

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
    """A number that was derived, and why it is this one."""

    name: str
    value: Any
    why: str


@dataclass(frozen=True)
class RunCost:
    """What the whole run took."""

    seconds: float
    flops: float
    tokens: int
    tokens_s: float
    peak_share: float
    peak_rss_mb: float


@dataclass(frozen=True)
class RunResult:
    """The finished model on held-out text, in nats per token and bits per byte."""

    valid_loss: float
    bits_per_byte: float
    windows: int
    best_step: int
    logit_difference: float


RunPlan = Annotated[dict[str, Any], Keys(steps=int, batch_size=int, validate_every=int)]  # and more of TrainPlan


@dataclass(frozen=True)
class PretrainRun:
    """run.json: what was asked, what was derived from it, and what came of it as far as the run has come."""

    status: RunStatus
    command: str
    resumed: list[str]
    paths: list[str]
    asked: dict[str, Any]
    text: RunText
    # versions that differ from those of the beginning
    resumed_with: dict[str, str] | None = field(default=None, metadata=OPTIONAL)
    seed: int | None = field(default=None, metadata=OPTIONAL)
    versions: dict[str, str] | None = field(default=None, metadata=OPTIONAL)
    tokenizer: RunTokenizer | None = field(default=None, metadata=OPTIONAL)
    model: RunModel | None = field(default=None, metadata=OPTIONAL)
    derived: list[Derived] | None = field(default=None, metadata=OPTIONAL)
    plan: RunPlan | None = field(default=None, metadata=OPTIONAL)
    estimate: dict[str, float] | None = field(default=None, metadata=OPTIONAL)
    hardware: dict[str, Any] | None = field(default=None, metadata=OPTIONAL)
    cost: RunCost | None = field(default=None, metadata=OPTIONAL)
    result: RunResult | None = field(default=None, metadata=OPTIONAL)
    schema: Literal[1] = 1

    @classmethod
    def read(cls, path: Path) -> "PretrainRun":
        """The run in a run.json. Raises RiyazError naming the place that is wrong."""
        return _read(cls, path, ELSEWHERE)


@dataclass(frozen=True)
class StepMetrics:
    """One line of metrics.jsonl; losses in nats per token, `peak_share` of the machine's peak."""

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
        """Every step of a metrics.jsonl. Raises RiyazError naming the line that is wrong."""
        return _by_step(cls, path)


@dataclass(frozen=True)
class Text:
    """What the model wrote after a prompt."""

    prompt: str
    text: str


@dataclass(frozen=True)
class Word:
    """A token that may come next, and its probability."""

    text: str
    p: float


@dataclass(frozen=True)
class NextWord:
    """The likeliest tokens after a prompt."""

    prompt: str
    words: list[Word]


@dataclass(frozen=True)
class Samples:
    """One line of samples.jsonl: what the model wrote, and expected next, after a step."""

    step: int
    texts: list[Text] = field(default_factory=list)
    next: NextWord | None = None

    @classmethod
    def read(cls, path: Path) -> "list[Samples]":
        """Every look of a samples.jsonl. Raises RiyazError naming the line that is wrong."""
        return _by_step(cls, path)


def _read(cls: type[T], path: Path, hint: str) -> T:
    document = read_json(path, hint)
    if isinstance(document, dict) and document.get("schema", SCHEMA) != SCHEMA:
        raise RiyazError("was written by another version of riyaz", str(path), hint)
    return from_json(cls, document, str(path), hint)


def _by_step(cls: Any, path: Path) -> Any:
    """The lines by step, none where there is no file. A resumed run writes some steps again: the later lines count.
    The last line may be torn, where the run was killed while it wrote, and is left out."""
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
