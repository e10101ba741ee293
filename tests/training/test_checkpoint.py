"""A run that was stopped at any moment, in any way, ends as the run that was not: equal to the last bit."""

import dataclasses
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from refusals import assert_refused
from small_llama import Stop, bits, counting_rows, random_rows, small_model, stopping_at

from riyaz import checkpoint, files, native
from riyaz.events import Event, Note, Progress, quiet
from riyaz.layers.swaps import lora
from riyaz.models.llama import Model
from riyaz.train import TrainPlan, TrainState, train

ROWS, VALID = counting_rows(), random_rows(9, 5)
PLAN = TrainPlan(steps=60, learning_rate=1e-2, validate_every=8, checkpoint_every=20, patience=9, batch_size=4)
SHORT = dataclasses.replace(PLAN, steps=6, validate_every=3, checkpoint_every=2, compute="float32")


def adapted(dtype: torch.dtype = torch.float32) -> Model:
    """Frozen base, fresh adapter."""
    model = small_model(dtype, layers=1)
    lora.apply(model, r=4, alpha=8, seed=0)
    return model


def adapted_bf16() -> Model:
    """Frozen bfloat16 base, fresh adapter."""
    return adapted(torch.bfloat16)


def whole() -> Model:
    return small_model(layers=1).requires_grad_(True)


def outcome(folder: Path, build: Callable[[], Model], plan: TrainPlan, listen=quiet, rows=ROWS) -> tuple:
    """Everything a run leaves, in bits; the optimiser's moments are seen in the weights that follow."""
    model = build()
    state = train(model, rows, VALID, plan, folder, listen)
    return bits(model.state_dict()), {**dataclasses.asdict(state), "seconds": 0}


def last_optimizer(folder: Path) -> bytes:
    """The moments in the newest checkpoint."""
    return (sorted(folder.glob("step-*"))[-1] / "optimizer.safetensors").read_bytes()


PRETRAINING = dataclasses.replace(PLAN, dropout=0.2, betas=(0.9, 0.95), weight_decay=0.1, final=0.0)


@pytest.fixture(
    scope="module", params=[(adapted_bf16, PLAN), (whole, PLAN), (whole, PRETRAINING)], ids=["lora", "full", "dropout"]
)
def straight(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """(build, plan, outcome, optimiser) of an undisturbed run of a plan."""
    folder = tmp_path_factory.mktemp("straight")
    return *request.param, outcome(folder, *request.param), last_optimizer(folder)


@pytest.mark.parametrize("step", [20, 57])
def test_stopped_and_resumed_is_straight_to_the_bit(tmp_path: Path, straight: tuple, step: int) -> None:
    build, plan, wanted, optimizer = straight
    with pytest.raises(Stop):
        outcome(tmp_path, build, plan, stopping_at(step))
    heard: list[int] = []
    assert outcome(tmp_path, build, plan, lambda event: heard.append(event.done)) == wanted
    assert heard[0] == (step - 1) // 20 * 20 + 1 and last_optimizer(tmp_path) == optimizer


# Trains the next step when it has been told to go on.
CHILD = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/../helpers"]
import torch
torch.set_num_threads(1)
import test_checkpoint as test
def told(event):
    print(event.done, flush=True)
    sys.stdin.readline()
test.outcome(Path(sys.argv[2]), test.whole, test.PLAN, told)
"""


@pytest.mark.slow
def test_killed_at_a_random_moment_and_resumed_is_straight_to_the_bit(tmp_path: Path) -> None:
    wanted = outcome(tmp_path / "straight", whole, PLAN)
    run, seed = tmp_path / "run", random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        last, turns = chance.randint(21, 55), chance.randrange(100_000)
        assert child.stdin is not None and child.stdout is not None
        for line in child.stdout:
            child.stdin.write("\n")
            child.stdin.flush()
            if int(line) >= last:
                break
        for _ in range(turns):  # while the child trains the next step, and waits at its end
            pass
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL and list(run.glob("step-0000[24]0"))
    heard: list[int] = []
    found = outcome(run, whole, PLAN, lambda event: heard.append(event.done))
    assert found == wanted, f"seed {seed}, killed after step {last}"
    assert heard[0] in (21, 41)


def test_stopped_at_any_file_operation_and_resumed_is_straight_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies before the first, second, … of the operations that change a folder, until a run has no more of them."""
    plan = dataclasses.replace(SHORT, steps=3, validate_every=2, checkpoint_every=1, batch_size=2)
    wanted = outcome(tmp_path / "straight", adapted, plan)
    for number in range(1, 100):
        folder, left = tmp_path / str(number), number

        def counted(operation: Callable) -> Callable:
            def call(*args, **kwargs):
                nonlocal left
                left -= 1
                if left == 0:
                    raise Stop
                return operation(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for owner, name in ((os, "rename"), (os, "replace"), (os, "mkdir"), (os, "fsync"), (shutil, "rmtree")):
                patch.setattr(owner, name, counted(getattr(owner, name)))
            patch.setattr(Path, "write_text", counted(Path.write_text))
            with suppress(Stop):
                outcome(folder, adapted, plan)
        if left > 0:
            break
        assert outcome(folder, adapted, plan) == wanted, f"stopped before operation {number}"
    assert number > 20


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """The outcome of an undisturbed run of SHORT."""
    return outcome(tmp_path_factory.mktemp("short"), adapted, SHORT)


def stopped_run(folder: Path, step: int = 5) -> list[Path]:
    """A run of SHORT that ended after `step`; its checkpoints."""
    with pytest.raises(Stop):
        outcome(folder, adapted, SHORT, stopping_at(step))
    return sorted(folder.glob("step-*"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def emptied(path: Path) -> None:
    path.write_text("{}")


def listed(path: Path) -> None:
    path.write_text("[]")


FILES = ("masters.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json")


DAMAGE = [(name, damage) for name in FILES for damage in (truncate, flip, Path.unlink)]


@pytest.mark.parametrize(
    ("name", "damage"), [*DAMAGE, ("MANIFEST.json", emptied), ("MANIFEST.json", listed)], ids=lambda x: str(x)[:20]
)
def test_a_damaged_checkpoint_is_passed_over_and_written_anew(
    tmp_path: Path, short: tuple, name: str, damage: Callable[[Path], None]
) -> None:
    (folder,) = stopped_run(tmp_path, step=3)
    assert folder.name == "step-000002"
    damage(folder / name)
    heard: list = []
    assert outcome(tmp_path, adapted, SHORT, heard.append) == short
    assert heard[0].text == f"{folder} is damaged; training continues from step 0" and heard[1].done == 1
    stopped_run(tmp_path)  # the new one verifies


STRANGE = {
    "state.json": [b"7", b"\xae", b'{"step": 2, "a": 1}', b'{"step": "2"}', b'{"step": true}', b'{"history": [3]}'],
    "masters.safetensors": [b"", (2).to_bytes(8, "little") + b"{}"],
}


@pytest.mark.parametrize(("name", "content"), [(name, each) for name, some in STRANGE.items() for each in some])
def test_a_strange_checkpoint_with_right_hashes_is_passed_over(
    tmp_path: Path, short: tuple, name: str, content: bytes
) -> None:
    (folder,) = stopped_run(tmp_path, step=3)
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "MANIFEST.json").read_text("utf-8"))
    manifest["files"][name] = hashlib.sha256(content).hexdigest()
    (folder / "MANIFEST.json").write_text(json.dumps(manifest), "utf-8")
    heard: list = []
    assert outcome(tmp_path, adapted, SHORT, heard.append) == short
    assert heard[0].text == f"{folder} is damaged; training continues from step 0"


def test_a_damaged_newer_checkpoint_does_not_outlive_a_sound_one(tmp_path: Path, short: tuple) -> None:
    (folder,) = stopped_run(tmp_path)
    truncate(folder / "masters.safetensors")
    stopped_run(tmp_path, step=3)
    heard: list[int] = []
    assert outcome(tmp_path, adapted, SHORT, lambda event: heard.append(event.done)) == short
    assert heard[0] == 3  # the sound one of step 2 was kept


def test_a_run_that_other_kernels_continue_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Event] = []

    def part(trainer: str, step: int) -> list[str]:
        heard.clear()
        monkeypatch.setattr(native, "trainer", lambda: trainer)
        with suppress(Stop):
            outcome(tmp_path, adapted, SHORT, lambda event: [heard.append(event), stopping_at(step)(event)])
        return [event.text for event in heard if isinstance(event, Note)]

    assert part("torch", 3) == part("torch", 3) == []
    said = "training began with torch and continues from step 2 with C++ (avx2); its weights will differ a little"
    assert part("C++ (avx2)", 5) == [said]
    assert part("C++ (avx2)", 9) == [], "the checkpoint of step 4 is already theirs"


def test_a_half_written_checkpoint_is_no_checkpoint(tmp_path: Path, short: tuple) -> None:
    (folder,) = stopped_run(tmp_path)
    half = folder.rename(folder.with_name("step-000004.tmp"))
    (half / "MANIFEST.json").unlink()
    assert outcome(tmp_path, adapted, SHORT) == short
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-000004"]


@pytest.mark.parametrize("change", [{"learning_rate": 2e-2}, {"seed": 5}, {"steps": 7}, {"weight_decay": 0.3}], ids=str)
def test_another_plan_starts_anew(tmp_path: Path, change: dict) -> None:
    plan = dataclasses.replace(SHORT, **change)
    wanted = outcome(tmp_path / "straight", adapted, plan)
    stopped_run(tmp_path / "run")
    assert outcome(tmp_path / "run", adapted, plan) == wanted


def test_other_rows_and_other_weights_start_anew(tmp_path: Path) -> None:
    wanted = outcome(tmp_path / "straight", adapted, SHORT, rows=ROWS[1:])
    stopped_run(tmp_path / "run")
    assert outcome(tmp_path / "run", adapted, SHORT, rows=ROWS[1:]) == wanted
    stopped_run(tmp_path / "other")
    assert outcome(tmp_path / "other", whole, SHORT) == outcome(tmp_path / "full", whole, SHORT)


def test_the_best_weights_of_another_run_are_never_taken(tmp_path: Path) -> None:
    outcome(tmp_path, adapted, SHORT)
    unmoved = {name: weight for name, weight in adapted().named_parameters() if weight.requires_grad}
    before = bits(unmoved)
    assert not checkpoint.Checkpoints(tmp_path, "another run").load_best(unmoved)
    assert bits(unmoved) == before


def test_better_weights_from_after_the_checkpoint_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = dataclasses.replace(SHORT, validate_every=1)
    losses = iter([3.0, 2.0, 1.5, 2.1, 2.2, 2.3, 2.4])  # stopped after step 3; what was resumed counts otherwise
    monkeypatch.setattr("riyaz.train.answer_loss", lambda *_: next(losses))
    with pytest.raises(Stop):
        outcome(tmp_path, adapted, plan, stopping_at(3))
    heard: list = []
    _, state = outcome(tmp_path, adapted, plan, heard.append)
    assert heard[0].done == 3 and (state["best_step"], state["best_loss"]) == (3, 1.5)
    assert not any(isinstance(event, Note) for event in heard)


def damaged_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def without_loss(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"loss":', b'"lose":', 1))


def with_a_word_as_loss(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"loss":"2.0"', b'"loss":"two"', 1))


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink, damaged_header, without_loss, with_a_word_as_loss])
def test_damaged_best_weights_are_never_taken_and_the_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    losses = iter([2.0, 3.0])  # the best is that of step 3, the last that of step 6
    monkeypatch.setattr("riyaz.train.answer_loss", lambda *_: next(losses))
    notes = []

    def listen(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)
        elif isinstance(event, Progress) and event.done == 5:
            damage(tmp_path / "best.safetensors")

    _, state = outcome(tmp_path, adapted, SHORT, listen)
    assert (state["best_step"], state["best_loss"]) == (6, 3.0)
    (note,) = notes
    assert "best.safetensors" in note and "the last weights are kept" in note


def test_one_checkpoint_is_kept(tmp_path: Path) -> None:
    outcome(tmp_path, adapted, SHORT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "state.json", "step-000004"]
    assert sorted(path.name for path in (tmp_path / "step-000004").iterdir()) == sorted(FILES)


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("owner", "name"),
    [(os, "fsync"), (os, "rename"), (os, "mkdir"), (checkpoint, "file_sha256")],
    ids=["fsync", "rename", "mkdir", "hash"],
)
def test_a_full_disk_leaves_the_checkpoint_before_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    plan = dataclasses.replace(SHORT, validate_every=100)

    def fill(event: Event) -> None:
        if isinstance(event, Progress) and event.done == 3:
            patch.setattr(owner, name, full_disk)

    with monkeypatch.context() as patch, assert_refused(str(tmp_path), "step-000004", "cannot write a checkpoint"):
        outcome(tmp_path, adapted, plan, fill)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000002"]
    heard: list[int] = []
    outcome(tmp_path, adapted, plan, lambda event: heard.append(event.done))
    assert heard[0] == 3


def test_a_full_disk_at_the_best_weights_or_the_last_state_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, assert_refused("the disk is full", "best.safetensors"):
        patch.setattr(files.os, "fsync", full_disk)
        outcome(tmp_path / "a", adapted, dataclasses.replace(SHORT, checkpoint_every=100))
    with monkeypatch.context() as patch, assert_refused("the disk is full", "state.json"):
        outcome(tmp_path / "b", adapted, SHORT, lambda e: e.done == 6 and patch.setattr(files.os, "fsync", full_disk))


def test_a_finished_run_repeats_its_end(tmp_path: Path) -> None:
    wanted = outcome(tmp_path, adapted, SHORT)
    assert outcome(tmp_path, adapted, SHORT) == wanted
    assert TrainState(**json.loads((tmp_path / "state.json").read_text())).step == 6


@pytest.mark.slow
def test_reading_a_checkpoint_needs_no_memory_for_the_file_beside_the_tensors(tmp_path: Path) -> None:
    script = f"""
import torch
from pathlib import Path
from riyaz.checkpoint import read_tensors, write_tensors
from riyaz.hardware import MB, peak_rss
from riyaz.sources import safetensors
into = {{str(i): torch.zeros(4 << 20) for i in range(8)}}
for tensor in into.values():
    tensor.fill_(1.0)
path = Path({str(tmp_path / "moments.safetensors")!r})
write_tensors(path, into)
before = peak_rss()
read_tensors(safetensors.read(path), into)
assert all((tensor == 1).all() for tensor in into.values())
print((peak_rss() - before) // MB)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 48, "of 128 MB: one tensor of the file and its copy"
