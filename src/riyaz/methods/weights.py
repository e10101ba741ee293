"""What the methods that train weights share: rows, the search for a rate, the final run, and the checks around them."""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from riyaz.adapters import Adapter
from riyaz.artifact import WeightsPart
from riyaz.data import Example
from riyaz.data.general_text import general_gaps, general_text
from riyaz.data.rows import Row, encode_rows
from riyaz.engine import Request
from riyaz.engine.engine import Engine
from riyaz.errors import RiyazError
from riyaz.events import Listen, Phase, Progress
from riyaz.files import read_json, write_json
from riyaz.methods.base import Build, Checks, Context, Fitted
from riyaz.methods.choices import choose, max_new_tokens
from riyaz.predictor import ADAPTER, predictor_for
from riyaz.scoring import KNOWN_BY

if TYPE_CHECKING:
    from riyaz.models.llama import Model

Save = Callable[[Any], tuple[WeightsPart, dict[str, Any]]]

WATCHED = KNOWN_BY  # validation rows that training looks at: all of them would take half of its time
STEP0_ROWS = 16
REPLAY_ANSWER = 8  # tokens at least, of a row of general text
CURVE = ("step", "loss", "valid_loss")
STEP0_TOLERANCE = 0.05  # nats per token between the training path and the engine; bf16 rounds differently in each


def fit_weights(context: Context, build: Build, save: Save, *, begins_as: tuple[int, ...] = ()) -> Fitted:
    """Search, train, check, and choose on validation whether to calibrate.

    What `build` makes says before training what the base says after the tokens `begins_as`.
    """
    import torch

    from riyaz.engine.torch.runner import TorchRunner
    from riyaz.train import train

    model = build(context)
    rows, checks = _rows(context, context.train, model.config.context)
    valid, _ = _rows(context, context.valid[:WATCHED], model.config.context)
    rows += replay_rows(context, rows)
    checks["step0_loss"] = _step0(context, model, valid[:STEP0_ROWS], begins_as)

    began = time.perf_counter()
    del model  # two whole models at once would be the peak of full fine-tuning
    rate, record = _search(context, build, rows, valid)
    model = build(context)
    search_seconds = time.perf_counter() - began

    began = time.perf_counter()
    before = _fingerprint(model)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    plan = _train_plan(context, context.arm.steps, rate, context.arm.validate_every)
    state = train(model, rows, valid, plan, context.folder / "checkpoints", context.listen)
    train_seconds = time.perf_counter() - began
    if not math.isfinite(state.best_loss):
        raise RiyazError("the loss on validation rows is not finite", hint="raise --budget, for a longer search")
    checks["loss_finite"] = {"ok": math.isfinite(state.best_loss), "loss": state.best_loss}
    moved = sum(a != b for a, b in zip(before, _fingerprint(model)))
    checks["weights_moved"] = {"ok": moved > 0, "tensors": moved}

    compute = getattr(torch, context.compute)
    adapted = _adapted(model)
    if not adapted:  # the whole model learned: it is served in the type it was trained in
        model.to(compute)
    weights, files = save(model.requires_grad_(False))
    bare, adapter = _apart(model)
    lm = Engine(TorchRunner(bare))
    if adapted:
        lm.load(ADAPTER, adapter)
    prompted = context.around.read_by(context.tokenizer, lm, ADAPTER if adapted else None)
    choice = choose(context, [predictor_for(prompted, max_new_tokens=max_new_tokens(context))])
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
    """General text in the shape of the task's rows, so that it makes up the asked share of rows and of labels alike.

    It lies between the blocks that forgetting is measured on. Rehearsal against forgetting: Robins 1995.
    """
    count = round(len(rows) * context.replay / (1 - context.replay))
    if not count:
        return []
    prompt = round(sum(len(row.prompt) for row in rows) / len(rows))
    answer = max(REPLAY_ANSWER, round(sum(len(row.answer) for row in rows) / len(rows)))
    stream = context.tokenizer.encode(general_text(context.general))
    gaps = [gap for gap in general_gaps(stream) if len(gap) >= prompt + answer]
    if not gaps:
        raise RiyazError("the general text is too short to rehearse on", context.general or "", "give more of it")
    found = []
    for i in range(count):
        gap = gaps[i % len(gaps)]
        start = (i // len(gaps)) * (prompt + answer) % (len(gap) - prompt - answer + 1)
        text = gap[start : start + prompt + answer]
        found.append(Row((*context.tokenizer.beginning, *text[:prompt]), tuple(text[prompt:])))
    return found


def rows_for(context: Context, examples: Sequence[Example]) -> list[Row]:
    """Training rows of examples under the text of the context."""
    from riyaz.families import describe

    return _rows(context, examples, describe(context.source).config.context)[0]


def _rows(context: Context, examples: Sequence[Example], longest: int) -> tuple[list[Row], Checks]:
    """Examples under the context's text as token rows, with the checks made on them."""
    conversations = context.around.conversations([example.messages for example in examples])
    return encode_rows(context.tokenizer, list(zip(conversations, examples)), longest)


def _step0(context: Context, model: "Model", rows: Sequence[Row], before: tuple[int, ...]) -> dict[str, Any]:
    """Before any step the training path must give the base's own loss on the same tokens, and less than chance."""
    import torch

    from riyaz.engine.torch.runner import TorchRunner
    from riyaz.layers import lora
    from riyaz.layers.soft_prompt import SoftPrompt
    from riyaz.train import answer_loss

    training = answer_loss(model, rows)
    # asked without an adapter, so that one that is not the identity at the start is seen
    bare = model.base if isinstance(model, SoftPrompt) else model
    with torch.inference_mode(), lora.enabled(bare, False):
        base = Engine(TorchRunner(bare))
        requests = [Request(place, row.prompt, prefix=before) for place, row in enumerate(rows)]
        found = base.logprobs(requests, [row.answer for row in rows])
    expected = -float(sum(part.sum() for part in found) / sum(map(len, found)))
    ok = abs(training - expected) <= STEP0_TOLERANCE and training < math.log(model.config.vocab_size) + 1
    return {"ok": ok, "training": training, "base": expected}


def _search(context: Context, build: Build, rows: Sequence[Row], valid: Sequence[Row]) -> tuple[float, list[dict]]:
    """The learning rate that successive halving leaves, and its record.

    What was found is kept in `search.json`, so that a run that is continued does not search again.
    """
    from riyaz.train import Diverged, train

    folder, known = context.folder / "search", context.folder / "search.json"
    if known.exists():
        found = read_json(known)
        return found["rate"], found["record"]
    rates, record = list(context.arm.learning_rates), []
    for number, rung in enumerate(context.arm.rungs, 1):
        losses = {}
        for rate in rates:
            context.listen(Phase("search", f"round {number}, rate {rate:g}"))
            shutil.rmtree(folder, ignore_errors=True)  # of a search that was stopped, at whatever rate
            plan = replace(_train_plan(context, rung["steps"], rate, rung["steps"]), keep_best=False)
            try:
                losses[rate] = train(build(context), rows, valid, plan, folder, _as_search(context)).best_loss
            except Diverged:
                losses[rate] = math.inf
        shutil.rmtree(folder, ignore_errors=True)
        shown = {f"{rate:g}": loss if math.isfinite(loss) else None for rate, loss in losses.items()}
        record.append({"steps": rung["steps"], "losses": shown})
        rates = sorted(sorted(losses, key=losses.__getitem__)[: math.ceil(len(rates) / 2)])
        if not math.isfinite(losses[rates[0]]):
            raise RiyazError("the loss was not finite at any learning rate of the search")
    write_json(known, {"rate": rates[0], "record": record}, indent=None)
    return rates[0], record


def _as_search(context: Context) -> Listen:
    return lambda event: context.listen(replace(event, phase="search") if isinstance(event, Progress) else event)


def _train_plan(context: Context, steps: int, rate: float, validate_every: int) -> Any:
    from riyaz.train import TrainPlan

    return TrainPlan(
        steps=steps, learning_rate=rate, batch_size=context.arm.batch_size, validate_every=validate_every,
        checkpoint_every=context.arm.checkpoint_every, compute=context.compute, seed=context.seed,
    )  # fmt: skip


def _adapted(model: "Model") -> bool:
    """Whether an adapter learns beside frozen weights, and not the whole model."""
    return any(not parameter.requires_grad for parameter in model.parameters())


def _apart(model: Any) -> tuple[Any, Adapter]:
    """A trained model without its adapter, and the adapter."""
    from riyaz.layers import lora
    from riyaz.layers.soft_prompt import SoftPrompt

    if isinstance(model, SoftPrompt):
        return model.base, Adapter(soft_prompt=model.prompt.detach().float().numpy())
    return model, lora.detach(model)


def _fingerprint(model: "Model") -> list[float]:
    """One number per trainable tensor, to see that it moved."""
    return [p.detach().double().abs().sum().item() for p in model.parameters() if p.requires_grad]
