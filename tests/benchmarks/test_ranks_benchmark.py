"""benchmarks/ranks.py: two processes train with local steps, and the last line is the table of what they found."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from load_script import ROOT, load_script

OPTIONS = ["--only", "local", "--steps", "2", "--local-steps", "1", "--processes", "2", "--judged-batch", "2"]


@pytest.fixture(scope="module")
def ranks() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")  # it imports pretraining.py
        yield load_script("benchmarks/ranks.py")


@pytest.mark.slow
def test_two_processes_are_measured(ranks: ModuleType, tmp_path: Path) -> None:
    """Two steps, each a local one, of a model of 1 million parameters."""
    text = tmp_path / "text.txt"
    text.write_text("".join(chr(32 + 7 * place % 65) for place in range(1000)), encoding="utf-8")
    args = argparse.Namespace(
        setting="shakespeare", text=text, steps=2, compute="float32", batch=2, judged_batch=2, sent_steps=1
    )
    found = ranks.together(args, "loss", 2, local=1)
    assert 5 < found["bits_per_byte"] < 7, "65 characters, of which nothing is known yet"
    assert found.keys() == {"bits_per_byte", "seconds"}


def test_the_last_line_is_the_table(
    ranks: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[object, ...]] = []

    def together(args: argparse.Namespace, what: str, count: int, *, seed: int, local: int) -> dict[str, Any]:
        asked.append((args.setting, what, count, seed, local))
        return {"bits_per_byte": 2.0 + 0.5 * local + seed, "seconds": 1.0}

    monkeypatch.setattr(ranks, "together", together)
    monkeypatch.setattr(sys, "argv", ["ranks.py", *OPTIONS, "--seeds", "2"])
    ranks.main()
    *lines, last = capsys.readouterr().out.splitlines()
    assert asked == [("m15", "loss", 2, seed, local) for seed in (0, 1) for local in (0, 1)] and len(lines) == 4
    table = json.loads(last)
    assert table.pop("cpu")
    row = {"together": 2.5, "local": 3.0, "ratio": 1.2}
    assert table == {"batch": 16, "compute": "bfloat16", "local": {"batch": 2, "steps": 2, "local_steps": 1, "2": row}}


def test_without_iproute2_the_network_is_refused_in_one_line(
    ranks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["ranks.py", "--only", "network"])
    with pytest.raises(SystemExit) as caught:
        ranks.main()
    said = "error: network: ip and tc of iproute2 missing; mend that, or run --only speed --only local"
    assert str(caught.value) == said
