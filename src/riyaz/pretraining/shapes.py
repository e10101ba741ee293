"""What a fresh model looks like: the sizes by name, their configurations, and what a token costs in them. Torch-free.

Legend: T tokens of the context, C width, L layers, V vocabulary.
"""

import math
from dataclasses import dataclass

from riyaz.errors import RiyazError
from riyaz.families import gpt2, llama
from riyaz.families.gpt2 import GPT2Config
from riyaz.families.llama import LlamaConfig
from riyaz.hardware import MB

ROPE_THETA = 10_000.0
NORM_EPS = 1e-5
BASE_MB = 560  # of Python, torch and what they allocate before a model is there
MICRO_TOKENS = 2048  # of one forward pass, about
ACTIVATIONS = 16  # numbers of width C that one layer keeps of a token for its backward pass
LOGITS = (256, 2**20)  # rows, or else numbers, of the chunks in which `layers.loss` makes them
LOGITS_BYTES = 16  # of each such number: the chunk, its softmax and its gradient, in float32
FAMILIES = {llama.MODEL_TYPE: llama, gpt2.MODEL_TYPE: gpt2}
# what a name in config.json speaks of -> the flag that says it; a width has many names
FLAGS = {"head": "--heads", "layer": "--layers", "position": "--context", "vocab": "--tokenizer"}

Config = LlamaConfig | GPT2Config


@dataclass(frozen=True)
class Shape:
    """How many layers and heads, and how wide."""

    layers: int
    heads: int
    width: int


# Named by their parameters with a vocabulary of 4,096 and a head that is the embedding. The small ones are wide
# rather than deep: a thin matrix keeps a CPU waiting for memory.
SIZES = {"1m": Shape(3, 4, 128), "5m": Shape(5, 4, 256), "15m": Shape(8, 6, 384), "50m": Shape(12, 9, 576)}


def heads_for(width: int) -> int:
    """Heads of 64 numbers each, of 32 where the width is small, else the largest head that divides it evenly."""
    for head in (64, 32) if width >= 256 else (32, 16):
        if width % head == 0:
            return width // head
    return next((width // head for head in range(min(64, width), 1, -1) if width % head == 0 and head % 2 == 0), 1)


def configured(family: str, shape: Shape, vocab: int, context: int) -> Config:
    """The configuration of a fresh model whose head is its embedding. Raises RiyazError naming the flags."""
    C, H = shape.width, shape.heads
    if C % H:
        raise RiyazError(f"{H} heads do not share a width of {C} evenly", "--heads", "choose a divisor of --width")
    # three matrices instead of two: 8/3 C holds as many parameters as the 4 C of a plain feed-forward
    inner = max(64, round(8 / 3 * C / 64) * 64)
    config: Config = (
        GPT2Config(vocab, C, 4 * C, shape.layers, H, H, C // H, NORM_EPS, context, True)
        if family == gpt2.MODEL_TYPE
        else LlamaConfig(vocab, C, inner, shape.layers, H, H, C // H, NORM_EPS, ROPE_THETA, context, True)
    )
    module = FAMILIES[family]
    try:  # what its own reader refuses would be trained for nothing
        module.from_hf(module.to_hf(config))  # type: ignore[arg-type]
    except RiyazError as error:
        flags = [flag for word, flag in FLAGS.items() if word in error.what]
        raise RiyazError(error.what, ", ".join(flags) or "--width", "choose another shape") from error
    return config


def parameters(config: Config) -> int:
    """Numbers that are learned."""
    return sum(math.prod(shape) for shape in FAMILIES[config.model_type].layer_plan(config).values())


def flops_per_token(config: Config) -> float:
    """Floating point operations of one token's training: forward and twice as many backward.

    Two for every weight of a matrix product, and in every layer those of attention, of which a causal model needs half.
    """
    plan = FAMILIES[config.model_type].layer_plan(config)
    inside = [shape for name, shape in plan.items() if ".layers." in name or ".h." in name]
    linears = sum(math.prod(shape) for shape in inside if len(shape) == 2)
    head = config.vocab_size * config.hidden_size  # tied: counted as the product that it is, not as a lookup
    return 6.0 * (linears + head) + 6.0 * config.n_layers * config.hidden_size * config.context


def memory_mb(config: Config, compute: str, micro_tokens: int) -> float:
    """What training takes at its peak, estimated: weights, gradients, moments, one forward pass of `micro_tokens`."""
    size = 2 if compute == "bfloat16" else 4
    # masters, their gradients, two moments; working weights and the gradients that are moved from them
    weights = parameters(config) * (16 + 2 * size)
    layers = micro_tokens * config.hidden_size * config.n_layers * ACTIVATIONS * size
    rows, numbers = LOGITS
    logits = max(rows * config.vocab_size, numbers) * LOGITS_BYTES
    return BASE_MB + (weights + layers + logits) / MB


def micro_tokens(context: int) -> int:
    """Tokens of a forward pass that holds whole windows, each with the token that it begins with."""
    return max(1, MICRO_TOKENS // context) * (context + 1)
