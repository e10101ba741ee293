"""Tiny seeded models of the families with a window, as transformers makes and saves them, and as GGUF files."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

VOCABULARY, END, WINDOW = 64, 2, 6
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256, "sliding_window": WINDOW,
    "bos_token_id": 1, "eos_token_id": END, "pad_token_id": 0,
}  # fmt: skip
KINDS = {
    "gemma3": {"num_hidden_layers": 3, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "gemma3-scaled": {
        "num_hidden_layers": 3, "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
        "query_pre_attn_scalar": 24, "final_logit_softcapping": 3.0, "tie_word_embeddings": False,
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
    },
    "mistral": {"num_hidden_layers": 2},
}  # fmt: skip


def theirs(kind: str, **changes: Any) -> Any:
    """A seeded model of transformers in float32, its norms away from one."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, MistralConfig, MistralForCausalLM

    settings = {**SIZES, **KINDS[kind], **changes}
    if kind == "mistral":
        model = MistralForCausalLM(MistralConfig(**settings))
    else:
        model = Gemma3ForCausalLM(Gemma3TextConfig(**settings))
    generator = torch.Generator().manual_seed(len(kind))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "norm" in name:  # in steps of which 1 + w loses none
                weight.copy_(torch.round(32 * noise) / 256 + (kind == "mistral"))
            else:
                weight.copy_(noise * weight.shape[-1] ** -0.5)
    return model.eval().requires_grad_(False)


def logits(model: Any, tokens: Tensor | None = None, embeddings: Tensor | None = None) -> Tensor:
    """(T, V) of transformers' model for one row of tokens (T,) or embeddings (T, C)."""
    if embeddings is None:
        assert tokens is not None
        return model(tokens[None]).logits[0]
    return model(inputs_embeds=embeddings[None]).logits[0]


def write_gguf(path: Path, model: Any) -> Path:
    """A Gemma 3 of transformers as llama.cpp's converter writes it, in float32 and without a tokenizer."""
    from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map

    config, writer = model.config, GGUFWriter(str(path), "gemma3")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["full_attention"]["rope_theta"])
    writer.add_sliding_window(config.sliding_window)
    writer.add_vocab_size(config.vocab_size)
    names = get_tensor_name_map(MODEL_ARCH.GEMMA3, config.num_hidden_layers)
    for name, weight in model.named_parameters():
        array = weight.numpy() + (1 if "norm" in name else 0)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
