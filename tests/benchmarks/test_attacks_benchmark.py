"""benchmarks/attacks.py: its percentiles, the memory that it counts, and one line of its table on a tiny model."""

import importlib
import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
with pytest.MonkeyPatch.context() as path:
    path.syspath_prepend(ROOT / "benchmarks")
    attacks = importlib.import_module("attacks")  # by its name, as the process of its attackers imports it


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
def test_a_line_of_the_table(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By clocks of the test's own, one in each thread, of which a second passes in ten readings: the clients make the
    same requests, however slow the machine is. The attackers and the server have the true clock."""
    monkeypatch.chdir(tmp_path)
    clock, here = attacks.time, threading.local()

    def tenth() -> float:
        here.readings = getattr(here, "readings", -1) + 1
        return float(here.readings) / 10

    own = SimpleNamespace(monotonic=tenth, perf_counter=clock.perf_counter, sleep=lambda seconds: os.sched_yield())
    monkeypatch.setattr(attacks, "time", own)
    monkeypatch.setattr(sys, "argv", ["attacks.py", "--model", str(model_folder), "--only", "chunks", "--seconds", "1"])
    attacks.main()
    (line,) = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["kind"] == "chunks" and line["who"] == "stranger" and line["failed"] == {}
    assert line["requests"] == 2 * 12, "two clients from 0 to .2 + 1, as the measurement began at its third reading"
    for what in ("health quiet", "health attacked", "completion quiet", "completion attacked"):
        half, most, longest = line[what]
        assert 0 < half <= most <= longest
    assert list(tmp_path.iterdir()) == []
