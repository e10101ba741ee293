"""The recipe of one method, swept: what epochs, learning rate, batch and rank give on several sets of rows.

    python benchmarks/sweep.py --method lora --out sweep \
        --train A/train.jsonl --test A/test.jsonl --rows 300 --train B/train.jsonl --test B/test.jsonl --rows 600 \
        --try "epochs=4 learning-rate=1e-3" --try "epochs=8 learning-rate=1e-3" --seeds 0,1

Every candidate is one `riyaz adapt` with these values as its flags, on the first `--rows` rows of a seeded order, with
its default values where nothing is given (`--try ""`). A candidate is chosen by the mean over all sets and seeds of its
best score on validation rows; the scores of the test rows stand beside it and choose nothing. A finished candidate in
`--out` is not run again. The last line is JSON: one entry for each run.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from accuracy import drawn_lines

from riyaz.hardware import describe

RIYAZ = [sys.executable, "-m", "riyaz.cli.main"]
BUDGET = "12h"  # more than any candidate needs, so that every one is trained whole
CHOSEN = ("steps", "best_step")
Entry = dict[str, Any]


def main() -> None:
    """Parse the command line, run every candidate on every set, print the table and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="lora")
    parser.add_argument("--train", type=Path, action="append", required=True, help="rows to train on; repeatable")
    parser.add_argument("--test", type=Path, action="append", required=True, help="rows to test on, for each --train")
    parser.add_argument("--rows", type=int, action="append", required=True, help="training rows, for each --train")
    parser.add_argument("--try", action="append", required=True, dest="candidates", metavar="VALUES")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0])
    parser.add_argument("--limit-test", type=int, help="most test rows")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps every run")
    args = parser.parse_args()
    if not len(args.train) == len(args.test) == len(args.rows):
        parser.error("give --test and --rows once for each --train")
    args.out.mkdir(parents=True, exist_ok=True)
    sets = list(zip(args.train, args.test, args.rows))
    runs = [(values, *of, seed) for of in sets for seed in args.seeds for values in args.candidates]
    print(f"{len(runs)} runs of {args.method} on {describe()['cpu']}", flush=True)
    entries = []
    for values, train, test, rows, seed in runs:
        entries.append(one(values, train, test, rows, seed, args))
        print(f"{len(entries)} of {len(runs)}: {entries[-1]}", flush=True)
    show(entries)
    print(json.dumps(entries))


def one(values: str, train: Path, test: Path, rows: int, seed: int, args: argparse.Namespace) -> Entry:
    """One candidate on one set with one seed."""
    name = train.resolve().parent.name
    label = "-".join(values.replace("=", "").split()) or "default"
    out = args.out / f"{args.method}-{name}-{rows}-{seed}-{label}"
    result = args.out / f"{out.name}.json"
    if not result.is_file():
        drawn = args.out / f"{name}-{rows}-{seed}{train.suffix}"
        drawn.write_text("".join(drawn_lines(train, rows, seed)), "utf-8")
        flags = [part for value in values.split() for part in (f"--{value.partition('=')[0]}", value.partition("=")[2])]
        limit = ["--limit-test", str(args.limit_test)] if args.limit_test else []
        run = subprocess.run(
            [*RIYAZ, "adapt", args.method, str(drawn), "--test", str(test), "--model", args.model, "--seed", str(seed),
             "--budget", BUDGET, "--allow-leakage", "--quiet", "--json", "--out", str(out), *limit, *flags],
            check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        result.write_text(run.stdout.splitlines()[-1], "utf-8")
    arm = json.loads(result.read_text("utf-8"))
    best = max((valid_score(point) for point in arm["curve"] if "valid_loss" in point), default=None)
    chosen = {"rate": arm["chosen"].get("learning_rate")} | {key: arm["chosen"].get(key) for key in CHOSEN}
    return chosen | {
        "set": name, "rows": rows, "seed": seed, "values": values or "default", "valid": best, "test": arm["score"],
        "forgetting_nats": arm["forgetting_nats"], "seconds": round(arm["train_seconds"] + arm["search_seconds"]),
    }  # fmt: skip


def valid_score(point: dict[str, float]) -> float:
    """The score of a point of the training curve on validation rows: the share of right labels, else −nats a token."""
    return point.get("valid_accuracy", -point["valid_loss"])


def show(entries: list[Entry]) -> None:
    """Print one line for each candidate: means over sets and seeds, then validation / test of every set."""
    sets = list(dict.fromkeys(entry["set"] for entry in entries))
    print(f"\n{'values':44}{'valid':>7}{'test':>7}{'forgot':>8}{'seconds':>9}   " + "".join(f"{of:>22}" for of in sets))
    for values in dict.fromkeys(entry["values"] for entry in entries):
        of = [entry for entry in entries if entry["values"] == values]
        cells = [f"{mean_of(of, 'valid', name):.3f} / {mean_of(of, 'test', name):.3f}" for name in sets]
        print(f"{values:44}{mean_of(of, 'valid'):7.3f}{mean_of(of, 'test'):7.3f}{mean_of(of, 'forgetting_nats'):8.3f}"
              f"{mean_of(of, 'seconds'):9.0f}   " + "".join(f"{cell:>22}" for cell in cells))  # fmt: skip


def mean_of(entries: list[Entry], key: str, name: str | None = None) -> float:
    """The mean of a field, over the entries of one set or over all; not a number where nothing was measured."""
    values = [entry[key] for entry in entries if name in (None, entry["set"]) and entry[key] is not None]
    return statistics.mean(values) if values else float("nan")


if __name__ == "__main__":
    main()
