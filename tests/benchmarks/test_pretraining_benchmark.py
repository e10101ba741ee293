"""benchmarks/pretraining.py: the plain loop is the same model on the same batches, and the last line is the table."""

import io
import json
import math
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from load_script import load_script

from riyaz.data.packing import batch
from riyaz.models.fresh import fresh
from riyaz.train import train

CURVES = 1e-4  # nats between the loss curves of both sides, in float32
STEPS = 6


@pytest.fixture(scope="module")
def pretraining() -> ModuleType:
    return load_script("benchmarks/pretraining.py")


def test_both_sides_are_one_model_and_one_loop(pretraining: ModuleType, tmp_path: Path) -> None:
    setting = pretraining.Setting(V=40, C=32, F=48, L=2, H=4, T=16, B=3, steps=1, learning_rate=1e-2)
    tokens = (np.arange(400) * 7 % 40).astype(np.uint16)
    rows, ours = pretraining.windows(setting, tokens, STEPS, 1), []
    model, plain = fresh(setting.config(), 1), pretraining.Plain(setting)
    names = {"self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v", "self_attn.o_proj": "o",
             "mlp.gate_proj": "gate", "mlp.up_proj": "up", "mlp.down_proj": "down", "input_layernorm": "norm1",
             "post_attention_layernorm": "norm2", "model.layers": "blocks", "model.embed_tokens": "embed",
             "model.norm": "norm"}  # fmt: skip
    with torch.no_grad():
        for name, weight in model.named_parameters():
            for theirs, its in names.items():
                name = name.replace(theirs, its)
            plain.get_parameter(name).copy_(weight)
    train(model, rows, rows[:1], setting.plan(STEPS, "float32", 1), tmp_path, lambda e: ours.append(e.loss))
    order = [place for step in range(STEPS) for place in batch(len(rows), setting.B, 1, step)]
    _, losses = pretraining.plain_loop(plain, setting, tokens, rows.starts[order], "float32")
    assert ours == pytest.approx(losses, abs=CURVES) and ours[-1] < ours[0] - 0.1
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in model.parameters())


def test_flops_are_those_of_the_products(pretraining: ModuleType) -> None:
    setting = pretraining.SETTINGS["shakespeare"]
    matrices = sum(p.numel() for p in fresh(setting.config(), 0).parameters() if p.ndim > 1)
    seen = sum(range(1, setting.T + 1)) / setting.T  # tokens that one sees, on average
    attention = setting.L * 2 * (2 * setting.C * seen)  # two products, of as many pairs of C multiplications
    assert setting.flops() == pytest.approx(3 * (2 * matrices + attention), rel=0.01)
    assert 14e6 < pretraining.SETTINGS["m15"].flops() / 6 < 17e6


def test_the_summary_takes_each_sides_faster_type(pretraining: ModuleType) -> None:
    setting = pretraining.SETTINGS["m15"]
    medians = {("riyaz", "float32"): 100.0, ("riyaz", "bfloat16"): 300.0, ("peak", "bfloat16"): 600 * setting.flops()}
    row = pretraining.summary(setting, medians)
    assert row["tokens_s"] == 300 and row["type"] == "bfloat16" and row["peak_share"] == 0.5
    row = pretraining.summary(setting, medians | {("peer", "float32"): 200.0, ("peer", "bfloat16"): 150.0})
    assert row["ratio_tokens_s"] == 1.5 and row["peer_type"] == "float32"


@pytest.mark.slow
def test_the_last_line_is_the_table(
    pretraining: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a tiny model. The measurement of the peak in a process of its own, as all of them are, the others in this."""
    started, setting = subprocess.run, pretraining.SETTINGS["shakespeare"]
    tiny = setting._replace(C=32, F=48, L=1, H=2, T=16, B=2, steps=2)
    monkeypatch.setitem(pretraining.SETTINGS, "shakespeare", tiny)

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if "peak" in command:
            return started(command, **options)
        with monkeypatch.context() as patch, redirect_stdout(io.StringIO()) as out:
            patch.setattr(sys, "argv", command[1:])
            pretraining.main()
        return subprocess.CompletedProcess(command, 0, out.getvalue(), "")

    monkeypatch.setattr(subprocess, "run", run)
    text = tmp_path / "text.txt"
    text.write_text("".join(chr(32 + i * i % 65) for i in range(1000)))
    words = ["--peer", "--text", text, "--only", "shakespeare", "--steps", 3, "--seeds", 2, "--rounds", 1]
    monkeypatch.setattr(sys, "argv", ["pretraining.py", *map(str, words)])
    pretraining.main()
    *lines, last = capsys.readouterr().out.splitlines()
    row = json.loads(last)["shakespeare"]
    assert row["ratio_tokens_s"] >= 0 and 0 <= row["peak_share"] < 1 and 0 < row["val_loss"] < 2 * math.log(65)
    sides = [" ".join(line.split()[3:5]) for line in lines if "round 1" in line]
    assert sides == [f"{side} {dtype}:" for side in ("riyaz", "peer") for dtype in ("float32", "bfloat16")] + [
        "peak bfloat16:"
    ]
