"""Several processes that train one model beside one process: tokens a second, loss with local steps, bytes sent.

    python benchmarks/ranks.py                              # about 50 minutes on two cores, as root
    python benchmarks/ranks.py --only speed --rounds 3
    python benchmarks/ranks.py --only network --local-steps 5

One model everywhere: 15 million parameters at context 256, or another `--setting`. A step of `speed` and `network`
takes 16 windows (4,096 tokens), one of `local` 8, so that its 500 steps, ten times 50, take half an hour.

`speed`: one process with two cores beside two processes with one core each, which meet on the loopback interface. Sides
take turns, so that a drift of the machine hits both; each figure is a median.

`local`: characters of tinyshakespeare, 2 and 4 processes, at equal tokens: all take every step together, or each takes
50 steps alone with its share of the batch before all agree (`--local-steps 50`). Loss of the whole validation text in
bits per byte (a character is a byte). With 4 processes two share a core, which changes no loss.

`network`: two processes in two network namespaces, joined by a pair of virtual interfaces, one core each. Bytes that
the first one's interface has counted a step, without 66 bytes of headers for each packet (Ethernet, IPv4, TCP with
timestamps; the interface counts what the kernel hands it whole as one packet), beside those of the collectives; then at
`--rate` the seconds a process sends, receives and waits for others a step. Needs root, `ip` and `tc` of iproute2.

A process of several stays on one core. The last line is one JSON document.
"""

import argparse
import json
import math
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pretraining import SETTINGS, TEXT, Setting, characters, stream, windows

from riyaz.data.blocks import Windows
from riyaz.events import Event, Progress
from riyaz.hardware import describe
from riyaz.models.fresh import fresh
from riyaz.ranks import ALONE, Ranks, environment, launched
from riyaz.train import TrainPlan, train

PARTS = ("speed", "local", "network")
SIDES = {"1 process, 2 cores": (1, 2), "2 processes, 1 core each": (2, 1)}
LOCAL = 50
SENDING = ("add_up", "spread", "total", "first", "paced", "copied", "scattered", "expect_alike", "wait_for_all")
INTERFACE, SUBNET = "riyaz0", "10.213.43"  # of both namespaces, in which nothing else is
HEADERS = 14 + 20 + 32  # bytes of Ethernet, IPv4 and TCP with timestamps
BURST = "128kb"  # that tc lets pass at once
WARM = 2  # first steps that are not counted


def main() -> None:
    """Parse the command line; run one measurement (child) or the whole table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--rounds", type=int, default=5, help="of the measurements of speed")
    parser.add_argument("--setting", choices=SETTINGS, default="m15", help="the model, as pretraining.py names it")
    parser.add_argument("--batch", type=int, default=SETTINGS["m15"].B, help="windows a step, of all processes")
    parser.add_argument("--steps", type=int, default=500, help="of the runs that are judged by their loss")
    parser.add_argument("--judged-batch", type=int, default=8, help="windows a step of those runs")
    parser.add_argument("--seeds", type=int, default=1, help="of those runs")
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4], help="of those runs")
    parser.add_argument("--local-steps", type=int, default=LOCAL)
    parser.add_argument("--sent-steps", type=int, default=8, help="whose bytes and seconds to send them are counted")
    parser.add_argument("--rate", default="100mbit", help="of the slow network, as tc names it")
    parser.add_argument("--compute", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--text", type=Path, default=TEXT, help="tinyshakespeare")
    parser.add_argument("--child", nargs=3, metavar=("WHAT", "SEED", "LOCAL"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    parts = args.only or PARTS
    if "network" in parts:
        expect_network()
    table: dict[str, Any] = {"batch": args.batch, "compute": args.compute}
    for name, measure in (("speed", speeds), ("local", losses), ("network", network)):
        if name in parts:
            table[name] = measure(args)
    table["cpu"] = describe()["cpu"]
    print(json.dumps(table))


def speeds(args: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of both sides, and of two processes as a share of one."""
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(args.rounds):
        for side, (count, threads) in SIDES.items():
            found[side].append(together(args, "speed", count, threads)["tokens_s"])
            print(f"speed round {number + 1} {side}: {found[side][-1]:,.0f} tokens/s", flush=True)
    one, two = (statistics.median(values) for values in found.values())
    return {"one": round(one), "two": round(two), "ratio": round(two / one, 3)}


def losses(args: argparse.Namespace) -> dict[str, Any]:
    """Bits per byte with and without local steps, for each number of processes."""
    table: dict[str, Any] = {"batch": args.judged_batch, "steps": args.steps, "local_steps": args.local_steps}
    for count in args.processes:
        results: dict[int, list[float]] = {0: [], args.local_steps: []}
        for seed in range(args.seeds):
            for local, bits in results.items():
                done = together(args, "loss", count, seed=seed, local=local)
                bits.append(done["bits_per_byte"])
                print(f"{count} processes, local steps {local}, seed {seed}: {bits[-1]:.4f} bits per byte, "
                      f"{done['seconds']:.0f} s", flush=True)  # fmt: skip
        step, alone = (statistics.mean(bits) for bits in results.values())
        table[f"{count}"] = {"together": round(step, 4), "local": round(alone, 4), "ratio": round(alone / step, 4)}
    return table


def network(args: argparse.Namespace) -> dict[str, Any]:
    """Bytes and seconds of communication a step between two namespaces, and at a slow rate with local steps too."""
    table: dict[str, Any] = {"rate": args.rate, "local_steps": args.local_steps}
    with two_namespaces() as places:
        for name, rate, local in (("together", "", 0), ("slow", args.rate, 0), ("local", args.rate, args.local_steps)):
            if rate and not local:
                slow_down(places, rate)
            done = together(args, "sent", 2, local=local, places=places)
            table[name] = {
                "bytes": round(done["bytes"]), "formula": round(done["formula"]),
                "ratio": round(done["bytes"] / done["formula"], 4), "sending_s": round(done["sending_s"], 4),
            }  # fmt: skip
            print(f"network {rate or 'unlimited'}, local steps {local}: {done['bytes']:,.0f} bytes a step, formula "
                  f"{done['formula']:,.0f}, {1000 * done['sending_s']:.1f} ms to send", flush=True)  # fmt: skip
    table["sending_ratio"] = round(table["local"]["sending_s"] / table["slow"]["sending_s"], 4)
    return table


def expect_network() -> None:
    """Ends the program with one line where it cannot make network namespaces."""
    missing = [program for program in ("ip", "tc") if shutil.which(program) is None]
    reason = f"{' and '.join(missing)} of iproute2 missing" if missing else "not root" if os.geteuid() else ""
    if reason:
        raise SystemExit(f"error: network: {reason}; mend that, or run --only speed --only local")


@contextmanager
def two_namespaces() -> Iterator[list[list[str]]]:
    """Two network namespaces, joined by a pair of interfaces, as the commands that start a program in each."""
    names = [f"riyaz-{os.getpid()}-{side}" for side in range(2)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that they do not stay
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", INTERFACE, "netns", names[0], "type", "veth", "peer", "name", INTERFACE, "netns", names[1])
        for side, name in enumerate(names):
            ip("-n", name, "addr", "add", f"{SUBNET}.{side + 1}/24", "dev", INTERFACE)
            for link in ("lo", INTERFACE):
                ip("-n", name, "link", "set", link, "up")
        yield [["ip", "netns", "exec", name] for name in names]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL)


def ip(*arguments: str) -> None:
    """Runs `ip`; ends the program with its error."""
    done = subprocess.run(["ip", *arguments], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"error: network: ip {' '.join(arguments)}: {done.stderr.strip()}")


def slow_down(places: Sequence[Sequence[str]], rate: str) -> None:
    """Limit what each namespace sends."""
    shape = ["tc", "qdisc", "add", "dev", INTERFACE, "root", "tbf", "rate", rate, "burst", BURST, "latency", "100ms"]
    for place in places:
        subprocess.run([*place, *shape], check=True)


def together(
    args: argparse.Namespace, what: str, count: int, threads: int = 1, *,
    seed: int = 0, local: int = 0, places: Sequence[Sequence[str]] = (),
) -> Any:  # fmt: skip
    """What the first of so many processes has measured; each starts at its place, if there are any."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {"setting": args.setting, "text": args.text, "steps": args.steps, "compute": args.compute,
               "batch": args.batch, "judged-batch": args.judged_batch, "sent-steps": args.sent_steps}  # fmt: skip
    command = [sys.executable, __file__, *(word for name, value in options.items() for word in (f"--{name}", value)),
               "--child", what, seed, local]  # fmt: skip
    host = f"{SUBNET}.1" if places else "127.0.0.1"
    told = {"MASTER_ADDR": host, "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    told |= {"OMP_NUM_THREADS": str(threads), "TORCH_CPP_LOG_LEVEL": "ERROR"}  # a namespace knows no host names
    started = [
        subprocess.Popen(
            [*(places[rank] if places else ()), *map(str, command)], stdout=subprocess.PIPE, text=True,
            env=environment() | told | {"RANK": str(rank)},
        )
        for rank in range(count)
    ]  # fmt: skip
    try:
        texts = [process.communicate()[0] for process in started]
    finally:
        for process in started:
            process.kill()
    if any(process.returncode for process in started):
        raise SystemExit(f"error: {what}: a process has failed; see above")
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
    setting = SETTINGS[args.setting]._replace(B=args.batch)
    if what == "speed":
        result = speed(ranks, setting, args)
    elif what == "loss":
        result = loss(ranks, setting._replace(B=args.judged_batch), args, seed, local)
    else:
        result = sent(ranks, setting, args, local, seconds)
    if isinstance(ranks, Ranks) and count > 1:
        ranks.leave()  # type: ignore[attr-defined]
    if not rank:
        print(json.dumps(result))


def timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The function, which adds to `seconds` how long it takes; one that another calls is not counted twice."""

    def call(*arguments: Any, **named: Any) -> Any:
        began, before = time.perf_counter(), seconds[0]
        try:
            return function(*arguments, **named)
        finally:
            seconds[0] = before + time.perf_counter() - began

    return call


def speed(ranks: Ranks, setting: Setting, args: argparse.Namespace) -> dict[str, float]:
    """Tokens a second of the product's loop."""
    steps = setting.steps + 3  # two warm up, and the last one validates and saves
    rows, times = windows(setting, stream(setting, args.text), steps, 0), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        train(fresh(setting.config(), 0), rows, rows[:1], setting.plan(steps, args.compute, 0), Path(folder),
              lambda event: times.append(time.perf_counter()), ranks=ranks)  # fmt: skip
    return {"tokens_s": setting.B * setting.T * setting.steps / (times[-2] - times[1])}


def loss(ranks: Ranks, setting: Setting, args: argparse.Namespace, seed: int, local: int) -> dict[str, float]:
    """Bits per byte of the whole validation text after training, and its seconds."""
    learn, judge = characters(args.text)
    valid = Windows(judge, np.arange(0, len(judge) - setting.T, setting.T), setting.T)
    rows, plan = windows(setting, learn, args.steps, seed), plan_of(setting, args.steps, args, seed, local)
    with tempfile.TemporaryDirectory() as folder:
        state = train(fresh(setting.config(), seed), rows, valid, plan, Path(folder), lambda event: None, ranks=ranks,
                      local_steps=local)  # fmt: skip
    return {"bits_per_byte": state.best_loss / math.log(2), "seconds": state.seconds}


def plan_of(setting: Setting, steps: int, args: argparse.Namespace, seed: int, local: int) -> TrainPlan:
    """A run that validates and saves at its end alone."""
    never = 10**9 * max(1, local)
    return replace(setting.plan(steps, args.compute, seed), validate_every=never, checkpoint_every=never)


def sent(
    ranks: Ranks, setting: Setting, args: argparse.Namespace, local: int, seconds: list[float]
) -> dict[str, float]:
    """Bytes that a process sends a step, those of the formula, and its seconds of communication; with local steps of as
    many steps as lie between two agreements."""
    warm, counted = (local, local) if local else (WARM, args.sent_steps)
    steps = warm + counted + 1  # the last one validates and saves
    rows, seen = windows(setting, stream(setting, args.text), steps, 0), list[tuple[int, float]]()

    def listen(event: Event) -> None:
        if isinstance(event, Progress):
            seen.append((payload(), seconds[0]))

    model = fresh(setting.config(), 0)
    numbers = sum(weight.numel() for weight in model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        train(model, rows, rows[:1], plan_of(setting, steps, args, 0, local), Path(folder), listen, ranks=ranks,
              local_steps=local)  # fmt: skip
    (before, began), (after, ended) = seen[warm - 1], seen[warm + counted - 1]
    # of the numbers of all parts but its own: gradients in float32, then weights as the model computes with them; or
    # once in `local` steps the weights in float32, twice
    others = numbers * (ranks.count - 1) / ranks.count
    formula = others * 8 / local if local else others * (4 + (2 if args.compute == "bfloat16" else 4))
    return {"bytes": (after - before) / counted, "formula": formula, "sending_s": (ended - began) / counted}


def payload() -> int:
    """Bytes that this namespace's interface has sent so far, without their headers."""
    lines = Path("/proc/net/dev").read_text(encoding="ascii").splitlines()
    (counts,) = (line.split(":")[1].split() for line in lines if line.strip().startswith(f"{INTERFACE}:"))
    return int(counts[8]) - HEADERS * int(counts[9])


if __name__ == "__main__":
    main()
