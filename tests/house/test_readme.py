"""The README's commands run in their order, smaller than they stand there.

What a process of its own and the real model show, `riyaz pull` and `riyaz chat` do: the installed program, with the
model of the store. The other commands run in the tests' process with a tiny model of the same name; servers are
processes, and the README's code asks them.
"""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path

import pytest
import tiny_comparison
import tiny_llama
from load_script import load_script
from test_docs import shell_lines
from tiny_store import keep
from waiting import HANG

from riyaz.config import DEFAULT_MODEL

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "README.md").read_text(encoding="utf-8")
OUTSIDE = dict(os.environ)  # with the user's store of models, before a test sets another
REAL = ("riyaz pull ", "riyaz chat ")
FEW = "--limit-train 40 --limit-test 6"
TINY = "--tokenizer bytes --layers 1 --heads 2 --width 32 --context 512 --steps 2 --validate-every 1"
SHORTER = [  # (what the README says, what is run)
    ("--budget 10m", f"--budget 3h {FEW} --methods nearest,zero_shot,lora --steps 4 --general general.txt"),
    ("--budget 5m", TINY),
    ("--budget 2m", "--budget 3h --limit-test 12"),
]
TEXTS = 40  # of those gathered that are pretrained on


@pytest.fixture
def folder(
    in_float32: None, one_core: pytest.MonkeyPatch, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The working folder of a user who has cloned the repository."""
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    keep(model_folder, DEFAULT_MODEL)
    here = tmp_path / "here"
    shutil.copytree(ROOT / "examples", here / "examples")
    (here / "general.txt").write_text(tiny_llama.CORPUS)
    monkeypatch.chdir(here)
    tiny_comparison.workers_inside(monkeypatch)
    yield here


def shortened(line: str) -> str:
    """A line of the README as it is run."""
    for long, short in SHORTER:
        line = line.replace(long, short)
    return line


def run(line: str) -> None:
    """Run one line in the working folder. Raises AssertionError where it fails."""
    words = shlex.split(line)
    if line.startswith(REAL):
        in_a_process(words)
    elif line.startswith("riyaz serve "):
        ask_served(line)
    elif words[0] == "riyaz":
        told = tiny_comparison.command(*words[1:])
        assert told.status == 0, f"`{line}` exits {told.status}\n{told.out[-2000:]}\n{told.err[-2000:]}"
    else:
        assert words[:2] == ["python", "examples/pretrain/gather.py"], f"`{line}` is no command that this test can run"
        script = load_script(words[1])
        texts = list(islice(script.texts(), TEXTS))
        script.texts = lambda: texts
        script.main(Path(words[2]))


def in_a_process(words: list[str]) -> None:
    """Run an installed program as a user does, who types one line and ends its input."""
    path = os.pathsep.join([str(Path(sys.executable).parent), OUTSIDE["PATH"]])
    done = subprocess.run(words, input="Hello\n", capture_output=True, text=True, env=OUTSIDE | {"PATH": path})
    told = f"`{shlex.join(words)}` exits {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert done.returncode == 0, told
    assert done.stdout.strip(), told


def ask_served(line: str) -> None:
    """Run a server as the README says, on a free port, and the README's next code of OpenAI's client."""
    behind = PAGE[PAGE.index(f"{line}\n") :]
    code = next(block for block in re.findall(r"^```python\n(.*?)^```", behind, re.M | re.S) if "openai" in block)
    command = [sys.executable, "-m", *shlex.split(line), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url, told = server.stdout.readline().strip().removesuffix("/v1"), io.StringIO()
            with redirect_stdout(told):
                exec(compile(code.replace("http://127.0.0.1:8000", url), "README.md", "exec"), {})
            assert url.startswith("http://127.0.0.1:") and told.getvalue().strip()
        finally:
            server.terminate()
    assert server.wait(HANG) == 0


@pytest.mark.slow
def test_readme_commands_run(folder: Path) -> None:
    lines = [line for line in shell_lines(PAGE) if line.startswith(("riyaz ", "python examples/"))]
    long = [line for line in lines if line.startswith(("riyaz compare", "riyaz adapt", "riyaz pretrain"))]
    assert long and [line for line in long if shortened(line) == line] == [], "it takes minutes at full length"
    assert [said for said, _ in SHORTER if not any(said in line for line in lines)] == []
    for line in lines:
        run(shortened(line))
    answers = [json.loads(line) for line in Path("answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(answers) == 300 and all(answer["prediction"] for answer in answers)
    assert len(Path("python.jsonl").read_text(encoding="utf-8").splitlines()) == TEXTS
    assert all((folder / name).exists() for name in ("my-adapter", "my-model", "decided.csv", "fresh-adapted"))


def test_a_command_that_fails_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("riyaz --version")
    with pytest.raises(AssertionError, match="exits 2"):
        run("riyaz data nothing.jsonl")
    with pytest.raises(AssertionError, match="no command that this test can run"):
        run("rm -r examples")
    in_a_process([sys.executable, "-c", "print(1)"])
    with pytest.raises(AssertionError, match="exits 3"):
        in_a_process([sys.executable, "-c", "raise SystemExit(3)"])
