"""benchmarks/attacks.py: its percentiles, the memory that it counts, and one line of its table on a tiny model."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from load_script import load_script

ROOT = Path(__file__).parents[2]
attacks = load_script("benchmarks/attacks.py")


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [attacks.percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert attacks.percentile([7.0], 0.5) == 7.0 and math.isnan(attacks.percentile([], 0.5))


def test_memory_is_that_of_a_process_and_its_children() -> None:
    before = attacks.memory(os.getpid())
    if sys.platform != "linux":
        assert before == 0.0
        return
    held = np.ones(50 * 2**17)  # 50 MB
    grown = attacks.memory(os.getpid())
    sleeping = [sys.executable, "-c", "x = bytes(60 * 2**20); print(len(x), flush=True); input()"]
    with subprocess.Popen(sleeping, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline()
        assert attacks.memory(os.getpid()) - grown > 5
        child.kill()
    assert 40 < grown - before < 80 and len(held)


@pytest.mark.slow
def test_a_line_of_the_table(model_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/attacks.py"), "--model", str(model_folder), "--seconds", "1"]
    done = subprocess.run(
        [*command, "--only", "chunks"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-800:]
    (line,) = json.loads(done.stdout.splitlines()[-1])
    assert line["kind"] == "chunks" and line["who"] == "stranger" and line["failed"] == {} and line["requests"] > 10
    for what in ("health quiet", "health attacked", "completion quiet", "completion attacked"):
        half, most, longest = line[what]
        assert 0 < half <= most <= longest
    assert list(tmp_path.iterdir()) == []
