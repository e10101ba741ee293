"""What answers, training and comparing cost as they grow, measured, as one picture: docs/pictures/costs.svg.

    riyaz pull smollm2-135m
    chrt -r 10 python benchmarks/cost_curves.py         # about ten minutes on two cores
    python benchmarks/cost_curves.py --draw             # only draws from costs.json

Six curves of SmolLM2-135M: seconds of a prompt by its tokens, on one thread and on all; milliseconds of a token by the
tokens before it; tokens a second of all answers by their number; milliseconds of a token by the width of random llamas
of eight layers (random_llama.py); seconds of a step of LoRA by the tokens of a row; seconds of a whole `riyaz compare`
by its rows. A point is the median of --rounds measurements, one after the other over all points, and of one run of each
comparison. Writes costs.json and costs.svg to docs/pictures. The last line is one JSON document.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import random_llama
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from scaling import commit

from riyaz import hardware
from riyaz.report.media.page import drawing
from riyaz.report.media.svg import colour, inset, picture
from riyaz.report.words import number

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs/pictures"
MODEL, METHODS = "smollm2-135m", "linear,zero_shot,lora"
PROMPTS, BEFORE, ANSWERS = (32, 128, 512, 1024, 2048, 4096), (32, 512, 1024, 2048, 4096), (1, 2, 4, 8, 16)
WIDTHS, ROWS, COMPARED = (256, 512, 1024, 2048), (64, 128, 256, 512), (30, 120)
TOKENS, STEPS, BATCH = 24, 3, 8  # generated in a measurement of decoding; of a measurement of training
PANELS = {  # name -> title, axis
    "prompt": ("a prompt, seconds", "tokens of the prompt"),
    "context": ("a token after a text, ms", "tokens before it"),
    "answers": ("tokens/s of all answers", "answers at once"),
    "width": ("a token, ms", "width of a llama of 8 layers"),
    "training": ("a step of LoRA, seconds", "tokens of a row; 8 rows"),
    "compare": ("riyaz compare, seconds", "rows of training, and of testing"),
}
WIDE, HIGH = 860.0, 520.0
Curves = dict[str, dict[str, list[tuple[float, float]]]]  # panel -> line -> (size, cost) of its points


def main() -> None:
    """Measure what is asked for, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=PANELS, action="append")
    parser.add_argument("--rows", type=Path, default=ROOT / "examples/quickstart", help="what riyaz compare is given")
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder of costs.json and costs.svg")
    parser.add_argument("--draw", action="store_true", help="draw from costs.json and measure nothing")
    parser.add_argument("--one-thread", action="store_true", help=argparse.SUPPRESS)  # prompts alone, as JSON
    args = parser.parse_args()
    if args.one_thread:
        hardware.use_threads(1)
        print(json.dumps(points(prompt_costs(args.model, PROMPTS), args.rounds)))
        return
    path = args.out / "costs.json"
    if not args.draw:
        measure(args, path)
    if not path.exists():
        parser.error(f"--draw: {path} is missing: measure first")
    document = json.loads(path.read_text(encoding="utf-8"))
    (args.out / "costs.svg").write_text(svg(document["curves"]), encoding="utf-8")
    print(json.dumps(document))


def measure(args: argparse.Namespace, path: Path) -> None:
    """Every panel's curves, written after each; with --only the others stay as they were measured."""
    document: dict[str, Any] = {"curves": {}}
    if args.only and path.exists():
        document = json.loads(path.read_text(encoding="utf-8"))
    for panel in args.only or PANELS:
        began = time.perf_counter()
        document["curves"][panel] = measure_panel(panel, args)
        here = hardware.describe()
        document |= {"model": args.model, "commit": commit(), "cpu": here["cpu"], "cores": here["cores"]}
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"{panel}: {time.perf_counter() - began:.0f} s", flush=True)


def measure_panel(panel: str, args: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """The lines of one panel."""
    if panel == "prompt":
        command = [sys.executable, __file__, "--one-thread", "--model", args.model, "--rounds", str(args.rounds)]
        alone = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        every = points(prompt_costs(args.model, PROMPTS), args.rounds)
        return {f"{hardware.threads()} threads": every, "1 thread": alone}
    if panel == "context":
        return {"": points({size: decode_cost(args.model, 1, size) for size in BEFORE}, args.rounds, 1e3)}
    if panel == "answers":
        costs = points({size: decode_cost(args.model, size, 128) for size in ANSWERS}, args.rounds)
        return {"": [(size, size / seconds) for size, seconds in costs]}
    if panel == "width":
        return {"": widths(args.rounds)}
    if panel == "training":
        return {"": training(args.model, args.rounds)}
    return {METHODS.replace(",", ", "): [(size, compared(args, size)) for size in COMPARED]}


def points(costs: dict[int, Callable[[], float]], rounds: int, unit: float = 1.0) -> list[tuple[float, float]]:
    """(size, median cost in units) of each, measured in turns after one round that is not counted."""
    rows: dict[int, list[float]] = {size: [] for size in costs}
    for round_ in range(rounds + 1):
        for size, cost in costs.items():
            taken = cost()
            if round_:
                rows[size].append(taken * unit)
    return [(size, statistics.median(each)) for size, each in rows.items()]


@cache
def opened(model: str) -> Any:
    """An engine that drafts nothing, opened once."""
    from riyaz.engine.opening import open_engine
    from riyaz.sources import open_source

    engine = open_engine(open_source(model))
    engine.drafts.mode = "off"
    return engine


def prompt_costs(model: str, sizes: tuple[int, ...]) -> dict[int, Callable[[], float]]:
    """Seconds of a prompt of so many random tokens and of the first token after it."""
    from riyaz.engine import Request

    engine, rng = opened(model), np.random.default_rng(0)

    def cost(size: int) -> float:
        tokens = tuple(rng.integers(100, engine.runner.vocab_size, size).tolist())
        start = time.perf_counter()
        engine.generate([Request(0, tokens, limit=1)])
        return time.perf_counter() - start

    return {size: lambda size=size: cost(size) for size in sizes}  # type: ignore[misc]


def decode_cost(model: str | Path, answers: int, before: int) -> Callable[[], float]:
    """Seconds of a token of each of so many answers after so many random tokens."""
    from riyaz.engine import Request

    engine, rng = opened(str(model)), np.random.default_rng(0)

    def cost() -> float:
        for answer in range(answers):
            tokens = tuple(rng.integers(3, engine.runner.vocab_size, before).tolist())
            engine.add(Request(answer, tokens, limit=TOKENS + 1))
        engine.step()
        start = time.perf_counter()
        while engine.step():
            pass
        return (time.perf_counter() - start) / TOKENS

    return cost


def widths(rounds: int) -> list[tuple[float, float]]:
    """Milliseconds of a token of llamas of eight layers by their width."""
    with tempfile.TemporaryDirectory() as folder:
        costs = {}
        for width in WIDTHS:
            name, path = f"width-{width}", Path(folder) / f"{width}.gguf"
            random_llama.SIZES[name] = (4096, width, 256 * round(width * 2.75 / 256), 8, width // 64, width // 128)
            random_llama.write(path, name)
            costs[width] = decode_cost(path, 1, 32)
        return points(costs, rounds, 1e3)


def training(model: str, rounds: int) -> list[tuple[float, float]]:
    """Seconds of a step of LoRA, rank 16, on eight rows of one length."""
    import torch

    from riyaz.data.rows import Row
    from riyaz.events import Event
    from riyaz.layers.swaps import lora
    from riyaz.models import load_frozen
    from riyaz.sources import open_source
    from riyaz.train import TrainPlan, train

    compute = "bfloat16" if hardware.bf16_is_fast() else "float32"
    base, rng = load_frozen(open_source(model), getattr(torch, compute)), np.random.default_rng(0)
    lora.apply(base, r=16, alpha=32, seed=0)

    def cost(size: int) -> float:
        drawn = rng.integers(100, base.config.vocab_size, (BATCH * STEPS, size)).tolist()
        rows, times = [Row(tuple(row[: size // 2]), tuple(row[size // 2 :])) for row in drawn], []

        def listen(event: Event) -> None:
            times.append(time.perf_counter())

        plan = TrainPlan(STEPS, 1e-4, BATCH, validate_every=STEPS + 1, checkpoint_every=STEPS + 1, keep_best=False,
                         compute=compute)  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            train(base, rows, rows[:1], plan, Path(folder), listen)
        return (times[STEPS - 2] - times[0]) / (STEPS - 2)

    return points({size: lambda size=size: cost(size) for size in ROWS}, rounds)  # type: ignore[misc]


def compared(args: argparse.Namespace, rows: int) -> float:
    """Seconds of a comparison with so many training and test rows, three epochs at one learning rate."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "riyaz.cli.main", "compare", str(args.rows), "--model", args.model,
                   "--methods", METHODS, "--limit-train", str(rows), "--limit-test", str(rows), "--epochs", "3",
                   "--learning-rate", "1e-3", "--budget", "2h", "--margin", "0", "--quiet", "--out",
                   str(Path(folder) / "out")]  # fmt: skip
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"RIYAZ_LOOKUP": "off"})
        return time.perf_counter() - start


def svg(curves: Curves) -> str:
    """The picture as a file of its own."""
    title = "What answers, training and comparing cost as they grow"
    return drawing(picture(lambda figure: draw(figure, curves), WIDE, HIGH, "costs", title))


def draw(figure: Figure, curves: Curves) -> None:
    """A panel for each curve, both axes in doublings."""
    panels = figure.subplots(2, 3).ravel()
    inset(figure, 44, 18, 30, 48, wspace=0.28, hspace=0.5)
    plain = FuncFormatter(lambda value, _: number(value, 2 if value < 1 else 0))
    for panel, (name, (title, below)) in zip(panels, PANELS.items()):
        panel.set_title(title, pad=8)
        panel.set_xlabel(below)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log", base=2)
        for place, (line, costs) in enumerate(curves.get(name, {}).items()):
            panel.plot(*zip(*costs), "o-", color=colour(2 if not place else 6), lw=1.6, ms=5)
            if line and len(curves[name]) > 1:
                offset = (-10, 2) if place else (2, -36)  # above the upper line, below the lower one
                panel.annotate(line, costs[-1], offset, textcoords="offset points", ha="right")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter(plain)
            axis.set_minor_formatter(NullFormatter())
        panel.grid(axis="y", lw=0.7)


if __name__ == "__main__":
    main()
