"""Machines behind a real sshd that are killed or cut off while they train, and a command that is killed: the same bits,
or a row that says why; skipped where there can be no such machines."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ssh_places
import tiny_comparison
from running_command import Running, alive, wait_until
from ssh_places import Machine, Machines
from test_places import expect_one_places_bits
from tiny_comparison import command

from riyaz.comparison import places
from riyaz.comparison.dispatch import read_turns
from riyaz.comparison.folder import ComparisonFolder
from riyaz.results import Comparison, Turn

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_core")]
PATIENCE = 300.0  # seconds, on a machine that is busy


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """No machine yet."""
    if why := ssh_places.lacking():
        pytest.skip(f"no machines behind sshd: {why}")
    with ssh_places.machines(tmp_path) as made:
        yield made


@pytest.fixture
def out(machines: Machines) -> Path:
    """The comparison's folder, which all machines see."""
    return machines.shared / "out"


@pytest.fixture
def arguments(asked: tuple, out: Path, tmp_path: Path) -> tuple:
    """The command line of a comparison of two arms, without its places."""
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(9, "today"))
    return ("compare", tmp_path / "data", *asked[:-1], "--methods", "nearest,lora", "--seeds", 2, "--out", out)


def lora_turn(out: Path, earlier: int = 0) -> Turn | None:
    """The turn in which lora is trained now, behind so many earlier ones, once its worker has begun."""
    turns = [turn for turn in read_turns(ComparisonFolder(out))
             if (turn.arm, turn.work, turn.part) == ("lora", "fit", "kept")]  # fmt: skip
    if len(turns) <= earlier or turns[-1].ended is not None:
        return None
    log = out / "places/unfinished" / (turns[-1].made_in or "none") / "log.txt"
    return turns[-1] if log.exists() else None


def trainer(out: Path, all_of: list[Machine], earlier: int = 0) -> Machine:
    """The machine that trains lora."""
    wait_until(lambda: lora_turn(out, earlier) is not None, PATIENCE)
    turn = lora_turn(out, earlier)
    assert turn is not None
    return next(machine for machine in all_of if machine.name == turn.place)


def test_a_killed_command_and_a_killed_machine_change_no_bit(
    machines: Machines, arguments: tuple, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = [machines.add(host) for host in "ab"]
    placed = (*arguments, "--places", ",".join(machine.name for machine in two))
    running = Running(placed)
    running.until("lora: train", "/16")
    running.process.kill()
    assert running.end() == -signal.SIGKILL
    wait_until(lambda: not alive(out), PATIENCE)  # on both machines, whose sshd lives

    running = Running(placed)
    killed = trainer(out, two, 1)
    killed.kill()
    assert running.end() == 0, running.lines
    other = next(machine for machine in two if machine is not killed)
    comparison = Comparison.read(out / "compare.json")
    assert [arm.status for arm in comparison.arms] == ["ok", "ok"], running.lines
    lost = [line for line in running.lines if f"{killed.name} was lost while it fitted lora (" in line]
    assert len(lost) == 1 and "it begins anew elsewhere" in lost[0], running.lines
    assert any(f"{killed.name} is used no more: {killed.name}: cannot be used: ssh: connect to" in line
               for line in running.lines), running.lines  # fmt: skip
    lora = [turn for turn in comparison.schedule or [] if turn.arm == "lora" and turn.work == "fit"]
    kept = [(turn.place, turn.outcome) for turn in lora if turn.part == "kept"]
    assert kept[1:] == [(killed.name, "lost"), (other.name, "done")] and kept[0][1] == "lost"
    expect_one_places_bits(out, (*arguments[:-2],), tmp_path / "whole", monkeypatch)


def test_an_arm_whose_machines_are_killed_twice_is_a_failed_row(
    machines: Machines, arguments: tuple, out: Path
) -> None:
    three = [machines.add(host) for host in "abc"]
    running = Running((*arguments, "--places", ",".join(machine.name for machine in three)))
    first = trainer(out, three)
    first.kill()
    second = trainer(out, three, 1)
    second.kill()
    assert running.end() == 0, running.lines
    comparison = Comparison.read(out / "compare.json")
    lora, nearest = comparison.arm("lora"), comparison.arm("nearest")
    assert lora is not None and nearest is not None
    assert lora.status == "failed" and nearest.status == "ok", running.lines
    assert lora.reason == f"the place that fitted it was lost twice: {first.name} and {second.name}"


def test_an_answer_after_the_arm_was_given_away_is_ignored_and_said(
    machines: Machines, arguments: tuple, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "SILENCE", 30.0)
    two = [machines.add(host) for host in "ab"]
    cut: list[Machine] = []
    made: list[Path] = []

    def cut_off() -> None:
        """Unplug the machine that trains lora until it has made it and its silence was noticed."""
        machine = trainer(out, two)
        turn = lora_turn(out)
        assert turn is not None and turn.made_in
        machine.unplug()
        cut.append(machine)
        made.append(out / "places/unfinished" / turn.made_in / "fit.json")
        wait_until(lambda: _is_lost(out, machine), PATIENCE)
        monkeypatch.setattr(places, "SILENCE", PATIENCE)  # nothing more is lost, however busy this machine is
        wait_until(made[0].exists, PATIENCE)
        machine.plug()

    watcher = threading.Thread(target=cut_off, daemon=True)
    watcher.start()
    told = command(*arguments, "--places", ",".join(machine.name for machine in two))
    watcher.join(10)
    assert told.status == 0 and cut, told.err
    comparison = Comparison.read(out / "compare.json")
    lora = comparison.arm("lora")
    assert lora is not None and lora.status == "ok" and lora.place != cut[0].name, told.err
    assert "it has said nothing for 30 s): it begins anew elsewhere" in told.err
    assert f"{cut[0].name} has answered too late (fit lora kept): its answer is ignored" in told.err
    assert not made[0].exists()


def _is_lost(out: Path, machine: Machine) -> bool:
    turns = read_turns(ComparisonFolder(out))
    return any(turn.place == machine.name and turn.outcome == "lost" for turn in turns)
