"""Objectives of training on better and worse answers: DPO and ORPO on pairs of them, KTO also on single ones.

They know only the log-probabilities of the answers. Their gradient is that of −log p of every answer, times a factor of
its own, so that logits are computed in chunks as for any other loss.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from riyaz.data.packing import PackedRows
from riyaz.data.rows import Row
from riyaz.layers.divergence import token_log_p, weighted_nats
from riyaz.layers.fast.gradient_sums import GradientSums
from riyaz.layers.swaps import lora
from riyaz.train import (
    BF16_TOKENS,
    Judge,
    Loss,
    Objective,
    answer_loss,
    answer_nats,
    answering_states,
    in_every_batch,
    micro_batches,
)

BETA = 0.1  # of DPO and KTO: the smaller, the further a preference may move the answers' probabilities from the base's
RATIO = 0.1  # of ORPO: the weight of the odds beside that of the better answer
MOST_DESIRABLE = 4 / 3  # of KTO: weight of all desirable answers / that of all undesirable ones, at most; at least 1


def dpo(beta: float = BETA, normalised: bool = False) -> Objective:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, eq. 7): −log σ(β · (Δ − Δ of the base)),
    Δ being the difference between the log-probabilities of both answers, or `normalised` of their means per token.
    The base is the model as it was before this training: with its LoRA off, or with the one it goes on from."""

    def loss(model: Any, rows: PackedRows, sums: GradientSums) -> Tensor:
        if rows.wanted is not None:  # general text beside the pairs
            return answer_nats(model, rows, sums)
        hidden = answering_states(model, rows)
        scale = _scale(rows, normalised)
        margins = beta * (_log_p(model, hidden, rows) - _of_base(model, rows)) * scale  # (2 pairs,)
        apart = margins[0::2] - margins[1::2]
        pull = beta * torch.sigmoid(-apart)  # −d loss / d (log p of the better answer)
        each = torch.stack((pull, -pull), 1).flatten() * scale
        return _with_gradient(model, hidden, rows, each, -logsigmoid(apart).sum(), sums)

    return in_every_batch(loss)


def orpo(ratio: float = RATIO) -> Objective:
    """Odds-ratio preference optimisation (Hong et al. 2024, arXiv 2403.07691, eqs. 6 and 7): −log p of the better
    answer per token, and `ratio` times −log σ of the difference between the log-odds of both answers, whose p is the
    geometric mean over tokens. No base takes part."""

    def loss(model: Any, rows: PackedRows, sums: GradientSums) -> Tensor:
        if rows.wanted is not None:
            return answer_nats(model, rows, sums)
        hidden = answering_states(model, rows)
        scale = _scale(rows, True)
        mean = (_log_p(model, hidden, rows) * scale).clamp_max(-1e-6)  # (2 pairs,)
        odds = mean - torch.log1p(-mean.exp())
        apart = odds[0::2] - odds[1::2]
        slope = 1 / (1 - mean.exp())  # d log-odds / d mean log p
        pull = ratio * torch.sigmoid(-apart)
        each = torch.stack((1 + pull * slope[0::2], -pull * slope[1::2]), 1).flatten() * scale
        value = -mean[0::2].sum() - ratio * logsigmoid(apart).sum()
        return _with_gradient(model, hidden, rows, each, value, sums)

    return in_every_batch(loss)


def kto(beta: float = BETA, desirable: float = 1.0, undesirable: float = 1.0) -> Objective:
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306, eq. 7): λ · (1 − σ(± β · (r − z))), r
    being log p of an answer less that of the base, + for a desirable answer and − for an undesirable one, with λ the
    two weights. z is the `reference_point` of the whole step, whatever its micro-batches. A pair is one answer of each
    kind, and its loss their mean. The base is the model with its LoRA off."""

    def objective(model: Any, step: Sequence[Row], micro_tokens: int) -> Loss:
        point = reference_point(model, step, micro_tokens)

        def loss(model: Any, rows: PackedRows, sums: GradientSums) -> Tensor:
            if rows.wanted is not None:
                return answer_nats(model, rows, sums)
            assert rows.desirable is not None
            hidden = answering_states(model, rows)
            good = torch.from_numpy(rows.desirable)  # (n,)
            sign = torch.where(good, 1.0, -1.0)
            weight = torch.where(good, desirable, undesirable) * (rows.count / len(good))
            value = torch.sigmoid(sign * beta * (_log_p(model, hidden, rows) - _of_base(model, rows) - point))
            each = weight * sign * beta * value * (1 - value)  # −d loss / d (log p of the answer)
            return _with_gradient(model, hidden, rows, each, (weight * (1 - value)).sum(), sums)

        return loss

    return objective


def balanced(desirable: int, undesirable: int) -> tuple[float, float]:
    """KTO's weights of so many answers of both kinds, of which one is 1: the desirable ones weigh 1 to MOST_DESIRABLE
    times as much as the others, all together (eq. 8)."""
    ratio = desirable / undesirable
    return max(1.0, 1 / ratio), max(1.0, ratio / MOST_DESIRABLE)


@torch.no_grad()
def reference_point(model: Any, rows: Sequence[Row], micro_tokens: int) -> float:
    """KTO's z in nats: how far the model is from the base after the rows' prompts, as the mean of log p less the base's
    over answers that belong to other prompts, and at least 0. Every row's prompt has the answers of the row before it,
    that of the first row the last one's, cut to the model's context; a single row has none, and 0."""
    own = [row for row in rows if row.wanted is None]
    if len(own) < 2:
        return 0.0
    total, count = 0.0, 0
    for micro in micro_batches(mismatched(own, model.config.context), micro_tokens, BF16_TOKENS):
        total += float((_log_p(model, answering_states(model, micro), micro) - _of_base(model, micro)).sum())
        count += len(micro.counts)
    return max(0.0, total / count)


def mismatched(rows: Sequence[Row], context: int) -> list[Row]:
    """The prompt of every row with each of the answers of the row before it, in at most `context` tokens."""
    return [
        Row(row.prompt, side.answer[: context - len(row.prompt)])
        for row, before in zip(rows, [rows[-1], *rows[:-1]]) for side in before.sides
    ]  # fmt: skip


def judge_answers(objective: Objective) -> Judge:
    """What a validation says by this objective: its mean loss over rows as `valid_loss`, and as `valid_accuracy` the
    share of pairs whose better answer has the higher log-probability per token; of single answers the share on whose
    side of the reference point the reward lies."""

    @torch.no_grad()
    def judge(model: Any, rows: Sequence[Row], micro_tokens: int) -> dict[str, float]:
        nats, won, loss_of = 0.0, 0, objective(model, rows, micro_tokens)
        point = 0.0 if rows[0].rejected else reference_point(model, rows, micro_tokens)
        for micro in micro_batches(rows, micro_tokens):
            nats += loss_of(model, micro, None).item()  # type: ignore[arg-type]
            won += _won(model, micro, point)
        loss = nats / len(rows)
        return {"valid_loss": loss if math.isfinite(loss) else math.inf, "valid_accuracy": won / len(rows),
                "answer_loss": answer_loss(model, rows, micro_tokens)}  # fmt: skip

    return judge


def _won(model: Any, rows: PackedRows, point: float) -> int:
    """How many of the rows a model tells right."""
    log_p = _log_p(model, answering_states(model, rows), rows)
    if rows.count < len(log_p):
        mean = log_p * _scale(rows, True)
        return int((mean[0::2] > mean[1::2]).sum())
    reward, good = log_p - _of_base(model, rows), torch.tensor(rows.desirable)
    return int(torch.where(good, reward > point, reward < point).sum())


def _log_p(model: Any, hidden: Tensor, rows: PackedRows) -> Tensor:
    """log p of every answer, (2 pairs,) float32, without a gradient."""
    cap = getattr(model.config, "logit_cap", None)
    log_p = token_log_p(hidden.detach(), model.lm_head, torch.from_numpy(rows.labels), cap)
    return torch.stack([part.sum() for part in log_p.split(list(rows.counts))])


@torch.no_grad()
def _of_base(model: Any, rows: PackedRows) -> Tensor:
    with lora.before_training(model):
        return _log_p(model, answering_states(model, rows), rows)


def _scale(rows: PackedRows, normalised: bool) -> Tensor:
    """1 / tokens of every answer where they are `normalised`, else 1; (2 pairs,)."""
    return 1 / torch.tensor(rows.counts, dtype=torch.float32) if normalised else torch.ones(len(rows.counts))


def _with_gradient(
    model: Any, hidden: Tensor, rows: PackedRows, each: Tensor, value: Tensor, sums: GradientSums | None
) -> Tensor:
    """`value` with the gradient of the answers' −log p, each times its entry in `each` (2 pairs,)."""
    if not torch.is_grad_enabled():
        return value
    weights = torch.from_numpy(np.repeat(each.numpy(), rows.counts))
    cap = getattr(model.config, "logit_cap", None)
    nats = weighted_nats(hidden, model.lm_head, torch.from_numpy(rows.labels), weights, cap, sums)
    return nats + (value - nats.detach())
