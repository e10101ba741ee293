"""What answers runs where the packages of the extras are missing: scipy, matplotlib, torch and others."""

import json
import subprocess
import sys
from pathlib import Path

from tiny_comparison import closed_rows, write_rows
from tiny_linear import classifier, written

from riyaz import extras
from riyaz.errors import joined

# Of a module that is None in sys.modules Python says that it is not installed.
WITHOUT = """
import json, sys
from riyaz.extras import PACKAGES
for name in {name for names in PACKAGES.values() for name in names}:
    sys.modules[name] = None
import riyaz, riyaz.serve.app
from riyaz.cli.main import main
print(json.dumps([main(line) for line in json.loads(sys.argv[1])]))
"""


def test_what_answers_needs_none_of_them(model_folder: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", closed_rows(6, "please"))
    model, answers = str(model_folder), tmp_path / "answers.jsonl"
    lines = [
        ["doctor"],
        ["models"],
        ["generate", model, "the card", "--max-tokens", "4"],
        ["predict", "the card", "--model", model],
        ["inside", model, "the card"],
        ["run", str(written(tmp_path / "linear", classifier())), str(rows), "--out", str(answers)],
        ["quantize", model, "--precision", "int8", "--out", str(tmp_path / "small")],
        ["compare", str(rows)],
    ]
    done = subprocess.run([sys.executable, "-c", WITHOUT, json.dumps(lines)], capture_output=True, text=True,
                          cwd=tmp_path, timeout=120)  # fmt: skip
    statuses = json.loads(done.stdout.splitlines()[-1])
    assert statuses == [0] * (len(lines) - 1) + [2], done.stderr[-2000:]
    assert len(answers.read_text().splitlines()) == 6
    names = joined(extras.PACKAGES["compare"])
    assert done.stderr.endswith(f"error: {names} are not installed; {extras.install('compare')}\n")
