"""`Method`, one way of adapting a model, and what its `fit` gets and gives.

A method sees training and validation rows, never the test.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from riyaz.artifact import TextPart, WeightsPart
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.events import Listen
from riyaz.methods.recipe import Recipe
from riyaz.predictor import ModelPredictor, PromptText
from riyaz.sources import Source
from riyaz.tokenizer import Tokenizer

Checks = dict[str, dict[str, Any]]  # name -> {"ok": bool, …}


@dataclass(frozen=True)
class ArmPlan:
    """What one arm was granted: its seconds (start, fit, search, train, evaluate) and, if it trains, its steps."""

    method: str
    seconds: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    recipe_steps: int = 0
    batch_size: int = 0
    learning_rates: tuple[float, ...] = ()
    rungs: tuple[dict[str, int], ...] = ()  # {"rates", "steps"} of each round of the search
    validate_every: int = 0
    checkpoint_every: int = 0
    skipped: str = ""  # the reason

    @property
    def cut(self) -> bool:
        """Whether the arm trains less than its recipe."""
        return self.steps < self.recipe_steps


@dataclass(frozen=True)
class Context:
    """Everything a method may look at.

    `around` is the text that is put around a row; a method that trains weights learns under it. `files` are what this
    text part needs in the artifact.
    """

    source: Source
    tokenizer: Tokenizer
    task: Task
    train: tuple[Example, ...]
    valid: tuple[Example, ...]
    arm: ArmPlan
    valid_rows: int  # how many of `valid` choices are made on
    compute: str  # "bfloat16" or "float32"
    seed: int
    folder: Path  # for checkpoints and logs
    listen: Listen
    around: PromptText
    files: dict[str, Path | bytes] = field(default_factory=dict)
    collection: Path | None = None  # the documents, where the user gave some
    replay: float = 0.0  # share of general text among the training rows
    general: str | None = None  # file of that text


@dataclass
class Fitted:
    """The parts of an artifact, and how they came about."""

    text: TextPart
    weights: WeightsPart
    files: dict[str, Path | bytes] = field(default_factory=dict)
    calibrated: bool = False
    max_new_tokens: int | None = None  # room for an answer; None for what the task's answers need
    chosen: dict[str, Any] = field(default_factory=dict)
    checks: Checks = field(default_factory=dict)
    search_seconds: float = 0.0
    train_seconds: float = 0.0
    trainable_params: int = 0
    valid_loss: float | None = None  # nats per answer token on `valid`
    valid_score: float | None = None
    curve: list[dict] = field(default_factory=list)  # {"step", "loss", maybe "valid_loss"} of the final run


Build = Callable[[Context], Any]  # a model with trainable parameters


def bare(task: Task) -> PromptText:
    """The text around a row when nothing but the instruction is."""
    return PromptText(text=TextPart(task.instruction), task=task)


def unchanged(context: Context) -> Context:
    """`around` of a method whose prompts hold nothing but the instruction and the question."""
    return context


def under_its_text(plain: ModelPredictor, context: Context) -> ModelPredictor:
    """`probe` of a method that asks under the context's own text: `plain` with that text."""
    around = context.around
    return replace(plain, text=around.text, examples=around.examples, retriever=around.retriever)


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way of adapting a model: a row of the comparison's table."""

    name: str
    fit: Callable[[Context], Fitted]  # adapts: the parts of the artifact
    texts: int  # candidate texts that `fit` weighs on the validation rows; 0: it uses no model
    recipe: Recipe | None = None  # the full training; None: trains nothing
    build: Build | None = None  # a model with fresh trainable parameters; given with `recipe`
    around: Callable[[Context], Context] = unchanged  # the context with this method's text around every row
    probe: Callable[[ModelPredictor, Context], ModelPredictor] = (
        under_its_text  # `plain`, as slow as this method's predictor
    )
    tokens: int = 0  # positions of the context that its weights take before every prompt
    cost: float = 1.0  # seconds of one answer / seconds of the bare model's
    answered: float = 0.0  # times `fit` answers each validation row of a short-answer task
    needs_documents: bool = False  # whether it cannot do without --documents

    def __post_init__(self) -> None:
        """A method that trains says how long and what."""
        assert (self.recipe is None) == (self.build is None)


def combined(name: str, text: Method, weights: Method) -> Method:
    """The method that trains the weights of `weights` with the text of `text` around every row.

    Its recipe has one share of the trained arms' time for each of its parts.
    """
    assert weights.recipe is not None

    def fit(context: Context) -> Fitted:
        return weights.fit(text.around(context))

    def probe(plain: ModelPredictor, context: Context) -> ModelPredictor:
        return weights.probe(plain, text.around(context))

    def around(context: Context) -> Context:
        return weights.around(text.around(context))

    return replace(
        weights, name=name, fit=fit, probe=probe, around=around,
        recipe=replace(weights.recipe, share=weights.recipe.share + 1),
        needs_documents=text.needs_documents or weights.needs_documents,
    )  # fmt: skip
