"""Draws docs/pictures/ternarize.svg: how a model that `riyaz ternarize` rounds learns again what it knew.

python docs/pictures/ternarize.py FOLDER

FOLDER is a finished run; its events.jsonl has the losses of the openings, one for each rate, and of the run.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from riyaz.events import EVENTS
from riyaz.report.comparison.pictures import end_names
from riyaz.report.media.page import drawing
from riyaz.report.media.svg import INK, colour, inset, picture
from riyaz.results import TERNARIZE

SVG = Path(__file__).with_suffix(".svg")
WIDTH, HEIGHT = 760, 340
TICKS = (30, 40, 60, 80, 100, 150, 200)


class Curve(NamedTuple):
    """Perplexities of held-out text after some steps at one rate."""

    name: str
    steps: list[int]
    perplexities: list[float]


def main() -> None:
    """Write the picture and print its path and the points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    document = json.loads((folder / TERNARIZE).read_text(encoding="utf-8"))
    curves = read(folder / EVENTS, document)
    for curve in curves:
        print(curve.name, ", ".join(f"{s}: {p:.4g}" for s, p in zip(curve.steps, curve.perplexities, strict=True)))
    SVG.write_text(svg(curves, document), encoding="utf-8")
    print(SVG)


def read(path: Path, document: dict[str, Any]) -> list[Curve]:
    """The curves of the searched rates in their order, then that of the run, which goes on from one of them."""
    points: list[list[tuple[int, float]]] = [[]]
    for line in path.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        loss = (event.get("metrics") or {}).get("valid_loss")
        if event["event"] == "phase" and points[-1]:
            points.append([])
        elif event["event"] == "progress" and event["phase"] == "train" and loss is not None:
            points[-1].append((event["metrics"]["step"], math.exp(loss)))
    found = [part for part in points if part]
    rates = [entry["rate"] for entry in document["search"]]
    openings, rest = found[: len(rates)], found[len(rates) :]  # a run that was resumed has several parts
    run = [*(openings[rates.index(document["rate"])] if rates else ()), *(point for part in rest for point in part)]
    named = [(f"opening at {rate:g}", part) for rate, part in zip(rates, openings, strict=True)]
    return [Curve(name, *map(list, zip(*part, strict=True))) for name, part in [*named, ("ternary", run)]]


def svg(curves: list[Curve], document: dict[str, Any]) -> str:
    """Perplexity, on a scale of powers, over the steps; the full-precision model's is a line."""
    before = math.exp(document["loss_before"])

    def draw(figure: Figure) -> None:
        panel = figure.add_subplot()
        last = curves[-1].steps[-1]
        panel.axhline(before, color=INK, lw=1.2, ls="--")
        ends = [((last, before), "full precision", INK)]
        for place, curve in enumerate(curves):
            shade = colour(place + 1)
            panel.plot(curve.steps, curve.perplexities, color=shade, lw=1.6, marker="o", ms=4)
            ends.append(((curve.steps[-1], curve.perplexities[-1]), curve.name, shade))
        panel.set_yscale("log")
        panel.set_yticks(TICKS, [f"{tick}" for tick in TICKS])
        panel.set_yticks([], minor=True)
        panel.set_xlim(0, last)
        panel.set_ylim(0.9 * before, 1.15 * max(max(curve.perplexities) for curve in curves))
        panel.set_xlabel("training steps of 256 tokens", color=INK)
        panel.set_ylabel("perplexity of held-out text", color=INK)
        inset(figure, 60, 150, 24, 46)
        end_names(panel, ends, "")

    return drawing(picture(draw, WIDTH, HEIGHT, "ternarize", "Perplexity while a rounded model learns again"))


if __name__ == "__main__":
    main()
