"""Shapes of new models: the named sizes, their configurations, FLOPs per token and memory. Torch-free.

Legend: T tokens of the context, C width, L layers, V vocabulary.
"""

import math
from dataclasses import dataclass

from riyaz.errors import RiyazError
from riyaz.families import bitnet, gpt2, llama
from riyaz.families.bitnet import BitNetConfig
from riyaz.families.gpt2 import GPT2Config
from riyaz.families.llama import LlamaConfig
from riyaz.families.ternary import is_linear
from riyaz.hardware import MB

ROPE_THETA = 10_000.0
NORM_EPS = 1e-5
BASE_MB = 560  # memory of Python and torch before a model is made
MICRO_TOKENS = 2048  # tokens of one forward pass, about
ACTIVATIONS = 16  # vectors of width C that one layer keeps per token for the backward pass
LOGITS = (256, 2**20)  # chunk of `layers.loss`: 256 rows, or more rows up to 2**20 logits
LOGITS_BYTES = 16  # bytes per logit: the chunk, its softmax and its gradient, in float32
FAMILIES = {llama.MODEL_TYPE: llama, gpt2.MODEL_TYPE: gpt2, bitnet.MODEL_TYPE: bitnet}
# part of a key of config.json -> the flag that sets it; every other key is derived from --width
FLAGS = {"head": "--heads", "layer": "--layers", "position": "--context", "vocab": "--tokenizer"}

Config = LlamaConfig | GPT2Config | BitNetConfig


@dataclass(frozen=True)
class Shape:
    """Number of layers, number of heads, and width."""

    layers: int
    heads: int
    width: int


# Named by their number of parameters with a vocabulary of 4,096 and a tied head. The small ones are wide rather than
# deep: with narrow matrices a CPU waits for memory.
SIZES = {"1m": Shape(3, 4, 128), "5m": Shape(5, 4, 256), "15m": Shape(8, 6, 384), "50m": Shape(12, 9, 576)}


def heads_for(width: int) -> int:
    """Number of heads for a width: head size 64 (32 below width 256), else the largest even size that divides it."""
    for head in (64, 32) if width >= 256 else (32, 16):
        if width % head == 0:
            return width // head
    return next((width // head for head in range(min(64, width), 1, -1) if width % head == 0 and head % 2 == 0), 1)


def configured(family: str, shape: Shape, vocab: int, context: int) -> Config:
    """The configuration of a new model with a tied head. Raises RiyazError naming the flags of an invalid shape."""
    C, H = shape.width, shape.heads
    if C % H:
        raise RiyazError(f"{H} heads do not share a width of {C} evenly", "--heads", "choose a divisor of --width")
    # a gated feed-forward has three matrices: with 8/3 C it has as many parameters as a plain one with 4 C
    inner = max(64, round(8 / 3 * C / 64) * 64)
    if family == gpt2.MODEL_TYPE:
        config: Config = GPT2Config(vocab, C, 4 * C, shape.layers, H, H, C // H, NORM_EPS, context, True)
    else:
        kind = BitNetConfig if family == bitnet.MODEL_TYPE else LlamaConfig
        config = kind(vocab, C, inner, shape.layers, H, H, C // H, NORM_EPS, ROPE_THETA, context, True)
    module = FAMILIES[family]
    try:  # riyaz must be able to read the finished model's config.json
        module.from_hf(module.to_hf(config))  # type: ignore[arg-type]
    except RiyazError as error:
        flags = [flag for word, flag in FLAGS.items() if word in error.what]
        raise RiyazError(error.what, ", ".join(flags) or "--width", "choose another shape") from error
    return config


def parameters(config: Config) -> int:
    """Number of trained parameters."""
    return sum(math.prod(shape) for shape in FAMILIES[config.model_type].layer_plan(config).values())


def ternary_share(config: Config) -> float:
    """Share of the parameters that ternary training makes -1, 0 or 1: the linears of the layers."""
    plan = FAMILIES[config.model_type].layer_plan(config)
    inside = sum(math.prod(shape) for name, shape in plan.items() if is_linear(name, shape))
    return inside / parameters(config)


def flops_per_token(config: Config) -> float:
    """Floating point operations to train on one token: a forward pass, and a backward pass of twice as many.

    The forward pass has 2 per weight of a matrix product, and per layer those of attention, half of them because it is
    causal.
    """
    plan = FAMILIES[config.model_type].layer_plan(config)
    inside = [shape for name, shape in plan.items() if ".layers." in name or ".h." in name]
    linears = sum(math.prod(shape) for shape in inside if len(shape) == 2)
    head = config.vocab_size * config.hidden_size  # the tied matrix counts once, as the head's product
    return 6.0 * (linears + head) + 6.0 * config.n_layers * config.hidden_size * config.context


def memory_mb(config: Config, compute: str, micro_tokens: int) -> float:
    """Estimated peak memory of training in MB: weights, gradients, moments, one forward pass of `micro_tokens`."""
    size = 2 if compute == "bfloat16" else 4
    # exact weights, gradients and the mean square in 4 bytes each, the mean gradient and once the head's in `compute`
    weights = parameters(config) * (12 + size) + config.vocab_size * config.hidden_size * size
    layers = micro_tokens * config.hidden_size * config.n_layers * ACTIVATIONS * size
    rows, numbers = LOGITS
    logits = max(rows * config.vocab_size, numbers) * LOGITS_BYTES
    return BASE_MB + (weights + layers + logits) / MB


def micro_tokens(context: int) -> int:
    """Tokens of one forward pass: whole windows of `context` + 1 tokens, as the first token of each is only input."""
    return max(1, MICRO_TOKENS // context) * (context + 1)
