"""A comparison by `riyaz compare` beside the same arms by transformers + PEFT: accuracy, time and memory of each.

    python benchmarks/comparison.py --peer            # see the estimate it prints first
    python benchmarks/comparison.py --peer --limit-train 40 --limit-test 40 --only zero_shot --only lora

Rows are banking77's (CC-BY-4.0), text and label, from the files given or found. Both sides train on the rows that
riyaz trains on (it keeps some of `--limit-train` for validation), for as many epochs, at the same learning rate, in
batches of 8, and answer the same test rows. The peer is comparison_peer.py: padded batches, the chat template, greedy
generation; zero_shot lists the labels in its prompt, few_shot has 8 examples with different labels.

Riyaz's side is its real command, with `--learning-rate` of each arm that trains, so that it searches no rate. It does
more than the peer, which no option switches off and which counts as its time: it measures speeds for the plan, chooses
prompt, number of examples and calibration on validation rows, keeps the best weights by validation, and measures
latency and forgetting. `--margin 0` keeps it from more trainings of the two best trained arms, with other seeds, and
from answers to close arms one row at a time, unless their scores are equal: the peer trains and asks every arm once. It
answers with the likeliest label of the closed set, the peer with what it generates.

Seconds of an arm of riyaz are those of its fit and its evaluation; the total is the wall time of the command, of the
peer that of one process for each arm. In `best` each arm of the peer takes its faster type. The difference of
accuracies is paired by test row, with the interval of Bonett and Price (riyaz.metrics.paired); `low` is its lower
bound, in points. The last line is one JSON document.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from riyaz.artifact import TextPart
from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.data import Example
from riyaz.hardware import describe, threads
from riyaz.methods.few_shot import diverse_examples
from riyaz.metrics.paired import paired_test
from riyaz.prompting import messages_for
from riyaz.results import COMPARE, FIT, PREDICTIONS, Answer, Comparison, Fit

PEER = Path(__file__).with_name("comparison_peer.py")
RIYAZ = [sys.executable, "-m", "riyaz.cli.main"]
DATA = Path(__file__).resolve().parents[2] / "shared/data/banking77"
RATES = {"prompt_tuning": 2e-2, "lora": 1e-3, "full": 5e-5}  # of the arms that train
METHODS = ("zero_shot", "few_shot", *RATES)
TYPES = ("float32", "bfloat16")
SHOTS, RANK, ALPHA, VECTORS, BATCH, SEED = 8, 16, 32, 20, 8, 0
BUDGET = "12h"  # more than any arm needs, so that every recipe is trained whole
# Seconds on two cores of Zen 4: to begin, of a training row in an epoch, of a test row; the peer's in float32.
EXPECTED = {
    "riyaz": {"zero_shot": (22, 0, 0.13), "few_shot": (29, 0, 0.08), "prompt_tuning": (18, 0.03, 0.13),
              "lora": (18, 0.028, 0.033), "full": (22, 0.075, 0.035)},
    "peer": {"zero_shot": (5, 0, 1.24), "few_shot": (5, 0, 0.65), "prompt_tuning": (6, 0.26, 0.7),
             "lora": (5, 0.21, 0.21), "full": (6, 0.32, 0.21)},
}  # fmt: skip
Arm = dict[str, Any]


def main() -> None:
    """Parse the command line and run both sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", action="store_true", help="run transformers + PEFT too")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--train", type=Path, default=DATA / "train.jsonl", help="a text,label file")
    parser.add_argument("--test", type=Path, default=DATA / "test.jsonl", help="another")
    parser.add_argument("--limit-train", type=int, default=300)
    parser.add_argument("--limit-test", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--only", choices=METHODS, action="append")
    parser.add_argument("--type", choices=TYPES, action="append", dest="types", help="of the peer; both if not given")
    args = parser.parse_args()
    for path in (args.train, args.test):
        if not path.exists():
            parser.error(f"{path}: no such file; give --train and --test")
    methods = [method for method in METHODS if not args.only or method in args.only]
    types = [dtype for dtype in TYPES if not args.types or dtype in args.types] if args.peer else []
    print(estimate(methods, types, args), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        ours, seconds = run_riyaz(methods, args, Path(folder))
        theirs: dict[str, dict[str, Arm]] = {}
        if types:
            job = write_job(args, Path(folder))
            theirs = {dtype: run_peer(methods, dtype, job, Path(folder), ours) for dtype in types}
    table = summary(ours, seconds, theirs)
    show(table)
    rows = {"train": args.limit_train, "test": args.limit_test, "epochs": args.epochs}
    print(json.dumps(table | rows | {"model": args.model, "threads": threads(), "cpu": describe()["cpu"]}))


def estimate(methods: Sequence[str], types: Sequence[str], args: argparse.Namespace) -> str:
    """How long it will take, roughly."""
    sides = {"riyaz": 1.0, "peer": 1.0 * ("float32" in types) + 0.8 * ("bfloat16" in types)}
    minutes = {}
    for side, times in sides.items():
        parts = [EXPECTED[side][method] for method in methods]
        seconds = sum(a + b * args.epochs * args.limit_train + c * args.limit_test for a, b, c in parts)
        minutes[side] = times * seconds / 60
    return f"estimate: riyaz {minutes['riyaz']:.0f} minutes, the peer {minutes['peer']:.0f}"


def command_of(methods: Sequence[str], args: argparse.Namespace, out: Path) -> list[str]:
    command = [*RIYAZ, "compare", str(args.train), "--test", str(args.test), "--model", args.model,
               "--methods", ",".join(methods), "--limit-train", str(args.limit_train), "--limit-test",
               str(args.limit_test), "--budget", BUDGET, "--margin", "0", "--seed", str(SEED), "--allow-leakage",
               "--quiet", "--out", str(out)]  # fmt: skip
    rates = ",".join(f"{method}={RATES[method]}" for method in methods if method in RATES)
    by_hand = ["--epochs", str(args.epochs), "--learning-rate", rates, "--batch-size", str(BATCH)]
    return [*command, *(by_hand if rates else [])]


def run_riyaz(methods: Sequence[str], args: argparse.Namespace, folder: Path) -> tuple[dict[str, Arm], float]:
    """Every arm by `riyaz compare`, and the seconds of the command."""
    out = folder / "riyaz"
    began = time.perf_counter()
    subprocess.run(command_of(methods, args, out), check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    print(f"riyaz: {seconds:.0f} s with all that the command does", flush=True)
    arms = {arm.method: riyaz_arm(ComparisonFolder(out), arm) for arm in Comparison.read(out / COMPARE).arms}
    for method, arm in arms.items():
        print(f"riyaz {method}: {told(arm)}; {arm['chosen']}", flush=True)
    return arms, seconds


def riyaz_arm(folder: ComparisonFolder, arm: Any) -> Arm:
    """One row of a finished comparison, and its answers."""
    assert arm.status == "ok", f"{arm.method} {arm.status}: {arm.reason}"
    run = folder.part(arm.method, FINAL)
    answers = Answer.read(run / PREDICTIONS)
    chosen = {key: arm.chosen[key] for key in ("list_labels", "k", "examples", "calibrated") if key in arm.chosen}
    assert [answer.where for answer in answers] == [row.where for row in folder.rows(FINAL, "test")]
    seconds = Fit.read(run / FIT).seconds + arm.eval_seconds
    return {
        "scores": [float(answer.score or 0) for answer in answers], "seconds": seconds,
        "rss_mb": arm.peak_rss_mb, "steps": arm.steps or 0, "chosen": chosen,
    }  # fmt: skip


def write_job(args: argparse.Namespace, folder: Path) -> Path:
    """What the peer reads: the model as a Hugging Face folder, riyaz's own rows as conversations."""
    import torch

    from riyaz.models import load, save_hf
    from riyaz.sources import open_source

    source, kept = open_source(args.model), ComparisonFolder(folder / "riyaz")
    save_hf(load(source, torch.float32), source.tokenizer(), folder / "model")
    task, train, test = kept.settings().task, kept.rows(FINAL, "train"), kept.rows(FINAL, "test")

    def asked(rows: Sequence[Example], text: TextPart, examples: Sequence[Example] = ()) -> list[Any]:
        return [messages_for(text, task, row.messages, examples) for row in rows]

    plain = TextPart(instruction=task.instruction)
    listed = TextPart(instruction=task.instruction, list_labels=True)
    shots = diverse_examples(train, min(SHOTS, len(train)))
    job = {
        "model": str(folder / "model"), "instruction": task.instruction, "labels": list(task.labels), "rates": RATES,
        "epochs": args.epochs, "batch": BATCH, "seed": SEED, "rank": RANK, "alpha": ALPHA, "vectors": VECTORS,
        "train": list(zip(asked(train, plain), (row.answer for row in train))),
        "test": {"plain": asked(test, plain), "zero_shot": asked(test, listed), "few_shot": asked(test, plain, shots)},
        "answers": [row.answer for row in test],
    }  # fmt: skip
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    return path


def run_peer(methods: Sequence[str], dtype: str, job: Path, folder: Path, ours: dict[str, Arm]) -> dict[str, Arm]:
    """Every arm by the peer, in processes of their own."""
    right, arms = json.loads(job.read_text())["answers"], {}
    quiet = os.environ | {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    for method in methods:
        began = time.perf_counter()
        command = [sys.executable, str(PEER), method, dtype, str(job)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=quiet)
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["steps"] == ours[method]["steps"], (
            f"{method}: {found['steps']} steps, {ours[method]['steps']} ours"
        )
        arms[method] = {
            "scores": [float(a == b) for a, b in zip(found["answers"], right, strict=True)],
            "seconds": time.perf_counter() - began, "rss_mb": found["rss_mb"], "parts": found["seconds"],
        }  # fmt: skip
        parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in found["seconds"].items())
        print(f"peer {dtype} {method}: {told(arms[method])}; {parts}; such as {found['answers'][0]!r}", flush=True)
    return arms


def told(arm: Arm) -> str:
    return f"accuracy {np.mean(arm['scores']):.3f}, {arm['seconds']:.0f} s, {arm['rss_mb']:,.0f} MB"


def summary(ours: dict[str, Arm], seconds: float, theirs: dict[str, dict[str, Arm]]) -> dict[str, Any]:
    """The JSON: every arm, totals and their ratios, in each type and with every arm in its faster one."""
    arms: dict[str, Any] = {}
    for method, arm in ours.items():
        arms[method] = {"riyaz": figures(arm) | {"chosen": arm["chosen"]}}
        for dtype, peers in theirs.items():
            arms[method][dtype] = figures(peers[method]) | against(arm, peers[method])
    table: dict[str, Any] = {"arms": arms, "riyaz_seconds": round(seconds, 1)}
    if theirs:
        totals = {dtype: sum(arm["seconds"] for arm in peers.values()) for dtype, peers in theirs.items()}
        totals["best"] = sum(min(peers[method]["seconds"] for peers in theirs.values()) for method in ours)
        table["peer_seconds"] = {name: round(total, 1) for name, total in totals.items()}
        table["ratio_total"] = {name: round(total / seconds, 2) for name, total in totals.items()}
        table["lowest"] = min(arms[method][dtype]["low"] for method in ours for dtype in theirs)
    return table


def figures(arm: Arm) -> dict[str, Any]:
    """What is shown of one side's arm."""
    accuracy = round(float(np.mean(arm["scores"])), 4)
    return {"accuracy": accuracy, "seconds": round(arm["seconds"], 1), "rss_mb": round(arm["rss_mb"])}


def against(ours: Arm, theirs: Arm) -> dict[str, float]:
    """Riyaz's lead in points with its lower bound, and the ratios of time and memory."""
    pair = paired_test(np.array(ours["scores"]), np.array(theirs["scores"]))
    return {
        "difference": round(100 * pair.difference, 1), "low": round(100 * pair.low, 1),
        "ratio_seconds": round(theirs["seconds"] / ours["seconds"], 2),
        "ratio_rss": round(ours["rss_mb"] / theirs["rss_mb"], 2),
    }  # fmt: skip


def show(table: dict[str, Any]) -> None:
    """Print the table and the totals."""
    print(f"\n{'arm':15}{'side':10}{'accuracy':>9}{'seconds':>9}{'MB':>8}   riyaz − it, lower bound, time ÷, memory ÷")
    for method, sides in table["arms"].items():
        for side, row in sides.items():
            line = f"{method:15}{side:10}{row['accuracy']:9.3f}{row['seconds']:9.0f}{row['rss_mb']:8,}"
            if side != "riyaz":
                line += f"   {row['difference']:+.1f}, {row['low']:+.1f}, {row['ratio_seconds']}, {row['ratio_rss']}"
            print(line)
    print(f"total          riyaz     {table['riyaz_seconds']:18.0f}")
    for name, total in table.get("peer_seconds", {}).items():
        print(f"total          {name:10}{total:18.0f}   {table['ratio_total'][name]} times riyaz's")


if __name__ == "__main__":
    main()
