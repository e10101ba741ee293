"""Arms at several places, each a command that starts a process: the bits of one place, whatever is lost on the way."""

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest
import tiny_comparison
from running_command import Running, alive
from spoiled_worker import is_held, spoiled
from tiny_comparison import command, files
from waiting import until

from riyaz.comparison import placed
from riyaz.results import Comparison

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_core")]

# A place as a test wants it: `python place.py NAME PYTHON -m riyaz.comparison.at_place`. It reads the order and hands
# it on, unless the file NAME.py beside it, run with the order as `order`, says otherwise.
PLACE = """
import json, os, subprocess, sys, threading
here, name, command = os.path.dirname(__file__), sys.argv[1], sys.argv[2:]
order = json.loads(sys.stdin.buffer.readline())
spoil = os.path.join(here, name + ".py")
if os.path.exists(spoil):
    exec(open(spoil).read())
child = subprocess.Popen(command, stdin=subprocess.PIPE)
child.stdin.write(json.dumps(order).encode() + b"\\n")
child.stdin.flush()
def pass_end():
    sys.stdin.buffer.read()
    child.stdin.close()
threading.Thread(target=pass_end, daemon=True).start()
os._exit(child.wait())
"""
IS_LORA = 'order["arguments"][:1] == ["fit"] and order["arguments"][2] == "lora"'
MADE = ("artifact/adapter_model.safetensors", "predictions.jsonl")


class Places:
    """Two places, a and b, and what they do to orders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "places"
        self.folder.mkdir()
        (self.folder / "place.py").write_text(PLACE)

    def named(self, *names: str) -> str:
        """The value of --places."""
        commands = {name: f"{sys.executable} {self.folder / 'place.py'} {name}" for name in names if name != "here"}
        return ",".join(commands.get(name, name) for name in names)

    def spoil(self, name: str, code: str) -> None:
        (self.folder / f"{name}.py").write_text(code)


@pytest.fixture
def two(tmp_path: Path) -> Places:
    return Places(tmp_path)


@pytest.fixture
def asking(asked: tuple, tmp_path: Path) -> tuple:
    """The command line of a comparison of two arms."""
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(9, "today"))
    return ("compare", tmp_path / "data", *asked[:-1], "--methods", "nearest,lora")


def expect_one_places_bits(out: Path, asking: tuple, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine makes alone from the same plan is what the places have made, file by file."""
    tiny_comparison.workers_inside(monkeypatch, as_processes=True)
    whole.mkdir()
    for name in ("settings.json", "plan.json", "measured.json", "base.json", "base_kl.safetensors"):
        shutil.copy(out / name, whole / name)
    told = command(*asking, "--out", whole)
    assert told.status == 0, told.err
    for part in sorted(path.name for path in (whole / "arms/lora").iterdir()):
        for name in MADE:
            made, alone = (folder / "arms/lora" / part / name for folder in (out, whole))
            assert made.read_bytes() == alone.read_bytes(), (part, name)
    there, here = (
        [(arm.name, arm.status, arm.score, arm.seeds) for arm in Comparison.read(folder / "compare.json").arms]
        for folder in (out, whole)
    )
    assert there == here
    # without what processes and places leave
    found = {name for name in files(out) if not name.startswith("places") and not name.endswith("log.txt")}
    assert found - {"measure.log"} == files(whole)


def test_two_places_make_what_one_makes(
    two: Places, asking: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(placed, "pieces_within", lambda rules, *plan: placed.pieces_of(*plan, apart=True))
    monkeypatch.setattr(placed, "_slowness", lambda *measured: 1.0)  # however busy this machine is
    asking = (*asking, "--seeds", 2)
    told = command(*asking, "--places", two.named("a", "here"), "--out", out)
    assert told.status == 0, told.err
    comparison = Comparison.read(out / "compare.json")
    assert [arm.status for arm in comparison.arms] == ["ok", "ok"], told.err
    turns = comparison.schedule
    assert turns is not None and all(turn.outcome == "done" for turn in turns)
    assert {turn.place for turn in turns if turn.work == "evaluate"} == {"here"}, "times come from one machine"
    fits = {turn.arm: turn for turn in turns if turn.work == "fit" and turn.part == "kept"}
    searches = [turn for turn in turns if turn.work == "search"]
    assert {(turn.arm, turn.part) for turn in searches} == {("lora", "kept")} and len(
        {turn.rate for turn in searches}
    ) == 2
    assert {turn.place.split()[-1] for turn in searches} == {"a", "here"}, "the openings at once"
    assert max(turn.began for turn in searches) <= fits["nearest"].began, "the longest comes first"
    lora = comparison.arm("lora")
    assert lora is not None and lora.place == fits["lora"].place and [one.seed for one in lora.seeds or []] == [0, 1]
    assert not (out / "places/unfinished").exists()
    expect_one_places_bits(out, asking, tmp_path / "whole", monkeypatch)


def test_a_killed_command_goes_on_and_a_lost_place_changes_no_bit(
    two: Places, asking: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    asked = (*asking, "--places", two.named("a", "b"), "--out", out)
    running = Running(asked, **spoiled(tmp_path / "spoil", "fit-lora", "hold"))
    until(lambda: is_held(tmp_path / "spoil"), "a worker that trains lora")
    running.process.kill()
    assert running.end() == -signal.SIGKILL
    until(lambda: not alive(out), "the end of each place, which hears that its stdin has ended")
    assert not (out / "compare.json").exists()
    left = [turn for turn in json.loads((out / "places.json").read_text())["turns"] if turn["ended"] is None]
    (begun,) = (turn for turn in left if (turn["arm"], turn["work"], turn["part"]) == ("lora", "fit", "kept"))

    place = begun["place"].split()[-1]  # which goes on with it
    once = "os.path.exists(here + '/once')"
    two.spoil(place, f"if {IS_LORA} and not {once}:\n    open(here + '/once', 'w'); os._exit(7)")
    running = Running(asked)
    assert running.end() == 0, running.lines
    comparison = Comparison.read(out / "compare.json")
    assert [arm.status for arm in comparison.arms] == ["ok", "ok"], running.lines
    assert any("was lost while it fitted lora" in line for line in running.lines), running.lines
    lora = [turn for turn in comparison.schedule or [] if turn.arm == "lora" and turn.work == "fit"]
    assert [turn.outcome for turn in lora if turn.part == "kept"] == ["lost", "lost", "done"]
    expect_one_places_bits(out, asking, tmp_path / "whole", monkeypatch)
