"""The notebooks of the documentation on a tiny model: what is shorter than the pages say, and what a kernel does first.

docs/notebooks/make.py executes with it; tests/cli/test_library.py shortens docs/library.md the same way.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_comparison
import tiny_llama
import tiny_store

from riyaz.config import DEFAULT_MODEL

ROOT = Path(__file__).parents[2]
TEN_MINUTES = 'budget="2h", limit_train=60, limit_test=20, general="general.txt"'
FIVE_MINUTES = 'out="fresh", steps=4, tokenizer="bytes", layers=1, heads=2, width=32, context=64'
SHORTER = {  # page -> (what it says, what is run): enough for a test
    "library": [
        ('budget="10m"', TEN_MINUTES),
        (
            'out="fresh", budget="5m"',
            'out="fresh", steps=4, tokenizer="bytes", layers=1, heads=2, width=32, context=64',
        ),
        ('suite="cost", budget="1m"', 'suite="cost", budget="5s"'),
    ],
    "compare": [
        ('"budget": "10m"', '"budget": "2h", "general": "general.txt"'),
        ('"limit_train": 150', '"limit_train": 60'),
        ('"limit_test": 100', '"limit_test": 20'),
    ],
    "lesson": [("steps=300", "steps=4")],
}


def shortened(name: str, text: str) -> str:
    """The code of the page `name` as it is run."""
    for long, short in SHORTER[name]:
        text = text.replace(long, short)
    return text


def few_examples(folder: Path) -> None:
    """The examples in `folder`, the quickstart with so few rows that a comparison reads them in no time."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    for name, count in (("train", 120), ("test", 40)):
        path = folder / f"examples/quickstart/{name}.jsonl"
        path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:count]), encoding="utf-8")


def setup(folder: Path) -> str:
    """The first cell of a kernel, which works in `folder`."""
    path = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    return f"{path}import tiny_notebook\nkept = tiny_notebook.begin({str(folder)!r})"


def begin(folder: str) -> Any:
    """Make a store with the tiny model in `folder`, and run workers in this process, on one core, as long as what is
    returned is kept."""
    home = Path(folder) / ".home"
    os.environ["RIYAZ_HOME"] = str(home)
    if not home.exists():
        tiny_store.keep(tiny_llama.write_hf_folder(Path(folder) / ".model", seed=1), DEFAULT_MODEL)
    (Path(folder) / "general.txt").write_text(tiny_llama.CORPUS, encoding="utf-8")
    machine = tiny_comparison.small_machine(home)
    patch: pytest.MonkeyPatch = machine.__enter__()
    tiny_comparison.serve_in_float32(patch)
    tiny_comparison.workers_inside(patch)
    return machine, patch
