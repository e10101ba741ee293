"""What the families with rotary embeddings and gated feed-forwards share: keys, tensor names and shapes; torch-free.

A family's own file holds its configuration and what it has beyond this.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from riyaz.families import checks, rope
from riyaz.sources import TensorInfo

# field -> (key in config.json, key in GGUF after the family's name)
KEYS = {
    "vocab_size": ("vocab_size", "vocab_size"),
    "hidden_size": ("hidden_size", "embedding_length"),
    "intermediate_size": ("intermediate_size", "feed_forward_length"),
    "n_layers": ("num_hidden_layers", "block_count"),
    "n_heads": ("num_attention_heads", "attention.head_count"),
    "n_kv_heads": ("num_key_value_heads", "attention.head_count_kv"),
    "head_dim": ("head_dim", "attention.key_length"),
    "context": ("max_position_embeddings", "context_length"),
    "rms_norm_eps": ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    "rope_theta": ("rope_theta", "rope.freq_base"),
}
# Hugging Face name without "model.layers.N." -> GGUF name without "blk.N."
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTER_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
THETA = 10_000.0  # the base of RoPE where a file names none
Values = dict[str, Any]  # field of a configuration -> what a file says


def hf_values(metadata: Mapping[str, Any], defaults: Mapping[str, Any], problems: list[str]) -> Values:
    """The fields of KEYS and `rope_scaling` of a config.json; notes what RoPE cannot be."""
    values = {field: metadata.get(key, defaults.get(field)) for field, (key, _) in KEYS.items()}
    theta, values["rope_scaling"] = rope.from_hf(metadata, problems)
    values["rope_theta"] = THETA if theta is None else theta
    return values


def gguf_values(
    metadata: Mapping[str, Any], family: str, tensors: Mapping[str, TensorInfo], problems: list[str]
) -> Values:
    """The fields of KEYS, `rope_scaling` and `tie_word_embeddings` of a GGUF file; notes heads that do not turn as a
    whole. Vocabulary and tied head are seen from the tensors."""
    values = {field: checks.shortest(metadata.get(f"{family}.{key}")) for field, (_, key) in KEYS.items()}
    embedding = tensors.get("token_embd.weight")
    if embedding:
        values["vocab_size"] = embedding.shape[0]
    if values["rope_theta"] is None:
        values["rope_theta"] = THETA
    checks.fill(values)
    for key in (f"{family}.rope.dimension_count", f"{family}.attention.value_length"):
        if key in metadata and metadata[key] != values["head_dim"]:
            problems.append(f"{key} is {metadata[key]!r:.60}, the head size is {values['head_dim']!r:.60}")
    values["rope_scaling"] = rope.from_gguf(metadata, family, values, problems)
    values["tie_word_embeddings"] = "output.weight" not in tensors
    return values


def checked_hf(values: Values, problems: list[str]) -> Values:
    """The values of a config.json, once every one is a number in its range; RiyazError listing all that are not."""
    return _checked(values, {field: key for field, (key, _) in KEYS.items()}, problems, "config.json")


def checked_gguf(values: Values, family: str, problems: list[str]) -> Values:
    """The values of a GGUF file, as `checked_hf`."""
    return _checked(values, {field: f"{family}.{key}" for field, (_, key) in KEYS.items()}, problems, "GGUF metadata")


def _checked(values: Values, keys: checks.Keys, problems: list[str], where: str) -> Values:
    checks.fill(values)
    checks.sizes(values, keys, problems)
    checks.positive(values, ("rms_norm_eps", "rope_theta"), keys, problems)
    checks.finish(values, problems, where)
    return values


def hf_settings(config: Any) -> dict[str, Any]:
    """What `hf_values` reads, as the entries of a config.json."""
    values = {key: getattr(config, field) for field, (key, _) in KEYS.items()}
    return {**values, **rope.to_hf(config.rope_theta, config.rope_scaling)}


def gguf_metadata(config: Any) -> dict[str, Any]:
    """What `gguf_values` reads, as llama.cpp must know it."""
    family, size = config.model_type, config.head_dim
    values = {f"{family}.{key}": getattr(config, field) for field, (_, key) in KEYS.items()}
    sizes = {f"{family}.{key}": size for key in ("attention.value_length", "rope.dimension_count")}
    scaling = rope.to_gguf(family, config.rope_scaling, size, config.rope_theta)
    return {"general.architecture": family, **values, **sizes, **scaling}


def linears(config: Any) -> dict[str, tuple[int, ...]]:
    """Name in a layer -> shape (out, in) of its linears."""
    hidden, inner = config.hidden_size, config.intermediate_size
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    return {
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (key, hidden),
        "self_attn.v_proj": (key, hidden),
        "self_attn.o_proj": (hidden, query),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }


def layer_plan(
    config: Any, parts: Iterable[str], shapes: Mapping[str, tuple[int, ...]], biased: Collection[str] = ()
) -> dict[str, tuple[int, ...]]:
    """Hugging Face name -> shape of every tensor of the model; a tied head has none.

    `parts` are those of a layer in their order. One without a shape is a norm over the hidden size; a biased one has a
    bias as long as its first dimension.
    """
    hidden = (config.hidden_size,)
    plan: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, *hidden)}
    for layer in range(config.n_layers):
        for part in parts:
            name = f"model.layers.{layer}.{part}"
            plan[f"{name}.weight"] = shapes.get(part, hidden)
            if part in biased:
                plan[f"{name}.bias"] = shapes[part][:1]
    plan["model.norm.weight"] = hidden
    if not config.tie_word_embeddings:
        plan["lm_head.weight"] = (config.vocab_size, *hidden)
    return plan


def gguf_names(
    names: Iterable[str], layer_names: Mapping[str, str], outer_names: Mapping[str, str] = OUTER_NAMES
) -> dict[str, str]:
    """Hugging Face name -> GGUF name of these tensors, by the names of a layer's parts and of what is outside."""
    return {name: _gguf_name(name, layer_names, outer_names) for name in names}


def _gguf_name(name: str, layer_names: Mapping[str, str], outer_names: Mapping[str, str]) -> str:
    stem, kind = name.rsplit(".", 1)
    if stem in outer_names:
        return f"{outer_names[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{layer_names[part]}.{kind}"
