"""`Method`, one way of adapting a model; `Context`, the input of its `fit`; `Fitted`, the result.

A method sees training and validation rows, never the test rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from riyaz.artifact import MODEL_FREE, WEIGHT_KINDS, TextPart, WeightsPart
from riyaz.config import Kind, Measure, Precision
from riyaz.data import Example
from riyaz.data.rows import Wanted
from riyaz.data.task import Task
from riyaz.events import Listen
from riyaz.json_files import OPTIONAL
from riyaz.methods.fitting.recipe import NOTHING, ByHand, Recipe
from riyaz.methods.fitting.start import Start
from riyaz.predictor import ModelPredictor, PromptText
from riyaz.ranks import ALONE, Ranks
from riyaz.results import About, arm_name
from riyaz.sources import Source
from riyaz.text.tokenizer import Tokenizer

Checks = dict[str, dict[str, Any]]  # name -> {"ok": bool, …}


@dataclass(frozen=True)
class ArmPlan:
    """The budget of one arm: estimated seconds by part (start, fit, search, train, evaluate) and training steps."""

    method: str
    seconds: dict[str, float] = field(default_factory=dict)
    steps: int = 0  # of the final training run
    recipe_steps: int = 0  # of the full recipe
    batch_size: int = 0
    learning_rates: tuple[float, ...] = ()
    opening: int = 0  # first steps, which every rate trains and the best one's run continues
    validate_every: int = 0
    checkpoint_every: int = 0
    skipped: str = ""  # why the arm does not run; "" if it does
    ruled_out: str = ""  # why it counts as no better if it is skipped, or cut far below; "" if it may be better
    # "opened": its opening is trained; "begun": it runs, or has run, as planned here
    state: Literal["planned", "opened", "begun"] = "planned"
    waits: bool = False  # behind after the openings, or the first to be left out: it takes what the others leave
    behind: bool = False  # its opening was worse than the best one beyond chance
    step_seconds: float = 0.0  # of one step
    train_limit: float = 0.0  # seconds of one part that the steps after the opening may take; 0: no limit
    after_seconds: float = 0.0  # of one part from its last step to the end of its evaluation
    pace: float = 1.0  # factor between `seconds` and the same by the speeds that were measured at first
    refit: bool = False  # whether it is trained once more with the validation rows, after these have chosen
    had: int = 0  # steps of an earlier run, whose products stay until this one begins
    took: float = 0.0  # wall seconds of its processes, once it has run
    base: str | None = field(default=None, metadata=OPTIONAL)  # where a comparison has several; None: it uses none

    @property
    def name(self) -> str:
        """The arm's name, which its folder has too."""
        return arm_name(self.method, self.base)

    @property
    def cut(self) -> bool:
        """Whether the arm trains fewer steps than its recipe."""
        return self.steps < self.recipe_steps


@dataclass(frozen=True)
class Context:
    """The input of a method's `fit`.

    `prompt_text` makes the prompts of all rows, also of those that weights are trained on. `files` are the files that
    its text part needs in the artifact.
    """

    source: Source
    tokenizer: Tokenizer
    task: Task
    train: tuple[Example, ...]
    valid: tuple[Example, ...]
    arm: ArmPlan
    valid_rows: int  # the first so many of `valid` are used to choose between candidates
    compute: str  # "bfloat16" or "float32"
    seed: int
    folder: Path  # for checkpoints and temporary files
    listen: Listen
    prompt_text: PromptText
    files: dict[str, Path | bytes] = field(default_factory=dict)
    collection: Path | None = None  # the indexed documents, if the user gave any
    replay: float = 0.0  # share of general text among the tokens that are learned from
    replay_from: Path | None = None  # that text; None: the base's own
    precision: Precision = "auto"  # in which the artifact will be served
    hand: ByHand = NOTHING  # what the user chose; steps, rate and batch size are in `arm` already
    others: Mapping[str, Path] = field(default_factory=dict)  # folders of the runs that a method joins, by method
    instructions: tuple[str, ...] = ()  # the user's own, to be tried beside the task's
    wording: str | None = None  # the instruction that another arm has chosen
    teacher: Path | None = None  # the folder of what a teacher has answered
    # what a teacher predicts of answers, by `prompt_key`
    soft: Mapping[str, Wanted] = field(default_factory=dict)
    objective: Any = None  # a `train.Objective` of better and worse answers; None: −log p of the accepted ones
    start: Start | None = None  # the artifact from which training goes on; None: from an untrained LoRA
    ranks: Ranks = ALONE  # the processes that train together, of which this one is the first


@dataclass(frozen=True)
class Timing:
    """Estimated seconds of a method without a language model: of `fit`, of opening its artifact, of an answer in a
    batch and of one alone; and what `fit` needs of memory and disk."""

    fit: float
    load: float
    row: float
    alone: float
    rss_mb: float = 0.0  # peak memory; 0: less than other methods need
    disk_mb: float = 0.0


@dataclass
class Fitted:
    """The result of `fit`: the parts of an artifact, the choices made, and measurements of the training."""

    text: TextPart
    weights: WeightsPart
    files: dict[str, Path | bytes] = field(default_factory=dict)
    calibrated: bool = False
    label_offsets: tuple[float, ...] = ()  # of a closed set's labels, where no null prompt corrects them
    temperature: float | None = None  # of a closed set's label scores; None: answers get no confidence from it
    temperatures: tuple[float, ...] = ()  # of the scores of each question's choices
    max_new_tokens: int | None = None  # longest answer; None: as the training answers require
    chosen: dict[str, Any] = field(default_factory=dict)  # the choices, for the result file
    checks: Checks = field(default_factory=dict)
    search_seconds: float = 0.0
    train_seconds: float = 0.0
    trainable_params: int = 0
    valid_loss: float | None = None  # nats per answer token on `valid`
    # the same of the artifact's weights, on the first rows of `valid`, where they have learned these too
    refit_loss: float | None = None
    valid_score: float | None = None
    curve: list[dict] = field(default_factory=list)  # {"step", "loss", maybe "valid_loss"} of the final run


Build = Callable[[Context], Any]  # a model with trainable parameters
# Of the candidates those that are best on the first so many validation rows are left, in so many (rows, candidates).
# They do not depend on the budget or the machine, so that the choice does not either.
Rounds = tuple[tuple[int, int], ...]
VALID_ROWS = 48  # validation rows of the last round
HALVED: Rounds = ((16, 2),)  # rounds before the last one, where more than two are compared


def instruction_only(task: Task) -> PromptText:
    """Prompts that hold only the task's instruction and the question."""
    return PromptText(text=TextPart(task.instruction), task=task)


def unchanged(context: Context) -> Context:
    """`with_prompt` of a method that adds nothing to the prompts."""
    return context


def with_context_prompt(plain: ModelPredictor, context: Context) -> ModelPredictor:
    """`probe` of a method that uses the context's prompts: `plain` with these prompts."""
    prompt = context.prompt_text
    return replace(plain, text=prompt.text, examples=prompt.examples, retriever=prompt.retriever)


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way of adapting a model: a row of the comparison's table, and what its time is estimated from."""

    name: str  # of its file
    about: About  # for readers: the report and the page
    fit: Callable[[Context], Fitted]
    candidates: int  # predictors that `fit` compares on the validation rows, at most; 0: it runs no model
    rounds: Rounds = HALVED  # in which it compares them
    # how many of them it compares where answers are labels, all of which it reads for every row; None: see `candidates`
    tried: Callable[[ModelPredictor], int] | None = None
    recipe: Recipe | None = None  # the full training; None: it trains nothing
    label_recipe: Recipe | None = None  # in place of `recipe` where the answers are labels
    build: Build | None = None  # makes a model with new trainable parameters; None without `recipe`
    with_prompt: Callable[[Context], Context] = unchanged  # adds this method's parts to the context's prompts
    # makes a predictor with prompts as long as this method's, from one with the instruction only, to measure its speed
    probe: Callable[[ModelPredictor, Context], ModelPredictor] = with_context_prompt
    prefix_tokens: int = 0  # tokens of context that a soft prompt takes before every prompt
    cost: float = 1.0  # seconds of one answer / seconds of the base model's
    # estimates the seconds of a method without `candidates` from a part of its work; None: a moment
    time: Callable[[Context], Timing] | None = None
    answers_per_row: float = 0.0  # times that `fit` answers each validation row of a short-answer task
    needs_documents: bool = False  # whether it needs --documents
    needs_labels: bool = False  # whether it answers closed sets only, and questions
    rehearses: bool = False  # whether it learns from general text beside the rows
    judged_by: tuple[Measure, ...] = ()  # metrics of rows with worse answers, of which it needs one; empty: any metric
    needs_teacher: bool = False  # whether it learns what a teacher answers
    goes_on: bool = False  # whether it can go on from an artifact's LoRA
    answers_questions: bool = True  # whether it answers several questions
    needs_model: str = ""  # a model, other than the base, that must have been pulled
    embeds: bool = False  # whether it uses vectors of the default embedder where that has been pulled
    own_training: bool = False  # whether `fit` trains with torch, by no Recipe
    of: tuple[str, ...] = ()  # methods of the same comparison whose artifacts it joins
    rate_of: str = ""  # the method whose learning rate it takes where that method takes part; "": it searches one
    instruction_of: str = ""  # the method whose instruction it tries too where that method has chosen one
    takes: tuple[str, ...] = ()  # options that it reads, beside those of a recipe: fields of ByHand, "instructions"
    # A budget that is too short for all leaves methods out in this order: those first that cost much for their chance
    # to be picked, the two without training last. Those that retrieve are among the last: somebody who gives documents
    # asks what they are worth.
    left_out: int = 0
    optional: bool = False  # whether it is left out where not every recipe fits, unless the user names it

    def __post_init__(self) -> None:
        """Check that `recipe` and `build` are given together, and the kind of the weights."""
        assert (self.recipe is None) == (self.build is None)
        assert self.about.weights in WEIGHT_KINDS
        assert self.about.language_model == (self.about.weights not in MODEL_FREE)

    @property
    def trains(self) -> bool:
        """Whether `fit` trains with torch."""
        return self.recipe is not None or self.own_training

    @property
    def whole(self) -> bool:
        """Whether it trains the whole model."""
        return self.about.weights == "full"

    @property
    def options(self) -> tuple[str, ...]:
        """The fields of ByHand that change this method."""
        return self.takes if self.recipe is None else (*self.takes, "epochs", "steps", "learning_rate", "batch_size")

    def for_task(self, kind: Kind, hand: ByHand = NOTHING) -> "Method":
        """The method with the recipe for this kind of task, changed by what the user chose."""
        recipe = (self.label_recipe if kind in ("closed", "questions") else None) or self.recipe
        return self if recipe is None else replace(self, recipe=recipe.by_hand(hand))


def combined(name: str, about: About, text: Method, weights: Method, *, left_out: int = 0) -> Method:
    """The method that trains weights as `weights` does, with the prompts of `text`.

    It gets one more share of the trained arms' time than `weights` alone, and its learning rate.
    """
    assert weights.recipe is not None

    def fit(context: Context) -> Fitted:
        return weights.fit(text.with_prompt(context))

    def probe(plain: ModelPredictor, context: Context) -> ModelPredictor:
        return weights.probe(plain, text.with_prompt(context))

    def with_prompt(context: Context) -> Context:
        return weights.with_prompt(text.with_prompt(context))

    return replace(
        weights, name=name, about=about, fit=fit, probe=probe, with_prompt=with_prompt,
        recipe=_shared(weights.recipe), label_recipe=weights.label_recipe and _shared(weights.label_recipe),
        rate_of=weights.rate_of or weights.name,
        needs_documents=text.needs_documents or weights.needs_documents, embeds=text.embeds or weights.embeds,
        left_out=left_out,
    )  # fmt: skip


def _shared(recipe: Recipe) -> Recipe:
    """The recipe with one more share of the trained arms' time."""
    return replace(recipe, share=recipe.share + 1)
