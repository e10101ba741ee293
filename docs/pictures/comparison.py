"""Draws docs/pictures/comparison.svg, the picture of the README, from the folder of a finished comparison.

python docs/pictures/comparison.py demo-result
"""

import argparse
from pathlib import Path

from riyaz.report.comparison.pictures import quality_cost
from riyaz.report.media.page import drawing
from riyaz.report.words import metric_name
from riyaz.results import Comparison

SVG = Path(__file__).with_suffix(".svg")
WIDTH = 760.0


def main() -> None:
    """Write the picture and print its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder that riyaz compare wrote")
    parser.add_argument("--out", type=Path, default=SVG)
    args = parser.parse_args()
    args.out.write_text(svg(Comparison.read(args.folder / "compare.json")), encoding="utf-8")
    print(args.out)


def svg(comparison: Comparison) -> str:
    """Score against ms per answer of the arms of a comparison."""
    metric = metric_name(comparison.metric)
    drawn = quality_cost(comparison.arms, comparison.pick, metric, WIDTH, "comparison")
    if drawn is None:
        raise SystemExit("fewer than two arms of this comparison have a score and a speed")
    return drawing(drawn)


if __name__ == "__main__":
    main()
