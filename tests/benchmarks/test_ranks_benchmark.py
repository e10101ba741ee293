"""benchmarks/ranks.py: a few steps of every side, and the last line is the table."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ranks.py"


def test_the_last_line_is_the_table(tmp_path: Path) -> None:
    """Two local steps of four, with 2 and 4 processes."""
    text = tmp_path / "text.txt"
    text.write_text("".join(chr(32 + 7 * place % 65) for place in range(3000)), encoding="utf-8")
    command = [sys.executable, SCRIPT, "--only", "local", "--steps", 4, "--seeds", 1, "--local-steps", 2]
    done = subprocess.run(
        [*map(str, command), "--compute", "float32", "--text", str(text)], stdout=subprocess.PIPE, text=True, check=True
    )
    table = json.loads(done.stdout.splitlines()[-1])
    assert table["local"]["steps"] == 4 and table["local"]["local_steps"] == 2 and table["cpu"]
    for count in ("2", "4"):
        assert 0.8 < table["local"][count]["ratio"] < 1.2 and table["local"][count]["sending_ratio"] > 0
