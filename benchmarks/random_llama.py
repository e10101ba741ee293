"""A llama of random weights in llama.cpp's mix Q4_K_M, for speeds at sizes of which no model is at hand.

    python benchmarks/random_llama.py --size 1.1b --out random-1.1b.gguf         # 670 MB, under a minute
    python benchmarks/inference.py --model random-1.1b.gguf
    python benchmarks/training.py --model random-1.1b.gguf --only lora

1.1b has TinyLlama-1.1B's shape. Its blocks are drawn directly, not rounded from floats: every weight is its scale times
a level of equal chance, of standard deviation 1 / √columns, so that activations and logits stay of order 1. The same
size, seed and version of Python write the same bytes. The tokenizer is byte-level BPE trained on Python's own topics,
padded with unused tokens to the size of the vocabulary. One tensor is in memory at a time.
"""

import argparse
import math
import pydoc_data.topics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from riyaz.errors import RiyazError
from riyaz.export.gguf import DTYPES, matrix_type, model_metadata
from riyaz.families import llama
from riyaz.families.llama import LlamaConfig
from riyaz.pretraining.tokenizer_training import train_tokenizer
from riyaz.sources import Source, gguf_write
from riyaz.sources.gguf_blocks import BLOCK, Q4_K, Q6_K, SUPER
from riyaz.sources.gguf_vocabulary import tokenizer_metadata

MIX = "q4_k_m"
TRAINED = 4096  # tokens of the tokenizer that are no padding, at most
SIZES = {  # vocabulary, hidden, intermediate, layers, heads, heads of keys and values
    "1.1b": (32_000, 2048, 5632, 22, 32, 4),
    "tiny": (512, 256, 512, 3, 4, 2),
}
CONTEXT, EPS, THETA = 2048, 1e-5, 10_000.0


def main() -> None:
    """Parse the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="1.1b")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="GGUF file to write")
    args = parser.parse_args()
    if args.out.suffix != ".gguf":
        parser.error(f"--out {args.out}: the name of the file must end in .gguf")
    if args.seed < 0:
        parser.error(f"--seed {args.seed}: must be 0 or more")
    if not args.out.parent.is_dir():
        parser.exit(2, f"error: {args.out.parent}: no such folder\n")
    try:
        write(args.out, args.size, args.seed)
    except RiyazError as error:
        parser.exit(2, f"error: {error}\n")
    print(f"{args.out}: {args.out.stat().st_size / 1e6:,.0f} MB")


def write(path: Path, size: str, seed: int = 0) -> None:
    """Write the model of a size in SIZES. Raises RiyazError."""
    config = config_of(size)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_tokenizer(topics(), "bpe", min(TRAINED, config.vocab_size * 3 // 4), Path(folder) / "words")
        empty = Source(f"random-{size}", path, "hf", {}, {}, ())
        metadata, divisors = model_metadata(llama, config, empty)
        metadata |= {
            "general.type": "model", "general.name": empty.name, "general.file_type": DTYPES[MIX][1],
            "general.quantization_version": 2, **tokenizer_metadata(empty, tokenizer, config.vocab_size),
        }  # fmt: skip
    shapes = llama.layer_plan(config)
    tensors = [
        planned(stored, shapes[name], config, [seed, place])
        for place, (name, stored) in enumerate(llama.names(config).items())
    ]
    gguf_write.write(path, metadata, [*tensors, *divisors])


def config_of(size: str) -> LlamaConfig:
    """The configuration of a size in SIZES."""
    vocabulary, hidden, inner, layers, heads, kv_heads = SIZES[size]
    return LlamaConfig(
        vocabulary, hidden, inner, layers, heads, kv_heads, hidden // heads, EPS, THETA, CONTEXT,
        tie_word_embeddings=False,
    )  # fmt: skip


def topics() -> list[str]:
    """English text that every Python has."""
    return [text for _, text in sorted(pydoc_data.topics.topics.items())]


def planned(name: str, shape: tuple[int, ...], config: LlamaConfig, seed: list[int]) -> gguf_write.PlannedTensor:
    """A tensor to write; a norm is all ones."""
    if len(shape) == 1:
        return gguf_write.PlannedTensor(name, shape, "F32", partial(np.ones, shape, np.float32))
    dtype = gguf_write.dtype_for(matrix_type(name, config, MIX), shape)
    return gguf_write.PlannedTensor(name, shape, dtype, partial(BLOCKS[dtype], shape, seed), encoded=True)


def q4_k(shape: tuple[int, ...], seed: list[int]) -> np.ndarray:
    """Random blocks: the minimum of a sub-block is 7.5 of its scales, so that the levels 0 to 15 are around 0."""
    rng, blocks = np.random.default_rng(seed), np.empty(math.prod(shape) // SUPER, Q4_K)
    scales = rng.integers(32, 64, (len(blocks), SUPER // BLOCK), np.uint8)
    step = unit(shape, scales, np.arange(16) - 7.5)
    blocks["d"], blocks["m"] = step, 7.5 * step
    low, high = scales[:, :4], scales[:, 4:]
    first = low | high >> np.uint8(4) << np.uint8(6)  # the same bits for scales and minimums
    rest = high & np.uint8(15)
    blocks["s"] = np.concatenate([first, first, rest | rest << np.uint8(4)], axis=1)
    blocks["q"] = rng.integers(0, 256, blocks["q"].shape, np.uint8)
    return blocks.view(np.uint8)


def q6_k(shape: tuple[int, ...], seed: list[int]) -> np.ndarray:
    """Random blocks with levels of -32 to 31."""
    rng, blocks = np.random.default_rng(seed), np.empty(math.prod(shape) // SUPER, Q6_K)
    blocks["s"] = rng.integers(64, 128, blocks["s"].shape, np.int8)
    blocks["d"] = unit(shape, blocks["s"], np.arange(-32, 32))
    for part in ("q", "h"):
        blocks[part] = rng.integers(0, 256, blocks[part].shape, np.uint8)
    return blocks.view(np.uint8)


def unit(shape: tuple[int, ...], scales: np.ndarray, levels: np.ndarray) -> float:
    """The factor of scales and levels with which the weights have the standard deviation 1 / √columns."""
    size = math.sqrt(float(np.square(scales, dtype=np.float64).mean()) * float(np.square(levels).mean()))
    return shape[1] ** -0.5 / size


BLOCKS: dict[str, Callable[[tuple[int, ...], list[int]], np.ndarray]] = {"Q4_K": q4_k, "Q6_K": q6_k}

if __name__ == "__main__":
    main()
