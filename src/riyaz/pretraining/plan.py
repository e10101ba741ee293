"""From a size or a budget to every setting of a run, each with its reason. Torch-free.

Rules of thumb and their sources: about 20 tokens per parameter (Hoffmann et al. 2022, arXiv 2203.15556); up to 4 epochs
of a text teach nearly as much as new text, epochs after the 16th very little (Muennighoff et al. 2023, arXiv
2305.16264); the learning rate falls with the width (Yang et al. 2022, arXiv 2203.03466).
"""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from riyaz import hardware
from riyaz.config import FreshFamily, PretrainConfig, Seconds
from riyaz.config.pretraining import BUDGET
from riyaz.errors import RiyazError
from riyaz.families import ModelConfig, bitnet, llama
from riyaz.hardware import MB
from riyaz.json_files import Keys, from_json, to_document
from riyaz.pretraining.folder import PLAN
from riyaz.pretraining.shapes import (
    SIZES,
    Shape,
    configured,
    flops_per_token,
    heads_for,
    memory_mb,
    micro_tokens,
    parameters,
    ternary_share,
)
from riyaz.results import ELSEWHERE, RunTokenizer

SMALLEST = next(iter(SIZES))
BYTES = 257  # size of the smallest vocabulary
KINDS = ("bytes", "chars")  # built-in tokenizers; any other --tokenizer is a folder
TOKENS_PER_PARAMETER = 20
EPOCHS_GOOD, EPOCHS_MOST = 4, 16
CONTEXT = 256
WINDOWS_LEAST = 64  # the context is halved until a short text has this many windows
VOCABULARIES = {4096: 500_000, 2048: 200_000, 1024: 60_000}  # vocabulary -> least bytes of text
TRAINING = 0.9  # share of the remaining budget without the end; the rest is for validation, samples and checkpoints
# the end of a run: the finished model is judged on JUDGED windows, written, opened again, and reported
JUDGED, END_SECONDS, WRITING = 64, 4.0, 100e6  # windows, seconds whatever the model (Python's start too), bytes/s
STEPS_WANTED = 2000
STEP_TOKENS = (1024, 16_384)  # least and most tokens per step
RATE_MOST, RATE = 4e-3, 0.4  # learning rate: RATE divided by the width, at most RATE_MOST
SECOND = 2 / 3  # of the learning rate in the second stage of ternary training
VALIDATIONS, VALIDATION_GAP = 25, 10.0  # most validations of a run, and the least seconds between two
VALIDATION_SHARE, FORWARD = 0.05, 3  # share of the time; a training step takes as long as 3 forward passes
CHECKPOINT_SECONDS = 30.0
PATIENCE = 10  # validations without a better loss before training stops
DTYPE_BYTES = 4
DISK_COPIES = 7  # two checkpoints of weights and two moments each, and the best weights


def check(options: PretrainConfig) -> None:
    """Raises RiyazError for an option without effect beside another, and for an impossible shape."""
    if options.steps is not None and options.budget is not None:
        raise RiyazError("has no effect beside --steps", "--budget", "give one of them")
    if (
        options.heads is None or options.width or options.size or options.steps
    ):  # else the plan chooses a size that fits --heads
        shape = shaped(options, SIZES[options.size or SMALLEST])
        configured(family_of(options), shape, BYTES, options.context or CONTEXT)


def family_of(options: PretrainConfig) -> str:
    """The family of the model."""
    return options.family or (bitnet.MODEL_TYPE if options.ternary else llama.MODEL_TYPE)


def own_shape(options: PretrainConfig) -> bool:
    """Whether layers, width or heads were given, so that the shape is not a named size."""
    return bool(options.layers or options.width or options.heads)


def shaped(options: PretrainConfig, shape: Shape) -> Shape:
    """`shape` with the layers, heads and width of the options, where given."""
    width = options.width or shape.width
    heads = options.heads or (shape.heads if width == shape.width else heads_for(width))
    return Shape(options.layers or shape.layers, heads, width)


def absolute(options: PretrainConfig) -> PretrainConfig:
    """The options with an absolute path to the tokenizer's folder, so that a run resumes from any working folder."""
    folder = options.tokenizer is not None and options.tokenizer not in KINDS
    return replace(options, tokenizer=str(Path(str(options.tokenizer)).absolute())) if folder else options


class Measuring(Protocol):
    """The measurements that the plan needs: `speed.Machine`, or fixed numbers in tests."""

    def tokens_s(self, config: ModelConfig, compute: str) -> float:
        """Training speed in tokens per second."""

    def quicker(self, config: ModelConfig) -> str:
        """The number type in which this model trains faster: "bfloat16" or "float32"."""


@dataclass(frozen=True)
class Value:
    """A derived setting and the reason for it, as text."""

    name: str
    value: str
    why: str


@dataclass(frozen=True)
class Text:
    """Size of the text: training tokens, training windows and held-out windows."""

    train_tokens: int
    train_windows: int
    valid_windows: int


MODEL = Keys(family=FreshFamily, layers=int, heads=int, width=int, context=int, vocab=int, parameters=int)
TRAIN = Keys(compute=Literal["bfloat16", "float32"], batch_size=int, micro_tokens=int, seed=int)
NEEDS = Keys(seconds=float, peak_rss_mb=float, disk_mb=float)


@dataclass(frozen=True)
class PretrainingPlan:
    """Every setting of a run; frozen in plan.json, so that a resumed run is the same run. Only `train["changes"]` is
    written while it trains."""

    effective: dict[str, Any]  # the value in effect of every flag, by its name
    derived: tuple[Value, ...]
    model: Annotated[dict[str, Any], MODEL]
    train: Annotated[dict[str, Any], TRAIN]  # the fields of train.TrainPlan
    valid_windows: int
    tokens: int
    flops_per_token: float
    tokens_s: float
    end_seconds: float  # of judging, writing and reporting the finished model
    estimate: Annotated[dict[str, float], NEEDS]

    @property
    def config(self) -> ModelConfig:
        """The configuration of the model."""
        shape = Shape(*(self.model[name] for name in ("layers", "heads", "width")))
        return configured(self.model["family"], shape, self.model["vocab"], self.model["context"])

    @property
    def local_steps(self) -> int:
        """Steps that each process trains alone before all agree; 0: all take every step together."""
        return int(self.effective.get("local_steps") or 0)

    def settings(self) -> Any:
        """The plan as a `train.TrainPlan`. Raises RiyazError for invalid values."""
        from riyaz.train import TrainPlan

        return from_json(TrainPlan, to_document(self.train), PLAN, ELSEWHERE)


TEXT = ("files", "bytes", "tokens", "train_tokens", "valid_tokens", "near_duplicates", "sha256")


@dataclass(frozen=True)
class Frozen:
    """plan.json: the plan, and the versions, machine, text and tokenizer that it was made for."""

    plan: PretrainingPlan
    versions: dict[str, str]
    threads: int
    peak_flops: float
    text: Annotated[dict[str, Any], Keys(**dict.fromkeys(TEXT[:-1], int), sha256=str, tokens_sha256=str)]
    tokenizer: RunTokenizer
    seconds: float
    format: Literal[1] = 1


def kind_of_tokenizer(options: PretrainConfig, text_bytes: int) -> tuple[str, int, str]:
    """(kind or folder, vocabulary size, reason) of the tokenizer; size 0: the kind or folder fixes it."""
    if options.tokenizer is not None:
        return options.tokenizer, 0, "given"
    for vocab, least in VOCABULARIES.items():
        if text_bytes >= least:
            return "bpe", vocab, f"{text_bytes / 1e6:.1f} MB of text are enough to learn {vocab:,} tokens from"
    return "bytes", 0, f"{text_bytes / 1e3:.0f} kB of text are too little to learn a BPE vocabulary from"


def smaller(vocab: int) -> int | None:
    """The next smaller vocabulary; None when only bytes remain."""
    return next((size for size in VOCABULARIES if size < vocab), None)


def context_for(options: PretrainConfig, text_tokens: float) -> tuple[int, str]:
    """(context in tokens, reason)."""
    if options.context is not None:
        return options.context, "given"
    context = CONTEXT
    while context > 32 and text_tokens < WINDOWS_LEAST * context:
        context //= 2
    return context, "about a paragraph" if context == CONTEXT else f"the text is short, about {text_tokens:,.0f} tokens"


def make_plan(
    options: PretrainConfig, text: Text, vocab: int, context: int, machine: Measuring, *,
    spent: Callable[[], float], memory: float, threads: int = 1,
) -> PretrainingPlan:  # fmt: skip
    """The plan of a run. `spent` returns the seconds of the budget used so far, measurements included; `memory` is the
    free memory in MB.

    Raises RiyazError for an impossible shape, for a model that does not fit the memory and for too small a budget.
    """
    deriving = _Deriving(options, text, vocab, context, machine, spent, memory)
    shape, size, why = deriving.shape()
    config = deriving.config(shape)
    deriving.refuse_large(config, size)
    compute = options.compute or machine.quicker(config)
    deriving.refuse_large(config, size, compute)
    speed = machine.tokens_s(config, compute)
    values = [Value("model", f"{parameters(config) / 1e6:.2f} million parameters: {shape.layers} layers, "
                    f"{shape.heads} heads, width {shape.width}, vocabulary {vocab:,}", why)]  # fmt: skip
    batch, steps, reasons = deriving.length(config, speed)
    values += reasons
    tokens = rows_read(text.train_windows, batch, steps) * context
    epochs = tokens / text.train_tokens
    rate, why = learning_rate(shape.width)
    rate = options.lr or rate
    values.append(Value("learning rate", f"{rate:.2g}", _why(options.lr, why)))
    dropout = options.dropout if options.dropout is not None else 0.1 if epochs > EPOCHS_GOOD else 0.0
    values.append(Value("dropout", f"{dropout:g}", _why(options.dropout, f"{epochs:.1f} epochs of the text; "
                        f"dropout is used above {EPOCHS_GOOD} epochs")))  # fmt: skip
    values.append(Value("compute", compute, _why(options.compute, "the faster number type on this CPU")))
    every, windows, reasons = deriving.validations(batch, steps, speed)
    values += reasons
    saving = options.checkpoint_every or max(1, min(steps, round(CHECKPOINT_SECONDS * speed / (batch * context))))
    if local := options.local_steps:
        every, saving = (math.ceil(number / local) * local for number in (every, saving))
        why = f"then they agree; a validation every {every} steps and a checkpoint every {saving}, after such steps"
        values.append(Value("local steps", f"{local} of each process alone", why))
    train = {
        "steps": steps, "learning_rate": rate, "batch_size": batch, "warmup": 0.05, "final": 0.0, "betas": (0.9, 0.99),
        "weight_decay": 0.1, "dropout": dropout, "validate_every": every, "patience": PATIENCE,
        "checkpoint_every": saving, "micro_tokens": micro_tokens(context), "compute": compute,
        "seed": options.seed or 0,
    }  # fmt: skip
    if options.ternary:
        train["second"] = SECOND
        values.append(Value("ternary", f"{ternary_share(config):.0%} of the parameters", "weights -1, 0 and 1 times a "
                            "scale; from the middle on the learning rate is lower and no weight decays"))  # fmt: skip
    end = end_seconds(config, text, speed)
    seconds = spent() + tokens / speed / TRAINING + end
    estimate = {"seconds": seconds, "peak_rss_mb": memory_mb(config, compute, micro_tokens(context)),
                "disk_mb": parameters(config) * DTYPE_BYTES * DISK_COPIES / MB}  # fmt: skip
    model = {"family": config.model_type, **asdict(shape), "context": context, "vocab": vocab,
             "parameters": parameters(config), "ternary": bool(options.ternary)}  # fmt: skip
    effective = {
        "size": size, "budget": deriving.budget, "family": config.model_type, "context": context, **asdict(shape),
        "ternary": options.ternary,
        "batch": batch, "steps": steps, "lr": rate, "dropout": dropout, "compute": compute, "validate_every": every,
        "checkpoint_every": saving, "seed": options.seed or 0, "threads": threads,
        **({"local_steps": local} if local else {}),
    }  # fmt: skip
    return PretrainingPlan(
        effective, tuple(values), model, train, windows, tokens, flops_per_token(config), speed, end, estimate
    )


def learning_rate(width: int) -> tuple[float, str]:
    """(learning rate of a model of this width, reason)."""
    rate, why = min(RATE_MOST, RATE / width), f"{RATE} divided by the width {width}, at most {RATE_MOST}"
    return rate, f"{why}; linear warm-up, then cosine decay to zero"


@dataclass
class _Deriving:
    """The steps of `make_plan`, with the arguments that they share."""

    options: PretrainConfig
    text: Text
    vocab: int
    context: int
    machine: Measuring
    spent: Callable[[], float]
    memory: float

    @property
    def budget(self) -> float | None:
        """Seconds for the whole command; None where a size, a shape or a number of steps decides its length."""
        options = self.options
        if options.budget is not None:
            return float(options.budget)
        return None if options.size or options.steps or (options.layers and options.width) else float(BUDGET)

    def config(self, shape: Shape) -> ModelConfig:
        """The configuration of a shape."""
        return configured(family_of(self.options), shape, self.vocab, self.context)

    def refuse_large(self, config: ModelConfig, size: str | None, compute: str = "bfloat16") -> None:
        """Raises RiyazError when training needs more memory than is free; bfloat16 needs the least."""
        need = memory_mb(config, self.options.compute or compute, micro_tokens(self.context))
        what = f"{size or 'this model'} ({parameters(config) / 1e6:,.1f} million parameters)"
        hint = "choose a smaller --size, or --layers and --width"
        hardware.refuse_memory(what, need, self.memory, hint, "--size", " to train")

    def shape(self) -> tuple[Shape, str | None, str]:
        """(shape, name of its size or None, reason)."""
        options = self.options
        if options.size or options.steps or (options.layers and options.width):
            name, why = options.size or SMALLEST, "the smallest size, as none was given"
            why = "given" if own_shape(options) or options.size else why
        else:
            name, why = self._affordable()
        return shaped(options, SIZES[name]), None if own_shape(options) else name, why

    def _affordable(self) -> tuple[str, str]:
        """The size whose tokens per parameter within the budget are nearest to TOKENS_PER_PARAMETER, and the reason."""
        best, compute, tried, own = "", "bfloat16", dict[str, float](), own_shape(self.options)
        ratios = []
        for name, config in self._possible().items():
            if best:
                if self.memory and memory_mb(config, compute, micro_tokens(self.context)) > self.memory:
                    break
            else:
                self.refuse_large(config, None if own else name)
            compute = self.options.compute or self.machine.quicker(config)
            speed = self.machine.tokens_s(config, compute)
            tokens = min(speed * self._left(config, speed), EPOCHS_MOST * self.text.train_tokens)
            tried[name] = tokens / parameters(config)
            ratios.append(f"{f'{parameters(config) / 1e6:.2f} million' if own else name} {tried[name]:.1f}")
            if not best or _off(tried[name]) < _off(tried[best]):
                best = name
            if tried[name] < TOKENS_PER_PARAMETER:
                break
        why = f"about {TOKENS_PER_PARAMETER} tokens per parameter are best; budget and text allow"
        return best, f"{why} {', '.join(ratios)}"

    def _possible(self) -> dict[str, ModelConfig]:
        """The sizes that are possible with the given layers, heads or width. Raises RiyazError when none is."""
        configs = {}
        for name, shape in SIZES.items():
            with suppress(RiyazError):
                configs[name] = self.config(shaped(self.options, shape))
        return configs or {SMALLEST: self.config(shaped(self.options, SIZES[SMALLEST]))}

    def _left(self, config: ModelConfig, speed: float) -> float:
        """Seconds of training left in the budget. Raises RiyazError when there is at most one."""
        assert self.budget is not None
        spent, end = self.spent(), end_seconds(config, self.text, speed)
        left = (self.budget - spent - end) * TRAINING
        if left <= 1:
            what = f"the budget of {Seconds(self.budget)} is used up by what comes before the training ({spent:.0f}s)"
            what += f" and after it ({end:.0f}s)"
            raise RiyazError(what, "--budget", "give more time or less text")
        return left

    def length(self, config: ModelConfig, speed: float) -> tuple[int, int, list[Value]]:
        """(windows per step, number of steps, both with their reasons)."""
        options, text = self.options, self.text
        if options.steps is not None:
            batch = min(options.batch or max(1, 4096 // self.context), text.train_windows)
            return (
                batch,
                options.steps,
                [self._batch(batch, "4,096 tokens a step"), Value("steps", f"{options.steps:,}", "given")],
            )
        best, most = TOKENS_PER_PARAMETER * parameters(config), EPOCHS_MOST * text.train_tokens
        limits = [(best, f"{TOKENS_PER_PARAMETER} tokens per parameter")] if self.budget is None else []
        limits.append(
            (most, f"{EPOCHS_MOST} epochs of the {text.train_tokens:,} tokens of the text; more teach little")
        )
        if self.budget is not None:
            limits.append((int(speed * self._left(config, speed)), f"{speed:,.0f} tokens/s for the rest of the budget"))
        tokens, why = min(limits)
        least, largest = STEP_TOKENS
        wanted = min(max(2 ** round(math.log2(max(tokens / STEPS_WANTED, 1))), least), largest)
        batch = min(options.batch or max(1, wanted // self.context), text.train_windows)
        self._refuse_slow(config, batch, speed)
        steps = max(1, tokens // (batch * self.context))
        why = f"{why}: {tokens / 1e6:.2f} million tokens, {tokens / parameters(config):.1f} per parameter"
        return batch, steps, [self._batch(batch, f"about {STEPS_WANTED:,} steps"), Value("steps", f"{steps:,}", why)]

    def _refuse_slow(self, config: ModelConfig, batch: int, speed: float) -> None:
        """Raises RiyazError when one step takes longer than the budget has left."""
        seconds = batch * self.context / speed
        if self.budget is not None and seconds > (left := self._left(config, speed)):
            what = f"one step of {batch:,} windows takes about {seconds:,.0f}s"
            what += f" and the budget of {Seconds(self.budget)} has {left:,.0f}s of training left"
            flag = "--batch" if self.options.batch else "--budget"
            raise RiyazError(what, flag, "give more time or choose a smaller --batch or a smaller model")

    def _batch(self, batch: int, why: str) -> Value:
        tokens = batch * self.context
        if self.options.batch is not None:
            why = "given" if batch == self.options.batch else f"given, but the text has only {batch:,} windows"
        return Value("batch", f"{batch} windows of {self.context} tokens, {tokens:,} per step", why)

    def validations(self, batch: int, steps: int, speed: float) -> tuple[int, int, list[Value]]:
        """(steps between validations, windows per validation, both with their reasons)."""
        seconds = steps * batch * self.context / speed
        count = min(VALIDATIONS, max(4, int(seconds / VALIDATION_GAP)), steps)
        every = min(self.options.validate_every or math.ceil(steps / count), steps)
        affordable = int(VALIDATION_SHARE * FORWARD * batch * every)
        # not more than the finished model is judged on: the last validation and its figure are then the same
        windows = min(self.text.valid_windows, JUDGED, max(16, affordable))
        text = f"every {every} steps, on {windows:,} of {self.text.valid_windows:,} held-out windows"
        return every, windows, [Value("validation", text, f"at most about {VALIDATION_SHARE:.0%} of the time")]


def end_seconds(config: ModelConfig, text: Text, speed: float) -> float:
    """Seconds from the last step to the end of the command, for a model that trains on `speed` tokens per second."""
    judging = min(JUDGED, text.valid_windows) * config.context / (FORWARD * speed)
    return END_SECONDS + judging + parameters(config) * DTYPE_BYTES / WRITING


def differences(then: PretrainConfig, now: PretrainConfig, effective: dict[str, Any]) -> list[str]:
    """The flags of a resumed command that differ both from those given when the run began and from the values derived
    for it, as text; --tokenizer is not compared."""
    changed = []
    for name, value in now.explicit().items():
        first, derived = getattr(then, name), effective.get(name)
        if name != "tokenizer" and value not in (first, derived):
            was = derived if first is None else first
            old, new = (Seconds(v) if name == "budget" and v else v for v in (was, value))
            changed.append(f"--{name.replace('_', '-')} {new} instead of {'none' if old is None else old}")
    return changed


def rows_read(count: int, batch: int, steps: int) -> int:
    """Number of rows that `steps` steps train on; an epoch visits each of `count` rows once, in even batches."""
    an_epoch = -(-count // batch)
    epochs, place = divmod(steps, an_epoch)
    return epochs * count + place * count // an_epoch


def _off(ratio: float) -> float:
    """Distance of a tokens-per-parameter ratio from the best one: |log(ratio / best)|."""
    return abs(math.log(max(ratio, 1e-9) / TOKENS_PER_PARAMETER))


def _why(value: object, why: str) -> str:
    return why if value is None else "given"
