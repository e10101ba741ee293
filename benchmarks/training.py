"""Training speed and memory of riyaz beside transformers + PEFT, on the same rows, weights and first adapters.

    python benchmarks/training.py --peer            # about 30 minutes on two cores
    python benchmarks/training.py --peer --steps 4 --rounds 1 --only lora

Every measurement runs in a process of its own; sides take turns, so that a drift of the machine hits both. The
peer is the faster of its float32 and its bfloat16. Tokens are real ones: padding does not count. The last line is
one JSON document. Rows: `mixed` are English text cut to log-normal lengths (median 90, 24…512) with the last
40 % as answer; `even` are banking77 where its train.jsonl is given or found, else text cut to 45–65 tokens.
"""

import argparse
import json
import pydoc_data.topics
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from riyaz.hardware import MB, describe, peak_rss

BATCH, RANK, ALPHA, VECTORS, SEED = 8, 16, 32, 20, 0
CELLS = ("lora", "full", "prompt_tuning", "lora_even", "full_even", "prompt_tuning_even")
BANKING = Path(__file__).resolve().parents[2] / "shared/data/banking77/train.jsonl"
RATES = {"lora": 2e-4, "full": 2e-5, "prompt_tuning": 2e-2}
FOLDERS = {"lora": "adapter", "prompt_tuning": "prompt"}  # PEFT's, that both sides start from


def main() -> None:
    """Parse the command line; run one measurement (child) or the whole table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", action="store_true", help="measure transformers + PEFT too")
    parser.add_argument("--model", default="smollm2-135m")
    banking = BANKING if BANKING.exists() else None
    parser.add_argument("--even", type=Path, default=banking, help="a text,label file for the even rows")
    parser.add_argument("--steps", type=int, default=6, help="timed steps of each measurement, after two of warm-up")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=CELLS, action="append")
    parser.add_argument("--child", nargs=4, metavar=("SIDE", "METHOD", "DTYPE", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        side, method, dtype, folder = args.child
        measure = {"riyaz": measure_riyaz, "peer": measure_peer}[side]
        print(json.dumps(measure(method, dtype, Path(folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(args, Path(folder))


def compare(args: argparse.Namespace, folder: Path) -> None:
    """Interleaved rounds of every cell; prints a line per measurement and the JSON of ratios."""
    prepare(args, folder)
    sides = [("riyaz", "bfloat16"), *([("peer", "float32"), ("peer", "bfloat16")] if args.peer else [])]
    table: dict[str, object] = {}
    for cell in args.only or CELLS:
        method, lengths = cell.removesuffix("_even"), "even" if cell.endswith("_even") else "mixed"
        (folder / "rows.json").write_bytes((folder / f"{lengths}.json").read_bytes())
        runs: dict[tuple[str, str], list[dict]] = {side: [] for side in sides}
        for round_ in range(args.rounds):
            for side, dtype in sides:
                result = spawn(side, method, dtype, folder)
                runs[side, dtype].append(result)
                print(f"{cell} round {round_ + 1} {side} {dtype}: {result['tokens_s']:.0f} tokens/s, "
                      f"{result['rss_mb']:.0f} MB", flush=True)  # fmt: skip
        table[cell] = summarise(cell, runs)
    table["cpu"] = describe()["cpu"]
    print(json.dumps(table))


def summarise(cell: str, runs: dict[tuple[str, str], list[dict]]) -> dict[str, float]:
    """Medians, and ratios against the peer's faster type; says how far the loss curves part."""
    medians = {side: (statistics.median(r["tokens_s"] for r in results), min(r["rss_mb"] for r in results))
               for side, results in runs.items()}  # fmt: skip
    speed, memory = medians["riyaz", "bfloat16"]
    row = {"tokens_s": round(speed, 1), "rss_mb": round(memory)}
    peers = {side: value for side, value in medians.items() if side[0] == "peer"}
    if peers:
        best = max(peers, key=lambda side: peers[side][0])
        ours, theirs = runs["riyaz", "bfloat16"][0]["losses"], runs["peer", "float32"][0]["losses"]
        gap = max(abs(a - b) for a, b in zip(ours, theirs))
        print(f"{cell} losses riyaz    {' '.join(f'{x:.3f}' for x in ours)}")
        print(f"{cell} losses peer f32 {' '.join(f'{x:.3f}' for x in theirs)}   largest gap {gap:.3f}")
        row |= {"ratio_tokens_s": round(speed / peers[best][0], 2), "ratio_rss": round(memory / peers[best][1], 2),
                "peer_tokens_s": round(peers[best][0], 1), "peer_rss_mb": round(peers[best][1]),
                "peer_dtype": best[1], "loss_gap": round(gap, 4)}  # fmt: skip
    return row


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
    from riyaz.layers import lora, soft_prompt
    from riyaz.models import load, save_hf
    from riyaz.sources import open_source

    source = open_source(args.model)
    tokenizer = source.tokenizer()
    count, rng = (args.steps + 2) * BATCH, np.random.default_rng(0)
    stream = tokenizer.encode("\n\n".join(text for _, text in sorted(pydoc_data.topics.topics.items())))
    mixed = np.clip(np.exp(rng.normal(np.log(90), 0.75, count)), 24, 512).astype(int)
    (folder / "mixed.json").write_text(json.dumps(cut(stream, mixed)))
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


def order(rows: int) -> list[list[int]]:
    """The rows of each step, for both sides: the order in which riyaz's loop takes them."""
    from riyaz.data.packing import batch

    return [batch(rows, BATCH, SEED, step) for step in range(rows // BATCH)]


def tokens_s(lengths: list[int], times: list[float]) -> float:
    """Real tokens a second from the clock before the first step and after each.

    The first step warms up, and riyaz's last one also validates and saves: neither counts.
    """
    steps = order(len(lengths))
    assert len(times) == len(steps) + 1
    timed = sum(lengths[i] for picked in steps[1:-1] for i in picked)
    return timed / (times[-2] - times[1])


def measure_riyaz(method: str, dtype: str, folder: Path) -> dict:
    """The product's own loop on the product's own model."""
    import torch

    from riyaz import adapters
    from riyaz.data.rows import Row
    from riyaz.events import Event
    from riyaz.families import describe
    from riyaz.layers import lora, soft_prompt
    from riyaz.models import load
    from riyaz.sources import open_source
    from riyaz.train import TrainPlan, train

    compute = getattr(torch, dtype)
    rows = [Row(tuple(t[:p]), tuple(t[p:])) for t, p in json.loads((folder / "rows.json").read_text())]
    source = open_source(folder / "model")
    model = load(source, compute if method in FOLDERS else torch.float32)
    if method in FOLDERS:
        adapter = adapters.read(folder / FOLDERS[method], describe(source))
        if adapter.soft_prompt is None:
            lora.attach(model, adapter)
        else:
            model = soft_prompt.attach(model, adapter.soft_prompt)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(method not in FOLDERS or "lora_" in name or name == "prompt")
    plan = TrainPlan(steps=len(rows) // BATCH, learning_rate=RATES[method], batch_size=BATCH, warmup=0.0,
                     compute=dtype, validate_every=10**6, checkpoint_every=10**6, seed=SEED)  # fmt: skip
    times, losses = [time.perf_counter()], []

    def listen(event: Event) -> None:
        times.append(time.perf_counter())
        losses.append(event.loss)

    with tempfile.TemporaryDirectory() as run:
        train(model, rows, rows[:1], plan, Path(run), listen)
    lengths = [len(row.prompt) + len(row.answer) for row in rows]
    return {"tokens_s": tokens_s(lengths, times), "rss_mb": peak_rss() / MB, "losses": losses}


def measure_peer(method: str, dtype: str, folder: Path) -> dict:
    """The usual loop: batches padded to their longest row, AdamW, clipping; PEFT for adapters."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    rows = json.loads((folder / "rows.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=getattr(torch, dtype))
    if method in FOLDERS:
        model = PeftModel.from_pretrained(model, folder / FOLDERS[method], is_trainable=method == "lora")
    for name, parameter in model.named_parameters():
        if "prompt_encoder" in name:  # which PEFT does not let train on when it is loaded
            parameter.requires_grad_(True)
    model.train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=RATES[method], weight_decay=0.0)
    steps = order(len(rows))
    times, losses = [time.perf_counter()], []
    for step, places in enumerate(steps):
        picked = [rows[i] for i in places]
        width = max(len(tokens) for tokens, _ in picked)
        ids = torch.zeros(len(picked), width, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for i, (tokens, prompt) in enumerate(picked):
            ids[i, : len(tokens)], mask[i, : len(tokens)] = torch.tensor(tokens), 1
            labels[i, prompt : len(tokens)] = torch.tensor(tokens[prompt:])
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for group in optimizer.param_groups:  # riyaz's schedule, so that the curves can be laid on each other
            group["lr"] = RATES[method] * schedule(step, len(steps))
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter())
        losses.append(loss.item())
    lengths = [len(tokens) for tokens, _ in rows]
    return {"tokens_s": tokens_s(lengths, times), "rss_mb": peak_rss() / MB, "losses": losses}


def schedule(step: int, steps: int) -> float:
    """The factor on the learning rate that riyaz uses."""
    from riyaz.train import TrainPlan, learning_rate

    return learning_rate(TrainPlan(steps=steps, learning_rate=1.0, warmup=0.0), step)


if __name__ == "__main__":
    main()
