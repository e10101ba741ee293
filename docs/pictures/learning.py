"""Draws loop.svg and attention.svg, the pictures of docs/how-a-model-learns.md.

python docs/pictures/learning.py
"""

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from riyaz.report.media.page import drawing
from riyaz.report.media.svg import FAINT, INK, RULE, colour, picture

FOLDER = Path(__file__).parent
STAGES = (
    ("1 tokens", "rows of text\nbecome numbers"),
    ("2 forward", "a probability for\nevery next token"),
    ("3 loss", "−log p of the\ntoken that came"),
    ("4 backward", "which way each\nparameter errs"),
    ("5 optimiser", "a small step\nthe other way"),
)
WORDS = ("The", "quick", "brown", "fox")
SCORES = ((0.0,), (1.0, 0.5), (0.3, 1.2, 0.8), (0.2, 1.1, 2.0, 0.7))  # how well a query and each key fit, made up
SHADE, OTHER = colour(2), colour(6)


def weights(scores: tuple[float, ...]) -> list[float]:
    """The softmax of the scores: each as a power of e, divided by the sum of all."""
    powers = [math.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


def blank(figure: Figure, width: float, height: float) -> Axes:
    """The whole figure as one panel without axes, in its own units."""
    panel = figure.add_axes((0, 0, 1, 1))
    panel.set(xlim=(0, width), ylim=(0, height))
    panel.set_axis_off()
    return panel


def loop() -> str:
    """The five stages of a step, the way back to the first, and the validation beside it."""
    width, height = 760, 250

    def draw(figure: Figure) -> None:
        panel = blank(figure, width, height)
        wide, tall, low, gap = 124, 92, 112, 22
        lefts = [26 + place * (wide + gap) for place in range(len(STAGES))]
        arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.2, "shrinkA": 2, "shrinkB": 2, "mutation_scale": 12}
        for left, (title, text) in zip(lefts, STAGES):
            shape = FancyBboxPatch((left, low), wide, tall, "round,pad=0,rounding_size=8", fc="none", ec=SHADE, lw=1.4)
            panel.add_patch(shape)
            panel.text(left + wide / 2, low + tall - 22, title, ha="center", va="center", weight="bold", color=SHADE)
            panel.text(left + wide / 2, low + 32, text, ha="center", va="center", linespacing=1.35)
        for left in lefts[1:]:
            panel.annotate("", (left, low + tall / 2), (left - gap, low + tall / 2), arrowprops=arrow)
        first, last, under = lefts[0] + wide / 2, lefts[-1] + wide / 2, 62
        panel.plot([last, last, first], [low, under, under], color=INK, lw=1.2)
        panel.annotate("", (first, low), (first, under - 1), arrowprops=arrow | {"shrinkA": 0})
        panel.text((first + last) / 2, under + 12, "again, with the next rows", ha="center", va="bottom")
        beside = "6 validation, now and then: the loss on text that is never trained on"
        panel.text((first + last) / 2, 24, beside, ha="center", va="center", color=OTHER)
        panel.text(lefts[0], height - 22, "One step of training", ha="left", va="center", weight="bold")

    return drawing(picture(draw, width, height, "loop", "One step of training, and the next"))


def attention() -> str:
    """How much each of four words takes from itself and from those before it."""
    width, height, cell = 760, 310, 56

    def draw(figure: Figure) -> None:
        panel = blank(figure, width, height)
        left, top = 84, height - 70
        for row, (word, scores) in enumerate(zip(WORDS, SCORES)):
            below = top - (row + 1) * cell
            panel.text(left - 12, below + cell / 2, word, ha="right", va="center", weight="bold")
            panel.text(left + (row + 0.5) * cell, top + 14, word, ha="center", va="bottom", weight="bold")
            for column, share in enumerate([*weights(scores), *[0.0] * (len(WORDS) - len(scores))]):
                corner = (left + column * cell, below)
                panel.add_patch(Rectangle(corner, cell, cell, fc=SHADE, alpha=0.75 * share, ec="none"))
                panel.add_patch(Rectangle(corner, cell, cell, fc="none", ec=RULE, lw=1))
                said = f"{share:.2f}" if column < len(scores) else "–"
                shade = INK if column < len(scores) else FAINT
                panel.text(corner[0] + cell / 2, below + cell / 2, said, ha="center", va="center", color=shade)
        lines = (
            "A row is a token that asks, a column one that it takes from.",
            "Its query is compared with every key: how well do they fit?",
            "The softmax of the fits is the weights: each row adds up to 1.",
            "It takes the sum of the values, each times its weight.",
            "",
            "– what comes later is not read yet: no weight.",
            "The numbers are made up; a model has such a table",
            "for every head of every layer.",
        )
        for place, line in enumerate(lines):
            panel.text(left + 4 * cell + 26, top - 12 - 24 * place, line, ha="left", va="center")

    return drawing(
        picture(draw, width, height, "attention", "Attention: what each of four words takes from the others")
    )


def main() -> None:
    """Write both pictures and print their paths."""
    for name, drawn in (("loop", loop()), ("attention", attention())):
        path = FOLDER / f"{name}.svg"
        path.write_text(drawn, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
