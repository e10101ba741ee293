"""benchmarks/ranks.py: a few steps with and without local steps, and the last line is the table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from riyaz.ranks import environment

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ranks.py"


@pytest.mark.slow
def test_the_last_line_is_the_table(tmp_path: Path) -> None:
    """Two steps of two processes, each a local one."""
    text = tmp_path / "text.txt"
    text.write_text("".join(chr(32 + 7 * place % 65) for place in range(3000)), encoding="utf-8")
    options = ("--only", "local", "--steps", 2, "--local-steps", 1, "--processes", 2, "--judged-batch", 2)
    command = [sys.executable, SCRIPT, *options, "--compute", "float32", "--text", text]
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, check=True)
    table = json.loads(done.stdout.splitlines()[-1])
    assert table["local"]["steps"] == 2 and table["local"]["local_steps"] == 1 and table["cpu"]
    assert table["local"]["batch"] == 2 and table["batch"] == 16
    assert 0.8 < table["local"]["2"]["ratio"] < 1.2


@pytest.mark.slow
def test_without_iproute2_the_network_is_refused_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--only", "network"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment() | {"PATH": str(tmp_path)})
    assert done.returncode and done.stdout == ""
    said = "error: network: ip and tc of iproute2 missing; mend that, or run --only speed --only local\n"
    assert done.stderr == said
