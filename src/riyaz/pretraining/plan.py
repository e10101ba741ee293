"""The one dial: from a size or a budget to every number of a run, each with its reason. Torch-free.

Rules of thumb and where they come from: about 20 tokens for each parameter (Hoffmann et al. 2022, arXiv 2203.15556);
text that is repeated up to 4 times teaches nearly as much as new text and from about 16 times on very little
(Muennighoff et al. 2023, arXiv 2305.16264); the learning rate falls with the width (Yang et al. 2022, arXiv
2203.03466).
"""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from riyaz.config import PretrainConfig, Seconds
from riyaz.errors import RiyazError
from riyaz.files import Keys
from riyaz.hardware import MB
from riyaz.pretraining.shapes import (
    SIZES,
    Config,
    Shape,
    configured,
    flops_per_token,
    heads_for,
    memory_mb,
    micro_tokens,
    parameters,
)
from riyaz.results import RunTokenizer

SMALLEST = next(iter(SIZES))
BYTES = 257  # tokens of the smallest vocabulary
KINDS = ("bytes", "chars")  # tokenizers that are made by name; any other name is a folder
TOKENS_PER_PARAMETER = 20
EPOCHS_GOOD, EPOCHS_MOST = 4, 16
BUDGET = Seconds("15m")  # when nothing is said
CONTEXT = 256
WINDOWS_LEAST = 64  # a short text gets a smaller context, so that it has so many windows
VOCABULARIES = {4096: 500_000, 2048: 200_000, 1024: 60_000}  # tokens -> bytes of text that teach them
TRAINING = 0.9  # of what is left of the budget; the rest is for validation, samples, and writing the model
STEPS_WANTED = 2000
STEP_TOKENS = (1024, 16_384)  # least and most tokens of a step
FASTEST, RATE = 4e-3, 0.4  # learning rate: at most the one, and the other divided by the width
LOOKS, LOOK_SECONDS = 25, 10.0  # validations of a run, and the least time between two
VALIDATION_SHARE, FORWARD = 0.05, 3  # of the time; a forward pass costs a third of a step
CHECKPOINT_SECONDS = 30.0
PATIENCE = 10  # validations without a better loss
DTYPE_BYTES = 4
DISK_COPIES = 7  # a checkpoint of weights and two moments, the next one beside it, and the best weights


def check(asked: PretrainConfig) -> None:
    """Raises RiyazError where one option would have no effect beside another, and for a shape that no model has."""
    if asked.steps is not None and asked.budget is not None:
        raise RiyazError("has no effect beside --steps", "--budget", "give one of them")
    if asked.heads is None or asked.width or asked.size or asked.steps:  # else the size is chosen to fit the heads
        shape = shaped(asked, SIZES[asked.size or SMALLEST])
        configured(asked.family or "llama", shape, BYTES, asked.context or CONTEXT)


def own_shape(asked: PretrainConfig) -> bool:
    """Whether the shape is none of those that have a name."""
    return bool(asked.layers or asked.width or asked.heads)


def shaped(asked: PretrainConfig, shape: Shape) -> Shape:
    """The shape with the layers, heads and width that were given."""
    width = asked.width or shape.width
    heads = asked.heads or (shape.heads if width == shape.width else heads_for(width))
    return Shape(asked.layers or shape.layers, heads, width)


def absolute(asked: PretrainConfig) -> PretrainConfig:
    """The same options with the whole path of a tokenizer's folder, so that they hold from any working folder."""
    folder = asked.tokenizer is not None and asked.tokenizer not in KINDS
    return replace(asked, tokenizer=str(Path(str(asked.tokenizer)).absolute())) if folder else asked


class Measuring(Protocol):
    """What the plan asks of the machine (`speed.Machine`; tests give figures)."""

    def tokens_s(self, config: Config, compute: str) -> float:
        """Tokens per second of training."""

    def quicker(self, config: Config) -> str:
        """The type of the matrix products in which this model trains faster."""


@dataclass(frozen=True)
class Value:
    """One derived number and its reason, for people."""

    name: str
    value: str
    why: str


@dataclass(frozen=True)
class Text:
    """What the plan must know of the text: tokens and windows to learn from, windows to judge by."""

    train_tokens: int
    train_windows: int
    valid_windows: int


MODEL = Keys(family=Literal["llama", "gpt2"], layers=int, heads=int, width=int, context=int, vocab=int, parameters=int)
TRAIN = Keys(compute=Literal["bfloat16", "float32"], batch_size=int, micro_tokens=int, seed=int)
NEEDS = Keys(seconds=float, peak_rss_mb=float, disk_mb=float)


@dataclass(frozen=True)
class PretrainingPlan:
    """Everything that was decided; frozen in plan.json, so that a resumed run is the same run."""

    effective: dict[str, Any]  # by the names of the flags
    derived: tuple[Value, ...]
    model: Annotated[dict[str, Any], MODEL]
    train: Annotated[dict[str, Any], TRAIN]  # the fields of train.TrainPlan
    valid_windows: int
    tokens: int
    flops_per_token: float
    tokens_s: float
    estimate: Annotated[dict[str, float], NEEDS]

    @property
    def config(self) -> Config:
        """The configuration of the model."""
        shape = Shape(*(self.model[name] for name in ("layers", "heads", "width")))
        return configured(self.model["family"], shape, self.model["vocab"], self.model["context"])


TEXT = ("files", "bytes", "tokens", "train_tokens", "valid_tokens", "near_duplicates", "sha256")


@dataclass(frozen=True)
class Frozen:
    """plan.json: the plan, and what it was made on."""

    plan: PretrainingPlan
    versions: dict[str, str]
    threads: int
    peak_flops: float
    text: Annotated[dict[str, Any], Keys(**dict.fromkeys(TEXT[:-1], int), sha256=str, tokens_sha256=str)]
    tokenizer: RunTokenizer
    seconds: float


def kind_of_tokenizer(asked: PretrainConfig, text_bytes: int) -> tuple[str, int, str]:
    """(kind or folder, size of the vocabulary, why) of the tokenizer."""
    if asked.tokenizer is not None:
        return asked.tokenizer, 0, "given"
    for vocab, least in VOCABULARIES.items():
        if text_bytes >= least:
            return "bpe", vocab, f"{text_bytes / 1e6:.1f} MB of text show each of {vocab:,} pieces often enough"
    return "bytes", 0, f"{text_bytes / 1e3:.0f} kB of text are too little to learn pieces of words from"


def smaller(vocab: int) -> int | None:
    """The next smaller vocabulary to try, None when bytes are left."""
    return next((size for size in VOCABULARIES if size < vocab), None)


def context_for(asked: PretrainConfig, text_tokens: float) -> tuple[int, str]:
    """(tokens a model sees at once, why)."""
    if asked.context is not None:
        return asked.context, "given"
    context = CONTEXT
    while context > 32 and text_tokens < WINDOWS_LEAST * context:
        context //= 2
    return context, "enough for a paragraph" if context == CONTEXT else f"about {text_tokens:,.0f} tokens are few"


def make(
    asked: PretrainConfig, text: Text, vocab: int, context: int, machine: Measuring, *,
    spent: Callable[[], float], memory: float,
) -> PretrainingPlan:  # fmt: skip
    """The plan of a run. `spent` says how many seconds of the budget are gone, more after each measurement, and
    `memory` the megabytes that are free.

    Raises RiyazError for shapes that make no model and for a model that does not fit the memory.
    """
    deriving = _Deriving(asked, text, vocab, context, machine, spent, memory)
    shape, size, why = deriving.shape()
    config = deriving.config(shape)
    deriving.refuse_large(config, size)
    compute = asked.compute or machine.quicker(config)
    deriving.refuse_large(config, size, compute)
    speed = machine.tokens_s(config, compute)
    values = [Value("model", f"{parameters(config) / 1e6:.2f} million parameters: {shape.layers} layers, "
                    f"{shape.heads} heads, width {shape.width}, vocabulary {vocab:,}", why)]  # fmt: skip
    batch, steps, more = deriving.length(config, speed)
    values += more
    tokens = rows_read(text.train_windows, batch, steps) * context
    epochs = tokens / text.train_tokens
    rate = asked.lr or min(FASTEST, RATE / shape.width)
    values.append(Value("learning rate", f"{rate:.2g}", _why(asked.lr, f"{RATE} divided by the width {shape.width}, "
                        f"at most {FASTEST}; warm-up, then a cosine to zero")))  # fmt: skip
    dropout = asked.dropout if asked.dropout is not None else 0.1 if epochs > EPOCHS_GOOD else 0.0
    values.append(Value("dropout", f"{dropout:g}", _why(asked.dropout, f"the text is read {epochs:.1f} times; "
                        f"up to {EPOCHS_GOOD} times nothing is learned by heart")))  # fmt: skip
    values.append(Value("compute", compute, _why(asked.compute, "the quicker on this CPU")))
    every, windows, more = deriving.looks(batch, steps, speed)
    values += more
    saving = asked.checkpoint_every or max(1, min(steps, round(CHECKPOINT_SECONDS * speed / (batch * context))))
    train = {
        "steps": steps, "learning_rate": rate, "batch_size": batch, "warmup": 0.05, "final": 0.0, "betas": (0.9, 0.99),
        "weight_decay": 0.1, "dropout": dropout, "validate_every": every, "patience": PATIENCE,
        "checkpoint_every": saving, "micro_tokens": micro_tokens(context), "compute": compute,
        "seed": asked.seed or 0,
    }  # fmt: skip
    seconds = spent() + tokens / speed / TRAINING
    estimate = {"seconds": seconds, "peak_rss_mb": memory_mb(config, compute, micro_tokens(context)),
                "disk_mb": parameters(config) * DTYPE_BYTES * DISK_COPIES / MB}  # fmt: skip
    model = {"family": config.model_type, **asdict(shape), "context": context, "vocab": vocab,
             "parameters": parameters(config)}  # fmt: skip
    effective = {
        "size": size, "budget": deriving.budget, "family": config.model_type, "context": context, **asdict(shape),
        "batch": batch, "steps": steps, "lr": rate, "dropout": dropout, "compute": compute, "validate_every": every,
        "checkpoint_every": saving, "seed": asked.seed or 0,
    }  # fmt: skip
    return PretrainingPlan(
        effective, tuple(values), model, train, windows, tokens, flops_per_token(config), speed, estimate
    )


@dataclass
class _Deriving:
    """The steps of `make`, on what all of them need."""

    asked: PretrainConfig
    text: Text
    vocab: int
    context: int
    machine: Measuring
    spent: Callable[[], float]
    memory: float

    @property
    def budget(self) -> float | None:
        """Seconds of the whole command; None where a size or a number of steps says how long it takes."""
        asked = self.asked
        if asked.budget is not None:
            return float(asked.budget)
        return None if asked.size or asked.steps or (asked.layers and asked.width) else float(BUDGET)

    def config(self, shape: Shape) -> Config:
        """The configuration of a shape."""
        return configured(self.asked.family or "llama", shape, self.vocab, self.context)

    def refuse_large(self, config: Config, size: str | None, compute: str = "bfloat16") -> None:
        """Raises RiyazError when the model needs more memory than is free; in bfloat16 it needs the least."""
        need = memory_mb(config, self.asked.compute or compute, micro_tokens(self.context))
        if self.memory and need > self.memory:
            what = (
                f"{size or 'this model'} ({parameters(config) / 1e6:,.1f} million parameters) needs about {need:,.0f}"
            )
            hint = "choose a smaller --size, or --layers and --width"
            raise RiyazError(f"{what} MB of memory to train and {self.memory:,.0f} MB are free", "--size", hint)

    def shape(self) -> tuple[Shape, str | None, str]:
        """(shape, its size's name or None, why)."""
        asked = self.asked
        if asked.size or asked.steps or (asked.layers and asked.width):
            name, why = asked.size or SMALLEST, "the smallest: no size was given"
            why = "given" if own_shape(asked) or asked.size else why
        else:
            name, why = self._affordable()
        return shaped(asked, SIZES[name]), None if own_shape(asked) else name, why

    def _affordable(self) -> tuple[str, str]:
        """The size whose share of tokens to parameters in the budget is nearest to what is best."""
        best, compute, tried, own = "", "bfloat16", dict[str, float](), own_shape(self.asked)
        said = []
        for name, config in self._possible().items():
            if best:
                if self.memory and memory_mb(config, compute, micro_tokens(self.context)) > self.memory:
                    break
            else:
                self.refuse_large(config, None if own else name)
            compute = self.asked.compute or self.machine.quicker(config)
            speed = self.machine.tokens_s(config, compute)
            tokens = min(speed * self._left(), EPOCHS_MOST * self.text.train_tokens)
            tried[name] = tokens / parameters(config)
            said.append(f"{f'{parameters(config) / 1e6:.2f} million' if own else name} {tried[name]:.1f}")
            if not best or _off(tried[name]) < _off(tried[best]):
                best = name
            if tried[name] < TOKENS_PER_PARAMETER:
                break
        why = f"about {TOKENS_PER_PARAMETER} tokens for each parameter are best; the budget and the text allow"
        return best, f"{why} {', '.join(said)}"

    def _possible(self) -> dict[str, Config]:
        """The sizes that make a model with what was said of the shape. Raises RiyazError when none does."""
        found = {}
        for name, shape in SIZES.items():
            with suppress(RiyazError):
                found[name] = self.config(shaped(self.asked, shape))
        return found or {SMALLEST: self.config(shaped(self.asked, SIZES[SMALLEST]))}

    def _left(self) -> float:
        """Seconds of training that the budget still holds. Raises RiyazError when there are none."""
        assert self.budget is not None
        spent = self.spent()
        left = (self.budget - spent) * TRAINING
        if left <= 1:
            what = f"the budget of {Seconds(self.budget)} is over before training begins ({spent:.0f}s)"
            raise RiyazError(what, "--budget", "give more time or less text")
        return left

    def length(self, config: Config, speed: float) -> tuple[int, int, list[Value]]:
        """(rows of a step, steps, both with their reasons)."""
        asked, text = self.asked, self.text
        if asked.steps is not None:
            batch = min(asked.batch or max(1, 4096 // self.context), text.train_windows)
            return (
                batch,
                asked.steps,
                [self._batch(batch, "4,096 tokens a step"), Value("steps", f"{asked.steps:,}", "given")],
            )
        best, most = TOKENS_PER_PARAMETER * parameters(config), EPOCHS_MOST * text.train_tokens
        limits = [(best, f"{TOKENS_PER_PARAMETER} tokens for each parameter")] if self.budget is None else []
        limits.append(
            (most, f"{EPOCHS_MOST} times the {text.train_tokens:,} tokens of the text; more repetition teaches little")
        )
        if self.budget is not None:
            limits.append((int(speed * self._left()), f"what {speed:,.0f} tokens/s reach in the budget"))
        tokens, why = min(limits)
        least, largest = STEP_TOKENS
        wanted = min(max(2 ** round(math.log2(max(tokens / STEPS_WANTED, 1))), least), largest)
        batch = min(asked.batch or max(1, wanted // self.context), text.train_windows)
        self._refuse_slow(batch, batch * self.context / speed)
        steps = max(1, tokens // (batch * self.context))
        said = f"{why}: {tokens / 1e6:.2f} million tokens, {tokens / parameters(config):.1f} for each parameter"
        return batch, steps, [self._batch(batch, f"about {STEPS_WANTED:,} steps"), Value("steps", f"{steps:,}", said)]

    def _refuse_slow(self, batch: int, seconds: float) -> None:
        """Raises RiyazError when the budget is over before one step of so many seconds is."""
        if self.budget is not None and seconds > (left := self._left()):
            what = f"one step of {batch:,} windows takes about {seconds:,.0f}s"
            what += f" and the budget of {Seconds(self.budget)} holds {left:,.0f}s of training"
            flag = "--batch" if self.asked.batch else "--budget"
            raise RiyazError(what, flag, "give more time or choose a smaller --batch or a smaller model")

    def _batch(self, batch: int, why: str) -> Value:
        tokens = batch * self.context
        if self.asked.batch is not None:
            why = "given" if batch == self.asked.batch else f"given, but the text has {batch:,} windows"
        return Value("batch", f"{batch} windows of {self.context} tokens, {tokens:,} a step", why)

    def looks(self, batch: int, steps: int, speed: float) -> tuple[int, int, list[Value]]:
        """(steps between validations, windows of one, both with their reasons)."""
        seconds = steps * batch * self.context / speed
        looks = min(LOOKS, max(4, int(seconds / LOOK_SECONDS)), steps)
        every = min(self.asked.validate_every or math.ceil(steps / looks), steps)
        affordable = int(VALIDATION_SHARE * FORWARD * batch * every)
        windows = min(self.text.valid_windows, max(16, affordable))
        said = f"every {every} steps, on {windows:,} of {self.text.valid_windows:,} held-out windows"
        return every, windows, [Value("validation", said, f"{VALIDATION_SHARE:.0%} of the time")]


def differences(then: PretrainConfig, now: PretrainConfig, effective: dict[str, Any]) -> list[str]:
    """What of a resumed command is neither what was said when the run began nor what was derived for it, in words; its
    tokenizer is not looked at."""
    found = []
    for name, value in now.given().items():
        said, derived = getattr(then, name), effective.get(name)
        if name != "tokenizer" and value not in (said, derived):
            was = derived if said is None else said
            old, new = (Seconds(v) if name == "budget" and v else v for v in (was, value))
            found.append(f"--{name.replace('_', '-')} {new} instead of {'none' if old is None else old}")
    return found


def rows_read(count: int, batch: int, steps: int) -> int:
    """Rows that so many steps train on: every epoch takes each of `count` rows once, in even batches."""
    an_epoch = -(-count // batch)
    epochs, place = divmod(steps, an_epoch)
    return epochs * count + place * count // an_epoch


def _off(ratio: float) -> float:
    """How far from the best, in factors."""
    return abs(math.log(max(ratio, 1e-9) / TOKENS_PER_PARAMETER))


def _why(given: object, why: str) -> str:
    return why if given is None else "given"
