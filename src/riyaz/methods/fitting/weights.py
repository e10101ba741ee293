"""Training of weights, shared by LoRA, prompt tuning and full fine-tuning: rows, search for a learning rate, final run
and checks."""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riyaz.adapters import Adapter
from riyaz.artifact import LABELS, WeightsPart
from riyaz.config import Precision
from riyaz.data import Example
from riyaz.data.packing import shared_tokens
from riyaz.data.rows import Row, divided_note, encode_rows, joined
from riyaz.engine import Request
from riyaz.engine.engine import Engine
from riyaz.engine.opening import open_engine
from riyaz.errors import RiyazError
from riyaz.events import Note
from riyaz.files import remove
from riyaz.hardware import trim
from riyaz.methods.fitting.base import Build, Checks, Context, Fitted
from riyaz.methods.fitting.choices import answer_limit, choose, label_scores
from riyaz.methods.fitting.held_out import write_held_out
from riyaz.methods.fitting.label_rows import (
    answers_as_labels,
    has_label_head,
    judged,
    put_label_head,
    valid_examples,
    with_label_head,
)
from riyaz.methods.fitting.learning_rate import (
    OPENINGS,
    Search,
    opening_folder,
    search,
    searches,
    train_plan,
    trained,
    try_rate,
)
from riyaz.methods.fitting.pacing import PACE, Paced, paced
from riyaz.methods.fitting.questions import fitted_temperatures
from riyaz.methods.fitting.recipe import refit_steps
from riyaz.methods.fitting.smallest import chooses_precision, chosen_precision, precision_scores
from riyaz.methods.fitting.taught import with_soft_labels, with_soft_tokens
from riyaz.metrics.calibration import fit_temperature
from riyaz.predictor import ADAPTER, LabelHead, ModelPredictor, predictor_for
from riyaz.rehearsal import rehearsal_of
from riyaz.results import REFITTED, PrecisionScore
from riyaz.scoring import REOPEN_ROWS, accepted_labels, answer_log_loss, predict, score
from riyaz.sources import open_source

if TYPE_CHECKING:
    from riyaz.models.llama import Model
    from riyaz.train import TrainPlan, TrainState

Save = Callable[[Any], tuple[WeightsPart, dict[str, Any]]]

STEP0_ROWS = 16  # validation rows of the check before training
CHECKPOINTS = ("checkpoints", "refit")  # folders of the run that is validated and of that on all rows
REFIT_BEGUN = "refit.begun"  # there once the second one has begun
# The opening of a model that is trained whole answers in 8 bits: half the memory of bfloat16, and an answer in about
# half of the time (docs/log.md). The precision of the trained one is chosen: `smallest`.
OPENING_PRECISION: Precision = "int8"
WRITTEN = "out"  # folder in that of the run where a method writes its weights; the artifact gets a copy
CURVE = ("step", "loss", "valid_loss", "valid_accuracy")
# The training code and the engine round differently, and a base in codes more so. Shares of the first loss, or of one
# nat per token where it is lower: from the first on their difference is reported, from the second on the arm fails.
STEP0_NOTED, STEP0_FAILED = 0.02, 0.05


class NotFinite(RiyazError):
    """Trained weights hold a NaN or an infinity."""


def fit_weights(context: Context, build: Build, save: Save, *, begins_as: tuple[int, ...] = ()) -> Fitted:
    """Search a learning rate, train, check, and choose on validation whether to calibrate.

    Before training, the loss of the answers' texts must equal the base's after `begins_as`, or that of the artifact
    from which training goes on.
    """
    from riyaz.train import validate

    model = build(context)
    rows, valid, checks = training_rows(context, model.config.context)
    texts, _ = _rows(context, context.valid[:STEP0_ROWS], model.config.context)
    start = context.start.adapter(context.source) if context.start else None
    checks["step0_loss"] = _check_step0(model, texts, begins_as, start)
    model = put_label_head(context, model)
    build, searched = with_label_head(context, build), searches(context)
    if searched:
        del model  # so that there are never two whole models in memory
    judging = judging_rows(context, valid)
    best = search(context, build, rows, judging)
    if searched:
        model = build(context)
    plan, opening = train_plan(context, best.rate, rows), opening_folder(context, best.rate)
    before = _tensor_sums(model)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    plan, adjust = paced(context, plan)
    state = trained(
        context, model, rows, judging, plan, context.folder / CHECKPOINTS[0], context.listen, begun=opening,
        adjust=adjust,
    )  # fmt: skip
    changes = Paced.read(context.folder / PACE).changes
    shortened = changes if changes and changes[-1][1] < plan.steps else ()
    if not math.isfinite(state.best_loss):
        raise RiyazError("the loss on validation rows is not finite", hint="give a lower --learning-rate")
    checks["loss_finite"] = {"ok": math.isfinite(state.best_loss), "loss": state.best_loss}
    moved = sum(a != b for a, b in zip(before, _finite_sums(model)))
    checks["weights_moved"] = {"ok": moved > 0, "tensors": moved}

    first_loss = validate(model, valid[:REOPEN_ROWS], plan.micro_tokens)["valid_loss"]
    model, head, weights, files = _saved(context, model, save)
    whole, precisions = weights.kind == "full", list[PrecisionScore]()
    if whole:
        precisions = _chosen_precisions(context, model, head)
    choice = choose(judged(context), [_answering(context, model, head, saved=whole)])
    calibration, predictor = dict[str, Any](), choice.predictor
    calibrated, valid_score = choice.calibrated, choice.score
    if head is not None:  # calibrated, since a head that is too sure multiplies rounding
        calibration = _calibrated(context, predictor)
        first_loss = answer_log_loss(replace(predictor, **calibration), context.valid[:REOPEN_ROWS])
    del choice, predictor, model  # so that there are never two whole models in memory
    last = None if head is None or shortened else _refit(context, build, rows, plan, state)
    refit_loss = None
    if last is not None:
        model, head, weights, files = _saved(context, last.model, save)
        if whole:
            _name_served(context, precisions)
        predictor = _answering(context, model, head, saved=whole)
        refit_loss = answer_log_loss(replace(predictor, **calibration), context.valid[:REOPEN_ROWS])
    for made in (*CHECKPOINTS, REFIT_BEGUN):
        remove(context.folder / made)
    if not context.arm.cut and not shortened:  # a run that was cut short can be continued from its opening
        shutil.rmtree(context.folder / OPENINGS, ignore_errors=True)
    return Fitted(
        context.prompt_text.text, weights, context.files | files, calibrated=calibrated, **calibration,
        chosen={"learning_rate": best.rate, "steps": state.step, "best_step": state.best_step,
                **({REFITTED: last.steps} if last else {}),
                "search": best.record, "calibrated": calibrated, "tokens_s": state.tokens / state.seconds,
                **({"label_head": True} if head else {}), **({"shortened": shortened} if shortened else {}),
                **({"precisions": [asdict(each) for each in precisions]} if precisions else {})},
        checks=checks, search_seconds=best.seconds,
        train_seconds=state.seconds + (last.seconds if last else 0.0), trainable_params=trainable,
        valid_loss=first_loss, valid_score=valid_score, refit_loss=refit_loss,
        curve=[{key: entry[key] for key in CURVE if key in entry} for entry in state.history],
    )  # fmt: skip


@dataclass(frozen=True)
class _Refit:
    """A model that was trained on all rows."""

    model: Any
    steps: int
    seconds: float


def _refit(
    context: Context, build: Build, rows: Sequence[Row], plan: "TrainPlan", first: "TrainState"
) -> _Refit | None:
    """Train a model anew on the validation rows too, which have made all choices: as many steps a row as the `first`
    run had at its best validation. Accuracy grows with the rows where a label has few.

    None if it is not planned, if the arm's time limit does not leave the time that it needs, or if training diverges.
    """
    from riyaz.train import Diverged

    arm, begun = context.arm, context.folder / REFIT_BEGUN
    steps = refit_steps(len(context.train), len(context.valid), max(1, first.best_step))
    limit = arm.train_limit and arm.train_limit - first.seconds * (1 - arm.opening / first.step)
    enough = not arm.train_limit or limit >= steps * first.seconds / first.step
    if not arm.refit or not (enough or begun.exists()):  # one that has begun goes on
        return None
    begun.touch()
    model = build(context)
    plan = replace(
        plan, steps=steps, steady=plan.steady * steps // plan.steps, validate_every=steps, keep_best=False, changes=()
    )
    every = all_rows(context, rows)
    try:
        last = trained(context, model, every, (), plan, context.folder / CHECKPOINTS[1], context.listen)
        _finite_sums(model)
    except (Diverged, NotFinite) as error:
        context.listen(Note(f"training on all rows is left out: {error}"))
        return None
    return _Refit(model, last.step, last.seconds)


def all_rows(context: Context, rows: Sequence[Row]) -> list[Row]:
    """The training rows and those of validation as they are trained on."""
    return [*rows, *rows_for(context, context.valid)]


def _calibrated(context: Context, predictor: ModelPredictor) -> dict[str, Any]:
    """The temperature of a head of labels, with which the validation rows' probabilities are kept as held out; or those
    of a head of several questions. As the predictor's and the artifact's field."""
    rows = context.valid[: judged(context).valid_rows]
    if predictor.has_questions:
        each = predictor.question_scores([row.messages for row in rows], [row.where for row in rows])
        return {"temperatures": fitted_temperatures(context.task, each, rows)}
    assert predictor.has_labels
    scores = label_scores(predictor, rows)
    temperature = fit_temperature(scores, accepted_labels(context.task, rows))
    write_held_out(context.folder, range(len(rows)), scores, temperature)
    return {"temperature": temperature}


def _saved(context: Context, model: Any, save: Save) -> tuple[Any, LabelHead | None, WeightsPart, dict[str, Any]]:
    """A trained model without gradients, its head of labels, and both as an artifact's part and files."""
    model, head = _finished(context, model)
    weights, files = save(model)
    if head is not None:
        weights, files = replace(weights, label_head=True), files | {LABELS: _written(context, head)}
    return model, head, weights, files


def _finite_sums(model: "Model") -> list[float]:
    """`_tensor_sums`. Raises NotFinite where training has left a NaN or an infinity."""
    sums = _tensor_sums(model)
    if not all(map(math.isfinite, sums)):  # rows of an embedding that no validation row reads are not in its loss
        raise NotFinite("the trained weights hold a NaN or an infinity", hint="give a lower --learning-rate")
    return sums


def begin_weights(context: Context, build: Build) -> Search:
    """Search a learning rate and score the best one's opening on validation rows, by the task's metric."""
    from riyaz.families import describe

    rows, valid, _ = training_rows(context, describe(context.source).config.context)
    shown = context.valid[: judged(context).valid_rows]

    def rated(model: Any) -> list[float]:
        predictor = _answering(context, *_finished(context, model))
        return [float(each) for each in score(context.task, predict(predictor, shown, task=context.task), shown).rows]

    return search(context, with_label_head(context, build), rows, judging_rows(context, valid), rated)


def try_weights(context: Context, build: Build, rate: float) -> None:
    """Train the opening at one learning rate, for a later `fit_weights` of the same run."""
    from riyaz.families import describe

    rows, valid, _ = training_rows(context, describe(context.source).config.context)
    try_rate(context, rate, with_label_head(context, build), rows, judging_rows(context, valid))


def _finished(context: Context, model: Any) -> tuple[Any, LabelHead | None]:
    """The trained model without gradients, and its head of labels. A model that was trained whole is in the compute
    type of its training, in which it answers."""
    import torch

    from riyaz.layers.swaps.label_head import LabelledModel

    head = None
    if isinstance(model, LabelledModel):
        model, head = model.base, LabelHead(model.rows())
    whole = all(parameter.requires_grad for parameter in model.parameters())
    return (model.to(getattr(torch, context.compute)) if whole else model).requires_grad_(False), head


def _written(context: Context, head: LabelHead) -> Path:
    """The file of a head of labels, beside the weights that the method has written."""
    path = context.folder / WRITTEN / LABELS
    path.parent.mkdir(exist_ok=True)
    head.write(path)
    return path


def _answering(context: Context, model: Any, head: LabelHead | None, saved: bool = False) -> ModelPredictor:
    """A predictor with a finished model in the engine and precision that will serve it. The model is empty afterwards:
    two would not always fit the memory. `saved`: a whole model is in the folder WRITTEN already; else it is written
    there, and removed."""
    from riyaz.models import save_hf

    base, adapter = _detached(model)
    adapted = bool(adapter.pairs) or adapter.soft_prompt is not None
    folder = context.folder / WRITTEN
    if not adapted and not saved:
        save_hf(base, context.tokenizer, folder, OPENING_PRECISION)
    _empty(model, base)
    if not adapted:
        predictor = _written_model(context, head, context.precision)
        if not saved:
            remove(folder)
        return predictor
    lm = open_engine(context.source, context.precision)
    lm.load(ADAPTER, adapter)
    prompted = context.prompt_text.read_by(context.tokenizer, lm, ADAPTER)
    return predictor_for(replace(prompted, head=head), max_new_tokens=answer_limit(context))


def _empty(*modules: Any) -> None:
    """Take the weights out of models that are read no more."""
    for module in modules:
        module._modules.clear()
        module._parameters.clear()
    trim()


def _written_model(context: Context, head: LabelHead | None, precision: Precision) -> ModelPredictor:
    """A predictor with the whole model in the folder WRITTEN."""
    lm = open_engine(open_source(context.folder / WRITTEN), precision)
    prompted = replace(context.prompt_text.read_by(context.tokenizer, lm, None), head=head)
    return predictor_for(prompted, max_new_tokens=answer_limit(context))


def _chosen_precisions(context: Context, model: Any, head: LabelHead | None) -> list[PrecisionScore]:
    """The written model in several precisions, where one may be chosen; its folder names the chosen one. The `model` is
    empty afterwards."""
    _empty(model)
    scores = list[PrecisionScore]()
    if chooses_precision(context):
        scores = precision_scores(context, lambda precision: _written_model(context, head, precision))
    _name_served(context, scores)
    return scores


def _name_served(context: Context, scores: Sequence[PrecisionScore]) -> None:
    """Let the written folder name the precision that the scores choose; without any the user's."""
    from riyaz.models import name_precision

    name_precision(context.folder / WRITTEN, chosen_precision(scores) if scores else context.precision)


def training_rows(context: Context, longest: int) -> tuple[list[Row], list[Row], Checks]:
    """(training rows with those of the replayed text, validation rows of the training, checks on the rows)."""
    rows, checks = _rows(context, context.train, longest)
    valid, _ = _rows(context, valid_examples(context), longest)
    learned = _learned(context, rows)
    if note := divided_note(learned) if not has_label_head(context) else "":
        context.listen(Note(note))
    return learned + rehearsed_rows(context, learned), answers_as_labels(context, valid), checks


def judging_rows(context: Context, valid: list[Row]) -> list[Row]:
    """The validation rows by which training is judged: without bad answers where it imitates, unless all are bad."""
    if context.objective is not None:
        return valid
    return [row for row in valid if row.example is None or row.example.desirable is not False] or valid


def rehearsed_rows(context: Context, rows: Sequence[Row]) -> list[Row]:
    """Rows of general text, against forgetting. They are the share `context.replay` of the tokens that are read, where
    what all rows begin with does not count; together they weigh as much as the task's rows."""
    if not context.replay:
        return []
    texts = rehearsal_of(context.source, context.tokenizer, context.precision, context.replay_from)
    shared = shared_tokens([row.prompt for row in rows])
    tokens = sum(row.tokens - len(row.sides) * shared for row in rows)
    count = max(1, round(context.replay / (1 - context.replay) * tokens / texts.length))
    return texts.rows(count, sum(row.weight for row in rows) / (count * (texts.length - 1)))


def rows_for(context: Context, examples: Sequence[Example], *, whole: bool = True) -> list[Row]:
    """The token rows of examples as they are trained on, with the prompts of the context; without `whole` each answer
    of a conversation in a row of its own, as in validation."""
    from riyaz.families import describe

    rows, _ = _rows(context, examples, describe(context.source).config.context)
    return _learned(context, rows) if whole else answers_as_labels(context, rows)


def _learned(context: Context, rows: Sequence[Row]) -> list[Row]:
    """The rows as they are trained on: a head of labels learns one answer behind each prompt, otherwise a conversation
    is one row. With what a teacher predicts each answer is a row of its own."""
    if has_label_head(context):
        return with_soft_labels(context, answers_as_labels(context, rows))
    return with_soft_tokens(context, rows) if context.soft else joined(rows)


def _rows(context: Context, examples: Sequence[Example], longest: int) -> tuple[list[Row], Checks]:
    """The token rows of examples, with the prompts of the context, and the results of the checks on them. With an
    objective of better and worse answers a row says which its answer is, or has both, and is left out where the worse
    one does not fit."""
    conversations = context.prompt_text.conversations([example.messages for example in examples])
    rows, checks = encode_rows(context.tokenizer, list(zip(conversations, examples)), longest)
    if context.objective is None:
        return rows, checks
    if context.task.metric == "thumbs":
        return [replace(row, desirable=row.example.desirable) for row in rows if row.example is not None], checks
    worse = [replace(example, answers=(example.rejected,)) for example in examples]
    others, _ = encode_rows(context.tokenizer, list(zip(conversations, worse)), longest)
    rejected = {(row.example.where, row.prompt): row.answer for row in others if row.example is not None}
    places = [(row, (row.example.where, row.prompt)) for row in rows if row.example is not None]
    return [replace(row, rejected=rejected[place]) for row, place in places if place in rejected], checks


def _check_step0(
    model: "Model", rows: Sequence[Row], prefix: tuple[int, ...], start: Adapter | None = None
) -> dict[str, Any]:
    """The check that the loss before training equals the base's in the engine after `prefix`, and is below chance; or
    that it equals the base's with the adapter `start`, from whose training it goes on."""
    import torch

    from riyaz.engine.torch.runner import TorchRunner
    from riyaz.layers.swaps import lora
    from riyaz.layers.swaps.soft_prompt import SoftPrompt
    from riyaz.train import answer_loss

    training = answer_loss(model, rows)
    # without the model's own adapter, so that an untrained one that changes the output is noticed, and so is one that
    # was not put on as the engine puts it
    base = model.base if isinstance(model, SoftPrompt) else model
    with torch.inference_mode(), lora.taken_off(base):
        engine, name = Engine(TorchRunner(base)), None
        if start is not None:
            name = ADAPTER
            engine.load(name, start)
        requests = [Request(place, row.prompt, prefix=prefix, adapter=name) for place, row in enumerate(rows)]
        logprobs = engine.logprobs(requests, [row.answer for row in rows])
    expected = -float(sum(answer.sum() for answer in logprobs) / sum(map(len, logprobs)))
    if start is None:
        return step0_check(training, expected, model.config.vocab_size)
    check = step0_check(training, expected, math.inf)  # one that answers by a head of labels may write anything
    return check | {"artifact": check.pop("base")}


def step0_check(training: float, base: float, vocabulary: float) -> dict[str, Any]:
    """The check on two first losses in nats per token, in training and of what it begins as: near each other, and below
    that of a guess among all tokens.

    `warning` says in words what is wrong, and what is only worth knowing.
    """
    apart = abs(training - base) / max(1.0, base)
    near, guess = apart <= STEP0_FAILED, math.log(vocabulary) + 1
    check: dict[str, Any] = {"ok": near and training < guess, "training": training, "base": base}
    if not apart <= STEP0_NOTED:  # also where it is not a number
        losses = f"the first loss is {training:.3f} nats per token in training and {base:.3f} in the engine"
        allowed = "which is within" if near else "which is more than"
        check["warning"] = f"{losses}, {allowed} the {STEP0_FAILED:.0%} that rounding explains"
    elif training >= guess:
        check["warning"] = (
            f"the first loss is {training:.3f} nats per token, above {guess:.3f} of a guess among all tokens"
        )
    return check


def _detached(model: Any) -> tuple[Any, Adapter]:
    """The base of a trained model, without the adapter, and the adapter (an empty one if the whole model was
    trained)."""
    from riyaz.layers.swaps import lora
    from riyaz.layers.swaps.soft_prompt import SoftPrompt

    if isinstance(model, SoftPrompt):
        return model.base, Adapter(soft_prompt=model.prompt.detach().float().numpy())
    return model, lora.detach(model)


def _tensor_sums(model: "Model") -> list[float]:
    """The sum of absolute values of every trainable tensor, to check that training changed it."""
    import torch

    sizes = (p.detach().abs() for p in model.parameters() if p.requires_grad)
    return [size.sum(dtype=torch.float64).item() for size in sizes]
