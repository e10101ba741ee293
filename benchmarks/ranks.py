"""Several processes that train one model beside one process: tokens a second, and bits per byte with local steps.

    python benchmarks/ranks.py                              # about an hour on two cores
    python benchmarks/ranks.py --only speed --rounds 3

`speed`: 15 million parameters at context 256, batches of 16 windows (4,096 tokens), one process with two cores beside
two processes with one core each, which meet on the loopback interface. Sides take turns, so that a drift of the machine
hits both; each figure is a median.

`local`: nanoGPT's smallest setting on a CPU (characters of tinyshakespeare, 4 layers, width 128, context 64, batches of
12 windows), 2 and 4 processes, at equal tokens: all take every step together, or each takes 50 steps alone before all
agree (`--local-steps 50`). Loss of the whole validation text in bits per byte (a character is a byte), and seconds that
a process sends, receives and waits for others in a step. The last line is one JSON document.
"""

import argparse
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pretraining import SETTINGS, TEXT, characters, stream, windows

from riyaz.data.blocks import Windows
from riyaz.hardware import describe
from riyaz.models.fresh import fresh
from riyaz.ranks import ALONE, Ranks, environment, launched
from riyaz.train import train

SIDES = {"1 process, 2 cores": (1, 2), "2 processes, 1 core each": (2, 1)}
LOCAL = 50
SENDING = ("add_up", "spread", "total", "first", "paced", "copied", "scattered", "expect_alike")


def main() -> None:
    """Parse the command line; run one measurement (child) or the whole table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("speed", "local"), action="append")
    parser.add_argument("--rounds", type=int, default=5, help="of the measurements of speed")
    parser.add_argument("--steps", type=int, default=2000, help="of the runs that are judged by their loss")
    parser.add_argument("--seeds", type=int, default=2, help="of those runs")
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4], help="of those runs")
    parser.add_argument("--local-steps", type=int, default=LOCAL)
    parser.add_argument("--compute", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--text", type=Path, default=TEXT, help="tinyshakespeare")
    parser.add_argument("--child", nargs=3, metavar=("WHAT", "SEED", "LOCAL"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    table: dict[str, Any] = {}
    if not args.only or "speed" in args.only:
        table["speed"] = speeds(args)
    if not args.only or "local" in args.only:
        table["local"] = losses(args)
    table["cpu"] = describe()["cpu"]
    print(json.dumps(table))


def speeds(args: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of both sides, and of two processes as a share of one."""
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(args.rounds):
        for side, (count, threads) in SIDES.items():
            found[side].append(together(count, threads, args, "speed", 0, 0)["tokens_s"])
            print(f"speed round {number + 1} {side}: {found[side][-1]:,.0f} tokens/s", flush=True)
    one, two = (statistics.median(values) for values in found.values())
    return {"one": round(one), "two": round(two), "ratio": round(two / one, 3), "batch": SETTINGS["m15"].B}


def losses(args: argparse.Namespace) -> dict[str, Any]:
    """Bits per byte with and without local steps, for each number of processes."""
    table: dict[str, Any] = {"steps": args.steps, "local_steps": args.local_steps}
    for count in args.processes:
        results: dict[int, list[dict[str, float]]] = {0: [], args.local_steps: []}
        for seed in range(args.seeds):
            for local, done in results.items():
                done.append(together(count, 1, args, "loss", seed, local))
                print(f"{count} processes, local steps {local}, seed {seed}: {done[-1]['bits_per_byte']:.4f} bits per "
                      f"byte, {1000 * done[-1]['sending_s']:.1f} ms a step to send and wait", flush=True)  # fmt: skip
        bits, sending = (
            [statistics.mean(run[name] for run in runs) for runs in results.values()]
            for name in ("bits_per_byte", "sending_s")
        )
        table[f"{count}"] = {
            "together": round(bits[0], 4), "local": round(bits[1], 4), "ratio": round(bits[1] / bits[0], 4),
            "sending_ratio": round(sending[1] / sending[0], 4),
        }  # fmt: skip
    return table


def together(count: int, threads: int, args: argparse.Namespace, what: str, seed: int, local: int) -> Any:
    """What the first of so many processes has measured."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, __file__, "--text", args.text, "--steps", args.steps, "--compute", args.compute,
               "--child", what, seed, local]  # fmt: skip
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    told |= {"OMP_NUM_THREADS": str(threads)}
    started = [
        subprocess.Popen(
            [*map(str, command)], stdout=subprocess.PIPE, text=True, env=environment() | told | {"RANK": str(rank)}
        )
        for rank in range(count)
    ]
    texts = [process.communicate()[0] for process in started]
    assert not any(process.returncode for process in started)
    return json.loads(texts[0].splitlines()[-1])


def child(args: argparse.Namespace) -> None:
    """One measurement in one of the processes; the first one prints it."""
    what, seed, local = args.child[0], int(args.child[1]), int(args.child[2])
    rank, count = launched()
    ranks, seconds = ALONE, [0.0]
    if count > 1:
        from riyaz.layers.fast.group import Group

        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {cores[rank % len(cores)]})
        ranks = Group(rank, count)
        for name in SENDING:
            vars(ranks)[name] = timed(getattr(ranks, name), seconds)
    result = {"speed": speed, "loss": loss}[what](ranks, args, seed, local, seconds)
    if isinstance(ranks, Ranks) and count > 1:
        ranks.leave()  # type: ignore[attr-defined]
    if not rank:
        print(json.dumps(result))


def timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The function, which adds to `seconds` how long it takes."""

    def call(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            seconds[0] += time.perf_counter() - began

    return call


def speed(ranks: Ranks, args: argparse.Namespace, seed: int, local: int, seconds: list[float]) -> dict[str, float]:
    """Tokens a second of the product's loop."""
    setting = SETTINGS["m15"]
    steps = setting.steps + 3  # two warm up, and the last one validates and saves
    rows, times = windows(setting, stream(setting, args.text), steps, 0), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        train(fresh(setting.config(), 0), rows, rows[:1], setting.plan(steps, args.compute, 0), Path(folder),
              lambda event: times.append(time.perf_counter()), ranks=ranks)  # fmt: skip
    return {"tokens_s": setting.B * setting.T * setting.steps / (times[-2] - times[1])}


def loss(ranks: Ranks, args: argparse.Namespace, seed: int, local: int, seconds: list[float]) -> dict[str, float]:
    """Bits per byte of the whole validation text after training, and seconds of communication a step."""
    setting = SETTINGS["shakespeare"]
    learn, judge = characters(args.text)
    valid = Windows(judge, np.arange(0, len(judge) - setting.T, setting.T), setting.T)
    rows, plan = windows(setting, learn, args.steps, seed), setting.plan(args.steps, args.compute, seed)
    with tempfile.TemporaryDirectory() as folder:
        state = train(fresh(setting.config(), seed), rows, valid, plan, Path(folder), lambda event: None, ranks=ranks,
                      local_steps=local)  # fmt: skip
    return {"bits_per_byte": state.best_loss / math.log(2), "sending_s": seconds[0] / args.steps}


if __name__ == "__main__":
    main()
