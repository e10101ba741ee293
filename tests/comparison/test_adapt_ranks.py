"""`torchrun … -m riyaz adapt`: several processes fit one arm, and one of them tells of it, kills or not."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import tiny_comparison
from started_ranks import HELPERS, Ended, ended, start_ranks

from riyaz.cli.main import main
from riyaz.results import LEARNED, REFITTED, Learned

LOSS = 1e-5  # relative, float32, beside one process
# `riyaz` with short recipes, whose training on all rows comes after, in float32 and with its workers inside the process
PROGRAM = """
import os, sys
os.environ["TORCH_CPP_LOG_LEVEL"] = "FATAL"  # as `joining` sets it before torch is loaded, which the helpers do earlier
sys.path.insert(0, {helpers!r})
from pathlib import Path
from dataclasses import replace
import tiny_comparison
from riyaz.cli.main import main
from riyaz.methods import METHODS
with tiny_comparison.small_machine(Path({home!r})) as patch:
    tiny_comparison.workers_inside(patch)
    tiny_comparison.serve_in_float32(patch)
    for name in ("lora", "full"):
        recipe = replace(METHODS[name].recipe, refit=True)
        patch.setitem(METHODS, name, replace(METHODS[name], recipe=recipe))
    sys.exit(main())
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tiny_comparison.write_rows(folder / "train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(folder / "test.jsonl", tiny_comparison.closed_rows(18, "today"))
    return folder


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return ["-c", PROGRAM.format(helpers=str(HELPERS), home=str(tmp_path_factory.mktemp("home")))]


def start(count: int, program: Sequence[str], *arguments: object, second: Sequence[object] = ()) -> list[Popen[str]]:
    return start_ranks(count, [*program, "adapt", *arguments], {rank: second if rank else () for rank in range(count)})


def weights(out: Path) -> bytes:
    return (out / "adapter_model.safetensors").read_bytes()


def row(process: Ended) -> dict[str, Any]:
    return json.loads(process.out.splitlines()[-1])


def losses(process: Ended) -> list[float]:
    return [point["loss"] for point in row(process)["curve"]]


@pytest.mark.slow
def test_two_processes_fit_one_lora_and_go_on_after_a_kill(
    data: Path, asked: tuple, program: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIYAZ_FROZEN", "exact")  # codes would make more of last bits that differ

    def run(count: int, name: str) -> list[Popen[str]]:
        return start(count, program, "lora", data, *asked, "--out", tmp_path / name)

    first, second = ended(run(2, "two"))
    assert (first.status, second.status) == (0, 0), (first.err, second.err)
    assert second.out == second.err == "" and not (tmp_path / "two.work").exists()
    (alone,) = ended(run(1, "one"))
    assert alone.status == 0, alone.err
    for name in ("trainable_params", "n_test"):
        assert row(first)[name] == row(alone)[name], name
    assert "2 processes train, each with --threads 1" in first.err and "processes train" not in alone.err
    assert REFITTED in row(first)["chosen"] and len(losses(first)) == tiny_comparison.STEPS
    assert losses(first) == pytest.approx(losses(alone), rel=LOSS)

    learned = {name: Learned.read(tmp_path / name / LEARNED) for name in ("two", "one")}
    assert [line.step for line in learned["two"]] == [line.step for line in learned["one"]]
    for mine, other in zip(learned["two"][1:], learned["one"][1:]):  # each process has a part of the gradients
        assert mine.gradients == pytest.approx(other.gradients, rel=2e-3)

    processes = run(2, "killed")
    assert processes[0].stderr is not None
    for line in processes[0].stderr:
        if re.search(r"train, [3-9]/", line):
            break
    processes[1].kill()
    killed, _ = ended(processes)
    (line,) = [line for line in killed.err.splitlines() if line.startswith("error:")]
    assert killed.status == 2 and line.endswith("of this run is gone; the same command goes on"), killed.err
    assert "Traceback" not in killed.err
    shutil.copytree(tmp_path / "killed.work", tmp_path / "other.work")
    resumed = ended(run(2, "killed"))
    assert [process.status for process in resumed] == [0, 0], resumed
    assert weights(tmp_path / "killed") == weights(tmp_path / "two") != weights(tmp_path / "one")
    assert (tmp_path / "killed" / LEARNED).read_bytes() == (tmp_path / "two" / LEARNED).read_bytes()
    (other,) = ended(run(1, "other"))
    assert other.status == 0 and losses(other) == pytest.approx(losses(alone), rel=LOSS), other.err


@pytest.mark.slow
def test_two_processes_fit_a_whole_model(data: Path, asked: tuple, program: list[str], tmp_path: Path) -> None:
    first, second = ended(start(2, program, "full", data, *asked, "--out", tmp_path / "out"))
    assert (first.status, second.status) == (0, 0), (first.err, second.err)
    assert row(first)["status"] == "ok" and REFITTED in row(first)["chosen"] and second.out == second.err == ""


@pytest.mark.slow
def test_unlike_processes_are_refused_in_one_line(data: Path, asked: tuple, program: list[str], tmp_path: Path) -> None:
    command = ("lora", data, *asked, "--out", tmp_path / "out")
    results = ended(start(2, program, *command, second=("--seed", 7)))
    (line,) = [line for result in results for line in result.err.splitlines() if line.startswith("error:")]
    assert line == "error: --seed is 7 in process 1 and 0 in process 0; start all processes alike"
    assert [result.status for result in results] == [2, 2] and not (tmp_path / "out.work").exists()


@pytest.mark.parametrize("method", ["nearest", "few_shot", "linear"])
def test_a_method_without_a_training_loop_works_in_one_process(
    method: str, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, value in {"RANK": 0, "WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    assert main(["adapt", method, str(data), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: METHOD: {method} works in one process only; several processes train ")
    assert error.endswith("; start it without torchrun\n") and error.count("\n") == 1
