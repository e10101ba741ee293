"""Riyaz without what only Linux has: every module is imported and small commands run (`tests/helpers/elsewhere.py`).

This is Linux that hides what Windows or macOS lacks from riyaz' own code. Python's modules and other packages (rich,
torch) are imported before, as on Linux, and threadpoolctl is told to find no library: it would look for Windows'. The
workers of a comparison run in its process, since one of their own would see Linux whole. So the test shows that riyaz
asks for nothing that is missing, not that it works on those systems.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
from tiny_comparison import closed_rows, write_rows

SCRIPT = Path(__file__).parents[1] / "helpers/elsewhere.py"
PLATFORMS = ("win32", "darwin")


COMMANDS = [
    ["doctor"], ["models"], ["data", "train.jsonl"], ["generate", "./tiny", "hello", "--max-tokens", "3", "--json"],
    ["predict", "hello", "--model", "./tiny", "--json"],
]  # fmt: skip
COMPARE = ["compare", "train.jsonl", "--test", "test.jsonl", "--model", "./tiny", "--methods", "nearest,linear",
           "--threads", "1", "--quiet", "--out"]  # fmt: skip


JOBS = [(platform, what) for platform in PLATFORMS for what in ("imports", "commands", "compare")]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[int, list[str], Path, str]]:
    """Platform and job -> exit status, what each command printed, the folder with rows, a store and a tiny model, and
    all errors. The jobs are forks of one process."""
    work = tmp_path_factory.mktemp("elsewhere")
    tiny_llama.write_hf_folder(work / "tiny", layers=1, hidden=32, intermediate=32)
    write_rows(work / "train.jsonl", closed_rows(36, "today"))
    write_rows(work / "test.jsonl", closed_rows(9, "now"))
    lines = {"imports": [], "commands": COMMANDS}
    asked = [
        (platform, "imports" if job == "imports" else "commands", lines.get(job, [[*COMPARE, f"on-{platform}"]]))
        for platform, job in JOBS
    ]
    environment = {**os.environ, "RIYAZ_HOME": str(work / "home"), "MPLCONFIGDIR": str(work / "matplotlib")}
    command = [sys.executable, str(SCRIPT), json.dumps(asked)]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        job: (*json.loads(line), work, done.stderr) for job, line in zip(JOBS, done.stdout.splitlines(), strict=True)
    }


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_module_is_imported(ended: Any, platform: str) -> None:
    assert ended[platform, "imports"][:2] == (0, [])


@pytest.mark.parametrize("platform", PLATFORMS)
def test_small_commands_run(ended: Any, platform: str) -> None:
    status, printed, _, errors = ended[platform, "commands"]
    assert status == 0, errors
    doctor, _, data, generated, predicted = printed
    assert "riyaz" in doctor
    assert "not known on this system" in doctor  # not 0 MB: here neither /proc nor macOS's programs tell the memory
    assert "billing" in data
    assert json.loads(generated.splitlines()[-1])["tokens"] == 3
    assert json.loads(predicted.splitlines()[-1])


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_comparison_without_training_runs(ended: Any, platform: str) -> None:
    status, _, work, errors = ended[platform, "compare"]
    assert status == 0, errors
    arms = json.loads((work / f"on-{platform}/compare.json").read_text())["arms"]
    assert {arm["method"]: arm["status"] for arm in arms} == {"nearest": "ok", "linear": "ok"}
