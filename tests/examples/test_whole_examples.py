"""Every example from its gather.py to compare.json: a few rows, a tiny model, the settings of its own riyaz.toml."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_comparison
import tiny_llama
import tool_template
from load_script import ROOT, load_script

from riyaz.results import Comparison

Rows = list[dict[str, Any]]
EXAMPLES = ROOT / "examples"
TRAIN, TEST = 24, 8  # rows that are kept
pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose template writes tools, with room for the six of the calendar."""
    return tool_template.write_model(tmp_path_factory.mktemp("models") / "tiny", context=4096)


@pytest.fixture
def compare(tmp_path: Path, tiny: Path, home: Path) -> Iterator[Callable[..., Comparison]]:
    """Compares the arms of an example in a folder, in this process, and reads what `compare` has made."""
    general = tmp_path / "general.txt"
    general.write_text(tiny_llama.CORPUS)

    def run(folder: Path, *more: object, methods: str) -> Comparison:
        with tiny_comparison.small_machine(home) as patch:
            tiny_comparison.shorten_recipes(patch, steps=4)
            tiny_comparison.workers_inside(patch)
            told = tiny_comparison.command(
                "compare", folder, "--methods", methods, "--model", tiny, "--budget", "3h", "--general", general,
                "--max-new-tokens", 24, "--out", tmp_path / "out", "--json", *more)  # fmt: skip
        assert told.status == 0, told.err
        return Comparison.read(tmp_path / "out/compare.json")

    yield run


def read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def cut(folder: Path) -> Rows:
    """Keep the first rows of each file, of each slice as many; returns those of the test."""
    for part, count in (("train", TRAIN), ("test", TEST)):
        rows = read(folder / f"{part}.jsonl")
        slices: dict[str, Rows] = {}
        for row in rows:
            slices.setdefault(row.get("slice", ""), []).append(row)
        kept = [row for group in slices.values() for row in group[: count // len(slices)]]
        tiny_comparison.write_rows(folder / f"{part}.jsonl", kept)
    return kept


OWN = {
    "extraction": ("json_f1", {"parses", "exact_object"}),
    "content": ("chrf", {"slots"}),
    "chatbot": ("exact_match", set()),
    "tools": ("tools", {"name"}),
}


@pytest.mark.parametrize("name", OWN)
def test_own_rows_become_a_table(
    name: str, tmp_path: Path, compare: Callable[..., Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    metric, extras = OWN[name]
    folder = tmp_path / "examples" / name
    (tmp_path / "examples/helpdesk").mkdir(parents=True)
    (tmp_path / "examples/helpdesk/handbook").symlink_to(EXAMPLES / "helpdesk/handbook")
    monkeypatch.setattr("sys.argv", ["gather.py", str(folder)])
    load_script(f"examples/{name}/gather.py").main()
    test = cut(folder)
    found = compare(folder, methods="nearest,zero_shot,lora")
    print(found)
