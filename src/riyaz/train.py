"""THE training loop: every method that learns weights, and pretraining, runs this one `for`.

It knows rows of tokens with labels and a model with some trainable parameters; it knows no methods. Matrix
products run in the compute type (bf16 where the CPU has it), the optimiser works on float32 masters.
Order and chance are pure functions of (seed, step), so a run that was stopped and resumed is the same run, bit for
bit.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from riyaz.checkpoint import Checkpoints, write_state
from riyaz.data.packing import PackedRows, batch, pack
from riyaz.data.rows import Row
from riyaz.errors import RiyazError
from riyaz.events import Listen, Note, Progress
from riyaz.layers.attention import packed
from riyaz.layers.loss import head_loss


class Diverged(RiyazError):
    """The loss or its gradient is no finite number."""


@dataclass(frozen=True)
class TrainPlan:
    """Everything that decides a run; two runs of the same plan on the same rows are the same."""

    steps: int
    learning_rate: float
    batch_size: int = 8  # rows per step
    warmup: float = 0.06  # share of the steps
    final: float = 0.1  # what the cosine ends at, a share of the learning rate
    betas: tuple[float, float] = (0.9, 0.999)  # of AdamW
    weight_decay: float = 0.0  # of matrices; norms and biases are never pulled to zero
    dropout: float = 0.0  # in a model that knows it
    clip: float = 1.0  # global gradient norm
    validate_every: int = 20  # steps
    patience: int = 5  # validations without a better loss before it stops
    checkpoint_every: int = 50  # steps
    micro_tokens: int = 2048  # tokens per forward pass, bounds the activations
    keep_best: bool = True  # end as the best checkpoint by validation, not as the last
    compute: str = "bfloat16"  # type of the matrix products
    seed: int = 0


@dataclass
class TrainState:
    """What a checkpoint remembers besides tensors."""

    step: int = 0
    best_loss: float = math.inf  # validation, nats per answer token
    best_step: int = 0
    worse: int = 0  # validations since the best
    seconds: float = 0.0
    tokens: int = 0
    history: list[dict] = field(default_factory=list)


def train(
    model: nn.Module, rows: Sequence[Row], valid: Sequence[Row], plan: TrainPlan, folder: Path, listen: Listen,
    look: Callable[[int], None] | None = None,
) -> TrainState:  # fmt: skip
    """Train the model's trainable parameters on `rows`; it ends as the best checkpoint by validation loss.

    Continues from the newest checkpoint in `folder`. Losses are nats per answer token. `look(step)` may use the model
    as it stands after every validation.
    """
    set_dropout(model, plan.dropout)
    masters = Masters(model, getattr(torch, plan.compute))
    optimizer = torch.optim.AdamW(
        masters.groups(plan.weight_decay), lr=plan.learning_rate, betas=plan.betas, fused=True
    )
    checkpoints = Checkpoints(folder, run_name(masters.named, rows, valid, plan))
    state = checkpoints.resume(masters.named, optimizer, TrainState)
    for lost in checkpoints.damaged:
        listen(Note(f"{lost} is damaged; training goes on from step {state.step}"))
    masters.publish()
    began = time.perf_counter() - state.seconds

    for step in range(state.step, plan.steps):
        if not model.training:
            model.train()
        torch.default_generator.manual_seed((plan.seed << 32 | step) % 2**63)  # of dropout
        picked = [rows[i] for i in batch(len(rows), plan.batch_size, plan.seed, step)]
        labels = sum(len(row.answer) for row in picked)

        nats = 0.0
        for micro in micro_batches(picked, plan.micro_tokens):
            loss = answer_nats(model, micro)
            (loss / labels).backward()  # gradients add up in the masters
            nats += loss.item()

        norm = torch.nn.utils.clip_grad_norm_(masters.parameters, plan.clip, foreach=True).item()
        if not (math.isfinite(nats) and math.isfinite(norm)):
            raise Diverged(f"the loss is {nats / labels} and the gradient {norm} at step {step + 1}",
                             hint="try a lower learning rate")  # fmt: skip
        rate = learning_rate(plan, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        masters.publish()

        state.step = step + 1
        state.tokens += sum(len(row.prompt) + len(row.answer) for row in picked)
        state.seconds = time.perf_counter() - began
        entry = {"step": state.step, "loss": nats / labels, "norm": norm, "learning_rate": rate}
        last = state.step == plan.steps
        if state.step % plan.validate_every == 0 or last:
            model.eval()
            entry["valid_loss"] = answer_loss(model, valid, plan.micro_tokens)
            if look:
                look(state.step)
            if entry["valid_loss"] < state.best_loss:
                state.best_loss, state.best_step, state.worse = entry["valid_loss"], state.step, 0
                if plan.keep_best:
                    checkpoints.save_best(masters.named, state.step, state.best_loss)
            else:
                state.worse += 1
        state.history.append(entry)
        left = (plan.steps - state.step) * state.seconds / state.step
        listen(Progress("train", state.step, plan.steps, loss=entry["loss"], seconds_left=left, metrics=entry))
        if state.worse >= plan.patience:
            break
        if state.step % plan.checkpoint_every == 0 and not last:
            checkpoints.save(masters.named, optimizer, state)

    del optimizer  # its moments are not needed any more, and reading the best weights takes memory
    if plan.keep_best and state.best_step:
        found = checkpoints.load_best(masters.named)
        if found is None:
            listen(Note(f"{checkpoints.best} is damaged or gone; the last weights are kept"))
        state.best_step, state.best_loss = found or (state.step, state.history[-1]["valid_loss"])
    masters.publish()
    masters.detach()
    write_state(folder / "state.json", state)
    return state


def run_name(masters: Mapping[str, Tensor], rows: Sequence[Row], valid: Sequence[Row], plan: TrainPlan) -> str:
    """A hash of what a run is given, the starting weights' shapes for the weights themselves; rows that say what they
    are by their `sha256` are not read."""
    shapes = {name: master.shape for name, master in masters.items()}
    tokens = [getattr(part, "sha256", None) or [(row.prompt, row.answer) for row in part] for part in (rows, valid)]
    return hashlib.sha256(json.dumps([asdict(plan), shapes, tokens]).encode()).hexdigest()


def learning_rate(plan: TrainPlan, step: int) -> float:
    """Linear warm-up, then a cosine to the plan's `final`, for the step counted from 0."""
    warm = max(1, round(plan.warmup * plan.steps))
    if step < warm:
        return plan.learning_rate * (step + 1) / warm
    done = (step - warm) / max(1, plan.steps - warm)
    return plan.learning_rate * (plan.final + (1 - plan.final) / 2 * (1 + math.cos(math.pi * done)))


def set_dropout(model: nn.Module, share: float) -> None:
    """What share of the numbers its dropout layers leave out while it trains."""
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = share


def micro_batches(rows: Sequence[Row], budget: int) -> Iterator[PackedRows]:
    """Whole rows packed end to end, at most `budget` tokens each (a longer row stands alone)."""
    group: list[Row] = []
    size = 0
    for row in rows:
        length = len(row.prompt) + len(row.answer)
        if group and size + length > budget:
            yield pack(group)
            group, size = [], 0
        group.append(row)
        size += length
    if group:
        yield pack(group)


def answer_nats(model: Any, rows: PackedRows) -> Tensor:
    """Sum of −log p over the answer tokens, in nats; the head runs on labelled positions only."""
    tokens, positions = torch.from_numpy(rows.tokens), torch.from_numpy(rows.positions)
    hidden = model(tokens, positions, packed(rows.lengths).behind(rows.shared))  # (T, C)
    if len(rows.labels) < len(hidden):
        hidden = hidden.index_select(0, torch.from_numpy(rows.label_index))  # (N, C)
    cap = getattr(model.config, "logit_cap", None)  # only some families have one
    return head_loss(hidden, model.lm_head.weight, torch.from_numpy(rows.labels), cap)


@torch.no_grad()
def answer_loss(model: nn.Module, rows: Sequence[Row], micro_tokens: int = 2048) -> float:
    """Mean nats per answer token, end token included."""
    nats = sum(answer_nats(model, micro).item() for micro in micro_batches(rows, micro_tokens))
    return nats / sum(len(row.answer) for row in rows)


class Masters:
    """Float32 copies of the trainable parameters: bf16 has too few bits to add small steps to."""

    def __init__(self, model: nn.Module, compute: torch.dtype) -> None:
        self.pairs: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        self.hooks = []
        for name, working in model.named_parameters():
            if working.requires_grad:
                master = nn.Parameter(working.detach().float().clone())
                working.data = master.data.to(compute)  # the master itself where that is float32
                self.pairs[name] = (working, master)
                self.hooks.append(working.register_post_accumulate_grad_hook(_collect(master)))
        self.parameters = [master for _, master in self.pairs.values()]
        self.rounded = [pair for pair in self.pairs.values() if pair[0].dtype != torch.float32]
        self.named = {name: master for name, (_, master) in self.pairs.items()}

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """The masters as the optimiser takes them: matrices, which decay, and the rest."""
        matrices = [master for master in self.parameters if master.ndim > 1]
        rest = [master for master in self.parameters if master.ndim < 2]
        return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the model."""
        if self.rounded:
            torch._foreach_copy_([working for working, _ in self.rounded], [master for _, master in self.rounded])

    def detach(self) -> None:
        """Give the model its trained values back in float32 and let it go."""
        for hook in self.hooks:
            hook.remove()
        for working, master in self.pairs.values():
            working.data = master.data


def _collect(master: nn.Parameter) -> Callable[[Tensor], None]:
    def hook(working: Tensor) -> None:
        grad = working.grad
        assert grad is not None
        if master.grad is None:
            master.grad = grad.float()
        else:
            master.grad.add_(grad)
        working.grad = None

    return hook
