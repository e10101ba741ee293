"""`torchrun … -m riyaz pretrain`: one run of several processes, which one of them tells of, kills or not."""

import json
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forked_ranks import Forked, fork_ranks
from started_ranks import HELPERS, Ended, ended, start_ranks
from tiny_pretraining import lines, small, texts

from riyaz import __version__
from riyaz.cli.main import main
from riyaz.results import LEARNED

LOSS = 1e-6  # relative, float32, beside one process
PATIENCE, LINGER = "layers.fast.meeting.PATIENCE", "layers.fast.meeting.LINGER"
# `riyaz` with a fake quick measurement, which keeps work/. `--set joining.SEEN 1` before its options sets seconds that
# it waits, `--impatient 1` those after which another process is gone, from where all have met. With `--hold 9` the
# process goes no further than step 9, so that it cannot end before it is killed.
PROGRAM = """
import importlib, os, signal, sys
from datetime import timedelta
os.environ["TORCH_CPP_LOG_LEVEL"] = "FATAL"  # as `joining` sets it before torch is loaded, which the helpers do earlier
sys.path.insert(0, {helpers!r})
import pytest
from tiny_pretraining import quick_machine
from riyaz.cli.main import main
from riyaz.pretraining.folder import RunFolder
quick_machine(pytest.MonkeyPatch())
RunFolder.clean = lambda folder: None
while "--set" in sys.argv:
    place = sys.argv.index("--set")
    module, _, name = sys.argv[place + 1].rpartition(".")
    setattr(importlib.import_module("riyaz." + module), name, float(sys.argv[place + 2]))
    del sys.argv[place : place + 3]
if "--impatient" in sys.argv:
    from riyaz.layers.fast import group, meeting
    place, connect = sys.argv.index("--impatient"), group.dist.init_process_group
    seconds = float(sys.argv[place + 1])
    del sys.argv[place : place + 2]
    def connected(*given, timeout, **known):
        meeting.PATIENCE = seconds
        connect(*given, timeout=timedelta(seconds=seconds), **known)
    group.dist.init_process_group = connected
if "--hold" in sys.argv:
    from riyaz.layers.fast import group
    place, paced = sys.argv.index("--hold"), group.Group.paced
    steps = iter(range(int(sys.argv[place + 1])))
    del sys.argv[place : place + 2]
    group.Group.paced = lambda *given: signal.pause() if next(steps, None) is None else paced(*given)
if "--other-version" in sys.argv:
    from riyaz import hardware
    hardware.versions = lambda names: dict.fromkeys(names, "0.0.1")
    sys.argv.remove("--other-version")
sys.exit(main())
"""


def start(count: int, *arguments: object, own: Mapping[int, Sequence[object]] | None = None) -> list[Forked]:
    return fork_ranks(count, PROGRAM.format(helpers=str(HELPERS)), arguments, own)


def slow(*values: object) -> Any:
    """A case that is left to the slow tests."""
    return pytest.param(*values, marks=pytest.mark.slow)


def until_step(step: int, process: Forked) -> str:
    """What a process says up to this step of its training, at most the ninth."""
    seen = ""
    for line in process.stderr:
        seen += line
        if re.search(rf"train, [{step}-9]/12", line):
            break
    return seen


def told(results: list[Ended]) -> list[str]:
    """The lines of errors of all processes; none is a traceback."""
    errors = "".join(result.err for result in results)
    assert "Traceback" not in errors, errors
    return [line for line in errors.splitlines() if line.startswith("error:")]


def losses(out: Path) -> list[float]:
    return [entry["loss"] for entry in lines(out / "metrics.jsonl")]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return texts(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def command(text: Path) -> list[object]:
    return ["pretrain", text, *small("--steps", 12), "--checkpoint-every", 2, "--dropout", 0.1]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, command: list[object]) -> tuple[Path, list[Ended]]:
    """A run of two processes, each a Python of its own, that nobody stops."""
    out = tmp_path_factory.mktemp("straight") / "out"
    program = ["-c", PROGRAM.format(helpers=str(HELPERS))]
    return out, ended(start_ranks(2, [*program, *command, "--out", out, "--json"]))


def test_two_processes_are_one_run(straight: tuple[Path, list[Ended]], tmp_path: Path, command: list[object]) -> None:
    out, (first, second) = straight
    assert (first.status, second.status) == (0, 0), (first.err, second.err)
    assert second.out == second.err == ""
    assert json.loads(first.out.splitlines()[-1])["status"] == "done" and "2 processes train" in first.err
    (alone,) = ended(start(1, *command, "--out", tmp_path / "out"))
    assert alone.status == 0, alone.err
    assert losses(out) == pytest.approx(losses(tmp_path / "out"), rel=LOSS)
    recorded, same = (lines(folder / LEARNED) for folder in (out, tmp_path / "out"))
    assert [each["step"] for each in recorded] == [each["step"] for each in same] and len(recorded) > 1
    for mine, other in zip(recorded[1:], same[1:]):  # each process has a part of the gradients
        assert mine["gradients"] == pytest.approx(other["gradients"], rel=2e-3)
    plans = [json.loads((folder / "plan.json").read_text())["plan"] for folder in (out, tmp_path / "out")]
    assert plans[0]["train"] == plans[1]["train"] and plans[0]["effective"] == plans[1]["effective"]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all_and_the_run_resumes_to_the_same_bits(
    rank: int, straight: tuple[Path, list[Ended]], tmp_path: Path, command: list[object]
) -> None:
    out = tmp_path / "out"
    own = {rank: ("--hold", 9), 1 - rank: ("--set", LINGER, 0)}  # nobody is left to wait for
    processes = start(2, *command, "--out", out, "--resume", own=dict(sorted(own.items())))
    seen = until_step(5, processes[0])
    processes[rank].kill()
    results = ended(processes)
    statuses = {0: [-signal.SIGKILL, 2], 1: [2, -signal.SIGKILL]}[rank]
    assert [result.status for result in results] == statuses, (seen, results)
    (line,) = told(results)
    assert len(results[1].err.splitlines()) == (rank == 0), results[1].err
    assert "of this run is gone; the same command with --resume goes on" in line
    resumed = ended(start(2, *command, "--out", out, "--resume"))
    assert [result.status for result in resumed] == [0, 0], resumed
    assert (out / "model.safetensors").read_bytes() == (straight[0] / "model.safetensors").read_bytes()
    assert losses(out) == losses(straight[0])
    last = "work/train/step-000010"
    for name in ("masters.safetensors", "optimizer.safetensors"):
        assert (out / last / name).read_bytes() == (straight[0] / last / name).read_bytes()


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (("--lr", "0.5"), "--lr is 0.5 in process 1 and not given in process 0; start all processes alike"),
        slow(("--threads", "2"), "--threads is 2 in process 1 and 1 in process 0; start all processes alike"),
        slow(("--other-version",), "riyaz is 0.0.1 in process 1 and {version} in process 0; start all processes alike"),
        slow(("--out", "elsewhere", "--set", "joining.SEEN", 1), "give --out a folder that all processes share"),
    ],
)
def test_unlike_processes_are_refused_in_one_line(
    own: tuple[object, ...], said: str, tmp_path: Path, command: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = said.format(version=__version__)
    second = own if own[0] == "--out" else ("--out", "out", *own)
    results = ended(start(2, *command, own={0: ("--out", "out"), 1: second}))
    (line,) = told(results)
    assert line.endswith(said) and [result.status for result in results] == [2, 2]
    assert not (tmp_path / "out").exists() and not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("rank", [0, slow(1)])
def test_a_wrong_address_is_one_line(rank: int, tmp_path: Path, command: list[object]) -> None:
    """Nobody comes, and no process is there that holds the store."""
    (result,) = ended(start(2, *command, "--out", tmp_path / "out", "--set", PATIENCE, 1, own={rank: ()}))
    assert result.status == 2 and len(result.err.splitlines()) == 1, result.err
    assert result.err.startswith(f"error: process {rank} of 2: 127.0.0.1:")
    assert "the 2 processes did not meet here within 1 seconds; check the address" in result.err


@pytest.mark.slow
def test_a_process_that_does_not_answer_is_gone(tmp_path: Path, command: list[object]) -> None:
    """It is stopped, and its connections stay open."""
    own = {0: ("--impatient", 5, "--set", LINGER, 0), 1: ("--hold", 9)}
    processes = start(2, *command, "--out", tmp_path / "out", own=own)
    seen = until_step(1, processes[0])
    processes[1].send_signal(signal.SIGSTOP)
    (first,) = ended(processes[:1])
    processes[1].kill()
    ended(processes[1:])
    said = [line.rpartition(": ")[2] for line in told([replace(first, err=seen + first.err)])]  # before, if it was slow
    assert first.status == 2 and said == ["a process of this run is gone; the same command with --resume goes on"]


@pytest.mark.parametrize("rank", [0, 1])
def test_other_commands_refuse_to_be_several(
    rank: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RANK": rank, "WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    assert main(["compare", "data"]) == 2
    error = "error: riyaz compare: works in one process only; start it without torchrun\n"
    assert capsys.readouterr() == ("", "" if rank else error)


def test_a_command_that_is_no_part_of_a_group_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tasks of a job may have a rank and answer a shard each."""
    for name, value in {"RANK": 1, "WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    assert main(["join", "missing", "--out", "all.jsonl"]) == 2
    assert capsys.readouterr().err.startswith("error: missing: cannot be read")


def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    results = ended(start(2, "pretrain", tmp_path / "missing.txt", "--out", tmp_path / "out", "--steps", 2))
    (line,) = told(results)
    assert "missing.txt" in line and [result.status for result in results] == [2, 2]
