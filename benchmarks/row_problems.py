"""Wrong labels put into a file of rows, and how many of them `riyaz data` lists: precision and recall.

    python benchmarks/row_problems.py --train examples/quickstart/train.jsonl --rows 450 --shares 0.05,0.1 --seeds 0,1,2

The rows are the first ones of a seeded shuffle. `random` gives a row any other label, `near` the label of the most
similar prompt that has another one. The last line is JSON.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from riyaz.data import Dataset, Example
from riyaz.data.formats import load
from riyaz.data.task import detect
from riyaz.engine.opening import pulled_embedder
from riyaz.quality.examine import examine
from riyaz.quality.features import prompt_vectors, term_blocks

KINDS = ("random", "near")


def with_wrong_labels(rows: list[Example], share: float, kind: str, seed: int, alike: np.ndarray) -> list[Example]:
    """The rows, a share of them with another label; `alike` (n, n) are the products of the prompts' vectors."""
    random = np.random.default_rng(seed)
    labels, changed = sorted({row.answer for row in rows}), list(rows)
    for place in random.choice(len(rows), round(share * len(rows)), replace=False):
        others = [label for label in labels if label != rows[place].answer]
        nearest = (int(other) for other in np.argsort(-alike[place]))
        wrong = str(random.choice(others))
        if kind == "near":
            wrong = next(rows[other].answer for other in nearest if rows[other].answer != rows[place].answer)
        changed[place] = replace(rows[place], answers=(wrong,))
    return changed


def counts(data: Dataset, changed: list[Example]) -> tuple[int, int, int]:
    """(wrong labels listed, rows listed, wrong labels put in)."""
    right = {row.where: row.answer for row in data.examples}
    wrong = {row.where for row in changed if row.answer != right[row.where]}
    corrupted = replace(data, examples=tuple(changed), folder=None)  # whose places are those of the rows
    listed = {row.where for row in examine(corrupted, None, detect(corrupted)).of("wrong label")}
    return len(listed & wrong), len(listed), len(wrong)


def measured(data: Dataset, shares: list[float], seeds: list[int]) -> Iterator[dict[str, float | str]]:
    """Precision and recall over the seeds for each kind and share of wrong labels."""
    rows, embedder = list(data.examples), pulled_embedder()
    texts = [row.prompt for row in rows]
    vectors = prompt_vectors(term_blocks(texts), None if embedder is None else embedder.embed(texts))
    alike = vectors @ vectors.T
    for kind in KINDS:
        for share in shares:
            each = [counts(data, with_wrong_labels(rows, share, kind, seed, alike)) for seed in seeds]
            hits, listed, wrong = (sum(column) for column in zip(*each))
            yield {
                "kind": kind, "share": share, "precision": round(hits / max(1, listed), 3),
                "recall": round(hits / wrong, 3), "listed": listed / len(seeds), "wrong": wrong / len(seeds),
            }  # fmt: skip


def main() -> None:
    """Prints a line for each kind and share, then all of them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--shares", default="0.05,0.1")
    parser.add_argument("--seeds", default="0")
    options = parser.parse_args()
    data = load(options.train)
    order = np.random.default_rng(0).permutation(len(data.examples))[: options.rows]
    data = replace(data, examples=tuple(data.examples[place] for place in order))
    shares = [float(share) for share in options.shares.split(",")]
    seeds = [int(seed) for seed in options.seeds.split(",")]
    lines = []
    for line in measured(data, shares, seeds):
        lines.append({"train": str(options.train), "rows": len(data.examples), **line})
        print(*(f"{name} {value}" for name, value in line.items()), sep=", ", flush=True)
    print(json.dumps(lines))


if __name__ == "__main__":
    main()
