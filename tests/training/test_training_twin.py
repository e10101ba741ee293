"""Fifty steps of every method on every family by the C++ kernels and by plain torch: the losses are the same."""

from pathlib import Path

import pytest
import torch
from training_families import CONFIGS, END, METHODS, WINDOW, equal_rows, family_model, training_rows

from riyaz import native
from riyaz.data.packing import pack
from riyaz.events import quiet
from riyaz.train import TrainPlan, micro_batches, train

# Nats per answer token, of any of the 50 steps and of the validations. Both ways round each result once in float32
# and add in another order, and what is trained takes on the difference; bfloat16 rounds to 8 bits in between.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.2}
RATES = {"lora": 1e-2, "full": 3e-3, "prompt_tuning": 3e-2}
PLAN = TrainPlan(steps=50, learning_rate=1e-2, batch_size=4, validate_every=25, micro_tokens=64, seed=1)
PRETRAINING = TrainPlan(steps=50, learning_rate=3e-3, batch_size=4, validate_every=25, dropout=0.1, betas=(0.9, 0.95),
                        weight_decay=0.1, final=0.0, seed=1)  # fmt: skip


def losses(family: str, method: str, plan: TrainPlan, folder: Path) -> list[float]:
    """Of all steps, then of the validations."""
    base = getattr(torch, plan.compute) if method != "full" else torch.float32
    rows = equal_rows() if plan.dropout else training_rows()
    state = train(family_model(family, method, base), rows, rows[::3], plan, folder, quiet)
    of_steps = [entry["loss"] for entry in state.history]
    return of_steps + [entry["valid_loss"] for entry in state.history if "valid_loss" in entry]


def compare(family: str, method: str, plan: TrainPlan, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.available(), native.why_not()
    found = {}
    for switch in ("0", "1"):
        monkeypatch.setenv("RIYAZ_NATIVE", switch)
        found[switch] = losses(family, method, plan, folder / switch)
    plain, ours = torch.tensor(found["0"]), torch.tensor(found["1"])
    assert len(plain) == plan.steps + plan.steps // plan.validate_every
    assert plain[-1] < 0.95 * plain[0], "it learns"
    assert not torch.equal(plain, ours), "two ways indeed"
    difference = (plain - ours).abs()
    print(f"{family} {method} {plan.compute}: {difference.max():.2g} of {plain[0]:.2f} to {plain[-1]:.2f}")
    assert difference.max() <= TOLERANCE[plan.compute], f"step {difference.argmax() + 1}"


@pytest.mark.grid
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", CONFIGS)
def test_losses_are_those_of_torch(family: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = TrainPlan(**{**vars(PLAN), "learning_rate": RATES[method], "compute": "float32"})
    compare(family, method, plan, tmp_path, monkeypatch)


@pytest.mark.parametrize("method", METHODS)
def test_losses_in_bfloat16_are_those_of_torch(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = TrainPlan(**{**vars(PLAN), "learning_rate": RATES[method], "compute": "bfloat16"})
    compare("llama", method, plan, tmp_path, monkeypatch)


@pytest.mark.parametrize("compute", TOLERANCE)
@pytest.mark.parametrize("family", ["llama", "gpt2"])  # those that can be pretrained
def test_losses_of_pretraining_are_those_of_torch(
    family: str, compute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(family, "full", TrainPlan(**{**vars(PRETRAINING), "compute": compute}), tmp_path, monkeypatch)


def test_the_rows_have_shared_beginnings_and_are_longer_and_shorter_than_the_window() -> None:
    rows = training_rows()
    lengths = [len(row.prompt) + len(row.answer) for row in rows]
    assert min(lengths) < WINDOW < max(lengths) and all(row.answer[-1] == END for row in rows)
    packed = [pack(rows[i : i + 4]) for i in range(0, len(rows), 4)]
    assert {each.shared > 0 for each in packed} == {True, False}
    assert any(part.shared + max(part.lengths) > WINDOW for part in micro_batches(rows, PLAN.micro_tokens))
