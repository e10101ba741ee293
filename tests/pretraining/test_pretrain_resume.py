"""A pretraining run that was stopped goes on as the same run, and as no other."""

import json
import math
import shutil
from pathlib import Path

import pytest
import tiny_comparison
import torch
from tiny_comparison import command
from tiny_pretraining import SMALL, Stopped, lines, quick_machine, small, stop_at, words

from riyaz import hardware
from riyaz.data.rows import Row
from riyaz.errors import RiyazError
from riyaz.families import llama
from riyaz.json_files import Lines
from riyaz.pretraining import run as running
from riyaz.pretraining import speed


@pytest.fixture(scope="module", autouse=True)
def machine(one_core: pytest.MonkeyPatch) -> None:
    quick_machine(one_core)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, text: Path) -> tuple[tiny_comparison.Told, Path]:
    """A finished run, and what it said; nobody writes into it."""
    out = tmp_path_factory.mktemp("done") / "out"
    return command("pretrain", text, *SMALL, "--out", out, "--json"), out


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """A run that was stopped after two steps, each with a checkpoint; nobody writes into it."""
    out = tmp_path_factory.mktemp("begun") / "out"
    with pytest.MonkeyPatch.context() as inner:
        stop_at(2, inner, KeyboardInterrupt())
        assert command("pretrain", text, *SMALL, "--checkpoint-every", 1, "--out", out).status == 130
    return out


def straight_and_resumed(
    text: Path, folder: Path, stop: int, patch: pytest.MonkeyPatch, *more: object
) -> tuple[Path, Path]:
    """The folders of a run that went straight on and of one that was stopped without a word and resumed."""
    arguments = ("pretrain", text, *SMALL, "--dropout", 0.1, "--checkpoint-every", 2, *more)
    patch.setattr(running.RunFolder, "clean", lambda folder: None)  # the last checkpoint stays to be looked at
    assert command(*arguments, "--out", folder / "straight").status == 0
    with pytest.MonkeyPatch.context() as inner:
        stop_at(stop, inner, Stopped())
        inner.setattr(running.Running, "stopped", lambda run: None)
        assert command(*arguments, "--out", folder / "resumed").status == 1
        assert json.loads((folder / "resumed/run.json").read_text())["status"] == "running"
    plan = json.loads((folder / "straight/plan.json").read_text())
    assert plan["plan"]["train"] == json.loads((folder / "resumed/plan.json").read_text())["plan"]["train"]
    assert command(*arguments, "--out", folder / "resumed", "--resume").status == 0
    return folder / "straight", folder / "resumed"


def same_run(straight: Path, resumed: Path) -> None:
    """Weights, optimiser, losses of every step and samples are equal to the bit."""
    for name in ("model.safetensors", "samples.jsonl", "tokenizer.json", "config.json"):
        assert (straight / name).read_bytes() == (resumed / name).read_bytes(), name
    last = sorted((straight / "work/train").glob("step-*"))[-1].name
    for name in ("masters.safetensors", "optimizer.safetensors"):
        paths = (folder / "work/train" / last / name for folder in (straight, resumed))
        assert len({path.read_bytes() for path in paths}) == 1, name
    timed = ("seconds", "tokens_s", "peak_share")
    losses = [[{k: v for k, v in entry.items() if k not in timed} for entry in lines(folder / "metrics.jsonl")]
              for folder in (straight, resumed)]  # fmt: skip
    assert losses[0] == losses[1] and len(losses[0]) > 1


@pytest.mark.parametrize("stop", [1, 5])
def test_a_resumed_run_is_the_same_run(text: Path, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    same_run(*straight_and_resumed(text, tmp_path, stop, monkeypatch))


def test_a_run_that_was_shortened_is_the_same_run_when_it_is_resumed(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock says that the budget is running out, at step 3 and at step 5."""
    asked = SMALL[: SMALL.index("--steps")] + SMALL[SMALL.index("--steps") + 2 :]
    arguments = ("pretrain", text, *asked, "--budget", "60s", "--dropout", 0.1, "--checkpoint-every", 2)
    monkeypatch.setattr(speed, "measured", lambda *_: 40.0)  # tokens per second
    monkeypatch.setattr(running.Running, "spent", lambda run: 1.0)  # seconds before it is planned
    monkeypatch.setattr(running.RunFolder, "clean", lambda folder: None)
    watched = running.Watch.clock

    def late(watch: running.Watch) -> float | None:
        before, step = watched(watch), watch.run.step
        return None if before is None else {3: 15.0, 5: 31.0}.get(step, 1.0)

    monkeypatch.setattr(running.Watch, "clock", late)
    told = command(*arguments, "--out", tmp_path / "straight")
    assert told.status == 0, told.err
    plan = json.loads((tmp_path / "straight/plan.json").read_text())["plan"]["train"]
    document = json.loads((tmp_path / "straight/run.json").read_text())
    steps = [step for step, _ in plan["changes"]]
    assert steps == [3, 5] and document["length"] == plan["changes"][-1][1] < plan["steps"]
    assert lines(tmp_path / "straight/metrics.jsonl")[-1]["step"] == document["length"]
    assert f"at the present speed the budget holds {document['length']} of {plan['steps']} steps" in told.err
    assert f"it took {document['length']} instead of {plan['steps']} steps" in " ".join(told.out.split())
    for stop in (4, 6):
        out = tmp_path / f"resumed-{stop}"
        with pytest.MonkeyPatch.context() as inner:
            stop_at(stop, inner, Stopped())
            inner.setattr(running.Running, "stopped", lambda run: None)
            assert command(*arguments, "--out", out).status == 1
        assert command(*arguments, "--out", out, "--resume").status == 0
        assert json.loads((out / "plan.json").read_text())["plan"]["train"] == plan
        same_run(tmp_path / "straight", out)


def test_a_damaged_checkpoint_is_said(text: Path, tmp_path: Path) -> None:
    arguments = ("pretrain", text, *SMALL, "--checkpoint-every", 2, "--out", tmp_path / "run")
    with pytest.MonkeyPatch.context() as inner:
        stop_at(5, inner, Stopped())
        assert command(*arguments).status == 1
    (masters,) = (tmp_path / "run" / "work/train").glob("step-*/masters.safetensors")
    masters.write_bytes(masters.read_bytes()[:-10])
    told = command(*arguments, "--resume")
    assert told.status == 0 and f"{masters.parent} is damaged; training continues from step 0" in told.err


def test_a_resumed_run_counts_on_as_many_threads(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)  # sums of another order are other sums
    with pytest.MonkeyPatch.context() as inner:
        stop_at(3, inner, Stopped())
        inner.setattr(hardware, "threads", lambda: 3)
        command("pretrain", text, *SMALL, "--out", tmp_path / "run")
    began = threads.copy()
    monkeypatch.setattr(hardware, "threads", lambda: 5)
    assert command("pretrain", text, *SMALL, "--out", tmp_path / "run", "--resume").status == 0
    assert {*began} == {3} and {*threads} == {3}


def test_a_stop_before_the_plan_begins_anew(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as inner:
        inner.setattr(running._Pretraining, "_decide", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        told = command("pretrain", text, *SMALL, "--seed", 7, "--out", out)
    assert told.status == 130 and told.err.splitlines()[-1] == "stopped; the same command with --resume goes on"
    begun = json.loads((out / "run.json").read_text())
    assert begun["status"] == "stopped" and begun["asked"]["seed"] == 7 and not (out / "plan.json").exists()
    (tmp_path / "other.txt").write_text(words(3, 300))
    for arguments, says in [
        ((text, "--seed", 8), "--seed 8 instead of 7"),
        ((text, "--lr", 0.1), "--lr 0.1 instead of none"),
        (("--tokenizer", "chars"), "--tokenizer chars instead of bytes"),
        ((tmp_path / "other.txt",), "another text ("),
    ]:
        told = command("pretrain", *arguments, "--out", out, "--resume")
        assert told.status == 2 and "the run in this folder is another: " in told.err and says in told.err
    assert command("pretrain", "--out", out, "--resume").status == 0  # nothing need be said again
    ended = json.loads((out / "run.json").read_text())
    assert ended["asked"] == begun["asked"] and ended["command"] == begun["command"] and len(ended["resumed"]) == 1
    plan = json.loads((out / "plan.json").read_text())
    assert plan["plan"]["effective"] | {"seed": 7, "steps": 6, "width": 32} == plan["plan"]["effective"]
    assert plan["tokenizer"]["kind"] == "bytes"


def test_the_run_may_lie_among_its_texts(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text(words(1, 900))
    arguments = ("pretrain", tmp_path, *SMALL, "--checkpoint-every", 1, "--out", tmp_path / "fresh")
    with pytest.MonkeyPatch.context() as inner:
        stop_at(2, inner, KeyboardInterrupt())
        assert command(*arguments).status == 130  # metrics.jsonl, which is no text of ours, stands there now
    told = command(*arguments, "--resume")
    assert told.status == 0, told.err
    assert json.loads((tmp_path / "fresh/run.json").read_text())["text"]["files"] == 1


@pytest.mark.parametrize(
    "options", [("--size", "1m"), ("--batch", 100_000), ("--validate-every", 50, "--checkpoint-every", 1)]
)
def test_the_same_command_resumes(text: Path, tmp_path: Path, options: tuple) -> None:
    arguments = ("pretrain", text, *small(*options), "--out", tmp_path / "out")
    with pytest.MonkeyPatch.context() as inner:
        stop_at(2, inner, KeyboardInterrupt())
        assert command(*arguments).status == 130
    told = command(*arguments, "--resume")
    assert told.status == 0, told.err


def test_ctrl_c_is_one_line_and_the_folder_says_so(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as inner:
        stop_at(4, inner, KeyboardInterrupt())
        told = command("pretrain", text, *SMALL, "--out", out)
    assert told.status == 130
    assert told.err.splitlines()[-1] == "stopped at step 4; the same command with --resume goes on"
    assert json.loads((out / "run.json").read_text())["status"] == "stopped"
    told = command("pretrain", text, *SMALL, "--out", out)
    assert told.status == 2 and "holds a run already (stopped); add --resume" in told.err
    told = command("pretrain", "--resume", "--out", out)  # nothing need be said again
    assert told.status == 0 and json.loads((out / "run.json").read_text())["status"] == "done", told.err
    before = (out / "model.safetensors").stat().st_mtime_ns
    assert command("pretrain", "--resume", "--out", out).status == 0
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    told = command("pretrain", text, "--out", out)
    assert told.status == 2 and "holds a run already (done); choose another --out" in told.err


def test_another_run_is_not_resumed(done: tuple[tiny_comparison.Told, Path], text: Path, tmp_path: Path) -> None:
    _, out = done
    (tmp_path / "other.txt").write_text(words(3, 300))
    for arguments, says in [
        ((text, "--steps", 7), "--steps 7 instead of 6"),
        ((text, "--width", 64, "--seed", 4), "--width 64 instead of 32, --seed 4 instead of 0"),
        ((text, "--budget", "1h"), "--budget 1h instead of none"),
        ((text, "--tokenizer", "chars"), "--tokenizer chars instead of bytes"),
        ((tmp_path / "other.txt",), "another text ("),
    ]:
        told = command("pretrain", *arguments, "--out", out, "--resume")
        assert told.status == 2 and "the run in this folder is another: " in told.err and says in told.err
        assert len(told.err.splitlines()) == 1
    assert command("pretrain", text, *SMALL, "--out", out, "--resume").status == 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", [1]),
        ("run.json", "x"),
        ("run.json", None),
        ("run.json", {"asked": {"foo": 1}}),
        ("run.json", {"paths": [1]}),
        ("plan.json", []),
        ("plan.json", {}),
        ("plan.json", {"plan": {}}),
        ("plan.json", "threads"),
        ("plan.json", "versions"),
        ("metrics.jsonl", '{"step": 1}\n'),
        ("metrics.jsonl", 'what?\n{"step": 1, "seconds": 1}\n'),
        ("samples.jsonl", '{"texts": []}\n'),
    ],
)
def test_what_no_run_wrote_is_refused(begun: Path, tmp_path: Path, name: str, content: object) -> None:
    out = tmp_path / "out"
    shutil.copytree(begun, out)
    if content in ("threads", "versions"):  # a plan of before they were kept
        content = {key: value for key, value in json.loads((out / name).read_text()).items() if key != content}
    (out / name).write_text(content if name.endswith("l") else json.dumps(content))  # type: ignore[arg-type]
    told = command("pretrain", "--resume", "--out", out)
    line = f"{name}:1" if name.endswith("l") else name
    assert told.status == 2
    last = told.err.splitlines()[-1]
    assert last.startswith(f"error: {out / line}: ") and last.endswith("; choose another --out"), last


def test_a_damaged_run_is_in_the_way_all_the_same(text: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[1]")
    told = command("pretrain", text, *SMALL, "--out", tmp_path)
    assert told.status == 2 and "run.json: is damaged or of another version" in told.err


def test_other_versions_are_named(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, versions = tmp_path / "out", running.versions()
    shutil.copytree(begun, out)
    monkeypatch.setattr(running, "versions", lambda: versions | {"torch": "9.9", "python": "4.0"})
    with pytest.MonkeyPatch.context() as inner:
        stop_at(4, inner, KeyboardInterrupt())
        told = command("pretrain", "--resume", "--out", out)
    said = f"resumed with python 4.0 instead of {versions['python']}, torch 9.9 instead of {versions['torch']}"
    assert said in " ".join(told.err.split()) and "the result may differ" in " ".join(told.err.split())
    monkeypatch.undo()
    assert command("pretrain", "--resume", "--out", out).status == 0
    document = json.loads((out / "run.json").read_text())
    assert document["versions"] == versions and document["resumed_with"] == {"python": "4.0", "torch": "9.9"}


def test_a_tokenizer_that_changed_is_named(text: Path, tmp_path: Path) -> None:
    tokenizer, out = tmp_path / "tok", tmp_path / "out"
    assert command("tokenizer", text, "--kind", "bytes", "--out", tokenizer).status == 0
    arguments = ("pretrain", text, *small("--tokenizer", tokenizer), "--checkpoint-every", 1, "--out", out)
    with pytest.MonkeyPatch.context() as inner:
        stop_at(2, inner, KeyboardInterrupt())
        assert command(*arguments).status == 130
        assert command(*arguments, "--resume").status == 130  # it is the same
    assert command("tokenizer", text, "--kind", "bpe", "--vocab", 280, "--out", tokenizer).status == 0
    told = command(*arguments, "--resume")
    assert told.status == 2 and f"--tokenizer {tokenizer} has changed" in told.err
    shutil.rmtree(tokenizer)
    told = command(*arguments, "--resume")
    assert told.status == 2 and f"{tokenizer}: there is no tokenizer.json" in told.err
    assert command("pretrain", "--resume", "--out", out).status == 0  # it has a copy of what it began with


def test_the_order_of_the_texts_counts(begun: Path, text: Path) -> None:
    told = command("pretrain", text / "two.md", text / "one.txt", "--resume", "--out", begun)
    assert told.status == 2 and "another text (other contents or another order)" in told.err


def test_resuming_needs_only_the_disk_that_is_missing(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(begun, tmp_path / "out")
    need = json.loads((begun / "plan.json").read_text())["plan"]["estimate"]["disk_mb"] * hardware.MB
    held = sum(path.stat().st_size for path in (begun / "work/train").rglob("*") if path.is_file())
    assert 0 < held < need
    for free, status in ((need - held - 1, 2), (need - held + 1, 0)):
        monkeypatch.setattr(hardware, "disk_free", lambda path, free=free: free)
        assert command("pretrain", "--resume", "--out", tmp_path / "out").status == status


def test_what_killed_writes_left_is_swept(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".lock").touch()
    (out / ".run.json.riyaz-4194304.tmp").touch()  # above the largest number of a process
    with pytest.MonkeyPatch.context() as inner:
        stop_at(2, inner, KeyboardInterrupt())
        assert command("pretrain", text, *SMALL, "--out", out, "--resume").status == 130
    (out / "work/model").mkdir()
    for name in (".metrics.jsonl", "work/text/.tokens.bin", "work/model/.model.safetensors"):
        (out / f"{name}.riyaz-4194304.tmp").touch()
    with pytest.MonkeyPatch.context() as inner:
        inner.setattr(running.RunFolder, "clean", lambda folder: None)
        assert command("pretrain", "--out", out, "--resume").status == 0
    assert not list(out.rglob(".*.tmp"))


@pytest.mark.parametrize("value", ['"a"', "[]", "true", "NaN", "1" + "0" * 400])
@pytest.mark.parametrize("name", ["seconds", "bits_per_byte"])
def test_steps_with_figures_that_are_no_numbers_are_refused(tmp_path: Path, name: str, value: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "seconds": 1, "bits_per_byte": null}\n')
    assert len(Lines(path, "seconds", optional=("bits_per_byte",)).entries()) == 1
    path.write_text(f'{{"step": 1, "seconds": 1, "{name}": {value}}}\n')
    with pytest.raises(RiyazError, match=r"metrics\.jsonl:1: is damaged"):
        Lines(path, "seconds", optional=("bits_per_byte",)).entries()


def test_lines_drop_what_a_killed_run_wrote_too_much(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"step": 1, "a": "ü"}\n{"step": 2}\n{"step": 3}\n{"step"')
    held = Lines(path)
    held.add({"step": 3, "p": math.inf})
    held.add({"step": 4})
    held.close()
    assert lines(path) == [{"step": 1, "a": "ü"}, {"step": 2}, {"step": 3, "p": None}, {"step": 4}]
    path.write_text('{"st\n{"step": 2}\n')
    with pytest.raises(RiyazError, match="is damaged") as error:
        Lines(path).add({"step": 3})
    assert error.value.where == f"{path}:1" and len(path.read_text().splitlines()) == 2


def test_a_measurement_removes_what_a_killed_one_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen: list[Path] = []

    def train(
        model: object, rows: object, valid: object, plan: object, scratch: Path, *_: object, **__: object
    ) -> None:
        seen.append(scratch)

    monkeypatch.setattr("riyaz.train.train", train)
    monkeypatch.setattr(speed, "step_seconds", lambda run: [run(print), 1.0][1])
    config = llama.fresh_config(256, 32, 2, 2, 32)
    for _ in range(2):
        speed.measured(config, [Row((1,), (2,))], "float32", 32, 0)
        assert list(tmp_path.iterdir()) == []
        seen[-1].mkdir()  # as SIGKILL leaves it
    assert not seen[0].exists() and seen[0] != seen[1]
