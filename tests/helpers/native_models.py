"""Tiny models of every family on disk, opened by the C++ engine and, as its oracle, by the torch engine."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_families
import tiny_window_families
import torch

from riyaz import native
from riyaz.adapters import Adapter, Pair
from riyaz.engine.native.load import load_runner
from riyaz.engine.native.runner import NativeRunner
from riyaz.engine.runner import Runner, TokenRun, Whole
from riyaz.engine.torch.runner import TorchRunner
from riyaz.families import FAMILIES, describe
from riyaz.models import load
from riyaz.sources import open_source

CONTEXT = 2048
KINDS = (*tiny_families.FAMILIES, *tiny_window_families.KINDS)
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "c_attn", "c_proj", "c_fc")
Folders = Callable[[str], Path]  # kind -> folder of its model


def write(kind: str, folder: Path) -> Path:
    """A seeded model of a kind, with a long context."""
    if kind in tiny_window_families.KINDS:
        tiny_window_families.theirs(kind, max_position_embeddings=CONTEXT).save_pretrained(folder)
        return folder
    case = tiny_families.FAMILIES[kind]
    context = "n_positions" if case.model_type == "gpt2" else "max_position_embeddings"
    tiny_families.make(replace(case, sizes={**case.sizes, context: CONTEXT}), folder)
    return folder


def folders_in(factory: pytest.TempPathFactory) -> Folders:
    """A function from a kind to the folder of its model, which is written once."""
    return cache(lambda kind: write(kind, factory.mktemp(kind)))


def ours(path: Path, precision: str = "fp32", kv: str = "auto") -> NativeRunner:
    """The C++ engine's runner."""
    return load_runner(open_source(path), precision, kv=kv)


def theirs(path: Path, dtype: torch.dtype = torch.float32) -> TorchRunner:
    """The torch engine's runner."""
    return TorchRunner(load(open_source(path), dtype))


def rounded(path: Path, precision: str) -> TorchRunner:
    """The torch engine's runner in float32, with matrices as the C++ engine packs them."""
    model = load(open_source(path), torch.float32)
    for weight in model.parameters():
        if weight.ndim == 2:
            weight.data = torch.from_numpy(_as_packed(weight.detach().numpy(), precision))
    return TorchRunner(model)


def with_packed_pairs(adapter: Adapter) -> Adapter:
    """An adapter whose LoRA pairs are those that the C++ engine multiplies beside weights that are not in float32."""
    pairs = {
        path: pair if path == "lm_head" else Pair(_as_packed(pair.a), _as_packed(np.float32(pair.scale) * pair.b), 1.0)
        for path, pair in adapter.pairs.items()
    }
    return replace(adapter, pairs=pairs)


def _as_packed(values: np.ndarray, form: str = "int8row") -> np.ndarray:
    matrix = native.extension().Matrix(form, *values.shape)
    matrix.fill(0, np.ascontiguousarray(values, np.float32))
    return np.stack([matrix.row(row)[: values.shape[1]] for row in range(len(values))])


def ids(generator: np.random.Generator, count: int, vocabulary: int) -> tuple[int, ...]:
    return tuple(generator.integers(3, vocabulary, count).tolist())


def read(runner: Runner, tokens: tuple[int, ...], adapter: str | None = None) -> np.ndarray:
    """Log-probabilities (T, V) after every token, from one run in a sequence of its own."""
    return read_all(runner, [tokens], [adapter])[0]


def read_all(runner: Runner, rows: list[tuple[int, ...]], adapters: list[str | None] | None = None) -> list[np.ndarray]:
    """The same of several sequences in one forward."""
    opened = [runner.open(adapter) for adapter in adapters or [None] * len(rows)]
    try:
        return runner.forward([TokenRun(at, row, Whole(np.arange(len(row)))) for at, row in zip(opened, rows)])
    finally:
        for sequence in opened:
            runner.close(sequence)


def apart(found: Any, wanted: Any) -> float:
    """The largest difference of two arrays, or lists of arrays; NaN counts as infinite."""
    if isinstance(found, list):
        return max(apart(one, other) for one, other in zip(found, wanted, strict=True))
    assert found.shape == wanted.shape
    return float(np.nan_to_num(np.abs(found - wanted), nan=np.inf).max())


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's tensors, a tied head's too."""
    family = describe(open_source(path))
    shapes = dict(FAMILIES[family.model_type].layer_plan(family.config))
    return {**shapes, "lm_head.weight": (family.config.vocab_size, family.config.hidden_size)}


def lora_of(path: Path, seed: int, rank: int, targets: tuple[str, ...] = LINEARS, scale: float = 2.0) -> Adapter:
    """A LoRA that changes answers, on the linears of these last names."""
    generator, pairs = np.random.default_rng(seed), {}
    for name, shape in shapes_of(path).items():
        module = name.removesuffix(".weight")
        if module.rpartition(".")[2] in targets and name.endswith(".weight"):
            a = generator.normal(0, shape[1] ** -0.5, (rank, shape[1])).astype(np.float32)
            pairs[module] = Pair(a, generator.normal(0, 0.2, (shape[0], rank)).astype(np.float32), scale)
    assert pairs
    return Adapter(pairs)


def whole_of(path: Path, seed: int, parts: tuple[str, ...]) -> Adapter:
    """An adapter that replaces the tensors whose names end in one of these."""
    generator, whole = np.random.default_rng(seed), {}
    for name, shape in shapes_of(path).items():
        if name.endswith(parts):
            noise = generator.normal(0, 1 if len(shape) == 1 else shape[1] ** -0.5, shape)
            whole[name] = (1 + 0.2 * noise if "norm" in name or "ln_" in name else noise).astype(np.float32)
    assert whole
    return Adapter(whole=whole)


def soft_of(path: Path, seed: int, count: int) -> Adapter:
    """A soft prompt of so many vectors."""
    width = shapes_of(path)["lm_head.weight"][1]
    return Adapter(soft_prompt=np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32))
