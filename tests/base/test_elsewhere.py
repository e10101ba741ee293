"""Riyaz without what only Linux has: every module is imported and small commands run (`tests/helpers/elsewhere.py`).

This is Linux that hides what Windows or macOS lacks from riyaz' own code. Python's modules and other packages (rich,
torch) are imported before, as on Linux, and threadpoolctl is told to find no library: it would look for Windows'. A
process that a command starts sees Linux whole. So the test shows that riyaz asks for nothing that is missing, not that
it works on those systems.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_llama
from tiny_comparison import closed_rows, write_rows

SCRIPT = Path(__file__).parents[1] / "helpers/elsewhere.py"
PLATFORMS = ("win32", "darwin")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows, and a store with a tiny model."""
    folder = tmp_path_factory.mktemp("elsewhere")
    tiny_llama.write_hf_folder(folder / "tiny", layers=1, hidden=32, intermediate=32)
    write_rows(folder / "train.jsonl", closed_rows(36, "today"))
    write_rows(folder / "test.jsonl", closed_rows(9, "now"))
    return folder


def elsewhere(platform: str, work: Path, *arguments: str) -> str:
    """What the script prints; it must end with status 0."""
    environment = {**os.environ, "RIYAZ_HOME": str(work / "home"), "MPLCONFIGDIR": str(work / "matplotlib")}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), platform, *arguments], cwd=work, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def printed(platform: str, work: Path, *lines: list[str]) -> list[str]:
    """What each command prints; all run in one process."""
    return json.loads(elsewhere(platform, work, "commands", json.dumps(lines)).splitlines()[-1])


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_module_is_imported(work: Path, platform: str) -> None:
    assert elsewhere(platform, work, "imports") == ""


@pytest.mark.parametrize("platform", PLATFORMS)
def test_small_commands_run(work: Path, platform: str) -> None:
    doctor, _, data, generated, predicted = printed(
        platform, work, ["doctor"], ["models"], ["data", "train.jsonl"],
        ["generate", "./tiny", "hello", "--max-tokens", "3", "--json"],
        ["predict", "hello", "--model", "./tiny", "--json"],
    )  # fmt: skip
    assert "riyaz" in doctor
    assert "not known on this system" in doctor  # not 0 MB: here neither /proc nor macOS's programs tell the memory
    assert "billing" in data
    assert json.loads(generated.splitlines()[-1])["tokens"] == 3
    assert json.loads(predicted.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_comparison_without_training_runs(work: Path, platform: str) -> None:
    out = f"compared-{platform}"
    printed(platform, work, ["compare", "train.jsonl", "--test", "test.jsonl", "--model", "./tiny", "--methods",
                             "nearest,linear", "--threads", "1", "--out", out, "--quiet"])  # fmt: skip
    arms = json.loads((work / out / "compare.json").read_text())["arms"]
    assert {arm["method"]: arm["status"] for arm in arms} == {"nearest": "ok", "linear": "ok"}
