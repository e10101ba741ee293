"""The BERT family (BERT, MiniLM) as an embedder: configuration, tensor names, shapes; torch-free.

Only tensors that the hidden states depend on are read; the pooler in some checkpoints is ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from riyaz.errors import RiyazError, few
from riyaz.families import checks

MODEL_TYPE = "bert"
# field -> (key in config.json, largest value)
SIZES = {
    "vocab_size": ("vocab_size", 2**22),
    "hidden_size": ("hidden_size", 2**17),
    "intermediate_size": ("intermediate_size", 2**20),
    "n_layers": ("num_hidden_layers", 1024),
    "n_heads": ("num_attention_heads", 4096),
    "context": ("max_position_embeddings", 2**20),
    "n_types": ("type_vocab_size", 1024),
}
# keys with the only supported value; a missing key counts as that value
FIXED = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "quantization_config": None,
}


@dataclass(frozen=True)
class BertConfig:
    """The sizes and settings of a BERT model; `context` is the number of learned positions."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    context: int
    n_types: int
    layer_norm_eps: float

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.n_heads


def from_hf(metadata: Mapping[str, Any]) -> BertConfig:
    """The configuration from a config.json. Raises RiyazError listing every missing, wrong or unsupported key."""
    problems: list[str] = []
    checks.check_fixed(metadata, FIXED, problems)
    values = {field: metadata.get(key, 2 if field == "n_types" else None) for field, (key, _) in SIZES.items()}
    for field, (key, limit) in SIZES.items():
        value = values[field]
        if value is None:
            problems.append(f"{key} is missing")
        elif type(value) is not int or not 1 <= value <= limit:
            problems.append(f"{key} is {value!r:.60}, not a whole number from 1 to {limit}")
    eps = metadata.get("layer_norm_eps", 1e-12)
    if type(eps) not in (int, float) or not 0 < eps < 1:
        problems.append(f"layer_norm_eps is {eps!r:.60}, not a number between 0 and 1")
    if not problems and values["hidden_size"] % values["n_heads"]:
        problems.append(f"hidden size {values['hidden_size']} is not a multiple of {values['n_heads']} heads")
    if problems:
        raise RiyazError(few(problems), "config.json", "riyaz cannot run this model")
    return BertConfig(**values, layer_norm_eps=float(eps))


def layer_plan(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Hugging Face name -> shape, for every tensor that is read."""
    hidden, inner = config.hidden_size, config.intermediate_size
    plan: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, hidden),
        "embeddings.position_embeddings.weight": (config.context, hidden),
        "embeddings.token_type_embeddings.weight": (config.n_types, hidden),
        **_pair("embeddings.LayerNorm", hidden),
    }
    for layer in range(config.n_layers):
        base = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            plan |= _pair(f"{base}.attention.self.{part}", hidden, hidden)
        plan |= _pair(f"{base}.attention.output.dense", hidden, hidden)
        plan |= _pair(f"{base}.attention.output.LayerNorm", hidden)
        plan |= _pair(f"{base}.intermediate.dense", inner, hidden)
        plan |= _pair(f"{base}.output.dense", hidden, inner)
        plan |= _pair(f"{base}.output.LayerNorm", hidden)
    return plan


def ignored(name: str) -> bool:
    """Whether an extra tensor of a checkpoint may be ignored: the pooler and the saved position ids."""
    return name.startswith("pooler.") or name == "embeddings.position_ids"


def _pair(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    """The weight of this shape, and the bias of shape (rows,)."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
