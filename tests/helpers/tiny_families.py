"""Tiny seeded models of every family, made by transformers and written as a folder and as a GGUF file.

A family more is a line of FAMILIES. Names in GGUF come from the `gguf` package, weights and names in the folder from
transformers: neither is riyaz's own opinion.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tiny_llama
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB, HIDDEN, LAYERS, CONTEXT = 512, 64, 2, 128
Layout = Callable[[Any, str, np.ndarray], np.ndarray]


def as_it_is(config: Any, name: str, array: np.ndarray) -> np.ndarray:
    """Most of llama.cpp's files."""
    return array


def interleaved(config: Any, name: str, array: np.ndarray) -> np.ndarray:
    """The halves of each head of q and k interleaved, as llama.cpp's converter does for llamas."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    return array if heads is None else tiny_llama.permute(array, heads)


def turned(config: Any, name: str, array: np.ndarray) -> np.ndarray:
    """The Conv1D of transformers as a linear."""
    return array.T if name.split(".")[-2] in ("c_attn", "c_proj", "c_fc") and array.ndim == 2 else array


@dataclass(frozen=True)
class Case:
    """One configuration of a family; `sizes` are its own keys, `metadata` more pairs of its GGUF file."""

    model_type: str
    sizes: dict[str, Any] = field(default_factory=dict)
    layout: Layout = as_it_is
    metadata: dict[str, Any] = field(default_factory=dict)
    divisors: tuple[float, ...] = ()  # of RoPE's frequencies, GGUF's rope_freqs.weight


def rope(kind: str, **entries: Any) -> dict[str, Any]:
    """A configuration's scaling of RoPE."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0, **entries}}


LLAMA3 = rope("llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
# of 8 frequencies 10000^(-i/8): 32 places hold 5.1 turns of the first wave, 1.61 of the second, 0.51 of the third
SECOND = (32 / (2 * np.pi * 10000 ** (1 / 8)) - 1) / 3
FREQUENCIES = (1.0, 1 / (SECOND + (1 - SECOND) / 4), *(4.0,) * 6)
BIASES = {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False}
LINEAR = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
FAMILIES = {
    "llama-biases": Case("llama", BIASES, interleaved),
    "llama-linear": Case("llama", rope("linear"), interleaved, LINEAR),
    "llama-llama3": Case("llama", LLAMA3 | {"tie_word_embeddings": True}, interleaved, divisors=FREQUENCIES),
    "gpt2": Case("gpt2", layout=turned),
    "gpt2-untied": Case("gpt2", {"tie_word_embeddings": False, "n_inner": 96}, turned),
    "qwen2": Case("qwen2", {"tie_word_embeddings": True}),
    "qwen2-untied": Case("qwen2", {"num_key_value_heads": 1} | rope("linear"), metadata=LINEAR),
    "qwen3": Case("qwen3", {"head_dim": 24, "tie_word_embeddings": True}),
    "qwen3-biases": Case("qwen3", {"head_dim": 16, "attention_bias": True}),
}


def config_of(case: Case) -> Any:
    common = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    if case.model_type == "gpt2":
        common |= {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_positions": CONTEXT}
    else:
        common |= {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
                   "max_position_embeddings": CONTEXT, "num_key_value_heads": 2, "intermediate_size": 96,
                   "rms_norm_eps": 1e-5}  # fmt: skip
    return AutoConfig.for_model(case.model_type, **{**common, **case.sizes})


def make(case: Case, folder: Path, seed: int = 3) -> Any:
    """The model in transformers, float32, its weights random and nowhere 0 or 1; saved in `folder` with a tokenizer."""
    config = config_of(case)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                noise = torch.randn(weight.shape)
                is_scale = weight.ndim == 1 and name.endswith("weight")
                fan_in = weight.shape[0] if case.layout is turned and "h." in name else weight.shape[-1]
                weight.copy_(1 + 0.1 * noise if is_scale else noise * (0.1 if weight.ndim == 1 else fan_in**-0.5))
    tiny_llama.write_tokenizer(folder, VOCAB)
    model.save_pretrained(folder)
    return model


def write_gguf(case: Case, oracle: Any, path: Path) -> Path:
    """The same weights as llama.cpp's converter lays them out, float32."""
    from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map

    config, writer = oracle.config, GGUFWriter(str(path), case.model_type)
    names = get_tensor_name_map(MODEL_ARCH[case.model_type.upper()], LAYERS)
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_head_count(4)
    if case.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * HIDDEN)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        if "head_dim" in case.sizes:
            writer.add_key_length(config.head_dim)
            writer.add_value_length(config.head_dim)
    for key, value in case.metadata.items():
        (writer.add_string if isinstance(value, str) else writer.add_float32)(f"{case.model_type}.{key}", value)
    for name, weight in oracle.named_parameters():  # a tied head is not among them
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(stored, np.ascontiguousarray(case.layout(config, name, weight.detach().numpy())))
    if case.divisors:
        writer.add_tensor("rope_freqs.weight", np.array(case.divisors, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@torch.no_grad()
def oracle_logits(oracle: Any, tokens: Tensor) -> Tensor:
    """(T, V) of one row in transformers or PEFT."""
    return oracle.eval()(tokens[None]).logits[0]
