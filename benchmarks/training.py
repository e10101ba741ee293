"""Training speed and memory of riyaz beside transformers + PEFT, on the same rows, weights and first adapters.

    python benchmarks/training.py --peer            # about 30 minutes on two cores
    python benchmarks/training.py --peer --steps 4 --rounds 1 --only lora
    python benchmarks/training.py --peer tuned --only lora
    python benchmarks/training.py --length 1024 --threads 1 --model gemma3-270m --only lora

Every measurement runs in a process of its own (training_sides.py); sides take turns, so that a drift of the machine
hits both. Riyaz computes in the type that `riyaz compare` takes on this CPU, with the frozen base of an adapter
in codes of 8 bits where that trains faster (RIYAZ_FROZEN=exact: never); the peer is the faster of its float32 and
its bfloat16. Tokens are real ones: padding does not count. The last line is one JSON document. Rows: `mixed` are
English text cut to log-normal lengths (median 90, 24…512), or to `--length`, with the last 40 % as answer; `even` are
banking77 where its train.jsonl is given or found, else text cut to 45–65 tokens.

The tuned peer makes its steps of rows of similar length, so that there is little padding, and computes logits at the
labelled places only. Its order of rows is another, so that its losses are not compared.

The share of the limit is riyaz's operations a second ÷ those of the fastest of several matrix products by torch in the
same run and type (training_limits.py, which has the formula).
"""

import argparse
import json
import os
import pydoc_data.topics
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import training_limits
import training_sides
from training_sides import ALPHA, BATCH, FOLDERS, RANK, SEED, VECTORS

from riyaz.hardware import bf16_is_fast, describe, threads

CELLS = ("lora", "full", "prompt_tuning", "lora_even", "full_even", "prompt_tuning_even")
TYPES = ("float32", "bfloat16")
PEERS = {"plain": "peer", "tuned": "tuned"}  # what --peer takes, and the name of that side
BANKING = Path(__file__).resolve().parents[2] / "shared/data/banking77/train.jsonl"
MEASURES = {
    "riyaz": training_sides.measure_riyaz, "peer": training_sides.measure_plain,
    "tuned": training_sides.measure_tuned, "limit": training_sides.measure_limit,
}  # fmt: skip
Runs = dict[tuple[str, str], list[dict]]  # (side, type) -> what each round measured


def main() -> None:
    """Parse the command line; run one measurement (child) or the whole table."""
    args = options().parse_args()
    if args.child:
        side, method, dtype, folder = args.child
        print(json.dumps(MEASURES[side](method, dtype, Path(folder))))
        return
    args.only = args.only or [cell for cell in CELLS if not (args.length and cell.endswith("_even"))]
    if args.length and any(cell.endswith("_even") for cell in args.only):
        options().error("--length is of the mixed rows: choose cells without _even")
    if args.threads:
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        compare(args, Path(folder))


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", nargs="?", choices=PEERS, const="plain", help="measure transformers + PEFT too")
    parser.add_argument("--type", choices=TYPES, action="append", dest="types", help="of the peer; both if not given")
    parser.add_argument("--model", default="smollm2-135m")
    banking = BANKING if BANKING.exists() else None
    parser.add_argument("--even", type=Path, default=banking, help="a text,label file for the even rows")
    parser.add_argument("--length", type=int, help="tokens of every mixed row")
    parser.add_argument("--threads", type=int, help="of every side; all cores if not given")
    parser.add_argument("--steps", type=int, default=6, help="timed steps of each measurement, after two of warm-up")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=CELLS, action="append")
    parser.add_argument("--child", nargs=4, metavar=("SIDE", "METHOD", "DTYPE", "FOLDER"), help=argparse.SUPPRESS)
    return parser


def compare(args: argparse.Namespace, folder: Path) -> None:
    """Interleaved rounds of every cell; prints a line per measurement and the JSON of ratios."""
    prepare(args, folder)
    own = "bfloat16" if bf16_is_fast() else "float32"
    print(f"riyaz computes in {own}, as riyaz compare does on this CPU\n{training_limits.FORMULA}", flush=True)
    sides = [("riyaz", own), *(("limit", dtype) for dtype in dict.fromkeys((own, "bfloat16")))]
    sides += [(PEERS[args.peer], dtype) for dtype in args.types or TYPES] if args.peer else []
    table: dict[str, object] = {}
    for cell in args.only:
        method, lengths = cell.removesuffix("_even"), "even" if cell.endswith("_even") else "mixed"
        (folder / "rows.json").write_bytes((folder / f"{lengths}.json").read_bytes())
        runs: Runs = {side: [] for side in sides}
        for round_ in range(args.rounds):
            for side, dtype in sides:
                result = spawn(side, method, dtype, folder)
                runs[side, dtype].append(result)
                print(f"{cell} round {round_ + 1} {side} {dtype}: {shown(result)}", flush=True)
        table[cell] = summarise(cell, own, runs)
    chosen = {"model": args.model, "threads": threads(), "length": args.length, "peer": args.peer}
    print(json.dumps(table | chosen | {"cpu": describe()["cpu"]}))


def shown(result: dict) -> str:
    if "tokens_s" not in result:
        return f"{result['flops_s'] / 1e9:.0f} GFLOP/s"
    return f"{result['tokens_s']:.0f} tokens/s, {result['rss_mb']:.0f} MB"


def summarise(cell: str, own: str, runs: Runs) -> dict[str, float | str]:
    """Medians of riyaz in its `own` type, its share of the limits, and ratios against the peer's faster type."""
    speed, memory = middle(runs["riyaz", own])
    row: dict[str, float | str] = {"tokens_s": round(speed, 1), "rss_mb": round(memory), "dtype": own}
    row |= shares(cell, own, runs)
    peers = {side: middle(results) for side, results in runs.items() if side[0] in PEERS.values()}
    if peers:
        best = max(peers, key=lambda side: peers[side][0])
        row |= {"ratio_tokens_s": round(speed / peers[best][0], 2), "ratio_rss": round(memory / peers[best][1], 2),
                "peer_tokens_s": round(peers[best][0], 1), "peer_rss_mb": round(peers[best][1]),
                "peer_dtype": best[1]}  # fmt: skip
        print(f"{cell}: {row['ratio_tokens_s']} times the tokens/s and {row['ratio_rss']} of the memory of the "
              f"{'tuned ' * (best[0] == 'tuned')}peer in {best[1]}", flush=True)  # fmt: skip
    if ("peer", "float32") in runs:  # the tuned peer takes the rows in another order
        row["loss_gap"] = loss_gap(cell, runs["riyaz", own][0]["losses"], runs["peer", "float32"][0]["losses"])
    return row


def middle(results: list[dict]) -> tuple[float, float]:
    """The median of tokens/s and the least memory, MB."""
    return statistics.median(r["tokens_s"] for r in results), min(r["rss_mb"] for r in results)


def shares(cell: str, own: str, runs: Runs) -> dict[str, float | str]:
    """Riyaz's operations a second, and their share of what matrix products reach in its type and in bfloat16."""
    reached = statistics.median(r["flops_s"] for r in runs["riyaz", own])
    row: dict[str, float | str] = {"gflops": round(reached / 1e9, 1)}
    for name, dtype in (("limit", own), ("bf16_limit", "bfloat16")):
        most = statistics.median(r["flops_s"] for r in runs["limit", dtype])
        row |= {f"{name}_gflops": round(most / 1e9, 1), f"{name}_share": round(reached / most, 3)}
    own_limit, bf16_limit = row["limit_gflops"], row["bf16_limit_gflops"]
    print(f"{cell}: {row['gflops']} GFLOP/s, {row['limit_share']:.1%} of the {own_limit} of products in {own}, "
          f"{row['bf16_limit_share']:.1%} of the {bf16_limit} in bfloat16", flush=True)  # fmt: skip
    return row


def loss_gap(cell: str, ours: list[float], theirs: list[float]) -> float:
    """The largest difference between riyaz's losses and those of the peer in float32."""
    gap = max(abs(a - b) for a, b in zip(ours, theirs))
    print(f"{cell} losses riyaz    {' '.join(f'{x:.3f}' for x in ours)}")
    print(f"{cell} losses peer f32 {' '.join(f'{x:.3f}' for x in theirs)}   largest gap {gap:.3f}", flush=True)
    return round(gap, 4)


def spawn(side: str, method: str, dtype: str, folder: Path) -> dict:
    """One measurement in a fresh process."""
    command = [sys.executable, __file__, "--child", side, method, dtype, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def prepare(args: argparse.Namespace, folder: Path) -> None:
    """Write rows, the model as a Hugging Face folder and the first adapters, which both sides start from."""
    import torch

    from riyaz import adapters
    from riyaz.families import describe
    from riyaz.layers.swaps import lora, soft_prompt
    from riyaz.models import load, save_hf
    from riyaz.sources import open_source

    source = open_source(args.model)
    tokenizer = source.tokenizer()
    count, rng = (args.steps + 2) * BATCH, np.random.default_rng(0)
    stream = tokenizer.encode("\n\n".join(text for _, text in sorted(pydoc_data.topics.topics.items())))
    mixed = np.clip(np.exp(rng.normal(np.log(90), 0.75, count)), 24, 512).astype(int)
    if args.length:
        mixed = np.full(count, args.length)
    (folder / "mixed.json").write_text(json.dumps(cut(stream, mixed)))
    if not args.length:
        even = cut(stream, rng.integers(45, 66, count)) if args.even is None else banking(tokenizer, args.even, count)
        (folder / "even.json").write_text(json.dumps(even))
    model = load(source, torch.float32)
    save_hf(model, tokenizer, folder / "model")
    for name in FOLDERS.values():
        (folder / name).mkdir()
    prompt = soft_prompt.apply(model, stream[:VECTORS])
    family = describe(source)
    vectors = prompt.prompt.detach().float().numpy()
    adapters.peft_prompt.write(vectors, folder / "prompt", family, base=str(folder / "model"))
    lora.apply(model, r=RANK, alpha=ALPHA, seed=SEED)
    adapters.peft.write(lora.adapter_of(model), folder / "adapter", family, base=str(folder / "model"), alpha=ALPHA)


def cut(stream: list[int], lengths: np.ndarray) -> list[tuple[list[int], int]]:
    """Consecutive pieces of the stream, the last 40 % of each labelled: (tokens, length of the prompt)."""
    ends = np.cumsum(lengths)
    assert ends[-1] < len(stream), "the text is too short for so many steps"
    return [(stream[end - n : end], int(n) - round(0.4 * n)) for n, end in zip(lengths, ends)]


def banking(tokenizer, path: Path, count: int) -> list[tuple[list[int], int]]:
    """Rows of a text,label file through the chat template."""
    pairs = [json.loads(line) for line in path.read_text().splitlines()[:count]]
    messages = [
        [{"role": "system", "content": "Classify the text. Answer with one label."},
         {"role": "user", "content": pair["text"]}]
        for pair in pairs
    ]  # fmt: skip
    prompts = tokenizer.render(messages, add_generation_prompt=True)
    answers = [[*tokenizer.encode(pair["label"]), tokenizer.end_of_turn] for pair in pairs]
    return [(prompt + answer, len(prompt)) for prompt, answer in zip(prompts, answers)]


if __name__ == "__main__":
    main()
