"""Training of weights, shared by LoRA, prompt tuning and full fine-tuning: rows, search for a learning rate, final run
and checks."""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riyaz.adapters import Adapter
from riyaz.artifact import WeightsPart
from riyaz.data import Example
from riyaz.data.general_text import replay_text
from riyaz.data.rows import Row, encode_rows
from riyaz.engine import Request
from riyaz.engine.engine import Engine
from riyaz.errors import RiyazError
from riyaz.events import Listen, Phase, Progress
from riyaz.files import from_json, read_json, write_json
from riyaz.methods.base import Build, Checks, Context, Fitted
from riyaz.methods.choices import answer_limit, choose
from riyaz.predictor import ADAPTER, predictor_for
from riyaz.scoring import REOPEN_ROWS

if TYPE_CHECKING:
    from riyaz.models.llama import Model

Save = Callable[[Any], tuple[WeightsPart, dict[str, Any]]]

VALID_ROWS = REOPEN_ROWS  # validation rows during training; all of them would take half of the training time
STEP0_ROWS = 16  # validation rows of the check before training
SHORTEST_REPLAY_ANSWER = 8  # labelled tokens of a row of general text
CURVE = ("step", "loss", "valid_loss")
STEP0_TOLERANCE = 0.05  # nats per token between the training code and the engine, which round differently in bf16
DAMAGED = "remove it, and the search is made again"


@dataclass(frozen=True)
class Search:
    """search.json: the best learning rate, and the losses of every round of the search."""

    rate: float
    record: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> "Search":
        """What a search.json holds. Raises RiyazError naming the place that is wrong."""
        search = from_json(cls, read_json(path, DAMAGED), str(path), DAMAGED)
        if not 0 < search.rate < 1:
            raise RiyazError(f"rate is {search.rate:g}", str(path), DAMAGED)
        return search


def fit_weights(context: Context, build: Build, save: Save, *, begins_as: tuple[int, ...] = ()) -> Fitted:
    """Search a learning rate, train, check, and choose on validation whether to calibrate.

    Before training, the loss must equal the base's after `begins_as`.
    """
    import torch

    from riyaz.engine.torch.runner import TorchRunner
    from riyaz.train import train

    model = build(context)
    rows, checks = _rows(context, context.train, model.config.context)
    valid, _ = _rows(context, context.valid[:VALID_ROWS], model.config.context)
    rows += replay_rows(context, rows)
    checks["step0_loss"] = _check_step0(model, valid[:STEP0_ROWS], begins_as)

    began = time.perf_counter()
    del model  # so that there are never two whole models in memory
    rate, record = _search(context, build, rows, valid)
    model = build(context)
    search_seconds = time.perf_counter() - began

    began = time.perf_counter()
    before = _tensor_sums(model)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    plan = _train_plan(context, context.arm.steps, rate, context.arm.validate_every)
    state = train(model, rows, valid, plan, context.folder / "checkpoints", context.listen)
    train_seconds = time.perf_counter() - began
    if not math.isfinite(state.best_loss):
        raise RiyazError("the loss on validation rows is not finite", hint="raise --budget for a longer search")
    checks["loss_finite"] = {"ok": math.isfinite(state.best_loss), "loss": state.best_loss}
    moved = sum(a != b for a, b in zip(before, _tensor_sums(model)))
    checks["weights_moved"] = {"ok": moved > 0, "tensors": moved}

    compute = getattr(torch, context.compute)
    adapted = _has_adapter(model)
    if not adapted:  # the whole model was trained: it answers in the compute type of the training
        model.to(compute)
    weights, files = save(model.requires_grad_(False))
    base, adapter = _detached(model)
    lm = Engine(TorchRunner(base))
    if adapted:
        lm.load(ADAPTER, adapter)
    prompted = context.prompt_text.read_by(context.tokenizer, lm, ADAPTER if adapted else None)
    choice = choose(context, [predictor_for(prompted, max_new_tokens=answer_limit(context))])
    shutil.rmtree(context.folder / "checkpoints")
    return Fitted(
        prompted.text, weights, context.files | files, calibrated=choice.calibrated,
        chosen={"learning_rate": rate, "steps": state.step, "best_step": state.best_step, "search": record,
                "calibrated": choice.calibrated, "tokens_s": state.tokens / state.seconds},
        checks=checks, search_seconds=search_seconds, train_seconds=train_seconds, trainable_params=trainable,
        valid_loss=state.best_loss, valid_score=choice.score,
        curve=[{key: entry[key] for key in CURVE if key in entry} for entry in state.history],
    )  # fmt: skip


def replay_rows(context: Context, rows: Sequence[Row]) -> list[Row]:
    """Rows of general text, against forgetting (rehearsal: Robins 1995). They have the average length of the task's
    rows, are the share `context.replay` of all rows, and lie evenly spaced in `replay_text`, which is never the text
    that forgetting is measured on."""
    count = round(len(rows) * context.replay / (1 - context.replay))
    if not count:
        return []
    prompt = round(sum(len(row.prompt) for row in rows) / len(rows))
    answer = max(SHORTEST_REPLAY_ANSWER, round(sum(len(row.answer) for row in rows) / len(rows)))
    stream = context.tokenizer.encode(replay_text())
    replay = []
    for i in range(count):
        start = i * (len(stream) - prompt - answer) // max(1, count - 1)
        text = stream[start : start + prompt + answer]
        replay.append(Row((*context.tokenizer.beginning, *text[:prompt]), tuple(text[prompt:])))
    return replay


def rows_for(context: Context, examples: Sequence[Example]) -> list[Row]:
    """The token rows of examples, with the prompts of the context."""
    from riyaz.families import describe

    return _rows(context, examples, describe(context.source).config.context)[0]


def _rows(context: Context, examples: Sequence[Example], longest: int) -> tuple[list[Row], Checks]:
    """The token rows of examples, with the prompts of the context, and the results of the checks on them."""
    conversations = context.prompt_text.conversations([example.messages for example in examples])
    return encode_rows(context.tokenizer, list(zip(conversations, examples)), longest)


def _check_step0(model: "Model", rows: Sequence[Row], prefix: tuple[int, ...]) -> dict[str, Any]:
    """The check that the loss before training equals the base's in the engine after `prefix`, and is below chance."""
    import torch

    from riyaz.engine.torch.runner import TorchRunner
    from riyaz.layers import lora
    from riyaz.layers.soft_prompt import SoftPrompt
    from riyaz.train import answer_loss

    training = answer_loss(model, rows)
    # with the adapter off, so that an untrained adapter that changes the output is noticed
    base = model.base if isinstance(model, SoftPrompt) else model
    with torch.inference_mode(), lora.enabled(base, False):
        requests = [Request(place, row.prompt, prefix=prefix) for place, row in enumerate(rows)]
        logprobs = Engine(TorchRunner(base)).logprobs(requests, [row.answer for row in rows])
    expected = -float(sum(answer.sum() for answer in logprobs) / sum(map(len, logprobs)))
    ok = abs(training - expected) <= STEP0_TOLERANCE and training < math.log(model.config.vocab_size) + 1
    return {"ok": ok, "training": training, "base": expected}


def _search(context: Context, build: Build, rows: Sequence[Row], valid: Sequence[Row]) -> tuple[float, list[dict]]:
    """The best learning rate by successive halving, and the losses of every round.

    The result is kept in `search.json`, so that a resumed run does not search again.
    """
    from riyaz.train import Diverged, train

    folder, result = context.folder / "search", context.folder / "search.json"
    if result.exists():
        finished = Search.read(result)
        return finished.rate, finished.record
    rates, record = list(context.arm.learning_rates), []
    for number, rung in enumerate(context.arm.rungs, 1):
        losses = {}
        for rate in rates:
            context.listen(Phase("search", f"round {number}, rate {rate:g}"))
            shutil.rmtree(folder, ignore_errors=True)  # left by a stopped search, perhaps of another rate
            plan = replace(_train_plan(context, rung["steps"], rate, rung["steps"]), keep_best=False)
            try:
                losses[rate] = train(build(context), rows, valid, plan, folder, _as_search(context)).best_loss
            except Diverged:
                losses[rate] = math.inf
        shutil.rmtree(folder, ignore_errors=True)
        finite = {f"{rate:g}": loss if math.isfinite(loss) else None for rate, loss in losses.items()}
        record.append({"steps": rung["steps"], "losses": finite})
        rates = sorted(sorted(losses, key=losses.__getitem__)[: math.ceil(len(rates) / 2)])
        if not math.isfinite(losses[rates[0]]):
            raise RiyazError("the loss was not finite at any learning rate of the search")
    write_json(result, Search(rates[0], record), indent=None)
    return rates[0], record


def _as_search(context: Context) -> Listen:
    """A listener that passes events on, the progress of training as that of the search."""
    return lambda event: context.listen(replace(event, phase="search") if isinstance(event, Progress) else event)


def _train_plan(context: Context, steps: int, rate: float, validate_every: int) -> Any:
    from riyaz.train import TrainPlan

    return TrainPlan(
        steps=steps, learning_rate=rate, batch_size=context.arm.batch_size, validate_every=validate_every,
        checkpoint_every=context.arm.checkpoint_every, compute=context.compute, seed=context.seed,
    )  # fmt: skip


def _has_adapter(model: "Model") -> bool:
    """Whether some weights are frozen, which means that an adapter is trained and not the whole model."""
    return any(not parameter.requires_grad for parameter in model.parameters())


def _detached(model: Any) -> tuple[Any, Adapter]:
    """The base of a trained model, without the adapter, and the adapter (an empty one if the whole model was
    trained)."""
    from riyaz.layers import lora
    from riyaz.layers.soft_prompt import SoftPrompt

    if isinstance(model, SoftPrompt):
        return model.base, Adapter(soft_prompt=model.prompt.detach().float().numpy())
    return model, lora.detach(model)


def _tensor_sums(model: "Model") -> list[float]:
    """The sum of absolute values of every trainable tensor, to check that training changed it."""
    return [p.detach().double().abs().sum().item() for p in model.parameters() if p.requires_grad]
