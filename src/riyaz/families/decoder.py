"""Shared by the decoder families with rotary embeddings and a gated MLP: keys, tensor names, shapes; torch-free.

Each family's own module holds its configuration class and what differs.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from riyaz.families import checks, rope
from riyaz.sources import TensorInfo

# field -> (key in config.json, key in GGUF without the prefix "FAMILY.")
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
THETA = 10_000.0  # RoPE base when a file has none, and of a new model
FRESH_EPS = 1e-5  # of the norms of a new model
RESIDUAL = (".o_proj.weight", ".down_proj.weight")  # matrices whose output is added to the residual stream
Values = dict[str, Any]  # field of a configuration -> value in a file


def hf_values(metadata: Mapping[str, Any], defaults: Mapping[str, Any], problems: list[str]) -> Values:
    """The fields of KEYS and `rope_scaling` from a config.json; adds a problem for unsupported RoPE settings."""
    values = {field: metadata.get(key, defaults.get(field)) for field, (key, _) in KEYS.items()}
    theta, values["rope_scaling"] = rope.from_hf(metadata, problems)
    values["rope_theta"] = THETA if theta is None else theta
    return values


def gguf_values(
    metadata: Mapping[str, Any], family: str, tensors: Mapping[str, TensorInfo], problems: list[str]
) -> Values:
    """The fields of KEYS, `rope_scaling` and `tie_word_embeddings` from a GGUF file.

    Vocabulary size and head tying are derived from the tensors. Adds a problem for unsupported RoPE settings and for a
    rotary or value size other than the head size.
    """
    values = {field: checks.shortest_decimal(metadata.get(f"{family}.{key}")) for field, (_, key) in KEYS.items()}
    embedding = tensors.get("token_embd.weight")
    if embedding:
        values["vocab_size"] = embedding.shape[0]
    if values["rope_theta"] is None:
        values["rope_theta"] = THETA
    checks.fill_heads(values)
    for key in (f"{family}.rope.dimension_count", f"{family}.attention.value_length"):
        if key in metadata and metadata[key] != values["head_dim"]:
            problems.append(f"{key} is {metadata[key]!r:.60}, the head size is {values['head_dim']!r:.60}")
    values["rope_scaling"] = rope.from_gguf(metadata, family, values, problems)
    values["tie_word_embeddings"] = "output.weight" not in tensors
    return values


def checked_hf(values: Values, problems: list[str]) -> Values:
    """The values from a config.json, checked. Raises RiyazError listing every one that is not a number in range."""
    return _checked(values, {field: key for field, (key, _) in KEYS.items()}, problems, "config.json")


def checked_gguf(values: Values, family: str, problems: list[str]) -> Values:
    """As `checked_hf`, for values from a GGUF file."""
    return _checked(values, {field: f"{family}.{key}" for field, (_, key) in KEYS.items()}, problems, "GGUF metadata")


def _checked(values: Values, keys: checks.Keys, problems: list[str], where: str) -> Values:
    checks.fill_heads(values)
    checks.check_sizes(values, keys, problems)
    checks.check_positive(values, ("rms_norm_eps", "rope_theta"), keys, problems)
    checks.raise_problems(values, problems, where)
    return values


def hf_settings(config: Any) -> dict[str, Any]:
    """The config.json entries that `hf_values` reads."""
    values = {key: getattr(config, field) for field, (key, _) in KEYS.items()}
    return {**values, **rope.to_hf(config.rope_theta, config.rope_scaling)}


def gguf_metadata(config: Any) -> dict[str, Any]:
    """The GGUF metadata that `gguf_values` reads. Raises RiyazError for RoPE scaling that GGUF cannot express."""
    family, size = config.model_type, config.head_dim
    values = {f"{family}.{key}": getattr(config, field) for field, (_, key) in KEYS.items()}
    sizes = {f"{family}.{key}": size for key in ("attention.value_length", "rope.dimension_count")}
    scaling = rope.to_gguf(family, config.rope_scaling, size, config.rope_theta)
    return {"general.architecture": family, **values, **sizes, **scaling}


def native_settings(config: Any) -> dict[str, Any]:
    """The C++ model's settings besides its sizes: RMSNorm, and RoPE with the same frequencies in every layer."""
    return {
        "eps": config.rms_norm_eps,
        "rotations": [0] * config.n_layers,
        "frequencies": [rope.frequencies(config.rope_theta, config.head_dim, config.rope_scaling)],
        "position_divisors": [1.0],
    }


def fresh_values(vocab: int, context: int, layers: int, heads: int, width: int) -> Values:
    """The fields of a new model's configuration, with a tied head."""
    # a gated feed-forward has three matrices: with 8/3 C it has as many parameters as a plain one with 4 C
    return {
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": max(64, round(8 / 3 * width / 64) * 64),
        "n_layers": layers,
        "n_heads": heads,
        "n_kv_heads": heads,
        "head_dim": width // heads,
        "context": context,
        "rms_norm_eps": FRESH_EPS,
        "rope_theta": THETA,
        "tie_word_embeddings": True,
    }


def linear_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Shape (out, in) of every linear of a layer, by its name in the layer."""
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
    """Hugging Face name -> shape, for every tensor of the model; a tied head is left out.

    `parts` are a layer's modules in order. A part missing from `shapes` is a norm, (hidden size,); a part in `biased`
    also has a bias, (out,).
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
    """Hugging Face name -> GGUF name, for these tensors; `outer_names` are those of modules outside the layers."""
    return {name: _gguf_name(name, layer_names, outer_names) for name in names}


def _gguf_name(name: str, layer_names: Mapping[str, str], outer_names: Mapping[str, str]) -> str:
    stem, kind = name.rsplit(".", 1)
    if stem in outer_names:
        return f"{outer_names[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{layer_names[part]}.{kind}"
