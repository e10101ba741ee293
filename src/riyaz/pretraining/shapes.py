"""Shapes of new models: the named sizes, their configurations, FLOPs per token and memory. Torch-free.

Legend: T tokens of the context, C width, L layers, V vocabulary.
"""

import math
from dataclasses import astuple, dataclass

from riyaz.errors import RiyazError
from riyaz.families import FAMILIES, FRESH, ModelConfig
from riyaz.families.ternary import is_linear
from riyaz.hardware import MB

BASE_MB = 560  # memory of Python and torch before a model is made
MICRO_TOKENS = 2048  # tokens of one forward pass, about
ACTIVATIONS = 16  # vectors of width C that one layer keeps per token for the backward pass
LOGITS = (256, 2**20)  # chunk of `layers.loss`: 256 rows, or more rows up to 2**20 logits
NUMBER_BYTES = {"bfloat16": 2, "float32": 4}  # by compute type
LOGITS_BYTES = 16  # bytes per logit: the chunk, its softmax and its gradient, in float32
# part of a key of config.json -> the flag that sets it; every other key is derived from --width
FLAGS = {"head": "--heads", "layer": "--layers", "position": "--context", "vocab": "--tokenizer"}


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


def configured(family: str, shape: Shape, vocab: int, context: int) -> ModelConfig:
    """The configuration of a new model with a tied head. Raises RiyazError naming the flags of an invalid shape."""
    if shape.width % shape.heads:
        what = f"{shape.heads} heads do not share a width of {shape.width} evenly"
        raise RiyazError(what, "--heads", "choose a divisor of --width")
    config: ModelConfig = FRESH[family].fresh_config(vocab, context, *astuple(shape))
    try:  # riyaz must be able to read the finished model's config.json
        FRESH[family].from_hf(FRESH[family].to_hf(config))
    except RiyazError as error:
        flags = [flag for word, flag in FLAGS.items() if word in error.what]
        raise RiyazError(error.what, ", ".join(flags) or "--width", "choose another shape") from error
    return config


def parameters(config: ModelConfig) -> int:
    """Number of trained parameters."""
    return sum(math.prod(shape) for shape in FAMILIES[config.model_type].layer_plan(config).values())


def ternary_share(config: ModelConfig) -> float:
    """Share of the parameters that ternary training makes -1, 0 or 1: the linears of the layers."""
    return _in_linears(config) / parameters(config)


def _in_linears(config: ModelConfig) -> int:
    """Number of parameters in the linears of the layers."""
    plan = FAMILIES[config.model_type].layer_plan(config)
    return sum(math.prod(shape) for name, shape in plan.items() if is_linear(name, shape))


def flops_per_token(config: ModelConfig) -> float:
    """Floating point operations to train on one token: a forward pass, and a backward pass of twice as many.

    The forward pass has 2 per weight of a matrix product, and per layer those of attention, half of them because it is
    causal.
    """
    linears = _in_linears(config)
    head = config.vocab_size * config.hidden_size  # the tied matrix counts once, as the head's product
    return 6.0 * (linears + head) + 6.0 * config.n_layers * config.hidden_size * config.context


def memory_mb(config: ModelConfig, compute: str, micro_tokens: int) -> float:
    """Estimated peak memory of training in MB: weights, gradients, moments, one forward pass of `micro_tokens`."""
    size = NUMBER_BYTES[compute]
    # exact weights, gradients and the mean square in 4 bytes each, the mean gradient and once the head's in `compute`
    weights = parameters(config) * (12 + size) + config.vocab_size * config.hidden_size * size
    return memory_with(weights, config, compute, micro_tokens)


def memory_with(weights: int, config: ModelConfig, compute: str, micro_tokens: int) -> float:
    """Estimated peak memory of training in MB: so many bytes for the weights and all that is kept of each, and one
    forward pass of `micro_tokens` with what backward needs of it."""
    layers = micro_tokens * config.hidden_size * config.n_layers * ACTIVATIONS * NUMBER_BYTES[compute]
    rows, numbers = LOGITS
    logits = max(rows * config.vocab_size, numbers) * LOGITS_BYTES
    return BASE_MB + (weights + layers + logits) / MB


def micro_tokens(context: int) -> int:
    """Tokens of one forward pass: whole windows of `context` + 1 tokens, as the first token of each is only input."""
    return max(1, MICRO_TOKENS // context) * (context + 1)
