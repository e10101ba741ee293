"""Inference speed and memory of riyaz beside llama.cpp and OpenVINO: the same GGUF file, interleaved rounds.

    riyaz pull smollm2-135m; riyaz pull gemma3-270m --accept-licence
    python -m venv ../peers                                # the peers are never dependencies of riyaz
    CMAKE_ARGS=-DGGML_NATIVE=ON ../peers/bin/pip install --no-binary llama-cpp-python llama-cpp-python openvino-genai
    python benchmarks/inference.py --peer --peer-python ../peers/bin/python      # minutes on two cores

Every side runs in a process of its own (inference_sides.py); sides take turns, so that a drift of the machine hits
all. A cell's figure is the median over the rounds; its ratio is riyaz's ÷ the fastest peer's, each peer at the best of
its settings in that cell. Every call reads another piece of text, so that no side answers from a cache of prompts.

decode: 64 tokens, one sequence, after a prompt of 128. prefill: a prompt of 512 and the first token. batch8: decode
with 8 sequences, all tokens a second. lora_slowdown: the share by which a LoRA of rank 16 on all linears makes decode
slower. cold_start_s: in a fresh process with the file in the page cache, from `open_source` to the first token.
lookup_ratio, lookup_acceptance: tokens a second with prompt lookup ÷ without on answers that repeat their prompt, and
the share of its drafts that was right (lookup.py); all other cells are without it.
first_token_s: from the start of the command `riyaz generate FILE QUESTION --max-tokens 1 --json` to its output, with
the file in the page cache and Python's byte code written: Python, imports, tokenizer, chat template, weights, a prompt
of one short question and its first token; not the end of the process.
rss_over_file: memory above that of Python and numpy ÷ (weights as the file packs them + keys and values in 16 bits).
decode_bandwidth_share: bytes of weights, keys and values of one token × tokens/s ÷ the read bandwidth of a native
loop in the same run; of an int8 head the half that is always read. prefill_peak_share: operations of the linears ÷
the int8 (else bf16) peak of such a loop; null without riyaz's native part. The last line is one JSON document; null is
what was not measured.
"""

import argparse
import contextlib
import json
import os
import pydoc_data.topics
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from riyaz import hardware, native
from riyaz.adapters.base_shapes import shapes_of
from riyaz.engine.native import formats
from riyaz.families import describe
from riyaz.sources import Source, open_source

LOWER = 256 / 544  # the share of the lower halves of its codes in the bytes of an int8 matrix: native/kernels/layout.h
SCRIPT = Path(__file__).with_name("inference_sides.py")
OURS = "riyaz"
QUESTION = "What is the capital of France?"
REASON = 240  # characters of the words of a peer that cannot run
PROMPT, LONG, SHORT, NEW, WARM, BATCH = 128, 512, 16, 64, 4, 8  # tokens; sequences
CELLS = ("decode", "prefill", "batch8", "lora", "cold", "lookup")
CELLS_OF = {"gemma3-270m": ("decode", "prefill")}  # other models: all
DRAFTS = ("lookup_ratio", "lookup_acceptance")
SPEEDS = ("decode", "prefill", "batch8")  # the cells that peers have
PEERS: dict[str, dict[str, Any]] = {
    "llama.cpp": {"flash_attention": False},
    "llama.cpp flash": {"flash_attention": True},
    "openvino": {"ATTENTION_BACKEND": "PA", "KV_CACHE_PRECISION": "u8"},
    "openvino sdpa": {"ATTENTION_BACKEND": "SDPA", "KV_CACHE_PRECISION": "f16"},
    "openvino f32": {  # on a CPU with AMX its bf16 is faster in prefill and slower in decode
        "ATTENTION_BACKEND": "PA", "KV_CACHE_PRECISION": "f16", "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32",
    },
}  # fmt: skip  # the first word is the side in inference_sides.py

Samples = dict[str, list[float]]  # name of a side -> its figure in each round


class Unavailable(Exception):
    """A side that cannot be measured here, and why."""


class Side:
    """A process that measures one side when asked to."""

    def __init__(self, command: Sequence[str]) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, bufsize=1
        )
        first = self._read()
        if "error" in first:
            self.close()
            raise Unavailable(first["error"])
        self.version: str = first["ready"]

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The answer to one request. Raises Unavailable when the process ends instead."""
        assert self.process.stdin is not None
        time.sleep(0.02)  # threads of the side before this one may spin a little after their work
        with contextlib.suppress(BrokenPipeError):  # `_read` says why
            print(json.dumps({"do": do, **request}), file=self.process.stdin)
        return self._read()

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process.wait()
        self.log.close()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        status = self.process.wait()
        self.log.seek(0)
        last = (self.log.read().strip().splitlines() or ["nothing said"])[-1]
        raise Unavailable(f"ended with status {status}: {last}")


def main() -> None:
    """Parse the command line, measure every model, print the table and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", action="store_true", help="measure llama.cpp and OpenVINO too")
    parser.add_argument("--peer-python", default=sys.executable, metavar="PATH", help="the Python that has the peers")
    parser.add_argument("--model", action="append", help="default: smollm2-135m and gemma3-270m; may be repeated")
    parser.add_argument("--precision", default="auto", help="of riyaz (default: auto)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=CELLS, action="append")
    args = parser.parse_args()
    if args.peer and not shutil.which(args.peer_python):
        parser.error(f"--peer-python {args.peer_python}: no such program")
    result: dict[str, Any] = {}
    reached: dict[str, Any] = {}
    peers: dict[str, Any] = {"versions": {}, "missing": {}, "tokens_s": {}}
    for model in args.model or ["smollm2-135m", "gemma3-270m"]:
        source = open_source(model)
        cells = [cell for cell in CELLS_OF.get(model, CELLS) if cell in (args.only or CELLS)]
        sides = open_sides(args, source, peers)
        try:
            samples, limits = measure(source, cells, sides, args)
            drafts = sides[OURS].ask("lookup", rounds=args.rounds) if "lookup" in cells else {}
        finally:
            for side in sides.values():
                side.close()
        result[source.name] = summarise(samples, source) | {key: drafts[key] for key in DRAFTS if drafts}
        peers["tokens_s"][source.name] = show(source.name, samples)
        reached = reached or shares(samples, limits, source)
    machine = {"cpu": hardware.cpu_model(), "isa": list(hardware.isa())}
    print(json.dumps({**result, **reached, "peers": peers, **machine}))


def open_sides(args: argparse.Namespace, source: Source, peers: dict[str, Any]) -> dict[str, Side]:
    """The sides that run here, riyaz first; says which peers do not, and why."""
    python, model = str(args.peer_python), str(source.path)
    commands = {OURS: [sys.executable, SCRIPT, OURS, model, json.dumps({"precision": args.precision})]}
    for name, settings in PEERS.items() if args.peer else ():
        options = json.dumps({"threads": hardware.threads(), **settings})
        commands[name] = [python, SCRIPT, name.split()[0], model, options]
    sides = {}
    for name, command in commands.items():
        try:
            sides[name] = Side([str(word) for word in command])
            peers["versions"][name.split()[0]] = sides[name].version
        except Unavailable as problem:
            if name == OURS:
                raise
            reason = " ".join(str(problem).split())[:REASON]
            peers["missing"].setdefault(source.name, {})[name] = reason
            print(f"{source.name}: {name} is not measured: {reason}", flush=True)
    return sides


def pieces(source: Source) -> Iterator[list[int]]:
    """Pieces of LONG tokens of English text, each another one, again from the start when all were taken."""
    tokenizer = source.tokenizer()
    stream = tokenizer.encode("\n\n".join(text for _, text in sorted(pydoc_data.topics.topics.items())))
    step = LONG - len(tokenizer.beginning)
    while True:
        for start in range(0, len(stream) - step, step):
            yield [*tokenizer.beginning, *stream[start : start + step]]


def measure(
    source: Source, cells: Sequence[str], sides: Mapping[str, Side], args: argparse.Namespace
) -> tuple[dict[str, Samples], dict[str, list[float]]]:
    """Figures of every cell, side and round, after a short round that is not counted; and what native loops reached."""
    samples: dict[str, Samples] = {}
    limits: dict[str, list[float]] = {}
    texts = pieces(source)
    for round_ in range(args.rounds + 1):
        found: dict[str, dict[str, float]] = {}
        for cell in cells:
            prompts = [next(texts) for _ in range(BATCH)]
            count = NEW if round_ else WARM
            if cell in SPEEDS:
                speeds = {name: speed(cell, sides[name], prompts, count) for name in turns(list(sides), round_)}
                found[cell] = {name: speeds[name] for name in sides}
            elif cell == "lora":
                names = {OURS: False, "riyaz + LoRA": True}
                found[cell] = {n: speed("decode", sides[OURS], prompts, count, lora=on) for n, on in names.items()}
            elif cell == "cold" and round_:
                found |= cold(source, args.precision, prompts[0])
        if not round_:
            continue
        for cell, row in found.items():
            for name, figure in row.items():
                samples.setdefault(cell, {}).setdefault(name, []).append(figure)
        for name, figure in sides[OURS].ask("limits").items():
            limits.setdefault(name, []).extend([] if figure is None else [figure])
        print(f"{source.name} round {round_} of {args.rounds} done", flush=True)
    return samples, limits


def turns(names: list[str], round_: int) -> list[str]:
    """The names, from another one on in each round."""
    first = round_ % len(names)
    return names[first:] + names[:first]


def speed(cell: str, side: Side, prompts: Sequence[list[int]], count: int, **options: bool) -> float:
    """Tokens a second of a side in one cell."""
    if cell == "prefill":
        side.ask("prefill", prompt=prompts[1][:SHORT])  # the sides before it took the caches
        answer = side.ask("prefill", prompt=prompts[0])
    else:
        rows = prompts[:1] if cell == "decode" else prompts
        answer = side.ask("decode", prompts=[prompt[:PROMPT] for prompt in rows], count=count, **options)
    return answer["tokens"] / answer["seconds"]


def cold(source: Source, precision: str, prompt: list[int]) -> dict[str, dict[str, float]]:
    """Start and memory of riyaz in a fresh process, with the file in the page cache."""
    for file in source.files:
        file.path.read_bytes()
    side = Side([sys.executable, str(SCRIPT), "riyaz cold", str(source.path), json.dumps({"precision": precision})])
    answer = side.ask("start", prompt=prompt[:SHORT], long_prompt=prompt, count=NEW)
    side.close()
    megabytes = {name: answer[name] / hardware.MB for name in ("rss", "peak")}
    seconds = {"first token": answer["seconds"], "tokenizer": answer["tokenizer_s"]}
    seconds["whole command"] = first_token(source, precision)
    return {"start, s": seconds, "memory, MB": megabytes, "torch imported": {OURS: float(answer["torch"])}}


def first_token(source: Source, precision: str) -> float:
    """Seconds from the start of a command to its answer of one token; it is run once before."""
    words = ["-m", "riyaz", "generate", str(source.path), QUESTION]
    command = [sys.executable, *words, "--max-tokens", "1", "--precision", precision, "--quiet", "--json"]
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(2):
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=own) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            taken = time.perf_counter() - start
        if process.returncode or not line:
            raise Unavailable(f"riyaz generate ended with status {process.returncode}")
    return taken


def medians(samples: Samples) -> dict[str, float]:
    return {name: statistics.median(figures) for name, figures in samples.items()}


def ratio(samples: Samples) -> float | None:
    """Riyaz's median ÷ the fastest peer's; None without a peer."""
    speeds = medians(samples)
    ours = speeds.pop(OURS)
    return round(ours / max(speeds.values()), 3) if speeds else None


def summarise(samples: Mapping[str, Samples], source: Source) -> dict[str, float | bool | None]:
    """The cells of one model as in the JSON."""
    row: dict[str, float | bool | None] = {cell: ratio(samples[cell]) for cell in SPEEDS if cell in samples}
    if "lora" in samples:
        base, with_lora = medians(samples["lora"]).values()
        row["lora_slowdown"] = round(base / with_lora - 1, 3)
    if "start, s" in samples:
        file = (source.nbytes + (LONG + NEW) * cache_bytes(source)) / hardware.MB
        row["cold_start_s"] = round(medians(samples["start, s"])["first token"], 3)
        row["first_token_s"] = round(medians(samples["start, s"])["whole command"], 3)
        row["rss_over_file"] = round(medians(samples["memory, MB"])["rss"] / file, 3)
        row["torch_imported"] = any(samples["torch imported"][OURS])
    return row


def cache_bytes(source: Source) -> int:
    """Bytes of keys and values of one token, 16 bits a number."""
    config = describe(source).config
    return 2 * 2 * config.n_layers * config.n_kv_heads * config.head_dim


def shares(samples: Mapping[str, Samples], limits: Mapping[str, list[float]], source: Source) -> dict[str, Any]:
    """How much of the machine's limits riyaz reaches, and these limits."""
    family = describe(source)
    shapes = shapes_of(family)
    top = {name: statistics.median(figures) for name, figures in limits.items() if figures}
    found: dict[str, Any] = {"decode_bandwidth_share": None, "prefill_peak_share": None}
    found["limits"] = {name: round(value, 1) for name, value in top.items()}
    if "decode" in samples and "read_gbs" in top:
        embedding = family.stored_names[f"{shapes.embeddings[0]}.weight"]
        unread = 0.0 if family.config.tie_word_embeddings else source.tensors[embedding].nbytes
        head = source.tensors[family.stored_names.get("lm_head.weight", embedding)]
        if native.available() and formats.format_of(head.dtype, "auto") == "int8":
            unread += head.nbytes * LOWER  # which greedy decoding reads only where the upper halves do not decide
        read = source.nbytes - unread + (PROMPT + NEW // 2) * cache_bytes(source)
        reached = read * medians(samples["decode"])[OURS] / 1e9
        found["decode_bandwidth_share"] = round(reached / top["read_gbs"], 3)
    peak = top.get("int8_gops") or top.get("bf16_gops")
    if "prefill" in samples and peak:
        sizes = {name: rows * columns for name, (rows, columns) in shapes.linears.items()}
        head = sizes.pop("lm_head")  # for the last token only
        reached = 2 * (sum(sizes.values()) + head / LONG) * medians(samples["prefill"])[OURS] / 1e9
        found["prefill_peak_share"] = round(reached / peak, 3)
    return found


def show(model: str, samples: Mapping[str, Samples]) -> dict[str, dict[str, float]]:
    """Print a table of one model, median and range of every figure; returns the peers' and riyaz's tokens/s."""
    print(f"\n{model:36}  median   lowest … highest   riyaz ÷ it")
    speeds: dict[str, dict[str, float]] = {}
    for cell, sides in samples.items():
        middle = medians(sides)
        for name, figures in sides.items():
            digits = 0 if middle[name] >= 100 else 1 if middle[name] >= 10 else 3
            middling, low, high = (f"{x:.{digits}f}" for x in (middle[name], min(figures), max(figures)))
            line = f"{cell:16}{name:20}{middling:>8}{low:>9} … {high:<9}"
            compared = cell in SPEEDS and name != OURS
            print(line + (f"{middle[OURS] / middle[name]:8.2f}" if compared else "").rstrip())
        if cell in SPEEDS:
            speeds[cell] = {name: round(value, 1) for name, value in middle.items()}
    print(flush=True)
    return speeds


if __name__ == "__main__":
    main()
