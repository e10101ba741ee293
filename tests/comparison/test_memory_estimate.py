"""The estimate of memory beside the peak, on the examples with the real model and processes of their own."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_llama

EXAMPLES = Path(__file__).parents[2] / "examples"
FEW = "--limit-train 80 --limit-test 12 --steps 8 --budget 2h --model smollm2-135m"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "methods"), [("quickstart", "zero_shot,few_shot,lora"), ("quickstart", "full"), ("helpdesk", "lora")]
)
def test_the_peak_is_at_most_the_estimate_and_the_estimate_at_most_1_4_times_the_peak(
    example: str, methods: str, tmp_path: Path
) -> None:
    words = ["compare", str(EXAMPLES / example), *shlex.split(FEW), "--methods", f"nearest,{methods}"]
    # Riyaz's prose is read in as many rows at once, so that a shorter text of the other kind takes time alone
    (tmp_path / "general.txt").write_text(tiny_llama.CORPUS)
    words += ["--general", str(tmp_path / "general.txt")]
    command = [sys.executable, "-m", "riyaz.cli.main", *words, "--out", str(tmp_path / "out"), "--quiet"]
    subprocess.run(command, check=True, capture_output=True)
    estimate = json.loads((tmp_path / "out/plan.json").read_text())["estimate"]["peak_rss_mb"]
    arms = json.loads((tmp_path / "out/compare.json").read_text())["arms"]
    peak = max(arm["peak_rss_mb"] for arm in arms)
    assert peak <= estimate <= 1.4 * peak, (example, methods, peak, estimate)
