"""The one training loop, for pretraining and for every method that trains weights.

It takes rows of tokens with labels and a model with trainable parameters, and knows nothing of methods. Matrix products
run in the compute type (bf16 where the CPU has it), the optimiser keeps every weight in 32 bits (masters).
The order of rows depends on (seed, step) only, dropout on (seed, step, row), so a run that is stopped and resumed ends
with the same weights, bit for bit. Several processes may train one model (`ranks`), each a share of a step's rows.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from riyaz.checkpoint import Checkpoints, write_state
from riyaz.data.packing import PackedRows, batch, pack, padded, shared_tokens
from riyaz.data.rows import Row
from riyaz.errors import RiyazError
from riyaz.events import Listen, Note, Progress
from riyaz.layers.attention import packed
from riyaz.layers.divergence import top_divergence
from riyaz.layers.dropout import Dropout, dropping
from riyaz.layers.fast import memory
from riyaz.layers.fast.gradient_sums import GradientSums
from riyaz.layers.fast.local_masters import LocalMasters
from riyaz.layers.fast.masters import Masters
from riyaz.layers.fast.recompute import recomputing, widest
from riyaz.layers.fast.threads import tune_waiting
from riyaz.layers.loss import head_loss
from riyaz.layers.swaps.frozen import FrozenLinear, trainer
from riyaz.layers.swaps.label_head import LabelledModel
from riyaz.metrics.calibration import fit_temperature, log_losses, probabilities, right_probability
from riyaz.ranks import ALONE, Ranks

FORMAT, OF_CORPORA = 4, 2  # of checkpoints, and of those of a corpus, as 0.1 wrote them; another one is of another run
BF16_TOKENS = 16  # T is a multiple: oneDNN compiles bf16 products anew for every T and never frees all it compiled


class Diverged(RiyazError):
    """The loss or the norm of its gradient is not a finite number."""


Loss = Callable[[Any, PackedRows, GradientSums], Tensor]  # sum over the rows of a micro-batch, in nats
# from the model, all rows of a step and the tokens of a pass: the loss of each of the step's micro-batches
Objective = Callable[[Any, Sequence[Row], int], Loss]
# what a validation says of a model: `validate`
Judge = Callable[[Any, Sequence[Row], int], dict[str, float]]


@dataclass(frozen=True)
class TrainPlan:
    """The settings of a run: the same plan, starting weights and rows give the same trained weights."""

    steps: int
    learning_rate: float
    batch_size: int = 8  # rows per step
    warmup: float = 0.06  # share of the steps over which the learning rate rises
    final: float = 0.1  # learning rate at the end of the cosine, as a share of the highest
    steady: int = 0  # first steps in which the rate does not fall after its warm-up; then the cosine begins
    # in the second half of the schedule: the rate's share of what it would be; below 1 weights no longer decay there
    second: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)  # of AdamW
    weight_decay: float = 0.0  # of matrices; norms and biases do not decay
    dropout: float = 0.0  # probability, in the model's Dropout layers
    clip: float = 1.0  # largest global gradient norm
    validate_every: int = 20  # steps
    patience: int = 5  # validations in a row without a better result after which training stops
    checkpoint_every: int = 50  # steps
    micro_tokens: int = 1024  # at most in a forward pass, but for those that all rows begin with; bounds its memory
    keep_best: bool = True  # end with the weights that are best on validation rows, not the last ones
    compute: str = "bfloat16"  # or "float32": type of the matrix products
    seed: int = 0
    # (steps done, steps in all): from there on the run has that length, and the rest of the schedule as many steps
    changes: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        """Raises RiyazError for changes of length that no run can have made."""
        before, end = -1, self.steps
        for step, steps in self.changes:
            if not before < step < min(end, steps) or steps > self.steps:
                raise RiyazError(f"no run has the changes {self.changes}", "changes")
            before, end = step, steps

    @property
    def length(self) -> int:
        """Steps of the run after the last change."""
        return self.changes[-1][1] if self.changes else self.steps

    def place(self, step: int) -> float:
        """The step of the unchanged schedule whose learning rate `step` has."""
        at, since, steps = 0.0, 0, self.steps
        for begun, length in self.changes:
            if step <= begun:
                break
            at += (begun - since) * (self.steps - at) / (steps - since)
            since, steps = begun, length
        return at + (step - since) * (self.steps - at) / (steps - since)

    def opening(self) -> "TrainPlan":
        """The plan of the steady steps alone. They are the same for every number of steps, so a run of them can be
        continued to any length."""
        return replace(self, steps=self.steady, validate_every=self.steady, checkpoint_every=self.steady,
                       keep_best=False, changes=())  # fmt: skip


@dataclass
class TrainState:
    """Progress of a run, saved in every checkpoint beside its tensors."""

    step: int = 0
    # of the best validation: the lowest loss, in nats per answer token; where answers are labels the latest within one
    # standard error of the highest accuracy, and the loss here is the calibrated one
    best_loss: float = math.inf
    best_accuracy: float = 0.0  # 0 where answers are text
    best_step: int = 0
    worse: int = 0  # validations since the best one
    seconds: float = 0.0
    tokens: int = 0
    history: list[dict] = field(default_factory=list)
    trainer: str = ""  # `frozen.trainer` of the last steps; "" before the first


@memory.retained()
def train(
    model: nn.Module, rows: Sequence[Row], valid: Sequence[Row], plan: TrainPlan, folder: Path, listen: Listen,
    after_validation: Callable[[int], None] | None = None, begun: Path | None = None,
    adjust: Callable[[TrainPlan, int], TrainPlan] | None = None,
    objective: Objective | None = None, judge: Judge | None = None, ranks: Ranks = ALONE,
    local_steps: int = 0, stepping: Callable[[int, Masters], None] | None = None,
) -> TrainState:  # fmt: skip
    """Train the model's trainable parameters on `rows`, in place; with `plan.keep_best` it ends with the weights that
    are best on the rows `valid`, as TrainState says. Losses are nats per answer token.

    Continues from the newest checkpoint in `folder`; without one from the end of the run of `plan.opening()` in the
    folder `begun`. `after_validation(step)` is called with the model in evaluation mode, `stepping(step, masters)` with
    the gradients of that step; before every step `adjust(plan, step)` gives the plan from there on, with further
    `changes`. `objective` is trained in place of the answers' −log p, by which validation judges unless `judge` does;
    without rows `valid` the last weights are kept. Of several processes, which call this alike, the first one has the
    clock of `adjust` and the files in `folder`. With `local_steps` each steps so often with its own rows before all
    agree on common weights; validations and checkpoints come then. Raises Diverged, and RiyazError if processes differ.
    """
    assert not local_steps or plan.validate_every % local_steps == plan.checkpoint_every % local_steps == 0
    set_dropout(model, plan.dropout)
    compute = getattr(torch, plan.compute)
    # whose `sums` the layers add gradients to
    masters = LocalMasters(model, compute, ranks) if local_steps else Masters(model, compute, ranks)
    name = run_name(masters.weights(), rows, valid, plan, local_steps)
    checkpoints = Checkpoints(folder, name, ranks.rank)
    state = _continued(masters, ranks, checkpoints, begun, rows, valid, plan, listen)
    began = time.perf_counter() - state.seconds
    width = widest(model) * compute.itemsize  # bytes of a token
    multiple = BF16_TOKENS if plan.compute == "bfloat16" else 1
    model.train()

    for step in range(state.step, plan.steps):
        if step >= plan.length:
            break
        if step % (local_steps or 1) == 0:
            plan = ranks.paced(adjust(plan, step) if adjust else plan)
        tune_waiting()
        if not model.training:
            model.train()
        picked = [replace(rows[i], place=i) for i in batch(len(rows), plan.batch_size, plan.seed, step)]
        own = ranks.own_rows(picked)
        weight = sum(row.weight for row in (own if local_steps else picked)) or 1

        nats, loss_of = 0.0, objective(model, picked, plan.micro_tokens) if objective else answer_nats
        for micro in micro_batches(own, plan.micro_tokens, multiple):
            with recomputing(len(micro.tokens) * width), dropping(plan.seed, step, micro):
                loss = loss_of(model, micro, masters.sums)
                (loss / weight).backward()  # every weight's gradient is added to its sum
            nats += loss.item()

        masters.add_up()  # the gradients of the processes that step together
        nats, norm = masters.total(nats), masters.norm()
        if not (math.isfinite(nats) and math.isfinite(norm)):
            raise Diverged(f"the loss is {nats / weight} and its gradient's norm {norm} at step {step + 1}",
                             hint="try a lower learning rate")  # fmt: skip
        last = step + 1 == plan.length
        judging = len(valid) > 0 and ((step + 1) % plan.validate_every == 0 or last)
        if judging and stepping:
            stepping(step + 1, masters)
        rate, decay = learning_rate(plan, step), 0.0 if in_second_half(plan, step) else plan.weight_decay
        masters.step(step + 1, rate, plan.betas, decay, factor=min(1.0, plan.clip / (norm + 1e-6)))

        state.step = step + 1
        state.tokens += sum(row.tokens for row in picked)
        state.seconds = time.perf_counter() - began
        entry = {"step": state.step, "loss": nats / weight, "norm": norm, "learning_rate": rate}
        if local_steps and (state.step % local_steps == 0 or last):
            masters.agree()
        if judging:
            model.eval()
            expect_alike(masters, ranks, name)
            size = plan.micro_tokens
            entry |= ranks.first(judge(model, valid, size) if judge else validate(model, valid, size, ranks))
            judged, accuracy = _judged(entry)
            if after_validation:
                after_validation(state.step)
            if as_good(judged, accuracy, state, len(valid)):
                state.best_loss, state.best_accuracy, state.best_step, state.worse = judged, accuracy, state.step, 0
                if plan.keep_best:
                    checkpoints.save_best(masters.weights(), state.step, judged, accuracy)
            else:
                state.worse += 1
        state.history.append(entry)
        left = (plan.length - state.step) * state.seconds / state.step
        listen(Progress("train", state.step, plan.length, loss=entry["loss"], seconds_left=left, metrics=entry))
        if state.worse >= plan.patience:
            break
        if (state.step % plan.checkpoint_every == 0 and not last) or state.step == plan.steady:
            checkpoints.save(masters.weights(), masters.moments(), state)

    masters.rest()
    memory.trim()
    if plan.keep_best and state.best_step not in (0, state.step):  # else the model has the best weights
        best = ranks.first(checkpoints.load_best(masters.weights()))
        masters.copy_first(ranks)
        if best is None:
            listen(Note(f"{checkpoints.best} is damaged or missing; the last weights are kept"))
        entry = state.history[-1]
        latest = state.step, *_judged(entry)
        state.best_step, state.best_loss, state.best_accuracy = best or latest
    masters.detach()
    if not ranks.rank:
        write_state(folder / "state.json", state)
    return state


def _continued(
    masters: Masters, ranks: Ranks, checkpoints: Checkpoints, begun: Path | None, rows: Sequence[Row],
    valid: Sequence[Row], plan: TrainPlan, listen: Listen,
) -> TrainState:  # fmt: skip
    """The state of the run that continues from its checkpoints, or from the end of its opening in `begun`; weights and
    moments are in the masters."""
    expect_alike(masters, ranks, checkpoints.run, moving=False)
    weights, moments = masters.weights(), masters.moments()
    state = checkpoints.resume(weights, moments, TrainState)
    if begun and not ranks.rank and begun.is_dir() and not state.step:
        opening = Checkpoints(begun, run_name(weights, rows, valid, plan.opening()))
        state = opening.resume(weights, moments, TrainState)
        if plan.keep_best and state.step:
            checkpoints.save_best(weights, state.step, state.best_loss, state.best_accuracy)
    for damaged in checkpoints.damaged:
        listen(Note(f"{damaged} is damaged; training continues from step {state.step}"))
    state = ranks.first(state)
    masters.take(weights, moments)
    by = ranks.trained_by(trainer(masters.model))
    if state.trainer not in ("", by):
        listen(Note(f"training began with {state.trainer} and continues from step {state.step} with {by}; "
                    "its weights will differ a little"))  # fmt: skip
    state.trainer = by
    return state


def expect_alike(masters: Masters, ranks: Ranks, name: str, moving: bool = True) -> None:
    """Raises RiyazError, with both values, where several processes do not train the run of this name alike. Before a
    run is `moving` its weights are not compared: all will have those of the first process."""
    if ranks.count > 1:
        values = {"the plan with its rows": name[:16], "--threads": torch.get_num_threads(),
                  "what computes": trainer(masters.model)}  # fmt: skip
        ranks.expect_alike(values | ({"the sum of the weights' bits": masters.bits()} if moving else {}))


def as_good(judged: float, accuracy: float, state: TrainState, rows: int) -> bool:
    """Whether a validation on so many rows counts as the best so far. Accuracies within one standard error are alike:
    there the longer training is kept, which answers other rows better (docs/log.md)."""
    highest = max([accuracy, *(entry.get("valid_accuracy", 0.0) for entry in state.history)])
    if not highest:
        return judged < state.best_loss
    return accuracy >= highest - math.sqrt(highest * (1 - highest) / rows)


def _judged(entry: Mapping[str, Any]) -> tuple[float, float]:
    """(loss, accuracy) by which validations are compared; accuracy is 0 where answers are text."""
    return entry.get("calibrated_loss", entry["valid_loss"]), entry.get("valid_accuracy", 0.0)


def run_name(
    weights: Mapping[str, Tensor], rows: Sequence[Row], valid: Sequence[Row], plan: TrainPlan, local_steps: int = 0
) -> str:
    """Hash of plan, tensor shapes and rows; a corpus counts by its own hash, and changes of length do not count."""
    settings = asdict(plan)
    del settings["changes"]
    shapes = {name: weight.shape for name, weight in weights.items()}
    tokens = [getattr(part, "sha256", None) or [_tokens_of(row) for row in part] for part in (rows, valid)]
    number, *local = OF_CORPORA if hasattr(rows, "sha256") else FORMAT, *([local_steps] if local_steps else [])
    return hashlib.sha256(json.dumps([number, settings, shapes, tokens, *local]).encode()).hexdigest()


def _tokens_of(row: Row) -> tuple:
    own = (row.earlier, row.rejected) if row.rejected else (row.earlier,) if row.earlier else ()
    own = own if row.desirable is None else (*own, row.desirable)
    if row.wanted is None:
        return row.prompt, row.answer, *own
    soft = () if row.general else (_hash_of(row.wanted.tokens), _hash_of(row.wanted.log_p))
    return row.prompt, row.answer, *own, "wanted", row.wanted.weight, *soft


def _hash_of(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def in_every_batch(loss: Loss) -> Objective:
    """The objective of a loss that does not depend on a step's other micro-batches."""
    return lambda model, rows, micro_tokens: loss


def learning_rate(plan: TrainPlan, step: int) -> float:
    """The learning rate of a step, counted from 0: linear warm-up, the plan's steady steps, then a cosine down to its
    `final` share, from its middle on the `second` share of that. The warm-up is a share of the steady steps if there
    are any."""
    second = plan.second if in_second_half(plan, step) else 1.0
    warm = max(1, round(plan.warmup * (plan.steady or plan.steps)))
    place = plan.place(step)
    if place < warm:
        return plan.learning_rate * (place + 1) / warm
    if place < plan.steady:
        return plan.learning_rate
    fall = max(warm, plan.steady)
    done = (place - fall) / max(1, plan.steps - fall)
    return second * plan.learning_rate * (plan.final + (1 - plan.final) / 2 * (1 + math.cos(math.pi * done)))


def in_second_half(plan: TrainPlan, step: int) -> bool:
    """Whether the step lies in the second stage of a schedule in two."""
    return plan.second < 1 and plan.place(step) >= plan.steps / 2


def set_dropout(model: nn.Module, probability: float) -> None:
    """Set the probability of all dropout layers of the model, and number them."""
    for number, layer in enumerate(layer for layer in model.modules() if isinstance(layer, Dropout)):
        layer.p, layer.number = probability, number


def micro_batches(rows: Sequence[Row], budget: int, multiple: int = 1) -> Iterator[PackedRows]:
    """Whole rows packed end to end into few batches of about the same size and at most `budget` tokens, so that none is
    too small for fast products; a longer row is a batch by itself. Each is padded to a multiple of tokens. The tokens
    that all rows begin with are once in every batch and do not count. Rows of general text have batches of their own.
    """
    general = [row for row in rows if row.general]
    if 0 < len(general) < len(rows):
        yield from micro_batches([row for row in rows if not row.general], budget, multiple)
        yield from micro_batches(general, budget, multiple)
        return
    shared = shared_tokens([row.prompt for row in rows]) if rows else 0
    lengths = [row.tokens - len(row.sides) * shared for row in rows]
    even = sum(lengths) / max(1, math.ceil(sum(lengths) / budget))
    group: list[Row] = []
    size = 0
    for row, length in zip(rows, lengths, strict=True):
        if group and (size + length > budget or size + length / 2 > even):
            yield padded(pack(group), multiple)
            group, size = [], 0
        group.append(row)
        size += length
    if group:
        yield padded(pack(group), multiple)


def answer_nats(model: Any, rows: PackedRows, sums: GradientSums | None = None) -> Tensor:
    """Sum of −log p over the answer tokens, in nats; logits are computed for the answer tokens only. Those behind the
    vocabulary are labels, which the model's `label_head` scores. With `sums` the gradient of a head's weight is added
    there, else it is autograd's. Where distributions are wanted it is the divergence from them, by their weights."""
    if rows.wanted is not None:
        return _divergence(model, answering_states(model, rows), rows, sums)
    return _nats(model, answering_states(model, rows), torch.from_numpy(rows.labels), sums)


def _divergence(model: Any, hidden: Tensor, rows: PackedRows, sums: GradientSums | None) -> Tensor:
    """Sum of weights · KL from the distributions that are wanted, all of tokens or all of labels."""
    assert rows.wanted is not None and rows.weights is not None
    tokens, log_p, weights = map(torch.from_numpy, (rows.wanted.tokens, rows.wanted.log_p, rows.weights))
    V = model.config.vocab_size
    if (tokens < V).all():
        return top_divergence(hidden, model.lm_head, tokens, log_p, weights, getattr(model.config, "logit_cap", None),
                              sums)  # fmt: skip
    return top_divergence(model.scaled(hidden), model.label_head, tokens - V, log_p, weights, None, sums)


def _nats(model: Any, hidden: Tensor, tokens: Tensor, sums: GradientSums | None = None) -> Tensor:
    """Sum of −log p of tokens and labels (N,), from the hidden states (N, C) that predict them."""
    V = model.config.vocab_size
    of_label = tokens >= V
    if not of_label.any():
        return _text_nats(model, hidden, tokens, sums)
    if of_label.all():
        return _label_nats(model, hidden, tokens - V, sums)
    nats = _label_nats(model, hidden[of_label], tokens[of_label] - V, sums)
    return nats + _text_nats(model, hidden[~of_label], tokens[~of_label], sums)


def _label_nats(model: Any, hidden: Tensor, labels: Tensor, sums: GradientSums | None) -> Tensor:
    """Sum of −log p of labels (N,), each among those of its question, from the hidden states (N, C)."""
    states, weight = model.scaled(hidden), model.label_head.weight
    if len(model.sizes) == 1:
        return head_loss(states, weight, labels, None, sums)
    nats = torch.zeros(())
    for first, end in label_ranges(model.sizes):
        own = (labels >= first) & (labels < end)
        if own.any():
            nats = nats + head_loss(states[own], weight[first:end], labels[own] - first)
    return nats


def label_ranges(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """The first label of each question, and the one after its last."""
    ends = np.cumsum(sizes).tolist()
    return [(end - size, end) for end, size in zip(ends, sizes)]


def answering_states(model: Any, rows: PackedRows) -> Tensor:
    """The hidden states (N, C) of the tokens that predict the answers' tokens."""
    tokens, positions = torch.from_numpy(rows.tokens), torch.from_numpy(rows.positions)
    hidden = model(tokens, positions, packed(rows.lengths).behind(rows.shared))  # (T, C)
    if not np.array_equal(rows.label_index, np.arange(len(hidden))):  # else every token predicts one
        hidden = hidden.index_select(0, torch.from_numpy(rows.label_index))  # (N, C)
    return hidden


def _text_nats(model: Any, hidden: Tensor, tokens: Tensor, sums: GradientSums | None) -> Tensor:
    """Sum of −log p of tokens of the vocabulary (N,), from the hidden states (N, C) that predict them."""
    cap = getattr(model.config, "logit_cap", None)  # some families only
    head = model.lm_head
    return head_loss(hidden, head if isinstance(head, FrozenLinear) else head.weight, tokens, cap, sums)


@torch.no_grad()
def row_nats(model: Any, rows: Sequence[Row], micro_tokens: int = 2048) -> list[float]:
    """−log p of each row's answers in nats, the end token included; of a pair that of the better one."""
    rows = [row.sides[0] for row in rows]
    nats, left = [], iter(rows)
    for micro in micro_batches(rows, micro_tokens):
        counts = [len(row.labels) for row in islice(left, len(micro.lengths))]
        states = answering_states(model, micro).split(counts)
        labels = torch.from_numpy(micro.labels).split(counts)
        nats += [_nats(model, *answers).item() for answers in zip(states, labels)]
    return nats


@torch.no_grad()
def answer_loss(model: nn.Module, rows: Sequence[Row], micro_tokens: int = 2048, ranks: Ranks = ALONE) -> float:
    """Mean −log p in nats per answer token, the end token included; of pairs that of the better answers."""
    rows = [row.sides[0] for row in rows]
    nats = sum(answer_nats(model, micro).item() for micro in micro_batches(ranks.own_rows(rows), micro_tokens))
    ranks.wait_for_all()  # one may take minutes longer than another
    return ranks.total(nats) / sum(len(row.labels) for row in rows)


@torch.no_grad()
def label_log_p(model: Any, rows: Sequence[Row], micro_tokens: int = 2048) -> np.ndarray:
    """log p of every label after the prompt of each row, (n, L) float32, for rows whose answers are labels; n answers,
    of which a row may have several. Of labels of other questions than the answer's it is −∞."""
    weight = model.label_head.weight.float()
    states = (model.scaled(answering_states(model, micro)).float() for micro in micro_batches(rows, micro_tokens))
    logits = torch.cat([hidden @ weight.T for hidden in states])
    if len(model.sizes) > 1:
        question = np.repeat(np.arange(len(model.sizes)), model.sizes)  # (L,) of each label
        other = question[label_places(model, rows)][:, None] != question
        logits.masked_fill_(torch.from_numpy(other), -math.inf)
    log_p: np.ndarray = logits.log_softmax(1).numpy()
    return log_p


def label_places(model: Any, rows: Sequence[Row]) -> np.ndarray:
    """The number of each answer's label among all labels, (n,)."""
    return np.concatenate([row.answer for row in rows]).astype(int) - model.config.vocab_size


def scores_labels(model: Any) -> bool:
    """Whether the model has a head of labels, so that the answers of validation rows are labels."""
    return isinstance(model, LabelledModel)


def validate(model: Any, rows: Sequence[Row], micro_tokens: int, ranks: Ranks = ALONE) -> dict[str, float]:
    """`valid_loss` in nats per answer token; with a head of labels also `valid_accuracy`, the share of rows whose
    likeliest label is right, and `calibrated_loss`, the loss at the temperature at which it is lowest. Training makes a
    head too sure long before it answers worse, and a temperature mends that."""
    if not scores_labels(model):
        return {"valid_loss": answer_loss(model, rows, micro_tokens, ranks)}
    log_p, places = label_log_p(model, rows, micro_tokens), label_places(model, rows)
    loss = -float(log_p[np.arange(len(places)), places].mean(dtype=np.float64))
    if not math.isfinite(loss):
        return {"valid_loss": loss, "valid_accuracy": 0.0, "calibrated_loss": loss}
    right = places[:, None] == np.arange(log_p.shape[1])
    p = probabilities(log_p, fit_temperature(log_p, right))
    calibrated = float(log_losses(right_probability(p, right)).mean())
    return {
        "valid_loss": loss,
        "valid_accuracy": float((log_p.argmax(1) == places).mean()),
        "calibrated_loss": calibrated,
    }
