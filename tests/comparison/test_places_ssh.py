"""Comparisons on machines of their own, each behind a real sshd: the bits of one place, and what is refused before any
work; skipped where there can be no such machines."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import ssh_places
import tiny_bert
import tiny_comparison
import tiny_llama
from ssh_places import Machines
from test_places import expect_one_places_bits
from tiny_comparison import Told, command

from riyaz.comparison.at_place import own_version
from riyaz.results import Comparison
from riyaz.sources import open_source

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_core")]

PAGE = " (see docs/from-one-machine-to-a-thousand.md#a-comparison-on-several-machines)"


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """No machine yet."""
    if why := ssh_places.lacking():
        pytest.skip(f"no machines behind sshd: {why}")
    with ssh_places.machines(tmp_path) as made:
        yield made


@pytest.fixture
def arguments(machines: Machines, asked: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple:
    """The command line of a comparison whose model and store lie where each machine has its own."""
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(9, "today"))
    monkeypatch.setenv("RIYAZ_HOME", str(machines.base / "store"))
    tiny_llama.write_hf_folder(machines.base / "models/tiny", seed=1)
    return ("compare", tmp_path / "data", *asked[2:-1], "--model", machines.base / "models/tiny",
            "--methods", "nearest,lora", "--seeds", 2)  # fmt: skip


def compare(machines: Machines, arguments: tuple, *places: str) -> tuple[Told, Path]:
    """What the command says, and its folder, which all machines see."""
    out = machines.shared / "out"
    return command(*arguments, "--places", ",".join(places), "--out", out), out


def test_two_machines_make_what_one_makes(
    machines: Machines, arguments: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_bert.keep(machines.base / "store")
    two = [machines.add(host) for host in "ab"]
    for machine in two:
        machine.copy(machines.base / "models")
        machine.copy(machines.base / "store/models")
    told, out = compare(machines, arguments, *(machine.name for machine in two))
    assert told.status == 0, told.err
    comparison = Comparison.read(out / "compare.json")
    assert [arm.status for arm in comparison.arms] == ["ok", "ok"], told.err
    turns = comparison.schedule
    assert turns is not None and all(turn.outcome == "done" for turn in turns)
    assert {turn.place for turn in turns if turn.work == "fit"} == {machine.name for machine in two}
    assert {turn.place for turn in turns if turn.work == "evaluate"} == {"here"}, "times come from one machine"
    for machine in two:
        assert "rehearsal" in machine.run("ls", machine.base / "store"), "it worked in its own store"
    expect_one_places_bits(out, arguments, tmp_path / "whole", monkeypatch)


def test_a_machine_without_the_model_is_refused(machines: Machines, arguments: tuple) -> None:
    told, out = compare(machines, arguments, machines.add("a").name, "here")
    model = machines.base / "models/tiny"
    assert told.status != 0 and f"{model}: the model is here and not there; put it at the same path there" in told.line
    assert not (out / "arms").exists()


def test_a_machine_with_another_model_is_refused(machines: Machines, arguments: tuple) -> None:
    model, machine = machines.base / "models/tiny", machines.add("a")
    right = open_source(str(model)).sha256()
    kept = shutil.move(model, machines.base / "right")
    tiny_llama.write_hf_folder(model, seed=2)
    wrong = open_source(str(model)).sha256()
    machine.copy(model)
    shutil.rmtree(model)
    shutil.move(kept, model)
    told, _ = compare(machines, arguments, machine.name)
    assert told.status != 0 and f"the model is {wrong[:12]} there and {right[:12]} here; put the same" in told.line


def test_a_machine_without_the_embedder_is_refused_where_a_method_uses_it(machines: Machines, arguments: tuple) -> None:
    machine = machines.add("a")
    machine.copy(machines.base / "models")
    tiny_bert.keep(machines.base / "store")
    told, _ = compare(machines, arguments, machine.name)
    what = "minilm, which nearest uses, is here and not there; run `riyaz pull minilm` there"
    assert told.status != 0 and told.line.endswith(what + PAGE)
    machine.copy(machines.base / "store/models")
    shutil.rmtree(machines.base / "store/models/minilm")
    told, _ = compare(machines, arguments, machine.name)
    what = "minilm, which nearest uses, is there and not here; run `riyaz pull minilm` here"
    assert told.status != 0 and told.line.endswith(what + PAGE)


def test_a_machine_with_another_version_is_refused(machines: Machines, arguments: tuple, tmp_path: Path) -> None:
    other = tmp_path / "other/riyaz-9.9.9.dist-info/METADATA"
    other.parent.mkdir(parents=True)
    other.write_text("Metadata-Version: 2.1\nName: riyaz\nVersion: 9.9.9\n")
    machine = machines.add("a", python_path=os.fspath(other.parents[1]))
    told, _ = compare(machines, arguments, machine.name)
    assert told.status != 0
    what = f"riyaz is 9.9.9 there and {own_version()} here; install the same version"
    assert told.line == f"error: {machine.name}: {what}{PAGE}"


def test_a_folder_that_is_not_shared_is_refused(machines: Machines, arguments: tuple) -> None:
    machine = machines.add("a", shared=False)
    machine.copy(machines.base / "models")
    told, out = compare(machines, arguments, machine.name)
    assert told.status != 0 and f"{out}: the folder is not the same there: it holds no mark there" in told.line
    assert told.line.endswith("choose an --out that all places see" + PAGE)


def test_a_machine_that_cannot_be_reached_is_refused(machines: Machines, arguments: tuple) -> None:
    machine = machines.add("a")
    machine.kill()
    told, _ = compare(machines, arguments, "here", machine.name)
    assert told.status != 0 and f"{machine.name}: cannot be used: ssh: connect to host " in told.line


def test_a_full_disk_at_a_machine_moves_its_arm(machines: Machines, arguments: tuple) -> None:
    full, other = machines.add("a"), machines.add("b")
    for machine in (full, other):
        machine.copy(machines.base / "models")
    places = ",".join(machine.name for machine in (full, other))
    out = machines.shared / "out"
    told = command(*arguments, "--places", places, "--out", out, "--dry-run")
    assert told.status == 0, told.err
    full.run("rm", "-r", full.base / "store/rehearsal")
    full.fill()
    told = command(*arguments, "--places", places, "--out", out)
    assert told.status == 0, told.err
    comparison = Comparison.read(out / "compare.json")
    assert [arm.status for arm in comparison.arms] == ["ok", "ok"], told.err
    lora = comparison.arm("lora")
    assert lora is not None and lora.place == other.name and lora.seeds and len(lora.seeds) == 2
    assert f"{full.name} could not fit lora" in told.err  # at first, or a seed's, if it was given `nearest` first
    assert "the disk is full" in told.err
    assert "it begins anew elsewhere" in told.err
