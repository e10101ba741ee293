"""Draws docs/pictures/ternary.svg and prints the table of docs/from-nothing-to-1.58-bits.md.

python docs/pictures/ternary.py TEXT FOLDER…

Every folder is a model; those of pretraining runs have curves. Bits per byte are measured for all on the same held-out
windows of the text, which every run that was trained on it held out too. --speed adds a column: tokens a second when
served, of one sequence, the median of five times 32.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from riyaz.data.blocks import evenly_spaced, prepare
from riyaz.engine import Request
from riyaz.engine.opening import open_engine
from riyaz.families import describe
from riyaz.layers.swaps import ternary
from riyaz.models import load
from riyaz.pretraining.plan import JUDGED
from riyaz.pretraining.watch import bits_per_byte
from riyaz.report.comparison.pictures import end_names
from riyaz.report.media.page import drawing
from riyaz.report.media.svg import INK, colour, inset, picture
from riyaz.results import METRICS, StepMetrics
from riyaz.sources import Source, open_source
from riyaz.train import answer_loss

SVG = Path(__file__).with_suffix(".svg")
WIDTH, HEIGHT = 760, 340
NEW = 32  # tokens, of a context of 64


def main() -> None:
    """Print the table, write the picture and print its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--speed", action="store_true", help="measure tokens a second too")
    args = parser.parse_args()
    columns = ["model", "parameters", "bits per byte", "bytes of the layers' weights", "file"]
    columns += ["tokens/s"] * args.speed
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for folder in args.folders:
        source = open_source(folder)
        print(row(folder.name, source, args.text) + (f" {speed(source):,.0f} |" if args.speed else ""), flush=True)
    SVG.write_text(svg([folder for folder in args.folders if (folder / METRICS).is_file()]), encoding="utf-8")
    print(f"\n{SVG}")


def row(name: str, source: Source, text: Path) -> str:
    """One model's row of the table."""
    family, tokenizer = describe(source), source.tokenizer()
    with tempfile.TemporaryDirectory() as scratch:
        corpus = prepare([text], tokenizer, Path(scratch), family.config.context)
        windows = evenly_spaced(corpus.valid, JUDGED, tokenizer)
        model = load(source, torch.float32)
        ternary.freeze(model)
        bits = bits_per_byte(answer_loss(model, windows), windows.bytes_per_token)
    stored = [
        own for name, own in family.stored_names.items() if ".layers." in name and not name.endswith("norm.weight")
    ]
    layers = sum(source.tensors[own].nbytes for own in stored)
    size = sum(file.path.stat().st_size for file in source.files)
    return f"| {name} | {family.parameters:,} | {bits:.3f} | {layers:,} | {size:,} |"


def speed(source: Source) -> float:
    """Tokens a second of one sequence, without the reading of its prompt."""
    engine, figures = open_engine(source), []
    for place in range(5):
        engine.add(Request(place, tuple(range(3, 19)), limit=NEW + 1))
        engine.step()
        start, tokens = time.perf_counter(), 0
        while made := engine.step():
            tokens += len(made)
        figures.append(tokens / (time.perf_counter() - start))
    return statistics.median(figures)


def svg(folders: Sequence[Path]) -> str:
    """Bits per byte on held-out text over the tokens read, one curve for each run."""

    def draw(figure: Figure) -> None:
        panel = figure.add_subplot()
        ends = []
        for place, folder in enumerate(folders):
            points = [(entry.step, entry.bits_per_byte) for entry in StepMetrics.read(folder / METRICS)]
            seen = [(step, bits) for step, bits in points if bits is not None and math.isfinite(bits)]
            shade = colour(place + 1)
            panel.plot(*zip(*seen), color=shade, lw=1.6)
            ends.append((seen[-1], folder.name, shade))
        panel.set_xlabel("training steps", color=INK)
        panel.set_ylabel("bits per byte of held-out text", color=INK)
        inset(figure, 60, 110, 24, 46)
        end_names(panel, ends, "")

    return drawing(picture(draw, WIDTH, HEIGHT, "ternary", "Bits per byte while float and ternary models learn"))


if __name__ == "__main__":
    main()
