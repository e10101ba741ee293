"""What answers runs where the packages of the extras are missing: scipy, matplotlib, torch and others."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tiny_comparison import closed_rows, write_rows
from tiny_linear import classifier, written
from waiting import HANG

from riyaz import extras
from riyaz.errors import joined

# Of a module that is None in sys.modules Python says that it is not installed.
WITHOUT = """
import json, sys
from riyaz.extras import PACKAGES
for name in {name for names in PACKAGES.values() for name in names}:
    sys.modules[name] = None
import riyaz, riyaz.serve.app, riyaz.extras
from riyaz.cli.main import main
riyaz.extras.TRIED = 600  # seconds: more than a machine that stands still needs
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
                          cwd=tmp_path, timeout=HANG)  # fmt: skip
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


# Each kind of broken package is met by a fork of this process, where it lies first on the path: its commands run here,
# and those of a comparison in processes that it starts. Prints [status, stdout, stderr] of each.
BROKEN_BY_KIND = """
import contextlib, io, json, os, sys
import numpy, tokenizers
from riyaz import extras
from riyaz.cli.main import main
extras.TRIED = 600  # seconds: more than a machine that stands still needs
tried = extras._tried
extras._tried = lambda name: tried(name) if name == "torch" else ""
for kind, lines in json.loads(sys.argv[1]).items():
    if kind == "library":  # what is sound is imported once
        extras.load("compare")
        import riyaz.comparison.run, scipy.stats
    if os.fork():
        assert os.wait()[1] == 0
        continue
    sys.path.insert(0, os.path.abspath(kind))
    os.environ["PYTHONPATH"] = sys.path[0]
    os.chdir(kind)
    told = []
    for line in lines:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(line)
        told.append([status, out.getvalue(), err.getvalue()])
    print(json.dumps({kind: told}), flush=True)
    os._exit(0)
"""
TORCH = {  # how torch is broken -> what its folder holds, and what is said of it
    "library": ('raise ImportError("libtorch.so: no such file")', "libtorch.so: no such file"),
    "system": ('raise OSError("libgomp.so.1: no such file")', "libgomp.so.1: no such file"),
    "empty": ("", "has no attribute"),
    "version": ('raise RuntimeError("operator nms does not exist")', "operator nms does not exist"),
    "half": ("def half(", "was never closed"),
    "old": ('__version__ = "2.1.0"', "torch 2.1.0 is installed, and riyaz needs 2.8 or newer"),
}
REPORTING = ("matplotlib", "bm25s")  # a comparison writes with them at its end, after hours


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="module")
def broken(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Ended]]]:
    """The folder of all kinds; kind -> verb -> how it ended."""
    folder, model = tmp_path_factory.mktemp("broken"), str(model_folder)
    rows, text = str(write_rows(folder / "rows.jsonl", closed_rows(60, "please"))), folder / "text.txt"
    text.write_text("the card is here. " * 200)
    compare = ["compare", rows, "--model", model, "--out", "compared", "--budget", "1m", "--methods"]
    for name in REPORTING:
        (folder / name / name).mkdir(parents=True)
        (folder / name / name / "__init__.py").write_text('raise ValueError("half of it\\nis here")')
    lines = {name: [[*compare, "zero_shot"]] for name in REPORTING}
    for kind, (written_in, _) in TORCH.items():
        (folder / kind / "torch").mkdir(parents=True)
        (folder / kind / "torch/__init__.py").write_text(written_in)
        lines[kind] = [
            ["pretrain", str(text), "--out", "made", "--budget", "10s"],
            ["doctor"],
            ["generate", model, "the card", "--max-tokens", "4"],
        ]
        if kind in ("library", "half", "old"):  # in a process of the comparison, twice; before there is one
            lines[kind].append([*compare, "lora"])
        if kind in ("library", "old"):
            lines[kind].append(["adapt", "lora", rows, "--model", model, "--out", "adapted", "--budget", "1m"])
    (folder / "old/torch-2.1.0.dist-info").mkdir()
    (folder / "old/torch-2.1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.1.0\n")
    done = subprocess.run([sys.executable, "-c", BROKEN_BY_KIND, json.dumps(lines)], capture_output=True, text=True,
                          cwd=folder, timeout=HANG)  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, list[Any]] = {}
    for line in done.stdout.splitlines():
        told |= json.loads(line)
    return folder, {
        kind: {line[0]: Ended(*each) for line, each in zip(lines[kind], told[kind], strict=True)} for kind in lines
    }


@pytest.mark.parametrize("kind", TORCH)
def test_a_broken_torch_is_one_line_that_names_its_extra(kind: str, broken: Any) -> None:
    ended, said = broken[1][kind], TORCH[kind][1]
    trained = [ended[verb] for verb in ("pretrain", "compare", "adapt") if verb in ended]
    assert len(trained) == {"library": 3, "half": 2, "old": 3}.get(kind, 1)
    for done in trained:
        lines = [line for line in done.err.splitlines() if line.startswith("error")]
        assert done.status == 2 and len(lines) == 1 and "Traceback" not in done.err, done.err
        assert said in lines[0] and lines[0].endswith(extras.again("torch")), lines
    shown = ended["doctor"]
    assert shown.status == 0 and said in shown.out and extras.again("torch") in shown.out
    assert ended["generate"].status == 0, ended["generate"].err


@pytest.mark.parametrize("name", REPORTING)
def test_a_broken_package_is_named_before_a_comparison_begins(name: str, broken: Any) -> None:
    """Its report is written last: after hours, the comparison would end without one."""
    folder, ended = broken
    done = ended[name]["compare"]
    assert done.status == 2 and not (folder / name / "compared").exists()
    assert done.err == f"error: {name} cannot be imported: half of it is here; {extras.again(name)}\n"


def test_the_command_that_mends_a_package_names_it_and_not_riyaz() -> None:
    """Which pip would fetch again too, from an index that may not have it."""
    assert extras.again("torch") == "pip install --force-reinstall 'torch>=2.8'"
