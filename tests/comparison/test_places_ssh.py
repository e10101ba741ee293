"""A comparison on machines of their own, each behind a real sshd, of which one is refused first and one is killed: the
bits of one place; skipped where there can be no such machines."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ssh_places
import tiny_comparison
import tiny_llama
from running_command import Running
from spoiled_worker import is_held, spoiled
from ssh_places import Machine, Machines
from test_places import expect_one_places_bits
from tiny_comparison import command
from waiting import until

from riyaz.comparison.dispatch import read_turns
from riyaz.comparison.folder import ComparisonFolder
from riyaz.results import Comparison

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_core")]

PAGE = " (see docs/from-one-machine-to-a-thousand.md#a-comparison-on-several-machines)"


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """No machine yet."""
    if why := ssh_places.lacking():
        pytest.skip(f"no machines behind sshd: {why}")
    with ssh_places.machines(tmp_path) as made:
        yield made


def trainer(out: Path, all_of: list[Machine]) -> Machine:
    """The machine that trains lora."""
    (turn,) = (turn for turn in read_turns(ComparisonFolder(out))
               if (turn.arm, turn.work, turn.ended) == ("lora", "fit", None))  # fmt: skip
    return next(machine for machine in all_of if machine.name == turn.place)


def test_machines_make_what_one_makes_though_one_is_killed(
    machines: Machines, asked: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(9, "today"))
    monkeypatch.setenv("RIYAZ_HOME", str(machines.base / "store"))
    model, out = tiny_llama.write_hf_folder(machines.base / "models/tiny", seed=1), machines.shared / "out"
    arguments = ("compare", tmp_path / "data", *asked[2:-1], "--model", model, "--methods", "nearest,lora")
    spoil = machines.shared / "spoil"
    held = spoiled(spoil, "fit-lora", "hold")
    machines.environment |= held | {"PYTHONPATH": f"{spoil}:{machines.environment['PYTHONPATH']}"}
    two = [machines.add(host) for host in "ab"]
    placed = (*arguments, "--out", out, "--places", ",".join(machine.name for machine in two))

    two[0].copy(machines.base / "models")
    told = command(*placed)
    line = f"error: {two[1].name}: {model}: the model is here and not there; put it at the same path there{PAGE}"
    assert told.status != 0 and told.line == line and not (out / "arms").exists()

    two[1].copy(machines.base / "models")
    running = Running(placed)
    until(lambda: is_held(spoil), "a worker that trains lora")
    killed = trainer(out, two)
    killed.kill()
    assert running.end() == 0, running.lines
    other = next(machine for machine in two if machine is not killed)
    comparison = Comparison.read(out / "compare.json")
    assert [arm.status for arm in comparison.arms] == ["ok", "ok"], running.lines
    lost = [line for line in running.lines if f"{killed.name} was lost while it fitted lora (" in line]
    assert len(lost) == 1 and "it begins anew elsewhere" in lost[0], running.lines
    assert any(f"{killed.name} is used no more: {killed.name}: cannot be used: ssh: connect to" in line
               for line in running.lines), running.lines  # fmt: skip
    turns = comparison.schedule or []
    fits = [(turn.place, turn.outcome) for turn in turns if turn.arm == "lora" and turn.work == "fit"]
    assert fits == [(killed.name, "lost"), (other.name, "done")]
    assert {turn.place for turn in turns if turn.work == "evaluate"} == {"here"}, "times come from one machine"
    assert "rehearsal" in other.run("ls", machines.base / "store"), "it worked in its own store"
    expect_one_places_bits(out, arguments, tmp_path / "whole", monkeypatch)
