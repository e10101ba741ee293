"""Training by the C++ kernels, repeated, or stopped and resumed, ends with the same weights bit by bit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_llama import Stop, stopping_at
from torch import Tensor
from training_families import CONFIGS, METHODS, family_model, training_rows

from riyaz import native
from riyaz.events import Listen, quiet
from riyaz.layers import attention
from riyaz.train import TrainPlan, train

PLAN = TrainPlan(steps=6, learning_rate=1e-2, batch_size=4, validate_every=6, checkpoint_every=2, micro_tokens=64,
                 keep_best=False, seed=1)  # fmt: skip


def trained(family: str, method: str, plan: TrainPlan, folder: Path, listen: Listen = quiet) -> list[Tensor]:
    model = family_model(family, method, getattr(torch, plan.compute) if method != "full" else torch.float32)
    train(model, training_rows(), training_rows()[::5], plan, folder, listen)
    return [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]


@pytest.mark.grid
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", [family for family in CONFIGS if family != "gpt2"])  # without gates and RMS norms
def test_repeated_and_resumed_runs_are_the_same_bits(
    family: str, method: str, compute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert native.available(), native.why_not()
    calls = []
    run = attention._Native.apply
    monkeypatch.setattr(attention._Native, "apply", lambda *inputs: calls.append(1) or run(*inputs))
    plan = replace(PLAN, compute=compute)
    straight = trained(family, method, plan, tmp_path / "straight")
    again = trained(family, method, plan, tmp_path / "again")
    with pytest.raises(Stop):
        trained(family, method, plan, tmp_path / "resumed", stopping_at(5))
    resumed = trained(family, method, plan, tmp_path / "resumed")
    assert straight and calls, "attention is that of the extension"
    for one, two, three in zip(straight, again, resumed, strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)


def test_dropout_in_a_frozen_base_resumes_to_the_same_bits(tmp_path: Path) -> None:
    plan = replace(PLAN, dropout=0.1, validate_every=3)
    straight = trained("llama", "prompt_tuning", plan, tmp_path / "straight")
    with pytest.raises(Stop):
        trained("llama", "prompt_tuning", plan, tmp_path / "resumed", stopping_at(5))
    resumed = trained("llama", "prompt_tuning", plan, tmp_path / "resumed")
    assert all(torch.equal(one, two) for one, two in zip(straight, resumed, strict=True))
