"""`riyaz pretrain --ternary`: the model that it leaves is the one that was trained, code by code; its schedule; its
refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_comparison import command
from tiny_pretraining import SMALL, Stopped, lines, quick_machine, small, stop_at

from riyaz.config import PretrainConfig
from riyaz.families import describe
from riyaz.layers.fast.masters import Masters
from riyaz.layers.swaps.ternary import TernaryLinear, ternary_codes
from riyaz.models import load
from riyaz.models.fresh import fresh
from riyaz.pretraining import plan as planning
from riyaz.pretraining import run as running
from riyaz.pretraining.shapes import Shape, configured
from riyaz.sources import open_source
from riyaz.train import TrainPlan, in_second_half, learning_rate

BF16 = small("--compute", "bfloat16")


@pytest.fixture(scope="module", autouse=True)
def machine(one_core: pytest.MonkeyPatch) -> None:
    quick_machine(one_core)
    one_core.setenv("RIYAZ_ENGINE", "torch")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """The folder of a finished run in bf16."""
    out = tmp_path_factory.mktemp("done") / "out"
    told = command("pretrain", text, *BF16, "--ternary", "--out", out, "--json")
    assert told.status == 0 and "ternary: " in told.err, told.err
    return out


def test_it_leaves_a_ternary_bitnet(done: Path) -> None:
    family = describe(open_source(done))
    assert family.model_type == "bitnet" and family.scheme is not None and family.has_masters
    config = json.loads((done / "config.json").read_text())
    assert config["quantization_config"]["quantization_mode"] == "online" and config["dtype"] == "bfloat16"
    # judged are the masters as they are written, not those that training has not rounded yet
    assert json.loads((done / "run.json").read_text())["result"]["logit_difference"] == 0


def test_the_weights_that_are_served_are_those_of_the_training_forward(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """train = serve: the codes of the last forward pass, in bf16, are all of the codes in the file."""
    last: dict[str, torch.Tensor] = {}
    write = running.draw_samples

    def draw_samples(model: torch.nn.Module, *rest: object, **options: object) -> object:
        last.update({name: ternary_codes(module.weight)[0] for name, module in model.named_modules()
                     if isinstance(module, TernaryLinear)})  # fmt: skip
        return write(model, *rest, **options)

    monkeypatch.setattr(running, "draw_samples", draw_samples)
    assert command("pretrain", text, *BF16, "--ternary", "--out", tmp_path / "out").status == 0
    steps = [entry["step"] for entry in lines(tmp_path / "out/metrics.jsonl") if "valid_loss" in entry]
    assert json.loads((tmp_path / "out/run.json").read_text())["result"]["best_step"] == steps[-1]
    family = describe(open_source(tmp_path / "out"))
    assert len(last) == 14
    for name, codes in last.items():
        assert np.array_equal(family.ternary(f"{name}.weight").codes, codes.numpy()), name


def test_a_stopped_run_goes_on_to_the_same_model(
    done: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("pretrain", text, *BF16, "--ternary", "--checkpoint-every", 2, "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        stop_at(5, patch, Stopped())
        patch.setattr(running.Running, "stopped", lambda run: None)
        assert command(*options).status == 1
    assert command(*options, "--resume").status == 0
    assert (tmp_path / "out/model.safetensors").read_bytes() == (done / "model.safetensors").read_bytes()
    told = command("pretrain", text, "--family", "llama", "--resume", "--out", tmp_path / "out")
    assert told.status == 2 and "--family llama instead of bitnet" in told.err


def test_any_family_trains_ternary(text: Path, tmp_path: Path) -> None:
    told = command("pretrain", text, *SMALL, "--ternary", "--family", "gpt2", "--out", tmp_path / "out")
    assert told.status == 0, told.err
    source = open_source(tmp_path / "out")
    found = describe(source)
    assert found.model_type == "gpt2" and sum(map(found.is_ternary, found.stored_names)) == 8
    assert command("generate", tmp_path / "out", "Hello", "--max-tokens", 3).status == 0
    assert any(isinstance(module, TernaryLinear) for module in load(source, torch.float32).modules())


def test_the_second_stage_has_a_lower_rate_and_no_decay() -> None:
    plan = TrainPlan(100, 1.0, warmup=0.05, final=0.0, second=0.5, weight_decay=0.1)
    one_stage = TrainPlan(100, 1.0, warmup=0.05, final=0.0)
    rates = [learning_rate(plan, step) for step in range(100)]
    assert rates[:50] == [learning_rate(one_stage, step) for step in range(50)]
    assert rates[50:] == [learning_rate(one_stage, step) / 2 for step in range(50, 100)]
    assert [in_second_half(plan, step) for step in (49, 50)] == [False, True] and not in_second_half(one_stage, 99)
    shortened = TrainPlan(100, 1.0, second=0.5, changes=((10, 55),))  # two steps of the schedule at once
    assert [in_second_half(shortened, step) for step in (29, 30)] == [False, True]


def test_weights_stop_decaying_in_the_second_stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from riyaz.data.rows import Row
    from riyaz.train import train

    seen = []
    step = Masters.step

    def counted(self: Masters, number: int, rate: float, betas: Any, decay: float, factor: float) -> None:
        seen.append((number, decay))
        step(self, number, rate, betas, decay, factor)

    monkeypatch.setattr(Masters, "step", counted)
    model = fresh(configured("bitnet", Shape(1, 2, 32), 257, 32), 0, ternary=True)
    plan = TrainPlan(4, 1e-3, batch_size=1, second=0.5, weight_decay=0.1, compute="float32")
    train(model, [Row((1, 2), (3, 4))], [Row((1, 2), (3, 4))], plan, tmp_path, lambda event: None)
    assert seen == [(1, 0.1), (2, 0.1), (3, 0.0), (4, 0.0)]


def test_a_ternary_model_is_a_bitnet_unless_another_family_is_named() -> None:
    assert planning.family_of(PretrainConfig(ternary=True)) == "bitnet"
    assert planning.family_of(PretrainConfig()) == "llama"
    assert planning.family_of(PretrainConfig(ternary=True, family="gpt2")) == "gpt2"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--heads", 3, "--width", 32), "3 heads do not share a width of 32 evenly"),
        (("--lr", 0), "0.0 is too small"),
        (("--budget", "1s"), "the budget of 1s is used up"),
        (("--steps", 3, "--budget", "1m"), "--budget: has no effect beside --steps"),
    ],
)
def test_what_pretrain_refuses_is_refused(text: Path, tmp_path: Path, options: tuple[object, ...], line: str) -> None:
    told = command("pretrain", text, "--ternary", "--tokenizer", "bytes", *options, "--out", tmp_path / "out")
    assert told.status == 2 and line in told.err, told.err
    assert not (tmp_path / "out").exists()
