"""Draws docs/pictures/comparison.svg, the picture of the README, from the folder of a finished comparison.

python docs/pictures/comparison.py demo-result
"""

import argparse
import json
from pathlib import Path

from riyaz.report.page import drawing
from riyaz.report.pictures import quality_cost
from riyaz.report.words import metric_of

SVG = Path(__file__).with_suffix(".svg")
WIDTH = 760.0


def main() -> None:
    """Write the picture and print its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder that riyaz compare wrote")
    parser.add_argument("--out", type=Path, default=SVG)
    args = parser.parse_args()
    document = json.loads((args.folder / "compare.json").read_text(encoding="utf-8"))
    args.out.write_text(svg(document), encoding="utf-8")
    print(args.out)


def svg(document: dict) -> str:
    """Score against ms per answer of the arms of a compare.json."""
    drawn = quality_cost(document["arms"], document["pick"], metric_of(document), WIDTH, "comparison")
    if drawn is None:
        raise SystemExit("fewer than two arms of this comparison have a score and a speed")
    return drawing(drawn)


if __name__ == "__main__":
    main()
