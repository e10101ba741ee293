"""Pretraining with riyaz's loop beside the same model and loop written plainly in torch, and the share of the peak.

    python benchmarks/pretraining.py --peer                   # about 15 minutes on two cores
    python benchmarks/pretraining.py --peer --only shakespeare --steps 200 --seeds 1

`shakespeare` is nanoGPT's smallest setting on a CPU: characters of tinyshakespeare, its first nine tenths to learn from
and the rest for validation, 4 layers, 4 heads, width 128, context 64, batches of 12, no dropout. Its README reports a
validation loss of 1.88 nats per character after 2,000 steps. `m15` is 15 million parameters at context 256 on random
tokens, as only its speed is asked for.

Speeds are medians of short runs in processes of their own; sides take turns, so that a drift of the machine hits both.
Each side is taken in the faster of float32 and bfloat16. FLOPs of a token, forward and backward: 6 N + 6 L T C, with N
matrix parameters (the tied embedding once, as the head), L layers, T context and C width (the causal half of QKᵀ and
of weights times V). The peak is that of the fastest bfloat16 product of two 2,048 × 2,048 matrices, measured in the
same rounds. The last line is one JSON document.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riyaz.data.blocks import Windows
from riyaz.families.llama import LlamaConfig
from riyaz.hardware import describe
from riyaz.models.fresh import fresh
from riyaz.pretraining import speed as machine
from riyaz.train import TrainPlan, learning_rate, train

TEXT = Path(__file__).resolve().parents[2] / "shared/data/text/tinyshakespeare.txt"
TYPES = ("float32", "bfloat16")


class Setting(NamedTuple):
    """Sizes of a model and of its batches, and how it is trained."""

    V: int
    C: int
    F: int
    L: int
    H: int
    T: int
    B: int
    steps: int  # of a measurement of speed, after two that warm up
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.1
    final: float = 0.0

    def config(self) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=self.V, hidden_size=self.C, intermediate_size=self.F, n_layers=self.L, n_heads=self.H,
            n_kv_heads=self.H, head_dim=self.C // self.H, rms_norm_eps=1e-5, rope_theta=1e4, context=self.T,
            tie_word_embeddings=True,
        )  # fmt: skip

    def plan(self, steps: int, compute: str, seed: int) -> TrainPlan:
        """Riyaz's."""
        return TrainPlan(
            steps=steps, learning_rate=self.learning_rate, batch_size=self.B, betas=self.betas, final=self.final,
            weight_decay=self.weight_decay, validate_every=10**9, checkpoint_every=10**9, compute=compute, seed=seed,
            micro_tokens=self.B * (self.T + 1),
        )  # fmt: skip

    def flops(self) -> int:
        """Of a token, forward and backward."""
        matrices = self.V * self.C + self.L * (4 * self.C**2 + 3 * self.C * self.F)
        return 6 * matrices + 6 * self.L * self.T * self.C


SETTINGS = {
    "shakespeare": Setting(V=65, C=128, F=352, L=4, H=4, T=64, B=12, steps=40, learning_rate=4e-3),
    "m15": Setting(V=4096, C=384, F=960, L=8, H=6, T=256, B=16, steps=6, learning_rate=1e-3),
}


def main() -> None:
    """Parse the command line; run one measurement (child) or the whole table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", action="store_true", help="measure the plain loop too")
    parser.add_argument("--text", type=Path, default=TEXT, help="tinyshakespeare")
    parser.add_argument("--steps", type=int, default=2000, help="of the runs that are judged by validation loss")
    parser.add_argument("--seeds", type=int, default=3, help="of those runs; 0 measures speed alone")
    parser.add_argument("--rounds", type=int, default=5, help="of the measurements of speed")
    parser.add_argument("--only", choices=SETTINGS, action="append")
    parser.add_argument("--child", nargs=3, metavar=("SIDE", "SETTING", "TYPE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        side, name, compute = args.child
        measure = {"riyaz": riyaz_speed, "peer": peer_speed, "peak": peak}[side]
        print(json.dumps(measure(SETTINGS[name], compute, args.text)))
        return
    table: dict[str, Any] = {}
    for name in args.only or SETTINGS:
        table[name] = speeds(name, args)
        if name == "shakespeare" and args.seeds:
            compute = str(table[name]["type"])
            losses = [shakespeare_loss(args.steps, compute, seed, args.text) for seed in range(args.seeds)]
            table[name] |= {"val_loss": round(statistics.mean(losses), 4), "val_losses": losses}
    table["cpu"] = describe()["cpu"]
    print(json.dumps(table))


def speeds(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Interleaved rounds of all sides: medians, the ratio to the faster plain loop, the share of the peak."""
    sides = [(side, compute) for side in ("riyaz", "peer")[: 1 + args.peer] for compute in TYPES]
    runs: dict[tuple[str, str], list[float]] = {side: [] for side in [*sides, ("peak", "bfloat16")]}
    for number in range(args.rounds):
        for side, compute in runs:
            command = [sys.executable, __file__, "--text", str(args.text), "--child", side, name, compute]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            runs[side, compute].append(json.loads(done.stdout.splitlines()[-1]))
            unit = "FLOP/s" if side == "peak" else "tokens/s"
            print(f"{name} round {number + 1} {side} {compute}: {runs[side, compute][-1]:,.0f} {unit}", flush=True)
    return summary(SETTINGS[name], {side: statistics.median(found) for side, found in runs.items()})


def summary(setting: Setting, medians: dict[tuple[str, str], float]) -> dict[str, Any]:
    """One setting's part of the JSON."""
    ours = max(TYPES, key=lambda compute: medians["riyaz", compute])
    speed, most = medians["riyaz", ours], medians["peak", "bfloat16"]
    row = {
        "tokens_s": round(speed), "type": ours, "peak_share": round(speed * setting.flops() / most, 3),
        "peak_gflops": round(most / 1e9),
    }  # fmt: skip
    peers = {compute: medians["peer", compute] for compute in TYPES if ("peer", compute) in medians}
    if peers:
        best = max(peers, key=peers.__getitem__)
        row |= {"ratio_tokens_s": round(speed / peers[best], 2), "peer_tokens_s": round(peers[best]), "peer_type": best}
    return row


def characters(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """nanoGPT's split of a text into characters: the first nine tenths and the rest."""
    text = path.read_text(encoding="utf-8")
    ids = {character: number for number, character in enumerate(sorted(set(text)))}
    tokens = np.array([ids[character] for character in text], dtype=np.uint16)
    return tokens[: int(0.9 * len(tokens))], tokens[int(0.9 * len(tokens)) :]


def stream(setting: Setting, path: Path) -> np.ndarray:
    """What the measurements of speed read."""
    if setting.V == SETTINGS["shakespeare"].V:
        return characters(path)[0]
    return np.random.default_rng(0).integers(0, setting.V, 10**6).astype(np.uint16)


def windows(setting: Setting, tokens: np.ndarray, steps: int, seed: int) -> Windows:
    """As many windows at random places as the steps take, so that none comes twice."""
    starts = np.random.default_rng(seed).integers(0, len(tokens) - setting.T, steps * setting.B)
    return Windows(tokens, starts, setting.T)


def shakespeare_loss(steps: int, compute: str, seed: int, path: Path) -> float:
    """Mean nats per character over the whole validation text after training."""
    setting = SETTINGS["shakespeare"]
    learn, judge = characters(path)
    valid = Windows(judge, np.arange(0, len(judge) - setting.T, setting.T), setting.T)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        rows = windows(setting, learn, steps, seed)
        plan = setting.plan(steps, compute, seed)
        state = train(fresh(setting.config(), seed), rows, valid, plan, Path(folder), lambda event: None)
    print(f"shakespeare seed {seed}: validation loss {state.best_loss:.4f} after {steps} steps, "
          f"{time.perf_counter() - began:.0f} s", flush=True)  # fmt: skip
    return state.best_loss


def riyaz_speed(setting: Setting, compute: str, path: Path) -> float:
    """Tokens a second of the product's own loop."""
    steps = setting.steps + 3  # two warm up, and the last one validates and saves
    rows = windows(setting, stream(setting, path), steps, 0)
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        train(fresh(setting.config(), 0), rows, rows[:1], setting.plan(steps, compute, 0), Path(folder),
              lambda event: times.append(time.perf_counter()))  # fmt: skip
    return setting.B * setting.T * setting.steps / (times[-2] - times[1])


def peer_speed(setting: Setting, compute: str, path: Path) -> float:
    """The same of the plain loop."""
    tokens, steps = stream(setting, path), setting.steps + 2
    times, _ = plain_loop(Plain(setting), setting, tokens, windows(setting, tokens, steps, 0).starts, compute)
    return setting.B * setting.T * setting.steps / (times[-1] - times[1])


def peak(setting: Setting, compute: str, path: Path) -> float:
    """Floating point operations a second of a large matrix product."""
    return machine.peak(compute)


# The peer: the same model and loop, as short as torch lets one write them


def plain_loop(
    model: nn.Module, setting: Setting, tokens: np.ndarray, starts: np.ndarray, compute: str
) -> tuple[list[float], list[float]]:
    """Train on batches of windows: when each step ended, and its loss."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": setting.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=setting.betas, fused=True)
    data, batches = torch.from_numpy(tokens.astype(np.int64)), starts.reshape(-1, setting.B)
    plan = setting.plan(len(batches), compute, 0)
    times, losses = [], []
    for step, batch in enumerate(batches):
        x = torch.stack([data[i : i + setting.T] for i in batch])
        y = torch.stack([data[i + 1 : i + 1 + setting.T] for i in batch])
        with torch.autocast("cpu", torch.bfloat16, enabled=compute == "bfloat16"):
            loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(plan, step)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        times.append(time.perf_counter())
    return times, losses


class Plain(nn.Module):
    """A llama over batches (B, T)."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.embed = nn.Embedding(setting.V, setting.C)
        self.blocks = nn.ModuleList(PlainBlock(setting) for _ in range(setting.L))
        self.norm = nn.RMSNorm(setting.C, eps=1e-5)
        half = setting.C // setting.H // 2
        angles = torch.arange(setting.T)[:, None] * 1e4 ** -(torch.arange(half) / half)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        for p in self.parameters():
            if p.ndim > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, T, V) of tokens (B, T)."""
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return F.linear(self.norm(x), self.embed.weight)


class PlainBlock(nn.Module):
    """One layer."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        C, F, self.heads = setting.C, setting.F, setting.H
        self.norm1, self.norm2 = nn.RMSNorm(C, eps=1e-5), nn.RMSNorm(C, eps=1e-5)
        self.q, self.k, self.v, self.o = (nn.Linear(C, C, bias=False) for _ in range(4))
        self.gate, self.up, self.down = (nn.Linear(*size, bias=False) for size in ((C, F), (C, F), (F, C)))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The next layer's x (B, T, C)."""
        h = self.norm1(x)
        q, k, v = (part(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        a = F.scaled_dot_product_attention(turned(q, cos, sin), turned(k, cos, sin), v, is_causal=True)
        x = x + self.o(a.transpose(1, 2).flatten(2))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on x (B, H, T, D)."""
    (low, high), cos, sin = x.chunk(2, -1), cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)


if __name__ == "__main__":
    main()
