"""Speed and memory of ternary models in riyaz beside llama.cpp's TQ2_0 and TQ1_0, and litespark-inference.

    python -m venv ../peers                                # the peers are never dependencies of riyaz
    CMAKE_ARGS=-DGGML_NATIVE=ON ../peers/bin/pip install --no-binary llama-cpp-python llama-cpp-python
    python -m venv ../litespark; ../litespark/bin/pip install litespark-inference
    python benchmarks/ternary.py --peer --peer-python ../peers/bin/python --peer-python ../litespark/bin/python

Two BitNets of random weights, of the shape of BitNet b1.58 2B4T and of about 135 M parameters (rows of whole blocks of
256, which TQ2_0 needs), are written as GGUF files to a temporary folder: ternary linears in TQ2_0, for one more peer
in TQ1_0, the embedding, which is the head too, in Q6_K. Riyaz and llama.cpp read the same file. Sides take turns, each
in a process of its own (inference_sides.py); figures are medians over the rounds, ratios riyaz's ÷ the fastest peer's.

decode: 64 tokens of one sequence after a prompt of 128. prefill: a prompt of 512 and the first token (litespark reads
32 tokens at a time, its fastest). bandwidth_share: bytes of weights, keys and values that a token reads × tokens/s ÷
what a native loop reads right after, the median of the rounds; of the head, which riyaz holds in int8, the half that is
always read. rss_over_packed: memory above that of Python and numpy ÷ packed weights with keys and values.
lora_slowdown: the share by which a LoRA of rank 16 on all linears of the larger model makes decode slower. The last
line is one JSON document; null is what was not measured.

--report prints the efficiency rows of table 1 of the BitNet report (arXiv 2504.12285) with a column of this machine:
memory of the weights but embedding and head, time and energy of a token.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from inference import (
    LONG,
    LOWER,
    NEW,
    OURS,
    PROMPT,
    SCRIPT,
    SHORT,
    WARM,
    Samples,
    Side,
    Unavailable,
    cache_bytes,
    medians,
    ratio,
    show,
    turns,
)

from riyaz import hardware
from riyaz.limits.energy import Meter, Used
from riyaz.sources import Source, open_source

BLOCK = 256  # weights
SCALE = 0.02  # of every block, so that a matrix has one
TYPES = {"TQ2_0": gguf.GGMLQuantizationType.TQ2_0, "TQ1_0": gguf.GGMLQuantizationType.TQ1_0}
WITH_LORA = "riyaz + LoRA"
HEAD_BITS = 8.5  # of a weight of the head as riyaz holds it, its scales included
REPORT = {  # model -> memory without embedding in GB, CPU latency of a token in ms, energy in J, mean of its benchmarks
    "LLaMA 3.2 1B": ("2", "48", "0.258", "44.90"),
    "Gemma-3 1B": ("1.4", "41", "0.186", "43.74"),
    "Qwen2.5 1.5B": ("2.6", "65", "0.347", "55.23"),
    "SmolLM2 1.7B": ("3.2", "67", "0.425", "48.70"),
    "MiniCPM 2B": ("4.8", "124", "0.649", "42.05"),
    "BitNet 2B4T": ("0.4", "29", "0.028", "54.19"),
}
ROWS = ("GB without embedding", "ms per token", "J, estimated", "mean of 16 benchmarks")


@dataclass(frozen=True)
class Shape:
    """The sizes of a BitNet."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int


SHAPES = {"2b": Shape(2560, 30, 20, 5, 6912, 128256), "135m": Shape(768, 16, 12, 4, 2048, 49152)}


def main() -> None:
    """Parse the command line, write and measure both models, print the tables and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", action="store_true", help="measure the peers too")
    parser.add_argument(
        "--peer-python", action="append", metavar="PATH", help="a Python that has peers; may be repeated"
    )
    parser.add_argument("--model", choices=SHAPES, action="append", help="default: both")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--report", action="store_true", help="print table 1 of the BitNet report with this machine's")
    args = parser.parse_args()
    for python in args.peer_python or ():
        if not shutil.which(python):
            parser.error(f"--peer-python {python}: no such program")
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.model or SHAPES:
            result |= measured(name, Path(folder), args)
    print(json.dumps({**result, "cpu": hardware.cpu_model()}))


def measured(name: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The part of the JSON of one model."""
    paths = {kind: folder / f"{name}-{kind}.gguf" for kind in (TYPES if args.peer else ("TQ2_0",))}
    for kind, path in paths.items():
        write(path, SHAPES[name], kind)
    source, sides = open_source(str(paths["TQ2_0"])), open_sides(name, paths, args)
    try:
        samples, limits = rounds(name, sides, args.rounds)
        held = sides[OURS].ask("held")
        used = energy(name, sides[OURS]) if args.report and name == "2b" else None
    finally:
        for side in sides.values():
            side.close()
    memory, packed = cold(source, SHAPES[name].vocabulary)
    for path in paths.values():
        path.unlink()
    show(name, samples)
    row: dict[str, Any] = {cell: ratio(samples[cell]) for cell in ("decode", "prefill")}
    if name != "2b":
        return {name: row}
    if used:
        print(report_table(held["bytes"], medians(samples["decode"])[OURS], used), flush=True)
    share = share_of(source, held["bytes"], samples["decode"][OURS], limits)
    row |= {"bandwidth_share": share, "rss_over_packed": round(memory / (packed + kept(source)), 3)}
    base, with_lora = medians(samples["lora"]).values()
    print(
        f"served as {held['ternary']}: {held['bytes'] / hardware.MB:.0f} MB; read {statistics.median(limits):.1f} GB/s",
        flush=True,
    )
    return {name: row, "lora_slowdown": round(base / with_lora - 1, 3)}


def open_sides(name: str, paths: Mapping[str, Path], args: argparse.Namespace) -> dict[str, Side]:
    """The sides that run here, riyaz first; says which peers do not, and why."""
    commands = {OURS: [[sys.executable, SCRIPT, OURS, paths["TQ2_0"], json.dumps({"precision": "auto"})]]}
    pythons = args.peer_python or [sys.executable]
    for kind, path in paths.items() if args.peer else ():
        options = json.dumps({"threads": hardware.threads(), "flash_attention": True})
        commands[f"llama.cpp {kind}"] = [[python, SCRIPT, "llama.cpp", path, options] for python in pythons]
    if args.peer:
        sizes = json.dumps(litespark_sizes(SHAPES[name]))
        commands["litespark"] = [[python, SCRIPT, "litespark", "-", sizes] for python in pythons]
    sides: dict[str, Side] = {}
    for side, each in commands.items():
        for command in each:  # the first Python that has the peer
            try:
                sides[side] = Side([str(word) for word in command])
                break
            except Unavailable as problem:
                if side == OURS:
                    raise
                reason = str(problem)
        if side not in sides:
            print(f"{side} is not measured: {reason}", flush=True)
    return sides


def energy(name: str, side: Side) -> Used:
    """What 64 tokens take, by the processor's counters or estimated; seconds are those of the whole call."""
    prompt = np.random.default_rng(2).integers(3, SHAPES[name].vocabulary, SHORT).tolist()
    meter = Meter()
    side.ask("decode", prompts=[prompt], count=NEW)
    return meter.stop()


def report_table(packed: float, speed_: float, used: Used) -> str:
    """REPORT as Markdown, with a column of riyaz on this machine."""
    shape = SHAPES["2b"]
    memory = (packed - shape.vocabulary * shape.hidden * HEAD_BITS / 8) / 1e9
    joules = f"{used.joules / NEW:.2g}, " + ("by its counters" if used.measured else "by 8 W a core")
    columns = {**REPORT, f"riyaz, {hardware.cpu_model()}": (f"{memory:.2g}", f"{1000 / speed_:.0f}", joules, "")}
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for place, row in enumerate(ROWS):
        lines.append(f"| {row} | " + " | ".join(cells[place] for cells in columns.values()) + " |")
    return "\n".join(lines)


def litespark_sizes(shape: Shape) -> dict[str, int]:
    """A shape by litespark's names."""
    return {
        "hidden_size": shape.hidden, "num_layers": shape.layers, "num_heads": shape.heads,
        "num_kv_heads": shape.kv_heads, "intermediate_size": shape.inner, "vocab_size": shape.vocabulary,
    }  # fmt: skip


def rounds(name: str, sides: Mapping[str, Side], count: int) -> tuple[dict[str, Samples], list[float]]:
    """Tokens a second of every cell, side and round, after a short round that is not counted; GB/s that a native loop
    reads after riyaz's decoding in each round."""
    samples: dict[str, Samples] = {}
    read: list[float] = []
    random = np.random.default_rng(0)
    for round_ in range(count + 1):
        prompt = random.integers(3, SHAPES[name].vocabulary, LONG if round_ else PROMPT).tolist()
        for side in turns(list(sides), round_):
            cells = {"decode": {}, "prefill": {}, **({"lora": {"lora": True}} if side == OURS else {})}
            for cell, options in cells.items():
                figure = speed(cell, sides[side], prompt, NEW if round_ else WARM, options)
                if round_:
                    samples.setdefault(cell, {}).setdefault(WITH_LORA if cell == "lora" else side, []).append(figure)
                if round_ and cell == "decode" and side == OURS:  # at once: a shared machine's bandwidth changes
                    read.append(sides[OURS].ask("limits")["read_gbs"])
        print(f"{name} round {round_} of {count} done", flush=True)
    for cell in ("decode", "prefill"):
        samples[cell] = {side: samples[cell][side] for side in sides}
    samples["lora"] = {OURS: samples["decode"][OURS], **samples["lora"]}
    return samples, read


def speed(cell: str, side: Side, prompt: list[int], count: int, options: dict[str, bool]) -> float:
    """Tokens a second of a side in one cell."""
    if cell == "prefill":
        side.ask("prefill", prompt=prompt[-SHORT:])  # the sides before it took the caches
        answer = side.ask("prefill", prompt=prompt)
    else:
        answer = side.ask("decode", prompts=[prompt[:PROMPT]], count=count, **options)
    return answer["tokens"] / answer["seconds"]


def cold(source: Source, vocabulary: int) -> tuple[float, float]:
    """Bytes of a fresh process above numpy's while it answers, and of its packed weights: it chooses their packing
    itself, and not always the one that another process has chosen."""
    side = Side([sys.executable, str(SCRIPT), "riyaz cold", str(source.path), json.dumps({"precision": "auto"})])
    prompt = np.random.default_rng(1).integers(3, vocabulary, LONG).tolist()
    answer = side.ask("start", prompt=prompt[:SHORT], long_prompt=prompt, count=NEW, tokenizer=False)
    packed = side.ask("held")["bytes"]
    side.close()
    return float(answer["rss"]), float(packed)


def kept(source: Source) -> int:
    """Bytes of the keys and values that `cold` fills."""
    return (LONG + NEW) * cache_bytes(source)


def share_of(source: Source, packed: float, speeds: Sequence[float], read_gbs: Sequence[float]) -> float:
    """Bytes that decoding reads a second ÷ those that a native loop reads, the median of the rounds."""
    shape = SHAPES["2b"]
    head = shape.vocabulary * shape.hidden * HEAD_BITS / 8
    read = packed - head * LOWER + (PROMPT + NEW // 2) * cache_bytes(source)
    return round(statistics.median(read * own / 1e9 / limit for own, limit in zip(speeds, read_gbs, strict=True)), 3)


def write(path: Path, shape: Shape, kind: str) -> None:
    """A GGUF file of random weights without a tokenizer."""
    writer, random = gguf.GGUFWriter(path, "bitnet"), np.random.default_rng(0)
    writer.add_context_length(4096)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500_000.0)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_tokenizer_model("no_vocab")
    for name, sizes in tensors(shape):
        if len(sizes) == 1:
            writer.add_tensor(name, np.ones(sizes, np.float32))
        elif name == "token_embd.weight":
            writer.add_tensor(name, q6_k(random, *sizes), raw_dtype=gguf.GGMLQuantizationType.Q6_K)
        else:
            writer.add_tensor(name, BLOCKS[kind](random, *sizes), raw_dtype=TYPES[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and sizes of a BitNet's tensors in GGUF."""
    width, keys = shape.hidden, shape.kv_heads * shape.hidden // shape.heads
    yield "token_embd.weight", (shape.vocabulary, width)
    yield "output_norm.weight", (width,)
    for layer in range(shape.layers):
        for name, sizes in {
            "attn_norm": (width,), "attn_q": (width, width), "attn_k": (keys, width), "attn_v": (keys, width),
            "attn_sub_norm": (width,), "attn_output": (width, width), "ffn_norm": (width,),
            "ffn_gate": (shape.inner, width), "ffn_up": (shape.inner, width), "ffn_sub_norm": (shape.inner,),
            "ffn_down": (width, shape.inner),
        }.items():  # fmt: skip
            yield f"blk.{layer}.{name}.weight", sizes


def tq2_0(random: np.random.Generator, rows: int, cols: int) -> np.ndarray:
    """Random blocks (rows, bytes): 64 bytes of four codes, and the scale."""
    digits = random.integers(0, 81, (rows, cols // BLOCK, 64), np.uint8)
    codes = sum(np.arange(81) // 3**i % 3 << 2 * i for i in range(4)).astype(np.uint8)
    return with_scale(codes[digits])


def tq1_0(random: np.random.Generator, rows: int, cols: int) -> np.ndarray:
    """Random blocks (rows, bytes): 48 bytes of five codes and 4 of four, as fractions of 256, and the scale."""
    five = random.integers(0, 243, (rows, cols // BLOCK, 52), np.uint16)
    five[:, :, 48:] = five[:, :, 48:] // 3 * 3
    return with_scale(((five * 256 + 242) // 243).astype(np.uint8))


def q6_k(random: np.random.Generator, rows: int, cols: int) -> np.ndarray:
    """Random blocks (rows, bytes): 192 bytes of codes, 16 scales, and a scale of these."""
    blocks = random.integers(0, 256, (rows, cols // BLOCK, 208), np.uint8)
    blocks[:, :, 192:] = 1 + blocks[:, :, 192:] // 16
    return with_scale(blocks)


def with_scale(blocks: np.ndarray) -> np.ndarray:
    """The blocks (rows, blocks, bytes) with the scale behind each, a row in one piece."""
    scale = np.broadcast_to(np.array([SCALE], np.float16).view(np.uint8), (*blocks.shape[:2], 2))
    return np.concatenate([blocks, scale], axis=2).reshape(len(blocks), -1)


BLOCKS = {"TQ2_0": tq2_0, "TQ1_0": tq1_0}

if __name__ == "__main__":
    main()
