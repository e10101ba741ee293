"""Results of a comparison as typed values: compare.json, and the files of each part of an arm.

    compare.json        Comparison, with one ArmResult per arm; adapted.json: the same beside what `riyaz adapt` made
    fit.json            Fit: how the artifact of a part was made
    result.json         Evaluation: its costs and checks
    predictions.jsonl   one Answer per test row

None means "not measured"; a field marked OPTIONAL is then left out of the file.
"""

import math
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from riyaz.config import Measure
from riyaz.errors import RiyazError, shown
from riyaz.files import is_bare
from riyaz.json_files import OPTIONAL, Keys, from_json, read_lines
from riyaz.results.arm_names import arm_name
from riyaz.results.beside import EarlierTask, Teacher
from riyaz.results.calibration import Calibration
from riyaz.results.documents import ELSEWHERE, read_document
from riyaz.results.inputs import Data, FileFacts, Model
from riyaz.results.precisions import PrecisionScore
from riyaz.results.questions import DecidedAnswer, QuestionScore
from riyaz.results.schedule import Turn

COMPARE, RESULT, FIT, PREDICTIONS = "compare.json", "result.json", "fit.json", "predictions.jsonl"
ADAPTED = "adapted.json"
REFITTED = "refit_steps"  # of a fit's choices: the steps of the training on all rows, where there was one
GAIN = 0.1  # of the score, that the rest of a recipe may add to an arm that was still improving after half of it
FAR = 3.0  # a latency that is so many times the planned one is measured again
AGAIN = "remove it and run riyaz compare again"

Status = Literal["ok", "cut", "failed", "skipped"]  # cut: trained for fewer steps than its recipe
Decision = Literal["certified", "tie", "undecided", "nothing"]  # nothing: every arm scores 0 on every test row
Check = Annotated[dict[str, Any], Keys(ok=bool)]  # whether the check passed, and the numbers it compared


@dataclass(frozen=True)
class SliceScore:
    """Mean score of the `n` test rows of one slice."""

    score: float | None
    n: int | None = None
    n_groups: int | None = field(default=None, metadata=OPTIONAL)
    ci_low: float | None = field(default=None, metadata=OPTIONAL)  # 95 % interval, given where rows have groups
    ci_high: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class WorstSlice:
    """The slice on which the pick scores lowest, with its 95 % interval; `better` is an arm whose lead over the pick on
    these rows is beyond chance, with that lead and its interval."""

    name: str
    n: int
    score: float
    ci_low: float
    ci_high: float
    better: str | None = field(default=None, metadata=OPTIONAL)
    lead: float | None = field(default=None, metadata=OPTIONAL)
    lead_low: float | None = field(default=None, metadata=OPTIONAL)
    lead_high: float | None = field(default=None, metadata=OPTIONAL)
    p_value: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class SliceLead:
    """The lead of one arm over another on the `n` rows of a slice, or of a label, with its 95 % interval."""

    name: str
    n: int
    lead: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Worth:
    """The best arm with a language model (`model`) beside the best one without (`plain`): the difference of their
    scores with its 95 % interval, what an answer costs more, and the slices on which the model leads beyond chance."""

    model: str
    plain: str
    difference: float
    low: float
    high: float
    p_value: float
    more_ms: float | None = None
    more_mb: float | None = None
    slices: list[SliceLead] = field(default_factory=list)


@dataclass(frozen=True)
class CurvePoint:
    """Losses in nats per answer token after a training step, and where labels are trained on the share of validation
    rows that it answers right."""

    step: int
    loss: float | None = None
    valid_loss: float | None = field(default=None, metadata=OPTIONAL)
    valid_accuracy: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class SeedScore:
    """The score of an arm trained with this seed."""

    seed: int
    score: float


@dataclass(frozen=True)
class Retrieval:
    """Quality of retrieval, and the scores without passages, with the retrieved ones, and with the right documents."""

    k: int  # passages per prompt
    rows: int | None = None
    grounded_rows: int | None = None
    closed_book: float | None = None
    retrieved: float | None = None
    grounded_nats: float | None = None  # increase of the answer's log p per token through the passages
    # recall by number of passages; this and the fields below are None where no row names its documents
    recall: dict[str, float] | None = field(default=None, metadata=OPTIONAL)
    mrr: float | None = field(default=None, metadata=OPTIONAL)
    named_rows: int | None = field(default=None, metadata=OPTIONAL)
    oracle: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Flips:
    """Rows answered both in a batch and alone, and how many of their answers and of their scores differ."""

    rows: int
    answers: int
    scores: int


@dataclass(frozen=True)
class Remeasured:
    """A latency in milliseconds per answer that was far above the planned one: planned, measured, measured again."""

    planned: float
    first: float
    again: float

    @property
    def far(self) -> bool:
        """Whether the smaller of the two is far above the planned one too."""
        return min(self.first, self.again) > FAR * self.planned


@dataclass(frozen=True)
class About:
    """A method for readers: what it does and suits, its colour and mark in pictures, and the kind of its weights."""

    what: str  # a sentence
    suits: str  # the tasks it suits, as the end of a sentence
    colour: Literal[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]  # --c0 to --c15 of page.css
    mark: Literal["o", "s", "D", "^", "v", "P", "X", "h", "p", "<", ">", "*", "d", "H", "8", "."]  # matplotlib's
    weights: str  # of its artifact, as in artifact.WEIGHT_KINDS; "": not known
    language_model: bool = True  # whether a language model answers


@dataclass(frozen=True)
class ArmResult:
    """One arm's row of compare.json."""

    method: str
    status: Status
    base: str | None = field(default=None, metadata=OPTIONAL)  # where a comparison has several; None: it uses none
    metric: str | None = None
    score: float | None = None  # 0 to 1; ci_low and ci_high: 95 % interval
    ci_low: float | None = None
    ci_high: float | None = None
    slices: dict[str, SliceScore] = field(default_factory=dict)
    n_test: int = 0
    extras: dict[str, float | None] = field(default_factory=dict)  # scores by other metrics
    train_seconds: float = 0.0
    search_seconds: float = 0.0
    eval_seconds: float = 0.0
    peak_rss_mb: float | None = None
    serve_rss_mb: float | None = field(default=None, metadata=OPTIONAL)
    trainable_params: int = 0
    artifact_mb: float | None = None
    ms_per_answer: float | None = None
    merged_ms: float | None = field(default=None, metadata=OPTIONAL)  # the same with the adapter in the weights
    # a LoRA beside the weights, merged into them as the file has them, and in smaller precisions
    merged: list[PrecisionScore] | None = field(default=None, metadata=OPTIONAL)
    prompt_tokens: float | None = None
    forgetting_nats: float | None = None  # rise of the loss per token of general text over the base
    forgetting_se: float | None = field(default=None, metadata=OPTIONAL)  # its standard error over blocks of the text
    prose_nats: float | None = field(default=None, metadata=OPTIONAL)  # the same of English prose
    prose_se: float | None = field(default=None, metadata=OPTIONAL)
    kl_task: float | None = None  # KL divergence from the base on the task's answers
    chosen: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)
    curve: list[CurvePoint] = field(default_factory=list)
    retrieval: Retrieval | None = field(default=None, metadata=OPTIONAL)
    reason: str = ""
    batch_flips: Flips | None = field(default=None, metadata=OPTIONAL)
    alone: bool = False  # whether the scored answers were made one at a time
    remeasured: Remeasured | None = field(default=None, metadata=OPTIONAL)
    cpu_waited: float | None = field(default=None, metadata=OPTIONAL)  # share of the CPU time that it did not get
    seeds: list[SeedScore] | None = field(default=None, metadata=OPTIONAL)
    steps: int | None = field(default=None, metadata=OPTIONAL)  # of the final training, and those of the full recipe
    recipe_steps: int | None = field(default=None, metadata=OPTIONAL)

    served: str | None = field(default=None, metadata=OPTIONAL)  # how its weights were held: "int4 as stored"
    waited: bool | None = field(default=None, metadata=OPTIONAL)  # scored low after the openings of the trained arms
    about: About | None = field(default=None, metadata=OPTIONAL)  # None: written by 0.1
    calibration: Calibration | None = field(default=None, metadata=OPTIONAL)  # None: answers have no confidence
    n_groups: int | None = field(default=None, metadata=OPTIONAL)  # of the test rows; None where none share one
    # why an arm that did not run, or was cut early and scores far below, counts as no better; None: it may be better
    ruled_out: str | None = field(default=None, metadata=OPTIONAL)
    questions: list[QuestionScore] | None = field(default=None, metadata=OPTIONAL)  # of a task of several
    teacher: Teacher | None = field(default=None, metadata=OPTIONAL)
    earlier: EarlierTask | None = field(default=None, metadata=OPTIONAL)  # where training went on from an artifact
    place: str | None = field(default=None, metadata=OPTIONAL)  # of several, the one that made its artifact

    def __post_init__(self) -> None:
        for key, name in (("method", self.method), ("base", self.base)):  # which name a folder
            if name is not None and (not is_bare(name) or "@" in name):
                raise RiyazError(f"{shown(name)} is not the name of a {key}", key)

    @property
    def name(self) -> str:
        """The arm's name: its method, and where a comparison has several bases METHOD@BASE."""
        return arm_name(self.method, self.base)

    @property
    def serving_mb(self) -> float | None:
        """Peak MB while answering; where that was not measured, the arm's peak with training."""
        return self.peak_rss_mb if self.serve_rss_mb is None else self.serve_rss_mb

    @property
    def half_trained(self) -> bool:
        """Whether the arm was cut before half of its recipe's steps, and not because others did better by then."""
        return self.status == "cut" and not self.waited and 2 * (self.steps or 0) < (self.recipe_steps or 0)

    @property
    def still_improving(self) -> bool:
        """Whether the arm was cut while its last validation was its best."""
        best, last = (self.chosen.get(key) for key in ("best_step", "steps"))
        return self.status == "cut" and not self.waited and best is not None and best == last

    def may_beat(self, score: float) -> bool:
        """Whether an arm that was skipped or cut could have more than `score`, had it been run to its end."""
        if self.status == "skipped":
            return not self.ruled_out
        reach = 0.0 if self.ci_high is None else self.ci_high + GAIN
        early = self.half_trained and not self.ruled_out
        return early or ((self.half_trained or self.still_improving) and reach >= score)


FloorKind = Literal["copy", "first_sentence", "empty_object"]
FLOORS: dict[FloorKind, str] = {
    "copy": "the prompt itself", "first_sentence": "the first sentence of the prompt",
    "empty_object": "an empty object",
}  # fmt: skip


@dataclass(frozen=True)
class Floor:
    """What answers every test row without a model, and its score with 95 % interval: the most frequent answer of the
    training rows, or for another `kind` what is made of the prompt."""

    answer: str
    score: float
    ci_low: float
    ci_high: float
    kind: FloorKind | None = field(default=None, metadata=OPTIONAL)


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
    """The score of an arm trained on `rows` rows, with its 95 % interval."""

    rows: int
    score: float
    ci_low: float | None = None
    ci_high: float | None = None


@dataclass(frozen=True)
class Comparison:
    """compare.json: the arms, the pick and its reason, and the data, model, machine and versions behind them."""

    arms: list[ArmResult]
    pick: str | None
    runner_up: str | None
    decision: Decision
    reason: str
    rows_needed: tuple[int, int] | None = None  # range of the test rows that would decide an undecided pick
    pairs: list[Pair] = field(default_factory=list)
    floor: Floor | None = field(default=None, metadata=OPTIONAL)  # None where no training answer occurs twice
    worst_slice: WorstSlice | None = field(default=None, metadata=OPTIONAL)
    worth: Worth | None = field(default=None, metadata=OPTIONAL)  # None where no two arms show it
    estimate_seconds: float | None = None
    data_curve: list[CurveScore] | None = field(default=None, metadata=OPTIONAL)
    curve_method: str | None = field(default=None, metadata=OPTIONAL)  # the arm of the data curve
    seconds: float | None = None
    data: Data = field(default_factory=Data)
    model: Model | None = None  # of several the first
    models: list[Model] | None = field(default=None, metadata=OPTIONAL)  # all of them, where there are several
    hardware: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    date: str | None = field(default=None, metadata=OPTIONAL)  # when it was finished, YYYY-MM-DD
    versions: dict[str, str] = field(default_factory=dict)
    schedule: list[Turn] | None = field(default=None, metadata=OPTIONAL)  # who did what when, of several places
    schema: Literal[1] = 1

    @classmethod
    def read(cls, path: Path) -> "Comparison":
        """The comparison in a compare.json. Raises RiyazError naming the invalid field."""
        comparison = read_document(cls, path, AGAIN)
        if comparison.data_curve and comparison.curve_method is None:  # 0.1 did not name it
            comparison = replace(comparison, curve_method="lora")
        names = [arm.name for arm in comparison.arms]
        if twice := [name for name in names if names.count(name) > 1]:
            raise RiyazError(f"has two arms {shown(twice[0])}", str(path), AGAIN)
        for key, name in (("pick", comparison.pick), ("runner_up", comparison.runner_up)):
            if name is not None and comparison.arm(name) is None:
                raise RiyazError(f"{key} is {shown(name)}, which is none of its arms", str(path), AGAIN)
        return comparison

    def arm(self, name: str | None) -> ArmResult | None:
        """The arm of this name; None if no arm has it."""
        return next((arm for arm in self.arms if arm.name == name), None)

    @property
    def bases(self) -> list[str]:
        """The names of the bases, in the order of the command; [] where there is one, which no arm names."""
        return [model.name for model in self.models or []]

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
    """fit.json: how the artifact of one part of an arm was made."""

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
    cpu_waited: float | None = field(default=None, metadata=OPTIONAL)

    @classmethod
    def read(cls, path: Path) -> "Fit":
        """The values of a fit.json. Raises RiyazError naming the invalid field."""
        return read_document(cls, path, ELSEWHERE)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """result.json: serving costs, forgetting and checks of one part of an arm.

    Costs, forgetting and drift are not measured for the folds of a cross-validation: those fields are None.
    """

    metric: Measure
    checks: dict[str, Check]
    ms_per_answer: float | None = None
    merged_ms: float | None = field(default=None, metadata=OPTIONAL)
    merged: list[PrecisionScore] | None = field(default=None, metadata=OPTIONAL)
    prompt_tokens: float | None = None
    forgetting_nats: float | None = None
    forgetting_se: float | None = field(default=None, metadata=OPTIONAL)
    prose_nats: float | None = field(default=None, metadata=OPTIONAL)
    prose_se: float | None = field(default=None, metadata=OPTIONAL)
    kl_task: float | None = None
    serve_rss_mb: float | None = field(default=None, metadata=OPTIONAL)
    retrieval: Retrieval | None = field(default=None, metadata=OPTIONAL)
    batch_flips: Flips | None = field(default=None, metadata=OPTIONAL)
    alone: bool = False  # whether predictions.jsonl holds answers made one at a time
    remeasured: Remeasured | None = field(default=None, metadata=OPTIONAL)
    cpu_waited: float | None = field(default=None, metadata=OPTIONAL)
    served: str | None = field(default=None, metadata=OPTIONAL)  # how the weights were held: "int4 as stored"
    calibration: Calibration | None = field(default=None, metadata=OPTIONAL)
    eval_seconds: float
    peak_rss_mb: float
    schema: Literal[1] = 1

    @classmethod
    def read(cls, path: Path) -> "Evaluation":
        """The values of a result.json. Raises RiyazError naming the invalid field."""
        return read_document(cls, path, ELSEWHERE)


@dataclass(frozen=True)
class Answer:
    """One line of predictions.jsonl: a test row, the arm's answer and its score."""

    where: str
    prompt: str
    answers: list[str]
    prediction: str
    score: float | None
    slice: str | None = None
    log_probability: float | None = None
    answer_log_probability: float | None = None  # of the accepted answer (`log_probability`: of the prediction)
    citations: list[dict[str, Any]] | None = field(default=None, metadata=OPTIONAL)
    confidence: float | None = field(default=None, metadata=OPTIONAL)  # calibrated probability that it is right
    runner_up: str | None = field(default=None, metadata=OPTIONAL)  # the label that comes next
    right_probability: float | None = field(default=None, metadata=OPTIONAL)  # of the accepted label
    brier: float | None = field(default=None, metadata=OPTIONAL)  # the row's Brier score over all labels, 0 to 2
    group: str | None = field(default=None, metadata=OPTIONAL)  # rows of one group are not independent
    decided: list[DecidedAnswer] | None = field(default=None, metadata=OPTIONAL)  # one for each question of the task
    extras: dict[str, float] | None = field(default=None, metadata=OPTIONAL)  # its second metrics

    @classmethod
    def read(cls, path: Path, hint: str = ELSEWHERE) -> "list[Answer]":
        """Every line of a predictions.jsonl. Raises RiyazError naming the invalid line."""
        rows = [(where, from_json(cls, row, where, hint, unknown=True)) for where, row in read_lines(path, hint)]
        negative = any(row.score is not None and row.score < 0 for _, row in rows)
        lowest = -sys.float_info.max if negative and _can_be_nats(path.with_name(RESULT)) else 0.0
        for where, row in rows:
            if not row.answers:
                raise RiyazError("answers is empty", where, hint)
            # only `nats`, which is the accepted answer's log-probability by characters, is below 0
            least = 0.0 if row.answer_log_probability is None else lowest
            if row.score is not None and not least <= row.score <= 1:
                raise RiyazError(f"score is {row.score:g}", where, hint)
        return [row for _, row in rows]


def _can_be_nats(result: Path) -> bool:
    """Whether the scores that a result.json belongs to are `nats`, or it is not written yet."""
    return not result.is_file() or Evaluation.read(result).metric == "nats"


@dataclass(frozen=True)
class TargetScores:
    """The output of `riyaz evaluate`: a model or an artifact scored on the rows of a file."""

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
    trained_rows: int | None = None  # rows that the artifact was trained on; None for a model
    served: str | None = field(default=None, metadata=OPTIONAL)  # how the weights were held: "int4 as stored"
    calibration: Calibration | None = field(default=None, metadata=OPTIONAL)
    n_groups: int | None = field(default=None, metadata=OPTIONAL)  # of the rows; None where no two share one
    questions: list[QuestionScore] | None = field(default=None, metadata=OPTIONAL)
