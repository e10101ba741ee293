"""Tiny seeded models of every family that trains, in memory, and ways to train them: for the tests of training."""

import importlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riyaz.data.rows import Row
from riyaz.families import FAMILIES
from riyaz.layers.swaps import lora, soft_prompt
from riyaz.models import fill_weights

VOCABULARY, END, WINDOW = 64, 2, 12  # tokens that a layer with a window sees
COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 32,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}  # fmt: skip
LOCAL = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
# the keys of config.json that are a family's own
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": WINDOW, "tie_word_embeddings": False},
    "qwen2": {},
    "qwen3": {},
    "gemma3": {"model_type": "gemma3_text", "query_pre_attn_scalar": 24, "final_logit_softcapping": 20.0} | LOCAL,
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 128, "layer_norm_epsilon": 1e-5},
}
METHODS = ("lora", "full", "prompt_tuning")


def family_model(family: str, method: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """A model whose trainable parameters are those of the method; its head size is one that our kernels take."""
    config = FAMILIES[family].from_hf({"model_type": family} | COMMON | CONFIGS[family])
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = importlib.import_module(f"riyaz.models.{family}").Model(config)
    plan = FAMILIES[family].layer_plan(config)
    state = {name: _noise(name, shape, family, generator) for name, shape in plan.items()}
    model = fill_weights(model, state).to(dtype).requires_grad_(method == "full")
    if method == "lora":
        lora.apply(model, r=4, alpha=8, seed=seed)
    return soft_prompt.apply(model, range(5, 25)) if method == "prompt_tuning" else model


def _noise(name: str, shape: tuple[int, ...], family: str, generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return noise * shape[-1] ** -0.5
    is_scale = name.endswith(".weight") and family != "gemma3"  # whose norms multiply by 1 + w
    return 0.1 * noise + is_scale


def training_rows(count: int = 24) -> list[Row]:
    """Rows to learn: prompts of 1 to 30 tokens, answers that repeat some of them. Most begin with the same ten tokens,
    and are packed behind them where a batch holds no others; some are shorter than the window, some longer."""
    generator, rows = np.random.default_rng(1), []
    for place in range(count):
        shared = tuple(range(10, 20)) if place % 8 else ()
        own = tuple(generator.integers(20, VOCABULARY, generator.integers(1, 21)).tolist())
        rows.append(Row(shared + own, (*own[: place % 4], END)))
    return rows


def equal_rows(count: int = 24, length: int = 32) -> list[Row]:
    """Rows of one length as pretraining has them: the answer is all but the first token, here what can be guessed."""
    rows = []
    for place in range(count):
        tokens = tuple(3 + (place + step * (1 + place % 3)) % (VOCABULARY - 3) for step in range(length + 1))
        rows.append(Row(tokens[:1], tokens[1:]))
    return rows
