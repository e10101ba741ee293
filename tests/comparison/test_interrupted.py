"""Commands that are stopped, killed or left alone, with real processes: the same command goes on and finishes."""

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_comparison
import tiny_llama
from running_command import Running, alive
from spoiled_worker import is_held, spoiled
from tiny_comparison import command, files
from waiting import until

from riyaz.comparison import run as comparison_run
from riyaz.files import remove

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_core")]


@pytest.fixture
def asking(asked: tuple, tmp_path: Path) -> tuple:
    """The command line of a comparison of two arms."""
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(9, "today"))
    return ("compare", tmp_path / "data", *asked[:-1], "--methods", "nearest,lora")


def times(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in files(folder)}


def test_a_stop_in_every_phase_and_the_same_command_finishes(
    asking: tuple, asked: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    stops = [("measure: answers",), ("lora: search",), ("lora: train", "6/16"), ("lora: evaluate",)]
    finished: dict[str, int] = {}
    for number, words in enumerate(stops):
        running = Running((*asking, "--out", out))
        running.until(*words)
        if number == 1:  # the terminal sends it to the whole group
            os.killpg(running.process.pid, signal.SIGINT)
        else:
            running.process.send_signal((signal.SIGINT, None, signal.SIGTERM, signal.SIGHUP)[number])
        assert running.end() == 130, running.lines
        assert running.lines[-1] == "stopped; run the same command again to continue"
        until(lambda: not alive(out), "the end of its workers")  # one that was being started then leaves by itself
        assert not (out / "compare.json").exists()
        assert number < 3 or not any("lora: search" in line for line in running.lines), "its rate was found before"
        for path in out.rglob("*.json"):
            json.loads(path.read_text())
        assert {name: time for name, time in times(out).items() if name in finished} == finished
        finished |= {
            name: time
            for name, time in times(out).items()
            if name == "measured.json" or "/nearest/" in name or "lora/kept/fit" in name
        }
    assert "arms/nearest/kept/result.json" in finished and "arms/lora/kept/fit.json" in finished
    running = Running((*asking, "--out", out))
    assert running.end() == 0, running.lines
    assert {name: time for name, time in times(out).items() if name in finished} == finished
    assert not any(line.startswith(("nearest: fit", "lora: fit", "measure:")) for line in running.lines)

    # what was stopped four times is what was never stopped
    tiny_comparison.workers_inside(monkeypatch, as_processes=True)
    whole = tmp_path / "whole"
    whole.mkdir()
    for name in ("settings.json", "plan.json", "measured.json", "base.json", "base_kl.safetensors"):
        (whole / name).write_bytes((out / name).read_bytes())
    assert command(*asking, "--out", whole).status == 0
    for name in ("artifact/adapter_model.safetensors", "predictions.jsonl"):
        assert (out / "arms/lora/kept" / name).read_bytes() == (whole / "arms/lora/kept" / name).read_bytes()
    assert files(out) - {"measure.log"} == files(whole) | {f"arms/{m}/kept/log.txt" for m in ("nearest", "lora")}
    document = json.loads((out / "compare.json").read_text())
    assert [arm["status"] for arm in document["arms"]] == ["ok", "ok"] and document["pick"]


def test_a_killed_arm_is_a_row_and_is_run_again(asking: tuple, tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = Running((*asking, "--out", out), **spoiled(tmp_path / "spoil", "fit-nearest", "kill"))
    assert running.end() == 0, running.lines
    nearest, lora = json.loads((out / "compare.json").read_text())["arms"]
    assert nearest["status"] == "failed" and nearest["reason"].startswith("killed by the system")
    assert lora["status"] == "ok" and any("nearest: failed, killed by the system" in line for line in running.lines)
    before = times(out)
    running = Running((*asking, "--out", out))
    assert running.end() == 0, running.lines
    assert {arm["status"] for arm in json.loads((out / "compare.json").read_text())["arms"]} == {"ok"}
    changed = [name for name, time in before.items() if "/lora/" in name and times(out)[name] != time]
    assert changed == [], running.lines


def test_when_the_command_is_killed_its_worker_ends_too(asking: tuple, tmp_path: Path) -> None:
    out, spoil = tmp_path / "out", tmp_path / "spoil"
    running = Running((*asking, "--out", out), **spoiled(spoil, "fit-lora", "hold"))
    until(lambda: is_held(spoil), "a worker that trains")
    assert alive(out)
    running.process.kill()
    assert running.end() == -signal.SIGKILL
    until(lambda: not alive(out), "the end of its worker")


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/simple"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_pull_leaves_nothing(silent: str, tmp_path: Path, number: signal.Signals) -> None:
    running = Running(("pull", "smollm2-135m"), RIYAZ_HOME=str(tmp_path), PIP_INDEX_URL=silent, PIP_NO_INDEX="0")
    until(lambda: list(tmp_path.glob(".tmp-*")) and pips(tmp_path), "a download")
    running.process.send_signal(number)
    assert running.end() == 130, running.lines
    assert running.lines[-1] == "stopped; run the same command again to continue"
    assert list(tmp_path.glob(".tmp-*")) == [] and pips(tmp_path) == []


def pips(home: Path) -> list[str]:
    """Downloads into this store that are running."""
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "command="], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if "pip download" in line and str(home) in line]


def test_a_stopped_pretraining_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(tiny_llama.CORPUS * 20)
    size = ("--layers", 1, "--width", 64, "--steps", 400, "--context", 32, "--tokenizer", "bytes")
    running = Running(("pretrain", tmp_path / "text.txt", *size, "--out", tmp_path / "out"), TMPDIR=str(tmp_path))
    running.until("train", "5/400")
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == 130, running.lines
    assert running.lines[-1].startswith("stopped at step ") and running.lines[-1].endswith("with --resume goes on")
    assert json.loads((tmp_path / "out/run.json").read_text())["status"] == "stopped"
    assert sorted(os.listdir(tmp_path)) == ["out", "text.txt"], "torch's temporary files are gone"


def test_stopped_answers_are_one_line(model_folder: Path, tmp_path: Path) -> None:
    tiny_comparison.write_rows(tmp_path / "rows.jsonl", tiny_comparison.closed_rows(400, "please"))
    running = Running(("run", model_folder, tmp_path / "rows.jsonl", "--out", tmp_path / "answers.jsonl"))
    running.until("answer", "/400")
    running.process.send_signal(signal.SIGHUP)
    assert running.end() == 130, running.lines
    assert re.fullmatch(r"stopped; (no answer is kept yet|.* answers are kept in .*)", running.lines[-1])


@pytest.mark.parametrize("place", [1, 2, 3])
def test_adapt_that_was_killed_after_the_move_leaves_no_work_folder(
    place: int, asking: tuple, asked: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed as it begins, goes on with, or ends the removal of the work folder, whose artifact was moved."""
    out, work = tmp_path / "kept", tmp_path / "kept.work"
    adapt = ("adapt", "nearest", tmp_path / "data", *asked[:-1], "--out", out)

    class Killed(BaseException):
        pass

    def begun(path: Path) -> None:
        if path.name != "arms" or place > 1:
            remove(path)
        if path == work or (path.name == "arms" and place < 3):
            work.mkdir(exist_ok=True)
            raise Killed

    with monkeypatch.context() as killing, pytest.raises(Killed):
        killing.setattr(comparison_run, "remove", begun)
        command(*adapt)
    assert work.exists() and (out / "riyaz.json").exists()
    kept = files(out)
    told = command(*adapt)
    assert told.status == 2 and told.err.splitlines()[-1].endswith("already exists; choose another --out or remove it")
    assert not work.exists() and files(out) == kept


def test_the_work_folder_of_a_run_that_has_not_ended_stays(asked: tuple, asking: tuple, tmp_path: Path) -> None:
    """Another's folder took the artifact's place: what was computed until then stays in the work folder."""
    out, work = tmp_path / "kept", tmp_path / "kept.work"
    out.mkdir()
    (out / "adapted.json").write_text("{}")
    (work / "arms/nearest").mkdir(parents=True)
    (work / "settings.json").write_text("{}")
    told = command("adapt", "nearest", tmp_path / "data", *asked[:-1], "--out", out)
    assert told.status == 2 and (work / "arms/nearest").is_dir() and (work / "settings.json").exists()


def test_the_same_command_removes_what_killed_workers_left(asking: tuple, asked: tuple, tmp_path: Path) -> None:
    """Also where nothing has to be measured again; what a living process holds stays."""
    out = tmp_path / "out"
    asked = (*asking[:-1], "nearest", "--out", out)
    assert command(*asked).status == 0
    kept = files(out)
    left = [out / ".measure.log.riyaz-n2k5f5bc", out / "arms/nearest/kept/.log.txt.riyaz-abcd1234"]
    other, held = out / ".measure.log.mine", out / ".measure.log.riyaz-00000000"
    for folder in (*left, other, held):
        folder.mkdir()
        (folder / "part").write_text("x")
    descriptor = os.open(held, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert command(*asked).status == 0
    finally:
        os.close(descriptor)
    assert [folder.exists() for folder in (*left, other, held)] == [False, False, True, True]
    shutil.rmtree(other)
    assert command(*asked).status == 0 and not held.exists() and files(out) == kept
