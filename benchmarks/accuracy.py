"""Accuracy of what `riyaz compare` picks, and of every arm, on rows of the user's own: one comparison for each seed.

    python benchmarks/accuracy.py --train train.jsonl --test test.jsonl --rows 300 --seeds 0,1,2 --budget 15m
    python benchmarks/accuracy.py --train A/train.jsonl --test A/test.jsonl --rows 300 \
                                  --train B/train.jsonl --test B/test.jsonl --rows 600

Training rows are the first `--rows` of the file's rows in an order drawn from the seed, all of them without `--rows`;
a set is named by the folder of its training file. All rows of the test file are answered. Pull `minilm` first, or the
methods that use it take no part. The comparison is the real command, with its default methods unless `--methods` names
others. Training rows whose prompt is in the test file are left out by it.

`regret` says what choosing costs: half of the test rows, drawn from the seed, names the arm that scores best and the
arm that riyaz's rule picks; the other half scores both, and the difference is averaged over the two ways round. So no
row that scores a choice has taken part in it. Its mean over all comparisons has the 95 % interval of a t test.

The last line is JSON: a list with one entry for each comparison.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from riyaz.comparison.arm_row import FINISHED, row_scores
from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.comparison.pick import choose
from riyaz.config import CompareConfig
from riyaz.hardware import describe
from riyaz.results import COMPARE, ArmResult, Comparison

RIYAZ = [sys.executable, "-m", "riyaz.cli.main"]


def main() -> None:
    """Parse the command line, run every comparison, print the tables and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, action="append", required=True, help="rows to train on; repeatable")
    parser.add_argument("--test", type=Path, action="append", required=True, help="rows to test on, for each --train")
    parser.add_argument("--rows", type=int, action="append", help="training rows, for each --train")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0])
    parser.add_argument("--budget", default="15m", help="of each comparison")
    parser.add_argument("--methods", help="as of riyaz compare; its default methods if not given")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--out", type=Path, help="keep the comparisons in this folder; a finished one is not run again")
    args = parser.parse_args()
    if len(args.train) != len(args.test) or len(args.rows or args.train) != len(args.train):
        parser.error("give --test, and --rows if any, once for each --train")
    for path in (*args.train, *args.test):
        if not path.is_file():
            parser.error(f"{path}: no such file")
    sets = list(zip(args.train, args.test, args.rows or [None] * len(args.train)))
    print(f"{len(sets) * len(args.seeds)} comparisons of at most {args.budget} each on {describe()['cpu']}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        entries = [one(train, test, rows, seed, folder, args) for train, test, rows in sets for seed in args.seeds]
    show(entries)
    print(json.dumps(entries))


def one(train: Path, test: Path, rows: int | None, seed: int, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The entry of one comparison."""
    name = train.resolve().parent.name
    out = folder / f"{name}-{rows or 'all'}-{seed}"
    if not (out / COMPARE).is_file():
        drawn = folder / f"{out.name}{train.suffix}"
        drawn.write_text("".join(drawn_lines(train, rows, seed)), "utf-8")
        command = [*RIYAZ, "compare", str(drawn), "--test", str(test), "--model", args.model, "--seed", str(seed),
                   "--budget", args.budget, "--allow-leakage", "--quiet", "--out", str(out)]  # fmt: skip
        began = time.perf_counter()
        subprocess.run(
            [*command, *(["--methods", args.methods] if args.methods else [])], check=True, stdout=subprocess.DEVNULL
        )
        print(f"{out.name}: {time.perf_counter() - began:.0f} s", flush=True)
    result = Comparison.read(out / COMPARE)
    used = int(result.data.rows.get("train", 0)) + int(result.data.rows.get("valid", 0))
    return {
        "set": name, "rows": used, "seed": seed, "pick": result.pick, "decision": result.decision,
        "score": score_of(result, result.pick), "seconds": result.seconds, "estimate_seconds": result.estimate_seconds,
        "regret": regret(ComparisonFolder(out), result, seed),
        "arms": {arm.method: figures(arm) for arm in result.arms if arm.status in FINISHED},
        "not_run": {arm.method: arm.reason for arm in result.arms if arm.status not in FINISHED},
    }  # fmt: skip


def drawn_lines(train: Path, rows: int | None, seed: int) -> list[str]:
    """The first `rows` lines of the file, in an order drawn from the seed; a CSV's first line stays first."""
    lines = [line if line.endswith("\n") else f"{line}\n" for line in train.read_text("utf-8").splitlines(True) if line]
    head = [lines.pop(0)] if train.suffix in (".csv", ".tsv") else []
    random.Random(seed).shuffle(lines)
    return head + lines[:rows]


def figures(arm: ArmResult) -> dict[str, Any]:
    """What is shown of one arm."""
    return {
        "score": arm.score, "ece": arm.calibration.ece if arm.calibration else None, "ms_per_answer": arm.ms_per_answer,
        "forgetting_nats": arm.forgetting_nats, "status": arm.status,
    }  # fmt: skip


def score_of(result: Comparison, method: str | None) -> float | None:
    """The score of an arm on all test rows; None without it."""
    arm = result.arm(method)
    return arm.score if arm else None


def regret(folder: ComparisonFolder, result: Comparison, seed: int) -> float | None:
    """Score of the arm that is best on one half of the test rows minus that of riyaz's pick on this half, both scored
    on the other half, in the mean of the two ways round; None for a comparison by folds or without a pick."""
    if result.pick is None or result.data.rows.get("folds"):
        return None
    scores = row_scores(folder, result.arms, [FINAL])
    arms = [arm for arm in result.arms if arm.method in scores]
    count = len(next(iter(scores.values())))
    order = np.random.default_rng(seed).permutation(count)
    halves = order[: count // 2], order[count // 2 :]
    differences = []
    for naming, scoring in (halves, halves[::-1]):
        part = {method: rows[naming] for method, rows in scores.items()}
        pick = choose(arms, part, CompareConfig.margin, seed=seed).pick
        best = max(part, key=lambda method: part[method].mean())
        differences.append(float(scores[best][scoring].mean() - scores[pick][scoring].mean()) if pick else 0.0)
    return statistics.mean(differences)


def show(entries: Sequence[dict[str, Any]]) -> None:
    """Print the arms of every comparison, the mean score of the picks by set, and the mean regret."""
    print(f"\n{'set':18}{'rows':>5}{'seed':>5}  {'arm':15}{'score':>7}{'ECE':>7}{'ms':>9}{'forgot':>8}")
    for entry in entries:
        for name, arm in sorted(entry["arms"].items(), key=lambda pair: -(pair[1]["score"] or 0)):
            numbers = (arm["score"], arm["ece"], arm["ms_per_answer"], arm["forgetting_nats"])
            shown = [f"{value:.3f}" if value is not None else "" for value in numbers]
            mark = f" {entry['decision']}" if name == entry["pick"] else ""
            print(f"{entry['set']:18}{entry['rows']:5}{entry['seed']:5}  {name:15}"
                  f"{shown[0]:>7}{shown[1]:>7}{shown[2]:>9}{shown[3]:>8}{mark}")  # fmt: skip
        for name, reason in entry["not_run"].items():
            print(f"{'':30}{name}: {reason}")
    print(f"\n{'set':18}{'mean score of the pick':>24}   seconds / estimate")
    for name in dict.fromkeys(entry["set"] for entry in entries):
        of = [entry for entry in entries if entry["set"] == name]
        picks = statistics.mean(entry["score"] or 0.0 for entry in of)
        times = ", ".join(f"{entry['seconds'] or 0:.0f}/{entry['estimate_seconds'] or 0:.0f}" for entry in of)
        print(f"{name:18}{picks:24.4f}   {times}")
    regrets = [entry["regret"] for entry in entries if entry["regret"] is not None]
    if regrets:
        mean, low, high = interval_of(regrets)
        over = f"{len(regrets)} comparison{'s' if len(regrets) > 1 else ''}"
        print(f"regret {100 * mean:+.2f} points, 95 % interval {100 * low:+.2f} to {100 * high:+.2f}, {over}")


def interval_of(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high): the mean and its 95 % interval by Student's t; without width for a single value."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, mean, mean
    half = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


if __name__ == "__main__":
    main()
