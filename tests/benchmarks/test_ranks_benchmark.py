"""benchmarks/ranks.py: a few steps with and without local steps, and the last line is the table."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ranks.py"


def test_the_last_line_is_the_table(tmp_path: Path) -> None:
    """Two local steps of four, with two processes."""
    text = tmp_path / "text.txt"
    text.write_text("".join(chr(32 + 7 * place % 65) for place in range(3000)), encoding="utf-8")
    options = ("--only", "local", "--steps", 4, "--seeds", 1, "--local-steps", 2, "--processes", 2)
    command = [sys.executable, SCRIPT, *options, "--compute", "float32", "--text", text]
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, check=True)
    table = json.loads(done.stdout.splitlines()[-1])
    assert table["local"]["steps"] == 4 and table["local"]["local_steps"] == 2 and table["cpu"]
    assert 0.8 < table["local"]["2"]["ratio"] < 1.2 and table["local"]["2"]["sending_ratio"] > 0
