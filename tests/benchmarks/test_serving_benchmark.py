"""benchmarks/serving.py on a tiny model: it measures what it says, and its last line is JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_llama
from waiting import HANG

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_figure_is_measured(tmp_path: Path) -> None:
    model = tiny_llama.write_hf_folder(tmp_path / "tiny", context=4096)
    command = [sys.executable, ROOT / "benchmarks/serving.py", "--model", model, "--each", "1", "--requests", "160"]
    few = ["--rounds", "1", "--connections", "150", "--long", "300"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([*map(str, command), *few], capture_output=True, text=True, env=environment, timeout=HANG)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["clients16_ratio"] is None and found["ttft_p95_ms"].keys() == {"1", "4", "16", "64"}
    for name in ("batch_share", "adapters8_over_1", "itl_long_ms", "cancel_ms", "tokens_s_16"):
        assert found[name] > 0, name
    assert abs(found["rss_growth_mb"]) < 100
    answered = found["connections"]
    assert answered.pop("waited") <= 128 and answered.keys() <= {"200", "429"} and sum(answered.values()) == 150
