"""What answers runs where the packages of the extras are missing: scipy, matplotlib, torch and others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
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
        ["compare", str(rows), "--model", model, "--methods", "linear", "--out", str(tmp_path / "compared")],
        ["adapt", "linear", str(rows), "--model", model, "--out", str(tmp_path / "adapted")],
    ]
    done = subprocess.run([sys.executable, "-c", WITHOUT, json.dumps(lines)], capture_output=True, text=True,
                          cwd=tmp_path, timeout=120)  # fmt: skip
    statuses = json.loads(done.stdout.splitlines()[-1])
    assert statuses == [0] * (len(lines) - 3) + [2] * 3, done.stderr[-2000:]
    assert len(answers.read_text().splitlines()) == 6
    compare, train = (f"{joined(extras.PACKAGES[extra])} are not installed" for extra in ("compare", "train"))
    without = f"or {extras.install('compare')} and name methods that train nothing with --methods"
    assert done.stderr.splitlines()[-3:] == [
        f"error: {train}; {extras.install('train')}, {without}",
        *[f"error: {compare}; {extras.install('compare')}"] * 2,
    ]
    assert not (tmp_path / "compared").exists() and not (tmp_path / "adapted").exists()


BROKEN = {  # how torch is broken -> what its folder holds, and what is said of it
    "library": ('raise ImportError("libtorch.so: no such file")', "libtorch.so: no such file"),
    "system": ('raise OSError("libgomp.so.1: no such file")', "libgomp.so.1: no such file"),
    "empty": ("", "has no attribute"),
    "version": ('raise RuntimeError("operator nms does not exist")', "operator nms does not exist"),
    "half": ("def half(", "was never closed"),
    "old": ('__version__ = "2.1.0"', "torch 2.1.0 is installed, and riyaz needs 2.8 or newer"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_torch_is_one_line_that_names_its_extra(kind: str, model_folder: Path, tmp_path: Path) -> None:
    written_in, said = BROKEN[kind]
    (tmp_path / "path/torch").mkdir(parents=True)
    (tmp_path / "path/torch/__init__.py").write_text(written_in)
    if kind == "old":
        (tmp_path / "path/torch-2.1.0.dist-info").mkdir()
        (tmp_path / "path/torch-2.1.0.dist-info/METADATA").write_text(
            "Metadata-Version: 2.1\nName: torch\nVersion: 2.1.0\n"
        )
    rows, text = write_rows(tmp_path / "rows.jsonl", closed_rows(60, "please")), tmp_path / "text.txt"
    text.write_text("the card is here. " * 200)
    model = str(model_folder)

    def asked(*words: str) -> subprocess.CompletedProcess[str]:
        settings = {**os.environ, "PYTHONPATH": str(tmp_path / "path")}
        return subprocess.run([sys.executable, "-m", "riyaz", *words], capture_output=True, text=True, timeout=120,
                              env=settings, cwd=tmp_path)  # fmt: skip

    trained = [
        asked("pretrain", str(text), "--out", "made", "--budget", "10s"),
        asked("adapt", "lora", str(rows), "--model", model, "--out", "adapted", "--budget", "1m"),
    ]
    if kind in ("library", "half", "old"):  # in a process of the comparison; before there is one
        named = ("--methods", "lora", "--model", model, "--out", "compared", "--budget", "1m")
        trained.append(asked("compare", str(rows), *named))
    for done in trained:
        lines = [line for line in done.stderr.splitlines() if line.startswith("error")]
        assert done.returncode == 2 and len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
        assert said in lines[0] and lines[0].endswith(extras.again("torch")), lines
    shown = asked("doctor")
    assert shown.returncode == 0 and said in shown.stdout and extras.again("torch") in shown.stdout
    assert asked("generate", model, "the card", "--max-tokens", "4").returncode == 0


@pytest.mark.parametrize("name", ["matplotlib", "bm25s"])
def test_a_broken_package_is_named_before_a_comparison_begins(name: str, model_folder: Path, tmp_path: Path) -> None:
    """Its report is written last: after hours, the comparison would end without one."""
    (tmp_path / f"path/{name}").mkdir(parents=True)
    (tmp_path / f"path/{name}/__init__.py").write_text('raise ValueError("half of it\\nis here")')
    rows = write_rows(tmp_path / "rows.jsonl", closed_rows(60, "please"))
    command = ["compare", str(rows), "--model", str(model_folder), "--methods", "zero_shot", "--out", "compared"]
    done = subprocess.run([sys.executable, "-m", "riyaz", *command], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(tmp_path / "path")}, cwd=tmp_path)  # fmt: skip
    assert done.returncode == 2 and not (tmp_path / "compared").exists()
    assert done.stderr == f"error: {name} cannot be imported: half of it is here; {extras.again(name)}\n"


def test_the_command_that_mends_a_package_names_it_and_not_riyaz() -> None:
    """Which pip would fetch again too, from an index that may not have it."""
    assert extras.again("torch") == "pip install --force-reinstall 'torch>=2.8'"
