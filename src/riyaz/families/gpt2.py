"""The GPT-2 family (GPT-2, DistilGPT2): configuration, tensor names, shapes; torch-free.

Hugging Face stores GPT-2's linears as (in, out), GGUF and riyaz as (out, in). Old checkpoints omit the prefix
`transformer.`, and many contain the causal mask as a tensor.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from riyaz.families import checks, decoder
from riyaz.sources import TensorInfo

MODEL_TYPE = "gpt2"
TRUNK = "transformer."
# field -> (key in config.json, key in GGUF without "gpt2.")
KEYS = {
    "vocab_size": ("vocab_size", "vocab_size"),
    "hidden_size": ("n_embd", "embedding_length"),
    "intermediate_size": ("n_inner", "feed_forward_length"),
    "n_layers": ("n_layer", "block_count"),
    "n_heads": ("n_head", "attention.head_count"),
    "n_kv_heads": ("n_head", "attention.head_count_kv"),
    "head_dim": ("head_dim", "attention.key_length"),
    "context": ("n_positions", "context_length"),
    "layer_norm_eps": ("layer_norm_epsilon", "attention.layer_norm_epsilon"),
}
# Hugging Face name without "transformer.h.N." -> GGUF name without "blk.N."
LAYER_NAMES = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
OUTER_NAMES = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",
}
# keys with the only supported value; a missing key counts as that value
FIXED = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "quantization_config": None,
}
RESIDUAL = (".c_proj.weight",)  # matrices whose output is added to the residual stream
TANH_GELU = ("gelu_new", "gelu_pytorch_tanh")  # two names for the same function


@dataclass(frozen=True)
class GPT2Config:
    """The sizes and settings of a GPT-2 model; `context` is the number of learned positions."""

    model_type: ClassVar[str] = MODEL_TYPE
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    layer_norm_eps: float
    context: int
    tie_word_embeddings: bool


def fresh_config(vocab: int, context: int, layers: int, heads: int, width: int) -> GPT2Config:
    """The configuration of a new model, with a tied head."""
    return GPT2Config(vocab, width, 4 * width, layers, heads, heads, width // heads, decoder.FRESH_EPS, context, True)


def native_settings(config: GPT2Config) -> dict[str, Any]:
    """The C++ model's settings besides its sizes: LayerNorm, and no RoPE."""
    return {"layer_norm": True, "eps": config.layer_norm_eps, "activation": "gelu_tanh"}


def from_hf(metadata: Mapping[str, Any]) -> GPT2Config:
    """The configuration from a config.json. Raises RiyazError listing every missing, wrong or unsupported key."""
    problems: list[str] = []
    values = {field: metadata.get(key) for field, (key, _) in KEYS.items()}
    if values["layer_norm_eps"] is None:
        values["layer_norm_eps"] = 1e-5
    checks.check_fixed(metadata, FIXED, problems)
    if metadata.get("activation_function") not in (None, *TANH_GELU):
        problems.append(f"activation_function is {metadata['activation_function']!r:.60}, riyaz supports only gelu_new")
    values |= checks.booleans(metadata, {"tie_word_embeddings": True}, problems)
    return _checked(values, {field: key for field, (key, _) in KEYS.items()}, problems, "config.json")


def from_gguf(metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> GPT2Config:
    """The configuration from GGUF metadata; head tying and vocabulary size are derived from the tensors. Raises
    RiyazError listing all problems."""
    values = {field: checks.shortest_decimal(metadata.get(f"{MODEL_TYPE}.{key}")) for field, (_, key) in KEYS.items()}
    embedding = tensors.get("token_embd.weight")
    if embedding:
        values["vocab_size"] = embedding.shape[0]
    values["tie_word_embeddings"] = "output.weight" not in tensors
    names = {field: f"{MODEL_TYPE}.{key}" for field, (_, key) in KEYS.items()}
    return _checked(values, names, [], "GGUF metadata")


def to_hf(config: GPT2Config) -> dict[str, Any]:
    """The config.json that transformers' GPT2LMHeadModel reads."""
    fields = ("vocab_size", "hidden_size", "intermediate_size", "n_layers", "n_heads", "context", "layer_norm_eps")
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": MODEL_TYPE,
        **{KEYS[field][0]: getattr(config, field) for field in fields},
        "activation_function": "gelu_new",
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def layer_plan(config: GPT2Config) -> dict[str, tuple[int, ...]]:
    """Hugging Face name -> shape in riyaz (linears are (out, in)), for every tensor; a tied head is left out."""
    hidden, inner = config.hidden_size, config.intermediate_size
    linears = {
        "attn.c_attn": (3 * hidden, hidden),
        "attn.c_proj": (hidden, hidden),
        "mlp.c_fc": (inner, hidden),
        "mlp.c_proj": (hidden, inner),
    }
    plan: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (config.vocab_size, hidden),
        "transformer.wpe.weight": (config.context, hidden),
    }
    for layer in range(config.n_layers):
        for part in LAYER_NAMES:
            shape = linears.get(part, (hidden,))
            plan[f"transformer.h.{layer}.{part}.weight"] = shape
            plan[f"transformer.h.{layer}.{part}.bias"] = shape[:1]
    plan |= {"transformer.ln_f.weight": (hidden,), "transformer.ln_f.bias": (hidden,)}
    if not config.tie_word_embeddings:
        plan["lm_head.weight"] = (config.vocab_size, hidden)
    return plan


def names(config: GPT2Config) -> dict[str, str]:
    """Hugging Face name -> GGUF name, for every tensor of the model."""
    return decoder.gguf_names(layer_plan(config), LAYER_NAMES, OUTER_NAMES)


def checkpoint_names(config: GPT2Config, tensors: Mapping[str, TensorInfo]) -> dict[str, str]:
    """Hugging Face name -> name in this checkpoint, which may omit the prefix `transformer.`."""
    bare = "wte.weight" in tensors
    return {name: name.removeprefix(TRUNK) if bare else name for name in layer_plan(config)}


def transposed(name: str) -> bool:
    """Whether Hugging Face checkpoints store this tensor as (in, out)."""
    return name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))


def from_gguf_layout(config: GPT2Config, name: str, array: np.ndarray) -> np.ndarray:
    """The GGUF tensor unchanged: its linears are (out, in), and q, k and v are stacked as in Hugging Face's c_attn."""
    return array


def to_gguf_layout(config: GPT2Config, name: str, array: np.ndarray) -> np.ndarray:
    """The tensor unchanged, as in `from_gguf_layout`."""
    return array


def gguf_metadata(config: GPT2Config) -> dict[str, Any]:
    """The model's GGUF metadata, as `from_gguf` and llama.cpp read it."""
    values = {f"{MODEL_TYPE}.{key}": getattr(config, field) for field, (_, key) in KEYS.items()}
    return {"general.architecture": MODEL_TYPE, **values}


def ignored(name: str) -> bool:
    """Whether an extra tensor of a checkpoint may be ignored: the saved causal mask and its masking value."""
    return name.endswith((".attn.bias", ".attn.masked_bias"))


def _checked(values: dict[str, Any], keys: dict[str, str], problems: list[str], where: str) -> GPT2Config:
    """The configuration, checked. Raises RiyazError listing every value that is not a number in range."""
    hidden, heads = values["hidden_size"], values["n_heads"]
    if values["intermediate_size"] is None and type(hidden) is int:
        values["intermediate_size"] = 4 * hidden
    checks.fill_heads(values)
    checks.check_sizes(values, keys, problems)
    checks.check_positive(values, ("layer_norm_eps",), keys, problems)
    if not problems and (values["n_kv_heads"] != heads or values["head_dim"] * heads != hidden):
        problems.append(f"{heads} heads of size {values['head_dim']} do not make up the hidden size {hidden}")
    checks.raise_problems(values, problems, where)
    return GPT2Config(**values)
